"""Semismooth Newton on the sampled program: optima of Clarabel, bounds that hold, derivatives of phi."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import (
    Problem,
    circle_features,
    dense_F,
    infeasibility,
    lasso_optimum,
    planted,
    sampled_objective,
    solve_sampled,
    support,
)

from cvxrelu.program.dual import Ridge
from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.multinomial import Multinomial
from cvxrelu.program.readout import adjoint, make_pairs
from cvxrelu.program.skip import free_directions
from cvxrelu.sampled import semismooth
from cvxrelu.sampled.semismooth import SampledNewton


def newton(p, gates=None, tol=1e-8, **options):
    return SampledNewton(p.X, p.patterns, gates, Squared(p.y, p.weight), beta=p.beta, tol=tol, **options)


def go_on():
    return False


def as_blocks(p, flat):
    """(d, 2 P) to (d, 2, 1, P)."""
    return flat.reshape(p.X.shape[1], 2, 1, -1)


def assert_optimal(p, solver, optimum):
    scale = float(np.sum(p.weight * p.y**2))
    U = as_blocks(p, solver.blocks)
    assert solver.lower_bound <= optimum + 1e-8 * scale
    assert solver.objective == pytest.approx(optimum, rel=1e-6, abs=1e-7 * scale)
    assert solver.objective == pytest.approx(sampled_objective(p, U), rel=1e-9)
    assert solver.objective - solver.lower_bound <= 1e-7 * scale
    assert infeasibility(p, U) <= 1e-9 * np.abs(p.X).max() * max(np.abs(U).max(), 1e-300)


@pytest.mark.parametrize("seed", range(12))
def test_against_clarabel(seed):
    """Rows repeated, opposite, zero or integer, scales apart, patterns that nothing realises, rows without weight."""
    rng = np.random.default_rng(seed)
    n, d, P = int(rng.integers(4, 40)), int(rng.integers(1, 8)), int(rng.integers(1, 8))
    p = planted(n, d, P, seed, fraction=10.0 ** rng.uniform(-2, -0.3), weights=seed % 2 == 0)
    X, gates = p.X.copy(), rng.standard_normal((d, P))
    kind = seed % 6
    if kind == 1:
        X[: n // 2] = X[rng.integers(n, size=n // 2)] * rng.choice([-1.0, 0.0, 2.0], size=(n // 2, 1))
    elif kind == 2:
        X = X * 10.0 ** rng.uniform(-2, 2, d)
    elif kind == 3:
        X = np.round(X)
    elif kind == 4:
        X[:, -1] = X[:, 0]
    patterns = X @ gates >= 0
    if kind == 5:
        patterns ^= rng.random(patterns.shape) < 0.1
    p = p._replace(X=X, patterns=patterns)
    optimum = solve_sampled(p)[0]
    for start in (gates, None):
        solver = newton(p, start)
        assert solver.run(go_on)
        assert_optimal(p, solver, optimum)


@pytest.mark.parametrize("seed", range(4))
def test_hundreds_of_tiny_problems(seed):
    """Bounds never exceed the optimum, at any scale; the oracle is exact in one dimension, a little above in two."""
    rng = np.random.default_rng(seed)
    for trial in range(25):
        n, d = int(rng.integers(1, 6)), 1 + trial % 2
        X = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-8, 8)
        if rng.random() < 0.3:
            X = X[rng.integers(n, size=n)] * rng.choice([-1.0, 0.0, 1.0, 2.0], size=(n, 1))
        y, weight = rng.standard_normal((n, 1)) * 10.0 ** rng.uniform(-8, 8), rng.choice([0.0, 1.0, 3.0], size=(n, 1))
        patterns = X @ rng.standard_normal((d, 3)) >= 0
        patterns[:, 0] ^= rng.random(n) < 0.2
        beta = max(np.abs(X.T @ (weight * y)).max(), 1e-12) * 10.0 ** rng.uniform(-3, 0.5)
        p = Problem(X, y, weight, patterns, beta)
        optimum = lasso_optimum(circle_features(p, True, resolution=400), y, weight, beta)
        solver = newton(p)
        assert solver.run(go_on)
        scale = float(np.sum(weight * y**2))
        U = as_blocks(p, solver.blocks)
        assert solver.lower_bound <= optimum + 1e-9 * scale
        assert solver.objective <= optimum * (1 + 1e-7) + 1e-9 * scale
        assert solver.objective == pytest.approx(sampled_objective(p, U), rel=1e-9)
        assert infeasibility(p, U) <= 1e-9 * np.abs(X).max() * max(np.abs(U).max(), 1e-300)


def test_norms_are_those_of_a_feasible_dual():
    p = planted(40, 4, 6, seed=3, fraction=0.1, weights=True)
    solver = newton(p)
    assert solver.run(go_on)
    q = (dense_F(p.X, p.patterns).T @ solver.dual).reshape(4, 12)
    for block, norm in enumerate(solver.norms):
        exact = support(p.X, p.patterns[:, block % 6], q[:, block])
        assert exact <= norm * (1 + 1e-6) + 1e-6 and norm <= p.beta * (1 + 1e-6)
    assert not solver.dual[p.weight[:, 0] == 0].any()


@given(st.integers(0, 10**4))
def test_phi_and_its_derivatives(seed):
    """Differences of phi are its gradient; the Newton step solves the dense system of the formula."""
    rng = np.random.default_rng(seed)
    loss, readout, ridge = LOSSES[seed % len(LOSSES)](rng)
    n, m, c = 15, *loss.y.shape
    X = rng.standard_normal((n, 4))
    gates = rng.standard_normal((4, 5))
    patterns = X @ gates >= 0
    beta = 0.05 * max(np.abs(X.T @ adjoint(readout, loss.dual(0.0 * loss.y))).max(), 1e-3)
    solver = SampledNewton(X, patterns, gates, loss, beta=beta, tol=1e-8, readout=readout, ridge=ridge)
    solver.sigma = 10.0 ** rng.uniform(-2, 1) * solver.sigma
    U = rng.standard_normal((4, 10 * c)) * solver.sigma * beta
    a = 0.5 * rng.standard_normal((m, c))
    now = solver._evaluate(U, a)
    gradient = now.prediction - a  # in t
    np.testing.assert_allclose(now.value, phi(solver, now), rtol=1e-9, atol=1e-9 * now.scale)
    step = rng.standard_normal((m, c))
    size = 1e-6
    ahead, behind = (solver._evaluate(U, a + s * size * step).value for s in (1, -1))
    slope = -float(np.sum(gradient * loss.hessian_product(a, step)))
    assert (ahead - behind) / (2 * size) == pytest.approx(slope, rel=1e-4, abs=1e-6 * np.linalg.norm(gradient))

    now = solver._evaluate(U, a)  # the faces of this point again
    direction = solver._direction(now, gradient)
    # D^-1 dt + (the rest) dt = -gradient with dt = -D da, hence da + (the rest) D da = gradient.
    D = np.stack([loss.hessian_product(a, e.reshape(m, c)).ravel() for e in np.eye(m * c)], axis=1)
    R = np.eye(n)[readout.first] - np.eye(n)[readout.second] if readout else np.eye(n)
    rest = np.zeros((m, c, m, c))
    for block, v, length in zip(now.active, now.v.T, now.lengths, strict=True):
        basis, ratio = solver.memory.basis(int(block)), solver.sigma * beta / length
        S = (1 - ratio) * basis @ basis.T + ratio * np.outer(v, v) / length**2
        A, k = R @ (patterns[:, block % 5, None] * X), block // 10
        rest[:, k, :, k] += solver.sigma * A @ S @ A.T
    for k in range(c if ridge else 0):
        rest[:, k, :, k] += ridge.columns @ ridge.columns.T / ridge.l2
    expected = np.linalg.solve(np.eye(m * c) + rest.reshape(m * c, m * c) @ D, gradient.ravel()).reshape(m, c)
    np.testing.assert_allclose(direction, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def phi(solver, now):
    """By its formula, from the conjugate."""
    value = -float(solver.program.loss.dual_value(now.t)[0])
    value += sum((length - solver.sigma * solver.program.beta) ** 2 for length in now.lengths) / (2 * solver.sigma)
    ridge = solver.program.ridge
    return value if ridge is None else value + float(np.sum((ridge.columns.T @ now.t) ** 2)) / (2 * float(ridge.l2))


def squared(rng):
    return Squared(rng.standard_normal((15, 1)), rng.choice([0.0, 0.5, 2.0], size=(15, 1))), None, None


def squared_pairs(rng):
    """With a free linear skip."""
    pairs, weight = make_pairs(rng.permuted(np.tile(np.arange(15), (20, 1)), axis=1)[:, :2], 15), np.ones((20, 1))
    return (
        Squared(rng.standard_normal((20, 1)), weight, free_directions(rng.standard_normal((20, 2)), weight)),
        pairs,
        None,
    )


def logistic_pairs(rng):
    pairs = make_pairs(rng.permuted(np.tile(np.arange(15), (20, 1)), axis=1)[:, :2], 15)
    weight, margin = rng.choice([0.0, 0.5, 2.0], size=(20, 1)), rng.standard_normal((20, 1))
    return Logistic(np.ones((20, 1)), weight, margin), pairs, a_skip(rng, 20)


def multinomial(rng):
    y, weight = np.eye(3)[rng.integers(3, size=15)], rng.choice([0.0, 0.5, 2.0], size=(15, 1))
    return Multinomial(y, weight, np.zeros((15, 3))), None, a_skip(rng, 15)


def a_skip(rng, m):
    return Ridge(rng.standard_normal((m, 2)), np.asarray(0.3), np.asarray(0.0))


LOSSES = (squared, squared_pairs, logistic_pairs, multinomial)


def test_the_start_is_the_best_combination_of_the_gates():
    rng = np.random.default_rng(0)
    p = planted(60, 5, 8, seed=0, fraction=0.1)
    gates = rng.standard_normal((5, 8))
    p = p._replace(patterns=p.X @ gates >= 0)
    solver = newton(p, gates)
    hidden = np.maximum(p.X @ (gates / np.linalg.norm(gates, axis=0)), 0)
    optimum = lasso_optimum(np.hstack([hidden, -hidden]), p.y, p.weight, p.beta)
    assert solver.objective == pytest.approx(optimum, rel=1e-6)
    zero = 0.5 * np.sum(p.y**2)
    for other in (newton(p, gates * [-1.0, -1.0, *np.ones(6)]), newton(p)):  # not in their cones: projected, if wanted
        assert infeasibility(p, as_blocks(p, other.blocks)) <= 1e-10
        assert other.objective < 0.99 * zero
        assert other.objective == pytest.approx(sampled_objective(p, as_blocks(p, other.blocks)), rel=1e-9)


def test_zero_is_found_without_a_step():
    p = planted(30, 3, 5, seed=1, fraction=0.1)
    for solver in (newton(p._replace(beta=1e4 * p.beta)), newton(p._replace(y=0 * p.y))):
        assert solver.run(go_on) and not solver.blocks.any() and solver.steps == 0
        assert solver.gap <= 1e-12


def test_reports_can_stop_and_the_deadline_is_kept():
    p = planted(60, 5, 10, seed=2, fraction=0.02)
    seen = []
    solver = newton(p)
    assert not solver.run(lambda: seen.append(solver.gap) or len(seen) == 2)
    assert len(seen) == 2 and seen[1] < seen[0]
    assert solver.run(go_on)  # goes on from there
    late = newton(p, deadline=0.0)
    assert not late.run(go_on) and late.lower_bound >= 0 and late.objective > 0


def test_a_gap_out_of_reach_ends(monkeypatch):
    monkeypatch.setattr(semismooth, "STALLED", 3)
    p = planted(30, 3, 5, seed=1, fraction=0.1)
    solver = newton(p, tol=1e-300)
    assert not solver.run(go_on)
    assert solver.gap <= 1e-9
