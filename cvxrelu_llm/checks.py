"""Options checked at the boundary: one error that names argument, value and expectation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvxrelu_llm.errors import InputError
from cvxrelu_llm.values import is_missing, plain

__all__ = ["as_bool", "as_fraction", "as_groups", "as_numbers", "as_positive", "as_seed", "as_whole"]


def as_bool(name: str, value: Any) -> bool:
    """True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def as_positive(name: str, value: Any) -> float:
    """A positive finite number."""
    return _number(name, value, "a positive finite number", 0.0, math.inf)


def as_fraction(name: str, value: Any) -> float:
    """A number strictly between 0 and 1."""
    return _number(name, value, "a number strictly between 0 and 1", 0.0, 1.0)


def as_seed(seed: Any) -> int:
    """A nonnegative integer, of Python or NumPy."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a nonnegative integer, got {seed!r}")
    return int(seed)


def as_whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number from `least`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, got {value!r}")
    return int(value)


def as_numbers(name: str, value: Any, shape: Sequence[int | None], per: str = "") -> Float[np.ndarray, "..."]:
    """Finite real numbers of that shape (None: any length), as float64.

    per : what there must be an entry of, for the message; InputError, a ValueError, says what was got instead.
    """
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    wanted = f"finite real numbers of shape ({sizes}{',' if len(shape) == 1 else ''})"
    array = _as_array(name, value, wanted)
    if array.dtype.kind not in "biuf" and not array.dtype.name.startswith(("bfloat", "float")):
        raise InputError(f"{name} must be {wanted}, got values of type {array.dtype}")
    if array.ndim == len(shape) and per and len(array) != shape[0]:
        raise InputError(f"{name} must have one entry per {per}, {shape[0]}, got {len(array)}")
    if array.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, array.shape, strict=True)):
        raise InputError(f"{name} must be {wanted}, got shape {array.shape}")
    found = array.astype(np.float64)
    if not np.isfinite(found).all():
        place = tuple(int(k) for k in np.argwhere(~np.isfinite(found))[0])
        raise InputError(f"{name} must be {wanted}, got {found[place]} at {place if len(place) > 1 else place[0]}")
    return found


def as_groups(name: str, value: Any) -> Int[np.ndarray, " m"]:
    """(m,) numbers 0, 1, ... for names of groups; what has no group (None or NaN) is a group by itself."""
    array = _as_array(name, value, "a list of names")
    if array.ndim != 1:
        raise InputError(f"{name} must be a list of names, got shape {array.shape}")
    names = list(value) if isinstance(value, (list, tuple)) else list(array)  # NumPy makes NaN among texts a text
    alone = np.array([is_missing(plain(given)) for given in names], dtype=bool)
    given = np.asarray([known for known, missing in zip(names, alone, strict=True) if not missing])
    if given.dtype.kind == "O":
        given = np.array([str(known) for known in given])
    known, codes = np.unique(given, return_inverse=True)
    found = np.empty(len(names), dtype=np.int64)
    found[~alone] = codes
    found[alone] = len(known) + np.arange(alone.sum())
    return found


def _as_array(name: str, value: Any, wanted: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths, a tensor elsewhere
        raise InputError(f"{name} must be {wanted}, got {type(value).__name__} ({error})") from error


def _number(name: str, value: Any, wanted: str, above: float, below: float) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    if not above < value < below:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return float(value)
