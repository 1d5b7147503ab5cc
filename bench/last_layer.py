"""The last-layer program: seconds and passes to a relative error of 1e-8, beside scikit-learn in the same run.

Run `python -m bench.last_layer [--quick]`. Problems: breast_cancer (569 x 30, standardised), digits (1797 x 64, even
against odd, standardised), random ReLU features (4000 x 385) with noisy labels; l2 = 1 and 1e-3, no intercept, so that
LogisticRegression(C = 1 / l2) is the same problem. cvxrelu stops when its certificate says 1e-8. The others have none:
each gets the loosest tolerance of its own, of 1e-2, 1e-3, ..., 1e-12, with which its objective is within 1e-8 of the
best lower bound, and is timed with that alone. A pass is a product with A and one with A^T, certificates included; for
scikit-learn its own number of iterations is shown.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any, NamedTuple

import numpy as np

from bench.common.report import markdown_table, put_between_markers, save_json, spread, timed
from cvxrelu.last_layer.solve import solve_logistic

TOL = 1e-8
PEERS = ("lbfgs", "newton-cholesky", "saga")
SAGA_EPOCHS = 3000


class LastLayer(NamedTuple):
    name: str
    A: np.ndarray
    y: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the two small problems once, nothing written")
    quick = parser.parse_args().quick
    header = ["problem", "l2", "solver", "iterations", "passes", "relative error", "ms"]
    rows = []
    for problem in problems()[: 2 if quick else 3]:
        for l2 in (1.0, 1e-3):
            rows += compare(problem, l2, repeats=1 if quick else 7)
            print(markdown_table(header, rows[-6:]), flush=True)
    if not quick:
        note = "One run, float64; ms is `median (min-max)`. Relative error: objective above the best lower bound."
        save_json("last-layer", {"header": header, "rows": rows, "note": note})
        put_between_markers("docs/benchmarks.md", "last-layer", f"{markdown_table(header, rows)}\n\n{note}")


def problems() -> list[LastLayer]:
    """The three problems, smallest first."""
    from sklearn.datasets import load_breast_cancer, load_digits

    def standardised(X: np.ndarray) -> np.ndarray:
        spread = X.std(axis=0)
        return (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0)

    X, labels = load_breast_cancer(return_X_y=True)
    digits, digit = load_digits(return_X_y=True)
    features, signs = random_features(4000, 385)
    return [
        LastLayer("breast_cancer (569, 30)", standardised(X), 2.0 * labels - 1),
        LastLayer("digits (1797, 64)", standardised(digits), 1.0 - 2.0 * (digit % 2)),
        LastLayer("random features (4000, 385)", features, signs),
    ]


def random_features(n: int, width: int, d: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """ReLU features of Gaussian data, and noisy labels of a linear model in them."""
    rng = np.random.default_rng(seed)
    A = np.maximum(rng.standard_normal((n, d)) @ rng.standard_normal((d, width)) / np.sqrt(d), 0)
    signal = (A - A.mean(axis=0)) @ rng.standard_normal(width)
    return A, np.where(signal + signal.std() * rng.standard_normal(n) > 0, 1.0, -1.0)


def compare(problem: LastLayer, l2: float, repeats: int) -> list[list[Any]]:
    """One row per solver."""
    A, y = problem.A, problem.y
    bound = solve_logistic(A, y, l2=l2, tol=1e-11, max_iter=2000, backend="numpy").lower_bound
    rows = []
    for label, options in (("cvxrelu agd", {}), ("cvxrelu agd, no finish", {"finish": False}),
                           ("cvxrelu svrg", {"method": "svrg"})):  # fmt: skip
        solve = lambda options=options: solve_logistic(A, y, l2=l2, tol=TOL, time_limit=60, **options)  # noqa: E731
        sol = solve()
        error = (sol.objective - bound) / bound
        rows.append([label, sol.n_iter, sol.settings["passes"], error, spread(timed(solve, repeats))])
    for name in PEERS:
        tol, model = loosest(name, A, y, l2, bound)
        error = excess(model, A, y, l2, bound)
        cell = spread(timed(lambda n=name, t=tol: fit(n, A, y, l2, t), repeats))
        rows.append([f"scikit-learn {name}", int(model.n_iter_.max()), "", error, cell])
    return [[problem.name, l2, *row] for row in rows]


def loosest(name: str, A: np.ndarray, y: np.ndarray, l2: float, bound: float) -> tuple[float, Any]:
    """The first tolerance of scikit-learn's solver that reaches the required error, and the model; else the last."""
    for exponent in range(2, 13):
        model = fit(name, A, y, l2, 10.0**-exponent)
        if excess(model, A, y, l2, bound) <= TOL or (name == "saga" and model.n_iter_.max() >= SAGA_EPOCHS):
            break
    return 10.0**-exponent, model


def fit(name: str, A: np.ndarray, y: np.ndarray, l2: float, tol: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    limit = SAGA_EPOCHS if name == "saga" else 20_000
    model = LogisticRegression(C=1 / l2, fit_intercept=False, solver=name, tol=tol, max_iter=limit, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tolerance out of reach shows in the column of errors
        return model.fit(A, y)


def excess(model: Any, A: np.ndarray, y: np.ndarray, l2: float, bound: float) -> float:
    theta = model.coef_[0]
    objective = np.logaddexp(0, -y * (A @ theta)).sum() + 0.5 * l2 * theta @ theta
    return float((objective - bound) / bound)


if __name__ == "__main__":
    main()
