"""The cells of an arrangement of planes through the origin, for pricing by all of them (`exact_pricing`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxrelu.numerics.rounding import EPS, gamma, power_of_two
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.arrangement import count_patterns, enumerate_by

__all__ = ["RANK", "Arrangement", "arrange"]

RANK = 3
INDISTINCT = 1e-8  # of the size of X: cells that may hide between planes have to be thinner


class Arrangement(NamedTuple):
    """The cells of X in coordinates of its row space, padded to three: prepared once, priced for any number of p."""

    basis: Float[np.ndarray, "d 3"]  # orthonormal, columns beyond the rank zero
    lengths: Float[np.ndarray, " n"]  # |x_i|
    moved: Float[np.ndarray, " n"]  # at most so far is x_i from its multiple of normals[plane], or hidden in the cells
    rows: Float[np.ndarray, "n 3"]  # that multiple
    plane: Int[np.ndarray, " n"]  # which plane it belongs to; zero rows to plane 0
    normals: Float[np.ndarray, "K 3"]
    patterns: Bool[np.ndarray, "K cells"]  # 1[normals @ g >= 0]
    unit: float  # power of two that lengths, moved and rows are divided by


def arrange(X: Float[np.ndarray, "n d"], *, limit: int = 2_000_000, deadline: float = np.inf) -> Arrangement:
    """The cells of X, of rank at most 3; parameters and errors as in `exact_price`."""
    n, d = X.shape
    unit = power_of_two(X)
    X = X / unit
    lengths = np.linalg.norm(X, axis=1)
    space = row_space(X)
    rank = space.rows.shape[1]
    if rank > RANK:
        raise ValueError(f"X must have rank at most {RANK} for exact pricing, got rank {rank}: use a relaxed price")
    basis, Z = (np.pad(array, ((0, 0), (0, RANK - rank))) for array in (space.basis, space.rows))
    normals, plane = np.zeros((1, RANK)), np.zeros(n, dtype=np.intp)
    normals[0, 0], patterns, thickness = 1.0, np.array([[True, False]]), np.zeros(n)
    if rank > 0:
        found = enumerate_by(Z[:, :rank], limit, deadline).patterns
        first, plane = _planes(found, np.any(Z != 0, axis=1))
        patterns, normals = found[first], Z[first] / np.linalg.norm(Z[first], axis=1)[:, None]
        if patterns.shape[1] < count_patterns(len(first), rank):
            thickness = _thickness(Z[:, :rank], lengths)
    # Rows of one plane differ in direction by rounding, or by as little as the enumeration cannot tell.
    rows = np.sum(Z * normals[plane], axis=1)[:, None] * normals[plane]
    moved = space.moved + np.linalg.norm(Z - rows, axis=1) + gamma(d, RANK) * lengths + thickness
    return Arrangement(basis, lengths, moved, rows, plane, normals, patterns, unit)


def _planes(patterns: Bool[np.ndarray, "n cells"], nonzero: Bool[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each plane, and the plane of each row: rows of one plane have equal or opposite patterns."""
    packed = np.packbits(patterns ^ ~patterns[:, :1], axis=1)
    index: dict[bytes, int] = {}
    plane = np.zeros(len(packed), dtype=np.intp)
    first: list[int] = []
    for i in np.flatnonzero(nonzero):
        plane[i] = index.setdefault(packed[i].tobytes(), len(first))
        if plane[i] == len(first):
            first.append(int(i))
    return np.array(first), plane


def _thickness(Z: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """How far `enumerate_patterns` may take z_i @ u for zero, |u| = 1, where more than two planes meet.

    It works on rows z_i / scale, whitened, and tells products from zero by 64 eps cond; hence twice that, times cond on
    the way back, with |scale * u| <= max(scale).
    """
    nonzero = lengths > 0
    scale = np.max(np.abs(Z), axis=0)
    sizes = np.linalg.norm(Z / scale, axis=1)
    values = np.linalg.svd(Z[nonzero] / scale / sizes[nonzero, None], compute_uv=False)
    thickness = np.minimum(256.0 * EPS * (values[0] / values[-1]) ** 2 * scale.max() * sizes, lengths)
    if np.any(thickness > INDISTINCT * scale.max()):
        raise ValueError(
            "X has rows so nearly parallel or dependent that float64 cannot tell the cells apart; round or standardise "
            "X, or use a relaxed price"
        )
    return thickness
