"""What must hold for the sampled program on any data: bounds that bound, invariance where nothing changes, answers."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cvxrelu
from cvxrelu import Status

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # some of the random data are odd

cp = pytest.importorskip("cvxpy")

solve = functools.partial(cvxrelu.solve, refine=False, certificate="relaxed")
OPTIONS = {"backend": "numpy", "tol": 1e-4}


@st.composite
def problems(draw, rows=(2, 14), columns=(1, 4)):
    """(X, y, patterns, beta): Gaussian data, sometimes with repeated rows or rounded values, y (n,) or (n, 2)."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n, d = draw(st.integers(*rows)), draw(st.integers(*columns))
    X = rng.standard_normal((n, d))
    if draw(st.booleans()):
        X = X[rng.integers(0, n, n)]
    if draw(st.booleans()):
        X = np.round(2 * X)
    y = rng.standard_normal((n, 2) if draw(st.booleans()) else n)
    patterns = X @ rng.standard_normal((d, draw(st.integers(1, 6)))) >= 0
    state = random.getstate()  # beartype draws by it which items of a container to check, and hypothesis would object
    scale = cvxrelu.beta_max(X, y, patterns=patterns) or 1.0
    random.setstate(state)
    return X, y, patterns, draw(st.sampled_from([0.9, 0.3, 0.1, 0.02])) * scale


def optimum(X, y, M, beta) -> float:
    """(S) by Clarabel; outputs separate."""
    total = 0.0
    for target in y.reshape(len(y), -1).T:
        V, Z = cp.Variable((X.shape[1], M.shape[1])), cp.Variable((X.shape[1], M.shape[1]))
        fit = cp.sum_squares(cp.sum(cp.multiply(M, X @ (V - Z)), axis=1) - target) / 2
        norms = cp.sum(cp.norm(V, axis=0)) + cp.sum(cp.norm(Z, axis=0))
        E = np.where(M, 1.0, -1.0)
        cones = [cp.multiply(E, X @ V) >= 0, cp.multiply(E, X @ Z) >= 0]
        total += cp.Problem(cp.Minimize(fit + beta * norms), cones).solve(solver="CLARABEL")
    return float(total)


def solved(X, y, patterns, beta, **options):
    """A solution whose bounds are in order. Its optimum lies between the bounds of `sampled`."""
    sol = solve(X, y, beta=beta, patterns=patterns, **{**OPTIONS, **options})
    numbers = [sol.objective, sol.lower_bound, sol.gap, sol.sampled.objective, sol.sampled.lower_bound]
    assert np.isfinite(numbers).all()
    assert np.isfinite(sol.sampled.blocks).all()
    assert 0 <= sol.lower_bound <= sol.objective <= sol.sampled.objective * (1 + 1e-9)
    assert 0 <= sol.sampled.lower_bound <= sol.sampled.objective * (1 + 1e-12)
    assert np.isfinite(sol.network.predict(X)).all()
    return sol


def assert_same_optimum(first, second, factor=1.0, tol=OPTIONS["tol"]) -> None:
    """`second` is solved within tol, and so is `first`; their optima may differ by the factor."""
    for sol in (first, second):
        assert sol.status is Status.OPTIMAL
        assert sol.sampled.gap <= tol
    a, b = first.sampled, second.sampled
    assert factor * a.lower_bound <= b.objective * (1 + 1e-9) + 1e-300
    assert b.lower_bound <= factor * a.objective * (1 + 1e-9) + 1e-300


@settings(max_examples=25)
@given(problems(), st.sampled_from([1, 20, 300]))
def test_the_sampled_gap_is_never_too_small(problem, max_iter):
    X, y, patterns, beta = problem
    truth, unit = optimum(X, y, patterns, beta), 0.5 * np.sum(y**2)
    sampled = solved(X, y, patterns, beta, tol=1e-9, max_iter=max_iter).sampled
    assert sampled.lower_bound <= truth + 1e-6 * unit
    assert truth <= sampled.objective + 1e-6 * unit


@settings(max_examples=15)
@given(problems(columns=(2, 3)))
def test_the_bound_of_the_network_program_bounds_every_sampled_program(problem):
    """(S) with any patterns, all of them too, is never below the bound of (N)."""
    X, y, patterns, beta = problem
    sol = solved(X, y, patterns, beta)
    everything = cvxrelu.enumerate_patterns(X).patterns
    assert sol.lower_bound <= optimum(X, y, everything[:, :40], beta) * (1 + 1e-6)


@settings(max_examples=15)
@given(problems(), st.integers(0, 1000))
def test_rows_may_be_permuted(problem, seed):
    X, y, patterns, beta = problem
    order = np.random.default_rng(seed).permutation(len(X))
    first = solved(X, y, patterns, beta)
    second = solved(X[order], y[order], patterns[order], beta)
    assert_same_optimum(first, second)


@settings(max_examples=15)
@given(problems(), st.integers(0, 1000))
def test_columns_may_be_rotated(problem, seed):
    X, y, patterns, beta = problem
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((X.shape[1], X.shape[1])))
    assert_same_optimum(solved(X, y, patterns, beta), solved(X @ rotation, y, patterns, beta))


@settings(max_examples=25)
@given(problems(), st.floats(-6, 6), st.floats(-6, 6))
@example((np.array([[1.0], [-2.0]]), np.ones(2), np.array([[True], [False]]), 0.3), 6.0, -6.0)
@example((np.array([[1.0], [-2.0]]), np.ones(2), np.array([[True], [False]]), 0.3), -6.0, 6.0)
def test_units_do_not_matter(problem, log_s, log_t):
    """X -> s X, y -> t y, beta -> s t beta scales the optimum by t^2, and nothing else changes."""
    X, y, patterns, beta = problem
    s, t = 10.0**log_s, 10.0**log_t
    first, second = solved(X, y, patterns, beta), solved(s * X, t * y, patterns, s * t * beta)
    assert_same_optimum(first, second, factor=t * t)
    assert second.lower_bound == pytest.approx(t * t * first.lower_bound, rel=1e-2, abs=1e-300)


@settings(max_examples=15)
@given(problems(), st.sampled_from(["zero column", "zero row", "twice the rows", "twice a pattern", "swapped sign"]))
def test_what_changes_nothing(problem, change):
    X, y, patterns, beta = problem
    first = solved(X, y, patterns, beta)
    factor = 1.0
    if change == "zero column":
        X = np.hstack([X, np.zeros((len(X), 1))])
    elif change == "zero row":  # adds the loss of predicting zero there, nothing here
        X, y = np.vstack([X, 0 * X[:1]]), np.concatenate([y, 0 * y[:1]])
        patterns = np.vstack([patterns, np.ones_like(patterns[:1])])
    elif change == "twice the rows":
        X, y, patterns = np.repeat(X, 2, axis=0), np.repeat(y, 2, axis=0), np.repeat(patterns, 2, axis=0)
        beta, factor = 2 * beta, 2.0
    elif change == "twice a pattern":
        patterns = np.hstack([patterns, patterns])
    else:
        y = -y
    assert_same_optimum(first, solved(X, y, patterns, beta), factor)


GAUSS = np.random.default_rng(0).standard_normal((20, 4))
ODD = {
    "one sample, one column": (np.ones((1, 1)), np.ones(1)),
    "one sample": (GAUSS[:1], np.ones(1)),
    "more columns than rows": (GAUSS.T, GAUSS[:4, 0]),
    "rank one": (np.outer(GAUSS[:, 0], [1.0, 2.0, 3.0]), GAUSS[:, 1]),
    "rank deficient": (np.hstack([GAUSS, GAUSS @ np.ones((4, 2))]), GAUSS[:, 1]),
    "all zero": (np.zeros((5, 2)), np.ones(5)),
    "zero row and column": (np.pad(GAUSS, ((1, 0), (1, 0))), np.arange(21.0)),
    "equal rows": (np.ones((6, 3)), np.arange(6.0)),
    "constant target": (GAUSS, np.full(20, 3.0)),
    "zero target": (GAUSS, np.zeros(20)),
    "one output zero": (GAUSS, np.stack([GAUSS[:, 1], np.zeros(20)], axis=1)),
    "one huge row": (np.vstack([GAUSS, 1e3 * GAUSS[:1]]), np.ones(21)),
    "one huge column": (GAUSS * [1e5, 1, 1, 1e-5], GAUSS[:, 1]),
    "collinear with target": (GAUSS, GAUSS[:, 2]),
    "only positive": (np.abs(GAUSS), GAUSS[:, 0]),
    "binary": (GAUSS > 0, GAUSS[:, 0] > 0),
}


@pytest.mark.filterwarnings("ignore:columns of X differ in scale:UserWarning")
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "numpy") for name in ODD),
        *((name, "jax") for name in ("one sample, one column", "all zero", "rank one")),
    ],
)
def test_odd_data_is_solved(name, backend):
    X, y = ODD[name]
    patterns = X @ np.random.default_rng(1).standard_normal((X.shape[1], 10)) >= 0
    beta = 0.1 * (cvxrelu.beta_max(X, y, patterns=patterns) or 1.0)
    sol = solved(X, y, patterns, beta, backend=backend, tol=1e-3)
    assert sol.status is Status.OPTIMAL
    if not np.any(y) or not np.any(X):
        assert sol.network.n_neurons == 0
        assert sol.objective == 0.5 * np.sum(np.square(y))
    drawn = solve(X, y, beta=beta, patterns=10, backend="numpy")
    assert drawn.lower_bound <= drawn.objective


@pytest.mark.parametrize("s", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("t", [1e-6, 1.0, 1e6])
def test_float32_over_many_scales(s, t):
    X, y = s * GAUSS, t * np.maximum(GAUSS[:, 0], 0)
    patterns = cvxrelu.sample_patterns(X, 12)
    sol = solved(X, y, patterns, 0.1 * cvxrelu.beta_max(X, y, patterns=patterns), dtype="float32", tol=1e-3)
    assert sol.status is Status.OPTIMAL


def test_all_dead_patterns_give_the_zero_network():
    """Every neuron inactive on every row: nothing can be fitted, and that is an answer."""
    sol = solved(np.ones((4, 1)), np.ones(4), np.zeros((4, 1), bool), 0.1)
    assert sol.sampled.objective == 2.0
    assert sol.status is Status.OPTIMAL


@pytest.mark.parametrize("scale", [1e-45, 1e-60, 1e-90, 1e-140])
def test_no_false_bound_where_squares_underflow(scale):
    """Either refused, or answered with bounds in order."""
    try:
        sol = solve(scale * GAUSS, scale * GAUSS[:, 0], beta=scale**2, patterns=8, backend="numpy", max_iter=200)
    except ValueError as error:
        assert str(error).startswith(("X", "y", "beta"))
    else:
        assert sol.lower_bound <= sol.objective
        assert sol.sampled.lower_bound <= sol.sampled.objective


@pytest.mark.parametrize("seed", range(40))
def test_patterns_that_no_vector_realises_cannot_make_a_bound_lie(seed):
    """Their cones hold little more than zero: what a projection leaves of a block is rounding, not a point of them."""
    rng = np.random.default_rng(seed)
    X, y, M = rng.standard_normal((8, 2)), rng.standard_normal(8), rng.random((8, 1)) < 0.5
    sol = solve(X, y, beta=1e-3, patterns=M, max_iter=5, backend="numpy")
    slack = np.where(M, 1.0, -1.0) * (X @ sol.sampled.blocks[:, :, 0].T)
    lengths = np.linalg.norm(X, axis=1)[:, None] * np.linalg.norm(sol.sampled.blocks[:, :, 0], axis=1)
    assert np.all(slack >= -1e-9 * lengths)
    zero_network = 0.5 * float(y @ y) * (1 + 1e-14)
    assert sol.sampled.lower_bound <= sol.sampled.objective <= zero_network
    assert sol.lower_bound <= sol.objective <= zero_network
