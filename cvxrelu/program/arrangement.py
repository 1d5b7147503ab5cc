"""All activation patterns of a data matrix of rank at most 3: the cells of a central hyperplane arrangement."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from cvxrelu.numerics.rounding import EPS
from cvxrelu.program.patterns import Patterns, _data, _first_occurrences, _unit_rows
from cvxrelu.support.errors import OutOfTime

__all__ = ["count_patterns", "enumerate_by", "enumerate_patterns"]

_CHUNK = 4_000_000  # entries of a temporary array
_PARALLEL = 1e-10  # rows whose directions differ by less span one hyperplane


def count_patterns(n: int, r: int) -> int:
    """`2 sum_{k < r} C(n - 1, k)`: the patterns of n rows of rank r in general position, an upper bound for any n rows.

    Source: Cover (1965), theorem 1.

    >>> count_patterns(5, 2), count_patterns(200, 3)
    (10, 39802)
    """
    if n < 1 or r < 1:
        raise ValueError(f"n is {n} and r is {r}; expected both to be at least 1")
    return 2 * sum(math.comb(n - 1, k) for k in range(r))


def enumerate_patterns(X: ArrayLike, *, limit: int = 2_000_000) -> Patterns:
    """Every `1[X g >= 0]` over the g with `x @ g != 0` for all nonzero rows x, each with such a g; rank(X) <= 3.

    These are the patterns of the full-dimensional cells of the arrangement of the hyperplanes `x @ g = 0`; the closures
    of the cells cover the whole space, so nothing is lost for cone constraints. Rows may repeat, be parallel,
    antiparallel, zero (their entry is then always True) or otherwise dependent. The all-zero pattern is included where
    it exists.

    In the plane, cells are the sectors between consecutive lines. In rank 3 each cell is a pointed cone, found once: at
    its best extreme ray for a fixed linear function over the section `sum_j |x_j @ g| = 1`, flat within a cell.
    The count is checked against the number of cells that the intersections imply, and every entry of a pattern against
    the rounding error of `x @ g`: what is returned is complete and realised, or an error is raised.

    Parameters
    ----------
    X : (n, d) real, evaluated in float64. Rows whose directions differ by less than 1e-10 (in coordinates that make
        X well conditioned) count as parallel.
    limit : most patterns to return; n times as many bytes are needed.

    Raises
    ------
    ValueError : rank(X) > 3; more than `limit` patterns; rows so nearly degenerate that float64 cannot tell the cells.
    TypeError : X is not real.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> patterns, gates = enumerate_patterns(X)
    >>> patterns.shape[1], np.array_equal(X @ gates >= 0, patterns)
    (6, True)
    """
    return enumerate_by(X, limit, np.inf)


def enumerate_by(X: ArrayLike, limit: int, deadline: float) -> Patterns:
    """`enumerate_patterns`, or `OutOfTime` when it is not done at the deadline (of `time.perf_counter`)."""
    X = _data(X)
    rows = X[np.any(X != 0, axis=1)]
    if len(rows) == 0:
        return Patterns(np.ones((len(X), 1), dtype=bool), np.full((X.shape[1], 1), X.shape[1] ** -0.5))
    scale = np.max(np.abs(rows), axis=0)
    scale[scale == 0] = 1.0
    rows = _unit_rows(rows / scale)
    _, values, basis = np.linalg.svd(rows, full_matrices=False)
    rank = int(np.sum(values > max(rows.shape) * EPS * values[0]))
    if rank > 3:
        raise ValueError(
            f"X has rank {rank}; all patterns are enumerated up to rank 3 only: "
            "use sample_patterns, or another kind of certificate"
        )
    to_gates = basis[:rank].T / values[:rank]  # whitened coordinates: cells are least thin there
    normals = _unit_rows(_hyperplanes(_unit_rows(rows @ to_gates)))
    if rank == 1:
        cells = np.array([[1.0, -1.0]])
    elif rank == 2:
        cells = _cells_2(normals)
    else:
        resolution = 64 * EPS * values[0] / values[rank - 1]
        cells = _cells_3(normals, resolution, limit, deadline)
    if cells.shape[1] > limit:
        raise _too_many(limit)
    gates = (to_gates @ cells) / scale[:, None]
    gates /= np.linalg.norm(gates, axis=0)
    patterns = np.empty((len(X), gates.shape[1]), dtype=bool)
    resolved = True
    for part in _chunks(gates.shape[1], len(X)):
        _look_at_clock(deadline)
        product = X @ gates[:, part]
        error = 4 * X.shape[1] * EPS * (np.abs(X) @ np.abs(gates[:, part]))
        patterns[:, part] = product >= 0
        resolved &= bool(np.all((np.abs(product) > error) | (error == 0)))
    if not resolved or len(_first_occurrences(patterns)) != patterns.shape[1]:
        raise _degenerate()
    return Patterns(patterns, gates)


def _look_at_clock(deadline: float) -> None:
    if time.perf_counter() > deadline:
        raise OutOfTime


def _chunks(count: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK // width)
    return (slice(start, start + step) for start in range(0, count, step))


def _direction(r: int, seed: int) -> np.ndarray:
    """A fixed vector in general position."""
    return np.random.default_rng(seed).standard_normal(r)


def _hyperplanes(rows: np.ndarray) -> np.ndarray:
    """One of each bundle of parallel or antiparallel unit rows: neighbours once sorted along a generic direction."""
    projection = rows @ _direction(rows.shape[1], 1)
    order = np.argsort(np.abs(projection))
    rows = np.where(projection[order, None] < 0, -rows[order], rows[order])
    new = np.linalg.norm(np.diff(rows, axis=0), axis=1) > _PARALLEL
    return rows[np.concatenate([[True], new])]


def _cells_2(normals: np.ndarray) -> np.ndarray:
    """The bisector of each sector between the lines with these (K, 2) normals: (2, 2K)."""
    angles = np.sort(np.arctan2(normals[:, 1], normals[:, 0]) % np.pi)  # of the normals, a quarter turn off
    middles = (angles + np.append(angles[1:], angles[0] + np.pi)) / 2 + np.pi / 2
    half = np.array([np.cos(middles), np.sin(middles)])
    return np.concatenate([half, -half], axis=1)


def _cells_3(normals: np.ndarray, resolution: float, limit: int, deadline: float) -> np.ndarray:
    """A vector inside each cell of the planes with these (K, 3) normals: (3, count)."""
    K = len(normals)
    cells, expected, pairs = [np.empty((3, 0))], 2, 0
    for i in range(K - 1):  # lines where plane i meets planes j > i, each taken at the first two planes that contain it
        _look_at_clock(deadline)
        same = np.where(normals @ normals[i] < 0, -1.0, 1.0)[:, None]
        crosses = np.cross(normals[i], normals - same * normals[i])  # the subtraction keeps those of near rows accurate
        sines = np.linalg.norm(crosses, axis=1)
        rays = crosses[i + 1 :] / sines[i + 1 :, None]
        products = normals @ rays.T
        incident = np.abs(products) <= resolution * (1 + sines[:, None] / sines[i + 1 :])  # what rounding can move them
        partner = np.arange(i + 1, K)
        incident[i], incident[partner, np.arange(len(partner))] = True, True
        known = np.cumsum(incident, axis=0)[partner, np.arange(len(partner))] > 2
        rays, products, incident = rays[~known], products[:, ~known], incident[:, ~known]
        through = incident.sum(axis=0)
        expected += 2 * int(np.sum(through - 1))
        pairs += int(np.sum(through * (through - 1) // 2))
        if expected > limit:
            raise _too_many(limit)
        if np.any(through == K):  # all planes through one line: in truth the rank is 2
            raise _degenerate()
        for t in np.unique(through):
            group = through == t
            members = np.nonzero(incident[:, group].T)[1].reshape(-1, t)
            ray, product = rays[group], products[:, group]
            cells.append(_cells_at(normals, ray, product, members))
            cells.append(_cells_at(normals, -ray, -product, members))
    found = np.concatenate(cells, axis=1)
    if pairs != K * (K - 1) // 2 or found.shape[1] != expected:
        raise _degenerate()
    return found


def _cells_at(normals: np.ndarray, rays: np.ndarray, products: np.ndarray, members: np.ndarray) -> np.ndarray:
    """A vector inside each of the cells that are to be found at these extreme rays; (3, count).

    rays (R, 3), products (K, R) = normals @ rays.T, members (R, t): the planes through each ray. They cut the space
    around the ray into 2t sectors, each the tip of one cell. It is kept when the objective falls along both edges.
    """
    R, t = members.shape
    side = np.sign(products)
    side[members, np.arange(R)[:, None]] = 0.0
    total = np.sum(side * products, axis=0)
    through = normals[members]  # (R, t, 3)
    edges = np.cross(rays[:, None], through)
    edges = np.concatenate([edges, -edges], axis=1)  # of norm 1: rays and normals are orthogonal
    e1 = edges[:, 0]
    e2 = np.cross(rays, e1)
    order = np.argsort(np.arctan2(np.einsum("rek,rk->re", edges, e2), np.einsum("rek,rk->re", edges, e1)), axis=1)
    edges = np.take_along_axis(edges, order[:, :, None], axis=1)
    objective = _direction(3, 2)
    growth = np.einsum("rek,rk->re", edges, side.T @ normals) + np.abs(edges @ through.transpose(0, 2, 1)).sum(axis=2)
    slope = edges @ objective - (rays @ objective / total)[:, None] * growth
    ray, sector = np.nonzero((slope < 0) & (np.roll(slope, -1, axis=1) < 0))
    inward = _unit_rows(edges[ray, sector] + edges[ray, (sector + 1) % (2 * t)])
    found = [np.empty((3, 0))]
    for part in _chunks(len(ray), len(normals)):  # turn from the ray inward by half the angle at which the cell ends
        at, to = ray[part], inward[part]
        with np.errstate(divide="ignore", invalid="ignore"):
            cotangents = np.where(side[:, at] != 0, -(normals @ to.T) / products[:, at], -np.inf).max(axis=0)
        half = np.arctan2(1.0, cotangents) / 2
        found.append((np.cos(half)[:, None] * rays[at] + np.sin(half)[:, None] * to).T)
    return np.concatenate(found, axis=1)


def _too_many(limit: int) -> ValueError:
    return ValueError(f"X has more than limit = {limit} patterns; raise limit, or use sample_patterns")


def _degenerate() -> ValueError:
    return ValueError(
        "X has rows so nearly parallel or dependent that float64 cannot tell the cells apart; round or standardise X, "
        "or use sample_patterns"
    )
