"""Preference triples (prompt, chosen, rejected): loaded, validated, counted, split. Records: see `formats`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Int

from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write
from cvxrelu.support.text_files import pack_text
from cvxrelu_llm.preferences import splits
from cvxrelu_llm.preferences.formats import FIELDS, RecordReader
from cvxrelu_llm.preferences.published import as_format, recognised, standard
from cvxrelu_llm.preferences.records import read_records
from cvxrelu_llm.preferences.triple import Refused, Triple

__all__ = ["Triple", "Triples", "as_triples", "load_triples"]


@dataclasses.dataclass(frozen=True)
class Triples(Sequence[Triple]):
    """Triples in order, and what was met on the way.

    counts : "read" records, "kept" triples; dropped: "equal" (chosen is rejected), "empty" (a response or prompt
        without text), "diverging" (more than one message differs), "unpaired" (completions without a counterpart),
        "tied" (equal ratings), "misrated" (the rejected answer has the higher one), "unrated" (of several answers, one
        without a rating);
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
            prompt = [[*message, message.rest] if message.rest else message for message in t.prompt]
            content = [prompt, t.chosen, t.rejected, t.weight, t.margin, t.group]
            digest.update(json.dumps(content).encode() + b"\n")
        return digest.hexdigest()

    def split(self, fraction: Any, seed: Any = 0) -> tuple[Triples, Triples]:
        """(train, test): test holds about `fraction` of the triples. No prompt and no group is on both sides."""
        train, test = splits.split(self.items, fraction, seed)
        return self.select(train), self.select(test)

    def kfold(self, k: Any, seed: Any = 0) -> list[tuple[Triples, Triples]]:
        """k pairs (train, test) whose test sides partition the triples, grouped like `split`."""
        return [(self.select(train), self.select(test)) for train, test in splits.kfold(self.items, k, seed)]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write TRL's conversational format as JSON lines (packed where `path` ends in .gz)."""
        return atomic_write(path, pack_text(path, "".join(json.dumps(_record(t)) + "\n" for t in self.items)))


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
    source: Any, *, format: Any = "auto", columns: Any = None, dialogue: Any = "auto", ratings: Any = "ignore",
    strict: Any = False, split: Any = "train",
) -> Triples:  # fmt: skip
    """Read and validate preference triples.

    Parameters
    ----------
    source : path of a .jsonl, .json, .csv, .tsv (each also .gz) or .parquet file, a `datasets.Dataset`, a table of
        pandas, pyarrow or polars, any iterable of mappings, or the name of a data set on the hub.
    format : "standard", the fields of `formats`, or the name of a published collection, of `published`; "auto"
        recognises those by their fields, unless `columns` are given.
    columns : mapping of names here to names there, e.g. {"chosen": "better"}; see `formats` for the fields.
    dialogue : "auto" turns texts marked with "Human:" and "Assistant:" (Anthropic's) into chat messages; "text" leaves
        every text prompt as one message of the user.
    ratings : "margin" adds to each margin by how much the chosen answer was rated higher, divided by the mean of that
        over all pairs, so that the mean is 1; "ignore" takes ratings for their order alone.
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
    columns, chosen = _checked(columns), as_format(format)
    if ratings not in ("ignore", "margin"):
        raise ValueError(f"ratings must be 'ignore' or 'margin', got {ratings!r}")
    if columns and chosen not in ("auto", "standard"):
        raise ValueError(f"columns are of the standard format, and do not go with format={format!r}")
    reader = RecordReader({field: columns.get(field, field) for field in FIELDS}, dialogue == "auto")
    found: list[Triple] = []
    refused: Counter[str] = Counter()
    n = 0
    for record in read_records(source, split=split):
        n += 1
        try:
            kind = chosen if chosen != "auto" else "standard" if columns else recognised(record.fields)
            found += reader.read(standard(record, kind))
        except Refused as refusal:
            if strict:
                raise InputError(f"{record.place}: {refusal.words}") from None
            refused[refusal.reason] += 1
        if reader.refused and strict:
            raise InputError(f"{record.place}: {reader.refused[0].words}")
    if n and (absent := [name for name in columns.values() if name not in reader.seen]):
        raise InputError(f"{_name(source)}: no record has the field {absent[0]!r} that columns name")
    paired, unpaired = reader.pair_up()
    if unpaired and strict:
        raise InputError(f"{unpaired[0]}: its prompt has no completion of the other label, or of another score")
    refused["unpaired"] += len(unpaired)
    refused.update(refusal.reason for refusal in reader.refused)
    triples = [*found, *paired]
    if ratings == "margin":
        mean = float(np.mean([t.rating for t in triples])) if triples else 0.0
        if not mean > 0:
            raise InputError(f"{_name(source)}: ratings='margin' needs ratings, and no pair has any")
        triples = [dataclasses.replace(t, margin=t.margin + t.rating / mean) for t in triples]
    return as_triples(triples, n, refused, strict=strict, origin=source)


def _checked(columns: Any) -> dict[str, str]:
    """The mapping of fields to names of columns, if it is one and no column has two meanings."""
    if columns is None:
        return {}
    if not isinstance(columns, Mapping) or not all(isinstance(name, str) and name for name in columns.values()):
        raise ValueError(f"columns must map fields to names, such as {{'chosen': 'better'}}, got {columns!r}")
    if unknown := set(columns) - set(FIELDS):
        raise ValueError(f"columns must map some of {', '.join(FIELDS)}, got {', '.join(sorted(map(str, unknown)))}")
    names = list(columns.values())
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"columns must map fields to different names, got {twice[0]!r} twice")
    return dict(columns)


def _name(source: Any) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "source"


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
        dropped = ", ".join(f"{value} {key}" for key, value in counts.items() if value and key not in ("read", "kept"))
        raise InputError(f"{_name(origin)}: no triples in {n_read} records ({dropped or 'empty'})")
    return Triples(tuple(kept), dict(counts))
