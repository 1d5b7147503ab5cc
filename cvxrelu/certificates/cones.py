"""Upper bounds on the price over simplicial cones of directions, and how such cones are cut.

The sphere is covered by cones {sum_j a_j v_j : a >= 0} with unit vertices v_1 ... v_r at right angles at most. For
u = sum_j a_j v_j every row has, (.)_+ being convex and homogeneous, for any slope s_i in [0, 1],

    s_i x_i u  <=  (x_i u)_+  <=  sum_j a_j (x_i v_j)_+,

so that for one output and one sign, p = p_+ - p_-,

    p^T (X u)_+  <=  sum_j a_j l_j,        l_j = p_+^T (X v_j)_+ - sum_i p_i- s_i x_i v_j            (`OneSide`)

and for several outputs, e_ij = (x_i v_j)_+ - s_i x_i v_j and the middle of the interval between both limits,

    |P^T (X u)_+|_2 <= sum_j a_j l_j,   l_j = |sum_i P_i (s_i x_i v_j + e_ij / 2)|_2 + 1/2 sum_i |P_i|_2 e_ij   (`Norm`)

For any q with q @ v_j >= l_j the bound over the cone and the unit ball is |q|: nearly the shortest q is computed, and
its multipliers m, q = sum_j m_j v_j, say where the bound is attained. For `OneSide` the slopes follow: 0 or 1 where
x_i q has a sign, by a few steps of Frank and Wolfe. Rows with one sign at all vertices have the right slope at once.

At the point where it is attained, what the bound exceeds the function by is the secants' excess over the rows with
p_i > 0. So a cone is cut at the edge (j, k) where that falls most: by

    min(m_j, m_k) sum_i p_i+ ((x_i v_j)_+ + (x_i v_k)_+ - (x_i (v_j + v_k))_+).

Source: Horst & Tuy, "Global optimization", 1996, section 4.3, for simplicial subdivision, which halves longest edges.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cvxrelu.numerics.rounding import EPS, gamma

__all__ = ["Bounded", "Norm", "OneSide", "Price", "covering", "cut", "orthants"]

SWEEPS, RIDGE = 5, 1e-12
CHUNK = 200_000  # entries of a temporary array
STEPS = 6  # of slopes
TINY = 1e-300
SHORT = 0.3  # of the longest edge's 1 - cosine: edges shorter than that are not cut
EVERYWHERE = 0.02  # added to the multipliers: edges that matter little now are cut in the end


class Bounded(NamedTuple):
    """Of B cones: upper bounds, points m >= 0 where they are attained, and the largest value of the function seen."""

    bounds: Float[np.ndarray, " B"]
    points: Float[np.ndarray, "B r"]
    attained: float


@runtime_checkable
class Price(Protocol):
    """A function of directions that is bounded from above over cones."""

    rows: Float[np.ndarray, "n r"]
    spread: Float[np.ndarray, " n"]  # what a unit of a row's secant adds to the bound
    allowance: float  # what rounding can add to the function of a unit vector, of which a bound has some 4 sqrt(r)

    def bounds(self, vertices: Float[np.ndarray, "B r r"]) -> Bounded: ...


class OneSide:
    """p^T (X u)_+ of one output, for one of its signs."""

    def __init__(self, rows: Float[np.ndarray, "n r"], p: Float[np.ndarray, " n"]) -> None:
        self.rows, self.p, self.spread = rows, p, np.maximum(p, 0.0)
        self.up, self.p_up = np.ascontiguousarray(rows[p > 0].T), p[p > 0]
        self.down, self.p_down = rows[p < 0], p[p < 0]
        self.down_T = np.ascontiguousarray(self.down.T)
        self.allowance = gamma(*rows.shape) * float(np.abs(p) @ np.linalg.norm(rows, axis=1))

    def bounds(self, vertices: Float[np.ndarray, "B r r"]) -> Bounded:
        B, r, _ = vertices.shape
        step = max(1, CHUNK // self.rows.size)
        fixed, kinks = np.empty((B, r)), []
        for first in range(0, B, step):
            part = vertices[first : first + step]
            flat = part.reshape(-1, r)
            hidden = flat @ self.up
            of_up = np.maximum(hidden, 0.0, out=hidden) @ self.p_up
            products = (flat @ self.down_T).reshape(len(part), r, -1)
            active = (products > 0).sum(axis=1)
            # Rows with p_i < 0 that are active at all vertices are linear there, those active at none vanish.
            linear = ((active == r) * self.p_down) @ self.down
            fixed[first : first + step] = of_up.reshape(-1, r) + (part @ linear[:, :, None])[:, :, 0]
            cone, row = np.nonzero((active > 0) & (active < r))
            kinks.append((cone + first, self.p_down[row], products[cone, :, row]))
        return self._with_slopes(vertices, fixed, *(np.concatenate(lines) for lines in zip(*kinks, strict=True)))

    def _with_slopes(
        self, vertices: np.ndarray, fixed: np.ndarray, cone: np.ndarray, weight: np.ndarray, values: np.ndarray
    ) -> Bounded:
        """The bounds with slopes for the kinks: row k of `values` has x_i v_j at the vertices of cone `cone[k]`."""
        B, r, _ = vertices.shape
        size = np.abs(values).sum(axis=1)
        slope = np.maximum(values, 0.0).sum(axis=1) / np.maximum(size, TINY)
        width, weighted = 0.125 * size / r + TINY, values * weight[:, None]
        starts = np.searchsorted(cone, np.arange(B + 1))
        best, points, m = np.full(B, np.inf), np.zeros((B, r)), None
        shape = shape_of(vertices)
        for step in range(STEPS + 1):
            bounds, m = largest(shape, fixed + _summed(weighted * slope[:, None], starts), m)
            better = bounds < best
            best[better], points[better] = bounds[better], m[better]
            if cone.size == 0 or step == STEPS:
                break
            share = m / np.maximum(m.sum(axis=1), TINY)[:, None]
            along = np.einsum("kj,kj->k", share[cone], values)
            slope += 2.0 / (step + 2.5) * (np.clip(0.5 + along / width, 0.0, 1.0) - slope)
        return Bounded(best, points, self._attained(vertices, points))

    def _attained(self, vertices: np.ndarray, points: np.ndarray) -> float:
        u = _unit((points[:, None] @ vertices)[:, 0])
        step = max(1, CHUNK // len(self.rows))
        values = [np.maximum(u[k : k + step] @ self.rows.T, 0.0) @ self.p for k in range(0, len(u), step)]
        return float(np.max(np.concatenate(values)))


class Norm:
    """|P^T (X u)_+|_2 over the outputs."""

    def __init__(self, rows: Float[np.ndarray, "n r"], P: Float[np.ndarray, "n c"]) -> None:
        self.rows, self.P, self.spread = rows, P, np.linalg.norm(P, axis=1)
        self.allowance = gamma(*rows.shape) * float(self.spread @ np.linalg.norm(rows, axis=1))

    def bounds(self, vertices: Float[np.ndarray, "B r r"]) -> Bounded:
        step = max(1, CHUNK // self.rows.size)
        parts = [self._bounds(vertices[k : k + step]) for k in range(0, len(vertices), step)]
        bounds, points, attained = zip(*parts, strict=True)
        return Bounded(np.concatenate(bounds), np.concatenate(points), max(attained))

    def _bounds(self, vertices: Float[np.ndarray, "B r r"]) -> Bounded:
        products = vertices @ self.rows.T  # (B, r, n)
        hidden = np.maximum(products, 0.0)
        total = np.abs(products).sum(axis=1)
        slope = hidden.sum(axis=1) / np.where(total > 0, total, 1.0)
        excess = hidden - slope[:, None, :] * products
        values = np.linalg.norm((hidden - 0.5 * excess) @ self.P, axis=2) + 0.5 * (excess @ self.spread)
        bounds, points = largest(shape_of(vertices), values)
        return Bounded(bounds, points, float(np.linalg.norm(hidden @ self.P, axis=2).max()))


def orthants(r: int) -> Float[np.ndarray, "cones r r"]:
    """The 2^r cones between the axes; the vertices of a cone are its rows."""
    return np.array([np.diag(signs) for signs in itertools.product((1.0, -1.0), repeat=r)])


class Shape(NamedTuple):
    """Of cones: vertices, inner products of vertices (r, r, B), central directions, and theirs with the vertices."""

    vertices: Float[np.ndarray, "B r r"]
    gram: Float[np.ndarray, "r r B"]
    centre: Float[np.ndarray, "B r"]
    heights: Float[np.ndarray, "B r"]  # positive: the edges of a cone are at right angles at most


def shape_of(vertices: Float[np.ndarray, "B r r"]) -> Shape:
    centre = _unit(vertices.sum(axis=1))
    gram = vertices @ vertices.transpose(0, 2, 1)
    return Shape(vertices, np.ascontiguousarray(gram.transpose(1, 2, 0)), centre, _times(vertices, centre))


def largest(
    shape: Shape, values: Float[np.ndarray, "B r"], start: Float[np.ndarray, "B r"] | None = None
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, "B r"]]:
    """An upper bound on `max sum_j a_j l_j` over |sum_j a_j v_j| <= 1, a >= 0, for each cone; and its multipliers.

    The dual is to minimise |q| over q @ v_j >= l_j, where q = sum_j m_j v_j with m >= 0: coordinate by coordinate
    (Hildreth), then along the central direction as far as is missing. start : of m.
    """
    vertices, gram, centre, heights = shape
    r = vertices.shape[1]
    if start is None:
        matrix = gram.transpose(2, 0, 1) + RIDGE * np.eye(r)
        start = np.maximum(np.linalg.solve(matrix, values[:, :, None])[:, :, 0], 0.0)
    m, wanted = np.ascontiguousarray(start.T), np.ascontiguousarray(values.T)
    for _, j in itertools.product(range(SWEEPS), range(r)):
        missing = wanted[j] - np.einsum("kb,kb->b", gram[j], m)
        m[j] = np.maximum(m[j] + missing / gram[j, j], 0.0)
    points = np.ascontiguousarray(m.T)
    q = (points[:, None] @ vertices)[:, 0]
    missing = np.maximum(values - _times(vertices, q), 0.0)
    q += np.max(missing / heights, axis=1)[:, None] * centre
    # What the products may be off by: a shortage of q @ v_j counts sum_j a_j <= sqrt(r) times.
    return np.linalg.norm(q, axis=1) * (1.0 + 8.0 * r**0.5 * gamma(r)), points


def _times(vertices: Float[np.ndarray, "B r r"], u: Float[np.ndarray, "B r"]) -> Float[np.ndarray, "B r"]:
    """v_j @ u of every cone."""
    return (vertices @ u[:, :, None])[:, :, 0]


def cut(
    price: Price,
    vertices: Float[np.ndarray, "B r r"],
    points: Float[np.ndarray, "B r"],
    carried: Float[np.ndarray, "B r"],
) -> tuple[Float[np.ndarray, "halves r r"], Float[np.ndarray, "halves r"]]:
    """Each cone cut in two at the middle of the edge that the bound at these points falls most by: all first halves,
    then all second ones. And points `carried` a >= 0 of the cones, each in the half that it lies in, else zero."""
    B, r, _ = vertices.shape
    used = price.spread > 0
    spread, products = price.spread[used], vertices @ price.rows[used].T
    at_vertices = np.maximum(products, 0.0) @ spread
    share = points / np.maximum(points.sum(axis=1), TINY)[:, None] + EVERYWHERE
    # Where nothing exceeds, the longest edge.
    apart = 1.0 - vertices @ vertices.transpose(0, 2, 1)
    far, long = 1e-9 * (price.allowance + TINY) * apart, SHORT * np.max(apart, axis=(1, 2))
    best, first, second = np.full(B, -np.inf), np.zeros(B, dtype=np.intp), np.ones(B, dtype=np.intp)
    for j, k in itertools.combinations(range(r), 2):
        between = np.maximum(products[:, j] + products[:, k], 0.0) @ spread
        gain = np.minimum(share[:, j], share[:, k]) * np.maximum(at_vertices[:, j] + at_vertices[:, k] - between, 0.0)
        gain += far[:, j, k]
        better = (gain > best) & (apart[:, j, k] >= long)
        best[better], first[better], second[better] = gain[better], j, k
    every = np.arange(B)
    sums = vertices[every, first] + vertices[every, second]
    halves = np.concatenate([vertices, vertices])
    halves[every, first] = halves[B + every, second] = _unit(sums)
    # a_j v_j + a_k v_k = (a_j - a_k) v_j + a_k |v_j + v_k| middle
    a_j, a_k, length = carried[every, first], carried[every, second], np.linalg.norm(sums, axis=1)
    moved = np.concatenate([carried, carried])
    moved[every, first], moved[every, second] = a_j * length, a_k - a_j
    moved[B + every, first], moved[B + every, second] = a_j - a_k, a_k * length
    moved[:B][a_k < a_j], moved[B:][a_k >= a_j] = 0.0, 0.0
    return halves, moved


def covering(depth: int, r: int) -> float:
    """What may lie between cones cut so often, relative to the largest mass: a middle is off its edge by rounding."""
    return 4.0 * (depth + 1) * r**0.5 * EPS


def _summed(lines: Float[np.ndarray, "k r"], starts: np.ndarray) -> Float[np.ndarray, "B r"]:
    """Sums of the lines from one start to the next."""
    sums = np.add.reduceat(np.concatenate([lines, np.zeros((1, lines.shape[1]))]), starts[:-1], axis=0)
    sums[starts[1:] == starts[:-1]] = 0.0
    return sums


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1), TINY)[:, None]
