"""The best skip beside given neurons: `minimise over z  loss(a + C z) + l2/2 |z|^2` for their prediction a (host).

A squared loss has it in closed form. The others take Newton's steps by conjugate gradients, with a length found by
halving, so that the objective never rises.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse.linalg
from jaxtyping import Float

from cvxrelu.problem import Problem

__all__ = ["best_skip", "dual_of_zero", "skip_objective"]

NEWTON_STEPS, CG_STEPS, HALVINGS = 30, 100, 40


def skip_objective(problem: Problem, a: Float[np.ndarray, "m c"], z: Any) -> float:
    """`loss(a + C z) + l2/2 |z|^2`, and the penalty of the origin; without a penalised skip the loss of a.

    z : (k, c), or None where there is no skip.
    """
    skip = problem.penalised_skip
    if skip is None:
        return float(problem.loss.value(a))
    return float(problem.loss.value(a + skip.columns @ z)) + 0.5 * skip.l2 * float(np.sum(z * z)) + skip.constant


def best_skip(
    problem: Problem,
    a: Float[np.ndarray, "m c"],
    start: Float[np.ndarray, "k c"] | None = None,
    accuracy: float = 1e-12,
) -> Float[np.ndarray, "k c"] | None:
    """Its coefficients; None without a skip.

    With a start the objective is never above that of the start. Newton's steps end where the next would lower it by
    less than the part `accuracy`.
    """
    skip = problem.skip
    if skip is None:
        return None
    k, c = skip.columns.shape[1], a.shape[1]
    z = np.zeros((k, c)) if start is None else start
    if problem.loss.is_quadratic:
        found = _least_squares(problem, a)
        worse = skip.l2 > 0 and skip_objective(problem, a, found) > skip_objective(problem, a, z)
        return z if worse else found
    value = skip_objective(problem, a, z)
    for _ in range(NEWTON_STEPS if k else 0):
        step, decrease = _newton_direction(problem, a, z)
        if not np.isfinite(step).all() or decrease <= accuracy * abs(value):
            break
        length = 1.0
        for _ in range(HALVINGS):
            new = skip_objective(problem, a, z + length * step)
            if new <= value - 0.1 * length * decrease:
                z, value = z + length * step, new
                break
            length *= 0.5
        else:
            break
    return z


def dual_of_zero(problem: Problem) -> Float[np.ndarray, "m c"]:
    """The dual variable t of no neurons at all, beside which the skip is the best there is."""
    zero, skip = np.zeros_like(problem.loss.y), problem.penalised_skip
    if skip is None:
        return problem.loss.dual(zero)
    return problem.loss.dual(skip.columns @ best_skip(problem, zero, accuracy=1e-15))


def _least_squares(problem: Problem, a: np.ndarray) -> np.ndarray:
    """Of the plain loss: that of a free skip has it projected out already."""
    skip, loss = problem.skip, problem.loss
    assert skip is not None
    root = np.sqrt(loss.weight)
    columns = root * skip.columns
    units = np.linalg.norm(columns, axis=0)
    units = np.where(units > 0, units, 1.0)
    if skip.l2 == 0:  # rank is judged in the columns' own units, as `free_directions` does
        return np.linalg.lstsq(columns / units, root * (loss.y - a), rcond=1e-12)[0] / units[:, None]
    k, c = skip.columns.shape[1], a.shape[1]
    tall = np.concatenate([columns, np.sqrt(skip.l2) * np.eye(k)])
    return np.linalg.lstsq(tall, np.concatenate([root * (loss.y - a), np.zeros((k, c))]), rcond=None)[0]


def _newton_direction(problem: Problem, a: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float]:
    """(the step, minus the slope along it), equilibrated by the diagonal's bound."""
    skip, loss = problem.penalised_skip, problem.loss
    assert skip is not None
    C, shape = skip.columns, z.shape
    prediction = a + C @ z
    slope = skip.l2 * z - C.T @ loss.dual(prediction)
    diagonal = np.sqrt(skip.l2 + np.sum(loss.curvature * C * C, axis=0))[:, None]

    def hessian(v: np.ndarray) -> Any:
        v = v.reshape(shape) / diagonal
        return ((C.T @ loss.hessian_product(prediction, C @ v) + skip.l2 * v) / diagonal).reshape(-1)

    operator = scipy.sparse.linalg.LinearOperator((z.size, z.size), matvec=hessian, dtype=np.float64)
    right = -(slope / diagonal).reshape(-1)
    size = np.linalg.norm(right)
    if size == 0:
        return np.zeros(shape), 0.0
    step, _ = scipy.sparse.linalg.cg(operator, right / size, rtol=1e-8, maxiter=CG_STEPS)
    step = size * step.reshape(shape) / diagonal
    return step, float(-np.sum(slope * step))
