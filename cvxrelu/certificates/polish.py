"""Polish: directions moved onto the kinks where local maxima of |p^T (X u)_+| lie.

With w = p s, s the unit vector along p^T (X u)_+, the sum of w_i (x_i @ u)_+ bounds |p^T (X u)_+| from below and meets
it at u. Rows with w_i < 0 make ridges: a local maximum lies on up to d - 1 of them at once, where ascents along
gradients zigzag and stop short. Let K be the k such rows nearest to u, b = |w_K|, and let all other rows keep the side
they are on, so that they add a constant vector g. Over the unit ball

    max of g @ u - sum over K of b_i (x_i @ u)_+   =   min over 0 <= l <= b of |g - X_K^T l|,

and the residual g - X_K^T l of the minimiser points along the maximiser: it lies on the kinks of the rows whose
multipliers are inside their box. The box-constrained least-squares problems of all directions are solved together, by
accelerated projected gradients, restarted now and then; a direction moves towards its maximiser as far as its value
rises, if it rises at all. A few rounds of this, each with rows and sides of its own.

Source: Danskin's theorem for the dual; Nesterov, "A method of solving a convex programming problem with convergence
rate O(1/k^2)", 1983.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.backends.base import Backend

__all__ = ["boxed_least_squares", "polish"]

Array = Any
LENGTHS = (1.0, 0.5, 0.2, 0.05)  # of moves towards the maximiser
POWER_STEPS = 8  # for the largest eigenvalue
RESTART = 30  # steps after which momentum starts anew
MARGIN = 1.1  # by which that may be underestimated


def polish(
    backend: Backend,
    X: Float[Array, "n d"],
    lengths: Float[Array, " n"],
    p: Float[Array, "n c"],
    u: Float[Array, "d B"],
    near: int,
    rounds: Any,
    steps: Any,
) -> tuple[Array, Array]:
    """Unit directions (d, B) moved by `rounds` rounds, and their values |p^T (X u)_+|; no value falls.

    lengths : |x_i|, one for zero rows. u : unit or zero columns. near : rows K a direction, at most n, static.
    steps : projected gradient steps a round.
    """
    xp = array_namespace(X)

    def one(state: tuple[Array, Array]) -> tuple[Array, Array]:
        u, value = state
        target = _maximiser(backend, X, lengths, p, u, near, steps)
        trials = [_unit(u + length * (target - u)) for length in LENGTHS]
        reached = xp.reshape(_values(X, p, xp.concat(trials, axis=1)), (len(LENGTHS), -1))  # in one pass over X
        for k, trial in enumerate(trials):
            better = reached[k, :] > value
            u, value = xp.where(better, trial, u), xp.where(better, reached[k, :], value)
        return u, value

    return backend.repeat(rounds, one, (u, _values(X, p, u)))


def _maximiser(backend: Backend, X: Array, lengths: Array, p: Array, u: Array, near: int, steps: Any) -> Array:
    """Unit maximisers (d, B) of the concave minorants at the columns of u."""
    xp = array_namespace(X)
    z = X @ u
    q = p.T @ xp.maximum(z, xp.zeros((), dtype=X.dtype))
    size = xp.sqrt(xp.sum(q * q, axis=0))
    w = (p @ (q / xp.where(size > 0, size, xp.ones_like(size))[None, :])).T
    z = z.T
    distance = xp.where(w < 0, xp.abs(z) / lengths[None, :], xp.full_like(z, xp.inf))
    nearest = backend.smallest(distance, near)
    flat = xp.reshape(nearest, (-1,))
    of_rows = xp.take(lengths, flat)
    rows = xp.reshape(xp.take(X, flat, axis=0) / of_rows[:, None], (*nearest.shape, X.shape[1]))
    some_w, some_z = (xp.take_along_axis(a, nearest, axis=1) for a in (w, z))
    upper = xp.maximum(-some_w, xp.zeros_like(some_w)) * xp.reshape(of_rows, nearest.shape)
    start = xp.where(some_z > 0, upper, xp.zeros_like(upper))
    target = xp.where(z > 0, w, xp.zeros_like(w)) @ X + (start[:, None, :] @ rows)[:, 0, :]
    multipliers = boxed_least_squares(backend, rows, target, upper, start, steps)
    return _unit((target - (multipliers[:, None, :] @ rows)[:, 0, :]).T)


def boxed_least_squares(
    backend: Backend,
    rows: Float[Array, "B k d"],
    target: Float[Array, "B d"],
    upper: Float[Array, "B k"],
    start: Float[Array, "B k"],
    steps: Any,
) -> Float[Array, "B k"]:
    """Near minimisers of |target - rows^T l| over 0 <= l <= upper, by `steps` accelerated projected gradient steps."""
    xp = array_namespace(rows)
    gram = rows @ xp.permute_dims(rows, (0, 2, 1))
    slope = (rows @ target[:, :, None])[:, :, 0]
    zero, one = xp.zeros_like(slope), xp.ones_like(slope[:, :1])

    def times(v: Array) -> Array:
        return (gram @ v[:, :, None])[:, :, 0]

    def power(v: Array) -> Array:
        return _unit(times(v).T).T

    v = backend.repeat(POWER_STEPS, power, _unit(xp.ones_like(slope).T).T)
    largest = MARGIN * xp.sum(v * times(v), axis=1)[:, None]
    scale = one / xp.where(largest > 0, largest, one)
    slope, scaled = slope * scale, gram * scale[:, :, None]

    def step(state: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
        old, ahead, k = state
        new = xp.minimum(xp.maximum(ahead - (scaled @ ahead[:, :, None])[:, :, 0] + slope, zero), upper)
        return new, new + k / (k + 3.0) * (new - old), (k + 1) % RESTART

    return backend.repeat(steps, step, (start, start, 0))[0]


def _values(X: Array, p: Array, u: Array) -> Array:
    xp = array_namespace(X)
    q = p.T @ xp.maximum(X @ u, xp.zeros((), dtype=X.dtype))
    return xp.sqrt(xp.sum(q * q, axis=0))


def _unit(a: Array) -> Array:
    xp = array_namespace(a)
    length = xp.sqrt(xp.sum(a * a, axis=0))
    return a / xp.where(length > 0, length, xp.ones_like(length))[None, :]
