"""Preference triples (prompt, chosen, rejected), validated, in TRL's formats.

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
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Int

from cvxrelu_llm import splits
from cvxrelu_llm.errors import InputError
from cvxrelu_llm.files import pack_text, write_whole
from cvxrelu_llm.messages import Message, common_beginning, parse_marks, read_messages
from cvxrelu_llm.reading import Record, read_records

__all__ = ["Triple", "Triples", "as_triples", "load_triples"]

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


@dataclasses.dataclass(frozen=True)
class Triples(Sequence[Triple]):
    """Triples in order, and what was met on the way.

    counts : "read" records, "kept" triples; dropped: "equal" (chosen is rejected), "empty" (a response or prompt
        without text), "diverging" (more than one message differs), "unpaired" (completions without a counterpart);
        kept, but worth knowing: "duplicate" (the same triple again), "contradictory" (the same pair both ways round).
    """

    items: tuple[Triple, ...]
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Triple: ...
    @overload
    def __getitem__(self, index: slice) -> Triples: ...
    def __getitem__(self, index: int | slice) -> Triple | Triples:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return self.items[index]

    def __iter__(self) -> Iterator[Triple]:
        return iter(self.items)

    def select(self, indices: Int[np.ndarray, " k"]) -> Triples:
        """The triples at `indices`, in that order."""
        return Triples(tuple(self.items[int(i)] for i in indices), {"kept": len(indices)})

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of everything but where the triples stood."""
        digest = hashlib.sha256()
        for t in self.items:
            content = [t.prompt, t.chosen, t.rejected, t.weight, t.margin, t.group]
            digest.update(json.dumps(content).encode() + b"\n")
        return digest.hexdigest()

    def split(self, fraction: float, seed: int = 0) -> tuple[Triples, Triples]:
        """(train, test): test holds about `fraction` of the triples. No prompt and no group is on both sides."""
        train, test = splits.split(self.items, fraction, seed)
        return self.select(train), self.select(test)

    def kfold(self, k: int, seed: int = 0) -> list[tuple[Triples, Triples]]:
        """k pairs (train, test) whose test sides partition the triples, grouped like `split`."""
        return [(self.select(train), self.select(test)) for train, test in splits.kfold(self.items, k, seed)]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write TRL's conversational format as JSON lines (packed where `path` ends in .gz)."""
        return write_whole(path, pack_text(path, "".join(json.dumps(_record(t)) + "\n" for t in self.items)))


def _record(triple: Triple) -> dict[str, Any]:
    record: dict[str, Any] = {
        "prompt": [message._asdict() for message in triple.prompt],
        "chosen": [{"role": "assistant", "content": triple.chosen}],
        "rejected": [{"role": "assistant", "content": triple.rejected}],
        "group": triple.group,
    }
    if triple.weight != 1:
        record["weight"] = triple.weight
    if triple.margin != 0:
        record["margin"] = triple.margin
    return record


def load_triples(
    source: Any, *, columns: Any = None, dialogue: Any = "auto", strict: Any = False, split: Any = "train"
) -> Triples:
    """Read and validate preference triples.

    Parameters
    ----------
    source : path of a .jsonl, .json, .csv (each also .gz) or .parquet file, a `datasets.Dataset`, any iterable of
        mappings, or the name of a data set on the hub.
    columns : mapping of names here to names there, e.g. {"chosen": "better"}; see the module for the fields.
    dialogue : "auto" turns texts marked with "Human:" and "Assistant:" (Anthropic's) into chat messages; "text" leaves
        every text prompt as one message of the user.
    strict : raise where a triple would be dropped, instead of counting it.
    split : of a hub data set.

    Returns
    -------
    Triples, whose `counts` say what was dropped and why.

    Raises
    ------
    InputError (a ValueError) naming file, line and field: a missing field, a wrong type, broken JSON; with `strict`
    also for what is otherwise counted, and always when nothing is left.

    Examples
    --------
    >>> rows = [
    ...     {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    ...     {"prompt": "Snow is", "chosen": " white.", "rejected": " white."},
    ... ]
    >>> triples = load_triples(rows)
    >>> len(triples), triples.counts["equal"]
    (1, 1)
    """
    if dialogue not in ("auto", "text"):
        raise ValueError(f"dialogue must be 'auto' or 'text', got {dialogue!r}")
    names = {field: field for field in FIELDS}
    if columns is not None:
        if unknown := set(columns) - set(FIELDS):
            raise ValueError(f"columns must map some of {', '.join(FIELDS)}, got {', '.join(sorted(unknown))}")
        names.update(columns)
    reader = _Reader(names, dialogue == "auto")
    found: list[Triple] = []
    refused: Counter[str] = Counter()
    n = 0
    for record in read_records(source, split=split):
        n += 1
        try:
            found += reader.read(record)
        except _Refused as refusal:
            if strict:
                raise InputError(f"{record.place}: {refusal.words}") from None
            refused[refusal.reason] += 1
    paired, unpaired = reader.pair_up()
    if unpaired and strict:
        raise InputError(f"{unpaired[0]}: its prompt has no completion of the other label")
    refused["unpaired"] += len(unpaired)
    return as_triples([*found, *paired], n, refused, strict=strict, origin=source)


def as_triples(
    triples: Sequence[Triple], n_read: int, refused: Mapping[str, int], *, strict: bool = False, origin: Any = "source"
) -> Triples:
    """Drop what teaches nothing (equal or empty responses), count, and give groups to those without."""
    counts = Counter({"read": n_read, "equal": 0, "empty": 0, **refused})
    kept: list[Triple] = []
    seen: set[tuple[Any, str, str]] = set()
    for triple in triples:
        reason = None
        if (
            not triple.chosen.strip()
            or not triple.rejected.strip()
            or not any(m.content.strip() for m in triple.prompt)
        ):
            reason, words = "empty", "prompt, chosen and rejected must hold text"
        elif triple.chosen.strip() == triple.rejected.strip():
            reason, words = "equal", "fields 'chosen' and 'rejected' are the same"
        if reason is not None:
            if strict:
                raise InputError(f"{triple.source}: {words}")
            counts[reason] += 1
            continue
        counts["duplicate"] += (triple.prompt, triple.chosen, triple.rejected) in seen
        counts["contradictory"] += (triple.prompt, triple.rejected, triple.chosen) in seen
        seen.add((triple.prompt, triple.chosen, triple.rejected))
        if not triple.group:
            key = hashlib.sha256(splits.prompt_key(triple).encode()).hexdigest()[:16]
            triple = dataclasses.replace(triple, group=f"prompt {key}")
        kept.append(triple)
    counts["kept"] = len(kept)
    if not kept:
        name = origin if isinstance(origin, (str, os.PathLike)) else "source"
        dropped = ", ".join(f"{value} {key}" for key, value in counts.items() if value and key not in ("read", "kept"))
        raise InputError(f"{name}: no triples in {n_read} records ({dropped or 'empty'})")
    return Triples(tuple(kept), dict(counts))


# -- one record -------------------------------------------------------------------------------------------------------
class _Refused(Exception):
    """A record that is well-formed but of no use."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason, self.words = reason, words


@dataclasses.dataclass
class _Reader:
    """Turns records into triples; completions wait in `good` and `bad` until all of their prompt are known."""

    names: Mapping[str, str]
    marks: bool
    waiting: dict[Any, tuple[list[Triple], list[Triple]]] = dataclasses.field(default_factory=dict)

    def read(self, record: Record) -> list[Triple]:
        fields = {field: record.fields.get(name) for field, name in self.names.items()}
        extra = {
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
            raise _Refused("diverging", f"field {self.names[field]!r} holds {len(messages)} messages; expected one")
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
                if not chosen[:cut].strip():
                    if chosen == rejected:
                        raise _Refused("equal", "fields 'chosen' and 'rejected' are the same")
                    raise InputError(f"{self._where(record, 'prompt')}: missing, and the responses share no beginning")
                return (Message("user", chosen[:cut]),), chosen[cut:], rejected[cut:]
            both = parsed[0], parsed[1]
        else:
            both = (
                read_messages(chosen, self._where(record, "chosen")),
                read_messages(rejected, self._where(record, "rejected")),
            )
        if both[0] == both[1]:
            raise _Refused("equal", "fields 'chosen' and 'rejected' are the same")
        shared = 0
        while shared < min(map(len, both)) and both[0][shared] == both[1][shared]:
            shared += 1
        if [len(messages) - shared for messages in both] != [1, 1] or not shared:
            raise _Refused("diverging", "fields 'chosen' and 'rejected' differ in more than their last message")
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
