"""Directions in the order of their values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Ranked", "distinct"]


Ranked = tuple[np.ndarray, np.ndarray]  # directions and their values in falling order


def whitening(scatter: np.ndarray) -> np.ndarray:
    """S with S^T X^T X S = I on the row space of X: directions S z, z Gaussian, have X S z alike in all coordinates."""
    values, vectors = np.linalg.eigh(scatter)
    seen = values > 1e-10 * max(values[-1], np.finfo(np.float64).tiny)
    return vectors * np.where(seen, np.sqrt(values[-1] / np.where(seen, values, 1.0)), 0.0)


def merged(one: Ranked, other: Ranked) -> Ranked:
    values = np.concatenate([one[1], other[1]])
    order = np.argsort(-values, kind="stable")
    return np.concatenate([one[0], other[0]], axis=1)[:, order], values[order]


def distinct(directions: Float[np.ndarray, "d k"], cosine: float, most: int) -> Int[np.ndarray, " j"]:
    """Indices of at most `most` columns, first come first, no two of which are closer than `cosine`."""
    chosen: list[int] = []
    free = np.ones(directions.shape[1], dtype=bool)
    while len(chosen) < most and free.any():
        j = int(free.argmax())
        chosen.append(j)
        free &= directions.T @ directions[:, j] <= cosine
        free[j] = False
    return np.array(chosen, dtype=np.intp)
