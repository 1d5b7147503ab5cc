"""Records of preferences, in TRL's formats and others, to triples (prompt, chosen, rejected).

A record holds one of

    prompt, chosen, rejected     texts, or lists of chat messages
    chosen, rejected             the prompt is implicit: the beginning that both share; also where `prompt` is given
                                 beside two whole conversations, which may hold more turns than it, or other blanks
                                 a list of texts, or of conversations, stands for several answers: every chosen one is
                                 paired with every rejected one
    prompt, completions          texts with `scores` (higher is better) or `ranks` (1 is best): pairs of unequal ones
    prompt, completion, label    unpaired: every good completion of a prompt is paired with every bad one; or with
                                 `score` for the label: those of unequal score
    text, label                  texts that answer no prompt, as of IMDb: the k-th good one against the k-th bad one

or is one of a collection in its authors' format, see `published`. The pairs of one record, or of one prompt where
completions are rated, share its weight equally: one with many answers has no more say than one with two. A record may
also hold `weight` (>= 0, multiplies the loss of the pair), `margin` (what the reward difference has to exceed), `group`
(of a conversation, say: never divided by a split), `tools` (what the model may call, for its chat template), and
`score_chosen` with `score_rejected`: a pair of equal ones says nothing and is left out. TRL's formats are those of its
documentation, "Dataset formats and types". None and NaN are absent values, except that weight and margin must not be
NaN in a file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from cvxrelu.support.errors import InputError
from cvxrelu.support.values import is_missing, plain, read_number
from cvxrelu_llm.preferences.messages import (
    Message,
    answer_text,
    common_beginning,
    joined_prompt,
    parse_marks,
    read_messages,
    same_text,
    with_tools,
)
from cvxrelu_llm.preferences.published import REVIEW
from cvxrelu_llm.preferences.records import Record, missing
from cvxrelu_llm.preferences.triple import Refused, Triple, by_rating

__all__ = ["FIELDS", "RecordReader"]

FIELDS = ("prompt", "chosen", "rejected", "completion", "label", "weight", "margin", "group", "completions", "scores",
          "ranks", "score", "score_chosen", "score_rejected", "text", "tools")  # fmt: skip
NUMBERS = ("weight", "margin")
TRUE, FALSE = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no", "-1"}


@dataclasses.dataclass
class RecordReader:
    """Turns records into triples; completions wait in `good` and `bad` until all of their prompt are known."""

    names: Mapping[str, str]
    marks: bool
    waiting: dict[Any, tuple[list[Triple], list[Triple]]] = dataclasses.field(default_factory=dict)
    rated: dict[Any, list[Triple]] = dataclasses.field(default_factory=dict)
    texts: dict[Any, tuple[list[Triple], list[Triple]]] = dataclasses.field(default_factory=dict)
    seen: set[Any] = dataclasses.field(default_factory=set)  # names of all fields
    refused: list[Refused] = dataclasses.field(default_factory=list)  # pairs of records that hold others

    def read(self, record: Record) -> list[Triple]:
        self.seen |= record.fields.keys()
        fields = {field: plain(record.fields.get(name)) for field, name in self.names.items()}
        fields = {field: None if is_missing(v) and field not in NUMBERS else v for field, v in fields.items()}
        extra: dict[str, Any] = {
            "weight": self._number(record, fields, "weight", 1.0),
            "margin": self._number(record, fields, "margin", 0.0),
            "group": self._group(record, fields["group"]),
            "source": record.place,
        }
        if extra["weight"] < 0:
            raise InputError(f"{self._where(record, 'weight')}: expected a number >= 0, got {fields['weight']!r}")
        if fields["text"] is not None and fields["prompt"] is None and fields["chosen"] is None:
            fields |= {"prompt": REVIEW, "completion": fields["text"]}
            self._wait(record, fields, extra, alone=True)
            return []
        stated = fields["chosen"] is not None and fields["rejected"] is not None  # more than a list beside it says
        if fields["completion"] is not None or (fields["label"] is not None and fields["completions"] is None):
            self._wait(record, fields, extra)
            return []
        if fields["completions"] is not None and not stated:
            return self._ranked(record, fields, extra)
        for name in ("chosen", "rejected"):
            if fields[name] is None:
                raise InputError(missing(record, name, self.names[name]))
        if "score_chosen" in fields:
            extra["rating"] = self._rating(record, fields)
        read = self._implicit if fields["prompt"] is None else self._explicit
        both = [_several(fields[name]) for name in ("chosen", "rejected")]
        pairs = [(a, b) for a in both[0] for b in both[1]]
        extra["weight"] /= len(pairs)
        found = []
        for a, b in pairs:
            try:
                prompt, better, worse = read(record, {**fields, "chosen": a, "rejected": b})
                found.append(Triple(self._told(record, prompt), better, worse, **extra))
            except Refused as refusal:
                if len(pairs) == 1:
                    raise
                self.refused.append(refusal)
        return found

    def _where(self, record: Record, field: str) -> str:
        return f"{record.place}, field {self.names[field]!r}"

    def _number(self, record: Record, fields: Mapping[str, Any], name: str, default: float) -> float:
        value = fields[name]
        if value is None:
            return default
        number = read_number(value)
        if number is None or not math.isfinite(number):
            raise InputError(f"{self._where(record, name)}: expected a finite number, got {value!r}")
        return number

    def _rating(self, record: Record, fields: Mapping[str, Any]) -> float:
        """score_chosen - score_rejected, 0 where one is missing; Refused where it is not positive."""
        if fields["score_chosen"] is None or fields["score_rejected"] is None:
            return 0.0
        rating = self._number(record, fields, "score_chosen", 0.0) - self._number(record, fields, "score_rejected", 0.0)
        if rating == 0:
            raise Refused("tied", "score_chosen and score_rejected are the same")
        if rating < 0:
            raise Refused("misrated", "score_chosen is below score_rejected")
        return rating

    def _ranked(self, record: Record, fields: Mapping[str, Any], extra: Mapping[str, Any]) -> list[Triple]:
        """All pairs of completions of unequal scores or ranks."""
        if fields["prompt"] is None:
            raise InputError(f"{self._where(record, 'prompt')}: missing")
        if fields["scores"] is None and fields["ranks"] is None:
            raise InputError(f"{self._where(record, 'scores')}: missing, and there are no ranks")
        name, sign = ("scores", 1.0) if fields["scores"] is not None else ("ranks", -1.0)
        answers, numbers = fields["completions"], fields[name]
        for field, value in (("completions", answers), (name, numbers)):
            if not isinstance(value, list) or len(value) != len(answers):
                raise InputError(f"{self._where(record, field)}: expected a list, one entry per completion")
        prompt = self._told(record, self._prompt(record, fields["prompt"]))
        rated = []
        for answer, number in zip(answers, numbers, strict=True):
            if is_missing(number) or is_missing(answer):
                self.refused.append(Refused("unrated", f"{self.names['completions']!r} holds one without a rating"))
                continue
            value = self._number(record, {name: number}, name, 0.0)
            text = self._cut(record, prompt, self._turns(record, answer, "completions"), "completions")[1]
            rated.append(Triple(prompt, text, text, **{**extra, "rating": sign * value}))
        if not (pairs := by_rating(rated)):
            reason = "tied" if len(rated) > 1 else "unpaired"
            raise Refused(reason, f"{self.names['completions']!r} holds no two of different ratings")
        return pairs

    def _group(self, record: Record, value: Any) -> str:
        """A name out of a text or a number; a whole float, as pandas makes of integers, is the integer.

        No one is called "nan": that is how a table writes that there is no group.
        """
        if value is None or (isinstance(value, str) and value.strip().lower() in ("nan", "<na>")):
            return ""
        if isinstance(value, (Mapping, list, bytes)):
            raise InputError(f"{self._where(record, 'group')}: expected text or a number, got {type(value).__name__}")
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)

    def _prompt(self, record: Record, value: Any) -> tuple[Message, ...]:
        if not isinstance(value, str):
            return read_messages(value, self._where(record, "prompt"))
        return (parse_marks(value) if self.marks else None) or (Message("user", value),)

    def _told(self, record: Record, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
        return with_tools(prompt, plain(record.fields.get(self.names["tools"])), self._where(record, "tools"))

    def _answers(self, record: Record, chosen: Message, rejected: Message) -> tuple[str, str]:
        return answer_text(chosen, self._where(record, "chosen")), answer_text(
            rejected, self._where(record, "rejected")
        )

    def _turns(self, record: Record, value: Any, field: str) -> tuple[Message, ...]:
        """A response as messages; a text is one of the assistant, unless its marks make it a dialogue."""
        if not isinstance(value, str):
            return read_messages(value, self._where(record, field))
        dialogue = parse_marks(value) if self.marks else None
        return dialogue if dialogue and len(dialogue) > 1 else (Message("assistant", value),)

    def _explicit(self, record: Record, fields: Mapping[str, Any]) -> tuple[tuple[Message, ...], str, str]:
        """Prompt, chosen and rejected where a prompt is given; each response may repeat it, or hold more than it."""
        prompt = self._prompt(record, fields["prompt"])
        chosen, rejected = (self._turns(record, fields[name], name) for name in ("chosen", "rejected"))
        if chosen == rejected:
            raise Refused("equal", "fields 'chosen' and 'rejected' are the same")
        if min(len(chosen), len(rejected)) > 1:
            shared = _shared(chosen, rejected)
            return joined_prompt(prompt, shared) or shared, *self._answers(record, chosen[-1], rejected[-1])
        both = [self._cut(record, prompt, turns, name) for turns, name in ((chosen, "chosen"), (rejected, "rejected"))]
        longest = max((found for found, _ in both), key=len)
        return longest, both[0][1], both[1][1]

    def _cut(
        self, record: Record, prompt: tuple[Message, ...], turns: tuple[Message, ...], field: str
    ) -> tuple[tuple[Message, ...], str]:  # fmt: skip
        """Prompt and text of a response that is one message, alone or behind what agrees with the prompt."""
        found = joined_prompt(prompt, turns[:-1])
        if not turns or found is None:
            raise Refused("diverging", f"field {self.names[field]!r} holds {len(turns)} messages; expected one")
        return found, answer_text(turns[-1], self._where(record, field))

    def _implicit(self, record: Record, fields: Mapping[str, Any]) -> tuple[tuple[Message, ...], str, str]:
        """Prompt, chosen and rejected where both responses begin with the prompt."""
        chosen, rejected = fields["chosen"], fields["rejected"]
        if isinstance(chosen, str) is not isinstance(rejected, str):
            raise InputError(f"{self._where(record, 'rejected')}: expected the same kind of value as in 'chosen'")
        if isinstance(chosen, str):
            parsed = (parse_marks(chosen), parse_marks(rejected)) if self.marks else (None, None)
            if parsed[0] is None or parsed[1] is None:
                cut = common_beginning(chosen, rejected)
                if chosen == rejected:
                    raise Refused("equal", "fields 'chosen' and 'rejected' are the same")
                if not chosen[:cut].strip():
                    raise InputError(f"{self._where(record, 'prompt')}: missing, and the responses share no beginning")
                return (Message("user", chosen[:cut]),), chosen[cut:], rejected[cut:]
            both = parsed[0], parsed[1]
        else:
            both = (
                read_messages(chosen, self._where(record, "chosen")),
                read_messages(rejected, self._where(record, "rejected")),
            )
        if both[0] == both[1]:
            raise Refused("equal", "fields 'chosen' and 'rejected' are the same")
        return _shared(*both), *self._answers(record, both[0][-1], both[1][-1])

    def _wait(
        self, record: Record, fields: Mapping[str, Any], extra: Mapping[str, Any], alone: bool = False
    ) -> None:  # fmt: skip
        """Keep an unpaired completion until the end; `alone`: a text that answers no prompt."""
        rated = fields["score"] is not None and fields["label"] is None
        for name in ("prompt", "completion", "score" if rated else "label"):
            if fields[name] is None:
                raise InputError(f"{self._where(record, name)}: missing")
        if rated:
            value = self._number(record, fields, "score", 0.0)
            prompt = self._prompt(record, fields["prompt"])
            turns = self._turns(record, fields["completion"], "completion")
            prompt, text = self._cut(record, self._told(record, prompt), turns, "completion")
            kept = Triple(prompt, text, text, **{**extra, "rating": value})
            self.rated.setdefault((prompt, extra["group"]), []).append(kept)
            return
        label = fields["label"]
        word = str(label).strip().lower()
        if not isinstance(label, (bool, int, float, str)) or word not in TRUE | FALSE:
            raise InputError(f"{self._where(record, 'label')}: expected true or false, got {label!r}")
        prompt = self._told(record, self._prompt(record, fields["prompt"]))
        turns = self._turns(record, fields["completion"], "completion")
        prompt, text = self._cut(record, prompt, turns, "completion")
        waiting = self.texts if alone else self.waiting
        good, bad = waiting.setdefault((prompt, extra["group"]), ([], []))
        (good if word in TRUE else bad).append(Triple(prompt, text, text, **extra))

    def pair_up(self) -> tuple[list[Triple], list[str]]:
        """Triples of every good completion with every bad one of its prompt, and the places of those left alone.

        The weight of a pair is the product of both; margins must be those of pairs, so the difference is taken. Rated
        completions are paired by their scores; texts without prompt one by one, in order.
        """
        pairs, alone = [], []
        for rated in self.rated.values():
            found = by_rating(rated)
            pairs += found
            alone += [] if found else [triple.source for triple in rated]
        for good, bad in self.texts.values():
            for a, b in zip(good, bad, strict=False):
                places = f"{a.source} and {b.source}"
                pair = dataclasses.replace(a, rejected=b.chosen, group=a.group or places, source=places)
                pairs.append(dataclasses.replace(pair, weight=a.weight * b.weight, margin=a.margin - b.margin))
            more = good[len(bad) :] or bad[len(good) :]
            alone += [triple.source for triple in more]
        for good, bad in self.waiting.values():
            if not good or not bad:
                alone += [triple.source for triple in good or bad]
            for a in good:
                for b in bad:
                    weight, margin = a.weight * b.weight, a.margin - b.margin
                    places = f"{a.source} and {b.source}"
                    pairs.append(Triple(a.prompt, a.chosen, b.chosen, weight, margin, a.group, places))
        return pairs, alone


def _several(value: Any) -> list[Any]:
    """The answers of a field: those of a list of texts or of conversations, else the value itself."""
    several = isinstance(value, list) and len(value) > 0 and all(isinstance(item, (str, list)) for item in value)
    return list(value) if several else [value]


def _shared(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages before the last of two conversations that are the same up to there, but for blanks."""
    if len(chosen) != len(rejected) or len(chosen) < 2 or not same_text(chosen[:-1], rejected[:-1]):
        raise Refused("diverging", "fields 'chosen' and 'rejected' differ in more than their last message")
    return chosen[:-1]
