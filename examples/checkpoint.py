"""Interrupt a solve and go on from its checkpoint, under a memory limit. Run: python examples/checkpoint.py"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import cvxrelu
from cvxrelu.sampled.memory import estimate_memory


def main() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 8))
    y = np.maximum(X @ rng.standard_normal((8, 3)), 0) @ np.array([1.0, -1.0, 0.5])
    beta = 0.02 * cvxrelu.beta_max(X, y)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"

        def solve(callback=None) -> cvxrelu.Solution:
            return cvxrelu.solve(
                X, y, beta=beta, tol=1e-4, backend="numpy", memory_limit=10**9, checkpoint=folder, callback=callback
            )

        # Stopped here by a callback; a signal, a crash or a power cut would do as well.
        first = solve(lambda record: record["round"] == 3)
        print(f"stopped after {first.n_rounds} rounds: {first.status.value}, gap {first.gap:.1e}")
        print("on disk:", ", ".join(sorted(path.name for path in folder.iterdir())))
        second = solve()
        print(f"ended after {second.n_rounds} rounds: {second.status.value}, gap {second.gap:.1e}")

        try:
            cvxrelu.solve(X, y, beta=2 * beta, backend="numpy", checkpoint=folder)
        except ValueError as error:
            print("another beta is refused:", str(error).replace(str(folder), "run"))

    print("estimate for a million rows:", estimate_memory(10**6, 100, 256))


if __name__ == "__main__":
    main()
