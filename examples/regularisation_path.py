"""A certified path of networks, the best of them chosen by cross-validation, and a plot of it all.

Run: python examples/regularisation_path.py [FILE]
FILE is the plot to write, a PNG, SVG or PDF; without it, demo-output/regularisation_path.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import cvxrelu

DEFAULT = Path("demo-output") / "regularisation_path.png"


def main(plot: Path = DEFAULT) -> None:
    rng = np.random.default_rng(0)
    teacher = rng.standard_normal((4, 3))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        X = rng.standard_normal((n, 4))
        return X, np.maximum(X @ teacher, 0) @ np.array([1.0, -1.0, 0.5]) + 0.5 * rng.standard_normal(n)

    X, y = draw(120)
    found = cvxrelu.path(X, y, betas=16, cv=3, skip="bias", tol=1e-2, verbose=True)
    print(found.message)

    X_fresh, y_fresh = draw(2000)
    for name, solution in (("best", found.best), ("best_1se", found.best_1se), ("last", found.solutions[-1])):
        error = np.mean((solution.network.predict(X_fresh) - y_fresh) ** 2)
        print(f"{name}: {solution.network.n_neurons} neurons, mean squared error on fresh rows {error:.3f}")

    plot.parent.mkdir(parents=True, exist_ok=True)
    found.plot(plot)
    print(f"drawn in {plot}")


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word.endswith((".png", ".svg", ".pdf"))]
    main(Path(given[0]) if given else DEFAULT)
