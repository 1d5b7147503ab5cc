"""Products of the distances to the sides of boxes, which are not negative in them, and points where they are positive.

For l <= y <= h: (y_j - l_j) (h_k - y_k), (y_j - l_j) (y_k - l_k) and (h_j - y_j) (h_k - y_k), linear in (u, U): u = y
and the upper triangle of U = y y^T, row after row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Products", "centres", "products_of"]

POINTS = 40  # of the distribution whose moments are a centre
TINY = 1e-300


class Products(NamedTuple):
    """C v + c: the products of distances to the sides of boxes, linear in v = (u, U)."""

    C: Float[np.ndarray, "B k d"]
    c: Float[np.ndarray, "B k"]

    def of(self, which: np.ndarray) -> Products:
        return Products(self.C[which], self.c[which])

    def at(self, v: Float[np.ndarray, "B d"]) -> Float[np.ndarray, "B k"]:
        return (self.C @ v[:, :, None])[:, :, 0] + self.c


def products_of(low: Float[np.ndarray, "B r"], high: Float[np.ndarray, "B r"]) -> Products:
    """Of the coordinates that are cut in one of these boxes."""
    B, r = low.shape
    first, second = np.triu_indices(r)
    pairs = len(first)
    cut = np.flatnonzero(np.any((low > -1) | (high < 1), axis=0))
    place = np.zeros((r, r), dtype=np.intp)
    place[first, second] = place[second, first] = r + np.arange(pairs)
    j, k = (cut[index.ravel()] for index in np.indices((len(cut), len(cut))))
    jj, kk = (cut[index] for index in np.triu_indices(len(cut), 1))
    C, c = np.zeros((B, len(j) + 2 * len(jj), r + pairs)), np.zeros((B, len(j) + 2 * len(jj)))
    every, mixed = np.arange(B)[:, None], np.arange(len(j))
    np.add.at(C, (every, mixed, j), high[:, k])
    np.add.at(C, (every, mixed, k), low[:, j])
    C[:, mixed, place[j, k]] -= 1.0
    c[:, mixed] = -low[:, j] * high[:, k]
    for number, side in enumerate((low, high)):
        these = len(j) + number * len(jj) + np.arange(len(jj))
        C[:, these, jj] = -side[:, kk]
        C[:, these, kk] = -side[:, jj]
        C[:, these, place[jj, kk]] = 1.0
        c[:, these] = side[:, jj] * side[:, kk]
    return Products(C, c)


def centres(low: Float[np.ndarray, "B r"], high: Float[np.ndarray, "B r"]) -> Float[np.ndarray, "B d"]:
    """Moments of some points of each box at unit distance: all products are positive for most boxes."""
    share = 0.05 + 0.9 * np.random.default_rng(0).random((POINTS, *low.shape))
    inside = low + share * (high - low)
    near = 0.985 * np.clip(0.0, low, high) + 0.0075 * (low + high)
    near = np.where((np.sum(near * near, axis=1) >= 1)[:, None], np.clip(0.0, low, high), near)
    far = np.where(np.abs(low) > np.abs(high), low, high)
    longer = np.sum(inside * inside, axis=2)
    way = np.where((longer > 1)[:, :, None], near, far) - inside
    square, along = np.maximum(np.sum(way * way, axis=2), TINY), np.sum(way * inside, axis=2)
    root = np.sqrt(np.maximum(along * along - square * (longer - 1.0), 0.0))
    y = inside + ((-along + np.where(longer > 1, -root, root)) / square)[:, :, None] * way
    first, second = np.triu_indices(low.shape[1])
    U = np.einsum("kbi,kbj->bij", y, y)
    U /= np.trace(U, axis1=1, axis2=2)[:, None, None]
    return np.concatenate([y.mean(axis=0), U[:, first, second]], axis=1)
