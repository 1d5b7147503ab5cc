"""Options checked at the boundary: one error that names argument, value and expectation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["as_bool", "as_fraction", "as_positive", "as_seed", "as_whole"]


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


def _number(name: str, value: Any, wanted: str, above: float, below: float) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
    if not above < value < below:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return float(value)
