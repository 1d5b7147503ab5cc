"""The non-negative lasso against SciPy's NNLS, against its optimality conditions, and on degenerate columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import lasso_optimum
from scipy.optimize import nnls

from cvxrelu.numerics import lasso
from cvxrelu.numerics.lasso import nonnegative_quadratic

KINDS = ["plain", "low rank", "repeated", "nearly parallel", "column scales", "zero columns"]


def draw(seed, kind):
    """Columns (n, m), fewer or more than rows, y (n,), beta, and a start, perhaps zero."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 30)), int(rng.integers(1, 50))
    A = rng.standard_normal((n, m))
    if kind == "low rank":
        A = np.maximum(rng.standard_normal((n, 3)) @ rng.standard_normal((3, m)), 0)
    elif kind == "repeated":
        A = A[:, rng.integers(m, size=m)]
    elif kind == "nearly parallel":
        A = np.maximum(rng.standard_normal((n, 3)) @ (np.ones((3, 1)) + 1e-3 * rng.standard_normal((3, m))), 0)
    elif kind == "column scales":
        A = A * 10.0 ** rng.uniform(-4, 4, m)
    elif kind == "zero columns":
        A[:, rng.random(m) < 0.4] = 0.0
    y = rng.standard_normal(n)
    beta = 10.0 ** rng.uniform(-4, 0) * max(np.abs(A.T @ y).max(), 1e-9)
    start = np.abs(rng.standard_normal(m)) * (rng.random(m) < 0.5) * 10.0 ** rng.uniform(-3, 3)
    return A, y, beta, start * (seed % 3 > 0)


def objective(A, y, beta, s):
    return float(0.5 * np.sum((A @ s - y) ** 2) + beta * s.sum())


def solve(A, y, beta, start):
    return nonnegative_quadratic(A.T @ A, A.T @ y - beta, start)


def violation(A, y, beta, s):
    """Of stationarity and complementarity, relative to the magnitudes in the gradient of a column of its length."""
    lengths = np.linalg.norm(A, axis=0)
    gradient = A.T @ (A @ s - y) + beta
    size = np.abs(A).T @ (np.abs(A) @ s + np.abs(y)) + beta
    wrong = np.where(s > 0, np.abs(gradient), np.maximum(-gradient, 0))
    return float(np.max(wrong / np.where(lengths > 0, size, 1.0)))


@settings(max_examples=150)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_is_the_optimum(seed, kind):
    A, y, beta, start = draw(seed, kind)
    s = solve(A, y, beta, start)
    assert np.all(s >= 0) and np.isfinite(s).all()
    zero = 0.5 * float(y @ y)
    assert objective(A, y, beta, s) <= lasso_optimum(A, y, np.ones(len(y)), beta) + 1e-8 * zero
    if kind not in ("nearly parallel", "column scales"):
        assert violation(A, y, beta, s) <= 1e-8


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_single_precision_moments(seed, kind):
    """As refinement computes them: G may then be indefinite, and the result is as good as its G."""
    A, y, beta, start = draw(seed, kind)
    gram, linear = (A.T @ A).astype(np.float32).astype(float), (A.T @ y - beta).astype(np.float32).astype(float)
    s = nonnegative_quadratic(gram, linear, start)
    assert np.all(s >= 0) and np.isfinite(s).all()
    if kind in ("plain", "repeated", "zero columns"):
        unit = 0.5 * float(y @ y)
        assert objective(A, y, beta, s) <= lasso_optimum(A, y, np.ones(len(y)), beta) + 1e-3 * unit


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_least_squares_without_a_penalty_is_nnls(seed, kind):
    A, y, _, start = draw(seed, kind)
    expected = nnls(A, y)[1]
    got = np.linalg.norm(A @ solve(A, y, 0.0, start) - y)
    assert got <= expected + 1e-4 * np.linalg.norm(y)


def test_against_cvxpy():
    cp = pytest.importorskip("cvxpy")
    A, y, beta, start = draw(7, "plain")
    s = cp.Variable(A.shape[1], nonneg=True)
    program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(A @ s - y) + beta * cp.sum(s)))
    program.solve(solver=cp.CLARABEL)
    assert objective(A, y, beta, solve(A, y, beta, start)) == pytest.approx(program.value, rel=1e-7)


def test_a_warm_start_at_the_optimum_takes_no_factorisation(monkeypatch):
    A, y, beta, start = draw(3, "plain")
    s = solve(A, y, beta, start)
    monkeypatch.setattr(lasso, "_newton", lambda *_: pytest.fail("factorised"))
    np.testing.assert_allclose(solve(A, y, beta, s), s, rtol=1e-12)


def test_small_and_empty_problems():
    assert nonnegative_quadratic(np.zeros((0, 0)), np.zeros(0), np.zeros(0)).shape == (0,)
    one = np.array([[4.0]])
    for linear, expected in ((2.0, 0.5), (-1.0, 0.0), (0.0, 0.0)):
        for start in (0.0, 3.0):
            got = nonnegative_quadratic(one, np.array([linear]), np.array([start]))
            assert got[0] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    dead = nonnegative_quadratic(np.zeros((2, 2)), np.array([-1.0, -1.0]), np.zeros(2))
    np.testing.assert_array_equal(dead, 0.0)


def test_equal_columns_share():
    """Any split is optimal; what matters is the sum."""
    a = np.array([1.0, 2.0, -1.0])
    A, y = np.stack([a, a, a], axis=1), np.array([3.0, 1.0, 0.0])
    s = solve(A, y, 0.5, np.array([0.0, 5.0, 0.0]))
    assert s.sum() == pytest.approx((a @ y - 0.5) / (a @ a), rel=1e-9)


def test_does_not_change_its_arguments():
    A, y, beta, start = draw(5, "plain")
    gram, linear, given = A.T @ A, A.T @ y - beta, start.copy()
    copies = gram.copy(), linear.copy()
    nonnegative_quadratic(gram, linear, start)
    np.testing.assert_array_equal(gram, copies[0])
    np.testing.assert_array_equal(linear, copies[1])
    np.testing.assert_array_equal(start, given)
