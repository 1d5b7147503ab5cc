"""The price in few dimensions: branch and bound over directions, for any number of outputs.

The sphere is cut into simplicial cones {sum_j a_j v_j : a >= 0}, v_1 ... v_r. On such a cone every row has, for any
sigma_i in [0, 1],

    0 <= (x_i u)_+ - sigma_i x_i u <= sum_j a_j e_ij,        e_ij = (x_i v_j)_+ - sigma_i x_i v_j,

because (.)_+ is sublinear and at least sigma times its argument. A row whose sign is constant over the vertices has
e = 0 at the right sigma; sigma_i = sum_j (x_i v_j)_+ / sum_j |x_i v_j| is that one. With the middle of the interval,

    |P^T (X u)_+|_2 <= sum_j a_j l_j,        l_j = |sum_i P_i (sigma_i x_i v_j + e_ij / 2)|_2 + 1/2 sum_i |P_i|_2 e_ij,

and for any q with q @ v_j >= l_j the price over the cone is at most |q|. Two are tried: nearly the shortest, and a
multiple of the central direction. For one output both signs of the function are bounded at once.

Cones with the largest bounds are halved at their longest edge. The error of a bound falls with the square of the size
of its cone, as the price itself falls off around a maximum, so that few cones survive at any size: in two to five
dimensions the bound closes. Horst & Tuy, "Global optimization", 1996, section 4.3, has simplicial subdivision.
"""

from __future__ import annotations

import itertools
import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.numerics.rounding import EPS, gamma

__all__ = ["Subdivision", "subdivided_price"]

CLOSED = 1e-6  # relative distance to an attained value at which a cone is left alone
CHUNK = 400_000  # entries of a temporary array
ROUND = 40  # share of the cones known so far that is split at once, and the least number of them
SWEEPS, RIDGE = 10, 1e-12
DEPTH = 64.0  # halvings of a cone, for the rounding of its vertices


class Subdivision(NamedTuple):
    """bound >= max over |u| <= 1 of |P^T (X u)_+|_2 >= attained (up to rounding), after evaluating so many cones."""

    bound: float
    attained: float
    cones: int


def subdivided_price(
    X: Float[np.ndarray, "n r"],
    P: Float[np.ndarray, "n c"],
    *,
    cones: int,
    target: float = 0.0,
    deadline: float = np.inf,
) -> Subdivision:
    """Bounds on the price of P; stops when they agree to 1e-6, below `target`, after so many `cones`, at the deadline.

    X, P : float64, with entries near one.
    """
    lengths = np.linalg.norm(P, axis=1)
    vertices = np.array([np.diag(signs) for signs in itertools.product((1.0, -1.0), repeat=X.shape[1])])
    bounds, attained = _evaluate(X, P, lengths, vertices)
    evaluated, settled = len(vertices), 0.0
    # Halving moves vertices off the common edge by rounding: neighbours then overlap or part by that much.
    rounding = gamma(*X.shape) * 4.0 + DEPTH * EPS
    mass = float(lengths @ np.linalg.norm(X, axis=1))
    while True:
        open_ = bounds > max((1.0 + CLOSED) * attained, target, rounding * mass)
        settled = max(settled, bounds[~open_].max(initial=0.0))
        vertices, bounds = vertices[open_], bounds[open_]
        if len(bounds) == 0 or evaluated >= cones or time.perf_counter() > deadline:
            break
        count = min(len(bounds), max(ROUND, evaluated // ROUND))
        split = np.argpartition(-bounds, count - 1)[:count]
        halves = _halved(vertices[split])
        new, reached = _evaluate(X, P, lengths, halves)
        attained, evaluated = max(attained, reached), evaluated + len(halves)
        vertices = np.concatenate([np.delete(vertices, split, axis=0), halves])
        bounds = np.concatenate([np.delete(bounds, split), np.minimum(new, np.tile(bounds[split], 2))])
    return Subdivision(max(settled, bounds.max(initial=0.0)) * (1.0 + rounding) + rounding * mass, attained, evaluated)


def _evaluate(
    X: np.ndarray, P: np.ndarray, lengths: np.ndarray, vertices: Float[np.ndarray, "B r r"]
) -> tuple[Float[np.ndarray, " B"], float]:
    """Upper bounds over the cones with these vertices (rows), and the largest value at a vertex."""
    step = max(1, CHUNK // X.size)
    parts = [_bounds(X, P, lengths, vertices[k : k + step]) for k in range(0, len(vertices), step)]
    return np.concatenate([bounds for bounds, _ in parts]), max(value for _, value in parts)


def _bounds(X: np.ndarray, P: np.ndarray, lengths: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, float]:
    products = vertices @ X.T  # (B, r, n)
    hidden = np.maximum(products, 0.0)
    total = np.abs(products).sum(axis=1)
    sigma = hidden.sum(axis=1) / np.where(total > 0, total, 1.0)
    attained = np.linalg.norm(hidden @ P, axis=2)
    excess = hidden - sigma[:, None, :] * products
    values = np.linalg.norm((hidden - 0.5 * excess) @ P, axis=2) + 0.5 * (excess @ lengths)
    return _largest(vertices, values), float(attained.max())


def _largest(vertices: Float[np.ndarray, "B r r"], values: Float[np.ndarray, "B r"]) -> Float[np.ndarray, " B"]:
    """An upper bound on `max sum_j a_j l_j` over |sum_j a_j v_j| <= 1, a >= 0, for each cone.

    The dual is to minimise |q| over q @ v_j >= l_j, where q = sum_j m_j v_j with m >= 0: coordinate by coordinate
    (Hildreth), then along the central direction as far as is missing.
    """
    centre = vertices.sum(axis=1)
    centre /= np.linalg.norm(centre, axis=1)[:, None]
    heights = (vertices @ centre[:, :, None])[:, :, 0]  # positive: the edges of a cone are at right angles at most
    gram = vertices @ vertices.transpose(0, 2, 1)
    ridge = RIDGE * np.eye(gram.shape[1])  # a start is all that is asked for
    m = np.maximum(np.linalg.solve(gram + ridge, values[:, :, None])[:, :, 0], 0.0)
    for _, j in itertools.product(range(SWEEPS), range(m.shape[1])):
        m[:, j] = np.maximum(m[:, j] + (values[:, j] - np.sum(gram[:, j] * m, axis=1)) / gram[:, j, j], 0.0)
    q = np.sum(m[:, :, None] * vertices, axis=1)
    missing = np.maximum(values - (vertices @ q[:, :, None])[:, :, 0], 0.0)
    return np.minimum(np.max(values / heights, axis=1), np.linalg.norm(q, axis=1) + np.max(missing / heights, axis=1))


def _halved(vertices: Float[np.ndarray, "B r r"]) -> Float[np.ndarray, "halves r r"]:
    """Each cone cut in two at the middle of its longest edge."""
    B, r, _ = vertices.shape
    i, j = np.divmod((vertices @ vertices.transpose(0, 2, 1)).reshape(B, -1).argmin(axis=1), r)
    every = np.arange(B)
    middle = vertices[every, i] + vertices[every, j]
    middle /= np.linalg.norm(middle, axis=1)[:, None]
    first, second = vertices.copy(), vertices.copy()
    first[every, i], second[every, j] = middle, middle
    return np.concatenate([first, second])
