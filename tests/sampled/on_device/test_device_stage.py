"""The sampled stage on an accelerator: Newton with its products there, for every loss, stopped and resumed, to proof.

The accelerator is NumPy, or JAX on a CPU, that says it is one.
"""

import contextlib
import importlib.util

import cupy_stand_in
import numpy as np
import pytest

import cvxrelu
from cvxrelu.backends.choose import check_backend, get_backend
from cvxrelu.backends.jax import JaxBackend
from cvxrelu.backends.numpy import NumpyBackend
from cvxrelu.program.problem import build_problem
from cvxrelu.runs.checkpoint import Checkpoint
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.status import Status
from cvxrelu.sampled import newton_stage
from cvxrelu.sampled.on_device.newton import DeviceNewton
from cvxrelu.sampled.semismooth import SampledNewton
from cvxrelu.sampled.stage import SampledStage

RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 6))
Y = np.maximum(X[:, :1], 0) - np.maximum(X[:, 1:3], 0) + 0.1 * RNG.standard_normal((90, 2))
LABELS = np.argmax(Y @ RNG.standard_normal((2, 3)), axis=1)
PAIRS = RNG.integers(90, size=(70, 2))
GATES = RNG.standard_normal((6, 12))
CASES = {
    "squared": {"y": Y[:, 0], "beta": 0.5},
    "two outputs": {"y": Y, "beta": 0.5},
    "weights": {"y": Y[:, 0], "beta": 0.5, "sample_weight": RNG.choice([0.0, 1.0, 2.0], 90)},
    "free bias": {"y": Y[:, 0] + 3.0, "beta": 0.5, "skip": "bias"},
    "pairs": {"y": None, "beta": 0.05, "loss": "logistic", "pairs": PAIRS[PAIRS[:, 0] != PAIRS[:, 1]]},
    "logistic": {"y": np.sign(Y[:, 0]), "beta": 0.3, "loss": "logistic", "margin": 0.1},
    "multinomial": {"y": LABELS, "beta": 0.3, "loss": "multinomial"},
    "skip": {"y": LABELS, "beta": 0.3, "loss": "multinomial", "skip": "linear", "skip_l2": 0.5},
}


class Accelerator(NumpyBackend):
    is_accelerator = True
    device = "a stand-in"


@pytest.fixture(autouse=True)
def small_problems_too(monkeypatch):
    monkeypatch.setattr(newton_stage, "LEAST_FLOPS", 0.0)


@pytest.fixture
def ran(monkeypatch):
    """Notes every run of Newton with its products on the device."""
    noted, run = [], DeviceNewton.run
    monkeypatch.setattr(DeviceNewton, "run", lambda solver, *given: noted.append(solver) or run(solver, *given))
    return noted


def solved(backend, case, X=X, tol=1e-6, gates=GATES, **options):
    problem = build_problem(X, patterns=gates, **case)
    settings = Settings.read(tol=tol, **options)
    with backend.scope():
        return SampledStage(problem, backend, settings).run()


@pytest.mark.parametrize("name", CASES)
def test_every_loss_has_the_optimum_of_the_host(name, ran):
    here, there = (solved(backend, CASES[name]) for backend in (NumpyBackend(), Accelerator()))
    assert len(ran) >= 1 and here.success and there.success
    assert there.sampled.gap <= 1e-6
    assert there.sampled.lower_bound <= here.sampled.objective * (1 + 1e-12)
    assert here.sampled.lower_bound <= there.sampled.objective * (1 + 1e-12)
    assert there.lower_bound <= here.objective * (1 + 1e-12)
    assert there.n_iter == there.history[-1]["iteration"] > 0 and there.device == "a stand-in"


@pytest.mark.parametrize("name", ["squared", "pairs", "skip"])
def test_by_jax(name, ran, monkeypatch):
    monkeypatch.setattr(JaxBackend, "is_accelerator", True)
    case = {**CASES[name]}
    sol = cvxrelu.solve(X, case.pop("y"), **case, patterns=GATES, refine=False, backend="jax", tol=1e-6)
    expected = solved(NumpyBackend(), CASES[name])
    assert len(ran) == 1 and sol.success and sol.backend == "jax"
    assert sol.sampled.lower_bound <= expected.sampled.objective * (1 + 1e-12)
    assert expected.sampled.lower_bound <= sol.sampled.objective * (1 + 1e-12)


def test_more_columns_than_rows(ran):
    """In row space, whose rows go to the device."""
    wide = np.random.default_rng(1).standard_normal((20, 50))
    gates = np.random.default_rng(2).standard_normal((50, 9))
    case = {"y": wide[:, 0], "beta": 0.3}
    here, there = (solved(backend, case, wide, gates=gates) for backend in (NumpyBackend(), Accelerator()))
    assert len(ran) == 1 and there.success
    assert abs(there.sampled.objective / here.sampled.objective - 1.0) <= 2e-6


@pytest.mark.parametrize("option", [{"max_iter": 50}, {"rho": 1.0}, {"linear_solver": "direct"}])
def test_who_speaks_of_admm_gets_it(option, ran):
    assert not ran and solved(Accelerator(), CASES["squared"], tol=0.3, **option).n_iter > 0 and not ran


def test_float32_problems_are_solved_in_float64(ran):
    sol = solved(Accelerator(), {"y": Y[:, 0].astype(np.float32), "beta": 0.5}, X.astype(np.float32), 1e-8)
    assert sol.success and sol.sampled.gap <= 1e-8 and len(ran) == 1


def test_stopped_and_resumed(tmp_path, ran, monkeypatch):
    """What is taken up ends where the run that was not stopped does."""
    monkeypatch.setattr("cvxrelu.runs.checkpoint.INTERVAL", 0.0)
    monkeypatch.setattr("cvxrelu.runs.checkpoint.SHARE", 1e9)
    problem = build_problem(X, patterns=GATES, **CASES["two outputs"])

    def run(stop=None, folder=None):
        seen = []
        settings = Settings.read(tol=1e-8, callback=lambda row: seen.append(row) or len(seen) == stop)
        saves = None if folder is None else Checkpoint(folder, {}, {})
        return SampledStage(problem, Accelerator(), settings, checkpoint=saves).run()

    whole = run()
    assert run(3, tmp_path).status is Status.INTERRUPTED
    # The interrupt is an end of its own: take away what says so, as a kill would have.
    again = run(None, tmp_path)
    assert whole.success and again.success
    assert again.sampled.objective == pytest.approx(whole.sampled.objective, rel=1e-8)


def test_a_time_limit_is_kept(ran):
    sol = solved(Accelerator(), CASES["squared"], tol=1e-12, time_limit=1e-9)
    assert sol.status is Status.TIME_LIMIT and sol.sampled.lower_bound <= sol.sampled.objective


def test_optima_use_few_patterns_and_reports_hold_no_more(ran):
    """The incumbent's points are those of all blocks, although only the used ones are multiplied."""
    sol = solved(Accelerator(), CASES["two outputs"])
    blocks, patterns = sol.sampled.blocks, sol.sampled.patterns
    V, Z = blocks
    prediction = np.einsum("np,nd,dpc->nc", patterns, X, V - Z)
    objective = 0.5 * np.sum((prediction - Y) ** 2) + 0.5 * np.linalg.norm(blocks, axis=1).sum()
    assert sol.sampled.objective == pytest.approx(objective, rel=1e-10)
    assert 0 < np.any(blocks, axis=(0, 1, 3)).sum() <= patterns.shape[1]


def test_blocks_outside_of_their_cones_are_repaired_before_they_count():
    problem = build_problem(X, patterns=GATES, **CASES["squared"])
    stage = SampledStage(problem, NumpyBackend(), Settings.read(tol=1e-6))
    stage._set_up()
    newton = newton_stage._NewtonStage(stage)
    solver = SampledNewton(X, problem.patterns.patterns, GATES, problem.loss, beta=0.5, tol=1e-2)
    assert solver.run(lambda: False)
    largest = int(np.argmax(np.linalg.norm(solver.blocks, axis=0)))
    pattern = problem.patterns.patterns[:, largest % 12]
    solver.blocks = solver.blocks.copy()
    solver.blocks[:, largest] *= 1.0 + 0.3 * np.random.default_rng(8).standard_normal(6)
    assert (np.where(pattern, 1.0, -1.0) * (X @ solver.blocks[:, largest])).min() < -1e-3
    newton._report(slice(0, 1), solver)
    kept = stage.best.sampled_blocks[:, largest // 12, 0, largest % 12]
    assert np.linalg.norm(kept) > 0
    assert (np.where(pattern, 1.0, -1.0) * (X @ kept)).min() >= -1e-9


@pytest.mark.parametrize("name", ["squared", "pairs", "skip"])
def test_by_cupy(name, ran):
    """CuPy's stand-in refuses implicit conversion and host indices; where CuPy is, it is CuPy itself."""
    if importlib.util.find_spec("cupy") and not check_backend("cupy").available:
        pytest.skip("CuPy is installed and cannot be used")
    installed = contextlib.nullcontext() if importlib.util.find_spec("cupy") else cupy_stand_in.installed()
    with installed:
        sol = solved(get_backend("cupy"), CASES[name])
        expected = solved(NumpyBackend(), CASES[name])
    assert len(ran) == 1 and sol.success and sol.backend == "cupy"
    assert sol.sampled.lower_bound <= expected.sampled.objective * (1 + 1e-12)
    assert expected.sampled.lower_bound <= sol.sampled.objective * (1 + 1e-12)
