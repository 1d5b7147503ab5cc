"""The base dependencies are enough, and importing the package costs next to nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "sklearn", "jax", "jaxlib", "matplotlib", "cupy", "pandas", "cvxpy"}

IMPORT = """
import json, sys, time
start = time.perf_counter()
import cvxrelu
seconds = time.perf_counter() - start
import cvxrelu_llm
json.dump({
    "seconds": seconds,
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "versions": [cvxrelu.__version__, cvxrelu_llm.__version__],
    "file": cvxrelu.__file__,
}, sys.stdout)
"""

SOLVE = """
import json, sys
import numpy as np
import cvxrelu
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 4))
y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1] - X[:, 2], 0)
beta = 0.1 * cvxrelu.beta_max(X, y)
results = []
for backend in ("numpy", "jax"):
    sol = cvxrelu.solve(X, y, beta=beta, backend=backend)
    sampled = cvxrelu.solve(X, y, beta=beta, patterns=20, refine=False, backend=backend)
    results += [[each.backend, each.status.value, each.objective, each.lower_bound] for each in (sol, sampled)]
json.dump(results, sys.stdout)
"""

# The words in which pip and the libraries below it say that nobody answered, as opposed to an answer it did not like.
UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|NameResolutionError|ProxyError|Failed to establish a new "
    r"connection|Failed to resolve|name resolution|Name or service not known|Network is unreachable|Connection refused"
)


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run outside the checkout, without the variables that would let it in."""
    leaks = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in leaks} | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)


def output(command: list[str], folder: Path, **variables: str) -> str:
    done = run(command, folder, **variables)
    assert done.returncode == 0, f"{' '.join(command)[:200]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_import_loads_no_heavy_module(tmp_path: Path, root: Path) -> None:
    """Here scikit-learn, matplotlib and the rest are installed, so that importing them by mistake would show."""
    report = json.loads(output([sys.executable, "-c", IMPORT], tmp_path, PYTHONPATH=str(root)))
    print(f"import cvxrelu: {report['seconds']:.2f} s")
    assert Path(report["file"]).is_relative_to(root)
    assert not HEAVY & set(report["modules"])


@pytest.mark.slow
def test_base_dependencies_are_enough(tmp_path: Path, root: Path) -> None:
    output([sys.executable, "-m", "venv", "--without-pip", "fresh"], tmp_path)
    python = str(tmp_path / "fresh" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]

    # One retry: it is when retrying that pip says what went wrong with the connection.
    probe = run([*pip, "--retries", "1", "--timeout", "30", "download", "--no-deps", "jaxtyping"], tmp_path)
    if probe.returncode and (words := UNREACHABLE.search(probe.stdout + probe.stderr)):
        pytest.skip(f"pip reaches no package index ({words.group()})")
    output([*pip, "install", "--quiet", "--no-compile", str(root)], tmp_path)

    installed = {item["name"] for item in json.loads(output([*pip, "list", "--format", "json"], tmp_path))}
    assert not {"scikit-learn", "matplotlib", "torch", "cvxpy", "pytest"} & installed

    report = json.loads(output([python, "-c", IMPORT], tmp_path))
    print(f"import cvxrelu in a fresh environment: {report['seconds']:.2f} s")
    assert Path(report["file"]).is_relative_to(tmp_path), "the checkout was imported, not what was installed"
    assert not HEAVY & set(report["modules"])
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert report["versions"] == [project["version"]] * 2

    results = json.loads(output([python, "-W", "error", "-c", SOLVE], tmp_path))
    assert [result[0] for result in results] == ["numpy", "numpy", "jax", "jax"]
    for backend, status, objective, lower_bound in results:
        assert status == "optimal", (backend, status)
        assert lower_bound <= objective * (1 + 1e-12), backend
    assert results[0][2] == pytest.approx(results[2][2], rel=1e-2)
