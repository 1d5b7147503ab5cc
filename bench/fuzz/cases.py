"""What a case of `bench.fuzz` is, and what the kinds share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.fuzz import mutations
from bench.fuzz.mutations import pick
from cvxrelu.support.errors import InputError

__all__ = ["Case", "Generator", "json_lines", "words", "written"]

Generator = np.random.Generator


@dataclasses.dataclass
class Case:
    """One input on the disk. `may_write` are endings of names of files that the reader may make or delete."""

    name: str
    read: Callable[[], Any]
    errors: tuple[type[Exception], ...]
    names: tuple[str, ...]
    valid: bool = False
    right: Callable[[Any], str | None] = lambda found: None
    line: int | None = None
    may_write: tuple[str, ...] = ()


def words(rng: Generator) -> str:
    pieces = ["blue", "green,", "2 + 2", "é", "“so”", "\U0001f600", 'a "b"', "line\nbreak", "x;y", "tab\there", "ok"]
    return " ".join(pick(rng, pieces) for _ in range(int(rng.integers(1, 5))))


def json_lines(rng: Generator, rows: list[Any], valid: bool) -> tuple[str, bytes, int | None]:
    """JSON lines, of which one is changed, or the file as a whole."""
    texts = [json.dumps(row, ensure_ascii=bool(rng.random() < 0.5)).encode() for row in rows]
    if valid:
        return (*mutations.harmless_text(rng, b"\n".join(texts).decode()), None)
    if rng.random() < 0.8:
        at = int(rng.integers(len(rows)))
        name, texts[at] = mutations.mutate_json(rng, rows[at], line=True)
        alone = b"\r" not in texts[at] and texts[at].strip() != b""
        return name, b"\n".join(texts), at + 1 if alone else None
    return (*mutations.mutate_bytes(rng, b"\n".join(texts)), None)


def written(
    rng: Generator, path: Path, outside: Path, name: str, data: bytes, valid: bool, read: Callable[[], Any],
    right: Callable[[Any], str | None], errors: tuple[type[Exception], ...] = (InputError,),
) -> Case:  # fmt: skip
    """The case of one file; now and then something else is in its place, or a link to it."""
    path.write_bytes(data)
    line = None
    if not valid and rng.random() < 0.06:
        name, line = mutations.mutate_file(rng, path, outside), 0
    elif rng.random() < 0.05:
        path.rename(outside / path.name)
        path.symlink_to(outside / path.name)
        name = f"linked, {name}"
    return Case(name, read, errors, (path.name,), valid, right, line)
