"""Simulated conversations: who sees what, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_lm import make_lm, make_tokenizer

pytest.importorskip("transformers", reason="needs transformers: pip install 'cvxrelu[llm]'")

from cvxrelu_llm.generation import decoding
from cvxrelu_llm.generation import simulate as module
from cvxrelu_llm.generation.simulate import STUDENT, SUBJECTS, TUTOR, Speaker, simulate, write_conversations

FAST: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.5}


def speakers(chat: bool = True) -> tuple[Speaker, Speaker]:
    lm, tokenizer = make_lm(), make_tokenizer(chat)
    return Speaker(lm, tokenizer, TUTOR), Speaker(lm, tokenizer, STUDENT)


def scripted(monkeypatch: pytest.MonkeyPatch, replies: list[str], finished: bool = True) -> list[Any]:
    """Let the model say these, one after the other; returns the prompts it was given."""
    prompts: list[Any] = []

    def sample(lm: Any, tokenizer: Any, prompt: Any, **options: Any) -> list[Any]:
        prompts.append((prompt, options))
        text = replies[len(prompts) - 1]
        return [decoding.Generation(text, (0,), None, decoding.KLCost("bound", 0.0), finished, 1, 1)]

    monkeypatch.setattr(decoding, "sample", sample)
    return prompts


@pytest.mark.parametrize("chat", [True, False])
def test_conversations_alternate_and_are_reproducible(chat: bool, tmp_path: Path) -> None:
    options = {**FAST, "subjects": ["ba", "de"], "n": 2, "turns": 5}
    one = list(simulate(*speakers(chat), **options, seed=1))
    assert (
        one == list(simulate(*speakers(chat), **options, seed=1)) != list(simulate(*speakers(chat), **options, seed=2))
    )
    assert len(one) >= 3 and len({c["id"] for c in one}) == len(one)
    for conversation in one:
        roles = [message["role"] for message in conversation["messages"]]
        assert 4 <= len(roles) <= 5 and roles == ["student", "tutor", "student", "tutor", "student"][: len(roles)]
        contents = [message["content"] for message in conversation["messages"]]
        assert all(text == text.strip() != "" for text in contents) and len(set(contents)) == len(contents)
    path = write_conversations(tmp_path / "out.jsonl", one)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == one


def test_each_speaker_sees_its_own_side(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = scripted(monkeypatch, ["s1", "t1", "s2", "t2"])
    tutor, student = speakers()
    monkeypatch.setattr(type(tutor.tokenizer), "apply_chat_template", lambda self, messages, **options: messages)
    (conversation,) = simulate(tutor, student, subjects=["fish"], turns=4)
    assert [m["content"] for m in conversation["messages"]] == ["s1", "t1", "s2", "t2"]
    seen = [[(m["role"], m["content"]) for m in prompt] for prompt, _ in prompts]
    begin = ("user", "Begin: ask your tutor something about fish.")
    assert seen[0] == [("system", STUDENT.replace("{subject}", "fish")), begin]
    assert seen[3] == [
        ("system", TUTOR.replace("{subject}", "fish")),
        ("user", "s1"),
        ("assistant", "t1"),
        ("user", "s2"),
    ]
    assert seen[2][1:] == [begin, ("assistant", "s1"), ("user", "t1")]
    assert len({options["seed"] for _, options in prompts}) == 4


def test_a_template_without_system_role_gets_the_persona_in_the_first_message() -> None:
    tutor, _ = speakers()
    tutor.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
    )
    ids = module._prompt(Speaker(tutor.lm, tutor.tokenizer, "ba be"), "student", "fish", [])
    assert tutor.tokenizer.convert_ids_to_tokens(ids)[2:4] == ["ba", "be"]
    tutor.tokenizer.chat_template = "{{ messages[0]['role'] / 2 }}"
    with pytest.raises(TypeError):
        module._prompt(tutor, "tutor", "fish", [])


def test_replies_are_cut_where_they_speak_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        "Student: why?\nTutor: because",
        "So it is.\n\nStudent: I see",
        "Really?",
        "Yes: really. Note: no\nUSER : x",
    ]
    scripted(monkeypatch, texts)
    (conversation,) = simulate(*speakers(chat=False), subjects=["fish"], turns=4)
    assert [m["content"] for m in conversation["messages"]] == ["why?", "So it is.", "Really?", "Yes: really. Note: no"]


def test_replies_that_were_cut_off_lose_their_last_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["It is 1.5 m. Or is", 'He said (why?) and "no!" Then he', "no end at", "All of it. And this\nTutor: x"]
    scripted(monkeypatch, texts, finished=False)
    (conversation,) = simulate(*speakers(chat=False), subjects=["fish"], turns=4)
    said = [m["content"] for m in conversation["messages"]]
    assert said == ["It is 1.5 m.", 'He said (why?) and "no!"', "no end at", "All of it. And this"]


def test_empty_and_repeated_replies_are_drawn_again_and_short_conversations_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = scripted(monkeypatch, ["", "a", "b", "a", " ", "c", "d", "e"])
    (conversation,) = simulate(*speakers(chat=False), subjects=["fish"], turns=5)
    assert [m["content"] for m in conversation["messages"]] == ["a", "b", "c", "d", "e"]
    assert len(prompts) == 8
    scripted(monkeypatch, ["a", "b", "c", "a", "b", "c", "x", "y", "z", "w", "", "", ""])
    assert [len(c["messages"]) for c in simulate(*speakers(chat=False), subjects=["one", "two"], turns=6)] == [4]


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="turns must be a whole number from 4, got 3"):
        simulate(*speakers(), turns=3)
    with pytest.raises(ValueError, match="n must be a whole number from 1, got 0"):
        simulate(*speakers(), n=0)
    for subjects in ([], "photosynthesis"):
        with pytest.raises(ValueError, match="subjects must be a list of at least one"):
            simulate(*speakers(), subjects=subjects)
    with pytest.raises(ValueError, match="seed must be"):
        simulate(*speakers(), seed=-1)
    assert len(set(SUBJECTS)) == len(SUBJECTS)
