"""The alternating population, against a definition by indices."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxrelu.support.errors import InputError
from cvxrelu_llm.preferences.conversations import alternate


def conversation(roles: str, name: object = None) -> dict[str, object]:
    """Roles as letters, s and t; the texts are the numbers of the messages."""
    words = {"s": "student", "t": "tutor", "x": "system"}
    record = {"messages": [{"role": words[role], "content": str(i)} for i, role in enumerate(roles)]}
    return record if name is None else {**record, "id": name}


def expected(roles: str) -> list[tuple[list[str], str, str]]:
    """Turns are maximal runs; for each run of s: the history, the next run of t, and the one after that."""
    bounds = [0, *[i for i in range(1, len(roles)) if roles[i] != roles[i - 1]], len(roles)]
    runs = ["\n".join(map(str, range(a, b))) for a, b in pairwise(bounds)]
    kinds = [roles[a] for a in bounds[:-1]]
    return [
        (runs[: k + 1], runs[k + 1], runs[k + 3]) for k in range(len(runs)) if kinds[k] == "s" and k + 3 < len(runs)
    ]


@given(st.text("st", min_size=4, max_size=12))
def test_against_the_definition(roles: str) -> None:
    wanted = expected(roles)
    if not wanted:
        with pytest.raises(InputError, match="no triples"):
            alternate([conversation(roles)])
        return
    triples = alternate([conversation(roles)])
    assert [([m.content for m in t.prompt], t.chosen, t.rejected) for t in triples] == wanted
    assert all(m.role in ("user", "assistant") for t in triples for m in t.prompt)
    assert all(t.prompt[-1].role == "user" for t in triples)


def test_no_wrap_around_and_one_group_per_conversation() -> None:
    triples = alternate([conversation("ststst", 7), conversation("tststst", 8)])
    assert [t.group for t in triples] == ["7", "7", "8", "8"]
    assert "0" not in {t.rejected for t in triples}
    assert [t.rejected for t in triples if t.group == "7"] == ["3", "5"]
    train, test = triples.split(0.5)
    assert {t.group for t in train} != {t.group for t in test}


def test_equal_replies_are_dropped() -> None:
    record = conversation("stst")
    record["messages"][1]["content"] = record["messages"][3]["content"] = "ok"
    triples = alternate([record, conversation("stst")])
    assert (len(triples), triples.counts["equal"], triples.counts["turns"], triples.counts["short"]) == (1, 1, 4, 2)


def test_role_names_and_system_messages() -> None:
    turns = [("system", "Be brief."), ("pupil", "a"), ("coach", "b"), ("pupil", "c"), ("coach", "d")]
    record = {"messages": [{"role": role, "content": content} for role, content in turns]}
    triples = alternate([record], student="pupil", tutor="coach")
    assert [m.role for m in triples[0].prompt] == ["system", "user"]
    with pytest.raises(InputError, match=r"record 0, field 'messages'\[1\].role"):
        alternate([record])
    for bad in ({"student": "a", "tutor": "a"}, {"student": ""}, {"tutor": "system"}):
        with pytest.raises(ValueError, match=r"student|tutor"):
            alternate([record], **bad)
    with pytest.raises(InputError, match="field 'messages': missing"):
        alternate([{"turns": []}])


@pytest.mark.parametrize(
    ("name", "roles", "at_least"),
    [
        ("mathdial_test_conversations", ("student", "tutor"), 2400),
        ("bridge_conversations", ("student", "tutor"), 300),
        ("sgd_dev_conversations", ("user", "assistant"), 10_000),
    ],
)
def test_real_conversations(shared_data: Path, name: str, roles: tuple[str, str], at_least: int) -> None:
    file = shared_data / f"{name}.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"{file.name} is not in the data folder")
    triples = alternate(file, student=roles[0], tutor=roles[1])
    counts = triples.counts
    assert len(triples) == counts["turns"] - counts["short"] - counts["equal"] - counts["empty"] >= at_least
