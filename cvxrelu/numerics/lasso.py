"""The non-negative lasso over the magnitudes of fixed neurons, solved exactly (host, float64).

    minimise  1/2 s^T G s - b @ s   over s >= 0

The free variables, those that are positive or want to be, take a Newton step together, and the step is projected back
onto s >= 0: many variables enter and leave at once, and once the right ones are free a single step is exact, so a warm
start costs a few Cholesky factorisations. A projected step need not descend; where it does not, one step of an active
set method is taken: to the minimiser over the positive variables, or where that is reached over one more, but only as
far as all stay positive. That always descends, and it lets at least one variable leave or settles the others, so the
method ends. But among columns that are nearly dependent it may take hundreds of steps. After a few, an interior point
method therefore says which variables are positive, in some ten factorisations whatever the columns are, and the steps
above settle what it left open.

The variables are scaled to a unit diagonal, and a tiny ridge, which is raised where G in its precision is not positive
definite, makes the minimiser unique.
Source: Bertsekas, "Projected Newton methods for optimization problems with simple constraints", SIAM J. Control and
Optimization 20, 1982; Lawson & Hanson, "Solving least squares problems", 1974, chapter 23; Mehrotra, "On the
implementation of a primal-dual interior point method", SIAM J. Optimization 2, 1992.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

__all__ = ["nonnegative_quadratic"]

RIDGE = 1e-12  # of the diagonal: keeps the factorisation when columns repeat
TOLERANCE = 1e-11  # of the largest magnitude in the gradient
LENGTHS = (1.0, 0.5, 0.2)  # of projected steps
QUICK = 4  # steps before the interior point method
INTERIOR_STEPS, CENTRED = 60, 1e-12  # of it at most; complementarity, relative, at its end
SHORT = 0.99  # of the way to the boundary


def nonnegative_quadratic(
    G: Float[np.ndarray, "m m"], b: Float[np.ndarray, " m"], s: Float[np.ndarray, " m"], deadline: float = np.inf
) -> Float[np.ndarray, " m"]:
    """Minimiser of 1/2 s^T G s - b @ s over s >= 0, from a start s >= 0. G symmetric positive semidefinite.

    After the deadline (of `time.perf_counter`) the point reached is returned: no higher than the start.
    """
    diagonal = np.diagonal(G)
    scale = np.where(diagonal > 0, np.sqrt(np.abs(diagonal)), 1.0)
    G, b, s = G / scale / scale[:, None], b / scale, s * scale
    ridge = RIDGE
    G[np.diag_indices_from(G)] += ridge
    for step in range(100 + 10 * b.size):
        if time.perf_counter() > deadline:
            break
        if step == QUICK:
            s = _lower(G, b, s, _interior(G, b, s))
        of_G = G @ s
        gradient = of_G - b
        tolerance = TOLERANCE * (float(np.abs(b).max(initial=0.0)) + float(np.abs(of_G).max(initial=0.0)))
        positive = s > 0
        wanting = ~positive & (gradient < -tolerance)
        settled = bool(np.all(np.abs(gradient[positive]) <= tolerance))
        if settled and not wanting.any():
            break
        try:
            better = _projected(G, gradient, s, _newton(G, gradient, positive | wanting))
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


def _newton(G: np.ndarray, gradient: np.ndarray, free: Bool[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """The step to the minimiser over the free variables."""
    factor = scipy.linalg.cho_factor(G[np.ix_(free, free)], lower=True, overwrite_a=True, check_finite=False)
    step = np.zeros(len(gradient))
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


def _interior(G: np.ndarray, b: np.ndarray, s: np.ndarray) -> Float[np.ndarray, " m"]:
    """Near the minimiser: `G s - b = dual`, s * dual nearly 0 and both positive; s is zero where dual is the larger.

    Every step solves with G + diag(dual / s), once for where complementarity would be lost and once for the step.
    """
    largest, size = float(s.max(initial=0.0)), float(np.abs(b).max(initial=0.0))
    s = np.maximum(s, 1e-2 * largest if largest > 0 else 1.0)
    gradient = G @ s - b
    dual = np.maximum(gradient, 0.0) + 0.1 * float(np.abs(gradient).mean()) + np.finfo(np.float64).tiny
    for _ in range(INTERIOR_STEPS):
        gradient = G @ s - b
        rest, mean = gradient - dual, float(s @ dual) / s.size
        if np.abs(rest).max() <= CENTRED * size and mean * s.size <= CENTRED * abs(float(b @ s)):
            break
        matrix = G.copy()
        matrix[np.diag_indices_from(matrix)] += dual / s
        try:
            factor = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            break  # no closer than rounding allows
        target: Any = 0.0
        for corrected in (False, True):
            of_s = scipy.linalg.cho_solve(factor, target / s - dual - rest, check_finite=False)
            of_dual = (target - dual * of_s) / s - dual
            length = min(1.0, _reach(s, of_s), _reach(dual, of_dual))
            if not corrected:
                left = float((s + length * of_s) @ (dual + length * of_dual)) / s.size
                target = (left / mean) ** 3 * mean - of_s * of_dual
        if not np.isfinite(length):
            break
        s, dual = s + SHORT * length * of_s, dual + SHORT * length * of_dual
    # In units of which both are of one size.
    return np.where(s * dual.max(initial=0.0) > dual * s.max(initial=0.0), s, 0.0)


def _reach(v: np.ndarray, step: np.ndarray) -> float:
    """How much of the step keeps v >= 0."""
    falling = step < 0
    return float(np.min(v[falling] / -step[falling], initial=np.inf))


def _lower(G: np.ndarray, b: np.ndarray, s: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The one with the lower value."""
    move = other - s
    return other if float((G @ s - b) @ move) + 0.5 * float(move @ (G @ move)) < 0 else s
