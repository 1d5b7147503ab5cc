"""Data whose rows lie far from the origin beside their spread, or whose columns differ much in size."""

import cvxpy as cp
import numpy as np
import pytest

import cvxrelu
from cvxrelu.backends.numpy import NumpyBackend
from cvxrelu.certificates.ascents import ascend, prices, start_ascent
from cvxrelu.certificates.coordinates import features, kinks, snapped
from cvxrelu.certificates.pricing import Pricing
from cvxrelu.certificates.search_space import SearchSpace
from cvxrelu.program.problem import build_problem
from cvxrelu.program.skip import free_coefficients, free_directions
from cvxrelu.refinement import neurons
from cvxrelu.refinement.neurons import Neurons, Terms

NUMPY = NumpyBackend()


def curve(seed, mean=2000.0, n=40):
    """x (n,) between mean and mean + 30, and y."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, 30, n))
    x = mean + at
    return x, np.sin(at / 4) + 0.05 * at + 0.1 * rng.standard_normal(n)


def without_line(x, *columns):
    """The columns less their best line in x, whose mean may be large."""
    line = np.linalg.qr(np.column_stack([np.ones(len(x)), x - x[0]]))[0]
    out = np.column_stack(columns)
    for _ in range(2):
        out = out - line @ (line.T @ out)
    return out


def hinges(x):
    """Unit neurons (x - k)_+ / sqrt(1 + k^2) with kinks at the data: the best there are beside a free line."""
    return np.maximum(x[:, None] - x, 0.0) / np.sqrt(1.0 + x * x)


def optimum(x, y, beta):
    """The network program in one dimension with intercept and free line: a lasso over all hinges."""
    columns = without_line(x, y, hinges(x))
    y, columns = columns[:, 0], columns[:, 1:]
    lengths = np.linalg.norm(columns, axis=0)
    columns, lengths = columns[:, lengths > 1e-9 * lengths.max()], lengths[lengths > 1e-9 * lengths.max()]
    s = cp.Variable(len(lengths))
    cost = beta * cp.norm1(cp.multiply(1.0 / lengths, s))
    fit = 0.5 * cp.sum_squares(y - (columns / lengths) @ s)
    return cp.Problem(cp.Minimize(fit + cost)).solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("mean", [-30.0, 2e3, 1e6, 1e10])
@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_beta_max_of_a_curve_is_that_of_its_best_kink(mean, unit):
    x, y = curve(1, mean)
    right = np.abs(without_line(x, y)[:, 0] @ np.maximum(x[:, None] - x, 0.0) / np.hypot(1.0, unit * x) * unit).max()
    got = cvxrelu.beta_max(unit * x[:, None], y, intercept=True, skip="linear")
    assert got == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize(("seed", "value"), [(1, 0.0236925), (4, 0.0295834)])
def test_beta_max_two_thousand_units_away(seed, value):
    rng = np.random.default_rng(seed)
    x = 2000 + np.sort(rng.uniform(0, 30, 40))
    y = np.sin((x - 2000) / 4) + 0.05 * (x - 2000) + 0.1 * rng.normal(size=40)
    assert cvxrelu.beta_max(x[:, None], y, intercept=True, skip="linear") == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_the_bound_is_not_above_the_optimum_far_from_the_origin(seed, tol):
    x, y = curve(seed)
    right = optimum(x, y, 5e-4)
    sol = cvxrelu.solve(x[:, None], y, beta=5e-4, intercept=True, skip="linear", tol=tol)
    assert sol.status == "optimal"
    assert sol.objective == pytest.approx(right, rel=1.5 * tol + 1e-6)
    assert sol.lower_bound <= right * (1.0 + 3.0 * sol.gap + 1e-6)


@pytest.mark.parametrize("seed", [0, 3])
def test_an_exact_certificate_closes_the_gap_there(seed):
    x, y = curve(seed)
    sol = cvxrelu.solve(x[:, None], y, beta=5e-4, intercept=True, skip="linear", certificate="exact", tol=1e-5)
    assert sol.status == "optimal" and sol.certificate.rigorous
    assert sol.lower_bound <= optimum(x, y, 5e-4) * (1.0 + 1e-7) <= sol.objective * (1.0 + 2e-7)


@pytest.mark.parametrize(("mean", "tol", "status"), [(1e9, 1e-3, "optimal"), (1e13, 1e-3, "ill_conditioned")])
def test_what_rounding_hides_is_said(mean, tol, status):
    x, y = curve(0, mean, 20)
    beta = 0.02 * cvxrelu.beta_max(x[:, None], y, intercept=True, skip="linear")
    sol = cvxrelu.solve(x[:, None], y, beta=beta, intercept=True, skip="linear", tol=tol)
    right = optimum(x, y, beta)
    assert sol.status == status
    assert sol.lower_bound <= right * (1.0 + 3.0 * sol.gap + 1e-6)
    if status == "ill_conditioned":
        assert not sol.success and "float64" in sol.message
        assert sol.gap > tol  # the bound allows for what it cannot see


def test_kinks_of_several_columns_and_outputs_are_seen():
    # Beside the best network of centred data, moved to where the rows are, no bound may be much higher.
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((20, 2))
    Y = np.column_stack([np.abs(Z[:, 0] - 0.3), np.maximum(Z @ [0.5, -1.0], 0.0)])
    mean, size = np.array([300.0, -2000.0]), np.array([1.0, 1e-2])
    X = (Z + mean) * size
    options = {"intercept": True, "skip": "bias"}
    beta = 0.1 * cvxrelu.beta_max(X, Y, **options)
    sol = cvxrelu.solve(X, Y, beta=beta, **options)
    found = cvxrelu.solve(Z, Y, beta=0.01, **options).network
    W = found.first_layer / size[:, None]
    moved = cvxrelu.ReLUNetwork(W, found.second_layer, found.hidden_bias - (mean * size) @ W, None, found.bias)
    other = cvxrelu.solve(X, Y, beta=beta, warm_start=moved, seed=1, **options)
    assert sol.status == "optimal"
    assert sol.lower_bound <= other.objective * (1.0 + 3.0 * sol.gap + 1e-6)


# -- the coordinates --------------------------------------------------------------------------------------------------
def test_alike_columns_are_kept():
    X = np.random.default_rng(0).standard_normal((50, 6))
    found = SearchSpace(X).coordinates()
    assert found.rows is X and found.basis is None and found.sizes is None


def test_coordinates_are_those_of_the_data():
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((50, 3)) + 1e7) * [1.0, 1e3, 1e-4]
    found = SearchSpace(X).coordinates()
    assert found.sizes is not None and found.unseen == 0.0
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(found.rows @ found.basis.T, X, rtol=1e-12)
    Q = found.rows / found.sizes
    np.testing.assert_allclose(Q.T @ Q, np.eye(3), atol=1e-5)
    u = rng.standard_normal((3, 4))
    np.testing.assert_allclose(found.outward(found.inward(u)), u, rtol=1e-12)


def test_what_beta_hides_does_not_count():
    X = np.random.default_rng(0).standard_normal((50, 6)) * [1.0, 1.0, 1.0, 1.0, 1.0, 1e-4]
    assert SearchSpace(X).coordinates().sizes is not None
    assert SearchSpace(X).coordinates(negligible=1.0).sizes is None


def test_directions_are_told_apart_as_functions_of_the_rows():
    x, _ = curve(0)
    at = SearchSpace(np.column_stack([x, np.ones(40)])).coordinates()
    u = np.stack([np.ones(2), [-2005.0, -2020.0]])
    c = at.inward(u / np.linalg.norm(u, axis=0))
    assert c[:, 0] @ c[:, 1] > 1.0 - 1e-9
    alike = features(c, at.sizes)
    np.testing.assert_allclose(np.linalg.norm(alike, axis=0), 1.0)
    assert alike[:, 0] @ alike[:, 1] < 0.95


@pytest.mark.parametrize("r", [2, 3, 6])
def test_kinks_go_through_rows(r):
    rng = np.random.default_rng(0)
    Q = rng.standard_normal((30, r))
    found = kinks(Q, 20, rng)
    zero = np.sum(np.abs(Q @ found) < 1e-12, axis=0)
    assert found.shape[1] >= 20 and np.all(zero >= r - 1)


def test_snapped_directions_reach_the_best_kink():
    x, y = curve(2)
    at = SearchSpace(np.column_stack([x, np.ones(40)])).coordinates()
    p = without_line(x, y)
    best = np.abs(p[:, 0] @ hinges(x)).max()
    k = x[np.argmax(np.abs(p[:, 0] @ hinges(x)))] + 0.2  # beside the kink
    c = at.inward(np.array([[1.0], [-k]]) / np.hypot(1.0, k))
    near, moved = (
        prices(at.rows, p, u).max() for u in (c, snapped(at.rows / at.sizes, at.sizes, p, c, np.random.default_rng(7)))
    )
    assert near < best * (1.0 - 1e-5) and moved == pytest.approx(best, rel=1e-6)


# -- ascents and descent there ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("c", [1, 2])
def test_a_scaled_ascent_has_the_slope_of_the_ratio(c):
    rng = np.random.default_rng(3)
    Q, p, z = rng.standard_normal((30, 4)), rng.standard_normal((30, c)), rng.standard_normal((4, 5))
    scale = np.array([[1.0], [0.3], [1e-2], [1e-3]])
    at = start_ascent(NUMPY, Q, p, z, scale)
    np.testing.assert_allclose(at.value, prices(Q, p, at.u) / np.linalg.norm(scale * at.u, axis=0), rtol=1e-12)

    def value(u):
        return prices(Q, p, u) / np.linalg.norm(scale * u, axis=0)

    h = 1e-7
    slope = (value(at.u + h * at.direction) - value(at.u - h * at.direction)) / (2 * h)
    across = np.stack([rng.standard_normal(4) for _ in range(5)], axis=1)
    across -= at.direction * np.sum(across * at.direction, axis=0)
    flat = (value(at.u + h * across) - value(at.u - h * across)) / (2 * h)
    assert np.all(slope > 0) and np.all(np.abs(flat) <= 1e-4 * slope)
    for _ in range(20):
        after = ascend(NUMPY, Q, p, at, 1, scale)
        assert np.all(after.value >= at.value)
        at = after


@pytest.mark.parametrize("scaled", [False, True])
def test_the_balanced_objective_does_not_depend_on_the_scale(scaled):
    rng = np.random.default_rng(0)
    problem = build_problem(rng.standard_normal((30, 3)), rng.standard_normal(30), beta=0.3, sampled=False)
    u, a, s = rng.standard_normal((3, 4)), np.sign(rng.standard_normal((1, 4))), rng.uniform(1, 2, 4)
    given = Neurons(u / np.linalg.norm(u, axis=0), a, s)
    scale = np.array([[1.0], [1e-2], [30.0]]) if scaled else None
    X = problem.X if scale is None else problem.X * scale[:, 0]
    terms = Terms(X, problem.loss, np.asarray(0.3), scale=scale)
    x = neurons.to_weights(given, np.zeros((0, 1)), scale)
    value, gradient = neurons.balanced(terms, x)
    prediction = np.maximum(problem.X @ given.u, 0.0) @ (s * a).T
    assert float(value) == pytest.approx(float(problem.loss.value(prediction)) + 0.3 * s.sum(), rel=1e-12)
    step = 1e-6 * rng.standard_normal(x.size)
    change = neurons.balanced(terms, x + step)[0] - neurons.balanced(terms, x - step)[0]
    assert float(change) == pytest.approx(2 * float(gradient @ step), rel=1e-5)
    back, _ = neurons.from_weights(x, 3, 1, 0, scale)
    np.testing.assert_allclose(back.u * back.s, given.u * given.s, rtol=1e-12)


def test_two_sides_of_a_direction_price_alike_beside_a_free_skip():
    x, y = curve(0, 1e9)
    problem = build_problem(x[:, None], y, beta=1.0, intercept=True, skip="linear", sampled=False)
    assert problem.even
    space = SearchSpace(problem.X)
    at = space.coordinates()
    p = problem.loss.dual(np.zeros((40, 1)))
    right = np.abs(without_line(x, y)[:, 0] @ np.maximum(x[:, None] - x, 0.0)).max() / 1e9
    found = Pricing(NUMPY, space.ground(NUMPY, at), np.random.default_rng(0), even=problem.even)
    assert found.price(p, np.zeros((2, 0)), 40).price == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"skip": "bias"}, {"skip": "linear", "skip_l2": 1.0}])
def test_they_do_not_otherwise(options):
    x, y = curve(0)
    assert not build_problem(x[:, None], y, beta=1.0, intercept=True, sampled=False, **options).even


# -- the free skip, and ranks -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("mean", [0.0, 1e6, 1e12])
def test_a_free_skip_carries_a_line_however_far_away(mean):
    x = mean + np.arange(40.0)
    problem = build_problem(x[:, None], 3.0 * np.arange(40.0) + 5.0, beta=1.0, skip="linear", sampled=False)
    assert problem.loss.free.shape[1] == 2
    assert float(problem.loss.value(np.zeros((40, 1)))) <= 1e-20 * float(problem.plain.value(np.zeros((40, 1))))
    z = free_coefficients(problem.skip, problem.loss, np.zeros((40, 1)))
    assert z[0, 0] == pytest.approx(3.0, rel=1e-12)


def test_constant_columns_add_nothing_beside_a_bias():
    columns = np.column_stack([np.full(20, 0.1), np.arange(20.0), np.ones(20)])
    assert free_directions(columns, np.ones((20, 1)), bias=True).shape[1] == 2


def test_ranks_do_not_depend_on_units():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 4)) * [1e9, 1.0, 1.0, 1e-9]
    with pytest.raises(ValueError, match="rank at most 3, got rank 4"):
        cvxrelu.solve(X, rng.standard_normal(30), beta=1.0, certificate="exact")


def test_zero_rows_have_no_kinks():
    """Beside columns far apart they used to make every direction that was moved onto their kinks a NaN."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3)) * [1.0, 1e3, 1e-2]
    X[:4] = 0.0
    at = SearchSpace(X).coordinates()
    assert at.sizes is not None
    Q = at.rows / at.sizes
    c = rng.standard_normal((3, 5))
    moved = snapped(Q, at.sizes, rng.standard_normal((20, 1)), c / np.linalg.norm(c, axis=0), rng)
    assert moved.shape[1] > 5 and np.isfinite(moved).all()
