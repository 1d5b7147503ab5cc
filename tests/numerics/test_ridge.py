"""Ridge regression against scikit-learn's, and left-out errors against refits."""

from __future__ import annotations

import numpy as np
import pytest

from cvxrelu.numerics import ridge as module
from cvxrelu.numerics.ridge import ridge


@pytest.mark.parametrize("outputs", [1, 3])
def test_against_scikit_learn(outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 5)) * [1, 10, 0.1, 3, 1] + 7
    Y = X[:, :outputs] + rng.standard_normal((40, outputs))
    chosen = []
    for r in (0.01, 0.1, 1.0):
        monkeypatch.setattr(module, "RIDGES", np.array([r]))
        W, b = ridge(X, Y)
        scale = X.std(axis=0)
        theirs = Ridge(alpha=r * len(X)).fit((X - X.mean(axis=0)) / scale, Y)
        np.testing.assert_allclose(X @ W + b, theirs.predict((X - X.mean(axis=0)) / scale).reshape(Y.shape), rtol=1e-9)
        chosen.append((refitted_error(X, Y), W))
    monkeypatch.setattr(module, "RIDGES", np.array([0.01, 0.1, 1.0]))
    np.testing.assert_allclose(ridge(X, Y)[0], min(chosen, key=lambda pair: pair[0])[1], rtol=1e-12)


def refitted_error(X: np.ndarray, Y: np.ndarray) -> float:
    """Mean squared error of left-out rows, mean and slopes refitted; the scale of the penalty is that of all rows."""
    errors, r = [], module.RIDGES[0] * len(X)
    for i in range(len(X)):
        rest = np.arange(len(X)) != i
        Z = (X[rest] - X[rest].mean(axis=0)) / X.std(axis=0)
        W = np.linalg.solve(Z.T @ Z + r * np.eye(X.shape[1]), Z.T @ (Y[rest] - Y[rest].mean(axis=0)))
        errors.append(Y[i] - Y[rest].mean(axis=0) - (X[i] - X[rest].mean(axis=0)) / X.std(axis=0) @ W)
    return float(np.mean(np.square(errors)))


def test_columns_that_say_nothing() -> None:
    rng = np.random.default_rng(1)
    X = np.column_stack([rng.standard_normal(30), np.full(30, 5.0), np.zeros(30)])
    X = np.column_stack([X, X[:, 0]])
    W, b = ridge(X, 2 * X[:, :1] + 1)
    np.testing.assert_allclose(X @ W + b, 2 * X[:, :1] + 1, atol=1e-3)
    W, b = ridge(np.zeros((6, 2)), np.arange(6.0)[:, None])
    assert not W.any() and b == pytest.approx(2.5)
