"""Records of preferences, in TRL's formats, to triples (prompt, chosen, rejected).

A record holds one of

    prompt, chosen, rejected     texts, or lists of chat messages
    chosen, rejected             the prompt is implicit: the beginning that both share; also where `prompt` is given
                                 beside two whole conversations, which may hold more turns than it, or other blanks
    prompt, completion, label    unpaired: every good completion of a prompt is paired with every bad one

and may hold `weight` (>= 0, multiplies the loss of the pair), `margin` (what the reward difference has to exceed) and
`group` (of a conversation, say: never divided by a split). The formats are those of TRL's documentation, "Dataset
formats and types". None and NaN are absent values, except that weight and margin must not be NaN in a file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from cvxrelu.support.errors import InputError
from cvxrelu.support.values import is_missing, plain, read_number
from cvxrelu_llm.preferences.messages import Message, common_beginning, parse_marks, read_messages, same_text
from cvxrelu_llm.preferences.records import Record

__all__ = ["FIELDS", "RecordReader", "Refused", "Triple"]

FIELDS = ("prompt", "chosen", "rejected", "completion", "label", "weight", "margin", "group")
NUMBERS = ("weight", "margin")
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
    seen: set[Any] = dataclasses.field(default_factory=set)  # names of all fields

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
        if fields["completion"] is not None or fields["label"] is not None:
            self._wait(record, fields, extra)
            return []
        for name in ("chosen", "rejected"):
            if fields[name] is None:
                raise InputError(f"{self._where(record, name)}: missing")
        if fields["prompt"] is None:
            return [Triple(*self._implicit(record, fields), **extra)]
        return [Triple(*self._explicit(record, fields), **extra)]

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
            return _joined(prompt, shared) or shared, chosen[-1].content, rejected[-1].content
        both = [self._cut(prompt, turns, name) for turns, name in ((chosen, "chosen"), (rejected, "rejected"))]
        longest = max((found for found, _ in both), key=len)
        return longest, both[0][1], both[1][1]

    def _cut(self, prompt: tuple[Message, ...], turns: tuple[Message, ...], field: str) -> tuple[Any, str]:
        """Prompt and text of a response that is one message, alone or behind what agrees with the prompt."""
        found = _joined(prompt, turns[:-1])
        if not turns or found is None:
            raise Refused("diverging", f"field {self.names[field]!r} holds {len(turns)} messages; expected one")
        return found, turns[-1].content

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
        return _shared(*both), both[0][-1].content, both[1][-1].content

    def _wait(self, record: Record, fields: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Keep an unpaired completion until the end."""
        for name in ("prompt", "completion", "label"):
            if fields[name] is None:
                raise InputError(f"{self._where(record, name)}: missing")
        label = fields["label"]
        word = str(label).strip().lower()
        if not isinstance(label, (bool, int, float, str)) or word not in TRUE | FALSE:
            raise InputError(f"{self._where(record, 'label')}: expected true or false, got {label!r}")
        prompt = self._prompt(record, fields["prompt"])
        turns = self._turns(record, fields["completion"], "completion")
        prompt, text = self._cut(prompt, turns, "completion")
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


def _shared(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages before the last of two conversations that are the same up to there, but for blanks."""
    if len(chosen) != len(rejected) or len(chosen) < 2 or not same_text(chosen[:-1], rejected[:-1]):
        raise Refused("diverging", "fields 'chosen' and 'rejected' differ in more than their last message")
    return chosen[:-1]


def _joined(prompt: tuple[Message, ...], before: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """The prompt as it is where a response repeats it as `before`, wholly or in part; None where they contradict."""
    if not before or before[0].role == "assistant":  # it goes on where the prompt ends
        return (*prompt, *before)
    if same_text(before[-len(prompt) :], prompt):
        return before
    if same_text(prompt[-len(before) :], before):  # it leaves out a system message, say
        return (*prompt[: -len(before)], *before)
    return None
