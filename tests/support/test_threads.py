"""One BLAS thread for small data, all of them for large, and afterwards what there was before."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - loads the BLAS of SciPy
from threadpoolctl import ThreadpoolController

import cvxrelu
from cvxrelu.support.threads import SERIAL, blas_threads


def counts():
    return [library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()]


@pytest.mark.parametrize("size", [1, SERIAL, SERIAL + 1])
def test_few_numbers_get_one_thread(size):
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        before = counts()
        with blas_threads(size):
            assert set(counts()) <= ({1} if size <= SERIAL else set(before))
        assert counts() == before


def test_a_solve_leaves_the_threads_as_they_were():
    rng = np.random.default_rng(0)
    seen = []
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        before = counts()
        cvxrelu.solve(
            rng.standard_normal((30, 2)), rng.standard_normal(30), beta=1.0, backend="numpy",
            callback=lambda _: seen.append(set(counts())),
        )  # fmt: skip
        assert counts() == before
    assert seen and all(found <= {1} for found in seen)
