"""Relaxed prices are never below an attained value, nor above the closed form; bounds never exceed the optimum."""

import time
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import constraint_at, make_backend, max_in_cells, max_on_circle, odd_rows, planted, solve_network
from scipy.optimize import minimize

import cvxrelu
from cvxrelu.certificates.closed_form import closed_form_price, relaxed_bound
from cvxrelu.certificates.coupling import Coupling
from cvxrelu.certificates.relaxation import relaxed_lower_bound, relaxed_price
from cvxrelu.certificates.relaxed_network import _Program, relaxed_network
from cvxrelu.certificates.subdivision import subdivided_price
from cvxrelu.numerics.rounding import gamma
from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.patterns import Patterns
from cvxrelu.program.problem import Problem, build_problem
from cvxrelu.program.readout import make_pairs

seeds, sizes, outputs = st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 3)
KINDS = ["plain", "integer", "repeated", "row scales", "column scales", "nearly parallel", "float32", "flat"]
EFFORTS = [{"cones": 0}, {"rounds": 0, "cones": 200}, {"rounds": 9, "cones": 40}, {"rounds": 0, "cones": 0}]


def draw(rng, n, d, c, kind):
    """X and P at any scale; rows repeated, zero, nearly parallel, or all in a subspace."""
    X = odd_rows(rng, n, d, kind)
    P = rng.standard_normal((n, c)) * 10.0 ** rng.uniform(-8, 8)
    P = rng.choice([1.0, -1.0]) * np.abs(P) if rng.random() < 0.3 else P
    return X, np.where(rng.random((n, 1)) < 0.2, 0.0, P) * (rng.random(c) > 0.1)  # an output may be all zero


def lower_bound(loss, X, t, beta, readout=None, **options):
    """(bound, feasible t), with the allowance for rounding that a certificate makes."""
    nothing = Patterns(np.zeros((len(X), 0), dtype=bool), None)
    problem = Problem(X, loss, beta, nothing, 0, False, False, np.dtype(np.float64), loss, readout=readout)
    value, magnitude, feasible = relaxed_lower_bound(problem, t, **options)
    return max(value - gamma(*t.shape) * magnitude, 0.0), feasible


def attained(X, P, directions):
    """|P^T (X u)_+| in extended precision, at points just inside the unit ball."""
    u = directions.astype(np.longdouble)
    u = u / np.sqrt(np.sum(u * u, axis=0)) * (1 - np.longdouble(2) ** -60)
    hidden = np.maximum(X.astype(np.longdouble) @ u, 0)
    return np.sqrt(np.sum((P.T.astype(np.longdouble) @ hidden) ** 2, axis=0))


def ascend(X, P, rng, starts, steps=40):
    """Directions u <- unit((1 - a) u + a g / |g|), g the gradient of |P^T (X u)_+|, a halved when it does not help."""
    X, P = X / np.abs(X).max(), P / np.abs(P).max()
    u = np.concatenate([rng.standard_normal((X.shape[1], starts)), X[np.any(X != 0, axis=1)].T], axis=1)
    u /= np.linalg.norm(u, axis=0)
    value, a = constraint_at(X, P, u), np.full(u.shape[1], 0.7)
    for _ in range(steps):
        hidden = X @ u
        g = X.T @ ((hidden > 0) * (P @ (P.T @ np.maximum(hidden, 0))))
        g = (1 - a) * u + a * g / np.maximum(np.linalg.norm(g, axis=0), 1e-300)
        g /= np.maximum(np.linalg.norm(g, axis=0), 1e-300)
        new = constraint_at(X, P, g)
        u, a, value = np.where(new > value, g, u), np.where(new > value, a, 0.5 * a), np.maximum(new, value)
    return u


@settings(max_examples=80)
@given(
    st.integers(1, 12), st.integers(1, 6), st.integers(1, 3), seeds, st.sampled_from(KINDS), st.sampled_from(EFFORTS)
)
def test_price_is_above_what_is_attained_and_below_the_closed_form(n, d, c, seed, kind, effort):
    rng = np.random.default_rng(seed)
    X, P = draw(rng, n, d, c, kind)
    bound = relaxed_price(X, P, **effort)
    assert bound <= closed_form_price(X, P)
    if not np.any(X) or not np.any(P):
        assert bound == 0.0
        return
    ends = ascend(X, P, rng, 60)
    best = ends[:, [np.argmax(attained(X, P, ends))]]
    around = best + 10.0 ** rng.uniform(-12, -1, size=60) * rng.standard_normal((d, 60))
    assert np.longdouble(bound) >= attained(X, P, np.concatenate([ends, around], axis=1)).max()


@pytest.mark.parametrize("c", [1, 2, 3])
def test_closed_in_the_plane(c):
    rng = np.random.default_rng(c)
    for n in (1, 5, 60):
        X, P = rng.standard_normal((n, 2)), rng.standard_normal((n, c))
        np.testing.assert_allclose(relaxed_price(X, P), max_on_circle(X, P), rtol=3e-6)
        inside = X @ np.linalg.qr(rng.standard_normal((30, 2)))[0].T
        np.testing.assert_allclose(relaxed_price(inside, P), max_on_circle(X, P), rtol=3e-6)


def test_closed_in_three_dimensions():
    rng = np.random.default_rng(0)
    X, p = rng.standard_normal((10, 3)), rng.standard_normal(10)
    np.testing.assert_allclose(relaxed_price(X, p), max_in_cells(X, p[:, None]), rtol=3e-6)


@pytest.mark.parametrize("d", [4, 5])
def test_subdivision_meets_the_ascents(d):
    rng = np.random.default_rng(d)
    X, P = rng.standard_normal((30, d)), rng.standard_normal((30, 2))
    found = subdivided_price(X, P, cones=6000)
    best = constraint_at(X, P, ascend(X, P, rng, 300)).max()
    assert 0.9 * best <= found.attained <= found.bound and best <= found.bound <= 1.1 * best
    assert found.cones < 7000
    assert subdivided_price(X, P, cones=1).bound >= found.bound
    early = subdivided_price(X, P, cones=6000, target=1.5 * best)
    assert early.cones < found.cones and best <= early.bound <= 1.5 * best * (1 + 1e-9)


def semidefinite_price(X, p):
    """The relaxation of one sign, in its primal form, by CVXPY and Clarabel."""
    n, d = X.shape
    size = np.abs(p).max()
    p = p / size
    U, u = cp.Variable((d, d), symmetric=True), cp.Variable((d, 1))
    moment, along = np.einsum("ni,nj->nij", X, X).reshape(n, -1) @ cp.vec(U, order="C"), (X @ u)[:, 0]
    up, down = np.flatnonzero(p > 0), np.flatnonzero(p < 0)
    least = cp.maximum(cp.abs(along[down]), cp.norm(U @ X[down].T, axis=0))
    value = p @ along + p[up] @ cp.sqrt(moment[up]) + p[down] @ least
    lifted = cp.bmat([[U, u], [u.T, np.ones((1, 1))]])
    program = cp.Problem(cp.Maximize(0.5 * value), [lifted >> 0, cp.trace(U) == 1])
    program.solve(solver=cp.CLARABEL)
    return size * float(program.value)


@pytest.mark.parametrize(("n", "d"), [(12, 3), (60, 6), (40, 8)])
def test_reaches_the_semidefinite_program(n, d):
    rng = np.random.default_rng(n)
    X, p = rng.standard_normal((n, d)), rng.standard_normal(n)
    best = max(semidefinite_price(X, p), semidefinite_price(X, -p))
    bound = relaxed_price(X, p, cones=0, rounds=150)
    assert best * (1 - 1e-6) <= bound <= 1.02 * best
    assert bound < 0.9 * closed_form_price(X, p[:, None])


def test_more_rounds_and_early_ends():
    rng = np.random.default_rng(1)
    X, p = rng.standard_normal((80, 8)), rng.standard_normal(80)
    closed = closed_form_price(X, p[:, None])
    assert relaxed_price(X, p, rounds=0) == closed == relaxed_price(X, p, target=closed)
    assert relaxed_price(X, p, rounds=90) < relaxed_price(X, p, rounds=3) < closed
    late = relaxed_price(X, p, rounds=10**6, deadline=time.perf_counter() - 1.0)
    assert relaxed_price(X, p) <= late <= closed


@pytest.mark.parametrize("scale", [1e-60, 1e-8, 1e8, 1e60])
def test_price_scales(scale):
    rng = np.random.default_rng(2)
    for d in (3, 7):
        X, P = rng.standard_normal((20, d)), rng.standard_normal((20, 2))
        value = relaxed_price(X, P, rounds=20)
        np.testing.assert_allclose(relaxed_price(scale * X, P, rounds=20), scale * value, rtol=2e-2)
        np.testing.assert_allclose(relaxed_price(X, scale * P, rounds=20), scale * value, rtol=2e-2)


def differences(f, z, step=1e-6):
    unit = np.eye(z.size).reshape(-1, *z.shape)
    return np.array([(f(z + step * e) - f(z - step * e)) / (2 * step) for e in unit]).reshape(z.shape)


def test_gradients():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((9, 3))
    side, p = Coupling(X, near=0), rng.standard_normal(9)
    z = side.start(p) + 0.3 * rng.standard_normal(side.size)
    gradient = side.smoothed(z, p, 0.05)[1]
    program = _Program(Squared(rng.standard_normal((9, 2)), rng.random((9, 1))), X, 2, 0.2)
    np.testing.assert_allclose(gradient, differences(lambda z: side.smoothed(z, p, 0.05)[0], z), atol=1e-7)
    for program.large in (False, True):
        z = rng.standard_normal((4, 2, 2, 3))
        slopes = differences(lambda z: program.evaluate(z)[0], z)
        np.testing.assert_allclose(program.evaluate(z)[1], slopes, rtol=1e-6, atol=1e-7)


# -- lower bounds ------------------------------------------------------------------------------------------------------
@settings(max_examples=40)
@given(st.integers(2, 8), st.integers(1, 3), st.floats(0.01, 0.9), seeds, st.booleans())
def test_never_above_the_optimum(n, d, fraction, seed, weights):
    p = planted(n, d, 3, seed, fraction, weights=weights)
    rng = np.random.default_rng(seed)
    t = p.weight * rng.choice([p.y, rng.standard_normal(p.y.shape)])
    loss = Squared(p.y, p.weight)
    bound, dual = lower_bound(loss, p.X, t, p.beta, rounds=30, cones=500)
    optimum = solve_network(p)
    assert 0.0 <= bound <= optimum + 1e-6 * (1e-3 + optimum)
    closed = float(relaxed_bound(loss, p.X, t, np.asarray(p.beta))[0])
    assert bound >= closed * (1 - 1e-12)
    assert max_in_cells(p.X, dual) <= p.beta * (1 + 1e-9)
    value, magnitude = loss.dual_value(dual)
    np.testing.assert_allclose(bound, max(value, 0.0), atol=1e-12 * (1 + magnitude))


def train(loss, X, beta, c, width=30):
    """Objective of a trained network, an upper bound on the optimum, and t at its prediction."""
    rng = np.random.default_rng(0)
    d = X.shape[1]

    def objective(z):
        W, A = z[: d * width].reshape(d, width), z[d * width :].reshape(width, c)
        hidden = np.maximum(X @ W, 0)
        t = loss.dual(hidden @ A)
        gradient = [-X.T @ ((hidden > 0) * (t @ A.T)) + beta * W, -hidden.T @ t + beta * A]
        return float(loss.value(hidden @ A)) + 0.5 * beta * z @ z, np.concatenate([g.ravel() for g in gradient])

    found = minimize(
        objective, 0.3 * rng.standard_normal((d + c) * width), jac=True, method="L-BFGS-B", options={"maxiter": 800}
    )
    W, A = found.x[: d * width].reshape(d, width), found.x[d * width :].reshape(width, c)
    return found.fun, loss.dual(np.maximum(X @ W, 0) @ A)


def semidefinite_network(X, y, beta):
    """The relaxed network program of one output and the squared loss, by CVXPY and Clarabel."""
    n, d = X.shape
    unit = np.abs(y).max()
    y, beta = y / unit, beta / unit
    lift = np.einsum("ni,nj->nij", X, X).reshape(n, -1)
    prediction, penalty, constraints = 0, 0, []
    for sign in (1.0, -1.0):
        U, u = cp.Variable((d, d), symmetric=True), cp.Variable((d, 1))
        theta, z = cp.Variable((1, 1)), cp.Variable(n)
        moment, along = lift @ cp.vec(U, order="C"), (X @ u)[:, 0]
        size = 2 * z - along
        constraints += [cp.bmat([[U, u], [u.T, theta]]) >> 0, cp.trace(U) <= theta[0, 0], size >= cp.abs(along)]
        constraints += [size >= cp.norm(U @ X.T, axis=0)]
        constraints += [cp.SOC(moment + theta[0, 0], cp.vstack([2 * size, moment - theta[0, 0]]), axis=0)]
        prediction, penalty = prediction + sign * z, penalty + theta[0, 0]
    program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y - prediction) + beta * penalty), constraints)
    program.solve(solver=cp.CLARABEL, tol_gap_abs=1e-7, tol_gap_rel=1e-7, tol_feas=1e-7)
    return unit**2 * float(program.value)


@pytest.mark.parametrize(("n", "d", "fraction"), [(60, 3, 0.1), (60, 6, 0.03), (30, 12, 0.1)])
def test_improved_dual_reaches_the_relaxed_network(n, d, fraction):
    p = planted(n, d, 20, 4, fraction)
    loss = Squared(p.y, p.weight)
    best = semidefinite_network(p.X, p.y[:, 0], p.beta)
    bound, _ = lower_bound(loss, p.X, p.y, p.beta, cones=0)
    assert 0.97 * best <= bound <= best * (1 + 1e-5)
    assert bound > 1.05 * lower_bound(loss, p.X, p.y, p.beta, improve=False, cones=0)[0]


@pytest.mark.parametrize("c", [1, 2])
def test_moments_of_the_relaxed_network_are_where_its_price_is_nearly_found(c):
    p = planted(80, 9, 20, 5, 0.03, c=c)
    net = relaxed_network(Squared(p.y, p.weight), p.X, c, p.beta)
    cold = relaxed_price(p.X, net.t, rounds=600)
    assert net.factors.shape[:3] == (10, 2, c)
    assert relaxed_price(p.X, net.t, factors=net.factors) < 1.005 * cold
    first = relaxed_price(p.X, net.t, factors=net.factors, rounds=6)
    assert first < 1.05 * cold < relaxed_price(p.X, net.t, factors=net.factors[:, ::-1], rounds=6)
    assert first < 0.9 * relaxed_price(p.X, net.t, rounds=6)


@pytest.mark.filterwarnings("ignore:the mean of y", "ignore:columns of X")
def test_where_the_moments_are_a_bad_start_the_price_is_found_from_its_own():
    """A mean of thirty deviations in one column: from the moments alone the bound is .65 of the optimum."""
    rng = np.random.default_rng(76)
    n, d = int(rng.integers(10, 120)), int(rng.integers(2, 16))
    X = rng.standard_normal((n, d)) + 30.0 * (np.arange(d) == 0)
    f = np.maximum(X @ rng.standard_normal((d, 5)), 0) @ rng.standard_normal((5, 1))
    y = f / f.std() + 0.5 * rng.standard_normal((n, 1))
    problem = build_problem(X, y[:, 0], beta=0.1 * cvxrelu.beta_max(X, y[:, 0]), sampled=False)
    objective = cvxrelu.solve(X, y[:, 0], beta=problem.beta, backend="numpy").objective
    assert 0.97 * objective <= relaxed_lower_bound(problem, problem.loss.dual(y))[0] <= objective


def test_bounds_of_trained_networks():
    p = planted(150, 3, 20, 5, 0.1)
    loss = Squared(p.y, p.weight)
    objective, t = train(loss, p.X, p.beta, 1)
    bound, _ = lower_bound(loss, p.X, t, p.beta)
    assert 0.98 * objective <= bound <= objective
    p = planted(150, 8, 20, 5, 0.1, c=2)
    loss = Squared(p.y, p.weight)
    objective, t = train(loss, p.X, p.beta, 2)
    bound, _ = lower_bound(loss, p.X, t, p.beta)
    closed = float(relaxed_bound(loss, p.X, t, np.asarray(p.beta))[0])
    assert 1.2 * closed <= bound <= objective


def test_logistic():
    rng = np.random.default_rng(6)
    X = rng.standard_normal((120, 6))
    y = np.sign(np.maximum(X[:, :1], 0) - 0.4 + 0.2 * rng.standard_normal((120, 1)))
    loss = Logistic(y, np.ones((120, 1)), 0.1 * rng.standard_normal((120, 1)))
    objective, t = train(loss, X, 1.5, 1)
    bound, dual = lower_bound(loss, X, t, 1.5)
    assert 0.7 * objective <= bound <= objective
    assert constraint_at(X, dual, ascend(X, dual, rng, 200)).max() <= 1.5


def test_readout():
    rng = np.random.default_rng(7)
    X, first, second = rng.standard_normal((20, 4)), rng.integers(20, size=15), rng.integers(20, size=15)
    R, pairs = np.eye(20)[first] - np.eye(20)[second], make_pairs(np.stack([first, second], axis=1), 20)
    loss, t = Squared(rng.standard_normal((15, 1)), np.ones((15, 1))), rng.standard_normal((15, 1))
    bound, dual = lower_bound(loss, X, t, 0.5, readout=pairs)
    assert dual.shape == (15, 1) and 0.0 <= bound <= loss.value(np.zeros((15, 1)))
    assert constraint_at(X, R.T @ dual, ascend(X, R.T @ dual, rng, 200)).max() <= 0.5


def test_nothing_to_bound():
    loss = Squared(np.ones((3, 1)), np.ones((3, 1)))
    bound, _ = lower_bound(loss, np.zeros((3, 2)), np.zeros((3, 1)), 1.0)
    np.testing.assert_allclose(bound, 1.5, rtol=1e-12)  # the network is zero whatever its weights
    large, _ = lower_bound(loss, np.eye(3), np.ones((3, 1)), 1e6)
    np.testing.assert_allclose(large, 1.5, rtol=1e-12)
    assert relaxed_network(loss, np.eye(3), 1, 0.1).t.shape == (3, 1)


@pytest.mark.parametrize("unit", [2.0, 3.0, 10.0**3.2])
def test_units_do_not_matter_to_the_search_for_a_dual_variable(unit):
    """Where its objective has kinks, the last bits of the data once decided a twentieth of the bound."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((14, 3)), rng.standard_normal((14, 2))
    bounds = []
    for t, s in ((1.0, 1.0), (unit, 1.0), (1.0, unit)):
        problem = build_problem(s * X, t * y, beta=0.15 * s * t, sampled=False)
        bounds.append(relaxed_lower_bound(problem, problem.loss.dual(np.zeros_like(y)))[0] / t**2)
    np.testing.assert_allclose(bounds, bounds[0], rtol=1e-6)


def test_closed_form_with_more_columns_than_rows(backend_name):
    """The same by either of the two matrices that have the eigenvalue."""
    rng, backend = np.random.default_rng(0), make_backend(backend_name)
    X, P = rng.standard_normal((8, 30)), rng.standard_normal((8, 2))
    basis = np.linalg.qr(X.T)[0]
    assert closed_form_price(X, P) == pytest.approx(closed_form_price(X @ basis, P), rel=1e-12)
    bounds = []
    for rows in (X, X @ basis):
        with backend.scope():
            Z, t, weight = backend.put((rows, P, np.ones_like(P)))
            bounds.append(float(backend.get(relaxed_bound(Squared(t, weight), Z, t, 0.5)[0])))
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-11) and bounds[0] > 0


@pytest.mark.parametrize("small", [1e-165, 1e-250, 1e-300])
def test_the_bound_holds_where_squares_vanish(small):
    """p is largest on a row of zeros: beside it the squares of what counts are below the smallest float."""
    rng = np.random.default_rng(0)
    for n in range(1, 15):
        X, p = np.append(rng.random((n, 1)), [[0.0]], axis=0), np.append(small * rng.random(n), 1.0)[:, None]
        exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(X[:, 0], p[:, 0], strict=True))
        assert Fraction(relaxed_price(X, p)) >= exact
