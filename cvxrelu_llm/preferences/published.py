"""Published collections of preferences in the formats of their authors, to the fields of `formats`.

| name | a record holds |
|---|---|
| `shp` | history, human_ref_A, human_ref_B, labels (1: A was preferred), score_A, score_B, post_id |
| `ultrafeedback` | instruction, completions with response and overall_score |
| `helpsteer` | prompt, response, helpfulness (HelpSteer and HelpSteer2: an answer a row) |
| `helpsteer2-preference` | prompt, response_1, response_2, preference_strength (below 0: the first is better) |
| `helpsteer3` | context, response1, response2, overall_preference (below 0: the first is better) |
| `imdb` | text and label (1: positive): beginnings of no prompt; a positive text against a negative one |

HH-RLHF, UltraFeedback in its binarized form, RewardBench (a `subset` beside a pair) and RewardBench 2 (lists of chosen
and rejected answers) are read as they are.

Sources, all on the hub of Hugging Face: stanfordnlp/SHP, openbmb/UltraFeedback, nvidia/HelpSteer, HelpSteer2 and
HelpSteer3, stanfordnlp/imdb.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cvxrelu.support.errors import InputError
from cvxrelu.support.values import read_number
from cvxrelu_llm.preferences.records import Record

__all__ = ["PUBLISHED", "as_format", "recognised", "standard"]

Fields = Mapping[str, Any]
REVIEW = "Write a movie review."  # the prompt of texts that answer none


def _shp(fields: Fields, record: Record) -> Fields:
    label = _number(fields, "labels", record)
    first, second = ("A", "B") if label == 1 else ("B", "A")
    return {
        "prompt": fields["history"],
        "chosen": fields[f"human_ref_{first}"],
        "rejected": fields[f"human_ref_{second}"],
        "score_chosen": fields.get(f"score_{first}"),
        "score_rejected": fields.get(f"score_{second}"),
        "group": fields.get("post_id"),
    }


def _ultrafeedback(fields: Fields, record: Record) -> Fields:
    completions = fields["completions"]
    if not isinstance(completions, list) or not all(isinstance(c, Mapping) and "response" in c for c in completions):
        raise InputError(f"{record.place}, field 'completions': expected a list of mappings with a response")
    return {
        "prompt": fields["instruction"],
        "completions": [c["response"] for c in completions],
        "scores": [c.get("overall_score") for c in completions],
    }


def _helpsteer(fields: Fields, record: Record) -> Fields:
    return {"prompt": fields["prompt"], "completion": fields["response"], "score": fields["helpfulness"]}


def _helpsteer2(fields: Fields, record: Record) -> Fields:
    return _stated(fields, record, "prompt", "response_1", "response_2", "preference_strength")


def _helpsteer3(fields: Fields, record: Record) -> Fields:
    return _stated(fields, record, "context", "response1", "response2", "overall_preference")


def _stated(fields: Fields, record: Record, prompt: str, first: str, second: str, strength: str) -> Fields:
    """Two answers and a number that is below 0 where the first is better."""
    value = _number(fields, strength, record)
    return {"prompt": fields[prompt], "completions": [fields[first], fields[second]], "scores": [-value, 0.0]}


def _imdb(fields: Fields, record: Record) -> Fields:
    return {"text": fields["text"], "label": fields["label"]}


PUBLISHED: dict[str, tuple[tuple[str, ...], Callable[[Fields, Record], Fields]]] = {
    "shp": (("history", "human_ref_A", "human_ref_B", "labels"), _shp),
    "ultrafeedback": (("instruction", "completions"), _ultrafeedback),
    "helpsteer": (("prompt", "response", "helpfulness"), _helpsteer),
    "helpsteer2-preference": (("prompt", "response_1", "response_2", "preference_strength"), _helpsteer2),
    "helpsteer3": (("context", "response1", "response2", "overall_preference"), _helpsteer3),
    "imdb": (("text", "label"), _imdb),
}


def as_format(format: Any) -> str:
    """ "auto", "standard" or one of `PUBLISHED`; ValueError for others."""
    if format not in ("auto", "standard", *PUBLISHED):
        raise ValueError(f"format must be 'auto', 'standard', {', '.join(map(repr, PUBLISHED))}, got {format!r}")
    return str(format)


def recognised(fields: Fields) -> str:
    """The published format that has these fields, or "standard", which goes first where both fit."""
    if {"chosen", "rejected"} <= fields.keys() or {"prompt", "completion"} <= fields.keys():
        return "standard"
    return next((name for name, (needed, _) in PUBLISHED.items() if {*needed} <= fields.keys()), "standard")


def standard(record: Record, format: str) -> Record:
    """The record with the fields that `formats` reads."""
    if format == "standard":
        return record
    needed, adapt = PUBLISHED[format]
    if missing := [name for name in needed if name not in record.fields]:
        raise InputError(f"{record.place}: format {format!r} has the field {missing[0]!r}, and this record has none")
    return Record(record.place, adapt(record.fields, record))


def _number(fields: Fields, name: str, record: Record) -> float:
    number = read_number(fields[name])
    if number is None:
        raise InputError(f"{record.place}, field {name!r}: expected a number, got {fields[name]!r}")
    return number
