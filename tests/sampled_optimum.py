"""The optimum of the sampled program (S) for every loss, readout and skip, by CVXPY and Clarabel."""

from __future__ import annotations

from typing import Any

import numpy as np


def sampled_optimum(
    X: np.ndarray,
    patterns: np.ndarray,
    y: np.ndarray,
    beta: float,
    *,
    loss: str = "squared",
    weight: np.ndarray | None = None,
    margin: Any = 0.0,
    pairs: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    skip_l2: float = 0.0,
    equality: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """min over blocks and theta of loss(R (F U + columns theta)) + beta sum |u| + skip_l2/2 |theta|^2.

    X (n, d) with every column it is to have, y (m, c), in the form the loss has it: indicators for "multinomial".
    columns (n, K): what the skip adds to a prediction; equality (C (q, K), e (q, c)).
    """
    import cvxpy as cp

    d, P, c = X.shape[1], patterns.shape[1], y.shape[1]
    weight = np.ones(len(y)) if weight is None else weight
    margin = np.broadcast_to(np.asarray(margin, dtype=float), (len(y),))
    signs = 2.0 * patterns - 1.0
    outputs, penalty, constraints = [], 0, []
    for _ in range(c):
        V, Z = cp.Variable((d, P)), cp.Variable((d, P))
        outputs.append(cp.sum(cp.multiply(1.0 * patterns, X @ (V - Z)), axis=1))
        for block in (V, Z):
            penalty += beta * cp.sum(cp.norm(block, 2, axis=0))
            constraints.append(cp.multiply(signs, X @ block) >= 0)
    prediction = cp.vstack(outputs).T
    if columns is not None:
        theta = cp.Variable((columns.shape[1], c))
        prediction = prediction + columns @ theta
        if skip_l2:
            penalty += 0.5 * skip_l2 * cp.sum_squares(theta)
        if equality is not None:
            constraints.append(equality[0] @ theta == equality[1])
    if pairs is not None:
        prediction = prediction[pairs[:, 0]] - prediction[pairs[:, 1]]
    used = np.flatnonzero(weight > 0)
    if loss == "squared":
        value = 0.5 * sum(weight[k] * cp.sum_squares(prediction[k] - y[k]) for k in used)
    elif loss == "logistic":
        value = sum(weight[k] * cp.logistic(margin[k] - y[k, j] * prediction[k, j]) for k in used for j in range(c))
    else:
        value = sum(weight[k] * (cp.log_sum_exp(prediction[k]) - y[k] @ prediction[k]) for k in used)
    program = cp.Problem(cp.Minimize(value + penalty), constraints)
    program.solve(solver=cp.CLARABEL)
    assert program.status in ("optimal", "optimal_inaccurate"), program.status
    return float(program.value)
