"""A network proved globally optimal, and how far scikit-learn's is. Run: python examples/global_optimum.py"""

from __future__ import annotations

import numpy as np

import cvxrelu


def main() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 80)
    y = np.sin(6 * x) + 0.1 * rng.standard_normal(80)
    X = x[:, None]

    # A constant column for the neurons makes the data of rank 2: all activation patterns can be enumerated.
    beta = 0.01 * cvxrelu.beta_max(X, y, intercept=True)
    sol = cvxrelu.solve(X, y, beta=beta, intercept=True, certificate="exact", tol=1e-6, verbose=True)
    print(sol.summary())
    print(f"proved: no two-layer ReLU network, however wide, is better by more than {sol.gap:.1e} of the objective\n")

    # In any dimension: an estimate by pricing, and a bound that is proved, though less tight.
    X = rng.standard_normal((400, 8))
    y = np.maximum(X @ rng.standard_normal((8, 3)), 0) @ np.array([1.0, -1.0, 0.5]) + 0.1 * rng.standard_normal(400)
    beta = 0.1 * cvxrelu.beta_max(X, y)
    sol = cvxrelu.solve(X, y, beta=beta)
    print(f"priced:  {sol.certificate}")
    print(f"relaxed: {cvxrelu.certify(sol, X, y, beta=beta, kind='relaxed')}\n")

    try:
        from sklearn.neural_network import MLPRegressor
    except ImportError:
        print("install scikit-learn to see its network certified")
        return
    # alpha is divided by n there, and is a weight decay: beta / 2 (|W|^2 + |A|^2) has the same minimum as beta |W||A|.
    model = MLPRegressor(hidden_layer_sizes=(100,), alpha=beta, max_iter=500, random_state=0).fit(X, y)
    certificate = cvxrelu.certify(model, X, y, beta=beta)
    print(f"scikit-learn's MLPRegressor: objective {certificate.objective:.4g}, {certificate}")


if __name__ == "__main__":
    main()
