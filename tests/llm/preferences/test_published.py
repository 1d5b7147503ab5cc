"""Several answers, ratings, and published collections: rows made here in the shape that their authors gave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxrelu.support.errors import InputError
from cvxrelu_llm.preferences.published import PUBLISHED, recognised
from cvxrelu_llm.preferences.triples import Triples, load_triples

Q, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
SHP = {
    "post_id": "p1", "domain": "askbaking", "upvote_ratio": 0.9, "history": "How long?", "c_root_id_A": "a",
    "c_root_id_B": "b", "created_at_utc_A": 1, "created_at_utc_B": 2, "score_A": 3, "score_B": 9,
    "human_ref_A": "An hour.", "human_ref_B": "Two hours.", "labels": 0, "seconds_difference": 1.0, "score_ratio": 3.0,
}  # fmt: skip
ULTRA = {
    "source": "x", "instruction": "Add 2 and 2.", "models": ["m"], "correct_answers": [], "incorrect_answers": [],
    "completions": [
        {"model": "a", "response": "5", "overall_score": 2.0, "annotations": {}},
        {"model": "b", "response": "4", "overall_score": 9.0, "annotations": {}},
        {"model": "c", "response": "four", "overall_score": 9.0, "annotations": {}},
        {"model": "d", "response": "3", "overall_score": None, "annotations": {}},
    ],
}  # fmt: skip
HELP = [
    {"prompt": "Say hi.", "response": text, "helpfulness": score, "correctness": 1, "coherence": 4, "complexity": 1,
     "verbosity": 1}
    for text, score in (("Hi!", 4), ("No.", 0), ("Hello", 3))
]  # fmt: skip
HELP2 = {"split": "train", "prompt": "Say hi.", "response_1": "Hi!", "response_2": "No.", "preference_strength": -2,
         "preference_statement": "s"}  # fmt: skip
HELP3 = {"domain": "general", "language": "english", "context": [Q, A, {"role": "user", "content": "And?"}],
                  "response1": "First.", "response2": "Second.", "overall_preference": 1}  # fmt: skip
BINARY = {"prompt": "Why?", "prompt_id": "1", "chosen": [Q, A], "rejected": [Q, {"role": "assistant", "content": "No"}],
          "messages": [Q, A], "score_chosen": 8.5, "score_rejected": 6.0}  # fmt: skip
HH = {"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi?\n\nAssistant: Go away."}
BENCH = {"id": 1, "prompt": "Why?", "chosen": "So.", "chosen_model": "a", "rejected": "No.", "rejected_model": "b",
         "subset": "alpacaeval-easy"}  # fmt: skip
BENCH2 = {"id": "7", "prompt": "Why?", "chosen": ["So."], "rejected": ["No.", "Never.", "Perhaps."], "num_correct": 1,
          "num_incorrect": 3, "total_completions": 4, "models": ["m"] * 4, "subset": "Math"}  # fmt: skip


def pairs_of(triples: Triples) -> list[tuple[str, str]]:
    return [(t.chosen, t.rejected) for t in triples]


@pytest.mark.parametrize(
    ("rows", "name", "pairs"),
    [
        ([SHP], "shp", [("Two hours.", "An hour.")]),
        ([{**SHP, "labels": 1, "score_A": 12}], "shp", [("An hour.", "Two hours.")]),
        ([ULTRA], "ultrafeedback", [("4", "5"), ("four", "5")]),
        (HELP, "helpsteer", [("Hi!", "No."), ("Hi!", "Hello"), ("Hello", "No.")]),
        ([HELP2], "helpsteer2-preference", [("Hi!", "No.")]),
        ([HELP3], "helpsteer3", [("Second.", "First.")]),
        ([BINARY], "standard", [("So.", "No")]),
        ([HH], "standard", [("Hello.", "Go away.")]),
        ([BENCH], "standard", [("So.", "No.")]),
        ([BENCH2], "standard", [("So.", "No."), ("So.", "Never."), ("So.", "Perhaps.")]),
        ([{"text": "Great film.", "label": 1}, {"text": "Dull.", "label": 0}], "imdb", [("Great film.", "Dull.")]),
    ],
)
def test_each_is_read_and_known_by_its_fields(
    rows: list[dict[str, Any]], name: str, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert recognised(rows[0]) == name
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for source in (rows, tmp_path / "a.jsonl"):
        found = load_triples(source)
        assert pairs_of(found) == pairs and pairs_of(load_triples(source, format=name)) == pairs
        assert found.counts["read"] == len(rows) and sum(t.weight for t in found) == pytest.approx(1.0)
    if name in PUBLISHED:
        with pytest.raises(InputError, match=f"format '{name}' has the field"):
            load_triples([BENCH | {"unrelated": 1}], format=name)


def test_prompts_and_groups_of_published_rows() -> None:
    (triple,) = load_triples([HELP3])
    assert [m.content for m in triple.prompt] == ["Why?", "So.", "And?"]
    (triple,) = load_triples([SHP])
    assert triple.group == "p1" and triple.prompt[0].content == "How long?" and triple.rating == 6.0
    reviews = [{"text": f"good {i}", "label": 1} for i in range(3)] + [
        {"text": f"bad {i}", "label": 0} for i in range(2)
    ]
    found = load_triples(reviews)
    assert pairs_of(found) == [("good 0", "bad 0"), ("good 1", "bad 1")] and found.counts["unpaired"] == 1
    assert len({t.group for t in found}) == 2 and {t.prompt[0].content for t in found} == {"Write a movie review."}


def test_several_answers_share_the_weight_of_their_record() -> None:
    rows = [
        {"prompt": "Why?", "chosen": ["a", "b"], "rejected": ["c", "d", "e"], "weight": 3.0},
        {"prompt": "Who?", "chosen": "x", "rejected": ["y"]},
        {"prompt": [Q], "chosen": [[A]], "rejected": [[{"role": "assistant", "content": "n"}], [A]]},
    ]
    found = load_triples(rows)
    assert pairs_of(found)[:6] == [(a, b) for a in "ab" for b in "cde"]
    assert [t.weight for t in found] == pytest.approx([0.5] * 6 + [1.0, 0.5])
    assert found.counts["equal"] == 1  # the chosen answer among the rejected ones
    assert len({t.source for t in found}) == 3


def test_rankings_and_scores() -> None:
    row = {"prompt": "Why?", "completions": ["a", "b", "c"]}
    ranked = load_triples([{**row, "ranks": [2, 1, 2]}])
    assert pairs_of(ranked) == [("b", "a"), ("b", "c")] and [t.weight for t in ranked] == [0.5, 0.5]
    scored = load_triples([{**row, "scores": [0.5, None, 2.5], "weight": 2.0, "margin": 0.25}])
    assert pairs_of(scored) == [("c", "a")] and scored[0].rating == 2.0 and scored[0].margin == 0.25
    stated = load_triples([{**row, "chosen": "x", "rejected": "y"}])  # a list beside a stated pair says nothing
    assert pairs_of(stated) == [("x", "y")]
    for more, words in (
        ({}, "field 'scores': missing"),
        ({"scores": [1.0]}, "one entry per completion"),
        ({"scores": 3}, "one entry per completion"),
        ({"scores": [1, "high", 2]}, "field 'scores': expected a finite number"),
        ({"prompt": None, "scores": [1, 2, 3]}, "field 'prompt': missing"),
    ):
        with pytest.raises(InputError, match=words):
            load_triples([{**row, **more}])


def test_ratings_as_margins() -> None:
    rows = [{"prompt": f"Why {i}?", "chosen": "a", "rejected": "b", "score_chosen": 5 + i, "score_rejected": 4}
            for i in range(3)]  # fmt: skip
    plain, margins = load_triples(rows), load_triples(rows, ratings="margin")
    assert [t.margin for t in plain] == [0.0, 0.0, 0.0]
    np.testing.assert_allclose([t.margin for t in margins], [0.5, 1.0, 1.5])
    odd = [*rows, {**rows[0], "score_rejected": 5}, {**rows[1], "score_chosen": 1}, {**rows[2], "score_chosen": None}]
    counts = load_triples(odd).counts
    assert (counts["kept"], counts["tied"], counts["misrated"]) == (4, 1, 1)
    with pytest.raises(InputError, match="record 3: score_chosen and score_rejected are the same"):
        load_triples(odd, strict=True)
    with pytest.raises(InputError, match="needs ratings"):
        load_triples([BENCH], ratings="margin")


def test_a_tie_says_nothing() -> None:
    found = load_triples([HELP3, {**HELP3, "overall_preference": 0, "context": [Q]}])
    assert len(found) == 1 and found.counts["tied"] == 1
    equal = {**ULTRA, "instruction": "Else?", "completions": ULTRA["completions"][1:3]}
    alone = {**ULTRA, "instruction": "What?", "completions": ULTRA["completions"][:1]}
    counts = load_triples([ULTRA, equal, alone]).counts
    assert [counts[name] for name in ("read", "kept", "tied", "unpaired", "unrated")] == [3, 2, 1, 1, 1]
    with pytest.raises(InputError, match="record 1: 'completions' holds no two of different ratings"):
        load_triples([{**ULTRA, "completions": ULTRA["completions"][:2]}, equal], strict=True)
    with pytest.raises(InputError, match="record 0: 'completions' holds one without a rating"):
        load_triples([ULTRA], strict=True)
    same = [{**row, "helpfulness": 2, "prompt": "Else?"} for row in HELP]
    assert load_triples([*HELP, *same]).counts["unpaired"] == 3


def test_options_that_cannot_be() -> None:
    for options, words in (
        ({"format": "csv"}, "format must be 'auto'"),
        ({"ratings": "yes"}, "ratings must be"),
        ({"format": "shp", "columns": {"chosen": "a"}}, "do not go with format='shp'"),
    ):
        with pytest.raises(ValueError, match=words):
            load_triples([SHP], **options)
    with pytest.raises(InputError, match="field 'labels': expected a number, got 'A'"):
        load_triples([{**SHP, "labels": "A"}])
    with pytest.raises(InputError, match="list of mappings with a response"):
        load_triples([{**ULTRA, "completions": ["a", "b"]}])
    named = [{"prompt": "Why?", "response": "a", "helpfulness": 1, "better": "x", "worse": "y"}]
    assert pairs_of(load_triples(named, columns={"chosen": "better", "rejected": "worse"})) == [("x", "y")]
