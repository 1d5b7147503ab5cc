"""Every public function on CuPy's arrays: of the device in, and out where the contract says so, numbers of NumPy.

Without a device they are those of a stand-in; what that refuses is in `cupy_stand_in`. It counts copies, of which those
as large as X do not grow with the length of the run. Where there is a device, CuPy itself is asked all but what is
counted.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import tracemalloc
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

import cvxrelu
from cvxrelu.backends.choose import check_backend, get_backend
from cvxrelu.program.problem import build_problem
from cvxrelu.runs.settings import Settings
from cvxrelu.sampled import memory
from cvxrelu.sampled.memory import estimate_memory
from cvxrelu.sampled.stage import SampledStage

REAL = importlib.util.find_spec("cupy") is not None
if REAL and not (report := check_backend("cupy")).available:
    pytest.skip(f"CuPy is installed and cannot be used: {report.detail}", allow_module_level=True)

RNG = np.random.default_rng(0)
N, D = 60, 4
X = RNG.standard_normal((N, D))
Y = np.abs(X[:, 0]) - X[:, 1]
Y2 = np.stack([Y, X[:, 2]], axis=1)
SIGNS = np.where(Y > 0, 1.0, -1.0)
CLASSES = np.digitize(Y, [0.0, 1.0])
WEIGHT = RNG.uniform(0.5, 2.0, N)
PAIRS = RNG.permutation(N).reshape(-1, 2)
PAIRS = np.where((Y[PAIRS[:, 0]] > Y[PAIRS[:, 1]])[:, None], PAIRS, PAIRS[:, ::-1])
MARGIN = RNG.uniform(0.0, 0.5, len(PAIRS))
GATES = RNG.standard_normal((D, 12))
MASKS = X @ GATES >= 0


@pytest.fixture(autouse=True)
def some_blocks(monkeypatch):
    """Rows in several blocks, as on a device with many of them."""
    monkeypatch.setattr("cvxrelu.support.blocks.LAUNCHED", 600)


@pytest.fixture
def cupy():
    if REAL:
        yield importlib.import_module("cupy")
        return
    with cupy_stand_in.installed() as module:
        yield module


@pytest.fixture
def stand_in(cupy):
    """What is counted, and what depends on a setting of the stand-in."""
    if REAL:
        pytest.skip("of the stand-in; CuPy itself is installed")
    return cupy_stand_in


@pytest.fixture
def put(cupy):
    """Arrays to the device, in dictionaries and tuples too; the rest as it is."""

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: move(entry) for name, entry in value.items()}
        if isinstance(value, tuple):
            return tuple(map(move, value))
        return cupy.asarray(value) if isinstance(value, np.ndarray) else value

    return move


def assert_host(value: Any) -> None:
    assert type(value) is np.ndarray, type(value)


# -- the stand-in -----------------------------------------------------------------------------------------------------
def test_what_is_refused(cupy, stand_in):
    """Each of these CuPy refuses, or answers at the price of a wait; the stand-in must be able to fail."""
    a, host = cupy.asarray(X), X
    for wrong in (
        lambda: np.asarray(a),
        lambda: np.array([a, a]),
        lambda: np.exp(a),
        lambda: np.linalg.norm(a),
        lambda: np.concatenate([a, a]),
        lambda: a + host,
        lambda: host @ a.T,
        lambda: host[0] * a,
        lambda: np.ones(()) * a,
        lambda: a[np.arange(3)],
        lambda: a[[0, 1]],
        lambda: cupy.where(a > 0, host, 0.0),
        lambda: cupy.concatenate([a, host]),
        lambda: a.__setitem__(0, host[0]),
        lambda: float(a),
        lambda: bool(a),
    ):
        with pytest.raises((TypeError, ValueError)):
            wrong()
    cupy_stand_in.traffic.clear()
    assert type(np.float64(2.0) * a[0, 0]) is cupy.ndarray and type(cupy.sum(a)) is cupy.ndarray
    assert cupy_stand_in.traffic == {}
    assert bool(a[0, 0] == X[0, 0]) and int(cupy.sum(a > 0)) == (X > 0).sum() and float(a[0, 0]) == X[0, 0]
    np.testing.assert_array_equal(a.get(), X)
    assert cupy_stand_in.traffic == {"sync": 3, "to host": 1}
    with pytest.raises(AttributeError):
        cupy.cumulative_sum  # noqa: B018  NumPy's and the standard's, not CuPy 13's


# -- traffic ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def within(monkeypatch):
    """Copies and waits within functions that other backends compile, by name of the function."""
    from cvxrelu.backends.cupy import CupyBackend

    seen: dict[str, Any] = {}

    def compile(self, fn, static=(), **_):
        def counted(*given, **options):
            before = cupy_stand_in.traffic.copy()
            found = fn(*given, **options)
            seen.setdefault(fn.__name__, type(before)()).update(cupy_stand_in.traffic - before)
            return found

        return counted

    monkeypatch.setattr(CupyBackend, "compile", compile)
    return seen


def test_no_traffic_within_chunks(put, stand_in, within):
    """What runs in chunks copies nothing and waits for nothing, but for loops that end by their own numbers."""
    for data in ("squared", "ridge", "logistic", "multinomial", "pairs"):
        rows, y, options = DATA[data]
        run = {"beta": 2.0, **options}
        cvxrelu.solve(*put((rows, y)), **put({**run, **PROGRAMS["refined"]}))
        cvxrelu.solve(*put((rows, y)), **put({**run, **PROGRAMS["sampled"]}))
    cvxrelu.solve_logistic(*put((X, SIGNS)), l2=0.1)
    assert {"run_chunk", "ascend", "roam", "run", "check", "_build", "moments", "polish"} <= set(within)
    loops = {name: seen for name, seen in within.items() if seen}
    assert all(set(seen) == {"sync"} for seen in loops.values()), loops


@pytest.mark.parametrize("program", ["refined", "sampled"])
def test_copies_do_not_grow_with_the_run(put, stand_in, program):
    """Rows as wide as X are copied at the set-up alone, however long the run; later a number a row at most."""
    rows, y = put((X, Y))
    wide = []
    for longer in (1, 2):
        cupy_stand_in.copies.clear()
        run = {"max_iter": 25 * longer} if program == "sampled" else {"tol": 0.3 / 100**longer, "dtype": "float64"}
        found = cvxrelu.solve(rows, y, **put({"beta": 1.0, **PROGRAMS[program], **run}))
        each = [shape for _, shape in cupy_stand_in.copies if shape[:1] == (N,) and np.prod(shape) > 2 * N]
        wide.append((found.n_rounds + found.n_iter, sorted(each)))
    (short, first), (long, second) = wide
    assert long >= 1.5 * short and first == second
    assert len(first) <= 6


# -- solve ------------------------------------------------------------------------------------------------------------
DATA = {
    "squared": (X, Y, {}),
    "outputs": (X, Y2, {"sample_weight": WEIGHT, "intercept": True}),
    "weights": (X, Y, {"sample_weight": WEIGHT, "skip": "linear"}),
    "ridge": (X, Y, {"skip": "linear", "skip_l2": 0.1}),
    "equality": (X, Y, {"skip": "linear", "equality": (np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([0.5]))}),
    "logistic": (X, SIGNS, {"loss": "logistic", "margin": RNG.uniform(0, 0.3, N)}),
    "multinomial": (X, CLASSES, {"loss": "multinomial"}),
    "pairs": (X, None, {"loss": "logistic", "pairs": PAIRS, "margin": MARGIN}),
    "pairs-squared": (X, Y[PAIRS[:, 0]] - Y[PAIRS[:, 1]], {"pairs": PAIRS}),
    "float32": (X.astype(np.float32), Y.astype(np.float32), {}),
    "integers": (np.round(3 * X).astype(np.int64), np.round(3 * Y).astype(np.int64), {}),
}
PROGRAMS = {
    "refined": {"tol": 3e-2},
    "sampled": {"refine": False, "certificate": "relaxed", "patterns": MASKS, "max_iter": 40},
    "sampled-cg": {
        "refine": False,
        "certificate": "relaxed",
        "patterns": (MASKS, None),
        "max_iter": 10,
        "linear_solver": "cg",
    },
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("data", DATA)
def test_solve(put, data, program):
    rows, y, options = DATA[data]
    run = {"beta": 2.0, **options, **PROGRAMS[program]}
    found = cvxrelu.solve(*put((rows, y)), **put(run))
    assert found.backend == "cupy" and found.device == get_backend("cupy").device
    plain = cvxrelu.solve(rows, y, backend="numpy", **run)
    assert found.dtype == plain.dtype
    if program == "refined":
        assert found.success
        assert abs(found.objective - plain.objective) <= 0.06 * abs(plain.objective)
    else:
        tolerance = 1e-3 if found.dtype == "float32" else 1e-6
        assert found.sampled.objective == pytest.approx(plain.sampled.objective, rel=tolerance)
        assert found.sampled.lower_bound == pytest.approx(plain.sampled.lower_bound, rel=tolerance, abs=tolerance)
        assert_host(found.sampled.blocks)
    assert_host(found.network.first_layer)
    assert_host(found.certificate.dual)
    assert type(found.predict(put(rows))).__module__ == "cupy"
    found.summary()


@pytest.mark.parametrize("data", ["squared", "ridge", "logistic", "pairs"])
def test_solve_by_the_method_that_is_chosen(put, data):
    """Without an option of ADMM: drawn patterns, a proof of (S), and a priced certificate of (N)."""
    rows, y, options = DATA[data]
    run = {"beta": 2.0, "refine": False, "patterns": 8, "tol": 3e-2, **options}
    found, plain = cvxrelu.solve(*put((rows, y)), **put(run)), cvxrelu.solve(rows, y, backend="numpy", **run)
    assert found.backend == "cupy" and found.status.success
    assert max(found.sampled.lower_bound, plain.sampled.lower_bound) <= min(
        found.sampled.objective, plain.sampled.objective
    ) * (1 + 1e-9)


def test_solve_warm_and_saved(put, tmp_path):
    """A warm start from arrays of the device, a checkpoint, and a callback; the run goes on where it was."""
    run = {"beta": 1.0, "tol": 1e-3, "checkpoint": tmp_path / "run"}
    first = cvxrelu.solve(*put((X, Y)), **run, callback=lambda record: record["round"] == 1)
    second = cvxrelu.solve(*put((X, Y)), **run)
    assert (first.status.value, second.status.value) == ("interrupted", "optimal")
    arrays = put((second.network.first_layer, second.network.second_layer))
    again = cvxrelu.solve(*put((X, Y)), beta=1.0, warm_start=arrays)
    assert again.objective <= second.objective * (1 + 1e-9)
    saved = {"beta": 1.0, "patterns": MASKS, "refine": False, "certificate": "relaxed", "checkpoint": tmp_path / "two"}
    half = cvxrelu.solve(*put((X, Y)), **put({**saved, "max_iter": 20}))
    whole = cvxrelu.solve(*put((X, Y)), **put({**saved, "max_iter": 30}))
    assert (half.n_iter, whole.n_iter) == (20, 30)
    plain = cvxrelu.solve(X, Y, backend="numpy", **{**saved, "max_iter": 30, "checkpoint": None})
    np.testing.assert_allclose(whole.sampled.blocks, plain.sampled.blocks, atol=1e-9)


@pytest.mark.parametrize("kind", ["priced", "relaxed", "exact", "branch"])
@pytest.mark.parametrize("data", ["squared", "ridge", "pairs", "multinomial"])
def test_certify(put, data, kind):
    rows, y, options = DATA[data]
    if kind == "exact":
        rows = rows[:, :2]
        if data == "multinomial":
            pytest.skip("an exact certificate is of one output")
    options = {name: value for name, value in options.items() if name not in ("skip",)}
    skip = {"skip": np.full(rows.shape[1], 0.1)} if data == "ridge" else {}
    fields = {"first_layer": np.eye(rows.shape[1]), "second_layer": np.ones(rows.shape[1]), **skip}
    if data == "multinomial":
        fields["second_layer"] = np.ones((rows.shape[1], 3))
    asked = {"beta": 2.0, "kind": kind, "tol": 3e-2, **({"target": 0.5} if kind == "branch" else {})}
    found = cvxrelu.certify(put(fields), *put((rows, y)), **asked, **put(options))
    plain = cvxrelu.certify(fields, rows, y, **asked, backend="numpy", **options)
    assert found.kind == kind and found.objective == pytest.approx(plain.objective, rel=1e-9)
    assert found.lower_bound <= found.objective
    assert found.lower_bound == pytest.approx(plain.lower_bound, rel=0.1)
    assert_host(found.dual)


@pytest.mark.parametrize("data", ["squared", "outputs", "logistic", "pairs", "multinomial"])
def test_path(put, data):
    rows, y, options = DATA[data]
    run = {"betas": np.array([8.0, 4.0]), "cv": 3, "tol": 5e-2, **options}
    found = cvxrelu.path(*put((rows, y)), **put(run))
    assert [each.backend for each in found.solutions] == ["cupy", "cupy"]
    assert np.isfinite(found.scores).all()
    plain = cvxrelu.path(rows, y, backend="numpy", **run)
    np.testing.assert_allclose(found.objectives, plain.objectives, rtol=0.1)
    pairs = [(np.arange(20, 30), np.arange(10))] if data == "pairs" else [(np.arange(40), np.arange(40, 60))]
    cvxrelu.path(*put((rows, y)), **put({**run, "cv": [put(pair) for pair in pairs]}))


def test_path_with_a_scorer(put):
    """A scorer is given arrays of the host, whatever the library of X."""
    seen = []

    def score(network, rows, y):
        seen.append((type(rows), type(y)))
        return -float(np.mean((network.predict(rows) - y) ** 2))

    cvxrelu.path(*put((X, Y)), betas=2, cv=2, tol=5e-2, scorer=score)
    assert set(seen) == {(np.ndarray, np.ndarray)}


@pytest.mark.parametrize("data", DATA)
def test_beta_max(put, data):
    rows, y, options = DATA[data]
    if rows.dtype == np.float32:
        pytest.skip("rounds the data; nothing new")
    for patterns in (None, 8, MASKS):
        found = cvxrelu.beta_max(*put((rows, y)), **put({**options, "patterns": patterns}))
        assert type(found) is float
        assert found == pytest.approx(cvxrelu.beta_max(rows, y, **{**options, "patterns": patterns}), rel=1e-6)


def test_patterns(put):
    found, plain = cvxrelu.sample_patterns(put(X), 20), cvxrelu.sample_patterns(X, 20)
    assert_host(found.patterns)
    assert np.array_equal(found.patterns, plain.patterns) and np.array_equal(found.gates, plain.gates)
    found, plain = cvxrelu.enumerate_patterns(put(X[:, :2])), cvxrelu.enumerate_patterns(X[:, :2])
    assert np.array_equal(found.patterns, plain.patterns)
    for patterns in (MASKS, GATES, (MASKS, GATES), (MASKS, None), cvxrelu.Patterns(MASKS, GATES)):
        moved = put(patterns)
        run = {"beta": 1.0, "refine": False, "certificate": "relaxed", "max_iter": 5, "check_patterns": True}
        solved = cvxrelu.solve(*put((X, Y)), patterns=moved, **run)
        assert np.array_equal(solved.sampled.patterns, np.unique(MASKS, axis=1)) or solved.sampled.patterns.shape[1] > 0


@pytest.mark.parametrize("method", ["agd", "svrg", "adamw"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_last_layer(put, method, dtype):
    run = {"l2": 0.5, "margin": MARGIN[:20], "sample_weight": WEIGHT[:20], "method": method, "tol": 1e-6}
    run |= {"max_iter": 50, "dtype": dtype}
    found = cvxrelu.solve_logistic(*put((X[:20], SIGNS[:20])), **put(run))
    plain = cvxrelu.solve_logistic(X[:20], SIGNS[:20], backend="numpy", **run)
    assert found.backend == "cupy"
    assert found.objective == pytest.approx(plain.objective, rel=1e-4)
    assert_host(found.theta)
    assert cvxrelu.leave_one_out(found).loss.shape == (20,)


@pytest.mark.parametrize("shape", [(30, 4), (4, 30), (400, 3)])
def test_last_layer_shapes(put, shape):
    """The reduced basis, conjugate gradients and batches of a factory."""
    A = np.random.default_rng(1).standard_normal(shape)
    labels = np.where(A[:, 0] > 0, 1.0, -1.0)
    found = cvxrelu.solve_logistic(*put((A, labels)), l2=0.1)
    assert found.success and found.backend == "cupy"
    halves = put((A[: len(A) // 2], A[len(A) // 2 :]))
    streamed = cvxrelu.solve_logistic(
        lambda: iter(halves), put(labels), l2=0.1, method="svrg", max_iter=20, backend="cupy"
    )
    assert streamed.objective >= found.lower_bound * (1 - 1e-9)


def test_two_phase(put):
    for y, options in ((SIGNS, {}), (None, {"pairs": PAIRS, "margin": MARGIN})):
        run = {"beta": 0.5, "l2": 0.1, "tol": 1e-2, **options}
        found = cvxrelu.two_phase(*put((X, y)), **put(run))
        assert found.classifier.backend == found.last_layer.backend == "cupy"
        assert type(found.network.predict(put(X))).__module__ == "cupy"


def test_leave_one_out(put):
    found = cvxrelu.leave_one_out(cvxrelu.solve(*put((X, Y)), beta=2.0, tol=1e-2))
    assert_host(found.prediction)


@pytest.mark.parametrize("name", ["Regressor", "Classifier", "RegressorCV", "ClassifierCV"])
def test_estimators(put, name):
    """scikit-learn's contract is of host arrays: what comes in is moved, what is predicted is NumPy's."""
    chosen = {"betas": 3, "cv": 2} if name.endswith("CV") else {"beta": 0.3}
    y = SIGNS if name.startswith("Classifier") else Y
    model = getattr(cvxrelu, f"ConvexReLU{name}")(tol=5e-2, **chosen)
    model.fit(*put((X, y, WEIGHT)))
    assert model.solution_.backend == "cupy"
    assert_host(model.predict(put(X)))
    assert model.score(put(X), put(y)) > 0.5


def test_networks(put, cupy, tmp_path):
    network = cvxrelu.ReLUNetwork(*put((GATES[:, :3], np.ones((3, 2)), np.ones(3), np.ones((D, 2)), np.ones(2))))
    assert_host(network.first_layer)
    predicted = network.predict(put(X))
    assert type(predicted) is cupy.ndarray
    np.testing.assert_allclose(predicted.get(), network.predict(X), rtol=1e-12)
    raw = network.unstandardise(*put((np.ones(D), 2 * np.ones(D), np.ones(2), 3 * np.ones(2))))
    np.testing.assert_allclose(raw.predict(put(X)).get(), 1 + 3 * network.predict((X - 1) / 2), rtol=1e-9)
    network.save(tmp_path / "network.safetensors")
    assert cvxrelu.ReLUNetwork.load(tmp_path / "network.safetensors").allclose(network)
    one = cvxrelu.ReLUNetwork.from_(put((GATES[:, :3], np.ones(3))))
    blocks = put((GATES[:, :3, None], GATES[:, 3:6, None]))
    assert one.n_outputs == 1 and cvxrelu.ReLUNetwork.from_blocks(*blocks).n_neurons == 6
    assert network.predict(cupy.asarray(X.astype(np.float32))).dtype == np.float32
    assert network.predict(cupy.asarray(np.ones((3, D), dtype=np.int64))).dtype == np.float64


# -- memory and factorisations -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("blocks", [1, 3, 12])
@pytest.mark.parametrize("outputs", [1, 3])
def test_estimates_are_above_what_the_device_holds(stand_in, blocks, outputs, monkeypatch):
    """Of two iterations and a check: arrays of the stand-in are NumPy's, whose allocations are traced."""
    n, P = 1500, 100
    rows = np.random.default_rng(1).standard_normal((n, 5))
    problem = build_problem(rows, np.abs(rows[:, :outputs]), beta=50.0, patterns=P)
    slack = 2 * n * problem.shape[2] * outputs * 8
    monkeypatch.setattr("cvxrelu.support.blocks.LAUNCHED", slack // 8 // blocks)
    monkeypatch.setattr(memory, "LAUNCHED", slack // 8 // blocks)
    backend = get_backend("cupy")
    with backend.scope():
        settings = Settings.read(rho=None, tol=1e-3, max_iter=5, time_limit=None, linear_solver="cg")
        stage = SampledStage(problem, backend, settings)
        stage._set_up()
        stage._set_up_admm()
        tracemalloc.start()
        stage._check(stage._iterate(2))
        peak = slack + tracemalloc.get_traced_memory()[1]  # the slack that there was
        tracemalloc.stop()
    parts = estimate_memory(*problem.shape, method="cg", backend="cupy").parts
    estimate = parts["slack"] + parts["temporaries"] + parts["blocks"]
    assert peak <= estimate <= 1.6 * peak, (peak / slack, estimate / slack)


def test_what_the_device_has_no_room_for_is_refused(put, stand_in, monkeypatch):
    run = {"beta": 1.0, "patterns": 500, "refine": False, "certificate": "relaxed"}
    for told, words in (("total", "its device has 9.54 MiB"), ("free", "its device has 9.54 MiB free")):
        with monkeypatch.context() as smaller:
            smaller.setattr(cupy_stand_in.Device, told, 10_000_000)
            rows, y = put((X, Y))
            cupy_stand_in.copies.clear()
            with pytest.raises(MemoryError, match=words):
                cvxrelu.solve(rows, y, **run)
            assert not [shape for _, shape in cupy_stand_in.copies if shape[:1] == (N,)]


def test_known_answers(cupy, stand_in):
    """Every method of the CuPy driver; also without the setting that makes failures of factorisations errors."""
    report = check_backend("cupy")
    assert (report.available, report.known_answer, report.devices) == (True, "ok", ["stand-in"])
    backend = get_backend("cupy")
    bad = cupy.asarray(-np.eye(3))
    assert np.isnan(backend.spd_inverse(bad).get()).all()
    assert np.isfinite(cupy.linalg.cholesky(bad).get()).all()  # what CuPy makes of it when it is not asked to look
    with backend.scope(), pytest.raises(np.linalg.LinAlgError):
        cupy.linalg.cholesky(bad)


def test_without_the_setting_wrong_inverses_would_be_believed(stand_in, monkeypatch):
    from cvxrelu.backends.cupy import CupyBackend

    monkeypatch.setattr(CupyBackend, "_raising", lambda self: contextlib.nullcontext())
    assert check_backend("cupy").known_answer.startswith("spd_inverse of what has none")


def test_a_failed_factorisation_ends_the_solve(put, monkeypatch):
    """As on the other backends: the status says it, nothing is raised and nothing false is returned."""
    from cvxrelu.sampled import linear_systems

    plain = linear_systems.gram
    monkeypatch.setattr(linear_systems, "gram", lambda *given, **named: -10.0 * plain(*given, **named))
    run = {"beta": 1.0, "refine": False, "certificate": "relaxed", "linear_solver": "direct"}
    masks = X @ np.random.default_rng(3).standard_normal((D, 20)) >= 0
    found = cvxrelu.solve(*put((X, Y)), patterns=put(masks), **run)
    plainly = cvxrelu.solve(X, Y, patterns=masks, backend="numpy", **run)
    assert found.status.value == plainly.status.value == "numerical_error"
    assert found.lower_bound <= found.objective
