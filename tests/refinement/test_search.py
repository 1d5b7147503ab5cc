"""Refinement as `solve` runs it: the global optimum against convex programs over all patterns and against multi-start
L-BFGS, every option, odd data, and every way to stop.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_optimum import ACCURACY, network_optimum
from oracles import make_backend, max_in_cells, max_on_circle
from scipy.optimize import minimize

import cvxrelu
from cvxrelu import Status
from cvxrelu.certificates.network import not_refuted
from cvxrelu.certificates.pricing import Pricing
from cvxrelu.program.problem import build_problem
from cvxrelu.refinement import effort, search
from cvxrelu.refinement.effort import NEAR, SURE
from cvxrelu.refinement.program import NetworkProgram
from cvxrelu.refinement.search import Refinement

OPTIONS = {"backend": "numpy"}
EXACT = {"backend": "numpy", "certificate": "exact", "tol": 1e-6}


def planted(n, d, c=0, seed=0, noise=0.1):
    """Three neurons and noise; c = 0 for y (n,)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    clean = np.maximum(X @ rng.standard_normal((d, 3)) / np.sqrt(d), 0) @ rng.standard_normal((3, max(c, 1)))
    y = clean + noise * rng.standard_normal(clean.shape)
    return X, y if c else y[:, 0]


def objective(network, X, y, beta, weight=None):
    """(N), through the network's public parts only."""
    weight = np.ones(len(X)) if weight is None else weight
    residual = np.reshape(network.predict(X) - y, (len(X), -1))
    inner = network.first_layer
    if network.hidden_bias is not None:
        inner = np.vstack([inner, network.hidden_bias])
    outer = network.second_layer.reshape(network.n_neurons, network.n_outputs)
    path = np.linalg.norm(inner, axis=0) @ np.linalg.norm(outer, axis=1)
    return float(0.5 * np.sum(weight[:, None] * residual**2) + beta * path)


def check(sol, X, y, beta, weight=None):
    """What holds for every solution: honest numbers, balanced weights, no more neurons than theory asks for."""
    assert sol.objective == pytest.approx(objective(sol.network, X, y, beta, weight), rel=1e-9, abs=1e-300)
    assert 0 <= sol.lower_bound <= sol.objective * (1 + 1e-9)
    assert sol.certificate.lower_bound == sol.lower_bound and sol.certificate.gap == sol.gap
    assert sol.objective <= 0.5 * np.sum(np.reshape(1.0 if weight is None else weight, (-1, 1))
                                         * np.reshape(y, (len(X), -1)) ** 2) * (1 + 1e-12)  # fmt: skip
    n, c = len(X), sol.network.n_outputs
    assert sol.network.n_neurons <= n * c + 1
    seen = sol.history["objective"]
    assert np.all(np.diff(seen) <= 0)
    if sol.status is Status.OPTIMAL:
        assert sol.gap <= sol.settings["tol"] * (1 + 1e-6)
    assert sol.success == (sol.status in (Status.OPTIMAL, Status.OPTIMAL_INACCURATE))
    assert np.isfinite(sol.network.predict(X)).all()
    return sol


def solved(X, y, beta, weight=None, **options):
    sol = cvxrelu.solve(X, y, beta=beta, sample_weight=weight, **{**OPTIONS, **options})
    return check(sol, np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64), beta, weight)


def fraction(X, y, part, **options):
    return part * cvxrelu.beta_max(X, y, **options)


def proved_optimal(X, y, beta, weight=None, columns=None, free=None, **options):
    """Solved to 1e-6 with an exact certificate; the convex program over all patterns says the same."""
    sol = cvxrelu.solve(X, y, beta=beta, sample_weight=weight, **{**EXACT, **options})
    truth = network_optimum(X if columns is None else columns, y, beta, weight, free)
    unit = ACCURACY * 0.5 * float(np.sum((1.0 if weight is None else weight) * y**2))
    assert sol.status is Status.OPTIMAL and sol.gap <= 1e-6 and sol.certificate.rigorous
    assert sol.lower_bound <= truth + unit
    assert truth - unit <= sol.objective <= truth * (1 + 2e-6) + unit
    return sol


# -- the optimum -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("part", [0.5, 0.1, 0.02])
@pytest.mark.parametrize(("n", "d"), [(15, 2), (8, 3), (40, 1)])
def test_proved_optimal_in_few_dimensions(n, d, part):
    X, y = planted(n, d, seed=n)
    proved_optimal(X, y, fraction(X, y, part))


@pytest.mark.parametrize(("n", "rank"), [(200, 2), (60, 3)])
def test_proved_optimal_on_data_of_low_rank(n, rank):
    """Many columns, few dimensions: the exact certificate and the price of its dual variable by brute force."""
    X, y = planted(n, rank, seed=rank)
    X = X @ np.linalg.qr(np.random.default_rng(0).standard_normal((6, rank)))[0].T
    beta = fraction(X, y, 0.1)
    sol = solved(X, y, beta, certificate="exact", tol=1e-6)
    assert sol.status is Status.OPTIMAL and sol.gap <= 1e-6 and sol.certificate.rigorous
    dual = sol.certificate.dual[:, None]
    basis = np.linalg.svd(X, full_matrices=False)[2][:rank].T
    if n == 200:
        assert max_on_circle(X @ basis, dual) <= beta * (1 + 1e-9)
    small = cvxrelu.solve(X[:15], y[:15], beta=beta, **EXACT)
    assert max_in_cells(X[:15] @ basis, small.certificate.dual[:, None]) <= beta * (1 + 1e-9)
    value = float(dual[:, 0] @ y - 0.5 * dual[:, 0] @ dual[:, 0])
    assert sol.lower_bound == pytest.approx(value, rel=1e-9)


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.1, 0.02]))
def test_priced_gap_brackets_the_optimum_of_small_problems(seed, part):
    """A priced bound is an estimate; in two dimensions there is nothing to miss."""
    X, y = planted(12, 2, seed=seed)
    beta = fraction(X, y, part)
    sol = solved(X, y, beta, seed=seed % 7)
    truth = network_optimum(X, y, beta)
    assert sol.status is Status.OPTIMAL and sol.gap <= 1e-3
    assert sol.lower_bound <= truth * (1 + 1e-5) and truth * (1 - 1e-6) <= sol.objective <= truth * (1 + 1.1e-3)
    assert (sol.certificate.kind, sol.certificate.rigorous) == ("priced", False) and sol.certificate.starts > 0


def multi_start(X, y, beta, runs=4, width=30):
    """Best of L-BFGS runs on the balanced non-convex objective."""
    (_, d), c = X.shape, y.reshape(len(X), -1).shape[1]
    Y = y.reshape(len(X), -1)

    def value(flat):
        x = flat.reshape(d + c, width)
        XW = X @ x[:d]
        r = np.maximum(XW, 0) @ x[d:].T - Y
        of_W = X.T @ ((XW > 0) * (r @ x[d:]))
        gradient = np.vstack([of_W, r.T @ np.maximum(XW, 0)]) + beta * x
        return 0.5 * np.sum(r * r) + 0.5 * beta * np.sum(x * x), gradient.ravel()

    starts = np.random.default_rng(0).standard_normal((runs, (d + c) * width)) / np.sqrt(d)
    return min(minimize(value, x, jac=True, method="L-BFGS-B", options={"maxiter": 500}).fun for x in starts)


@pytest.mark.parametrize(
    ("n", "d", "c", "part"), [(60, 4, 0, 0.1), (60, 4, 0, 0.01), (40, 10, 0, 0.1), (60, 3, 2, 0.1), (40, 4, 3, 0.03)]
)
def test_no_worse_than_the_best_of_many_descents(n, d, c, part):
    X, y = planted(n, d, c, seed=1)
    beta = fraction(X, y, part)
    sol = solved(X, y, beta)
    assert sol.status is Status.OPTIMAL
    assert sol.objective <= multi_start(X, y, beta) * (1 + 1e-3)


def test_vector_outputs_beat_one_network_for_each():
    """Neurons shared by outputs are at least as good as neurons that serve one; one output is the scalar problem."""
    X, y = planted(30, 3, 2, seed=2)
    beta = fraction(X, y, 0.05)
    joint = solved(X, y, beta)
    apart = [solved(X, column, beta) for column in y.T]
    assert joint.objective <= sum(s.objective for s in apart) * (1 + 1e-9)
    assert joint.certificate.dual.shape == (30, 2)
    one = solved(X, y[:, :1], beta)
    assert one.objective == pytest.approx(apart[0].objective, rel=1e-3)
    assert one.network.predict(X).shape == (30, 1)


# -- options ---------------------------------------------------------------------------------------------------------
def test_weights_and_weight_zero_drops_a_row():
    X, y = planted(14, 2, seed=3)
    weight = np.random.default_rng(0).choice([0.0, 0.5, 1.0, 3.0], size=14)
    beta = 0.5
    sol = proved_optimal(X, y, beta, weight)
    kept = weight > 0
    fewer = proved_optimal(X[kept], y[kept], beta, weight[kept])
    assert sol.objective == pytest.approx(fewer.objective, rel=3e-6)
    repeated = proved_optimal(np.repeat(X, [2] * 14, axis=0), np.repeat(y, 2), 2 * beta)
    assert repeated.objective == pytest.approx(2 * proved_optimal(X, y, beta).objective, rel=3e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("skip", ["bias", "linear"])
@pytest.mark.parametrize("intercept", [False, True])
def test_free_bias_and_skip(skip, intercept, weighted):
    X, y = planted(12, 2, seed=4)
    y = y + 5.0 + 2.0 * X[:, 0] + 0.5 * np.sin(5 * X[:, 1])
    ones = np.ones((12, 1))
    weight = np.random.default_rng(1).choice([0.0, 1.0, 2.0], size=12) if weighted else None
    free = ones if skip == "bias" else np.hstack([X, ones])
    columns = np.hstack([X, ones]) if intercept else X
    beta = fraction(X, y, 0.1, skip=skip, intercept=intercept, sample_weight=weight)
    sol = proved_optimal(X, y, beta, weight, columns, free, skip=skip, intercept=intercept)
    assert (sol.network.skip is not None) == (skip == "linear") and sol.network.bias is not None
    assert (sol.network.hidden_bias is not None) == intercept
    check(sol, X, y, beta, weight)
    dual = sol.certificate.dual
    np.testing.assert_allclose(free.T @ dual, 0.0, atol=1e-11 * np.abs(dual).sum())


def test_a_skip_that_explains_everything_needs_no_neuron():
    X, _ = planted(20, 3, seed=5)
    y = X @ [1.0, -2.0, 0.5] + 3.0
    sol = cvxrelu.solve(X, y, beta=0.1, skip="linear", **OPTIONS)
    assert sol.network.n_neurons == 0 and sol.objective <= 1e-20
    # all that is left is rounding, and it is not called a gap
    assert sol.status is Status.OPTIMAL and sol.gap == 0 and sol.lower_bound <= sol.objective
    np.testing.assert_allclose(sol.network.skip, [1.0, -2.0, 0.5], rtol=1e-9)
    for kind in ("relaxed", "exact", "priced"):  # as many free coefficients as rows: every residual is rounding
        few = cvxrelu.solve(X[:3, :2], y[:3], beta=0.1, skip="linear", certificate=kind, **OPTIONS)
        assert few.lower_bound <= few.objective <= 1e-20 and few.status is Status.OPTIMAL


@pytest.mark.filterwarnings("ignore:columns of X differ in scale:UserWarning")
@pytest.mark.parametrize("certificate", ["priced", "relaxed"])
def test_units_of_columns_do_not_matter_to_a_skip(certificate):
    """Columns of very different units span a skip as well as others: bound and objective speak of the same one."""
    X, y = planted(30, 6, seed=18)
    X = X * 10.0 ** np.array([-8.0, -4.0, 0.0, 3.0, 5.0, 7.0])
    beta = 10.0 * cvxrelu.beta_max(X, y, skip="linear", intercept=True)
    sol = cvxrelu.solve(X, y, beta=beta, skip="linear", intercept=True, certificate=certificate, **OPTIONS)
    ones = np.ones((30, 1))
    columns = np.hstack([X / np.linalg.norm(X, axis=0), ones])
    left = 0.5 * float(np.sum((y - columns @ np.linalg.lstsq(columns, y)[0]) ** 2))
    assert sol.objective == pytest.approx(left, rel=1e-10) and sol.network.n_neurons == 0
    assert sol.lower_bound <= left * (1 + 1e-12) and sol.gap <= 1e-9


def test_intercept_is_a_constant_column():
    X, y = planted(8, 2, seed=6)
    ones = np.hstack([X, np.ones((8, 1))])
    inside = proved_optimal(X, y, 0.4, columns=ones, intercept=True)
    outside = proved_optimal(ones, y, 0.4)
    assert inside.objective == pytest.approx(outside.objective, rel=3e-6)
    check(inside, X, y, 0.4)


@pytest.mark.parametrize("certificate", ["priced", "relaxed", "exact"])
def test_kinds_of_certificates(certificate):
    X, y = planted(20, 3, seed=7)
    sol = solved(X, y, fraction(X, y, 0.2), certificate=certificate)
    assert sol.certificate.kind == certificate
    assert sol.certificate.rigorous == (certificate != "priced")
    assert (sol.certificate.starts is not None) == (certificate == "priced")
    assert certificate in sol.message and sol.n_rounds > 0


def test_patterns_given_as_an_array_are_solved_first_and_never_end_worse():
    X, y = planted(40, 3, seed=8)
    beta = fraction(X, y, 0.1)
    patterns = cvxrelu.sample_patterns(X, 20, 0)
    sampled = cvxrelu.solve(X, y, beta=beta, patterns=patterns.patterns, refine=False, **OPTIONS)
    sol = solved(X, y, beta, patterns=patterns.patterns)
    assert sol.sampled is not None and sol.n_iter > 0
    assert sol.sampled.objective == pytest.approx(sampled.sampled.objective, rel=1e-9)
    assert sol.objective <= sampled.objective * (1 + 1e-12)
    assert "round" in sol.history.columns and "iteration" in sol.history.columns
    plain = solved(X, y, beta)
    assert plain.sampled is None and plain.n_iter == 0
    assert sol.objective == pytest.approx(plain.objective, rel=2e-3)


@pytest.mark.parametrize("name", ["jax", "strict"])
def test_other_backends(name, monkeypatch):
    X, y = planted(20, 3, 2, seed=9)
    beta = fraction(X, y, 0.2)
    expected = solved(X, y, beta).objective
    if name == "strict":
        from oracles import make_backend

        solve_module = __import__("sys").modules["cvxrelu.api.prepared"]
        monkeypatch.setattr(solve_module, "select_backend", lambda *_: make_backend("strict"))
    sol = solved(X, y, beta, backend="numpy" if name == "strict" else name)
    assert sol.backend == name and sol.status is Status.OPTIMAL
    assert sol.objective == pytest.approx(expected, rel=2e-3)


def test_float32_and_seed():
    X, y = planted(30, 4, seed=10)
    beta = fraction(X, y, 0.1)
    first, again = solved(X, y, beta, seed=3), solved(X, y, beta, seed=3)
    assert first.network.allclose(again.network) and first.lower_bound == again.lower_bound
    single = solved(X.astype(np.float32), y.astype(np.float32), beta)
    assert single.status is Status.OPTIMAL and single.objective == pytest.approx(first.objective, rel=2e-3)
    assert single.network.first_layer.dtype == np.float64
    double = solved(X, y, beta, dtype="float64", tol=1e-5)
    assert double.dtype == "float64" and double.status is Status.OPTIMAL


# -- odd data --------------------------------------------------------------------------------------------------------
GAUSS = np.random.default_rng(0).standard_normal((12, 3))
ODD = {
    "more columns than rows": (GAUSS.T, GAUSS[:3, 0]),
    "many more columns": (np.random.default_rng(1).standard_normal((5, 60)), GAUSS[:5, 1]),
    "repeated rows": (np.repeat(GAUSS[:4], 3, axis=0), np.arange(12.0)),
    "repeated columns": (GAUSS[:, [0, 0, 1, 1]], GAUSS[:, 2]),
    "constant target": (GAUSS, np.full(12, 3.0)),
    "constant column": (np.hstack([GAUSS, np.ones((12, 1))]), GAUSS[:, 0] ** 2),
    "one row": (GAUSS[:1], np.ones(1)),
    "one column": (GAUSS[:, :1], GAUSS[:, 1]),
    "one number": (np.ones((1, 1)), np.full(1, -2.0)),
    "zero rows and columns": (np.pad(GAUSS, ((2, 0), (1, 0))), np.arange(14.0)),
    "rank one": (np.outer(GAUSS[:, 0], [1.0, 2.0]), GAUSS[:, 1]),
    "integers": (np.arange(24).reshape(12, 2) % 5, np.arange(12) % 3),
    "one output zero": (GAUSS, np.stack([GAUSS[:, 1] ** 2, np.zeros(12)], axis=1)),
    "only positive": (np.abs(GAUSS), np.abs(GAUSS[:, 0])),
    "one huge row": (np.vstack([GAUSS, 1e3 * GAUSS[:1]]), np.ones(13)),
    "one huge column": (GAUSS * [1e4, 1, 1e-4], GAUSS[:, 1]),
}


@pytest.mark.filterwarnings("ignore:columns of X differ in scale:UserWarning")
@pytest.mark.parametrize("name", ODD)
def test_odd_data_is_solved(name):
    X, y = ODD[name]
    sol = solved(X, y, fraction(X, y, 0.05))
    assert sol.status is Status.OPTIMAL
    assert sol.network.n_neurons > 0
    rank = np.linalg.matrix_rank(X)
    if y.ndim == 1 and rank <= 3:
        columns = X @ np.linalg.svd(X, full_matrices=False)[2][:rank].T
        truth = network_optimum(columns, y.astype(np.float64), fraction(X, y, 0.05))
        assert truth * (1 - 1e-5) <= sol.objective <= truth * (1 + 1.1e-3) + ACCURACY * np.sum(y**2)


@pytest.mark.parametrize("outputs", [0, 2])
def test_nothing_to_learn(outputs):
    y = np.zeros((12, outputs) if outputs else 12)
    for data in (GAUSS, np.zeros((12, 3))):
        sol = solved(data, y, 0.1)
        assert sol.network.n_neurons == 0 and sol.objective == sol.gap == 0.0 and sol.status is Status.OPTIMAL
    sol = solved(np.zeros((12, 3)), y + 1.0, 0.1)
    assert sol.network.n_neurons == 0 and sol.gap == 0.0 and sol.objective == 0.5 * max(outputs, 1) * 12


@pytest.mark.parametrize("outputs", [0, 2])
def test_above_beta_max_the_zero_network_is_optimal(outputs):
    X, y = planted(20, 3, outputs, seed=11)
    top = cvxrelu.beta_max(X, y)
    for certificate in ("priced", "relaxed") if outputs else ("priced", "relaxed", "exact"):
        sol = solved(X, y, 3.0 * top, certificate=certificate)
        assert sol.network.n_neurons == 0 and sol.gap <= 1e-12 and sol.status is Status.OPTIMAL
        assert np.array_equal(sol.network.predict(X), np.zeros_like(y))
    assert solved(X, y, 0.95 * top).network.n_neurons > 0


@pytest.mark.parametrize(
    ("s", "t", "weight"),
    [
        (1e6, 1e-6, 1.0),
        (1e-6, 1e6, 1e-20),
        (1e20, 1e20, 1.0),
        (1e-20, 1e-20, 1.0),
        (1e40, 1e-20, 1e30),
        (1e-40, 1e30, 1.0),
    ],
)
def test_units_do_not_matter(s, t, weight):
    """X -> s X, y -> t y, weight -> w, beta -> s t w beta multiplies the objective by t^2 w."""
    X, y = planted(20, 3, seed=12)
    beta = fraction(X, y, 0.1)
    plain = solved(X, y, beta)
    given = np.full(20, weight) if weight != 1.0 else None
    sol = solved(s * X, t * y, s * t * weight * beta, given)
    assert sol.status is Status.OPTIMAL
    assert sol.objective / t / t / weight == pytest.approx(plain.objective, rel=1.1e-3)
    assert sol.lower_bound / t / t / weight == pytest.approx(plain.objective, rel=2.1e-3)  # two gaps of 1e-3


# -- ends ------------------------------------------------------------------------------------------------------------
def test_warm_start_at_the_optimum_finishes_at_once():
    X, y = planted(30, 4, seed=13)
    beta = fraction(X, y, 0.05)
    cold = solved(X, y, beta)
    for start in (cold, cold.network, (cold.network.first_layer, cold.network.second_layer)):
        warm = solved(X, y, beta, warm_start=start)
        assert warm.n_rounds <= 1 <= cold.n_rounds
        assert warm.status is Status.OPTIMAL and warm.objective <= cold.objective * (1 + 1e-12)
    other = solved(X, y, 0.5 * beta, warm_start=cold)
    assert other.status is Status.OPTIMAL
    assert other.objective == pytest.approx(solved(X, y, 0.5 * beta).objective, rel=2e-3)
    bad = (1e3 * np.ones((4, 2)), np.array([1e3, -7.0]))  # far worse than zero: still no harm
    assert solved(X, y, beta, warm_start=bad).objective == pytest.approx(cold.objective, rel=2e-3)


def test_warm_start_has_to_fit():
    X, y = planted(10, 3, seed=14)
    with pytest.raises(ValueError, match="warm_start takes 2 features and has 1 outputs; expected 3 and 1"):
        cvxrelu.solve(X, y, beta=1.0, warm_start=(np.ones((2, 4)), np.ones(4)))
    with pytest.raises(ValueError, match="warm_start needs refine=True"):
        cvxrelu.solve(X, y, beta=1.0, warm_start=(np.ones((3, 4)), np.ones(4)), refine=False)
    with pytest.raises(ValueError, match="hidden bias"):
        cvxrelu.solve(X, y, beta=1.0, warm_start=(np.ones((3, 4)), np.ones(4), np.ones(4)))


@pytest.mark.parametrize("rank", [4, 6])
def test_exact_is_refused_before_any_work(rank):
    X, y = planted(10, rank, seed=15)
    with pytest.raises(ValueError, match=f"rank at most 3, got rank {rank}: use 'relaxed'"):
        cvxrelu.solve(X, y, beta=1.0, certificate="exact")
    with pytest.raises(ValueError, match="one output, got y with 2"):
        cvxrelu.solve(X[:, :2], np.stack([y, y], axis=1), beta=1.0, certificate="exact")


HARD = {"tol": 1e-13, "dtype": "float64"}  # what hardly ever ends by itself


def test_time_limit_returns_the_best_network():
    X, y = planted(60, 5, seed=16)
    beta = fraction(X, y, 0.01)
    sol = solved(X, y, beta, time_limit=1e-6, **HARD)
    assert sol.status is Status.TIME_LIMIT and not sol.success and "raise time_limit" in sol.message
    some = solved(X, y, beta, time_limit=0.5, **HARD)
    assert some.status is Status.TIME_LIMIT and some.objective < sol.objective


def test_callback_sees_the_records_and_can_stop():
    X, y = planted(60, 5, seed=16)
    beta, seen = fraction(X, y, 0.01), []
    sol = solved(X, y, beta, callback=lambda record: seen.append(record) or len(seen) == 3, **HARD)
    assert sol.status is Status.INTERRUPTED and "stopped by the user" in sol.message
    assert seen == list(sol.history) and len(seen) == 3
    assert seen[-1]["objective"] == pytest.approx(sol.objective, rel=1e-9)
    assert sol.network.n_neurons > 0
    quiet = solved(X, y, 10 * beta, callback=lambda record: record.clear())
    assert quiet.status is Status.OPTIMAL and quiet.history[-1]["gap"] <= 1e-3

    def fail(record):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        solved(X, y, beta, callback=fail)


@pytest.mark.parametrize("step", ["_price", "weigh", "descend", "merge", "evaluate"])
def test_interrupt_anywhere_returns_the_best_so_far(step, monkeypatch):
    X, y = planted(60, 5, seed=16)
    holder = Refinement if step == "_price" else NetworkProgram
    sound, calls = getattr(holder, step), []

    def interrupted(self, *arguments, **options):
        calls.append(step)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return sound(self, *arguments, **options)

    monkeypatch.setattr(holder, step, interrupted)
    sol = solved(X, y, fraction(X, y, 0.01), **HARD)
    assert sol.status is Status.INTERRUPTED and "stopped by the user" in sol.message
    assert sol.network.n_neurons > 0 and "interrupted" in sol.summary()


def test_what_is_printed(capfd):
    X, y = planted(20, 3, seed=17)
    beta = fraction(X, y, 0.1)
    solved(X, y, beta)
    assert capfd.readouterr() == ("", "")
    sol = solved(X, y, beta, verbose=True)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert err == "" and lines[0].split()[0] == "round"
    assert len(lines) == len(sol.history) + 2 and lines[-1] == f"optimal: {sol.message}"
    assert [int(line.split()[0]) for line in lines[1:-1]] == sol.history["round"].tolist()
    assert sol.network.metadata["settings"]["beta"] == beta
    assert sum(v for k, v in sol.timings.items() if k != "total") <= sol.timings["total"] * 1.01 + 1e-3


@pytest.mark.parametrize("scale", [1.0, 1e6])
@pytest.mark.parametrize("kind", ["zero column", "one-hot", "constant column"])
def test_separable_classes_beside_a_faint_ridge(kind, scale):
    """The curvature of what is classified right vanishes, and the Hessian is what rounding leaves of it."""
    rng = np.random.default_rng(4)
    X = {
        "zero column": np.c_[rng.standard_normal((12, 1)), np.zeros(12)],
        "one-hot": 1.0 * (np.arange(21)[:, None] % 3 == 0),
        "constant column": np.c_[rng.standard_normal((13, 3)), np.full(13, 2.0)],
    }[kind]
    labels = np.digitize(X[:, 0], np.quantile(X[:, 0], [0.4, 0.7])) if kind != "one-hot" else X[:, 0].astype(int)
    options = {"loss": "multinomial", "skip": "linear", "skip_l2": 1e-4 * scale, "backend": "numpy"}
    for beta in (0.3, 1e-3):
        sol = cvxrelu.solve(scale * X, labels, beta=beta * scale, **options)
        assert sol.success or sol.status is Status.ILL_CONDITIONED
        assert np.isfinite(sol.objective) and sol.lower_bound <= sol.objective * (1 + 1e-9)


def test_a_pricing_that_finds_nothing_is_not_believed_at_once(monkeypatch):
    """Where every pricing on the way is blind, the search ends by the others, with more starts, alone."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 4))
    y = np.maximum(X @ rng.standard_normal((4, 3)), 0.0) @ [1.0, -1.0, 1.0]
    options = {"beta": 0.05, "tol": 1e-3, "seed": 0, "backend": "numpy"}
    right = cvxrelu.solve(X, y, **options)
    price, blinded = Pricing.price, []

    def blind(self, p, known, count, **rest):
        priced = price(self, p, known, count, **rest)
        if rest["polished"] > NEAR.polished:
            return priced
        blinded.append(min(priced.price, options["beta"]) < priced.price)
        return priced._replace(price=min(priced.price, options["beta"]), exhausted=False)

    monkeypatch.setattr(Pricing, "price", blind)
    sol = cvxrelu.solve(X, y, **options)
    assert sum(blinded) > 2 and sol.status is Status.OPTIMAL
    assert sol.objective == pytest.approx(right.objective, rel=2e-3)


def test_a_gap_is_believed_once_ascents_meet_known_maxima_alone(monkeypatch):
    """The quick pricing then ends the search; where it met new ones until its end, the thorough one is asked."""
    X, y = planted(60, 3)
    price, asked, options = search.Refinement._price, [], {"beta": fraction(X, y, 0.3), "seed": 0, "backend": "numpy"}

    def noted(self, how, deadline, other=None, *, forget=False):
        priced = price(self, how, deadline, other)
        if forget and how is not SURE:
            priced = priced._replace(exhausted=False)
        asked.append((how, priced.exhausted, self._gap(self.lower_bound)))
        return priced

    monkeypatch.setattr(search.Refinement, "_price", noted)
    sol = cvxrelu.solve(X, y, **options)
    how, exhausted, gap = asked[-1]
    assert sol.status is Status.OPTIMAL and how is NEAR and exhausted and gap <= 1e-3
    assert not any(how is SURE for how, *_ in asked)
    asked.clear()
    monkeypatch.setattr(search.Refinement, "_price", lambda *given: noted(*given, forget=True))
    thorough = cvxrelu.solve(X, y, **options)
    assert [how for how, *_ in asked[-2:]] == [NEAR, SURE] and thorough.status is Status.OPTIMAL
    assert thorough.objective == pytest.approx(sol.objective, rel=1e-3)
    exact = cvxrelu.certify(sol.network, X, y, beta=options["beta"], kind="exact")
    assert exact.gap == pytest.approx(sol.gap, abs=1e-6)  # the cells of the arrangement hold no more


def test_a_gap_is_confirmed_apart_and_twice_where_one_was_refuted(monkeypatch):
    """What confirms starts without near misses; the larger price counts; a refutation asks for two from then on."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 4))
    y = np.maximum(X @ rng.standard_normal((4, 3)), 0.0) @ [1.0, -1.0, 1.0]
    price, asked, refuse = Pricing.price, [], 1

    def noted(self, p, known, count, **rest):
        nonlocal refuse
        thorough = rest["polished"] > NEAR.polished
        misses = self.misses.shape[1]
        priced = price(self, p, known, count, **rest)._replace(exhausted=False)
        if thorough:  # the first confirmation finds more than there is, the others nothing
            priced = priced._replace(price=1.5 * priced.price if refuse else 0.0)
            refuse = 0
        asked.append((thorough, misses, priced))
        return priced

    monkeypatch.setattr(Pricing, "price", noted)
    sol = cvxrelu.solve(X, y, beta=0.05, tol=1e-3, seed=0, backend="numpy")
    thorough = [how for how, *_ in asked]
    assert sol.status is Status.OPTIMAL and thorough.count(True) == 3 and thorough[-3:] == [False, True, True]
    assert all(misses == 0 for how, misses, _ in asked if how) and any(misses for how, misses, _ in asked if not how)
    last = [priced for *_, priced in asked[-4:]]  # of one dual variable, the first on few steps
    assert sol.certificate.starts == sum(priced.starts for priced in last)
    t = y - sol.predict(X)
    kappa = min(0.05 / max(priced.price for priced in last), t @ y / (t @ t))
    assert sol.lower_bound == pytest.approx(kappa * (t @ y) - 0.5 * kappa**2 * (t @ t), rel=1e-5)


def test_where_ascents_are_dear_a_thorough_pricing_has_to_be_worth_it(monkeypatch):
    """One set of starts until the gap is far below tol, and no gap below tol is reported before it is confirmed."""
    X, y = planted(60, 5)
    beta, tol, pricings, reported, share = fraction(X, y, 0.02), 3e-2, [], [], 0.05
    monkeypatch.setattr(effort, "DEAR_WAVE", 0.0)
    monkeypatch.setattr(search, "DEAR_SHARE", share)
    price = search.Refinement._price

    def noted(self, thorough, deadline, other=None):
        priced = price(self, thorough, deadline, other)
        pricings.append((thorough, self._gap(self.lower_bound), self.rounds))
        return priced

    asked, inner = [], Pricing.price
    monkeypatch.setattr(search.Refinement, "_price", noted)
    monkeypatch.setattr(
        Pricing, "price", lambda self, *given, **rest: asked.append(rest["waves"]) or inner(self, *given, **rest)
    )
    sol = cvxrelu.solve(
        X, y, beta=beta, tol=tol, seed=0, backend="numpy",
        callback=lambda record: reported.append(record["gap"]) and False,
    )  # fmt: skip
    assert sol.status is Status.OPTIMAL and pricings[-1][0] is SURE and pricings[-1][1] <= tol
    assert all(waves == 0 for waves, (how, *_) in zip(asked, pricings, strict=True) if how is not SURE)
    quick = [gap for how, gap, _ in pricings if how is NEAR]
    assert any(share * tol < gap <= tol for gap in quick)  # a case that the rule is for
    for before, (how, *_) in itertools.pairwise(pricings):
        if how is SURE:
            assert before[1] <= share * tol
    assert all(gap > tol for gap in reported[:-1]) and reported[-1] <= tol


def test_a_pricing_that_the_deadline_cuts_short_does_not_raise_the_bound(monkeypatch):
    """Its few starts find too small a price, and too high a bound: that of the last whole search is reported."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 4))
    y = np.maximum(X @ rng.standard_normal((4, 3)), 0.0) @ [1.0, -1.0, 1.0] + 0.1 * rng.standard_normal(40)
    price, whole = Pricing.price, []

    def cut(self, p, known, count, **rest):
        priced = price(self, p, known, count, **rest)
        if len(whole) < 3:
            whole.append(priced.price)
            return priced
        return priced._replace(price=0.05, complete=False)  # what an optimal network would have

    monkeypatch.setattr(Pricing, "price", cut)
    calls = []
    sol = cvxrelu.solve(
        X, y, beta=0.05, tol=1e-9, seed=0, backend="numpy", time_limit=60.0,
        callback=lambda record: calls.append(record["lower_bound"]) or len(calls) >= 6,
    )  # fmt: skip
    assert len(calls) == 6 and len(whole) == 3
    assert max(calls[3:]) <= calls[2] and sol.gap >= (sol.objective - calls[2]) / sol.objective - 1e-12


@pytest.mark.parametrize(("cheap", "most"), [(0.0, 1), (1e12, 4)])
def test_a_round_has_several_descents_where_they_are_cheap(monkeypatch, cheap, most):
    monkeypatch.setattr(search, "CHEAP", cheap)
    monkeypatch.setattr(search, "LITTLE", -np.inf)  # however little a descent brings
    calls, descend = [], NetworkProgram.descend
    monkeypatch.setattr(NetworkProgram, "descend", lambda self, *given: calls.append(1) or descend(self, *given))
    X, y = planted(60, 3)
    sol = solved(X, y, fraction(X, y, 0.05))
    assert sol.status is Status.OPTIMAL and sol.n_rounds >= 2
    assert len(calls) in (most * sol.n_rounds, most * (sol.n_rounds - 1))  # the round that ends a solve has none


@pytest.mark.parametrize(("shrunk", "dtype"), [(1.0, "float32"), (1 / 60, "float32"), (1e-4, "float64")])
def test_columns_far_apart_are_searched_in_float64(shrunk, dtype):
    X, y = planted(80, 8)
    X[:, 0] *= shrunk
    problem, given = build_problem(X, y, beta=1e-3), {"dtype": "float32", "strict": False, "tol": 1e-3, "seed": 0}
    refined = Refinement(problem, make_backend("numpy"), **given)
    assert refined.dtype == dtype and (refined.coordinates.sizes is None) == (shrunk == 1.0)


def test_an_estimate_above_a_network_is_lowered():
    assert not_refuted(2.0, 3.0) == 2.0 and not_refuted(3.0, 3.0) == 3.0
    assert not_refuted(3.1, 3.0) == pytest.approx(2.9) and not_refuted(7.0, 3.0) == 0.0


def test_bounds_at_a_small_tol_are_below_every_network():
    # Of two neurons that lie close together only one was polished, and the maximum beside the other, up to 5e-5 of the
    # price above beta, was not seen: the bounds of two of these three were above the network of the other.
    rng = np.random.default_rng(1)
    X = rng.standard_normal((200, 8))
    y = np.maximum(X @ rng.standard_normal((8, 5)), 0) @ rng.standard_normal(5) + 0.1 * rng.standard_normal(200)
    beta = 0.1 * cvxrelu.beta_max(X, y)
    found = [cvxrelu.solve(X, y, beta=beta, tol=1e-6, seed=seed, backend="numpy") for seed in (1, 2, 3)]
    assert max(sol.lower_bound for sol in found) <= min(sol.objective for sol in found)
    assert all(sol.gap <= 1e-6 for sol in found)
