"""The closed-form bound on the network program (N): rigorous in any dimension, from two norms and two eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.numerics.proximal import block_norms
from cvxrelu.numerics.rounding import gamma
from cvxrelu.program.dual import Ridge, pull_back, row_lengths, scaled_bound
from cvxrelu.program.loss import Loss
from cvxrelu.program.readout import Pairs
from cvxrelu.support.blocks import summed

Array = Any


__all__ = ["closed_form_price", "relaxed_bound"]


def relaxed_bound(
    loss: Loss,
    X: Float[Array, "n d"],
    dual: Float[Array, "m c"],
    beta: Any,
    readout: Pairs | None = None,
    ridge: Ridge | None = None,
) -> tuple[Float[Array, ""], Float[Array, "m c"]]:
    """Closed-form rigorous lower bound on the optimum of (N) from any t, and the feasible multiple of t."""
    xp = array_namespace(X)
    zero = xp.zeros((), dtype=X.dtype)
    rounding = gamma(*X.shape)
    length = row_lengths(X)
    total = xp.zeros((), dtype=X.dtype)
    pulled, error = pull_back(readout, X, dual)
    for k in range(dual.shape[1]):
        p = pulled[:, k]
        linear = block_norms(_correlation(X, p))[0] + rounding * xp.sum(length * xp.abs(p))
        sides = []
        for side in (xp.maximum(p, zero), xp.maximum(-p, zero)):
            # |computed - true| of a symmetric eigenvalue is below the norm of the errors, at most rounding times the
            # trace.
            top = _top_of_scatter(X, side)
            trace = xp.sum(side * length * length)
            sides.append(0.5 * linear + 0.5 * xp.sqrt(xp.sum(side) * (xp.maximum(top, zero) + 2.0 * rounding * trace)))
        total = total + (xp.maximum(*sides) + (zero if error is None else error[k])) ** 2
    return scaled_bound(loss, dual, (1.0 + rounding) * xp.sqrt(total), beta, ridge)


def _correlation(X: Float[Array, "n d"], p: Float[Array, " n"]) -> Float[Array, "d 1"]:
    """X^T p."""
    return summed(1, lambda b: X[b, :].T @ p[b, None], X)


def _top_of_scatter(X: Float[Array, "n d"], weight: Float[Array, " n"]) -> Float[Array, ""]:
    """lambda_max(X^T diag(weight) X), weight >= 0, by the smaller of the two matrices that have it."""
    xp, (n, d) = array_namespace(X), X.shape
    if n < d:
        rows = xp.sqrt(weight)[:, None] * X
        matrix = rows @ rows.T
    else:
        matrix = summed(d, lambda b: X[b, :].T @ (weight[b, None] * X[b, :]), X)
    return xp.linalg.eigvalsh(0.5 * (matrix + matrix.T))[-1]


def closed_form_price(X: Float[np.ndarray, "n d"], P: Float[np.ndarray, "n c"]) -> float:
    """Per output the larger of `1/2 |X^T p| + 1/2 sqrt(sum(p_+) lambda_max(X^T diag(p_+) X))` and that of -p; rigorous.

    Outputs combine by the root of the sum of squares.
    """
    rounding = gamma(*X.shape)
    lengths = np.linalg.norm(X, axis=1)
    prices = []
    for p in P.T:
        linear = np.linalg.norm(X.T @ p) + rounding * float(np.sum(lengths * np.abs(p)))
        sides = []
        for side in (np.maximum(p, 0.0), np.maximum(-p, 0.0)):
            top = max(float(_top_of_scatter(X, side)), 0.0)
            top += 2.0 * rounding * float(np.sum(side * lengths * lengths))
            sides.append(0.5 * linear + 0.5 * np.sqrt(np.sum(side) * top))
        prices.append(max(sides))
    return float((1.0 + rounding) * np.linalg.norm(prices))
