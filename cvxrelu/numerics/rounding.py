"""Rounding in float64: what a bound has to allow for."""

from __future__ import annotations

import numpy as np

__all__ = ["EPS", "UNDERFLOW", "gamma", "power_of_two"]


EPS = float(np.finfo(np.float64).eps)
UNDERFLOW = 1e-150  # more than a norm can lose where squares of its entries vanish


def power_of_two(array: np.ndarray) -> float:
    """The size of an array, as a divisor that rounds nothing."""
    largest = float(np.abs(array).max(initial=0.0))
    return 2.0 ** float(np.floor(np.log2(largest))) if largest > 0 else 1.0


def gamma(*shape: int) -> float:
    """What a product over an array of this shape may be off by, relative to the product of absolute values:
    EPS (2 sum of the shape + 10). Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.1."""
    return EPS * (2.0 * sum(shape) + 10.0)
