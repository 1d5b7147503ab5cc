"""Exact pricing: the maximum of |p^T (X u)_+| over the unit ball, for one output and rank(X) <= 3.

The hyperplanes x_i @ u = 0 cut the space into cells. On a cell of pattern M, p^T (X u)_+ = q @ u with q = X^T (M * p),
hence

    max over |u| <= 1 of |p^T (X u)_+| = max over cells K and signs s of |Proj_K(s q)|,

    |Proj_K(q)| = min over mu >= 0 of |q + sum_k mu_k E_k d_k|        (d_k the unit normals, E = +-1 the pattern of K)

and every mu >= 0 bounds the value of its cell from above. All of it happens in three coordinates: of row space, rows of
one direction merged, so that with w_k = sum of p_i |x_i| over the rows along +-d_k

    p^T (X u)_+ = b @ u + sum_k w_k (d_k @ u)_+,        b = sum of p_i x_i over the rows along -d_k.

At most two constraints are active in a projection other than zero, so an active set method runs on all cells at once;
a cell is dropped as soon as its bound falls to the best value known. With multipliers in hand the local maxima over the
sphere are those with mu_k <= max(-s w_k, 0) for all k: behind plane k, q changes by -w_k E_k d_k.

What is returned bounds the truth, not the computed problem: for u in the unit ball, moving row i by delta_i changes the
function by at most sum |p_i| |delta_i|, and inner products are wrong by at most m eps times their magnitudes. The
enumeration is complete when it reaches the number of cells of planes in general position, for its patterns are distinct
and realised; otherwise planes that meet in one line up to rounding may hide cells, whose thickness is added.

Source: Pilanci & Ergen, "Neural networks are convex regularizers", ICML 2020, section 3; Cover (1965) for the count.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxrelu.certificates.cells import RANK, Arrangement, arrange
from cvxrelu.numerics.rounding import gamma, power_of_two

__all__ = ["ExactPrice", "exact_price", "price_on"]

CHUNK = 4_000_000  # entries of a temporary array
MAX_ROUNDS = 100
INSIDE = 1e-13  # a cell contains u when E_k d_k @ u >= -INSIDE |q|: tightness rests on it, validity does not
STATIONARY = 1e-9  # of |q|, for multipliers of local maxima
SAME = 1e-12  # directions with 1 - cosine below this are one
AGREEMENT = 1e-6  # relative, between the norm of a projection and the function in its direction


class ExactPrice(NamedTuple):
    """max over |u| <= 1 of |p^T (X u)_+|, and where |p^T (X u)_+| has local maxima on the sphere.

    value : an upper bound, within rounding of the maximum. direction : (d,) unit vector attaining it up to rounding;
    attained : the function there.
    directions : (d, k) unit vectors, the local maxima above `above`, best first; values : (k,) the function there.
    """

    value: float
    attained: float
    direction: Float[np.ndarray, " d"]
    directions: Float[np.ndarray, "d k"]
    values: Float[np.ndarray, " k"]


def exact_price(
    X: Float[np.ndarray, "n d"],
    p: Float[np.ndarray, " n"],
    *,
    limit: int = 2_000_000,
    above: float = 0.0,
    deadline: float = np.inf,
) -> ExactPrice:
    """`max over |u|_2 <= 1 of |p^T (X u)_+|`, rigorous, by all cells of the arrangement of X.

    Parameters
    ----------
    X : (n, d) float64 of rank at most 3, any d. Rows may be zero, repeated, parallel.
    p : (n,) float64, one output.
    limit : most cells to enumerate; n rows of rank 3 have up to n^2 - n + 2.
    above : local maxima with a value above this are returned as `directions`; `inf` asks for none and is faster.
    deadline : of `time.perf_counter`: cells not looked at by then count with the bound that takes no projection.

    Returns
    -------
    ExactPrice

    Raises
    ------
    ValueError : the rank of X is above 3, there are more than `limit` cells, or float64 cannot tell them apart; X and p
        differ in length.
    OutOfTime : at the deadline the cells were not even enumerated.

    Examples
    --------
    >>> import numpy as np
    >>> price = exact_price(np.eye(2), np.array([3.0, -4.0]))
    >>> round(price.value, 12), price.directions.round(12) + 0.0
    (4.0, array([[0., 1.],
           [1., 0.]]))
    """
    return price_on(arrange(X, limit=limit, deadline=deadline), p, above=above, deadline=deadline)


def price_on(
    arrangement: Arrangement, p: Float[np.ndarray, " n"], *, above: float = 0.0, deadline: float = np.inf
) -> ExactPrice:
    """`exact_price` of another p on cells that are there already."""
    n, K = len(arrangement.rows), len(arrangement.normals)
    if p.shape != (n,):
        raise ValueError(f"p must have shape ({n},), one entry for each row of X, got {p.shape}")
    p_unit = power_of_two(p)
    p, unit = p / p_unit, p_unit * arrangement.unit
    along = np.sum(arrangement.rows * arrangement.normals[arrangement.plane], axis=1)
    weights = np.bincount(arrangement.plane, p * np.abs(along), minlength=K)
    b = np.where(along < 0, p, 0.0) @ arrangement.rows
    rounding = gamma(n, RANK)
    best, points, maxima = 0.0, [np.eye(RANK, 1) * 0.0], [np.zeros(1, dtype=bool)]
    step = max(1, CHUNK // K)
    for start in range(0, arrangement.patterns.shape[1], step):
        patterns = arrangement.patterns[:, start : start + step]
        q = (weights[:, None] * arrangement.normals).T @ patterns + b[:, None]
        if time.perf_counter() > deadline:
            best = max(best, float(np.linalg.norm(q, axis=0).max()))
            continue
        for sign in (1.0, -1.0):
            cells = _project(arrangement.normals, patterns, sign * q, sign * weights, best, above / unit, rounding)
            best = max(best, cells.bounds.max(initial=0.0))
            points.append(cells.points)
            maxima.append(cells.maxima)
    mass = float(np.abs(p) @ arrangement.lengths)
    allowance = float(np.abs(p) @ arrangement.moved) + rounding * mass
    value = (1.0 + 4.0 * rounding) * (best + allowance) * unit
    point, maximum = np.concatenate(points, axis=1), np.concatenate(maxima)
    norms = np.linalg.norm(point, axis=0)
    longest = _unit(point[:, [np.argmax(norms)]])
    attained = float(np.abs(p @ np.maximum(arrangement.rows @ longest, 0.0))[0]) * unit
    found = np.flatnonzero(maximum & (norms * unit > above) & (norms > 0))
    found = found[_distinct(point[:, found], norms[found])]
    directions, values = _unit(point[:, found]), norms[found]
    # A maximum as small as the rounding of q may lie outside its cell, where the function is another.
    sound = np.abs(np.abs(p @ np.maximum(arrangement.rows @ directions, 0.0)) - values) <= AGREEMENT * values
    directions, values = arrangement.basis @ directions[:, sound], values[sound] * unit
    return ExactPrice(float(value), attained, _unit(arrangement.basis @ longest)[:, 0], directions, values)


class _Cells(NamedTuple):
    """Of the cells that were not dropped: projections, upper bounds on their norms, which are local maxima."""

    points: Float[np.ndarray, "3 B"]
    bounds: Float[np.ndarray, " B"]
    maxima: Bool[np.ndarray, " B"]


def _project(
    normals: np.ndarray,
    patterns: np.ndarray,
    q: np.ndarray,
    weights: np.ndarray,
    best: float,
    above: float,
    rounding: float,
) -> _Cells:
    """Column b of q onto the cell of column b of `patterns`, where the result may exceed min(best, above)."""
    columns, u = np.arange(q.shape[1]), q
    active, mu = np.full((2, q.shape[1]), -1), np.zeros((2, q.shape[1]))
    bounds = np.linalg.norm(q, axis=0)
    finished: list[_Cells] = []
    for _ in range(MAX_ROUNDS):
        kept = bounds > min(best, above)
        columns, u, active, mu, bounds = columns[kept], u[:, kept], active[:, kept], mu[:, kept], bounds[kept]
        if columns.size == 0:
            break
        slack = normals @ u
        np.negative(slack, out=slack, where=~patterns[:, columns])
        entering = np.argmin(slack, axis=0)
        size = np.linalg.norm(q[:, columns], axis=0)
        done = slack[entering, np.arange(columns.size)] >= -INSIDE * size
        better = _enter(normals, patterns, q, columns, np.vstack([entering, active]), rounding)
        stuck = ~done & ~(better.bounds < bounds)
        over = done | stuck
        kinks = np.where(active >= 0, np.maximum(-weights[active], 0.0), 0.0)
        maxima = done & np.all(mu <= kinks + STATIONARY * size, axis=0)
        finished.append(_Cells(_onto(normals, active[:, over], u[:, over]), bounds[over], maxima[over]))
        best = max(best, bounds[over].max(initial=0.0))
        columns, u, active = columns[~over], better.u[:, ~over], better.active[:, ~over]
        mu, bounds = better.mu[:, ~over], better.bounds[~over]
    finished.append(_Cells(u, bounds, np.zeros(len(bounds), dtype=bool)))
    return _Cells(*(np.concatenate(parts, axis=-1) for parts in zip(*finished, strict=True)))


def _onto(normals: np.ndarray, active: Int[np.ndarray, "2 B"], u: Float[np.ndarray, "3 B"]) -> np.ndarray:
    """u on its active planes once more: short beside q, it is off them by the rounding of q."""
    lengths = np.linalg.norm(u, axis=0)
    u = (u / np.where(lengths > 0, lengths, 1.0)).T
    first, second = ((active[k] >= 0)[:, None] * normals[active[k]] for k in (0, 1))
    second = second - _dots(first, second)[:, None] * first
    second = _unit(second.T).T * np.any(second != 0, axis=1)[:, None]
    for _ in range(2):
        for normal in (first, second):
            u = u - _dots(normal, u)[:, None] * normal
    return u.T * lengths


class _Step(NamedTuple):
    u: Float[np.ndarray, "3 B"]
    active: Int[np.ndarray, "2 B"]
    mu: Float[np.ndarray, "2 B"]
    bounds: Float[np.ndarray, " B"]


def _enter(
    normals: np.ndarray,
    patterns: np.ndarray,
    q: np.ndarray,
    columns: np.ndarray,
    planes: Int[np.ndarray, "3 B"],
    rounding: float,
) -> _Step:
    """The lowest bound over subsets of three planes that contain the first one; -1 stands for no plane."""
    q = q[:, columns]
    present = planes >= 0
    signs = np.where(patterns[planes, columns], 1.0, -1.0) * present
    c, a, b = signs[:, :, None] * normals[planes]
    none = np.zeros(len(columns))
    choices = [(np.array([0, -1]), np.stack([-_dots(q.T, c), none, none]))]
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, other in ((1, a), (2, b)):
            line = np.cross(c, other)
            length = _dots(line, line)
            first, second = -_dots(q.T, np.cross(other, line)) / length, -_dots(q.T, np.cross(line, c)) / length
            choices.append((np.array([0, k]), np.stack([first, *((second, none) if k == 1 else (none, second))])))
        triples = [np.cross(a, b), np.cross(b, c), np.cross(c, a)]
        volume = _dots(c, triples[0])
        choices.append((np.array([-1, -1]), np.stack([-_dots(q.T, triple) / volume for triple in triples])))
    step = _Step(q, np.full((2, len(columns)), -1), np.zeros((2, len(columns))), np.full(len(columns), np.inf))
    for chosen, mu in choices:
        mu = np.where(np.all(mu >= 0, axis=0) & np.all(np.isfinite(mu), axis=0), mu, np.nan)
        u = q + (mu[0, :, None] * c + mu[1, :, None] * a + mu[2, :, None] * b).T
        bounds = np.linalg.norm(u, axis=0) + rounding * mu.sum(axis=0)
        lower = bounds < step.bounds  # false for nan
        # At the tip of the cell, reached by three planes, nothing is a maximum.
        kept = np.where(chosen[:, None] < 0, np.inf if chosen[0] < 0 else 0.0, mu[chosen])
        kept_planes = np.where(chosen[:, None] < 0, -1, planes[chosen])
        step = _Step(
            np.where(lower, u, step.u),
            np.where(lower, kept_planes, step.active),
            np.where(lower, kept, step.mu),
            np.where(lower, bounds, step.bounds),
        )
    return step


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, axis=1)


def _distinct(points: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Indices of one column for each direction, the longest first."""
    order = np.argsort(-norms, kind="stable")
    unit = _unit(points[:, order])
    kept: list[int] = []
    for k in range(len(order)):
        if not kept or np.max(unit[:, k] @ unit[:, kept]) < 1.0 - SAME:
            kept.append(k)
    return order[np.array(kept, dtype=np.intp)]


def _unit(points: np.ndarray) -> np.ndarray:
    """Columns divided by their norms; zero becomes the first unit vector."""
    norms = np.linalg.norm(points, axis=0)
    first = np.eye(len(points), 1)
    return np.where(norms > 0, points, first) / np.where(norms > 0, norms, 1.0)
