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

    beta = 0.1 * cvxrelu.beta_max(X, y)
    sol = cvxrelu.solve(X, y, beta=beta, tol=1e-3, verbose=True)
    print(sol.summary())

    # The priced bound is an estimate. A rigorous one takes longer and is less tight; it rises for as long as it may.
    proven = cvxrelu.certify(sol, X, y, beta=beta, kind="branch", time_limit=20.0)
    print(f"within {sol.gap:.1e} of the best network there is, as an estimate from {sol.certificate.starts} starts")
    print(f"within {proven.gap:.1e} of it, proven")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        sol.network.save(path)
        network = cvxrelu.ReLUNetwork.load(path)
    fresh = rng.standard_normal((5, 10))
    print("predictions on fresh rows:", np.round(network.predict(fresh), 2))


if __name__ == "__main__":
    main()
