"""Leave one out: against exact refits, and against the closed form of ridge regression."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import cvxrelu


def data(seed, n=40, d=3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    f = 2 * np.maximum(X[:, 0], 0) - np.maximum(X[:, 1] + X[:, 2], 0) + 0.3 * rng.standard_normal(n)
    return rng, X, f


def agreement(found, refits, present):
    """Correlation of approximate and exact changes of prediction, and mean error relative to the mean change."""
    change, exact = (found - present).ravel(), (refits - present).ravel()
    return np.corrcoef(change, exact)[0, 1], np.abs(change - exact).mean() / np.abs(exact).mean()


@pytest.mark.parametrize("weighted", [False, True])
def test_last_layer(weighted):
    rng, A, f = data(0, n=60)
    y = np.sign(f + 0.5 * rng.standard_normal(60))
    options = {"l2": 1.0, "scale": 0.7, "margin": 0.2}
    weight = rng.uniform(0.2, 2.0, 60) if weighted else np.ones(60)
    sol = cvxrelu.solve_logistic(A, y, sample_weight=weight, **options)
    found = cvxrelu.leave_one_out(sol)

    def refit(k):  # by SciPy, on the formula
        keep = np.arange(60) != k

        def objective(theta):
            u = 0.2 - 0.7 * y[keep] * (A[keep] @ theta)
            return weight[keep] @ np.logaddexp(0, u) + 0.5 * theta @ theta

        return 0.7 * A[k] @ minimize(objective, sol.theta, method="BFGS", options={"gtol": 1e-8}).x

    exact = np.array([refit(k) for k in range(60)])
    correlation, error = agreement(found.prediction, exact, 0.7 * A @ sol.theta)
    assert correlation > 0.999 and error < 0.05
    np.testing.assert_allclose(found.loss, np.logaddexp(0, 0.2 - y * found.prediction), rtol=1e-12)
    assert np.all((found.leverage > 0) & (found.leverage < 1))


def test_the_linear_model_is_ridge_regression_exactly():
    """No neuron, a penalised skip, the squared loss: y_k - (y_k - a_k) / (1 - leverage_k)."""
    _, X, f = data(1)
    sol = cvxrelu.solve(X, f, beta=1e6, skip="linear", skip_l2=0.5)
    assert sol.network.n_neurons == 0
    columns = np.hstack([X, np.ones((40, 1))])
    hat = columns @ np.linalg.solve(columns.T @ columns + 0.5 * np.eye(4), columns.T)
    found = cvxrelu.leave_one_out(sol)
    np.testing.assert_allclose(found.leverage, np.diag(hat), rtol=1e-10)
    np.testing.assert_allclose(found.prediction, f - (f - hat @ f) / (1 - np.diag(hat)), rtol=1e-8)
    np.testing.assert_allclose(found.loss, 0.5 * (f - found.prediction) ** 2, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"beta": 3.0},
        {"beta": 3.0, "skip": "linear"},
        {"beta": 1.0, "loss": "logistic", "skip": "linear", "skip_l2": 1.0},
        {"beta": 3.0, "loss": "multinomial"},
    ],
    ids=["squared", "free skip", "logistic", "multinomial"],
)
def test_networks_against_refits(options):
    _, X, f = data(2)
    y = {"logistic": np.sign(f), "multinomial": np.digitize(f, [-0.7, 0.7])}.get(options.get("loss"), f)
    sol = cvxrelu.solve(X, y, tol=1e-5, backend="numpy", **options)
    found, some = cvxrelu.leave_one_out(sol), np.arange(0, 40, 3)

    def refit(k):
        keep = np.arange(40) != k
        return cvxrelu.solve(
            X[keep], y[keep], tol=1e-5, backend="numpy", warm_start=sol, **options
        ).network.predict(X[k : k + 1])[0]  # fmt: skip

    exact = np.array([refit(k) for k in some])
    correlation, error = agreement(found.prediction[some], exact, sol.network.predict(X)[some])
    assert correlation > 0.85 and error < 0.7  # a refit also moves neurons over kinks
    assert found.loss.shape == found.leverage.shape == (40,)


@pytest.mark.slow
def test_pairs_against_refits():
    rng, X, f = data(3, n=60)
    pairs = rng.permutation(60).reshape(-1, 2)
    won = f[pairs[:, 0]] + 0.5 * rng.standard_normal(30) > f[pairs[:, 1]]
    pairs = np.where(won[:, None], pairs, pairs[:, ::-1])
    options = {"beta": 1.0, "loss": "logistic", "skip": "linear", "skip_l2": 1.0, "tol": 1e-5, "backend": "numpy"}
    sol = cvxrelu.solve(X, pairs=pairs, **options)

    def margins(network, pairs):
        f = network.predict(X)
        return f[pairs[:, 0]] - f[pairs[:, 1]]

    some = np.arange(0, 30, 3)
    exact = np.array(
        [
            margins(cvxrelu.solve(X, pairs=np.delete(pairs, k, 0), warm_start=sol, **options).network, pairs)[k]
            for k in some
        ]
    )
    found = cvxrelu.leave_one_out(sol)
    correlation, error = agreement(found.prediction[some], exact, margins(sol.network, pairs)[some])
    assert correlation > 0.85 and error < 0.7  # a refit also moves neurons over kinks
    # What was there is recovered: adding a sample back never makes its own loss larger.
    assert np.all(found.loss >= np.logaddexp(0, -margins(sol.network, pairs)) - 1e-9)


def test_what_cannot_be_done_is_refused():
    _, X, f = data(4)
    sol = cvxrelu.solve_logistic(lambda: [X], np.sign(f), l2=1.0, method="svrg")
    with pytest.raises(ValueError, match="streamed"):
        cvxrelu.leave_one_out(sol)
    with pytest.raises(TypeError, match="solution must be what solve"):
        cvxrelu.leave_one_out(cvxrelu.solve(X, f, beta=1.0).network)
