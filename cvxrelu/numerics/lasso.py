"""The non-negative lasso over the magnitudes of fixed neurons, solved exactly (host, float64).

    minimise  1/2 s^T G s - b @ s   over s >= 0

The free variables, those that are positive or want to be, take a Newton step together, and the step is projected back
onto s >= 0: many variables enter and leave at once, and once the right ones are free a single step is exact, so a warm
start costs a few Cholesky factorisations. A projected step need not descend; where it does not, one step of an active
set method is taken: to the minimiser over the positive variables, or where that is reached over one more, but only as
far as all stay positive. That always descends, and it lets at least one variable leave or settles the others, so the
method ends. After a few such steps in a row, or where many variables want to enter, all that the full step makes
negative are dropped together, again and again until none is, and the point is taken if it is lower.

The variables are scaled to a unit diagonal, and a tiny ridge, which is raised where G in its precision is not positive
definite, makes the minimiser unique.
Source: Bertsekas, "Projected Newton methods for optimization problems with simple constraints", SIAM J. Control and
Optimization 20, 1982; Lawson & Hanson, "Solving least squares problems", 1974, chapter 23.
"""

from __future__ import annotations

import time

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

__all__ = ["nonnegative_quadratic"]

RIDGE = 1e-12  # of the diagonal: keeps the factorisation when columns repeat
TOLERANCE = 1e-11  # of the largest magnitude in the gradient
LENGTHS = (1.0, 0.5, 0.2)  # of projected steps
CRAWL = 5  # steps of the active set method in a row, or variables that want to enter, which are too many for it
PRUNINGS = 20


def nonnegative_quadratic(
    G: Float[np.ndarray, "m m"], b: Float[np.ndarray, " m"], s: Float[np.ndarray, " m"], deadline: float = np.inf
) -> Float[np.ndarray, " m"]:
    """Minimiser of 1/2 s^T G s - b @ s over s >= 0, from a start s >= 0. G symmetric positive semidefinite.

    After the deadline (of `time.perf_counter`) the point reached is returned: no higher than the start.
    """
    diagonal = np.diagonal(G)
    scale = np.where(diagonal > 0, np.sqrt(np.abs(diagonal)), 1.0)
    G, b, s = G / scale / scale[:, None], b / scale, s * scale
    ridge, crawled = RIDGE, 0
    G[np.diag_indices_from(G)] += ridge
    for _ in range(100 + 10 * b.size):
        if time.perf_counter() > deadline:
            break
        of_G = G @ s
        gradient = of_G - b
        tolerance = TOLERANCE * (float(np.abs(b).max(initial=0.0)) + float(np.abs(of_G).max(initial=0.0)))
        positive = s > 0
        wanting = ~positive & (gradient < -tolerance)
        settled = bool(np.all(np.abs(gradient[positive]) <= tolerance))
        if settled and not wanting.any():
            break
        try:
            free = positive | wanting
            better = _projected(G, gradient, s, _newton(G, gradient, free))
            crawled = crawled + 1 if better is None else 0
            if crawled > CRAWL or (better is None and np.sum(wanting) > CRAWL):
                better, crawled = _pruned(G, gradient, s, free), 0
            if better is None:
                if settled:
                    positive[np.argmin(np.where(wanting, gradient, np.inf))] = True
                better = _within(s, _newton(G, gradient, positive))
        except scipy.linalg.LinAlgError:
            G[np.diag_indices_from(G)] += 9 * ridge
            ridge *= 10
            continue
        if np.array_equal(better, s):
            break
        s = better
    return s / scale


def _newton(
    G: np.ndarray, gradient: np.ndarray, free: Bool[np.ndarray, " m"], leaving: Float[np.ndarray, " m"] | None = None
) -> Float[np.ndarray, " m"]:
    """The step to the minimiser over the free variables; with `leaving` the others go to zero from these values."""
    factor = scipy.linalg.cho_factor(G[np.ix_(free, free)], lower=True, overwrite_a=True, check_finite=False)
    step = np.zeros(len(gradient))
    if leaving is not None:
        step[~free] = -leaving[~free]
        gradient = gradient + G[:, ~free] @ step[~free]
    step[free] = -scipy.linalg.cho_solve(factor, gradient[free], check_finite=False)
    return step


def _projected(G: np.ndarray, gradient: np.ndarray, s: np.ndarray, step: np.ndarray) -> np.ndarray | None:
    """The step, projected, if it or a shorter one falls as its slope promises."""
    for length in LENGTHS:
        trial = np.maximum(s + length * step, 0.0)
        move = trial - s
        slope = float(gradient @ move)
        if slope < 0 and 0.5 * float(move @ (G @ move)) <= -0.99 * slope:
            return trial
    return None


def _pruned(G: np.ndarray, gradient: np.ndarray, s: np.ndarray, free: np.ndarray) -> np.ndarray | None:
    """The minimiser over the free variables without those that turn negative, again and again, if it is lower."""
    for _ in range(PRUNINGS):
        trial = s + _newton(G, gradient, free, s)
        negative = free & (trial < 0)
        if not negative.any():
            move = trial - s
            return trial if float(gradient @ move) + 0.5 * float(move @ (G @ move)) < 0 else None
        free = free & ~negative
    return None


def _within(s: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The step as far as no variable becomes negative; the one that stops it becomes zero."""
    falling = np.flatnonzero(step < 0)
    lengths = s[falling] / -step[falling]
    if lengths.min(initial=1.0) >= 1.0:
        return s + step
    first = np.argmin(lengths)
    trial = np.maximum(s + lengths[first] * step, 0.0)
    trial[falling[first]] = 0.0
    return trial
