"""NumPy: the eager driver with LAPACK's Cholesky factorisation."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import scipy.linalg

from cvxrelu.backends.base import Backend

__all__ = ["NumpyBackend"]


class NumpyBackend(Backend):
    name = "numpy"
    xp = xp

    def spd_inverse(self, matrix: Any) -> Any:
        potrf, potri = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (matrix,))
        # LAPACK wants Fortran order; the transpose of a symmetric C-ordered matrix is the matrix itself, without a
        # copy.
        factor, info = potrf(matrix.T, lower=False, clean=True)
        if info != 0:
            return np.full_like(matrix, np.nan)  # as JAX does: the solve then ends with the status numerical_error
        upper, _ = potri(factor, lower=False)
        # potrf has zeroed the other triangle and potri leaves it so.
        inverse = upper + upper.T
        inverse[np.diag_indices_from(inverse)] *= 0.5
        return inverse

    def smallest(self, values: Any, count: int) -> Any:
        return np.argpartition(values, count - 1, axis=1)[:, :count]  # n steps a row, where sorting takes n log n
