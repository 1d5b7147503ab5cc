"""Stored files of this package: what they hold, checked entry by entry, or one `InputError` that names the file."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from cvxrelu.support.errors import InputError
from cvxrelu.support.stored import (
    damage,
    short,
)

__all__ = ["Fields", "checked_shapes", "stored"]


@contextlib.contextmanager
def stored(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn whatever is wrong with the files at `path` into an `InputError` that begins with it.

    what : "a folder of a reward head", say; the message tells that the path is none, or a damaged one.
    """
    try:
        with damage(path):
            yield
    except (ValueError, OSError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: not {what}, or a damaged one ({reason})") from error


class Fields:
    """The entries of a JSON object, each taken with its type; ValueError names the entry."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} must be an object, got {short(value)}")
        self.value, self.place = value, place

    def take(self, name: str, words: str, accept: Callable[[Any], bool]) -> Any:
        if name not in self.value:
            raise ValueError(f"{self.place} has no entry {name!r}")
        if not accept(self.value[name]):
            raise ValueError(f"{self.place}: {name!r} must be {words}, got {short(self.value[name])}")
        return self.value[name]

    def text(self, name: str) -> str:
        return self.take(name, "a text", lambda value: isinstance(value, str))

    def whole(self, name: str) -> int:
        return self.take(name, "a whole number from 0", lambda value: type(value) is int and 0 <= value < 2**63)

    def flag(self, name: str) -> bool:
        return self.take(name, "true or false", lambda value: isinstance(value, bool))

    def number(self, name: str, *, least: float = -math.inf, infinite: bool = False, optional: bool = False) -> Any:
        """A float from `least`; with `infinite` also "inf", "-inf" and "nan"; with `optional` null."""
        words = "a number" if least == -math.inf else f"a number from {least:g}"

        def accept(value: Any) -> bool:
            if value is None:
                return optional
            if isinstance(value, str):
                return infinite and value in ("inf", "-inf", "nan")
            return type(value) in (int, float) and abs(value) < 1e300 and value >= least

        value = self.take(name, words, accept)
        return None if value is None else float(value)

    def fields(self, name: str) -> Fields:
        return Fields(self.take(name, "an object", lambda value: isinstance(value, Mapping)), f"{self.place}: {name!r}")

    def items(self, name: str) -> list[Any]:
        return self.take(name, "a list", lambda value: isinstance(value, list))


def checked_shapes(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[Any, ...]]) -> dict[str, int]:
    """The sizes behind the letters of `shapes`, {"X": ("n", "D"), ...}; ValueError names an array of another shape."""
    sizes: dict[str, int] = {}
    for name, wanted in shapes.items():
        if (array := arrays.get(name)) is None:
            continue
        fits = array.ndim == len(wanted) and all(
            sizes.setdefault(letter, length) == length if isinstance(letter, str) else letter == length
            for letter, length in zip(wanted, array.shape, strict=True)
        )
        if not fits:
            expected = ", ".join(str(sizes.get(letter, letter)) for letter in wanted)
            raise ValueError(f"the tensor {name} has shape {array.shape}; expected ({expected})")
    return sizes
