"""Both packages carry their types: a user's script is checked as the user's own type checker would."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

SCRIPT = """
import numpy as np
import cvxrelu
from cvxrelu import ReLUNetwork, Solution

X = np.zeros((4, 2))
sol = cvxrelu.solve(X, X[:, 0], beta=1.0, tol=1e-3, skip="linear")
reveal_type(sol)
reveal_type(sol.network)
reveal_type(sol.gap)
reveal_type(cvxrelu.beta_max(X, X[:, 0]))
network: ReLUNetwork = sol.network
wrong: str = cvxrelu.beta_max(X, X[:, 0])
cvxrelu.solve(X, X[:, 0], beta=1.0, tolerance=1e-3)
"""


@pytest.mark.parametrize("package", ["cvxrelu", "cvxrelu_llm"])
def test_marked_as_typed(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


def test_a_users_script(tmp_path: Path, root: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = ["--no-error-summary", "--hide-error-context", "--cache-dir", str(tmp_path / "cache"), "script.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments], cwd=tmp_path, capture_output=True, text=True, env=_with(root)
    )
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    revealed = [line for line in lines if line.startswith("note: Revealed")]
    kinds = ["cvxrelu.runs.solution.Solution", "cvxrelu.network.relu_network.ReLUNetwork", "float", "float"]
    assert len(revealed) == len(kinds), done.stdout
    assert all(kind in line for kind, line in zip(kinds, revealed, strict=True)), done.stdout
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) == 2, done.stdout  # the two that the script makes on purpose
    assert "assignment" in errors[0] and "tolerance" in errors[1]


def _with(root: Path) -> dict[str, str]:
    import os

    return {**os.environ, "MYPYPATH": str(root)}
