"""The GPU script runs from end to end on a machine without a GPU, says that it did, and keeps its figures to itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu
from bench.common.report import RESULTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def without_accelerator():
    if gpu.accelerators():
        pytest.skip("there is an accelerator: python -m bench.gpu uses it")


@pytest.mark.slow
def test_dry_run(tmp_path):
    kept = RESULTS / "gpu.json"
    before = kept.read_bytes() if kept.exists() else None
    out = tmp_path / "dry.json"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench.gpu", "--quick", "--skip-tests", "--out", str(out)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not written to bench/results: a dry run on the CPU" in done.stdout
    assert (kept.read_bytes() if kept.exists() else None) == before
    found = json.loads(out.read_text())
    assert found["run"] == "dry run, CPU"
    assert set(found["environment"]) >= {"date", "versions", "processor"}
    assert set(found["card"]) == {"jax", "nvidia-smi"}
    for title in ("shares", "backends", "solves"):
        table = found[title]
        assert table["rows"], title
        assert all(len(row) == len(table["header"]) for row in table["rows"]), title
    assert {row[2] for row in found["shares"]["rows"]} == {"float32", "float64"}
    assert {row[2] for row in found["backends"]["rows"]} == {"jax", "numpy"}
    assert all(row[-1] == "float64" for row in found["solves"]["rows"])


def test_no_figures_without_a_card(tmp_path):
    with pytest.raises(SystemExit, match="no accelerator"):
        gpu.main(["--out", str(tmp_path / "never.json")])
    assert list(tmp_path.iterdir()) == []


def test_its_tests_are_found():
    """The marked tests exist; what they do without a device is to skip."""
    assert "skipped" in gpu.run_tests()
