"""`beta_max`: the smallest regularisation at which the solution is the zero network."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxrelu.backends.choose import select_backend
from cvxrelu.certificates.pricing import Pricing
from cvxrelu.certificates.search_space import SearchSpace
from cvxrelu.program.best_skip import dual_of_zero
from cvxrelu.program.problem import Problem, build_problem
from cvxrelu.sampled.cones import project_onto_cones

__all__ = ["beta_max", "of_network_program", "of_sampled_program"]

BATCH = 8
SMALL = 200_000  # entries of X up to which ascents take many steps
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
    """Smallest beta for which no neuron is worth having: of the network program (N), or of the sampled one (S).

        (N)  max over |u| <= 1 of |p^T (X u)_+|_2,                                                        a priced value
        (S)  max over patterns i, signs and outputs k of |Proj_{K_i}(+- X^T (M_i * p_k))|

    where p = R^T t and t is minus the derivative of the loss at the prediction of the best skip alone: weight y without
    one, for the squared loss. The first is the best of many ascents: it can be too small, and then by little, so that
    at a beta just above it the best network is not quite zero. The second is exact up to rounding; in it the projection
    onto the cone matters, for without it the value is 1.4 to 1.7 times larger on typical data. With c outputs (S) has
    neurons that serve one output each.

    Parameters
    ----------
    X, y, loss, pairs, sample_weight, margin, intercept, skip, skip_l2, equality, seed : as in `solve`.
    patterns : None for (N), else as in `solve`.

    Returns
    -------
    float, in the units of the loss' gradient (those of beta).

    Raises
    ------
    ValueError, TypeError
        For bad input.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> X, y = np.eye(2), np.array([3.0, 0.0])
    >>> cvxrelu.beta_max(X, y, patterns=np.array([[True], [False]]))
    3.0
    >>> round(cvxrelu.beta_max(X, y), 6)
    3.0
    """
    problem = build_problem(
        X, y, beta=1.0, loss=loss, pairs=pairs, sample_weight=sample_weight, margin=margin, intercept=intercept,
        skip=skip, skip_l2=skip_l2, equality=equality, patterns=patterns, dtype=np.float64, seed=seed,
        sampled=patterns is not None,
    )  # fmt: skip
    if patterns is None:
        return of_network_program(problem, SearchSpace(problem.X), int(seed))
    return of_sampled_program(problem)


def of_network_program(problem: Problem, space: SearchSpace, seed: int) -> float:
    """The value for (N); space : of the X of the problem."""
    p, _ = problem.pull_back(dual_of_zero(problem))
    backend, at = select_backend("numpy", (), 0.0), space.coordinates()
    pricing = Pricing(backend, space.ground(backend, at), np.random.default_rng([seed, 4]), even=problem.even)
    # With many rows the value is smoother in the direction, and every step dearer.
    steps = (30, 60) if problem.X.size <= SMALL else (12, 24)
    return pricing.price(p, np.zeros((pricing.d, 0)), STARTS, steps=steps).price


def of_sampled_program(problem: Problem) -> float:
    """The value for (S), of the patterns of the problem."""
    p, _ = problem.pull_back(dual_of_zero(problem))
    masks = problem.patterns.patterns
    # (d, c, P) correlations; both signs are candidates, and |q| bounds its projection, so the largest go first.
    q = np.tensordot(problem.X.T, masks[:, None, :] * p[:, :, None], axes=1)
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
        projection = project_onto_cones(problem.X, masks[:, columns[batch]], candidates[:, batch], limit=best)
        best = max(best, float(np.linalg.norm(projection.points, axis=0).max()))
    return best
