"""Rows streamed from files: the same answers as in memory, and memory that stays within the limit."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from array_api_compat import array_namespace

import cvxrelu
from cvxrelu.api import prepared as preparation
from cvxrelu.backends import choose
from cvxrelu.backends import streaming as backend_streaming
from cvxrelu.backends.choose import get_backend
from cvxrelu.backends.streaming import Stream
from cvxrelu.program.patterns import as_patterns
from cvxrelu.program.streamed import in_file, streamed_patterns
from cvxrelu.sampled import bounds, memory
from cvxrelu.sampled.cones import project_onto_cones
from cvxrelu.support import blocks as streaming

RNG = np.random.default_rng(0)
N, D = 500, 6
X = RNG.standard_normal((N, D))
Y = np.maximum(X @ RNG.standard_normal((D, 3)), 0) @ RNG.standard_normal((3, 2))
OPTIONS = {
    "beta": 5.0, "patterns": 12, "refine": False, "certificate": "relaxed", "backend": "numpy", "linear_solver": "cg",
    "max_iter": 12, "tol": 1e-6,
}  # fmt: skip


def mapped(array, folder, name="x.npy"):
    np.save(folder / name, array)
    return np.load(folder / name, mmap_mode="r")


@pytest.fixture
def tight(monkeypatch):
    """Small blocks, as many landmarks as in memory, and a limit that only streaming fits."""
    monkeypatch.setattr(streaming, "CACHED", 1 << 9)
    monkeypatch.setattr(memory, "STREAMED", 1e5)
    monkeypatch.setattr(memory, "PASSED", 0)
    monkeypatch.setattr(memory, "FEWEST", memory.LANDMARKS)
    return 1e7


@pytest.mark.parametrize("kind", ["map", "array", "float32"])
@pytest.mark.parametrize("changed", [{}, {"intercept": True}, {"loss": "logistic", "beta": 1.0}])
def test_the_answers_of_a_solve_in_memory(kind, changed, tight, tmp_path, monkeypatch):
    data = X.astype(np.float32) if kind == "float32" else X
    y = np.where(Y[:, 0] > 0, 1, -1) if "loss" in changed else Y[:, 0]
    options = {**OPTIONS, "dtype": "float64", **changed}
    expected = cvxrelu.solve(data, y, **options)
    monkeypatch.setattr(bounds, "tighten", bounds.tighten)
    given = data if kind == "array" else mapped(data, tmp_path)
    sol = cvxrelu.solve(given, y, **options, memory_limit=tight)
    assert isinstance(sol.sampled.patterns, np.memmap) and sol.settings["linear_solver"] == "cg"
    np.testing.assert_array_equal(sol.sampled.patterns, expected.sampled.patterns)
    np.testing.assert_array_equal(sol.sampled.gates, expected.sampled.gates)
    for got, wanted in ((sol.sampled, expected.sampled), (sol, expected)):
        assert got.objective == pytest.approx(wanted.objective, rel=1e-7)
    assert sol.sampled.lower_bound == pytest.approx(expected.sampled.lower_bound, rel=1e-7)
    assert sol.n_iter == expected.n_iter and sol.status is expected.status
    np.testing.assert_allclose(sol.sampled.blocks, expected.sampled.blocks, atol=1e-6)


def test_several_outputs(tight, tmp_path):
    expected, sol = cvxrelu.solve(X, Y, **OPTIONS), cvxrelu.solve(mapped(X, tmp_path), Y, **OPTIONS, memory_limit=tight)
    assert isinstance(sol.sampled.patterns, np.memmap)
    assert sol.sampled.objective == pytest.approx(expected.sampled.objective, rel=1e-7)


class Watched(Stream):
    """Notes what the device was asked for and given."""

    def __init__(self, backend):
        super().__init__(backend)
        self.compiled, self.rows = set(), set()

    def begin(self, fn, beside):
        plain, run = self.backend.put, super().begin(fn, beside)

        def put(tree, *given, **named):
            self.compiled.add((fn, *(a.shape for a in tree), *(np.shape(b) for b in beside)))
            self.rows |= {len(a) for a in tree}
            return plain(tree, *given, **named)

        def watched(blocks):
            self.backend.put = put
            try:
                return run(blocks)
            finally:
                del self.backend.put

        return watched


@pytest.mark.parametrize(
    ("changed", "outputs", "rows"),
    [({}, 1, 13), ({"intercept": True}, 2, 13), ({"loss": "logistic", "beta": 1.0}, 1, 37), ({}, 2, 1000),
     ({"loss": "multinomial"}, 3, 13)],
)  # fmt: skip
def test_jax_streams_what_numpy_streams(changed, outputs, rows, tight, tmp_path, monkeypatch):
    """Block by block, the last one filled up, each function compiled for one number of rows."""
    monkeypatch.setattr(streaming, "PASSED", rows * 2 * outputs * 12)
    made = []
    monkeypatch.setattr(backend_streaming, "Stream", lambda backend: made.append(Watched(backend)) or made[-1])
    y = Y[:, 0] if outputs == 1 else Y if outputs == 2 else np.argmax(X[:, :3], axis=1)
    y = np.where(Y[:, 0] > 0, 1, -1) if changed.get("loss") == "logistic" else y
    options = {**OPTIONS, "dtype": "float64", **changed, "memory_limit": tight}
    expected = cvxrelu.solve(mapped(X, tmp_path), y, **options)
    assert made == []
    sol = cvxrelu.solve(mapped(X, tmp_path), y, **{**options, "backend": "jax"})
    assert sol.backend == "jax" and isinstance(sol.sampled.patterns, np.memmap) and sol.n_iter == expected.n_iter
    for got, wanted in ((sol.sampled, expected.sampled), (sol, expected)):
        assert got.objective == pytest.approx(wanted.objective, rel=1e-9)
        assert got.lower_bound == pytest.approx(wanted.lower_bound, rel=1e-9, abs=1e-9 * wanted.objective)
    largest = np.abs(expected.sampled.blocks).max()
    np.testing.assert_allclose(sol.sampled.blocks, expected.sampled.blocks, atol=1e-9 * largest)
    (watched,) = made
    assert len({key[0] for key in watched.compiled}) == 6
    lengths = {(fn, given[0]) for fn, given, *_ in watched.compiled}
    assert len(lengths) == 6 and (max(watched.rows) < N) == (rows < N)


def test_a_cpu_streams_on_numpy_unless_asked(tight, tmp_path, monkeypatch):
    """Where JAX would be chosen for speed, NumPy streams, or holds all rows; a limit below that is refused at once."""
    monkeypatch.setattr(choose, "JAX_CPU_FLOPS", 0.0)
    options = {**OPTIONS, "backend": "auto", "max_iter": 1}
    between = memory.estimate_memory(N, D, 12, 2, method="cg", backend="numpy").bytes + 1.0
    assert tight < between < memory.estimate_memory(N, D, 12, 2, method="cg", backend="jax").bytes
    if not get_backend("jax").is_accelerator:
        for limit in (tight, between):
            sol = cvxrelu.solve(mapped(X, tmp_path), Y, **options, memory_limit=limit)
            assert sol.backend == "numpy" and isinstance(sol.sampled.patterns, np.memmap) == (limit == tight)
    monkeypatch.setattr(preparation, "build_problem", None)
    with pytest.raises(ValueError, match=r"memory_limit is .*, and a solve of this size on jax is estimated to need"):
        cvxrelu.solve(mapped(X, tmp_path), Y, **{**options, "backend": "jax"}, memory_limit=tight / 100)


def test_parts_of_blocks_on_a_device_are_those_of_the_whole(monkeypatch):
    """Rows in order and no more of them, sums and the least as if nothing filled the last block up."""
    monkeypatch.setattr(streaming, "PASSED", 7 * D)
    rows = in_file(X, False)
    whole = streaming.over_blocks(D, parts_of_rows, X, beside=(Y[0],))
    backend = get_backend("jax")
    with backend.scope(), streaming.streamed_by(Stream(backend)):
        found = streaming.over_blocks(D, parts_of_rows, rows, beside=(Y[0],), like=rows)
    assert isinstance(found.rows[0], np.memmap) and streaming.STREAM.get() is None
    for got, expected in zip(
        (*found.sums, *found.rows, *found.least), (*whole.sums, *whole.rows, *whole.least), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(whole.sums[0], X.T @ X + 0.0, atol=1e-12)
    np.testing.assert_allclose(whole.least[0], (X * Y[0, 0]).min(axis=0))


def parts_of_rows(block, beside):
    xp = array_namespace(block)
    return streaming.Parts((block.T @ block,), (xp.exp(block), block[:, 0]), (xp.min(block * beside[0], axis=0),))


def test_gates(tight, tmp_path):
    gates = RNG.standard_normal((D, 8))
    options = {**OPTIONS, "patterns": gates, "max_iter": 3}
    sol = cvxrelu.solve(mapped(X, tmp_path), Y, **options, memory_limit=tight)
    np.testing.assert_array_equal(sol.sampled.patterns, X @ gates >= 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_patterns(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "CACHED", 64)
    few = np.random.default_rng(seed).standard_normal((60, 2))  # many gates have the same pattern
    given, count = as_patterns(40, few, seed)
    streamed, streamed_count = streamed_patterns(40, in_file(few, False), seed, False)
    assert count == streamed_count == 40 and given.patterns.shape[1] < 40
    np.testing.assert_array_equal(streamed.patterns, given.patterns)
    np.testing.assert_array_equal(streamed.gates, given.gates)


@pytest.mark.parametrize(("n", "d", "B"), [(200, 3, 40), (300, 12, 20), (10, 4, 5)])
def test_the_same_projections(n, d, B, monkeypatch):
    monkeypatch.setattr(streaming, "CACHED", 256)
    rng = np.random.default_rng(n)
    rows, q = rng.standard_normal((n, d)), rng.standard_normal((d, B))
    patterns = rows @ rng.standard_normal((d, B)) >= 0
    expected = project_onto_cones(rows, patterns, q)
    got = project_onto_cones(in_file(rows, False), patterns, q)
    assert got.converged.all() and expected.converged.all()
    np.testing.assert_allclose(got.points, expected.points, atol=1e-9)


def test_maps_that_fit_are_not_streamed(tmp_path):
    sol = cvxrelu.solve(mapped(X, tmp_path), Y[:, 0], **OPTIONS)
    assert not isinstance(sol.sampled.patterns, np.memmap)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"certificate": "priced"}, "certificate='relaxed'"),
        ({"skip": "bias"}, "skip=False"),
        ({"checkpoint": "folder"}, "checkpoint=None"),
        ({"backend": "jax", "devices": 1}, "devices=None"),
    ],
)
def test_what_needs_all_rows_is_refused(changed, named, tight, tmp_path):
    with pytest.raises(ValueError, match=f"streaming its rows, which needs {named}"):
        cvxrelu.solve(mapped(X, tmp_path), Y[:, 0], **{**OPTIONS, **changed}, memory_limit=tight)


def test_bad_rows_are_found(tight, tmp_path):
    bad = X.copy()
    bad[321, 2] = np.nan
    with pytest.raises(ValueError, match=r"^X \(rows .*must be finite") as error:
        cvxrelu.solve(mapped(bad, tmp_path), Y[:, 0], **OPTIONS, memory_limit=tight)
    first, last = map(int, re.findall(r"\d+", str(error.value))[:2])
    assert first <= 321 <= last < first + 100
    gates = RNG.standard_normal((D, 4))
    for patterns in (X @ gates >= 0, (X @ gates >= 0, gates), cvxrelu.sample_patterns(X, 4, 0)):
        with pytest.raises(ValueError, match=r"^patterns must be a number, or a float"):
            cvxrelu.solve(mapped(X, tmp_path), Y[:, 0], **{**OPTIONS, "patterns": patterns}, memory_limit=tight)


def test_maps_are_not_changed(tight, tmp_path):
    for mode in ("r", "r+", "c"):
        np.save(tmp_path / "y.npy", X)
        given = np.load(tmp_path / "y.npy", mmap_mode=mode)
        if mode == "c":
            given[0, 0] = 7.0  # in private pages, which must not be let go
        cvxrelu.solve(given, Y[:, 0], **{**OPTIONS, "max_iter": 2}, memory_limit=tight)
        assert given[0, 0] == (7.0 if mode == "c" else X[0, 0])
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X)


def test_scratch_files_have_no_name(tmp_path):
    with streaming.scratch_folder(tmp_path):
        array = streaming.scratch((100, 3), np.float64)
        array[5] = 1.0
        streaming.release(array)
        assert array.sum() == 3.0 and not list(tmp_path.iterdir())
    assert streaming.SCRATCH == [None]


PROBE = """
import sys, numpy as np, cvxrelu
def memory(name):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
rng = np.random.default_rng(0)
Z = rng.standard_normal((200, 5))
options = dict(refine=False, certificate="relaxed", backend="numpy", max_iter=2, linear_solver="cg")
cvxrelu.solve(Z, Z[:, 0], beta=1.0, patterns=5, **options)  # imports
X = np.load(sys.argv[1], mmap_mode="r")
y = np.load(sys.argv[2])
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
sol = cvxrelu.solve(X, y, beta=1e9, patterns=8, memory_limit=150e6, **options)
assert isinstance(sol.sampled.patterns, np.memmap)
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's peak of resident memory")
def test_resident_memory_stays_within_the_limit(tmp_path):
    n, d = 100_000, 250  # 200 MB
    data = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float64, shape=(n, d))
    y = np.zeros(n)
    for b in streaming.blocks(d, data):
        data[b] = np.random.default_rng(b.start).standard_normal((b.stop - b.start, d))
        y[b] = np.maximum(data[b, 0], 0.0)
    del data
    np.save(tmp_path / "y.npy", y)
    command = [sys.executable, "-c", PROBE, str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    environment = {**os.environ, "PYTHONPATH": str(Path(cvxrelu.__file__).parent.parent)}
    peak = int(subprocess.run(command, check=True, capture_output=True, env=environment, text=True).stdout)
    assert peak <= 150e6


def test_what_streams_is_of_its_thread():
    """One thread ends before the other that began within it: neither finds what the other set, then or later."""
    begun, ended, seen = threading.Event(), threading.Event(), []

    def other():
        with streaming.streamed_by("other"):
            begun.set()
            ended.wait(10)
            seen.append(streaming.STREAM.get())

    thread = threading.Thread(target=other)
    with streaming.streamed_by("this"):
        thread.start()
        begun.wait(10)
        seen.append(streaming.STREAM.get())
    ended.set()
    thread.join()
    assert seen == ["this", "other"] and streaming.STREAM.get() is None
