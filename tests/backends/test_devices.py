"""Several devices, or processes, give what one gives. JAX counts its devices once per process, so that these tests
start processes of their own, with forced CPU devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from divided_solve import solved

import cvxrelu
from cvxrelu.backends.choose import get_backend, select_devices
from cvxrelu.backends.mesh import MeshBackend, as_devices
from cvxrelu.backends.numpy import NumpyBackend
from cvxrelu.certificates.pricing import Pricing
from cvxrelu.certificates.search_space import ground_of
from cvxrelu.program.problem import build_problem
from cvxrelu.refinement.search import Refinement
from cvxrelu.runs.settings import Settings
from cvxrelu.sampled import newton_stage
from cvxrelu.sampled.stage import SampledStage

ROOT = Path(__file__).resolve().parents[2]
X = np.random.default_rng(0).standard_normal((60, 6))
Y = np.maximum(X[:, :1], 0) - np.maximum(X[:, 1:3], 0)


@pytest.fixture(scope="module")
def expected() -> dict:
    """By NumPy, which has one device and no compiler to rewrite anything."""
    return solved(get_backend("numpy"))


def on_processes(count: int, devices: int, grid: str, *arguments: str) -> list[dict]:
    """The results of so many processes with so many forced CPU devices each, all of them in this grid."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    forced = f"--xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": forced, "JAX_NUMPY_DTYPE_PROMOTION": "strict",
           "PYTHONPATH": str(ROOT)}  # fmt: skip
    command = [sys.executable, str(ROOT / "tests" / "divided_solve.py"), str(count)]
    children = [
        subprocess.Popen([*command, str(i), address, grid, *arguments], cwd=ROOT, env=env, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for i in range(count)
    ]  # fmt: skip
    try:
        outputs = [child.communicate(timeout=800) for child in children]
    finally:
        for child in children:
            child.kill()
    for child, (_, err) in zip(children, outputs, strict=True):
        assert child.returncode == 0, err[-3000:]
    return [json.loads(out[out.index("RESULT") + len("RESULT") :]) for out, _ in outputs]


def assert_same(found: dict, expected: dict) -> None:
    """To 1e-6 of the largest entry."""
    for name in ("blocks", "dual", "sampled", "network", "split", "price", "descent", "weighed", "refined"):
        a, b = np.asarray(found[name]), np.asarray(expected[name])
        assert a.shape == b.shape, name
        assert np.abs(a - b).max() <= 1e-6 * np.abs(b).max(), name


@pytest.mark.slow
@pytest.mark.parametrize(("grid", "device"), [("1x1", "1"), ("1x2", "2"), ("2x1", "2 x 1"), ("4x1", "4 x 1")])
def test_grids_of_devices_give_what_numpy_gives(expected, grid, device):
    rows, patterns = map(int, grid.split("x"))
    (found,) = on_processes(1, rows * patterns, grid)
    assert found["device"] == f"{device} x cpu"
    assert_same(found, expected)
    assert (rows, found["refused"] == "") in {(1, True), (2, False), (4, False)}


@pytest.mark.slow
def test_two_by_two_devices_divide_rows_and_patterns(expected):
    (found,) = on_processes(1, 4, "2x2")
    assert found["device"] == "2 x 2 x cpu"
    assert_same(found, expected)
    assert found["refused"].startswith("devices has 2 rows, which do not divide the 59 rows of X; expected a multiple")
    assert found["shares"] == {"x": [6, 2, 1, 8], "t": [30, 2, 1, 8], "X": [30, 6], "patterns": [30, 8], "y": [30, 1]}
    assert (found["rows"], found["both"]) == ([3, 6], [3, 5])
    # Over the rows G^T |t| and F1^T t, each of a half of the blocks; over the patterns the prediction of a half of the
    # rows. The right side of the inner system to all devices, its solution to those of the same rows.
    assert found["collectives"] == {"all-reduce": [6 * 2 * 8, 30, 6 * 8], "all-gather": [60, 30]}
    # A descent sums the prediction over the neurons and its two gradients over the rows; magnitudes as on one row.
    assert found["refinement"] == {
        "descent": {"all-reduce": [30, 8, 6 * 8], "all-gather": [112]}, "weigh": {"all-reduce": [256, 16]},
    }, found["refinement"]  # fmt: skip


@pytest.mark.slow
def test_four_devices_give_what_one_gives(expected):
    (found,) = on_processes(1, 4, "1x4")
    assert found["device"] == "4 x cpu"
    assert_same(found, expected)
    assert np.abs(expected["blocks"]).max() > 0
    assert found["shares"] == {"x": [6, 2, 1, 4], "t": [60, 2, 1, 4], "X": [60, 6], "patterns": [60, 4], "y": [60, 1]}
    assert found["placed"] == [[3, 4], [3, 16], [3, 14], [2, 16]]
    # One sum of the n numbers of the prediction; the solution of the inner system to all devices.
    assert found["collectives"] == {"all-reduce": [60], "all-gather": [60]}
    # A descent sums the prediction and gathers the gradient of 7 x 16 weights; magnitudes sum their Hessian and slope.
    assert found["refinement"] == {
        "descent": {"all-reduce": [60], "all-gather": [112]}, "weigh": {"all-reduce": [256, 16]},
    }, found["refinement"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["1x4", "2x2"])
def test_two_processes_give_what_one_gives(expected, grid, tmp_path):
    if not hasattr(jax.config, "jax_cpu_collectives_implementation"):
        pytest.skip("this JAX has no collectives between processes on CPU")
    found = on_processes(2, 2, grid, str(tmp_path))
    for process in found:
        assert process["device"] == f"{grid.removeprefix('1x').replace('x', ' x ')} x cpu"
        assert_same(process, expected)
        limit, others, *of_checkpoints = process["refused"]
        assert limit.startswith("time_limit is 10.0, and devices belong to several processes")
        assert "expected devices of this process alone, or of every process" in others
        # The first reads and writes; the others hear of it, its errors included, and have no folder.
        assert len(of_checkpoints) == 2 and all("beta=0.5, now 0.25" in error for error in of_checkpoints)
        for whole, again, checks, checks_again, before in process["resumed"]:
            assert again == pytest.approx(whole, rel=1e-6) and 0 < before < checks <= checks_again + 1
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.split("/")[0] for path in written} == {"0-3", "0-2"}
    assert written >= {"0-3/run.json", "0-3/sampled.npz", "0-2/refinement.npz"}


@pytest.mark.parametrize("count", [1, 2, 3, 6, 8])
def test_directions_are_padded_to_what_devices_divide(count):
    """Otherwise all devices would get copies, and do the same work."""
    backend = MeshBackend.__new__(MeshBackend)
    backend.mesh = SimpleNamespace(devices=np.empty((5, count)))
    for size in range(1, 200):
        padded = backend.padded(size)
        assert size <= padded <= max(32, 2 * size) and padded % count == 0


class Noting(NumpyBackend):
    """Notes what is put with an axis to divide."""

    def __init__(self):
        self.divided, self.by_rows = [], []

    def put(self, tree, dtype=None, split=None, rows=None):
        if split is not None:
            self.divided.append((tree.shape, split))
        if rows is not None:
            self.by_rows.append(tree)
        return super().put(tree, dtype, split, rows)


def test_pricing_and_patterns_are_put_divided():
    backend = Noting()
    pricing = Pricing(backend, ground_of(backend, X, X), np.random.default_rng(2))
    pricing.price(Y, np.zeros((6, 0)), 16, waves=1, polished=4)
    assert {shape[0] for shape, _ in backend.divided} == {6} and {axis for _, axis in backend.divided} == {1}
    assert len(backend.divided) >= 5 and max(shape[1] for shape, _ in backend.divided) >= 32  # ascents, polish, rank
    backend = Noting()
    problem = build_problem(X, Y, beta=0.5, patterns=9)
    settings = Settings.read(rho=None, tol=1e-1, max_iter=1, time_limit=None, linear_solver="direct")
    SampledStage(problem, backend, settings)._set_up()
    assert backend.divided == [(problem.patterns.patterns.shape, 1)]
    patterns, exact, *duals = backend.by_rows
    assert patterns is problem.patterns.patterns and exact.X is problem.X and exact.loss is problem.loss
    assert [dual.shape for dual in duals] == [(60, 2)]


def test_whatever_has_rows_is_put_divided_along_them():
    """Of refinement, its pricing included: nothing with the rows of X is put on all devices."""
    backend, n = Noting(), len(X)
    plain, seen = backend.put, []
    backend.put = lambda tree, dtype=None, split=None, rows=None: (
        seen.append((tree, rows)) or plain(tree, dtype, split, rows)
    )
    search = Refinement(build_problem(X, Y, beta=0.5, sampled=False), backend, dtype="float32", tol=1e-2, seed=0)
    search.run(lambda *given: False, np.inf)
    copied = [leaf.shape for tree, rows in seen if rows is None for leaf in jax.tree.leaves(tree)]
    divided = [leaf.shape for tree, rows in seen if rows == 0 for leaf in jax.tree.leaves(tree)]
    assert not [shape for shape in copied if n in shape] and (n, 6) in divided and (n, 2) in divided and (n,) in divided


# -- input ------------------------------------------------------------------------------------------------------------
def test_refinement_runs_on_a_mesh():
    sol = cvxrelu.solve(X, Y[:, 0], beta=0.5, tol=1e-2, devices=jax.devices()[:1])
    plain = cvxrelu.solve(X, Y[:, 0], beta=0.5, tol=1e-2, backend="numpy")
    assert sol.success
    assert (sol.backend, sol.device[:4]) == ("jax", "1 x ")
    assert max(sol.lower_bound, plain.lower_bound) <= min(sol.objective, plain.objective) * (1 + 1e-9)


@pytest.mark.parametrize(("devices", "runs"), [(None, "newton"), (1, "admm")])
def test_devices_speak_of_admm(devices, runs, monkeypatch):
    """Newton's method runs on the host: whoever names devices wants them used."""

    class Begun(Exception):
        pass

    def begin(name):
        raise Begun(name)

    monkeypatch.setattr(newton_stage, "run", lambda stage: begin("newton"))
    monkeypatch.setattr(SampledStage, "_set_up_admm", lambda stage: begin("admm"))
    X = np.random.default_rng(1).standard_normal((400, 10))
    with pytest.raises(Begun, match=runs):
        cvxrelu.solve(X, X[:, 0], beta=5.0, patterns=40, refine=False, devices=devices)


@pytest.mark.parametrize(
    ("devices", "error", "says"),
    [
        (0, ValueError, r"devices is 0; expected 1 to \d+, the JAX devices there are"),
        (-1, ValueError, "devices is -1"),
        (10_000, ValueError, r"devices is 10000; expected 1 to \d+"),
        (True, TypeError, "devices must be None, 'all', a number of devices, or a sequence or array .* got True"),
        (1.5, TypeError, "got 1.5"),
        ("cpu", TypeError, "got 'cpu'"),
        ([0], TypeError, "devices holds 0, which is no JAX device"),
        ([], ValueError, r"devices must name at least one device and none twice, got \[\]"),
        ([[0], [1, 2]], TypeError, r"devices holds \[0\], which is no JAX device"),
        ((2, 2), TypeError, "devices holds 2, which is no JAX device"),
        (np.array(jax.devices()[:1])[None, None], ValueError, "a sequence or an array .rows, patterns., got 3 dim"),
        (np.array(None), TypeError, "devices holds None"),
        (np.array(jax.devices()[0]), ValueError, "got 0 dimensions"),
    ],
    ids=str,
)
def test_bad_devices(devices, error, says):
    with pytest.raises(error, match=says):
        cvxrelu.solve(X, Y, beta=0.5, devices=devices)


def test_devices_named_twice():
    first = jax.devices()[0]
    for named in ([first] * 2, [[first], [first]], np.array([[first, first]])):
        with pytest.raises(ValueError, match="none twice"):
            as_devices(named)


def test_one_row_of_a_grid_is_a_sequence():
    first = jax.devices()[:1]
    assert as_devices(first) == as_devices([first]) == as_devices(np.array([first])) == as_devices(1) == (tuple(first),)
    assert select_devices("jax", first) is select_devices("jax", [first])


@pytest.mark.parametrize("backend", ["numpy", "cupy"])
def test_other_backends_have_no_devices(backend):
    with pytest.raises(ValueError, match=f"devices needs backend='jax' or 'auto', got backend='{backend}'"):
        cvxrelu.solve(X, Y, beta=0.5, devices=1, backend=backend)
