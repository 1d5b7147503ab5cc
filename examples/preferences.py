"""Preferences between pairs, as one certified convex program, beside a linear model and the recipe in two phases.

Run: python examples/preferences.py
"""

from __future__ import annotations

import numpy as np

import cvxrelu


def draw(rng: np.random.Generator, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and pairs of them, the preferred one first: Bradley-Terry choices by a hidden score."""
    X = rng.standard_normal((2 * pairs, 10))
    score = 2 * np.maximum(X[:, 0] + X[:, 1], 0) - 2 * np.maximum(X[:, 2], 0) + X[:, 3]
    rows = np.arange(2 * pairs).reshape(-1, 2)
    first = rng.random(pairs) < 1 / (1 + np.exp(score[rows[:, 1]] - score[rows[:, 0]]))
    return X, np.where(first[:, None], rows, rows[:, ::-1])


def report(name: str, network: cvxrelu.ReLUNetwork, X: np.ndarray, pairs: np.ndarray) -> None:
    f = network.predict(X)
    margin = f[pairs[:, 0]] - f[pairs[:, 1]]
    print(
        f"{name:12s} log-loss {np.logaddexp(0, -margin).mean():.4f}, accuracy {(margin > 0).mean():.1%} on fresh pairs"
    )


def main() -> None:
    rng = np.random.default_rng(0)
    X, pairs = draw(rng, 400)
    fresh, fresh_pairs = draw(rng, 5000)

    found = cvxrelu.path(X, loss="logistic", pairs=pairs, skip="linear", skip_l2=1.0, betas=6, smallest=0.2, cv=3)
    print(found.summary())
    sol = found.best
    print(sol.summary())

    report("linear", found.solutions[0].network, fresh, fresh_pairs)
    report("network", sol.network, fresh, fresh_pairs)
    phases = cvxrelu.two_phase(X, pairs=pairs, beta=10.0, l2=1.0)
    report("two phases", phases.network, fresh, fresh_pairs)

    without = cvxrelu.leave_one_out(sol)
    print(f"log-loss left out, without any refit: {without.loss.mean():.4f}")
    print(f"the five pairs that the others contradict most: {np.argsort(-without.loss)[:5].tolist()}")


if __name__ == "__main__":
    main()
