"""Rows of X in an orthonormal basis of the space they span, with a bound on what that moves; scales and rounding.

For u in the unit ball, p^T (X u)_+ changes by at most sum_i |p_i| |delta_i| when every row x_i moves by delta_i. So a
maximum over the ball may be computed in the r coordinates of row space, and stay a statement about X.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.numerics.rounding import EPS, gamma
from cvxrelu.support.blocks import summed

__all__ = ["RowSpace", "right_singular_basis", "row_space"]


class RowSpace(NamedTuple):
    """`X = rows @ basis.T` up to `moved`: basis (d, r) orthonormal, rows (n, r), |x_i - basis @ rows_i| <= moved_i."""

    basis: Float[np.ndarray, "d r"]
    rows: Float[np.ndarray, "n r"]
    moved: Float[np.ndarray, " n"]


def row_space(X: Float[np.ndarray, "n d"]) -> RowSpace:
    """X in coordinates of its row space, X itself at full rank; scales of rows and columns do not sway the rank."""
    n, d = X.shape
    rows = X[np.any(X != 0, axis=1)]
    if len(rows) == 0:
        return RowSpace(np.zeros((d, 0)), np.zeros((n, 0)), np.zeros(n))
    scale = np.max(np.abs(rows), axis=0)
    scale[scale == 0] = 1.0
    unit = rows / scale
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    _, values, right = np.linalg.svd(unit, full_matrices=False)
    rank = int(np.sum(values > max(unit.shape) * EPS * values[0]))
    if rank == d:
        return RowSpace(np.eye(d), X, np.zeros(n))
    basis = np.linalg.qr((right[:rank] * scale).T)[0]
    coordinates = X @ basis
    moved = np.linalg.norm(X - coordinates @ basis.T, axis=1) + gamma(d, rank) * np.linalg.norm(X, axis=1)
    return RowSpace(basis, coordinates, moved)


def right_singular_basis(X: Any, xp: Any) -> tuple[Any, Any]:
    """Orthonormal basis (d, r) of X's row space and the eigenvalues (r,) of X^T X in it, decreasing; r >= 1."""
    n, d = X.shape
    if d <= n:
        values, basis = xp.linalg.eigh(summed(d, lambda b: X[b, :].T @ X[b, :], X))
        values, basis = xp.flip(values), xp.flip(basis, axis=1)
    else:
        _, singular, transposed = xp.linalg.svd(X, full_matrices=False)
        values, basis = singular**2, transposed.T
    floor = float(values[0]) * max(n, d) * float(np.finfo(np.float64).eps)
    rank = max(1, int(xp.sum(xp.astype(values > floor, xp.int64))))
    return basis[:, :rank], xp.maximum(values[:rank], xp.zeros((), dtype=values.dtype))
