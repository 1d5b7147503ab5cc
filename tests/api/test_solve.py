"""The sampled program as the user of `solve` sees it: against Clarabel, with every option, stopped in every way."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from oracles import stored_oracle

import cvxrelu
from cvxrelu import Patterns, Status
from cvxrelu.sampled import admm
from cvxrelu.sampled import penalties as preparation
from cvxrelu.sampled.stage import SampledStage

cp = pytest.importorskip("cvxpy")

BETA_MAX_FRACTION = 0.1

solve = functools.partial(cvxrelu.solve, refine=False, certificate="relaxed")


class Planted(NamedTuple):
    X: np.ndarray
    y: np.ndarray
    beta: float
    patterns: Patterns

    def solve(self, **options):
        return solve(self.X, self.y, **{"beta": self.beta, "patterns": self.patterns, **options})


@functools.cache
def planted(n: int, d: int, P: int, c: int = 0, seed: int = 0) -> Planted:
    """A teacher of five neurons with a tenth of noise; beta as a fraction of max_i |X^T (M_i y)|. c = 0: y (n,)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    teacher = rng.standard_normal((5, c)) if c else rng.standard_normal(5)
    clean = np.maximum(X @ rng.standard_normal((d, 5)) / np.sqrt(d), 0) @ teacher
    y = clean + 0.1 * clean.std() * rng.standard_normal(clean.shape)
    patterns = cvxrelu.sample_patterns(X, P, seed)
    correlations = np.einsum("nd,np,nc->dpc", X, patterns.patterns, y.reshape(n, -1))
    return Planted(X, y, BETA_MAX_FRACTION * float(np.linalg.norm(correlations, axis=0).max()), patterns)


SMALL = planted(60, 4, 12, seed=1)  # solved to 1e-5 in some 400 iterations
HARD = {"tol": 1e-12, "backend": "numpy"}  # what never ends by itself


def dense_objective(X, y, M, blocks, beta, weight=1.0) -> float:
    """(S) at blocks (2, d, P) or (2, d, P, c), written out."""
    blocks, y = blocks.reshape(*blocks.shape[:3], -1), y.reshape(len(y), -1)
    prediction = np.einsum("np,nd,dpc->nc", M, X, blocks[0] - blocks[1])
    fit = 0.5 * np.sum(np.reshape(weight, (-1, 1)) * (prediction - y) ** 2)
    return float(fit + beta * np.linalg.norm(blocks, axis=1).sum())


def network_objective(network, X, y, beta, weight=1.0) -> float:
    """(N) at a network, through its public parts only."""
    residual = (network.predict(X) - y).reshape(len(y), -1)
    inner = network.first_layer
    if network.hidden_bias is not None:
        inner = np.vstack([inner, network.hidden_bias])
    outer = (
        np.abs(network.second_layer) if network.second_layer.ndim == 1 else np.linalg.norm(network.second_layer, axis=1)
    )
    fit = 0.5 * np.sum(np.reshape(weight, (-1, 1)) * residual**2)
    return float(fit + beta * np.linalg.norm(inner, axis=0) @ outer)


def clarabel_optimum(p: Planted) -> float:
    """The optimum of (S): of the largest problem, a minute of Clarabel's, kept in a file."""
    name = "sampled program, squared loss, {} x {}, {} patterns".format(*p.X.shape, p.patterns.patterns.shape[1])
    return stored_oracle(name, (p.X, p.y, p.patterns.patterns, p.beta), lambda: by_clarabel(p))


def by_clarabel(p: Planted) -> float:
    M = p.patterns.patterns
    V, Z = cp.Variable((p.X.shape[1], M.shape[1])), cp.Variable((p.X.shape[1], M.shape[1]))
    E = np.where(M, 1.0, -1.0)
    fit = cp.sum_squares(cp.sum(cp.multiply(M, p.X @ (V - Z)), axis=1) - p.y) / 2
    norms = cp.sum(cp.norm(V, axis=0)) + cp.sum(cp.norm(Z, axis=0))
    cones = [cp.multiply(E, p.X @ V) >= 0, cp.multiply(E, p.X @ Z) >= 0]
    return float(cp.Problem(cp.Minimize(fit + p.beta * norms), cones).solve(solver="CLARABEL"))


def check_consistent(sol, X, y, beta, weight=1.0) -> None:
    """What holds for every solution, whatever its status."""
    assert np.isfinite([sol.objective, sol.lower_bound, sol.gap, sol.sampled.objective, sol.sampled.lower_bound]).all()
    assert sol.objective == pytest.approx(network_objective(sol.network, X, y, beta, weight), rel=1e-9, abs=1e-300)
    assert sol.lower_bound <= sol.objective
    assert sol.lower_bound <= sol.sampled.objective  # (N) is a relaxation of (S)
    assert sol.objective <= sol.sampled.objective * (1 + 1e-9)
    assert sol.sampled.lower_bound <= sol.sampled.objective * (1 + 1e-12)
    certificate = sol.certificate
    assert (certificate.kind, certificate.rigorous, certificate.starts) == ("relaxed", True, None)
    assert certificate.lower_bound == sol.lower_bound
    assert certificate.gap == sol.gap
    assert certificate.dual.shape == sol.sampled.dual.shape == np.shape(y)
    assert certificate.dual.dtype == np.float64


# -- the optimum ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("n", "d", "P"), [(200, 10, 50), (500, 10, 50), pytest.param(1000, 20, 100, marks=pytest.mark.slow)]
)
def test_sampled_program_against_clarabel(n, d, P):
    """One test for all that is compared with Clarabel, because its solution takes a minute at the largest size."""
    problem = planted(n, d, P)
    X, y, beta, (M, _) = problem
    optimum = clarabel_optimum(problem)
    sol = problem.solve()
    assert sol.status is Status.OPTIMAL
    assert sol.success
    sampled = sol.sampled
    assert optimum * (1 - 1e-3) <= sampled.lower_bound <= optimum * (1 + 1e-6)
    assert optimum * (1 - 1e-9) <= sampled.objective <= optimum * (1 + 1e-3)
    assert sampled.gap == pytest.approx((sampled.objective - sampled.lower_bound) / sampled.objective)
    assert sampled.gap <= 1e-3
    # the blocks give the reported objective and lie in their cones
    assert sampled.blocks.shape == (2, d, M.shape[1])
    assert sampled.objective == pytest.approx(dense_objective(X, y, M, sampled.blocks, beta), rel=1e-9)
    slack = np.where(M, 1.0, -1.0) * (X @ sampled.blocks)
    scale = np.linalg.norm(X, axis=1)[:, None] * np.linalg.norm(sampled.blocks, axis=1)[:, None, :]
    assert (slack >= -1e-9 * scale).all()
    # the network of the same blocks would predict the same; the one that is returned is at least as good
    check_consistent(sol, X, y, beta)
    assert sol.lower_bound > 0


def test_patterns_and_gates_are_reported():
    sol = SMALL.solve(patterns=40, seed=3)
    M, gates = cvxrelu.sample_patterns(SMALL.X, 40, seed=3)
    assert np.array_equal(sol.sampled.patterns, M)
    assert np.array_equal(sol.sampled.gates, gates)
    assert sol.sampled.n_requested == 40
    by_mask = SMALL.solve(patterns=np.repeat(M, 2, axis=1))
    assert by_mask.sampled.gates is None
    assert by_mask.sampled.n_requested == 2 * M.shape[1]
    assert by_mask.sampled.objective == sol.sampled.objective
    assert SMALL.solve(patterns=gates).sampled.objective == sol.sampled.objective
    assert SMALL.solve(patterns=(M, gates), check_patterns=True).sampled.objective == sol.sampled.objective


def test_more_patterns_can_only_help():
    gates = cvxrelu.sample_patterns(SMALL.X, 60).gates
    few, some, many = (SMALL.solve(patterns=gates[:, :P]).sampled for P in (5, 20, 60))
    assert many.lower_bound <= some.objective
    assert some.lower_bound <= few.objective
    assert many.objective < few.objective


# -- outputs, weights, intercept ------------------------------------------------------------------------------------
@pytest.mark.parametrize("outputs", [0, 1, 3])
def test_shapes_follow_the_targets(outputs):
    X, y, beta, patterns = planted(50, 4, 10, c=outputs)
    sol = solve(X, y, beta=beta, patterns=patterns)
    tail = (outputs,) if outputs else ()
    P = patterns.patterns.shape[1]
    assert sol.status is Status.OPTIMAL
    assert sol.sampled.blocks.shape == (2, 4, P, *tail)
    assert sol.sampled.dual.shape == sol.certificate.dual.shape == y.shape
    assert sol.network.predict(X).reshape(50, -1).shape == (50, max(1, outputs))
    assert sol.network.n_outputs == max(1, outputs)
    assert sol.sampled.objective == pytest.approx(dense_objective(X, y, patterns.patterns, sol.sampled.blocks, beta))
    if outputs == 1:
        assert sol.objective == solve(X, y[:, 0], beta=beta, patterns=patterns).objective
    else:
        assert sol.network.predict(X).shape == y.shape
        check_consistent(sol, X, y, beta)


def test_one_column_target_predicts_one_column():
    X, y, beta, patterns = planted(50, 4, 10, c=1)
    sol = solve(X, y, beta=beta, patterns=patterns)
    assert sol.network.predict(X).shape == (50, 1)
    check_consistent(sol, X, y, beta)


def test_outputs_separate_in_the_sampled_program():
    X, y, beta, patterns = planted(50, 4, 10, c=3)
    joint = solve(X, y, beta=beta, patterns=patterns, tol=1e-5).sampled
    single = [solve(X, column, beta=beta, patterns=patterns, tol=1e-5).sampled for column in y.T]
    assert joint.objective == pytest.approx(sum(s.objective for s in single), rel=3e-5)
    assert joint.lower_bound == pytest.approx(sum(s.lower_bound for s in single), rel=3e-5)


def test_integer_weights_are_repeated_rows():
    X, y, beta, (M, gates) = SMALL
    weight = np.random.default_rng(1).integers(1, 4, len(X))
    weighted = solve(X, y, beta=beta, patterns=gates, sample_weight=weight, tol=1e-5)
    repeated = solve(np.repeat(X, weight, axis=0), np.repeat(y, weight), beta=beta, patterns=gates, tol=1e-5)
    assert weighted.sampled.objective == pytest.approx(repeated.sampled.objective, rel=2e-5)
    assert weighted.sampled.lower_bound == pytest.approx(repeated.sampled.lower_bound, rel=2e-5)
    assert weighted.sampled.objective == pytest.approx(dense_objective(X, y, M, weighted.sampled.blocks, beta, weight))
    check_consistent(weighted, X, y, beta, weight)


@pytest.mark.parametrize("solver", ["direct", "cg"])
def test_weight_zero_drops_the_loss_of_a_row_but_not_its_cone(solver):
    X, y, beta, patterns = SMALL
    weight = np.ones(len(X))
    weight[::3] = 0.0
    other = np.where(weight > 0, y, 1e3)
    options = {"beta": beta, "patterns": patterns, "sample_weight": weight, "linear_solver": solver, "tol": 1e-5}
    sol = solve(X, y, **options)
    assert sol.status is Status.OPTIMAL
    assert solve(X, other, **options).sampled.objective == pytest.approx(sol.sampled.objective, rel=2e-5)
    check_consistent(sol, X, y, beta, weight)
    assert (np.where(patterns.patterns, 1, -1) * (X @ sol.sampled.blocks) >= -1e-9).all()


def test_intercept_is_a_column_of_ones():
    X, y, beta, _ = SMALL
    ones = np.hstack([X, np.ones((len(X), 1))])
    patterns = cvxrelu.sample_patterns(ones, 15, 0)
    inside = solve(X, y, beta=beta, patterns=patterns, intercept=True)
    outside = solve(ones, y, beta=beta, patterns=patterns)
    assert inside.objective == outside.objective
    assert inside.lower_bound == outside.lower_bound
    assert np.array_equal(inside.sampled.blocks, outside.sampled.blocks)
    assert np.array_equal(
        np.vstack([inside.network.first_layer, inside.network.hidden_bias]), outside.network.first_layer
    )
    np.testing.assert_allclose(inside.network.predict(X), outside.network.predict(ones), rtol=0, atol=1e-12)
    assert inside.settings["d"] == 4
    check_consistent(inside, X, y, beta)
    drawn = solve(X, y, beta=beta, patterns=15, intercept=True)
    assert drawn.objective == inside.objective


# -- options --------------------------------------------------------------------------------------------------------
def test_rho_is_the_start_value():
    default, given = SMALL.solve(tol=1e-5), SMALL.solve(rho=7.0, tol=1e-5)
    assert given.history[0]["rho_copy"] == given.history[0]["rho_cone"] == 7.0
    assert default.history[0]["rho_copy"] != 7.0
    assert given.sampled.objective == pytest.approx(default.sampled.objective, rel=2e-5)
    last = given.history[-1]
    assert given.sampled.rho == (last["rho_copy"], last["rho_cone"])


def test_admms_own_multipliers_prove_the_bound(monkeypatch):
    """Near the optimum they do without the projections that tighten the bound earlier."""
    monkeypatch.setattr("cvxrelu.sampled.bounds.tighten", lambda X, patterns, dual, norms, *_, **__: norms)
    sol = SMALL.solve(max_iter=3000)
    assert sol.status is Status.OPTIMAL
    assert sol.sampled.lower_bound <= SMALL.solve(tol=1e-5).sampled.objective


def test_automatic_penalties_do_not_see_units():
    X, y, beta, patterns = SMALL
    plain = solve(X, y, beta=beta, patterns=patterns)
    scaled = solve(1024 * X, y / 32, beta=beta * 32, patterns=patterns)
    assert scaled.n_iter == plain.n_iter
    assert scaled.sampled.gap == pytest.approx(plain.sampled.gap, rel=1e-6)


@pytest.mark.parametrize(("n", "P", "direct"), [(40, 20, "gram"), (60, 8, "primal")])
@pytest.mark.parametrize("weighted", [False, True])
def test_linear_solvers_agree(n, P, direct, weighted):
    X, y, beta, patterns = planted(n, 5, P, seed=1)
    weight = np.random.default_rng(0).uniform(0.1, 3, n) if weighted else None
    options = {"beta": beta, "patterns": patterns, "sample_weight": weight, "tol": 1e-5}
    by_factor, by_cg, auto = (solve(X, y, linear_solver=s, **options) for s in ("direct", "cg", "auto"))
    assert by_factor.settings["linear_solver"] == auto.settings["linear_solver"] == direct
    assert by_cg.settings["linear_solver"] == "cg"
    assert by_cg.status is by_factor.status is Status.OPTIMAL
    assert by_cg.sampled.objective == pytest.approx(by_factor.sampled.objective, rel=2e-5)
    assert auto.objective == by_factor.objective


def test_direct_says_how_much_memory_it_lacks(monkeypatch):
    monkeypatch.setattr(preparation, "machine_memory", lambda: 1e4)
    with pytest.raises(ValueError, match=r"linear_solver='direct' needs about .*iB .*; use 'cg' or 'auto'"):
        SMALL.solve(linear_solver="direct")
    assert SMALL.solve().settings["linear_solver"] == "cg"


@pytest.mark.parametrize("of_data", [True, False])
def test_float32(of_data):
    X, y, beta, patterns = SMALL
    exact = SMALL.solve(tol=1e-6).sampled
    if of_data:
        X, y = X.astype(np.float32), y.astype(np.float32)
        sol = solve(X, y, beta=beta, patterns=patterns)
    else:
        sol = SMALL.solve(dtype="float32")
    assert sol.dtype == "float32"
    assert sol.status is Status.OPTIMAL
    assert sol.sampled.objective == pytest.approx(exact.objective, rel=1e-3)
    assert sol.sampled.lower_bound <= exact.objective * (1 + 1e-6)
    assert sol.network.first_layer.dtype == sol.sampled.blocks.dtype == np.float64
    check_consistent(sol, X.astype(np.float64), y.astype(np.float64), beta)
    assert solve(X, y, beta=beta, patterns=patterns, dtype=np.float64).dtype == "float64"


def test_integers_are_float64():
    X = np.arange(24).reshape(12, 2) % 7
    y = np.arange(12) % 5
    sol = solve(X, y, beta=1, patterns=6)
    assert sol.dtype == "float64"
    assert sol.objective == solve(X.tolist(), y.astype(float), beta=1.0, patterns=6).objective


def test_tiny_beta_stays_finite_and_bounded():
    sol = SMALL.solve(beta=1e-9 * SMALL.beta, max_iter=500)
    check_consistent(sol, SMALL.X, SMALL.y, 1e-9 * SMALL.beta)
    assert sol.network.n_neurons > 0
    assert sol.objective < 0.5 * SMALL.y @ SMALL.y


@pytest.mark.parametrize("outputs", [0, 3])
@pytest.mark.parametrize("factor", [1.0001, 1.1, 1e6])
def test_from_beta_max_on_zero_is_optimal(factor, outputs):
    """At the beta_max of (S) a network may still beat zero, for its neurons need not stay in the sampled cones."""
    X, y, _, patterns = planted(50, 4, 10, c=outputs)
    sol = solve(X, y, beta=factor * cvxrelu.beta_max(X, y, patterns=patterns), patterns=patterns)
    assert sol.status is Status.OPTIMAL
    assert not sol.sampled.blocks.any()
    assert sol.sampled.objective == pytest.approx(0.5 * np.sum(y**2))
    assert sol.objective <= sol.sampled.objective
    if factor == 1e6:
        assert sol.network.n_neurons == 0
        assert np.array_equal(sol.network.predict(X), np.zeros_like(y))
        assert sol.gap <= 1e-10


# -- ends -----------------------------------------------------------------------------------------------------------
def test_max_iter():
    one = SMALL.solve(max_iter=1, **HARD)
    assert one.status is Status.MAX_ITER
    assert one.n_iter == 1
    assert not one.success
    assert "raise max_iter" in one.message
    assert len(one.history) == 1
    check_consistent(one, SMALL.X, SMALL.y, SMALL.beta)
    exact = SMALL.solve(max_iter=37, **HARD)
    assert exact.n_iter == 37
    assert exact.sampled.gap < one.sampled.gap


def test_time_limit_is_kept_within_one_chunk():
    sol = SMALL.solve(time_limit=1e-9, **HARD)
    assert sol.status is Status.TIME_LIMIT
    assert sol.n_iter <= 25
    assert len(sol.history) == 1
    assert "raise time_limit" in sol.message
    check_consistent(sol, SMALL.X, SMALL.y, SMALL.beta)
    large = planted(400, 10, 60)  # the small one may well reach even this tolerance in a third of a second
    half = large.solve(time_limit=0.3, max_iter=10**7, **HARD)
    assert half.status is Status.TIME_LIMIT and half.n_iter > 25


def test_callback_sees_the_records_and_can_stop():
    seen = []
    sol = SMALL.solve(callback=lambda record: seen.append(record) or len(seen) == 3, **HARD)
    assert sol.status is Status.INTERRUPTED
    assert not sol.success
    assert "stopped" in sol.message
    assert seen == list(sol.history)
    assert len(seen) == 3
    assert seen[-1]["iteration"] == sol.n_iter
    check_consistent(sol, SMALL.X, SMALL.y, SMALL.beta)
    quiet = SMALL.solve(callback=lambda record: None)
    assert quiet.status is Status.OPTIMAL
    assert quiet.objective == SMALL.solve().objective


def test_error_in_a_callback_is_the_users():
    def fail(record):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        SMALL.solve(callback=fail)


def test_interrupt_returns_the_best_so_far():
    def interrupt(record):
        if record["iteration"] > 30:
            raise KeyboardInterrupt

    sol = SMALL.solve(callback=interrupt, **HARD)
    assert sol.status is Status.INTERRUPTED
    assert "stopped by the user" in sol.message
    assert sol.network.n_neurons > 0
    check_consistent(sol, SMALL.X, SMALL.y, SMALL.beta)


def test_interrupt_of_the_first_chunk_returns_the_zero_network(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(admm, "run_chunk", interrupt)
    sol = SMALL.solve(**HARD)
    assert sol.status is Status.INTERRUPTED
    assert sol.network.n_neurons == 0
    assert len(sol.history) == 0
    check_consistent(sol, SMALL.X, SMALL.y, SMALL.beta)
    assert "interrupted" in sol.summary()


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent the POSIX way")
def test_sigint(root):
    script = """if True:
        import signal, numpy as np, cvxrelu
        signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background inherit that it is ignored
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((300, 8)), rng.standard_normal(300)
        options = dict(patterns=40, tol=1e-14, max_iter=10**8, backend="numpy", verbose=True, refine=False)
        sol = cvxrelu.solve(X, y, beta=3.0, **options)
        print(sol.status, sol.network.n_neurons > 0, bool(np.isfinite(sol.network.predict(X)).all()))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
    )
    try:
        for _ in range(4):  # header and three rows: it is iterating
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert err == ""
    assert out.splitlines()[-1] == "interrupted True True"


def test_iterates_that_are_not_finite_end_with_the_best_network(monkeypatch):
    sound = SampledStage._check
    checks = []

    def broken(self, report):
        check, values = sound(self, report)
        checks.append(values)
        return check, values * (np.nan if len(checks) == 4 else 1.0)

    monkeypatch.setattr(SampledStage, "_check", broken)
    sol = SMALL.solve(**HARD)
    assert sol.status is Status.NUMERICAL_ERROR
    assert "standardise" in sol.message
    check_consistent(sol, SMALL.X, SMALL.y, SMALL.beta)


# -- what is told ---------------------------------------------------------------------------------------------------
COLUMNS = [
    "iteration", "time", "objective", "lower_bound", "gap", "n_neurons", "sampled_objective", "sampled_lower_bound",
    "sampled_gap", "primal_copy", "dual_copy", "primal_cone", "dual_cone", "rho_copy", "rho_cone",
]  # fmt: skip


def test_history_only_improves():
    sol = SMALL.solve(tol=1e-6)
    history = sol.history
    assert history.columns == COLUMNS
    assert "iteration" in repr(history)
    assert history["iteration"][-1] == sol.n_iter
    assert (np.diff(history["iteration"]) > 0).all()
    assert (np.diff(history["time"]) >= 0).all()
    for name, sign in (("objective", -1), ("sampled_objective", -1), ("lower_bound", 1)):
        assert (sign * np.diff(history[name]) >= 0).all(), name
    assert history["sampled_gap"][-1] <= 1e-6
    assert history[-1]["sampled_objective"] == sol.sampled.objective
    assert history[-1]["objective"] == pytest.approx(sol.objective, rel=1e-12)
    assert {name: history[-1][name] for name in sol.sampled.residuals} == sol.sampled.residuals
    with pytest.raises(KeyError, match="no column 'gaps'; there are iteration"):
        history["gaps"]


def test_words_name_the_kinds():
    sol = SMALL.solve()
    assert "sampled program: gap" in sol.message
    assert "network program: gap" in sol.message
    assert "relaxed bound, rigorous" in sol.message
    summary = sol.summary()
    for fact in ("optimal", "n = 60, d = 4", "relaxed (rigorous)", "distinct patterns of", "numpy", "float64", "total"):
        assert fact in summary, fact
    assert repr(sol).startswith("Solution(status='optimal', sampled_gap=")
    assert "certificate='relaxed'" in repr(sol)
    assert "\n" not in sol.message + repr(sol)
    assert sum(sol.timings[name] for name in sol.timings if name != "total") <= sol.timings["total"] * 1.01 + 1e-3
    assert sol.network.metadata["settings"]["beta"] == SMALL.beta
    assert sol.network.metadata["status"] == "optimal"
    assert all(status.advice for status in Status)


def test_verbose_prints_a_table_and_silence_is_the_default(capfd):
    quiet = SMALL.solve()
    assert capfd.readouterr() == ("", "")
    loud = SMALL.solve(verbose=True)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0].split()[0] == "iter"
    assert len(lines) == len(loud.history) + 2
    assert [int(line.split()[0]) for line in lines[1:-1]] == loud.history["iteration"].tolist()
    assert lines[-1] == f"optimal: {loud.message}"
    assert loud.objective == quiet.objective


def test_seed_reproduces_exactly():
    first, second = (SMALL.solve(patterns=20, seed=5) for _ in range(2))
    assert first.objective == second.objective
    assert first.lower_bound == second.lower_bound
    assert np.array_equal(first.sampled.blocks, second.sampled.blocks)
    assert first.network.allclose(second.network)
    assert first.n_iter == second.n_iter
    assert SMALL.solve(patterns=20, seed=6).objective != first.objective


def test_network_survives_the_disk(tmp_path):
    network = SMALL.solve().network
    network.save(tmp_path / "network.safetensors")
    assert cvxrelu.ReLUNetwork.load(tmp_path / "network.safetensors").allclose(network)


def test_a_system_that_cannot_be_inverted_ends_in_a_status():
    """A penalty far below the precision: the zero network comes back, with the reason, and no exception."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)).astype(np.float32), rng.standard_normal(40)
    sol = solve(X, y, beta=0.1, rho=1e-9, patterns=20, backend="numpy", linear_solver="direct")
    assert sol.status is cvxrelu.Status.NUMERICAL_ERROR
    assert sol.lower_bound <= sol.objective <= 0.5 * float(y @ y)


def test_the_callback_cannot_change_the_history():
    X, y = np.eye(3), np.array([1.0, 2.0, 3.0])
    sol = solve(X, y, beta=0.1, patterns=4, max_iter=5, backend="numpy", callback=lambda record: record.clear())
    assert sol.history[-1]["iteration"] > 0
