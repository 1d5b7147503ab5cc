"""Train on planted data, read the certificate, save, load, predict. Run: python examples/certified_regression.py"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import cvxrelu


def main() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 10))
    teacher = np.maximum(X @ rng.standard_normal((10, 3)), 0) @ np.array([1.0, -1.0, 0.5])
    y = teacher + 0.1 * rng.standard_normal(500)

    patterns, gates = cvxrelu.sample_patterns(X, 50, seed=0)
    beta = 0.1 * cvxrelu.beta_max(X, y, patterns=patterns)
    sol = cvxrelu.solve(X, y, beta=beta, patterns=gates, tol=1e-3, verbose=True)
    print(sol.summary())

    # Two programs, two gaps. The sampled one is solved; the network's bound is rigorous too, but loose.
    print(f"sampled program: within {sol.sampled.gap:.1e} of its optimum, proven")
    print(f"network program: within {sol.gap:.1e} of its optimum, proven by the {sol.certificate.kind} bound")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        sol.network.save(path)
        network = cvxrelu.ReLUNetwork.load(path)
    fresh = rng.standard_normal((5, 10))
    print("predictions on fresh rows:", np.round(network.predict(fresh), 2))


if __name__ == "__main__":
    main()
