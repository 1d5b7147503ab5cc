"""Branch and bound proves what is true: its duals are feasible by exact pricing, for every loss, readout and skip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import odd_rows

import cvxrelu
from cvxrelu.certificates.branching import branch
from cvxrelu.certificates.branching.branch import branch_lower_bound
from cvxrelu.certificates.branching.cone_network import _Program, cone_network
from cvxrelu.certificates.branching.cone_search import ConeLine
from cvxrelu.certificates.cones import orthants
from cvxrelu.certificates.exact_pricing import exact_price
from cvxrelu.certificates.relaxation import relaxed_lower_bound
from cvxrelu.certificates.subdivision import prices_of
from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.problem import build_problem
from cvxrelu.runs.proving import Branching, Ledger, Proof

seeds = st.integers(0, 10**6)
KINDS = ["plain", "integer", "repeated", "column scales", "nearly parallel"]


def draw(seed):
    """A small problem of one output and rank at most 3 with any loss, readout and skip, and a dual variable."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 12)), int(rng.integers(1, 4))
    X = odd_rows(rng, n, d, rng.choice(KINDS), column_decades=2)
    X = X * 10.0 ** rng.uniform(-3, 3)
    loss = rng.choice(["squared", "squared", "logistic"])
    pairs = rng.integers(n, size=(6, 2)) if rng.random() < 0.3 else None
    m = n if pairs is None else 6
    y = rng.choice([-1.0, 1.0], size=m) if loss == "logistic" else rng.standard_normal(m) * 10.0 ** rng.uniform(-3, 3)
    skip = rng.choice([False, "bias", "linear"]) if rng.random() < 0.4 else False
    skip = False if skip == "bias" and pairs is not None else skip if skip == "linear" or skip == "bias" else False
    options = {"loss": str(loss), "pairs": pairs, "skip": str(skip) if skip else False}
    options["skip_l2"] = (0.5 if loss == "logistic" or rng.random() < 0.5 else 0.0) if skip else 0.0
    if rng.random() < 0.3:
        options["sample_weight"] = rng.random(m) + 0.1
    problem = build_problem(X, y, beta=1.0, sampled=False, **options)
    t = problem.loss.dual(np.zeros_like(problem.loss.y))
    largest = exact_price(problem.X, np.ascontiguousarray(problem.pull_back(t)[0][:, 0])).value
    return problem.at(max(largest, 1e-6) * 10.0 ** rng.uniform(-2, 0.1)), t


def attained(problem, dual):
    """The largest |p^T (X u)_+| in extended precision, over the maximiser and all local maxima of exact pricing."""
    p = np.ascontiguousarray(problem.pull_back(dual)[0][:, 0])
    found = exact_price(problem.X, p)
    u = np.column_stack([found.direction, found.directions]).astype(np.longdouble)
    u /= np.maximum(np.sqrt(np.sum(u * u, axis=0)), 1e-300)
    return float(np.abs(p.astype(np.longdouble) @ np.maximum(problem.X.astype(np.longdouble) @ u, 0)).max())


@settings(max_examples=40)
@given(seeds, st.integers(10, 300))
def test_its_dual_variable_is_feasible_by_exact_pricing(seed, cones):
    try:
        problem, t = draw(seed)
        proof, history = branch_lower_bound(problem, t, Branching(cones=cones), deadline=np.inf)
        price = attained(problem, proof.dual)
    except ValueError as error:
        assert "rows so nearly parallel" in str(error) or "skip" in str(error) or "pairs" in str(error)
        return
    assert price <= problem.beta * (1 + 1e-14) + problem.pull_back(proof.dual)[1]
    value, magnitude, _ = problem.dual_bound(proof.dual, 1.0)
    assert proof.bound == pytest.approx(value, rel=1e-9, abs=1e-12 * magnitude)
    assert np.all(np.diff(history["lower_bound"]) >= 0)
    assert proof.bound >= relaxed_lower_bound(problem, t, cones=2000)[0] * (1 - 1e-12)


@pytest.mark.parametrize("c", [2, 3])
def test_several_outputs(c):
    rng = np.random.default_rng(c)
    X, y = rng.standard_normal((20, 5)), rng.standard_normal((20, c))
    beta = 0.3 * cvxrelu.beta_max(X, y)
    sol = cvxrelu.solve(X, y, beta=beta, backend="numpy")
    problem, t = build_problem(X, y, beta=beta, sampled=False), y - sol.network.predict(X)
    few, many = (branch_lower_bound(problem, t, Branching(cones=k), deadline=np.inf)[0] for k in (100, 3000))
    assert relaxed_lower_bound(problem, t, cones=2000)[0] <= few.bound < many.bound <= sol.objective
    rng = np.random.default_rng(0)
    u = rng.standard_normal((5, 20_000))
    values = np.linalg.norm(many.dual.T @ np.maximum(X @ (u / np.linalg.norm(u, axis=0)), 0.0), axis=0)
    assert values.max() <= beta
    assert many.bound == pytest.approx(problem.dual_bound(many.dual, 1.0)[0], rel=1e-12)


def test_rank_three_agrees_with_exact():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = np.maximum(X @ rng.standard_normal((3, 4)), 0) @ np.array([1.0, -1.0, 1.0, -1.0])
    beta = 0.05 * cvxrelu.beta_max(X, y)
    sol = cvxrelu.solve(X, y, beta=beta, certificate="exact", tol=1e-9, backend="numpy")
    exact = cvxrelu.certify(sol, X, y, beta=beta, kind="exact", tol=1e-9, backend="numpy")
    found = cvxrelu.certify(sol, X, y, beta=beta, kind="branch", tol=1e-9, time_limit=10.0, backend="numpy")
    assert found.lower_bound >= exact.lower_bound * (1 - 1e-9)
    assert found.lower_bound <= sol.objective


def test_the_network_of_cones_is_a_lower_bound_and_its_gradient_is_right():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((9, 3))
    for loss in (Squared(rng.standard_normal((9, 1)), rng.random((9, 1)) + 0.1),
                 Logistic(rng.choice([-1.0, 1.0], size=(9, 1)), np.ones((9, 1)), np.zeros((9, 1)))):  # fmt: skip
        vertices, signs = np.tile(orthants(3), (2, 1, 1)), np.repeat([1.0, -1.0], 8)
        program = _Program(loss, X, 0.3, vertices, signs)
        a = rng.random((16, 3))
        _, gradient = program.evaluate(a)
        steps = np.zeros_like(a)
        for index in np.ndindex(a.shape):
            e = np.zeros_like(a)
            e[index] = 1e-2
            steps[index] = (program.evaluate(a + e)[0] - program.evaluate(a - e)[0]) / 2e-2
        assert np.mean(np.isclose(gradient, steps, rtol=3e-2, atol=3e-2)) > 0.9  # the others are beside a kink
        found = cone_network(loss, X, 0.3, vertices, signs, np.zeros_like(a), max_iter=400)
        # Its dual variable has all bounds at most beta, up to what the slopes and the minimiser leave open.
        worst = max(price.bounds(orthants(3)).bounds.max() for price in prices_of(X, found.t))
        assert worst <= 0.3 * 1.2
        assert found.value <= float(loss.value(np.zeros((9, 1)))) * (1 + 1e-6)


def planted(n=60, d=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 5)), 0) @ rng.standard_normal(5) + 0.1 * rng.standard_normal(n)
    return X, y, 0.05 * cvxrelu.beta_max(X, y)


def test_it_rises_with_time_and_beats_the_relaxed_bound():
    X, y, beta = planted()
    sol = cvxrelu.solve(X, y, beta=beta, backend="numpy")
    problem = build_problem(X, y, beta=beta, sampled=False)
    t = (y - sol.network.predict(X))[:, None]
    start = Proof(*relaxed_lower_bound(problem, t, cones=0))
    found = [branch_lower_bound(problem, t, Branching(cones=k), deadline=np.inf)[0].bound for k in (100, 1000, 8000)]
    assert start.bound <= found[0] < found[1] < found[2] <= sol.objective
    assert found[2] >= 0.97 * sol.objective


def test_stopping_and_going_on(tmp_path):
    X, y, beta = planted(seed=3)
    sol = cvxrelu.solve(X, y, beta=beta, backend="numpy")
    options = {"beta": beta, "kind": "branch", "backend": "numpy", "checkpoint": tmp_path / "proof"}
    records = []
    first = cvxrelu.certify(sol, X, y, **options, callback=lambda r: records.append(r) or len(records) >= 4)
    assert len(first.progress) == 4 == len(records)
    second = cvxrelu.certify(sol, X, y, **options, time_limit=6.0, target=1e-6)
    assert len(second.progress) > 4 and list(second.progress["cones"][:4]) == [r["cones"] for r in records]
    assert second.lower_bound > first.lower_bound
    assert np.all(np.diff(second.progress["time"]) >= 0)
    with pytest.raises(ValueError, match="another y"):
        cvxrelu.certify(sol, X, 2 * y, **options)


def test_a_target_ends_it():
    X, y, beta = planted(seed=4)
    sol = cvxrelu.solve(X, y, beta=beta, backend="numpy")
    found = cvxrelu.certify(sol, X, y, beta=beta, kind="branch", target=0.1, backend="numpy")
    assert 0.03 < found.gap <= 0.1


def test_options_of_other_kinds_are_refused(tmp_path):
    X, y, beta = planted(n=8, d=2)
    network = (np.eye(2), np.ones(2))
    for options in ({"target": 0.1}, {"checkpoint": tmp_path}, {"callback": print}, {"verbose": True}):
        with pytest.raises(ValueError, match="option of kind='branch'"):
            cvxrelu.certify(network, X, y, beta=beta, **options)
    with pytest.raises(ValueError, match="target"):
        cvxrelu.certify(network, X, y, beta=beta, kind="branch", target=-1.0)


def test_high_rank_and_many_rows_are_the_relaxed_bound(monkeypatch):
    monkeypatch.setattr(branch, "MANY_ROWS", 39)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 38)), rng.standard_normal(40)
    problem = build_problem(X, y, beta=2.0, sampled=False)
    proof, _ = branch_lower_bound(problem, y[:, None], Branching(), deadline=np.inf)
    assert proof.bound == relaxed_lower_bound(problem, y[:, None], cones=2000)[0]


@pytest.mark.parametrize("seed", range(6))
def test_one_dimension_ends(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((9, 1)), rng.standard_normal(9)
    for pairs in (None, np.stack([np.arange(9), np.roll(np.arange(9), 1)], axis=1)):
        problem = build_problem(X, y, beta=0.01, sampled=False, pairs=pairs)
        for t in (y[:, None], np.abs(y[:, None])):
            proof, _ = branch_lower_bound(problem, t, Branching(cones=1000), deadline=np.inf)
            assert attained(problem, proof.dual) <= problem.beta * (1 + 1e-14) + problem.pull_back(proof.dual)[1]


def test_nothing_to_bound():
    for X, y in ((np.zeros((3, 2)), np.ones(3)), (np.eye(3), np.zeros(3))):
        problem = build_problem(X, y, beta=0.1, sampled=False)
        proof, _ = branch_lower_bound(problem, y[:, None], Branching(), deadline=np.inf)
        assert proof.bound == pytest.approx(0.5 * float(np.sum(y**2)) if not X.any() else 0.0, rel=1e-12)


def test_solve_takes_it():
    X, y, beta = planted(n=30, d=3)
    sol = cvxrelu.solve(X, y, beta=beta, certificate="branch", time_limit=20.0, tol=5e-3, backend="numpy")
    assert sol.certificate.kind == "branch" and sol.certificate.rigorous
    assert sol.status == cvxrelu.Status.OPTIMAL and sol.gap <= 5e-3


def test_a_dual_variable_of_rows_that_no_neuron_sees():
    """Targets of rows of zeros cannot be explained: the bound is their whole loss."""
    X = np.vstack([np.zeros((2, 6)), np.random.default_rng(0).standard_normal((20, 6))])
    y = np.concatenate([[1.0, -2.0], np.zeros(20)])[:, None]
    problem = build_problem(X, y, beta=1.0, sampled=False)
    ledger = Ledger(Proof(0.0, 0.0, 0.0 * y), Branching(), dict)
    line = ConeLine(problem, y, ledger, weighs=True)
    line.go(np.inf, 300)
    line.finish(np.inf, 300)
    assert ledger.best.bound == pytest.approx(2.5, rel=1e-9)


@pytest.mark.parametrize("error", [MemoryError("8 GiB"), np.linalg.LinAlgError("Eigenvalues did not converge")])
def test_what_is_proved_stays_proved_where_a_way_breaks_down(monkeypatch, error):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 6)), rng.standard_normal((30, 1))
    problem = build_problem(X, y, beta=0.5 * cvxrelu.beta_max(X, y), sampled=False)
    relaxed = relaxed_lower_bound(problem, y, cones=2000)[0]

    def broken(*_, **__):
        raise error

    monkeypatch.setattr("cvxrelu.certificates.branching.cone_search.cone_network", broken)
    with pytest.warns(RuntimeWarning, match="the bound so far holds"):
        proof, _ = branch_lower_bound(problem, y, Branching(cones=1500), deadline=np.inf)
    assert proof.bound > relaxed  # by the ways that are left


def test_the_way_to_go_on_with_is_the_one_that_would_prove_most(monkeypatch):
    """By how its excess fell in the second half of its share; one that is far behind is left, however it rises."""
    rng = np.random.default_rng(0)
    problem = build_problem(rng.standard_normal((30, 6)), rng.standard_normal(30), beta=0.5, sampled=False)
    run = branch._Run(problem, problem.loss.y, Branching(objectives=(1.0,), gap=0.0), None, np.inf)
    monkeypatch.setattr(branch.time, "perf_counter", lambda: 30.0)
    assert run.ways == ["close", "search", "boxes"]
    for line, rise in zip(run.lines, [[0.2, 0.8], [0.85, 0.9], [0.01, 0.75]], strict=True):
        line.rise, line.best = [(5.0, rise[0]), (25.0, rise[1])], rise[1]
        line.slope = run.slope(line, 10.0)
    np.testing.assert_allclose([line.slope for line in run.lines], [2.0, np.log2(1.5), np.log2(0.99 / 0.25)])

    def order(left):
        return [
            run.ways[run.lines.index(line)]
            for line in sorted(run.lines, key=lambda line: run.outlook(line, left, 100.0))
        ]

    assert order(0.0) == order(np.inf) == ["search", "close", "boxes"]
    assert order(60.0) == ["close", "search", "boxes"]  # 0.2 / 5^2 and 0.1 / 4^0.58
    run.lines[0].best = run.lines[2].best = 0.9  # no longer far behind
    assert order(60.0) == ["close", "boxes", "search"]
    run.lines[0].best, run.lines[0].slope, run.lines[1].best, run.lines[1].slope = 0.8, 0.0, 0.85, 0.0
    assert order(60.0).index("close") < order(60.0).index("search")  # which a little more does not outweigh
    run.lines[2].rise = run.lines[2].rise[1:]  # nothing was known at half of its share
    assert run.slope(run.lines[2], 10.0) == 0.0
