"""`beta_max`: the smallest regularisation at which the solution is the zero network."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxrelu.cones import project_onto_cones
from cvxrelu.options import short
from cvxrelu.problem import build_problem

__all__ = ["beta_max"]

BATCH = 32


def beta_max(
    X: Any,
    y: Any = None,
    *,
    patterns: Any = None,
    loss: str = "squared",
    pairs: Any = None,
    sample_weight: Any = None,
    intercept: bool = False,
    seed: int = 0,
) -> float:
    """Smallest beta for which zero solves the sampled program (S):

        beta_max = max over patterns i, signs and outputs k of |Proj_{K_i}(+- X^T (M_i * weight * y_k))|

    The projection onto the cone matters: without it the value is 1.4 to 1.7 times larger on typical data. For every
    beta at or above the result zero is optimal, below it is not. With c outputs it is the value of (S), whose neurons
    serve one output each.

    Parameters
    ----------
    X : (n, d); y : (n,) or (n, c); sample_weight : (n,) or None; intercept, seed : as in `solve`.
    patterns : as in `solve`. None asks for the value of the network program (N), which needs pricing and is not there
        yet.

    Returns
    -------
    float, in the units of the loss' gradient (those of beta).

    Raises
    ------
    ValueError, TypeError
        For bad input. NotImplementedError without patterns, with pairs, or with another loss.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> X, y = np.eye(2), np.array([3.0, 0.0])
    >>> cvxrelu.beta_max(X, y, patterns=np.array([[True], [False]]))
    3.0
    """
    if patterns is None:
        raise NotImplementedError(
            "beta_max without patterns= (the network program) is not implemented yet; pass patterns="
        )
    if loss != "squared" or pairs is not None:
        raise NotImplementedError(
            f"beta_max with loss={short(loss)}, pairs={short(pairs)} is not implemented yet; only loss='squared' is"
        )
    problem = build_problem(
        X, y, beta=1.0, sample_weight=sample_weight, intercept=intercept, patterns=patterns, check_patterns=False,
        dtype=np.float64, seed=seed,
    )  # fmt: skip
    masks, dual = problem.patterns.patterns, problem.loss.dual(np.zeros_like(problem.loss.y))
    # (d, c, P) correlations; both signs are candidates, and |q| bounds its projection, so the largest go first.
    q = np.tensordot(problem.X.T, masks[:, None, :] * dual[:, :, None], axes=1)
    candidates = np.concatenate([q, -q], axis=1).reshape(q.shape[0], -1)
    columns = np.tile(np.arange(masks.shape[1]), 2 * q.shape[1])
    lengths = np.linalg.norm(candidates, axis=0)
    order = np.argsort(-lengths, kind="stable")
    best = 0.0
    for start in range(0, order.size, BATCH):
        batch = order[start : start + BATCH]
        batch = batch[lengths[batch] > best]
        if batch.size == 0:
            break
        projection = project_onto_cones(problem.X, masks[:, columns[batch]], candidates[:, batch])
        best = max(best, float(np.linalg.norm(projection.points, axis=0).max()))
    return best
