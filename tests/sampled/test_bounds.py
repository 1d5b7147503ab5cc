"""Bounds never exceed the optimum, whatever dual and multipliers they are given; repaired points are feasible."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    Problem,
    blocks,
    circle_features,
    columns,
    constraint_at,
    dense_F,
    dense_G,
    infeasibility,
    lasso_optimum,
    make_backend,
    max_in_cells,
    max_on_circle,
    planted,
    project,
    rotated,
    sampled_objective,
    solve_network,
    solve_sampled,
    support,
)

from cvxrelu.certificates.closed_form import relaxed_bound
from cvxrelu.program.dual import sampled_bound
from cvxrelu.program.losses import Squared
from cvxrelu.sampled import bounds
from cvxrelu.sampled.bounds import Exact

NUMPY = make_backend("numpy")
seeds = st.integers(0, 10**6)


def tiny(rng, d, c=1):
    """A few rows in d dimensions, some of them zero or repeated or without weight, at any scale."""
    n = int(rng.integers(1, 6))
    X = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-2, 2)
    if rng.random() < 0.3:
        X = X[rng.integers(n, size=n)] * rng.choice([-1.0, 0.0, 1.0, 2.0], size=(n, 1))
    y = rng.standard_normal((n, c)) * 10.0 ** rng.uniform(-2, 2)
    weight = np.ones((n, 1))
    if rng.random() < 0.5:
        weight = rng.choice([0.0, 0.3, 1.0, 2.0], size=(n, 1), p=[0.15, 0.15, 0.4, 0.3])
    patterns = X @ rng.standard_normal((d, 3)) >= 0
    patterns[:, 0] ^= rng.random(n) < 0.2  # perhaps realised by nothing
    beta = max(np.abs(X.T @ (weight * y)).max(), 1e-6) * 10.0 ** rng.uniform(-3, 0.5)
    return Problem(X, y, weight, patterns, beta)


def loss_of(p):
    return Squared(p.y, p.weight)


def draw_dual(rng, p):
    """Anything, or the right one up to noise; zero where there is no weight."""
    t = p.weight * (p.y - rng.standard_normal(p.y.shape) * 10.0 ** rng.uniform(-6, 1) * np.abs(p.y).max())
    t = t if rng.random() < 0.7 else rng.standard_normal(p.y.shape) * 10.0 ** rng.uniform(-8, 8)
    return np.where(p.weight > 0, t, 0.0)


def draw_multipliers(rng, p):
    size = 10.0 ** rng.uniform(-6, 1) * np.abs(p.y).max()
    mu = np.maximum(rng.standard_normal((len(p.X), 2, p.y.shape[1], p.patterns.shape[1])), 0) * size
    return mu if rng.random() < 0.7 else 0 * mu


def dense_norms(p, t, mu):
    """|(+-) X^T (M t) + X^T (E mu)| of every block."""
    both = dense_F(p.X, p.patterns).T @ t + dense_G(p.X, p.patterns).T @ columns(mu)
    return np.linalg.norm(blocks(both, p.patterns.shape[1]), axis=0)


def run_check(backend, p, W, prediction, t_state, rho, dtype=np.float64, basis=None, compiled=True):
    """`check` as the solver calls it: the problem in float64, the iterates in `dtype`."""
    with backend.scope():
        exact = backend.put(Exact(p.X, p.patterns, loss_of(p), np.asarray(p.beta)), np.float64)
        basis = backend.put(np.eye(p.X.shape[1]) if basis is None else basis)
        iterates = backend.put((W, prediction, t_state, np.asarray(rho)), dtype)
        check = backend.compile(bounds.check) if compiled else bounds.check
        return backend.get(check(backend, exact, basis, *iterates))


def iterates(rng, p):
    """W, prediction, t_state, rho that stand for a random point, dual and multipliers."""
    t, mu = draw_dual(rng, p), draw_multipliers(rng, p)
    prediction = p.y - np.where(p.weight > 0, t / np.where(p.weight > 0, p.weight, 1.0), 0.0)
    rho = 10.0 ** rng.uniform(-2, 2)
    t_state = -mu / rho + np.maximum(rng.standard_normal(mu.shape), 0) * (mu == 0)
    W = rng.standard_normal((p.X.shape[1], 2, p.y.shape[1], p.patterns.shape[1])) * (rng.random(mu.shape[1:]) < 0.5)
    return W, prediction, t_state, rho


# -- check -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["numpy", "jax", "strict"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_check_is_its_formulas(name, dtype):
    p = planted(9, 4, 5, seed=1, fraction=0.2, c=2, weights=True)
    rng = np.random.default_rng(2)
    W, prediction, t_state, rho = iterates(rng, p)
    W, prediction, t_state = (a.astype(dtype).astype(float) for a in (W, prediction, t_state))
    rho = float(dtype(rho))
    basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    got = run_check(make_backend(name), p, W, prediction, t_state, rho, dtype, basis)
    assert all(array.dtype == np.float64 for array in got[:-1]) and got.skip is None

    W = np.tensordot(basis, W, axes=1)
    loss, mu = loss_of(p), np.maximum(-rho * t_state, 0)
    np.testing.assert_allclose(got.W, W, atol=1e-12)
    np.testing.assert_allclose(got.dual, p.weight * (p.y - prediction), atol=1e-12)
    norms = dense_norms(p, got.dual, mu)
    np.testing.assert_allclose(got.norms, norms, rtol=1e-10)
    assert np.all(got.norms >= norms)
    slack = blocks(dense_G(p.X, p.patterns) @ columns(W), 5).min(axis=0)
    np.testing.assert_allclose(got.slack, slack, atol=1e-12)

    penalty = p.beta * np.linalg.norm(W, axis=0).sum()
    hidden = np.maximum(np.einsum("nd,dscp->nscp", p.X, W), 0).sum(axis=-1)
    network = hidden[:, 0] - hidden[:, 1]
    objective, scale, sampled, repair_cost, bound, nonzero = got.values
    np.testing.assert_allclose(got.network_prediction, scale * network, atol=1e-12)
    assert objective == pytest.approx(loss.value(scale * network) + scale * penalty, rel=1e-12)
    assert objective <= min(loss.value(s * network) + s * penalty for s in (0.0, 0.9 * scale, 1.1 * scale, 1.0)) + 1e-9
    assert sampled == pytest.approx(sampled_objective(p, W), rel=1e-12)
    violation = np.maximum(-blocks(dense_G(p.X, p.patterns) @ columns(W), 5), 0)
    assert repair_cost == pytest.approx(np.sum(mu * violation), rel=1e-10)
    assert bound == pytest.approx(sampled_bound(loss, got.dual, got.norms.max(axis=(0, 2)), p.beta)[0])
    assert nonzero == np.sum(np.any(W != 0, axis=0))


# -- the bounds against optima ---------------------------------------------------------------------------------------
def test_the_fast_optimum_is_the_optimum():
    """The oracle of the next test: exact in one dimension, a little above in two."""
    rng = np.random.default_rng(0)
    for trial in range(6):
        p = planted(5, 1 + trial % 2, 3, seed=trial, fraction=10.0 ** rng.uniform(-2, -0.3), weights=trial > 2)
        for sampled, exact in ((True, solve_sampled(p)[0]), (False, solve_network(p))):
            found = lasso_optimum(circle_features(p, sampled, resolution=400), p.y, p.weight, p.beta)
            assert exact * (1 - 1e-6) - 1e-7 <= found <= exact * (1 + 1e-3) + 1e-7


@pytest.mark.parametrize("seed", range(10))
def test_bounds_hold_on_thousands_of_tiny_problems(seed):
    """10 x 200 problems; multipliers of `check`, of the formula, and the best ones."""
    rng = np.random.default_rng(seed)
    useful = np.zeros(3)
    for _ in range(200):
        p = tiny(rng, d=int(rng.integers(1, 3)))
        loss = loss_of(p)
        sampled, network = (lasso_optimum(circle_features(p, kind), p.y, p.weight, p.beta) for kind in (True, False))
        W, prediction, t_state, rho = iterates(rng, p)
        got = run_check(NUMPY, p, W, prediction, t_state, rho, rng.choice([np.float32, np.float64]))
        proven = [got.values[4]]
        norms = bounds.tighten(p.X, p.patterns, got.dual, got.norms, p.beta)
        proven.append(sampled_bound(loss, got.dual, norms.max(axis=(0, 2)), p.beta)[0])
        assert proven[1] >= proven[0] * (1 - 1e-12)
        relaxed = relaxed_bound(loss, p.X, got.dual, np.asarray(p.beta))[0]
        allowance = 1e-9 * float(np.sum(p.weight * p.y**2))
        assert max(proven) <= sampled + allowance and relaxed <= network + allowance
        assert got.values[0] >= relaxed - allowance
        useful += [b > 0.5 * optimum for b, optimum in ((proven[0], sampled), (proven[1], sampled), (relaxed, network))]
    assert useful.min() > 20  # the inequalities are not empty


@pytest.mark.parametrize("seed", range(20))
def test_bounds_hold_against_clarabel(seed):
    """Two and three dimensions, the sampled program also with two outputs; duals near the optimum too."""
    rng = np.random.default_rng(seed)
    d, c = 2 + seed % 2, 1 + seed % 2
    p = planted(6, d, 4, seed, fraction=10.0 ** rng.uniform(-2, -0.1), c=c, weights=seed % 3 == 0)
    optimum, U = solve_sampled(p)
    t = p.weight * (p.y - dense_F(p.X, p.patterns) @ columns(U))
    W, _, t_state, rho = iterates(rng, p)
    for noise in (0.0, 1e-3, 0.3):
        prediction = dense_F(p.X, p.patterns) @ columns(U) + noise * rng.standard_normal(t.shape)
        got = run_check(NUMPY, p, W, prediction, t_state, rho, np.float32 if noise == 1e-3 else np.float64)
        norms = bounds.tighten(p.X, p.patterns, got.dual, got.norms, p.beta)
        bound, feasible = sampled_bound(loss_of(p), got.dual, norms.max(axis=(0, 2)), p.beta)
        assert got.values[4] <= bound <= optimum * (1 + 1e-7) + 1e-7
        if noise == 0:  # with the best multipliers the optimal dual gives the optimum
            assert bound >= optimum * (1 - 1e-4)
        for k, side, pattern in [(0, 1.0, 0), (c - 1, -1.0, 3)]:  # and what is called feasible is
            q = side * p.X.T @ (p.patterns[:, pattern] * feasible[:, k])
            assert support(p.X, p.patterns[:, pattern], q) <= p.beta * (1 + 1e-6) + 1e-6
    p = p._replace(y=p.y[:, :1])
    optimum = solve_network(p)
    for dual in (p.weight * p.y, t[:, :1], draw_dual(rng, p)):
        bound, feasible = relaxed_bound(loss_of(p), p.X, dual, np.asarray(p.beta))
        assert 0 <= bound <= optimum * (1 + 1e-7) + 1e-7
        assert (max_on_circle if d == 2 else max_in_cells)(p.X, feasible) <= p.beta * (1 + 1e-9)


def test_one_row_by_hand():
    """min 1/2 (2 v - 3)^2 + |v| over v >= 0 leaves the residual t = 1/2."""
    p = Problem(np.array([[2.0]]), np.array([[3.0]]), np.ones((1, 1)), np.array([[True]]), 1.0)
    optimum = 0.5 * 0.5**2 + (3.0 - 0.5) / 2
    for t in (0.5, 3.0, 1e-5, 1e5, 1e-120):
        bound, feasible = relaxed_bound(loss_of(p), p.X, np.array([[t]]), np.asarray(1.0))
        assert bound == pytest.approx(optimum, rel=1e-12) and feasible == pytest.approx(0.5)
    # so small that the squares of its norms vanish: then nothing is known, least of all that it has no price
    for t in (1e-165, 1e-300, 5e-324):
        assert 0 <= relaxed_bound(loss_of(p), p.X, np.array([[t]]), np.asarray(1.0))[0] <= optimum
    # the dual has the wrong sign: the best bound from it is none
    assert relaxed_bound(loss_of(p), p.X, np.array([[-1.0]]), np.asarray(1.0))[0] == 0
    # multipliers cannot help v, can undo z
    got = run_check(NUMPY, p, np.zeros((1, 2, 1, 1)), np.array([[2.5]]), np.array([[[[0.0]], [[-0.25]]]]), 2.0)
    np.testing.assert_allclose(got.norms.ravel(), [1.0, 0.0], atol=1e-12)
    assert got.values[4] == pytest.approx(optimum, rel=1e-12)


def test_rows_without_weight_cannot_lift_a_bound():
    """The conjugate of a loss without weight is infinite off zero. Two equal rows, the second with weight zero."""
    p = Problem(np.ones((2, 1)), np.array([[1.0], [0.0]]), np.array([[1.0], [0.0]]), np.ones((2, 1), dtype=bool), 0.6)
    optimum = 0.5 * 0.6**2 + 0.6 * 0.4
    t = np.array([[1.0], [-1.0]])  # X^T t = 0
    assert relaxed_bound(loss_of(p), p.X, t, np.asarray(p.beta))[0] <= optimum
    largest = dense_norms(p, t, np.zeros((2, 2, 1, 1))).max(axis=(0, 2))
    assert sampled_bound(loss_of(p), t, largest, p.beta)[0] <= optimum


# -- the constraint of (N) -------------------------------------------------------------------------------------------
def claimed(p, t):
    """The value that `relaxed_bound` puts in place of max |t^T (X u)_+|, read off the multiple of t it returns."""
    tall = Squared(1e12 * t, np.ones((len(t), 1)))  # so steep a dual that the largest feasible multiple is the best
    _, feasible = relaxed_bound(tall, p.X, t, np.asarray(1.0))
    return float(np.linalg.norm(t) / np.linalg.norm(feasible))


@given(seeds, st.integers(1, 3))
def test_the_relaxation_is_above_the_constraint_in_the_plane(seed, c):
    p = tiny(rng := np.random.default_rng(seed), 2, c)
    t = rng.standard_normal(p.y.shape) * (rng.random(p.y.shape) < 0.8)
    exact = max_on_circle(p.X, t)
    angles = np.linspace(0, 2 * np.pi, 300)
    assert constraint_at(p.X, t, np.array([np.cos(angles), np.sin(angles)])).max() <= exact * (1 + 1e-12)
    if exact > 0:
        assert exact <= claimed(p, t) * (1 + 1e-12)


@settings(max_examples=20)
@given(seeds)
def test_the_relaxation_is_above_the_constraint_in_space(seed):
    rng = np.random.default_rng(seed)
    p = planted(6, 3, 2, seed, 0.1)
    t = rng.standard_normal(p.y.shape)
    exact = max_in_cells(p.X, t)
    u = rng.standard_normal((3, 300))
    assert constraint_at(p.X, t, u / np.linalg.norm(u, axis=0)).max() <= exact * (1 + 1e-9)
    assert exact <= claimed(p, t) * (1 + 1e-12)


def test_the_relaxation_is_its_formula():
    p = planted(7, 3, 2, seed=0, fraction=0.1, c=2)
    sides = []
    for t in p.y.T:
        side = [np.maximum(s * t, 0) for s in (1, -1)]
        tops = [np.sqrt(s.sum() * np.linalg.norm(p.X * np.sqrt(s)[:, None], 2) ** 2) for s in side]
        sides.append(0.5 * np.linalg.norm(p.X.T @ t) + 0.5 * max(tops))
    assert claimed(p, p.y) == pytest.approx(np.hypot(*sides), rel=1e-10)
    one_row = p._replace(X=p.X[:1])  # tight: one row, one sign
    assert claimed(one_row, np.ones((1, 1))) == pytest.approx(np.linalg.norm(p.X[0]), rel=1e-10)


@pytest.mark.parametrize("name", ["jax", "strict"])
def test_relaxed_bound_on_every_backend(name):
    backend, p = make_backend(name), planted(7, 3, 2, seed=3, fraction=0.2, c=2, weights=True)
    t = p.weight * p.y
    expected = relaxed_bound(loss_of(p), p.X, t, np.asarray(p.beta))
    with backend.scope():
        got = relaxed_bound(*backend.put((loss_of(p), p.X, t, np.asarray(p.beta)), np.float64))
        for value, other in zip(backend.get(got), expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-10)


# -- tighten and repair ----------------------------------------------------------------------------------------------
@settings(max_examples=25)
@given(seeds)
def test_tighten_is_the_projection(seed):
    rng = np.random.default_rng(seed)
    p = planted(7, 3, 4, seed, 0.1, c=2, weights=True)
    t, mu = draw_dual(rng, p), draw_multipliers(rng, p)
    norms = dense_norms(p, t, mu)
    beta = float(np.quantile(norms, 0.43))
    norms[0, 0, 0], before = 0.0, norms.copy()
    tightened = bounds.tighten(p.X, p.patterns, t, norms, beta)
    assert np.all(tightened <= before)
    for (side, k, pattern), value in np.ndenumerate(norms):
        got = tightened[side, k, pattern]
        if value <= beta:
            assert got == value
            continue
        M = p.patterns[:, pattern]
        q = (1 - 2 * side) * p.X.T @ (M * t[:, k])
        allowance = 1e-9 * np.linalg.norm(p.X) * np.linalg.norm(t)
        assert got == pytest.approx(np.linalg.norm(project(p.X, M, q)), rel=1e-8, abs=allowance)
    np.testing.assert_array_equal(bounds.tighten(p.X, p.patterns, t, norms, 1e300), norms)


@settings(max_examples=25)
@given(seeds, st.booleans())
def test_repair(seed, nearly):
    rng = np.random.default_rng(seed)
    p = planted(8, 3, 4, seed, 0.2, c=2, weights=True)
    starts = rng.standard_normal((4, 3))
    gates = np.stack([project(p.X, M, v) for M, v in zip(p.patterns.T, starts, strict=True)], axis=1)
    W = gates[:, None, None, :] * np.ones((1, 2, 2, 1)) + (1e-3 if nearly else 1.0) * rng.standard_normal((3, 2, 2, 4))
    W[:, 0, 1] = 0.0
    original = W.copy()
    slack = blocks(dense_G(p.X, p.patterns) @ columns(W), 4).min(axis=0)
    objective, repaired = bounds.repair(p.X, p.patterns, loss_of(p), p.beta, W, slack)
    np.testing.assert_array_equal(W, original)
    assert infeasibility(p, repaired) <= 1e-9 * (1 + np.abs(repaired).max())
    assert objective == pytest.approx(sampled_objective(p, repaired), rel=1e-10)
    for factor in (0.0, 0.99, 1.01):
        assert objective <= sampled_objective(p, factor * repaired) + 1e-9
    projected = np.stack([project(p.X, M, W[:, 0, 0, i]) for i, M in enumerate(p.patterns.T)], axis=1)
    scale = np.linalg.norm(repaired) / max(np.linalg.norm(projected), 1e-300)
    if scale > 0:
        direction = repaired[:, 0, 0] / np.linalg.norm(repaired[:, 0, 0])
        np.testing.assert_allclose(direction, projected / np.linalg.norm(projected), atol=1e-7)
    assert not repaired[:, 0, 1].any()


def test_repair_of_the_optimum_keeps_it():
    p = planted(8, 2, 4, seed=4, fraction=0.1, c=2)
    optimum, U = solve_sampled(p)
    slack = blocks(dense_G(p.X, p.patterns) @ columns(U), 4).min(axis=0)
    objective, repaired = bounds.repair(p.X, p.patterns, loss_of(p), p.beta, U, slack)
    assert objective == pytest.approx(optimum, rel=1e-5) and infeasibility(p, repaired) <= 1e-9


def test_rotation_of_the_iterates():
    """The solver iterates in the right singular basis; bounds speak of the original coordinates."""
    p = planted(9, 4, 3, seed=5, fraction=0.2)
    _, _, basis = rotated(p.X)
    W, prediction, t_state, rho = iterates(np.random.default_rng(6), p)
    turned = run_check(NUMPY, p, np.tensordot(basis.T, W, axes=1), prediction, t_state, rho, basis=basis)
    np.testing.assert_allclose(turned.values, run_check(NUMPY, p, W, prediction, t_state, rho).values, rtol=1e-10)
