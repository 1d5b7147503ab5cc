"""NumPy: the eager driver with LAPACK's Cholesky and SciPy's conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from cvxrelu.backends.base import Backend

__all__ = ["NumpyBackend"]


class NumpyBackend(Backend):
    name = "numpy"
    xp = xp

    def cg(
        self,
        operator: Callable[[Any], Any],
        b: Any,
        x0: Any,
        preconditioner: Callable[[Any], Any],
        atol: Any,
        max_iter: int,
    ) -> tuple[Any, Any]:
        return _scipy_cg(scipy.sparse.linalg, operator, b, x0, preconditioner, float(atol), max_iter)

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


def _scipy_cg(
    linalg: Any, operator: Callable, b: Any, x0: Any, preconditioner: Callable, atol: float, max_iter: int
) -> tuple[Any, int]:
    """`scipy.sparse.linalg.cg`, or CuPy's copy of it, on arrays of any shape."""
    shape, size, steps = b.shape, b.size, 0

    def count(_: Any) -> None:
        nonlocal steps
        steps += 1

    def flat(fn: Callable) -> Any:
        return linalg.LinearOperator((size, size), matvec=lambda v: fn(v.reshape(shape)).reshape(-1), dtype=b.dtype)

    x, _ = linalg.cg(
        flat(operator),
        b.reshape(-1),
        x0=x0.reshape(-1),
        rtol=0.0,
        atol=atol,
        maxiter=max_iter,
        M=flat(preconditioner),
        callback=count,
    )
    return x.reshape(shape), steps
