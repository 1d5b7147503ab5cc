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

from cvxrelu.certificates.cell_projection import project, unit_columns
from cvxrelu.numerics.rounding import EPS, gamma, power_of_two
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.arrangement import count_patterns, enumerate_by

__all__ = ["Arrangement", "ExactPrice", "arrange", "exact_price", "price_on"]

RANK = 3
CHUNK = 4_000_000  # entries of a temporary array
SAME = 1e-12  # directions with 1 - cosine below this are one
INDISTINCT = 1e-8  # of the size of X: cells that may hide between planes have to be thinner
AGREEMENT = 1e-6  # relative, between the norm of a projection and the function in its direction


class Arrangement(NamedTuple):
    """The cells of X in coordinates of its row space, padded to three: prepared once, priced for any number of p."""

    basis: Float[np.ndarray, "d 3"]  # orthonormal, columns beyond the rank zero
    lengths: Float[np.ndarray, " n"]  # |x_i|
    moved: Float[np.ndarray, " n"]  # at most so far is x_i from its multiple of normals[plane], or hidden in the cells
    rows: Float[np.ndarray, "n 3"]  # that multiple
    plane: Int[np.ndarray, " n"]  # which plane it belongs to; zero rows to plane 0
    normals: Float[np.ndarray, "K 3"]
    patterns: Bool[np.ndarray, "K cells"]  # 1[normals @ g >= 0]
    unit: float  # power of two that lengths, moved and rows are divided by


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


def arrange(X: Float[np.ndarray, "n d"], *, limit: int = 2_000_000, deadline: float = np.inf) -> Arrangement:
    """The cells of X, of rank at most 3; parameters and errors as in `exact_price`."""
    n, d = X.shape
    unit = power_of_two(X)
    X = X / unit
    lengths = np.linalg.norm(X, axis=1)
    space = row_space(X)
    rank = space.rows.shape[1]
    if rank > RANK:
        raise ValueError(f"X must have rank at most {RANK} for exact pricing, got rank {rank}: use a relaxed price")
    basis, Z = (np.pad(array, ((0, 0), (0, RANK - rank))) for array in (space.basis, space.rows))
    normals, plane = np.zeros((1, RANK)), np.zeros(n, dtype=np.intp)
    normals[0, 0], patterns, thickness = 1.0, np.array([[True, False]]), np.zeros(n)
    if rank > 0:
        found = enumerate_by(Z[:, :rank], limit, deadline).patterns
        first, plane = _planes(found, np.any(Z != 0, axis=1))
        patterns, normals = found[first], Z[first] / np.linalg.norm(Z[first], axis=1)[:, None]
        if patterns.shape[1] < count_patterns(len(first), rank):
            thickness = _thickness(Z[:, :rank], lengths)
    # Rows of one plane differ in direction by rounding, or by as little as the enumeration cannot tell.
    rows = np.sum(Z * normals[plane], axis=1)[:, None] * normals[plane]
    moved = space.moved + np.linalg.norm(Z - rows, axis=1) + gamma(d, RANK) * lengths + thickness
    return Arrangement(basis, lengths, moved, rows, plane, normals, patterns, unit)


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
            cells = project(arrangement.normals, patterns, sign * q, sign * weights, best, above / unit, rounding)
            best = max(best, cells.bounds.max(initial=0.0))
            points.append(cells.points)
            maxima.append(cells.maxima)
    mass = float(np.abs(p) @ arrangement.lengths)
    allowance = float(np.abs(p) @ arrangement.moved) + rounding * mass
    value = (1.0 + 4.0 * rounding) * (best + allowance) * unit
    point, maximum = np.concatenate(points, axis=1), np.concatenate(maxima)
    norms = np.linalg.norm(point, axis=0)
    longest = unit_columns(point[:, [np.argmax(norms)]])
    attained = float(np.abs(p @ np.maximum(arrangement.rows @ longest, 0.0))[0]) * unit
    found = np.flatnonzero(maximum & (norms * unit > above) & (norms > 0))
    found = found[_distinct(point[:, found], norms[found])]
    directions, values = unit_columns(point[:, found]), norms[found]
    # A maximum as small as the rounding of q may lie outside its cell, where the function is another.
    sound = np.abs(np.abs(p @ np.maximum(arrangement.rows @ directions, 0.0)) - values) <= AGREEMENT * values
    directions, values = arrangement.basis @ directions[:, sound], values[sound] * unit
    return ExactPrice(float(value), attained, unit_columns(arrangement.basis @ longest)[:, 0], directions, values)


def _planes(patterns: Bool[np.ndarray, "n cells"], nonzero: Bool[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each plane, and the plane of each row: rows of one plane have equal or opposite patterns."""
    packed = np.packbits(patterns ^ ~patterns[:, :1], axis=1)
    index: dict[bytes, int] = {}
    plane = np.zeros(len(packed), dtype=np.intp)
    first: list[int] = []
    for i in np.flatnonzero(nonzero):
        plane[i] = index.setdefault(packed[i].tobytes(), len(first))
        if plane[i] == len(first):
            first.append(int(i))
    return np.array(first), plane


def _thickness(Z: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """How far `enumerate_patterns` may take z_i @ u for zero, |u| = 1, where more than two planes meet.

    It works on rows z_i / scale, whitened, and tells products from zero by 64 eps cond; hence twice that, times cond on
    the way back, with |scale * u| <= max(scale).
    """
    nonzero = lengths > 0
    scale = np.max(np.abs(Z), axis=0)
    sizes = np.linalg.norm(Z / scale, axis=1)
    values = np.linalg.svd(Z[nonzero] / scale / sizes[nonzero, None], compute_uv=False)
    thickness = np.minimum(256.0 * EPS * (values[0] / values[-1]) ** 2 * scale.max() * sizes, lengths)
    if np.any(thickness > INDISTINCT * scale.max()):
        raise ValueError(
            "X has rows so nearly parallel or dependent that float64 cannot tell the cells apart; round or standardise "
            "X, or use a relaxed price"
        )
    return thickness


def _distinct(points: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Indices of one column for each direction, the longest first."""
    order = np.argsort(-norms, kind="stable")
    unit = unit_columns(points[:, order])
    kept: list[int] = []
    for k in range(len(order)):
        if not kept or np.max(unit[:, k] @ unit[:, kept]) < 1.0 - SAME:
            kept.append(k)
    return order[np.array(kept, dtype=np.intp)]
