"""The sampled stage by Newton: the same contract as by ADMM, and ADMM where it is asked for or has to help out."""

import numpy as np
import pytest
from oracles import Problem, infeasibility, sampled_objective, solve_sampled

import cvxrelu
from cvxrelu import sample_patterns, solve
from cvxrelu.program.losses import Squared
from cvxrelu.runs.status import Status
from cvxrelu.sampled import newton_stage
from cvxrelu.sampled.semismooth import SampledNewton

OPTIONS = {"refine": False, "certificate": "relaxed", "backend": "numpy"}


@pytest.fixture(autouse=True)
def small_problems_too(monkeypatch):
    monkeypatch.setattr(newton_stage, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(newton_stage, "ROWS", 0.0)
    monkeypatch.setattr(newton_stage, "FREEDOM", np.inf)


def problem(c=1, n=60, d=4, P=10, seed=0, weights=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ rng.standard_normal((3, c)) + 0.1 * rng.standard_normal((n, c))
    weight = rng.choice([0.0, 0.5, 1.0], size=(n, 1)) if weights else np.ones((n, 1))
    patterns, gates = sample_patterns(X, P, 0)
    return Problem(X, y, weight, patterns, 0.05 * np.linalg.norm(X.T @ (patterns * y[:, :1]), axis=0).max()), gates


def run(p, patterns, **options):
    y = p.y[:, 0] if p.y.shape[1] == 1 else p.y
    return solve(
        p.X, y, beta=p.beta, patterns=patterns, sample_weight=p.weight[:, 0], **{"tol": 1e-7, **OPTIONS, **options}
    )


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_optimum_of_clarabel(c, gated, dtype):
    p, gates = problem(c, weights=True)
    optimum = solve_sampled(p)[0]
    sol = run(p, gates if gated else p.patterns, dtype=dtype)
    sampled = sol.sampled
    assert sol.status is Status.OPTIMAL and sol.success and sampled.gap <= 1e-7 and sol.dtype == dtype
    assert sol.settings["linear_solver"] == "newton"
    assert sampled.objective == pytest.approx(optimum, rel=1e-6)
    assert sampled.lower_bound <= optimum * (1 + 1e-7)
    U = np.moveaxis(sampled.blocks.reshape(2, 4, -1, c), (0, 1, 2, 3), (1, 0, 3, 2))
    assert sampled_objective(p, U) == pytest.approx(sampled.objective, rel=1e-9)
    assert infeasibility(p, U) <= 1e-9 * np.abs(U).max()
    prediction = sol.network.predict(p.X).reshape(-1, c)
    direct = 0.5 * np.sum(p.weight * (prediction - p.y) ** 2) + p.beta * sol.network.path_norm
    assert sol.objective == pytest.approx(direct, rel=1e-12) and sol.objective <= sampled.objective * (1 + 1e-9)
    # the dual returned proves the bound
    ratio = np.divide(sampled.dual.reshape(-1, c) ** 2, p.weight, out=np.zeros((60, c)), where=p.weight > 0)
    assert np.sum(sampled.dual.reshape(-1, c) * p.y) - 0.5 * ratio.sum() == pytest.approx(sampled.lower_bound, rel=1e-9)


@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("far", [0.0, 1e4])
def test_more_columns_than_rows(c, gated, far):
    """In row space, with blocks and bounds that speak of all columns."""
    p, gates = problem(c, n=12, d=40)
    p = Problem(p.X + far, p.y, p.weight, sample_patterns(p.X + far, 10, 0)[0], p.beta * (1 + far) ** 0.5)
    gates = sample_patterns(p.X, 10, 0)[1]
    optimum = solve_sampled(p)[0]
    sol = run(p, gates if gated else p.patterns, tol=1e-6)
    assert sol.settings["linear_solver"] == "newton" and sol.sampled.gap <= 1e-6
    assert sol.sampled.objective == pytest.approx(optimum, rel=1e-5)
    assert sol.sampled.lower_bound <= optimum * (1 + 1e-6)
    U = np.moveaxis(sol.sampled.blocks.reshape(2, 40, -1, c), (0, 1, 2, 3), (1, 0, 3, 2))
    assert sampled_objective(p, U) == pytest.approx(sol.sampled.objective, rel=1e-9)
    assert infeasibility(p, U) <= 1e-8 * np.abs(U).max() * (1 + far)
    inside = np.linalg.lstsq(p.X, p.X @ sol.network.first_layer)[0]  # no neuron has a part that no row sees
    np.testing.assert_allclose(inside, sol.network.first_layer, atol=1e-8 * np.abs(sol.network.first_layer).max())


@pytest.mark.parametrize("began", ["in row space", "in the coordinates of X"])
def test_a_stopped_run_of_more_columns_than_rows_goes_on(began, tmp_path, monkeypatch):
    """Also where its checkpoint is older than row space."""
    p, gates = problem(n=12, d=40)
    with monkeypatch.context() as patch:
        if began != "in row space":
            patch.setattr(newton_stage, "row_space", lambda X: None)
        whole, seen = run(p, gates), []
        stopped = run(p, gates, checkpoint=tmp_path / "run", callback=lambda record: seen.append(1) or len(seen) == 3)
    assert stopped.status is Status.INTERRUPTED
    resumed = run(p, gates, checkpoint=tmp_path / "run")
    assert resumed.status is Status.OPTIMAL and resumed.n_iter == whole.n_iter
    np.testing.assert_array_equal(resumed.sampled.blocks, whole.sampled.blocks)


def test_the_bound_allows_for_what_the_rows_may_be_off():
    p, gates = problem()
    bounds = []
    for unseen in (0.0, 1e-6):
        solver = SampledNewton(
            p.X, p.patterns, gates, Squared(p.y, p.weight), beta=p.beta, tol=1e-7, unseen=unseen
        )  # fmt: skip
        solver.run(lambda: False)
        bounds.append(solver.lower_bound)
    assert bounds[1] < bounds[0] * (1 - 1e-7)


def test_newton_and_admm_agree():
    p, gates = problem()
    newton, admm = run(p, gates), run(p, gates, tol=1e-5, linear_solver="direct")
    assert admm.settings["linear_solver"] == "primal" and newton.n_iter < admm.n_iter
    assert admm.sampled.objective == pytest.approx(newton.sampled.objective, rel=2e-5)
    assert admm.sampled.lower_bound <= newton.sampled.objective and newton.sampled.lower_bound <= admm.sampled.objective


@pytest.mark.parametrize("option", [{"rho": 1.0}, {"max_iter": 5000}, {"max_iter": 20_000}, {"linear_solver": "cg"}])
def test_who_speaks_of_admm_gets_it(option):
    p, gates = problem()
    assert run(p, gates, tol=1e-2, **option).settings["linear_solver"] != "newton"


def test_small_and_large_problems_keep_admm(monkeypatch):
    p, gates = problem()
    for name, value in (
        ("LEAST_FLOPS", 1e9), ("LARGEST_DIMENSION", 3), ("MEMORY", 10.0), ("ROWS", 60.0), ("FREEDOM", 0.01),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(newton_stage, name, value)
            assert run(p, gates, tol=1e-2).settings["linear_solver"] != "newton"


def test_a_smaller_gap_sends_fewer_rows_and_more_freedom_to_newton(monkeypatch):
    p, gates = problem()
    for name, value in (("ROWS", 30.0), ("FREEDOM", 0.2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(newton_stage, name, value)
            for tol in (1e-2, 1e-3):
                assert run(p, gates, tol=tol).settings["linear_solver"] != "newton"
            assert run(p, gates, tol=1e-6).settings["linear_solver"] == "newton"


def test_a_state_of_an_older_version_goes_on():
    """It holds t of one output and the squared loss where the prediction is now."""
    p, gates = problem(weights=True)
    loss, seen = Squared(p.y, p.weight), []
    one, other = (SampledNewton(p.X, p.patterns, gates, loss, beta=p.beta, tol=1e-7) for _ in range(2))
    one.run(lambda: len(seen) >= 2, lambda: seen.append(1))
    state, memory = one.state(), one.memory.state()
    U, a, *rest = state["position"]
    old = {
        **state,
        "dual": state["dual"][:, 0],
        "position": (U, loss.dual(a)[:, 0], *rest),
        "t": loss.dual(one.a)[:, 0],
    }
    del old["a"], old["skip"]
    other.restore(newton_stage._in_predictions(old, loss))
    other.memory.restore(memory)
    assert one.run(lambda: False) and other.run(lambda: False)
    assert other.objective == pytest.approx(one.objective, rel=1e-9) and other.steps == one.steps


@pytest.mark.parametrize("backend", ["numpy", "jax"])
@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
def test_other_losses_of_any_array_library(loss, backend):
    jnp = pytest.importorskip("jax.numpy") if backend == "jax" else np
    p, gates = problem()
    y = np.where(p.y[:, 0] > np.median(p.y), 1, 0 if loss == "multinomial" else -1)
    options = {"beta": 0.5, "patterns": gates, "loss": loss, "tol": 1e-6, "refine": False, "certificate": "relaxed"}
    sol = solve(jnp.asarray(p.X), jnp.asarray(y), **options)
    assert sol.status is Status.OPTIMAL and sol.sampled.gap <= 1e-6
    if backend == "numpy":
        again = solve(p.X, y, **options, dtype="float32")
        assert again.settings["linear_solver"] == "newton"
        assert again.sampled.objective == pytest.approx(sol.sampled.objective, rel=1e-5)


def test_a_loss_that_couples_outputs_stops_and_is_interrupted():
    p, gates = problem()
    y = np.digitize(p.y[:, 0], np.quantile(p.y, [0.3, 0.6]))
    options = {"beta": 0.2, "patterns": gates, "loss": "multinomial", "tol": 1e-7, **OPTIONS}
    stopped = solve(p.X, y, **options, callback=lambda record: True)
    assert stopped.status is Status.INTERRUPTED and len(stopped.history) == 1

    def interrupt(record):
        raise KeyboardInterrupt

    assert solve(p.X, y, **options, callback=interrupt).status is Status.INTERRUPTED
    assert solve(p.X, y, **options, time_limit=1e-9).status is Status.TIME_LIMIT
    one, two = solve(p.X, y, **options), solve(p.X, y, **options)
    np.testing.assert_array_equal(one.sampled.blocks, two.sampled.blocks)


def test_history_and_callback():
    p, gates = problem()
    seen = []
    sol = run(p, gates, callback=lambda record: seen.append(record))
    assert seen == list(sol.history) and seen[-1]["iteration"] == sol.n_iter
    gaps, bounds = sol.history["sampled_gap"], sol.history["sampled_lower_bound"]
    assert np.all(np.diff(gaps) <= 0) and np.all(np.diff(bounds) >= 0) and gaps[-1] == sol.sampled.gap
    assert sol.history["rho_copy"][-1] < sol.history["rho_copy"][0] and np.isfinite(sol.history["primal_copy"]).all()
    assert sol.timings["iterate"] > 0 and sol.sampled.rho[1] == 0.0
    stopped = run(p, gates, callback=lambda record: True)
    assert stopped.status is Status.INTERRUPTED and len(stopped.history) == 1
    assert stopped.sampled.lower_bound > 0 and stopped.sampled.objective >= sol.sampled.lower_bound


def test_interrupt_and_time_limit(monkeypatch):
    p, gates = problem(c=2)

    def interrupt(record):
        if record["iteration"] > 2:
            raise KeyboardInterrupt

    sol = run(p, gates, callback=interrupt)
    assert sol.status is Status.INTERRUPTED and sol.sampled.objective < 0.5 * np.sum(p.y**2)
    short = run(p, gates, time_limit=1e-9)
    assert short.status is Status.TIME_LIMIT and short.sampled.gap <= 1 and "raise time_limit" in short.message


def test_admm_goes_on_where_newton_ends_early(monkeypatch):
    p, gates = problem()
    monkeypatch.setattr(SampledNewton, "run", lambda self, report, save: report() and False)
    sol = run(p, gates, tol=1e-3)
    assert sol.status is Status.OPTIMAL and sol.settings["linear_solver"] == "primal" and sol.sampled.gap <= 1e-3


def test_beta_max_and_cones_that_are_zero():
    """Patterns that nothing realises do nothing; from beta_max on zero is optimal."""
    p, _ = problem()
    rng = np.random.default_rng(1)
    wild = np.concatenate([p.patterns, rng.random((60, 6)) < 0.5], axis=1)
    assert run(p, wild).sampled.objective == pytest.approx(run(p, p.patterns).sampled.objective, rel=1e-6)
    largest = cvxrelu.beta_max(p.X, p.y[:, 0], patterns=p.patterns)
    sol = run(p._replace(beta=1.0001 * largest), p.patterns)
    assert sol.status is Status.OPTIMAL and not sol.sampled.blocks.any()
    assert run(p._replace(beta=0.99 * largest), p.patterns).sampled.blocks.any()
