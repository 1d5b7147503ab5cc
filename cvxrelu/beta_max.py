"""`beta_max`: the smallest regularisation at which the solution is the zero network."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxrelu.best_skip import dual_of_zero
from cvxrelu.cones import project_onto_cones
from cvxrelu.pricing import Pricing
from cvxrelu.problem import Problem, build_problem
from cvxrelu.selection import select_backend
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
    margin: Any = 0.0,
    intercept: bool = False,
    skip: bool | str = False,
    skip_l2: float = 0.0,
    equality: Any = None,
    seed: int = 0,
) -> float:
    """Smallest beta for which zero is optimal: of the network program (N), or with `patterns` of the sampled one (S).

        (N)  max over |u| <= 1 of |y^T diag(weight) (X u)_+|_2,                                           a priced value
        (S)  max over patterns i, signs and outputs k of |Proj_{K_i}(+- X^T (M_i * p_k))|

    The first is the best of many ascents: it can be too small, and then by little, so that at a beta just above it the
    best network is not quite zero. The second is exact up to rounding; in it the projection onto the cone matters, for
    without it the value is 1.4 to 1.7 times larger on typical data. With c outputs (S) has neurons that serve one
    output each. Here p = R^T t for the readout R and the dual variable t of no neurons at all, beside which a skip is
    the best there is: p = weight * y for the squared loss without a skip.

    Parameters
    ----------
    X : (n, d); y : (n,) or (n, c); sample_weight : (n,) or None; loss, pairs, margin, intercept, skip, skip_l2,
    equality, seed : as in `solve`.
    patterns : None for (N), else as in `solve`.

    Returns
    -------
    float, in the units of the loss' gradient (those of beta).

    Raises
    ------
    ValueError, TypeError
        For bad input. NotImplementedError with pairs, another loss or skip_l2 where patterns is None.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> X, y = np.eye(2), np.array([3.0, 0.0])
    >>> cvxrelu.beta_max(X, y, patterns=np.array([[True], [False]]))
    3.0
    >>> round(cvxrelu.beta_max(X, y), 6)
    3.0
    """
    if patterns is None and (loss != "squared" or pairs is not None or skip_l2 != 0 or equality is not None):
        raise NotImplementedError(
            f"beta_max with loss={short(loss)}, pairs={short(pairs)}, skip_l2={short(skip_l2)} needs patterns= for now"
        )
    problem = build_problem(
        X, y, beta=1.0, loss=loss, pairs=pairs, sample_weight=sample_weight, margin=margin, intercept=intercept,
        patterns=patterns, check_patterns=False, dtype=np.float64, seed=seed, skip=skip, skip_l2=skip_l2,
        equality=equality, sampled=patterns is not None,
    )  # fmt: skip
    return _priced(problem, int(seed)) if patterns is None else _projected(problem)


def _projected(problem: Problem) -> float:
    """Largest projection onto a cone of the patterns, at the dual variable of the zero network."""
    masks = problem.patterns.patterns
    dual, _ = problem.pull_back(dual_of_zero(problem))
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
