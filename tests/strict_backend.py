"""A backend over array-api-strict: whatever runs on it uses nothing beyond the array API standard."""

from __future__ import annotations

import array_api_strict
import numpy as np
import scipy.sparse.linalg

from cvxrelu.backends.base import Backend
from cvxrelu.backends.numpy import _scipy_cg


class StrictBackend(Backend):
    name = "strict"
    xp = array_api_strict

    def _put_array(self, array):
        return array_api_strict.asarray(array)

    def _get_array(self, array):
        return np.asarray(array)

    def cg(self, operator, b, x0, preconditioner, atol, max_iter):
        def lift(fn):
            return lambda v: np.asarray(fn(array_api_strict.asarray(v)))

        solution, steps = _scipy_cg(
            scipy.sparse.linalg,
            lift(operator),
            np.asarray(b),
            np.asarray(x0),
            lift(preconditioner),
            float(atol),
            max_iter,
        )
        return array_api_strict.asarray(solution), steps

    def spd_inverse(self, matrix):
        return array_api_strict.linalg.inv(matrix)
