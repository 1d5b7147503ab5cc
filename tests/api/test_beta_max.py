"""`beta_max` of the sampled program: against CVXPY's support function, and as the threshold that it is."""

from __future__ import annotations

import numpy as np
import pytest

import cvxrelu

cp = pytest.importorskip("cvxpy")


def data(n, d, P, c=0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, rng.standard_normal((n, c) if c else n), X @ rng.standard_normal((d, P)) >= 0


def by_support_function(X, y, M, weight=1.0) -> float:
    """max over patterns, signs, outputs of max {q @ u : u in K_i, |u| <= 1}."""
    best, u = 0.0, cp.Variable(X.shape[1])
    for target in (np.reshape(weight, (-1, 1)) * y.reshape(len(y), -1)).T:
        for pattern in M.T:
            cone = cp.multiply(np.where(pattern, 1.0, -1.0), X @ u) >= 0
            q = X.T @ (pattern * target)
            for sign in (1, -1):
                best = max(
                    best, cp.Problem(cp.Maximize(sign * q @ u), [cone, cp.norm(u) <= 1]).solve(solver="CLARABEL")
                )
    return best


@pytest.mark.parametrize(
    ("n", "d", "P", "c"), [(15, 3, 5, 0), (25, 4, 6, 2), (6, 8, 4, 0), (30, 2, 6, 3), (1, 1, 1, 0), (12, 5, 1, 1)]
)
def test_is_the_largest_support_value(n, d, P, c):
    X, y, M = data(n, d, P, c)
    assert cvxrelu.beta_max(X, y, patterns=M) == pytest.approx(by_support_function(X, y, M), rel=1e-6, abs=1e-7)
    plain = np.linalg.norm(np.einsum("nd,np,nc->dpc", X, M, y.reshape(n, -1)), axis=0).max()
    assert cvxrelu.beta_max(X, y, patterns=M) <= plain * (1 + 1e-12)


def test_weights_intercept_and_sampled_patterns():
    X, y, M = data(20, 3, 5)
    weight = np.random.default_rng(1).uniform(0, 2, 20)
    assert cvxrelu.beta_max(X, y, patterns=M, sample_weight=weight) == pytest.approx(
        by_support_function(X, y, M, weight), rel=1e-6
    )
    ones = np.hstack([X, np.ones((20, 1))])
    drawn = cvxrelu.sample_patterns(ones, 7, seed=4)
    value = cvxrelu.beta_max(X, y, patterns=7, intercept=True, seed=4)
    assert value == cvxrelu.beta_max(ones, y, patterns=drawn) == cvxrelu.beta_max(ones, y, patterns=drawn.gates)
    assert value == pytest.approx(by_support_function(ones, y, drawn.patterns), rel=1e-6)


@pytest.mark.parametrize("c", [0, 2])
def test_is_where_the_solution_becomes_zero(c):
    X, y, M = data(25, 3, 8, c, seed=2)
    threshold = cvxrelu.beta_max(X, y, patterns=M)
    zero = 0.5 * np.sum(y**2)
    for factor in (1.0001, 3.0):  # at the threshold itself rounding decides
        above = cvxrelu.solve(X, y, beta=factor * threshold, patterns=M, refine=False, tol=1e-9).sampled
        assert not above.blocks.any()
        assert above.lower_bound == pytest.approx(zero, rel=2e-9)
    below = cvxrelu.solve(X, y, beta=0.97 * threshold, patterns=M, refine=False, tol=1e-7).sampled
    assert below.blocks.any()
    assert below.objective < zero


def test_scales_with_the_data_and_vanishes_with_the_target():
    X, y, M = data(30, 4, 9, seed=3)
    value = cvxrelu.beta_max(X, y, patterns=M)
    assert cvxrelu.beta_max(1e6 * X, 1e-3 * y, patterns=M) == pytest.approx(1e3 * value, rel=1e-9)
    assert cvxrelu.beta_max(X, -y, patterns=M) == value
    assert cvxrelu.beta_max(X, 0 * y, patterns=M) == 0.0
    assert cvxrelu.beta_max(X, y, patterns=M[:, :3]) <= value


LOSSES = {
    "logistic": {"loss": "logistic", "margin": 0.3},
    "logistic skip": {"loss": "logistic", "skip": "linear", "skip_l2": 0.2},
    "multinomial bias": {"loss": "multinomial", "skip": "bias", "skip_l2": 0.1},
    "pairs": {"loss": "logistic", "pairs": np.array([[0, 1], [2, 5], [3, 1], [7, 4], [7, 0]])},
    "squared bias": {"skip": "bias"},
    "squared linear": {"skip": "linear", "skip_l2": 0.5, "equality": ([1.0, 1.0], 0.5)},
}


@pytest.mark.parametrize("case", LOSSES)
def test_is_the_threshold_for_every_loss_and_skip(case):
    """With patterns, CVXPY's blocks vanish just above it and do not just below."""
    from sampled_optimum import sampled_optimum

    from cvxrelu.program.problem import build_problem
    from cvxrelu.program.skip import skip_columns

    given, rng = LOSSES[case], np.random.default_rng(3)
    X, y, M = data(10, 2, 4)
    if given.get("loss") == "logistic":
        y = None if "pairs" in given else np.where(y > 0, 1.0, -1.0)
    elif given.get("loss") == "multinomial":
        y = rng.integers(3, size=10)
    threshold = cvxrelu.beta_max(X, y, patterns=M, **given)
    problem = build_problem(X, y, beta=1.0, patterns=M, **given)
    columns = None if problem.skip is None else skip_columns(X, False, problem.skip_kind, problem.skip.bias)
    equality = None
    if "equality" in given:
        equality = (np.array([[1.0, 1.0, 0.0]]), np.array([[0.5]]))
    values = [
        sampled_optimum(
            X, problem.patterns.patterns, problem.plain.y, factor * threshold, loss=problem.loss_name,
            margin=given.get("margin", 0.0), pairs=given.get("pairs"), columns=columns,
            skip_l2=given.get("skip_l2", 0.0), equality=equality,
        )
        for factor in (1e3, 1.001, 0.9)
    ]  # fmt: skip
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert values[2] < values[0] * (1 - 1e-5)
