"""Messages that call tools reach the chat template whole; what cannot be shown, or has no text, is an error."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from cvxrelu.support.errors import InputError
from cvxrelu_llm.models.templates import Template
from cvxrelu_llm.preferences.messages import Message, ToolMessage, read_messages, same_text
from cvxrelu_llm.preferences.triples import load_triples

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Rome"}}}
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "How warm is it in Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "21 degrees"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
RECORD = {"prompt": TURNS, "chosen": "It is 21 degrees.", "rejected": "I cannot know.", "tools": TOOLS}
SHOWN = (
    "{% if tools %}<tools>{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
UNSHOWN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


class Tokenizer:
    """Characters as tokens, behind transformers' own rendering of templates."""

    def __init__(self, template: str) -> None:
        self.chat_template = template

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}

    def apply_chat_template(self, messages: list[dict[str, Any]], tools: Any = None, **options: Any) -> str:
        rendering = pytest.importorskip("transformers.utils.chat_template_utils")
        found, _ = rendering.render_jinja_template(
            [messages], tools=tools, chat_template=self.chat_template,
            add_generation_prompt=options.get("add_generation_prompt", False),
        )  # fmt: skip
        return found[0]


def rendered(template: str, kind: str, prompt: Any) -> str:
    return "".join(map(chr, Template(Tokenizer(template), kind).prompt_tokens(prompt)))


def test_the_template_sees_calls_and_tools() -> None:
    prompt = load_triples([RECORD])[0].prompt
    assert rendered(SHOWN, "chat", prompt) == (
        f"<tools>{json.dumps(TOOLS)}<user>How warm is it in Rome?<assistant><call>weather "
        '{"place": "Rome"}<tool>21 degrees<assistant>'
    )


@pytest.mark.parametrize("less", ["tools", "tool_calls"])
def test_a_template_that_hides_them_is_an_error(less: str) -> None:
    template = SHOWN.replace("if tools", "if none") if less == "tools" else SHOWN.replace("m.tool_calls or []", "[]")
    with pytest.raises(InputError, match=f"shows no {less}, which the prompt that begins 'How warm"):
        rendered(template, "chat", load_triples([RECORD])[0].prompt)


def test_plain_text_holds_them_as_json() -> None:
    text = rendered(UNSHOWN, "plain", load_triples([RECORD])[0].prompt)
    assert json.dumps(CALL) in text and '"tools": [{"type"' in text and text.endswith("assistant: ")


def test_plain_messages_are_as_they_were() -> None:
    prompt = load_triples([{"prompt": TURNS[:1], "chosen": "a", "rejected": "b", "tools": []}])[0].prompt
    assert prompt == (("user", "How warm is it in Rome?"),) and type(prompt[0]) is Message


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
def test_a_saved_file_gives_the_same(tmp_path: Path, tools: Any) -> None:
    triples = load_triples([RECORD | {"tools": tools}])
    again = load_triples(triples.save(tmp_path / "pairs.jsonl"))
    assert again[0].prompt == triples[0].prompt and again.fingerprint == triples.fingerprint


def test_calls_and_tools_are_part_of_what_a_prompt_is() -> None:
    other = copy.deepcopy(RECORD)
    other["prompt"][1]["tool_calls"][0]["function"]["arguments"]["place"] = "Oslo"  # type: ignore[index]
    bare = {name: value for name, value in RECORD.items() if name != "tools"}
    prints = [load_triples([{**record, "group": "one"}]).fingerprint for record in (RECORD, other, bare)]
    assert len(set(prints)) == 3
    both = load_triples([RECORD, other, RECORD])
    assert both.counts["duplicate"] == 1 and both[0].group != both[1].group == both[1].group
    assert not same_text(both[0].prompt, both[1].prompt)


def test_messages_are_equal_by_all_they_hold() -> None:
    first, second = ToolMessage("tool", "21", {"name": "a"}), ToolMessage("tool", "21", {"name": "b"})
    assert first != second and first != Message("tool", "21") and Message("tool", "21") != first
    assert first == ToolMessage("tool", "21", {"name": "a"}) and hash(first) == hash(copy.copy(first))
    assert pickle.loads(pickle.dumps(first)) == first
    assert read_messages([first._asdict()], "here") == (first,)


@pytest.mark.parametrize("record", [
    RECORD | {"chosen": [{"role": "assistant", "content": "", "tool_calls": [CALL]}]},
    {"chosen": [*TURNS[:1], {"role": "assistant", "tool_calls": [CALL]}],
     "rejected": [*TURNS[:1], {"role": "assistant", "content": "No."}]},
    {"prompt": TURNS[:1], "completions": [[TURNS[1]], [{"role": "assistant", "content": "No."}]], "scores": [2, 1]},
])  # fmt: skip
def test_a_response_that_calls_is_an_error(record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a response that calls tools is not supported; give the call as text"):
        load_triples([record])


@pytest.mark.parametrize("tools", ["hammer", [1], {"name": "weather"}])
def test_tools_that_are_none(tools: Any) -> None:
    with pytest.raises(InputError, match="field 'tools'"):
        load_triples([RECORD | {"tools": tools}])


def test_rated_and_labelled_answers_keep_the_tools() -> None:
    rated = {"prompt": TURNS, "completions": ["a", "b"], "scores": [1, 2], "tools": TOOLS}
    alone = [
        {"prompt": TURNS, "completion": text, "label": label, "tools": TOOLS} for text, label in (("b", 1), ("a", 0))
    ]
    scored = [
        {"prompt": TURNS, "completion": text, "score": score, "tools": TOOLS} for text, score in (("b", 2), ("a", 1))
    ]
    asked = load_triples([RECORD])[0].prompt
    assert all(load_triples(rows)[0].prompt == asked for rows in ([rated], alone, scored))


def test_prompts_of_guidance_hold_tools() -> None:
    """Messages as a caller writes them, and those of a triple, are the same tokens."""
    decoding = pytest.importorskip("cvxrelu_llm.generation.scorers")
    written = [TURNS[0] | {"tools": TOOLS}, *TURNS[1:]]
    ids = decoding.as_tokens(Tokenizer(SHOWN), written)
    assert "".join(map(chr, ids.tolist())) == rendered(SHOWN, "chat", load_triples([RECORD])[0].prompt)
    assert decoding.as_tokens(Tokenizer(SHOWN), load_triples([RECORD])[0].prompt).tolist() == ids.tolist()
