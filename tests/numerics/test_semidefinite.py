"""Systems with semidefinite matrices: exact where they are definite, a descent direction where rounding is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxrelu.numerics.semidefinite import semidefinite_solver


@given(st.integers(1, 8), st.integers(0, 2**31))
def test_definite_systems_are_solved(k, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((k + 3, k)) * 10.0 ** rng.uniform(-6, 6, k)  # columns of any size
    b = rng.standard_normal((k, 2))
    H = A.T @ A
    solve = semidefinite_solver(H)
    scale = np.sqrt(np.diagonal(H))[:, None]
    np.testing.assert_allclose((H @ solve(b)) / scale, b / scale, atol=1e-6 * np.abs(b / scale).max())
    np.testing.assert_allclose(solve(b[:, 0]), solve(b)[:, 0], rtol=1e-12)


@pytest.mark.parametrize("indefinite", [0.0, -1e-18, -1e-12, -1e-6])
def test_what_rounding_made_indefinite_gives_a_descent_direction(indefinite):
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    H = (Q * [1.0, 1e-3, 1e-9, indefinite, indefinite]) @ Q.T
    b = rng.standard_normal(5)
    x = semidefinite_solver(H)(b)
    assert np.isfinite(x).all() and x @ b > 0


def test_zero_and_cancelled_diagonals():
    assert np.isfinite(semidefinite_solver(np.zeros((3, 3)))(np.zeros(3))).all()
    H = np.array(
        [[1e-30, 1e-8], [1e-8, 1.0]]
    )  # no diagonal of a semidefinite matrix is that small beside such an entry
    assert np.isfinite(semidefinite_solver(H)(np.ones(2))).all()
