"""Skips: constraints eliminated, coefficients settled, whitening, against dense algebra and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.linalg import null_space
from scipy.optimize import minimize

from cvxrelu.program import skip as module
from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.multinomial import Multinomial
from cvxrelu.program.problem import build_problem
from cvxrelu.program.readout import make_pairs
from cvxrelu.program.skip import (
    as_skip,
    free_coefficients,
    free_directions,
    make_skip,
    settle,
    shorter,
    skip_columns,
    whiten,
)

seeds = st.integers(0, 10**6)
PAIRS = np.array([[0, 1], [2, 3], [4, 0], [5, 1], [5, 1], [1, 5], [3, 2]])


def draw(seed, name, m=7, k=3, c=1, l2=0.1):
    """A loss, a skip of k columns, rank-deficient at times, and a prediction beside it."""
    rng = np.random.default_rng(seed)
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=(m, 1))
    weight[0] = 1.0
    columns = rng.standard_normal((m, k)) * 10.0 ** rng.uniform(-2, 2, k)
    if k > 1 and rng.random() < 0.3:
        columns[:, -1] = 2 * columns[:, 0]
    loss = {
        "squared": Squared(rng.standard_normal((m, c)), weight),
        "logistic": Logistic(rng.choice([-1.0, 1.0], (m, c)), weight, rng.standard_normal((m, 1))),
        "multinomial": Multinomial(
            np.eye(max(2, c))[rng.integers(max(2, c), size=m)], weight, np.zeros((m, max(2, c)))
        ),
    }[name]
    c = loss.y.shape[1]
    skip = module.Skip(columns, l2, np.eye(k), np.zeros((k, c)), True, False)
    return loss, skip, rng.standard_normal((m, c)) * 10.0 ** rng.uniform(-2, 1)


def objective(loss, skip, base, z):
    return float(loss.value(base + skip.columns @ z)) + 0.5 * skip.l2 * float(np.sum(z * z))


def settled(loss, skip, base):
    """The z that `settle` finds from nothing."""
    white = whiten(skip, loss.curvature)
    return white.back @ settle(loss, white, base, np.zeros((white.ridge.size, base.shape[1])))


# -- what a skip is ---------------------------------------------------------------------------------------------------
def test_columns_and_kinds():
    X = np.arange(6.0).reshape(3, 2)
    with_one = np.hstack([X, np.ones((3, 1))])
    np.testing.assert_array_equal(skip_columns(with_one, True, "linear"), with_one)
    np.testing.assert_array_equal(skip_columns(X, False, "linear"), with_one)
    np.testing.assert_array_equal(skip_columns(with_one, True, "linear", bias=False), X)
    np.testing.assert_array_equal(skip_columns(X, False, "bias"), np.ones((3, 1)))
    assert [as_skip(kind) for kind in (False, None, np.False_, "bias", "linear")] == [
        None,
        None,
        None,
        "bias",
        "linear",
    ]
    assert make_skip(X, False, None, 1.0, None, None, 1) == (None, None)
    assert make_skip(X, False, "bias", 1.0, None, make_pairs(np.array([[0, 1]]), 3), 1) == (None, None)


@pytest.mark.parametrize("paired", [False, True])
def test_coefficients_by_name(paired):
    X = np.random.default_rng(0).standard_normal((6, 2))
    found, shift = make_skip(X, False, "linear", 1.0, None, make_pairs(PAIRS, 6) if paired else None, 2)
    assert shift is None and found.constant == 0
    z = np.arange(2.0 * found.columns.shape[1]).reshape(-1, 2)
    linear, bias = found.coefficients(z)
    f = X @ linear + (0 if bias is None else bias)
    assert (bias is None) == paired
    expected = f[PAIRS[:, 0]] - f[PAIRS[:, 1]] if paired else f
    np.testing.assert_allclose(found.columns @ z, expected, atol=1e-12)


# -- equality ---------------------------------------------------------------------------------------------------------
@given(seeds, st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(1, 2))
def test_equality_is_eliminated(seed, d, q, paired, c):
    """Every z is feasible, every feasible theta is some z, and norms and predictions are those of theta."""
    rng = np.random.default_rng(seed)
    X, C = rng.standard_normal((6, d)), rng.standard_normal((q, d)) * 10.0 ** rng.uniform(-8, 8, (q, 1))
    if q > 1 and rng.random() < 0.5:
        C[-1] = 3 * C[0]
    e = C @ rng.standard_normal((d, c))
    readout = make_pairs(PAIRS, 6) if paired else None
    found, shift = make_skip(X, False, "linear", 0.7, (C, e), readout, c)
    K = d + (not paired)
    dense = null_space(np.hstack([C / np.linalg.norm(C, axis=1, keepdims=True), np.zeros((q, K - d))]), rcond=1e-9)
    assert found.basis.shape == (K, dense.shape[1])
    np.testing.assert_allclose(found.basis @ found.basis.T, dense @ dense.T, atol=1e-9)
    z = rng.standard_normal((dense.shape[1], c))
    theta = found.origin + found.basis @ z
    units = np.linalg.norm(C, axis=1, keepdims=True)
    np.testing.assert_allclose(C @ theta[:d] / units, e / units, atol=1e-8 * (1 + np.abs(theta).max()))
    penalty = found.constant + 0.35 * np.sum(z * z)
    assert penalty == pytest.approx(0.35 * np.sum(theta**2), rel=1e-9, abs=1e-12)
    f = np.hstack([X, np.ones((6, 1))])[:, :K] @ theta
    f = f[PAIRS[:, 0]] - f[PAIRS[:, 1]] if paired else f
    np.testing.assert_allclose(
        (0 if shift is None else shift) + found.columns @ z, f, atol=1e-9 * (1 + np.abs(f).max())
    )


def test_a_homogeneous_constraint_shifts_nothing():
    found, shift = make_skip(np.ones((3, 2)), False, "linear", 1.0, (np.array([1.0, 2.0]), 0.0), None, 1)
    assert shift is None and not found.origin.any() and found.columns.shape == (3, 2)


def test_as_many_constraints_as_coefficients_leave_the_bias():
    X = np.random.default_rng(0).standard_normal((6, 2))
    found, shift = make_skip(X, False, "linear", 1.0, (np.eye(2), np.array([1.0, 2.0])), None, 1)
    np.testing.assert_allclose(shift[:, 0], X @ [1.0, 2.0])
    np.testing.assert_allclose(found.columns, np.ones((6, 1)))
    fixed, _ = make_skip(X, False, "linear", 1.0, (np.eye(2), np.array([1.0, 2.0])), make_pairs(PAIRS, 6), 1)
    assert fixed.columns.shape == (7, 0)


# -- the best coefficients --------------------------------------------------------------------------------------------
@settings(max_examples=60)
@given(seeds, st.sampled_from(["squared", "logistic", "multinomial"]), st.integers(1, 9), st.sampled_from([1, 3]),
       st.sampled_from([1e-6, 1e-2, 1.0, 1e3]))  # fmt: skip
@example(0, "logistic", 30, 1, 1e-3)
@example(0, "logistic", 3, 3, 1e-6)  # the objective is flat to rounding before the gradient is
def test_settling_is_a_minimum(seed, name, k, c, l2):
    """The gradient vanishes, which for a convex function is all there is to say; wide columns included."""
    loss, skip, base = draw(seed, name, k=k, c=c, l2=l2)
    z = settled(loss, skip, base)
    t = loss.dual(base + skip.columns @ z)
    pull = l2 * z - skip.columns.T @ t
    size = np.abs(skip.columns).T @ np.abs(t) + l2 * np.abs(z)
    assert np.linalg.norm(pull) <= 1e-6 * np.linalg.norm(size) + 1e-300
    # What the bound loses by the gradient that is left:
    assert np.sum(pull**2) / (2 * l2) <= 1e-10 * objective(loss, skip, base, z)
    best = objective(loss, skip, base, z)
    for step in np.random.default_rng(seed).standard_normal((5, *z.shape)):
        assert objective(loss, skip, base, z + 1e-3 * step * (1 + np.abs(z))) >= best * (1 - 1e-12)


@pytest.mark.parametrize("name", ["squared", "logistic", "multinomial"])
def test_settling_agrees_with_scipy(name):
    for seed in range(5):
        loss, skip, base = draw(seed, name, c=2)
        z = settled(loss, skip, base)
        found = minimize(lambda v, of=(loss, skip, base), z=z: objective(*of, v.reshape(z.shape)), 0 * z.ravel(),
                         method="BFGS", options={"gtol": 1e-7, "maxiter": 2000})  # fmt: skip
        assert objective(loss, skip, base, z) <= found.fun * (1 + 1e-9)


@given(seeds, st.integers(1, 9), st.sampled_from([1e-6, 1.0, 1e3]))
def test_settling_in_closed_form(seed, k, l2):
    loss, skip, base = draw(seed, "squared", k=k, c=2, l2=l2)
    W, A = np.diag(loss.weight[:, 0]), skip.columns
    z = settled(loss, skip, base)
    ridge = np.linalg.lstsq(np.vstack([np.sqrt(W) @ A, np.sqrt(l2) * np.eye(k)]),
                            np.vstack([np.sqrt(W) @ (loss.y - base), np.zeros((k, 2))]))[0]  # fmt: skip
    assert objective(loss, skip, base, z) == pytest.approx(objective(loss, skip, base, ridge), rel=1e-9)


def test_many_coefficients_go_by_conjugate_gradients(monkeypatch):
    loss, skip, base = draw(3, "multinomial", m=40, k=12, c=3)
    direct = settled(loss, skip, base)
    monkeypatch.setattr(module, "DIRECT", 0)
    np.testing.assert_allclose(settled(loss, skip, base), direct, rtol=1e-5, atol=1e-7)


@settings(max_examples=60)
@given(seeds, st.sampled_from(["logistic", "multinomial"]))
def test_settling_separable_data_with_far_starts(seed, name):
    """Almost no penalty, predictions of any size: Newton's method is damped and arrives."""
    loss, skip, base = draw(seed, name, k=8, l2=1e-4)
    base = base * 10.0 ** np.random.default_rng(seed).uniform(0, 4)
    z = settled(loss, skip, base)
    pull = skip.l2 * z - skip.columns.T @ loss.dual(base + skip.columns @ z)
    assert np.sum(pull**2) / (2 * skip.l2) <= 1e-6 * objective(loss, skip, base, z)


@given(seeds, st.integers(1, 9))
def test_whitening(seed, k):
    """In these coordinates the loss at its largest curvature, with the ridge, has the identity as Hessian."""
    loss, skip, _ = draw(seed, "logistic", k=k, l2=0.3)
    white = whiten(skip, loss.curvature)
    hessian = white.columns.T @ (loss.curvature * white.columns) + np.diag(white.ridge)
    np.testing.assert_allclose(hessian, np.eye(len(white.ridge)), atol=1e-9)
    np.testing.assert_allclose(white.columns, skip.columns @ white.back, atol=1e-12 * np.abs(skip.columns).max())
    w = np.random.default_rng(seed).standard_normal(len(white.ridge))
    assert white.ridge @ w**2 == pytest.approx(0.3 * np.sum((white.back @ w) ** 2), rel=1e-9)


# -- free skips -------------------------------------------------------------------------------------------------------
@given(seeds, st.integers(1, 9))
def test_free_is_the_limit_of_penalised(seed, k):
    loss, skip, base = draw(seed, "squared", k=k)
    free = loss._replace(free=free_directions(skip.columns, loss.weight))
    z = free_coefficients(skip, loss, base)
    best = float(loss.value(base + skip.columns @ z))
    zero = float(loss.value(base))
    assert best == pytest.approx(float(free.value(base)), rel=1e-9, abs=1e-12 * zero)
    for l2 in (1e-3, 1e-6, 1e-9):  # no better than free, and no worse than the free coefficients with their penalty
        small = skip._replace(l2=l2)
        reached = objective(loss, small, base, settled(loss, small, base))
        assert best - 1e-9 * zero <= reached <= (best + 0.5 * l2 * np.sum(z * z)) * (1 + 1e-9) + 1e-9 * zero
    assert np.abs(skip.columns.T @ free.dual(base)).max() <= 1e-9 * (
        np.abs(skip.columns).max() * np.sqrt(zero) + 1e-300
    )


def test_free_with_an_equality_is_that_of_the_problem():
    rng = np.random.default_rng(0)
    X, y, C, e = rng.standard_normal((9, 3)), rng.standard_normal(9), np.array([[1.0, 1.0, 1.0]]), np.array([2.0])
    problem = build_problem(X, y, beta=1.0, skip="linear", equality=(C, e), sampled=False)
    direction = null_space(np.hstack([C, [[0.0]]]))
    columns = np.hstack([X, np.ones((9, 1))])
    start = np.append(np.full(3, 2.0 / 3), 0.0)
    rest = np.linalg.lstsq(columns @ direction, y - columns @ start)[0]
    residual = y - columns @ (start + direction @ rest)
    assert float(problem.loss.value(np.zeros((9, 1)))) == pytest.approx(0.5 * residual @ residual)


def test_an_equality_beside_large_means_loses_no_small_deviation():
    """Exact arithmetic by fractions: combined as they are, columns of mean 1e9 round away the deviations of others."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((12, 3)) * [1.0, 1e-6, 1e-6] + [2.0**30, 1.0, -1.0]
    y, C = 1e6 * X[:, 1] + rng.standard_normal(12), np.array([[0.3, -0.5, 0.8]])
    problem = build_problem(X, y, beta=1.0, skip="linear", equality=(C, np.zeros(1)), sampled=False)
    deviations = (X - X.mean(axis=0)) @ null_space(C)
    columns = np.hstack([deviations / np.linalg.norm(deviations, axis=0), np.ones((12, 1))])
    residual = y - columns @ np.linalg.lstsq(columns, y)[0]
    assert float(problem.loss.value(np.zeros((12, 1)))) == pytest.approx(0.5 * residual @ residual, rel=1e-6)


@pytest.mark.parametrize("size", [1e7, 1e20, 1e100, 1e200])
@pytest.mark.parametrize("margin", [50.0, 600.0, 1e6])
def test_a_length_is_found_however_far_a_step_goes(size, margin):
    """Newton's step is as long as the Hessian is small: the lengths that descend may be of any order."""
    n = 20
    loss = Logistic(np.ones((n, 1)), np.ones((n, 1)), np.full((n, 1), margin))
    a, along = np.zeros((n, 1)), np.full((n, 1), size)
    price = 1.0 * size  # of the penalty: the loss falls by n size for a while
    length = shorter(loss, a, along, (price, 0.0), n * size - price)
    reached = float(loss.value(length * along)) + length * price
    # The best is where all but a twentieth of the slope is gone: a = margin + log 19.
    best = margin + np.log(19.0) + n * np.log1p(1.0 / 19.0)
    assert 0 < length < 1
    assert best * (1 - 1e-12) <= reached <= 0.6 * n * margin
