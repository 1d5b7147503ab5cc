"""Euclidean projection onto activation cones, many at once.

    Proj_K(q) = argmin |u - q|  over  K = {u : E_j x_j @ u >= 0 for all rows j}
              = q + X^T (E * mu),   mu = argmin over mu >= 0 of |q + X^T (E * mu)|

One problem, two uses: the projection itself makes a point feasible, and the multiplier mu makes its norm the support
value `max {q @ u : u in K, |u| <= 1} = |Proj_K(q)|`, the tightest multiplier of the dual constraint.

At most d of the n rows are active in a projection, so non-negative least squares (SciPy's Lawson-Hanson) runs on a
working set of a few d rows per column, and one product of X with all unfinished columns, a GEMM, finds the rows that
are violated outside it. Working sets only grow, hence the loop ends.

Host NumPy in float64: certificates rest on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from cvxrelu.support.blocks import blocks, each, is_streamed

__all__ = ["ConeProjection", "project_onto_cones"]

TOLERANCE = 1e-12  # a row counts as satisfied when x_j @ u >= -TOLERANCE |x_j| |q|
MAX_ROUNDS = 200
AT_A_TIME = 16  # columns, of rows in a file


class ConeProjection(NamedTuple):
    """points (d, B) = q + X^T (E * mu); multiplier_mass (B,) = sum_j mu_j |x_j|; converged (B,).

    A column that did not converge still has mu >= 0, so its norm is a valid upper bound on the support value; its point
    may lie outside the cone.
    """

    points: Float[np.ndarray, "d B"]
    multiplier_mass: Float[np.ndarray, " B"]
    converged: Bool[np.ndarray, " B"]


def project_onto_cones(
    X: Float[np.ndarray, "n d"],
    patterns: Bool[np.ndarray, "n B"],
    q: Float[np.ndarray, "d B"],
    deadline: float = np.inf,
    limit: float = -np.inf,
) -> ConeProjection:
    """Project column b of q onto the cone of column b of `patterns`.

    Parameters
    ----------
    X : (n, d) float64 rows.
    patterns : (n, B) bool; True asks for x_j @ u >= 0, False for x_j @ u <= 0.
    q : (d, B) float64.
    deadline : time of `time.perf_counter` after which unfinished columns are left as they are, not converged.
    limit : a column whose support value is seen to be at most this is left as it is, not converged.

    Returns
    -------
    ConeProjection
    """
    if is_streamed(X):
        return _project_streamed(X, patterns, q, deadline)
    from scipy.optimize import nnls  # half of the package's import time otherwise

    d, B = q.shape
    norms = np.linalg.norm(X, axis=1)
    rows = np.flatnonzero(norms > 0)
    unit = X[rows] / norms[rows, None]
    negative = ~patterns[rows]
    points, mass, converged = q.copy(), np.zeros(B), np.zeros(B, dtype=bool)
    tolerance = TOLERANCE * np.linalg.norm(q, axis=0)
    working = [np.zeros(0, dtype=np.intp) for _ in range(B)]
    todo = np.arange(B)
    for _ in range(MAX_ROUNDS):
        slack = unit @ points[:, todo]
        np.negative(slack, out=slack, where=negative[:, todo])
        satisfied = slack.min(axis=0, initial=0.0) >= -tolerance[todo]
        converged[todo[satisfied]] = True
        todo, slack = todo[~satisfied], slack[:, ~satisfied]
        if todo.size == 0:
            break
        stuck = []
        for b, column_slack in zip(todo, slack.T, strict=True):
            if time.perf_counter() > deadline:
                return ConeProjection(points, mass, converged)
            column_slack[working[b]] = 0.0
            count = min(2 * d if working[b].size == 0 else d, column_slack.size)
            entering = np.argpartition(column_slack, count - 1)[:count]
            entering = entering[column_slack[entering] < -tolerance[b]]
            stuck.append(entering.size == 0)  # only rows already in the set are violated, by rounding
            working[b] = np.concatenate([working[b], entering])
            signs = np.where(negative[working[b], b], -1.0, 1.0)
            A = (unit[working[b]] * signs[:, None]).T
            multipliers = _or_zeros(nnls, A, -q[:, b])
            points[:, b] = q[:, b] + A @ multipliers
            mass[b] = multipliers.sum()
        todo = todo[~np.array(stuck) & (np.linalg.norm(points[:, todo], axis=0) > limit)]
        if todo.size == 0:
            break
    return ConeProjection(points, mass, converged)


def _project_streamed(X: np.ndarray, patterns: np.ndarray, q: np.ndarray, deadline: float) -> ConeProjection:
    """The same for rows in a file: project onto the cones of a few rows, in memory, and look for violated ones.

    Those join the few until there are none, for a few columns at a time.
    """
    (n, d), B = X.shape, q.shape[1]
    points, mass, converged = q.copy(), np.zeros(B), np.zeros(B, dtype=bool)
    lengths = each(d, lambda b: np.linalg.norm(X[b], axis=1), X)
    sizes = np.linalg.norm(q, axis=0)
    for start in range(0, B, AT_A_TIME):
        columns = np.arange(start, min(start + AT_A_TIME, B))
        rows = np.linspace(0, n - 1, min(n, 4 * d)).astype(np.intp)  # distinct: n is at least their number
        for _ in range(MAX_ROUNDS):
            few = project_onto_cones(np.array(X[rows]), np.array(patterns[rows][:, columns]), q[:, columns], deadline)
            points[:, columns], mass[columns] = few.points, few.multiplier_mass
            found = []
            for b in blocks(columns.size, X, patterns):
                slack = np.where(patterns[b][:, columns], 1.0, -1.0) * (X[b] @ few.points)
                slack += TOLERANCE * lengths[b, None] * sizes[columns]
                worst = np.argsort(slack, axis=0)[: max(1, d // 4)]
                found.append(b.start + np.unique(worst[np.take_along_axis(slack, worst, axis=0) < 0]))
            violated = np.setdiff1d(np.concatenate(found), rows)
            if violated.size == 0:
                converged[columns] = few.converged
                break
            if time.perf_counter() > deadline:
                break
            rows = np.union1d(rows, violated)
    return ConeProjection(points, mass, converged)


def _or_zeros(nnls: Callable[..., Any], A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`argmin over m >= 0 of |A m - b|`; zeros, which are always admissible, if SciPy gives up."""
    try:
        return nnls(A, b, maxiter=10 * (A.shape[0] + A.shape[1]))[0]
    except RuntimeError:
        return np.zeros(A.shape[1])
