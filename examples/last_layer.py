"""Preferences between pairs, as a certified last layer on fixed ReLU features. Run: python examples/last_layer.py"""

from __future__ import annotations

import numpy as np

import cvxrelu


def main() -> None:
    rng = np.random.default_rng(0)
    first_layer = rng.standard_normal((20, 200)) / np.sqrt(20)  # frozen; in practice taken from a trained network
    taste = np.maximum(rng.standard_normal((20, 5)), 0) @ rng.standard_normal(5)

    def features(X: np.ndarray) -> np.ndarray:
        return np.maximum(X @ first_layer, 0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs, the preferred one first: Bradley-Terry choices by a hidden score."""
        one, other = rng.standard_normal((2, n, 20))
        chosen = rng.random(n) < 1 / (1 + np.exp((np.tanh(other) - np.tanh(one)) @ taste))
        return np.where(chosen[:, None], one, other), np.where(chosen[:, None], other, one)

    preferred, rejected = draw(2000)
    A = features(preferred) - features(rejected)
    sol = cvxrelu.solve_logistic(A, l2=10.0, scale=0.5, verbose=True)
    print(sol.summary())
    print(f"the optimum lies in [{sol.lower_bound:.8f}, {sol.objective:.8f}], proven")

    # The same program as deep learning would do it: the certificate tells how far from the optimum it stops.
    adamw = cvxrelu.solve_logistic(A, l2=10.0, scale=0.5, method="adamw", max_iter=50)
    print(f"AdamW, 50 epochs: {adamw.objective / sol.objective - 1:.1e} above the optimum")

    preferred, rejected = draw(2000)
    for name, theta in (("optimum", sol.theta), ("AdamW", adamw.theta)):
        right = ((features(preferred) - features(rejected)) @ theta > 0).mean()
        print(f"fresh pairs ranked as chosen, {name}: {right:.1%}")


if __name__ == "__main__":
    main()
