"""Boxes that cover the unit sphere, and how they are cut.

A box {y : l <= y <= h} is cut at a value of one coordinate, which both halves keep, so that together they cover what it
did, without any rounding. A half that the sphere does not meet is dropped, and the sides of coordinates that have been cut
are drawn in to where it does, both with an allowance for rounding.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

__all__ = ["halves"]

ALLOWANCE = 1e-12  # of squared lengths near one
INNER = 0.25  # least share of a side that a half is left with


def halves(
    low: Float[np.ndarray, "B r"],
    high: Float[np.ndarray, "B r"],
    coordinates: Int[np.ndarray, " B"],
    at: Float[np.ndarray, " B"],
) -> tuple[Float[np.ndarray, "h r"], Float[np.ndarray, "h r"], Int[np.ndarray, " h"]]:
    """Both halves of each box, cut at this coordinate: (low, high, which box). Uncut sides in [-1, 1] at zero, others
    near `at`, which is moved to the middle half of the side."""
    every = np.arange(len(low))
    bottom, top = low[every, coordinates], high[every, coordinates]
    at = np.clip(at, bottom + INNER * (top - bottom), top - INNER * (top - bottom))
    at = np.where((bottom == -1) & (top == 1), 0.0, at)
    low, high, parent = (np.concatenate([part, part]) for part in (low, high, every))
    high[every, coordinates] = low[len(every) + every, coordinates] = at
    shortest, longest = np.maximum(np.maximum(low, -high), 0.0) ** 2, np.maximum(low * low, high * high)
    met = (shortest.sum(axis=1) <= 1.0 + ALLOWANCE) & (longest.sum(axis=1) >= 1.0 - ALLOWANCE)
    others = shortest.sum(axis=1)[:, None] - shortest
    reach = np.minimum(np.sqrt(np.maximum(1.0 - others, 0.0) + ALLOWANCE), 1.0)
    reach[(low == -1) & (high == 1)] = 1.0
    return np.maximum(low, -reach)[met], np.minimum(high, reach)[met], parent[met]
