"""The best skip beside given neurons: `minimise over z  loss(a + C z) + l2/2 |z|^2` for their prediction a (host)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.program.problem import Problem
from cvxrelu.program.skip import free_coefficients, settle

__all__ = ["best_skip", "dual_of_zero", "skip_objective"]


def skip_objective(problem: Problem, a: Float[np.ndarray, "m c"], z: Any) -> float:
    """`loss(a + C z) + l2/2 |z|^2`, and the penalty of the origin; without a penalised skip the loss of a.

    z : (k, c), or None where there is no skip.
    """
    skip = problem.penalised_skip
    if skip is None:
        return float(problem.loss.value(a))
    return float(problem.loss.value(a + skip.columns @ z)) + 0.5 * skip.l2 * float(np.sum(z * z)) + skip.constant


def best_skip(
    problem: Problem, a: Float[np.ndarray, "m c"], start: Float[np.ndarray, "k c"] | None = None
) -> Float[np.ndarray, "k c"] | None:
    """Its coefficients; None without a skip. With a start the objective is never above that of the start."""
    skip, white = problem.skip, problem.whitened_skip
    if skip is None:
        return None
    if white is None:
        return free_coefficients(skip, problem.loss, a)
    k, c = skip.columns.shape[1], a.shape[1]
    start = np.zeros((k, c)) if start is None else start
    return white.back @ settle(problem.loss, white, a, (white.back.T * (skip.l2 / white.ridge)[:, None]) @ start)


def dual_of_zero(problem: Problem) -> Float[np.ndarray, "m c"]:
    """The dual variable t of no neurons at all, beside which the skip is the best there is."""
    zero, white = np.zeros_like(problem.loss.y), problem.whitened_skip
    if white is None:
        return problem.loss.dual(zero)
    # Predicted in coordinates where columns are alike: in their own, large ones that cancel leave their rounding, and t
    # then is far from orthogonal to them.
    best = settle(problem.loss, white, zero, np.zeros((white.columns.shape[1], zero.shape[1])))
    return problem.loss.dual(white.columns @ best)
