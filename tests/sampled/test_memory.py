"""Estimates are above what is measured, and not by far; what does not fit is done otherwise, or refused before work."""

import importlib
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import cvxrelu
from cvxrelu.program.problem import build_problem
from cvxrelu.runs.status import Status
from cvxrelu.sampled import memory, newton_stage
from cvxrelu.sampled import penalties as preparation
from cvxrelu.sampled import stage as sampled_stage
from cvxrelu.sampled.memory import Plan, Sizes, estimate_memory, plan, sizes_of
from cvxrelu.support import blocks as streaming

SOLVE = importlib.import_module("cvxrelu.api.prepared")
RNG = np.random.default_rng(0)
SAMPLED = {"refine": False, "certificate": "relaxed", "backend": "numpy", "max_iter": 3}


def data(n=400, d=6, c=1, dtype=np.float64):
    X = RNG.standard_normal((n, d))
    y = np.maximum(X @ RNG.standard_normal((d, 3)), 0) @ RNG.standard_normal((3, c))
    return X.astype(dtype), y[:, 0].astype(dtype) if c == 1 else y.astype(dtype)


@pytest.fixture
def without_proof(monkeypatch):
    """The proof of the network program's bound takes the time, not the memory."""
    monkeypatch.setattr(SOLVE.Prepared, "_certified", lambda _, solution, *given: solution)


@pytest.mark.parametrize(
    ("n", "d", "P", "c", "solver", "dtype"),
    [
        (3000, 6, 60, 1, "cg", "float64"),
        (3000, 6, 60, 1, "cg", "float32"),
        (1000, 6, 40, 3, "cg", "float64"),
        (1000, 6, 30, 1, "direct", "float64"),
        (900, 4, 300, 1, "direct", "float64"),
        (4000, 100, 4, 1, "cg", "float64"),
    ],
)
def test_numpy_peaks_are_below_the_estimate(n, d, P, c, solver, dtype, monkeypatch, without_proof):
    monkeypatch.setattr(memory, "WORKSPACE", 3e6)  # what is constant would hide the rest at this size
    monkeypatch.setattr("cvxrelu.sampled.bounds.PROJECTED", 1 << 15)
    monkeypatch.setattr(streaming, "CACHED", 1 << 14)
    X, y = data(n, d, c)
    cvxrelu.solve(X[:50], y[:50], beta=1.0, patterns=3, linear_solver="cg", **SAMPLED)  # imports
    tracemalloc.start()
    sol = cvxrelu.solve(X, y, beta=500.0, patterns=P, linear_solver=solver, dtype=dtype, **SAMPLED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    method = sol.settings["linear_solver"]
    assert (method == "cg") == (solver == "cg")
    estimate = estimate_memory(n, d, P, c, dtype=dtype, method=method)
    assert peak <= estimate.bytes <= FACTOR * peak, (peak, estimate)


FACTOR = 2.0  # by which an estimate may be above; it is never below


def test_jax_is_below_its_estimate():
    jax = pytest.importorskip("jax")
    from cvxrelu.backends.choose import get_backend
    from cvxrelu.runs.settings import Settings
    from cvxrelu.sampled import admm

    X, y = data(1500, 8)
    problem, backend = build_problem(X, y, beta=50.0, patterns=100), get_backend("jax")
    with backend.scope():
        settings = Settings.read(rho=None, tol=1e-3, max_iter=5, time_limit=None, linear_solver="cg")
        stage = sampled_stage.SampledStage(problem, backend, settings)
        stage._set_up()
        stage._set_up_admm()
        chunk = jax.jit(admm.run_chunk, static_argnums=0, donate_argnames=("state",))
        parts = (stage.data, stage.system, stage.rho, stage.iterate)
        found = chunk.lower(backend, *parts, 5).compile().memory_analysis()
    given_back = found.alias_size_in_bytes  # the old state, whose memory the new one takes
    assert given_back >= estimate_memory(*problem.shape).parts["slack"] / memory.SLACKS["numpy"]
    peak = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - given_back
    estimate = estimate_memory(*problem.shape, method="cg", backend="jax").bytes - memory.WORKSPACE
    assert peak <= estimate <= 2.0 * peak


def test_estimates_grow_with_everything():
    sizes = {"n": 1000, "d": 20, "P": 50, "c": 2}
    for method in ("gram", "primal", "cg", "newton", "streamed", "refinement"):
        small = estimate_memory(**sizes, method=method).bytes
        for name in sizes:
            assert estimate_memory(**{**sizes, name: 10 * sizes[name]}, method=method).bytes >= small
    assert estimate_memory(**sizes, method="cg", dtype="float32").bytes < estimate_memory(**sizes, method="cg").bytes


PAIRS = np.stack([np.arange(100), np.arange(100, 200)], axis=1)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"intercept": True},
        {"dtype": "float32"},
        {"y": RNG.standard_normal((400, 3))},
        {"y": np.ones(100), "pairs": PAIRS},
        {"y": None, "pairs": PAIRS, "loss": "logistic"},
        {"patterns": RNG.random((400, 7)) < 0.5},
        {"patterns": RNG.standard_normal((6, 7))},
        {"patterns": (RNG.random((400, 7)) < 0.5, None)},
        {"y": np.arange(400) % 4, "loss": "multinomial"},
        {"y": np.zeros(400), "loss": "multinomial"},
        {"y": np.eye(4)[np.arange(400) % 4], "loss": "multinomial"},
    ],
    ids=str,
)
def test_sizes_are_those_of_the_problem(changed):
    given = {"y": Y, "beta": 1.0, "patterns": 5, "pairs": None, "intercept": False, "dtype": None, "loss": "squared"}
    given |= changed
    problem = build_problem(X, **given)
    n, d, _, c = problem.shape
    expected = Sizes(n, d, problem.n_requested, c, len(problem.loss.y), problem.dtype.itemsize)
    names = ("y", "pairs", "patterns", "intercept", "dtype", "loss")
    assert sizes_of(X, *(given[name] for name in names)) == expected
    assert sizes_of(X.astype(np.float32), *(given[name] for name in names)).itemsize == 4


@pytest.mark.parametrize("y", [["a"] * 400, np.full(400, np.nan), np.full(400, np.inf), None])
def test_sizes_of_bad_labels_are_not_known(y):
    assert sizes_of(X, y, None, 5, False, None, "multinomial") is None


# -- what a limit does ------------------------------------------------------------------------------------------------
X, Y = data()


def test_a_large_limit_changes_nothing():
    options = {"beta": 5.0, "patterns": 20, "tol": 1e-2, "refine": False, "certificate": "relaxed", "backend": "numpy"}
    without, limited = (cvxrelu.solve(X, Y, **options, memory_limit=limit) for limit in (None, 10**12))
    assert limited.objective == without.objective and limited.lower_bound == without.lower_bound
    refined = cvxrelu.solve(X, Y, beta=5.0, memory_limit=10**12)
    assert refined.objective == cvxrelu.solve(X, Y, beta=5.0).objective


def test_the_direct_u_step_makes_room(without_proof):
    cg = estimate_memory(400, 6, 200).bytes
    auto = {"beta": 5.0, "patterns": 200, **SAMPLED}
    assert cvxrelu.solve(X, Y, **auto).settings["linear_solver"] == "gram"
    assert cvxrelu.solve(X, Y, **auto, memory_limit=cg + 1e6).settings["linear_solver"] == "cg"
    with pytest.raises(ValueError, match=r"linear_solver=.direct. needs about .* memory_limit leaves"):
        cvxrelu.solve(X, Y, **auto, linear_solver="direct", memory_limit=cg + 1e6)


def test_newton_makes_room(monkeypatch, without_proof):
    monkeypatch.setattr(newton_stage, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(newton_stage, "ROWS", 0.0)
    newton, cg = (estimate_memory(400, 6, 500, method=method).bytes for method in ("newton", "cg"))
    assert newton > cg
    options = {**SAMPLED, "beta": 500.0, "patterns": 500, "max_iter": None, "tol": 0.5}
    assert cvxrelu.solve(X, Y, **options).settings["linear_solver"] == "newton"
    assert cvxrelu.solve(X, Y, **options, memory_limit=(newton + cg) / 2).settings["linear_solver"] != "newton"


def test_newton_of_more_columns_than_rows_is_as_small_as_its_rows(monkeypatch):
    """Its faces are of row space, so that a few rows of an embedding fit where columns squared would not."""
    monkeypatch.setattr(newton_stage, "ROWS", 0.0)
    monkeypatch.setattr(newton_stage, "FREEDOM", np.inf)
    rng = np.random.default_rng(0)
    wide, y = rng.standard_normal((20, 1500)), rng.standard_normal(20)
    options = {"refine": False, "patterns": 40, "beta": 5.0, "tol": 0.5, "backend": "numpy"}
    sol = cvxrelu.solve(wide, y, **options, certificate="relaxed", memory_limit=10**9)
    assert sol.settings["linear_solver"] == "newton"


def no_work(*_, **__):
    raise AssertionError("work was begun")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (
            {"refine": False, "patterns": 10**6, "backend": "jax", "memory_limit": 10**9},
            "patterns=.* fit; .*numpy",
        ),
        ({"refine": False, "patterns": 10**8, "backend": "numpy", "memory_limit": 10**8}, "patterns=.* would fit"),
        ({"refine": True, "memory_limit": 10**6}, "refine=False"),
        ({"refine": False, "patterns": 5, "backend": "numpy", "memory_limit": 10**6}, "fewer rows or columns"),
    ],
)
def test_what_cannot_fit_is_refused_before_any_work(options, advice, monkeypatch):
    monkeypatch.setattr(SOLVE, "build_problem", no_work)
    with pytest.raises(ValueError, match=rf"^memory_limit is .* is estimated to need .*; .*{advice}"):
        cvxrelu.solve(X, Y, beta=1.0, **options)


def test_the_number_that_would_fit_fits():
    sizes, limit = Sizes(1000, 10, 10**6, 1, 1000, 8), 3e8
    with pytest.raises(ValueError) as error:
        plan(sizes, "direct", "numpy", False, True, limit)
    fitting = int(str(error.value).partition("patterns=")[2].partition(" ")[0])
    assert plan(sizes._replace(P=fitting), "auto", "numpy", False, True, limit).estimate.bytes <= limit
    with pytest.raises(ValueError):
        plan(sizes._replace(P=fitting + 1), "direct", "numpy", False, True, limit)


def test_without_a_limit_the_machine_is_one(monkeypatch):
    monkeypatch.setattr(SOLVE, "build_problem", no_work)
    for told, words in (("machine_memory", ""), ("available_memory", " free")):
        with monkeypatch.context() as patch:
            patch.setattr(memory, told, lambda: 1e7)
            with pytest.raises(MemoryError, match=rf"estimated to need .* and the machine has 9\.54 MiB{words};"):
                cvxrelu.solve(X, Y, beta=1.0, backend="numpy")


@pytest.mark.parametrize("refine", [False, True])
def test_without_a_limit_the_machine_is_one_for_jax_too(refine, monkeypatch):
    """In all and free: a MemoryError before any work. Where NumPy would fit, JAX streams the rows of (S) through files,
    and makes way for NumPy where "auto" has chosen it.
    """
    from cvxrelu.backends import choose

    options = {"beta": 1.0, "refine": refine, "patterns": 2000, "certificate": "relaxed"}
    needs = {
        name: estimate_memory(*X.shape, 0 if refine else 2000, method="refinement" if refine else "cg", backend=name)
        for name in ("numpy", "jax")
    }
    between = 0.5 * (needs["numpy"].bytes + needs["jax"].bytes) / memory.OVER
    with monkeypatch.context() as patch:
        patch.setattr(SOLVE, "build_problem", no_work)
        for told, words in (("machine_memory", ""), ("available_memory", " free")):
            with monkeypatch.context() as smaller:
                smaller.setattr(memory, told, lambda: 1e6)
                with pytest.raises(
                    MemoryError, match=rf"on jax is estimated to need .* the machine has 977 KiB{words};"
                ):
                    cvxrelu.solve(X, Y, backend="jax", **options)
    monkeypatch.setattr(choose, "JAX_CPU_FLOPS", 0.0)
    monkeypatch.setattr(memory, "machine_memory", lambda: between)
    if refine:
        with pytest.raises(MemoryError, match="refine=False on fewer patterns"):
            cvxrelu.solve(X, Y, backend="jax", **options)
    else:
        found = plan(Sizes(*X.shape, 2000, 1, len(X), 8), "auto", "jax", False, True, None)
        assert found.streamed and found.estimate.bytes <= between * memory.OVER
    if not choose.get_backend("jax").is_accelerator:
        assert cvxrelu.solve(X, Y, time_limit=0.01, **options).backend == "numpy"


class OnDevices:
    """What a plan asks of a backend on devices with memory of their own."""

    name, is_accelerator, own_memory = "jax", True, (2e9, 1e9)


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_devices_have_memory_of_their_own(grid, monkeypatch):
    """What each holds counts: a share of the rows, and of the patterns."""
    monkeypatch.setattr(memory, "machine_memory", lambda: 1.0)
    monkeypatch.setattr(memory, "available_memory", lambda: 1.0)
    backend = OnDevices()
    backend.grid = grid
    settings = SOLVE.Settings.read(refine=False, certificate="relaxed")
    sizes = Sizes(100_000, 20, 800, 1, 100_000, 4)
    whole = estimate_memory(*sizes[:5], dtype="float32", method="cg", backend="jax").bytes
    if grid == (1, 1):
        assert whole > 2e9 * memory.OVER
        assert SOLVE.fitting(sizes, settings, backend, True, None, False)[1].streamed
        with pytest.raises(MemoryError, match=r"patterns=.* would fit"):
            SOLVE.fitting(
                sizes,
                SOLVE.Settings.read(refine=False, certificate="relaxed", linear_solver="direct"),
                backend,
                True,
                None,
                False,
            )
        return
    _, found = SOLVE.fitting(sizes, settings, backend, True, None, False)
    assert found.grid == grid and found.estimate.bytes < whole / 2
    X = 100_000 * 20 * 8 / grid[0]
    assert found.estimate.parts["X"] == X * (1 + 12 / 8)  # given, rotated in float32, and for the moment in float64
    memory.refuse_what_is_not_free(sizes, "cg", "jax", None, SOLVE.own_memory(backend, 1))
    with pytest.raises(MemoryError, match=r"each of its devices has 95\.4 MiB free"):
        memory.refuse_what_is_not_free(sizes, "cg", "jax", None, (grid, 1e8))
    with pytest.raises(MemoryError, match=r"patterns=.* would fit"):  # several do not stream
        plan(sizes, "auto", "jax", False, True, None, (grid, 5e8))


def test_without_a_limit_estimates_may_be_half_too_large(monkeypatch):
    sizes = Sizes(1000, 10, 10**4, 1, 1000, 8)
    need = estimate_memory(1000, 10, 10**4).bytes

    def streamed(available, limit):
        monkeypatch.setattr(memory, "machine_memory", lambda: available)
        return plan(sizes, "auto", "numpy", False, True, limit).streamed

    assert [streamed(need / 1.45, None), streamed(need / 1.55, None)] == [False, True]
    assert [streamed(0.0, 1.01 * need), streamed(1e12, 0.99 * need)] == [False, True]


@pytest.mark.parametrize("count", [0, 10, 500])
def test_the_preconditioner_of_streamed_rows_takes_what_is_left(count):
    """Four arrays (m, landmarks) while it is made."""
    sizes = Sizes(10**6, 10, 50, 1, 2 * 10**6, 8)
    least = estimate_memory(*sizes[:5], method="streamed")
    made = Plan(least, True, least.bytes + count * 4 * 2e6 * 8 + 1.0)
    assert made.landmarks(sizes, "numpy") == min(memory.LANDMARKS, memory.FEWEST + count)
    assert made._replace(streamed=False).landmarks(sizes, "numpy") == memory.LANDMARKS


def test_available_memory_is_the_least_of_what_is_told(monkeypatch):
    system, group = "/proc/meminfo", "/sys/fs/cgroup/memory."
    told = {system: "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    8000 kB\nBuffers: 1 kB\n"}

    def read(name):
        if name not in told:
            raise FileNotFoundError(name)
        return told[name]

    monkeypatch.setattr(memory, "Path", lambda name: SimpleNamespace(read_text=lambda encoding: read(name)))
    assert memory.available_memory() == 8000 * 1024 and memory.machine_memory() == 9000 * 1024
    told |= {f"{group}max": "max\n", f"{group}current": "70\n"}
    assert memory.available_memory() == 8000 * 1024 and memory.machine_memory() == 9000 * 1024
    told[f"{group}max"] = "5000000\n"
    assert memory.available_memory() == 5000000 - 70 and memory.machine_memory() == 5000000
    told[f"{group}current"] = "6000000\n"
    assert memory.available_memory() == 0


@pytest.mark.parametrize("method", ["gram", "primal", "newton", "cg"])
def test_free_memory_has_no_say_in_the_method(method, monkeypatch, without_proof):
    """The machine's total, and a limit, do; of what is free only far too little matters, and that is an error."""
    n, P = {"gram": (200, 300), "primal": (400, 12), "newton": (400, 100), "cg": (200, 300)}[method]
    data = np.random.default_rng(0)
    features, targets = data.standard_normal((n, 5)), data.standard_normal(n)
    options = {"beta": 5.0, "patterns": P, **SAMPLED, "max_iter": None if method == "newton" else 3}
    if method == "cg":
        monkeypatch.setattr(preparation, "machine_memory", lambda: 1e6)
    found = []
    for free in (1e8, 1e9, 1e13):
        monkeypatch.setattr(memory, "available_memory", lambda free=free: free)
        found.append(cvxrelu.solve(features, targets, **options))
    assert {sol.settings["linear_solver"] for sol in found} == {method}
    for sol in found[1:]:
        assert np.array_equal(sol.sampled.blocks, found[0].sampled.blocks)
        assert sol.lower_bound == found[0].lower_bound and sol.objective == found[0].objective
    monkeypatch.setattr(memory, "available_memory", lambda: 1e6)
    monkeypatch.setattr(SOLVE, "build_problem", no_work)
    with pytest.raises(MemoryError, match=r"the machine has 977 KiB free; memory_limit=1000000 "):
        cvxrelu.solve(features, targets, **options)


def test_rows_are_streamed_by_the_size_of_the_machine_alone(monkeypatch):
    sizes, need = Sizes(1000, 10, 10**4, 1, 1000, 8), estimate_memory(1000, 10, 10**4).bytes
    monkeypatch.setattr(memory, "machine_memory", lambda: need)
    for free in (0.0, 1e12):
        monkeypatch.setattr(memory, "available_memory", lambda free=free: free)
        assert not plan(sizes, "auto", "numpy", False, True, None).streamed


@pytest.mark.parametrize("bad", ["4GB", True, None.__class__, [1]])
def test_a_limit_is_a_number(bad):
    with pytest.raises(TypeError, match=r"^memory_limit must be"):
        cvxrelu.solve(X, Y, beta=1.0, memory_limit=bad)


@pytest.mark.parametrize("bad", [0, -1, np.inf, np.nan])
def test_a_limit_is_positive(bad):
    with pytest.raises(ValueError, match=r"^memory_limit must be"):
        cvxrelu.solve(X, Y, beta=1.0, memory_limit=bad)


def test_the_estimate_is_printed_with_a_limit(capsys):
    options = {"beta": 500.0, "patterns": 5, "verbose": True, **SAMPLED}
    cvxrelu.solve(X, Y, **options)
    assert "memory:" not in capsys.readouterr().out
    cvxrelu.solve(X, Y, **options, memory_limit=10**9)
    assert capsys.readouterr().out.startswith("memory: about ")


def test_machines_have_memory():
    assert memory.available_memory() > 0 and preparation.choose_method("auto", (50, 5), 5, np.dtype(float)) == "primal"


def test_bad_input_is_named_by_the_one_who_reads_it():
    for bad in (np.ones(3), "X", None, np.ones((2, 2, 2))):
        with pytest.raises((TypeError, ValueError), match=r"^X "):
            cvxrelu.solve(bad, Y, beta=1.0, memory_limit=10)


def test_status_is_the_usual():
    assert cvxrelu.solve(X, Y, beta=1e6, memory_limit=10**9).status is Status.OPTIMAL
