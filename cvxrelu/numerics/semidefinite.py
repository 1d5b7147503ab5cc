"""Systems with a matrix that is positive semidefinite but for rounding: Hessians far out, where curvature vanishes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from jaxtyping import Float

from cvxrelu.numerics.rounding import EPS

__all__ = ["semidefinite_solver"]

MORE = 30.0  # times the shift before


def semidefinite_solver(matrix: Float[np.ndarray, "k k"]) -> Callable[[np.ndarray], np.ndarray]:
    """b -> x with (matrix + shift) x = b, for b of shape (k,) or (k, m).

    The matrix is scaled to a unit diagonal, so that entries of any size count. The shift is a multiple of the diagonal:
    its rounding, or where no Cholesky factor exists with that, the first that has one in a geometric sequence from
    there; an indefinite remainder of cancellations needs it. x is exact to rounding where the matrix is well
    conditioned; in any case x @ b >= 0.
    """
    k = len(matrix)
    root = np.sqrt(np.maximum(np.diagonal(matrix), np.finfo(np.float64).tiny))
    scaled = matrix / root / root[:, None]
    # A cancelled diagonal may be smaller than what stands beside it, which no shift of size one would outweigh.
    most = max(1.0, float(np.abs(scaled).sum(axis=1).max(initial=0.0)))
    shift = 4.0 * EPS * k
    while True:
        try:
            factor = scipy.linalg.cho_factor(scaled + shift * np.eye(k))
            break
        except np.linalg.LinAlgError:
            if shift > most:
                raise
            shift *= MORE

    def solve(b: np.ndarray) -> np.ndarray:
        column = root if b.ndim == 1 else root[:, None]
        return scipy.linalg.cho_solve(factor, b / column) / column

    return solve
