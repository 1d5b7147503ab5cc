"""Records of preferences, in TRL's formats, to triples (prompt, chosen, rejected).

A record holds one of

    prompt, chosen, rejected     texts, or lists of chat messages
    chosen, rejected             the prompt is implicit: the beginning that both share
    prompt, completion, label    unpaired: every good completion of a prompt is paired with every bad one

and may hold `weight` (>= 0, multiplies the loss of the pair), `margin` (what the reward difference has to exceed) and
`group` (of a conversation, say: never divided by a split). The formats are those of TRL's documentation, "Dataset
formats and types".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cvxrelu_llm.errors import InputError
from cvxrelu_llm.messages import Message, common_beginning, parse_marks, read_messages
from cvxrelu_llm.reading import Record

__all__ = ["FIELDS", "RecordReader", "Refused", "Triple"]

FIELDS = ("prompt", "chosen", "rejected", "completion", "label", "weight", "margin", "group")
TRUE, FALSE = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no", "-1"}


@dataclasses.dataclass(frozen=True)
class Triple:
    """One preference: `chosen` was preferred to `rejected` as the answer to `prompt`.

    weight >= 0 multiplies its loss, margin is what the difference of rewards has to exceed, `source` tells where it
    stood ("train.jsonl, line 12").
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    weight: float = 1.0
    margin: float = 0.0
    group: str = ""
    source: str = ""


class Refused(Exception):
    """A record that is well-formed but of no use."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason, self.words = reason, words


@dataclasses.dataclass
class RecordReader:
    """Turns records into triples; completions wait in `good` and `bad` until all of their prompt are known."""

    names: Mapping[str, str]
    marks: bool
    waiting: dict[Any, tuple[list[Triple], list[Triple]]] = dataclasses.field(default_factory=dict)

    def read(self, record: Record) -> list[Triple]:
        fields = {field: record.fields.get(name) for field, name in self.names.items()}
        extra: dict[str, Any] = {
            "weight": self._number(record, fields, "weight", 1.0),
            "margin": self._number(record, fields, "margin", 0.0),
            "group": "" if fields["group"] is None else str(fields["group"]),
            "source": record.place,
        }
        if extra["weight"] < 0:
            raise InputError(f"{self._where(record, 'weight')}: expected a number >= 0, got {fields['weight']!r}")
        if fields["completion"] is not None or fields["label"] is not None:
            self._wait(record, fields, extra)
            return []
        for name in ("chosen", "rejected"):
            if fields[name] is None:
                raise InputError(f"{self._where(record, name)}: missing")
        if fields["prompt"] is None:
            return [Triple(*self._implicit(record, fields), **extra)]
        prompt = self._prompt(record, fields["prompt"])
        chosen, rejected = (self._response(record, fields[name], name, prompt) for name in ("chosen", "rejected"))
        return [Triple(prompt, chosen, rejected, **extra)]

    def _where(self, record: Record, field: str) -> str:
        return f"{record.place}, field {self.names[field]!r}"

    def _number(self, record: Record, fields: Mapping[str, Any], name: str, default: float) -> float:
        value = fields[name]
        if value is None:
            return default
        try:
            number = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{self._where(record, name)}: expected a finite number, got {value!r}")
        return number

    def _prompt(self, record: Record, value: Any) -> tuple[Message, ...]:
        if not isinstance(value, str):
            return read_messages(value, self._where(record, "prompt"))
        return (parse_marks(value) if self.marks else None) or (Message("user", value),)

    def _response(self, record: Record, value: Any, field: str, prompt: tuple[Message, ...]) -> str:
        if isinstance(value, str):
            return value
        messages = read_messages(value, self._where(record, field))
        if len(messages) > 1 and messages[: len(prompt)] == prompt:
            messages = messages[len(prompt) :]  # some data sets repeat the prompt there
        if len(messages) != 1:
            raise Refused("diverging", f"field {self.names[field]!r} holds {len(messages)} messages; expected one")
        return messages[0].content

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
        shared = 0
        while shared < min(map(len, both)) and both[0][shared] == both[1][shared]:
            shared += 1
        if [len(messages) - shared for messages in both] != [1, 1] or not shared:
            raise Refused("diverging", "fields 'chosen' and 'rejected' differ in more than their last message")
        return both[0][:shared], both[0][-1].content, both[1][-1].content

    def _wait(self, record: Record, fields: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Keep an unpaired completion until the end."""
        for name in ("prompt", "completion", "label"):
            if fields[name] is None:
                raise InputError(f"{self._where(record, name)}: missing")
        label = fields["label"]
        word = str(label).strip().lower()
        if not isinstance(label, (bool, int, float, str, np.bool_)) or word not in TRUE | FALSE:
            raise InputError(f"{self._where(record, 'label')}: expected true or false, got {label!r}")
        prompt = self._prompt(record, fields["prompt"])
        text = self._response(record, fields["completion"], "completion", prompt)
        good, bad = self.waiting.setdefault((prompt, extra["group"]), ([], []))
        (good if word in TRUE else bad).append(Triple(prompt, text, text, **extra))

    def pair_up(self) -> tuple[list[Triple], list[str]]:
        """Triples of every good completion with every bad one of its prompt, and the places of those left alone.

        The weight of a pair is the product of both; margins must be those of pairs, so the difference is taken.
        """
        pairs, alone = [], []
        for good, bad in self.waiting.values():
            if not good or not bad:
                alone += [triple.source for triple in good or bad]
            for a in good:
                for b in bad:
                    weight, margin = a.weight * b.weight, a.margin - b.margin
                    places = f"{a.source} and {b.source}"
                    pairs.append(Triple(a.prompt, a.chosen, b.chosen, weight, margin, a.group, places))
        return pairs, alone
