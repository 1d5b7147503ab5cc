"""A backend over array-api-strict: whatever runs on it uses nothing beyond the array API standard."""

from __future__ import annotations

import array_api_strict
import numpy as np

from cvxrelu.backends.base import Backend


class StrictBackend(Backend):
    name = "strict"
    xp = array_api_strict

    def _put_array(self, array):
        return array_api_strict.asarray(array)

    def _get_array(self, array):
        return np.asarray(array)

    def spd_inverse(self, matrix):
        try:
            array_api_strict.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return matrix * float("nan")
        return array_api_strict.linalg.inv(matrix)
