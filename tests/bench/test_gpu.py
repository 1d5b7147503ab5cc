"""The GPU script runs from end to end on a machine without a GPU, says that it did, and keeps its figures to itself."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.common.report import RESULTS
from bench.gpu import __main__ as gpu
from bench.gpu import machine
from bench.gpu.stages import STAGES
from cvxrelu.backends.choose import check_backend, get_backend

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def without_accelerator():
    for name in ("jax", "cupy"):
        if check_backend(name).available and get_backend(name).is_accelerator:
            pytest.skip("there is an accelerator: python -m bench.gpu uses it")


@pytest.mark.slow
def test_a_small_run_on_the_cpu_takes_every_stage(without_accelerator, tmp_path):
    kept = RESULTS / "gpu.json"
    before = kept.read_bytes() if kept.exists() else None
    out = tmp_path / "small.json"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench.gpu", "--small", "--out", str(out)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "no GPU: a run on the CPU" in done.stdout
    assert (kept.read_bytes() if kept.exists() else None) == before
    found = json.loads(out.read_text())
    assert found["gpu"] is False and found["small"] is True and found["names"] == ["jax"] and not found["refused"]
    assert set(found["environment"]) >= {"date", "versions", "processor"}
    assert found["card"] and "jax" in found["packages"]
    assert list(found["stages"]) == list(gpu.BUDGETS)
    for name, stage in found["stages"].items():
        assert stage["ended"] in ("done", "out of time"), (name, stage)  # what a loaded machine has no time for
        assert stage["rows"], name
    assert {row["backend"] for row in found["stages"]["backends"]["rows"]} == {"jax", "numpy"}
    assert {row["precision"] for row in found["stages"]["shares"]["rows"]} == {"float32", "float64"}
    assert found["seconds"] <= gpu.TOTAL + 10.0


def test_no_figures_without_a_card(without_accelerator, tmp_path):
    out = tmp_path / "never.json"
    with pytest.raises(SystemExit, match="no accelerator"):
        gpu.main(["--out", str(out), "--only", "tests"])
    assert list(tmp_path.iterdir()) == []


def test_budgets_and_stages():
    assert list(gpu.BUDGETS) == list(STAGES)
    assert sum(gpu.BUDGETS.values()) <= gpu.TOTAL <= 480.0


def run(tmp_path, monkeypatch, script, limit=60.0):
    """`run_stage` with a child that is this script instead; it finds the file of rows in ROWS."""
    program = tmp_path / "child.sh"
    program.write_text(f'#!/bin/sh\nROWS="$5"\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return gpu.run_stage("backends", limit, True, ["jax"], dict(os.environ), tmp_path)


def test_rows_of_a_stage_that_fails_or_hangs_are_kept(tmp_path, monkeypatch):
    row = 'echo \'{"a": 1}\' >> "$ROWS"'
    failed = run(tmp_path, monkeypatch, f"{row}; echo what went wrong; exit 3")
    assert failed["ended"] == "failed" and failed["rows"] == [{"a": 1}] and "what went wrong" in failed["said"]
    hung = run(tmp_path, monkeypatch, f"{row}; sleep 600", limit=6.0)
    assert hung["ended"] == "out of time" and hung["rows"] == [{"a": 1}] * 2 and hung["seconds"] < 60.0
    late = run(tmp_path, monkeypatch, "exit 0", limit=1.0)  # not begun
    assert late["ended"] == "out of time" and late["seconds"] < 1.0


def test_who_answers_wrongly_is_left_out():
    right = {"backend": "jax", "accelerator": True, "answer": "ok"}
    off = {"backend": "cupy", "check": "inverse", "answer": "inverse off by 1.0e-02"}
    there = {"backend": "cupy", "accelerator": True, "answer": "ok"}
    judged = gpu.judge([right, there, off], small=False)
    assert judged == {"gpu": True, "names": ["jax"], "refused": ["cupy"]}
    with pytest.raises(SystemExit, match="wrong answers: cupy"):
        gpu.judge([there, off], small=False)
    with pytest.raises(SystemExit, match="no accelerator"):
        gpu.judge([{**right, "accelerator": False}], small=False)
    assert gpu.judge([{**right, "accelerator": False}], small=True) == {"gpu": False, "names": ["jax"], "refused": []}


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    assert machine.missing_packages() == []
    there = importlib.util.find_spec

    def without(*names):
        return lambda name: None if name in names else there(name)

    monkeypatch.setattr(importlib.util, "find_spec", without("safetensors", "array_api_compat"))
    monkeypatch.setattr(machine, "CARRIED", tmp_path / "carried")
    assert machine.missing_packages() == ["safetensors"]  # SciPy has a copy of the other
    copied = machine.child_environment(tmp_path)["PYTHONPATH"].split(os.pathsep)
    assert str(tmp_path / "packages") in copied and (tmp_path / "packages" / "array_api_compat" / "numpy").is_dir()
    monkeypatch.setattr(machine, "COPIES", ())
    assert machine.missing_packages() == ["safetensors", "array-api-compat"]
    (tmp_path / "carried" / "safetensors").mkdir(parents=True)
    assert machine.missing_packages() == ["array-api-compat"]
    with pytest.raises(SystemExit, match=r"missing: array-api-compat\. .*--target \.gpu-packages"):
        gpu.main(["--small"])


def test_a_copy_of_the_array_library_is_enough(tmp_path):
    """The package solves with the array_api_compat that SciPy carries, where there is none of its own."""
    shutil.copytree(machine._copy(), tmp_path / "array_api_compat")
    script = (
        "import array_api_compat, cvxrelu, numpy as np\n"
        f"assert array_api_compat.__file__.startswith({str(tmp_path)!r})\n"
        "X = np.random.default_rng(0).standard_normal((40, 3))\n"
        "assert cvxrelu.solve(X, X[:, 0], beta=1.0, patterns=8, refine=False, tol=1e-2, backend='numpy').success\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    subprocess.run([sys.executable, "-c", script], env=env, check=True, timeout=300)


def test_its_tests_are_found(without_accelerator):
    """The marked tests exist; what they do without a device is to skip."""
    (row,) = STAGES["tests"](["jax"], True, 60.0)
    assert row["rc"] == 0 and "skipped" in row["tests"]
