"""`beta_max`: the smallest regularisation at which the solution is the zero network."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxrelu.cones import project_onto_cones
from cvxrelu.pricing import Pricing
from cvxrelu.problem import Problem, build_problem
from cvxrelu.selection import select_backend
from cvxrelu.skip import as_skip
from cvxrelu.validation import short

__all__ = ["beta_max"]

BATCH = 32
STARTS = 256  # Gaussian starts of a priced value, and an eighth of that for every kind of spectral ones


def beta_max(
    X: Any,
    y: Any = None,
    *,
    patterns: Any = None,
    loss: str = "squared",
    pairs: Any = None,
    sample_weight: Any = None,
    intercept: bool = False,
    skip: bool | str = False,
    seed: int = 0,
) -> float:
    """Smallest beta for which zero is optimal: of the network program (N), or with `patterns` of the sampled one (S).

        (N)  max over |u| <= 1 of |y^T diag(weight) (X u)_+|_2,                                           a priced value
        (S)  max over patterns i, signs and outputs k of |Proj_{K_i}(+- X^T (M_i * weight * y_k))|

    The first is the best of many ascents: it can be too small, and then by little, so that at a beta just above it the
    best network is not quite zero. The second is exact up to rounding; in it the projection onto the cone matters, for
    without it the value is 1.4 to 1.7 times larger on typical data. With c outputs (S) has neurons that serve one
    output each. With a skip, y is first rid of what the skip explains.

    Parameters
    ----------
    X : (n, d); y : (n,) or (n, c); sample_weight : (n,) or None; intercept, skip, seed : as in `solve`.
    patterns : None for (N), else as in `solve`.

    Returns
    -------
    float, in the units of the loss' gradient (those of beta).

    Raises
    ------
    ValueError, TypeError
        For bad input. NotImplementedError with pairs, with another loss, or with a skip and patterns.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> X, y = np.eye(2), np.array([3.0, 0.0])
    >>> cvxrelu.beta_max(X, y, patterns=np.array([[True], [False]]))
    3.0
    >>> round(cvxrelu.beta_max(X, y), 6)
    3.0
    """
    if loss != "squared" or pairs is not None:
        raise NotImplementedError(
            f"beta_max with loss={short(loss)}, pairs={short(pairs)} is not implemented yet; only loss='squared' is"
        )
    if patterns is not None and as_skip(skip) is not None:
        raise NotImplementedError(f"beta_max with skip={short(skip)} and patterns= is not implemented")
    problem = build_problem(
        X, y, beta=1.0, sample_weight=sample_weight, intercept=intercept, patterns=patterns, check_patterns=False,
        dtype=np.float64, seed=seed, skip=skip, sampled=patterns is not None,
    )  # fmt: skip
    if patterns is None:
        return _priced(problem, int(seed))
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


def _priced(problem: Problem, seed: int) -> float:
    """Largest value found by ascents at the dual variable of the zero network."""
    dual = problem.loss.dual(np.zeros_like(problem.loss.y))
    backend = select_backend("numpy", (), 0.0)
    pricing = Pricing(backend, problem.X, problem.X, np.random.default_rng([seed, 4]))
    return pricing.price(dual, np.zeros((problem.X.shape[1], 0)), STARTS, steps=(30, 60)).price
