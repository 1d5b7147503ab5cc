"""Boxes that cover the unit sphere, and how they are cut.

A box {y : l <= y <= h} is cut at a value of one coordinate, which both halves keep: together they cover what it did,
without any rounding. A half that the sphere does not meet is dropped, and the sides of coordinates that have been cut
are drawn in to where it does, both with an allowance for rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Boxes", "halves"]

ALLOWANCE = 1e-12  # of squared lengths near one
INNER = 0.25  # least share of a side that a half is left with


class Boxes(NamedTuple):
    """low, high: sides. drifts: how far t has moved, relatively, since the bounds. starts: moments to start from."""

    low: Float[np.ndarray, "B r"]
    high: Float[np.ndarray, "B r"]
    signs: Float[np.ndarray, " B"]
    names: Int[np.ndarray, " B"]
    bounds: Float[np.ndarray, " B"]
    drifts: Float[np.ndarray, " B"]
    starts: Float[np.ndarray, "B d"]

    def of(self, which: np.ndarray) -> Boxes:
        return Boxes(*(part[which] for part in self))

    def joined(self, other: Boxes) -> Boxes:
        return Boxes(*(np.concatenate(parts) for parts in zip(self, other, strict=True)))


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
    missed = (shortest.sum(axis=1) > 1.0 + ALLOWANCE) | (longest.sum(axis=1) < 1.0 - ALLOWANCE)
    met = ~missed  # what is not a number is not missed
    others = shortest.sum(axis=1)[:, None] - shortest
    reach = np.minimum(np.sqrt(np.maximum(1.0 - others, 0.0) + ALLOWANCE), 1.0)
    reach[(low == -1) & (high == 1)] = 1.0
    return np.maximum(low, -reach)[met], np.minimum(high, reach)[met], parent[met]
