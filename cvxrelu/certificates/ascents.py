"""Ascents of |p^T (X u)_+| over the sphere, many side by side, as pure steps over an array namespace.

phi(u) = |p^T (Xu)_+| is positively homogeneous with gradient g(u) = X^T (1[X u > 0] * (p s)), s the unit vector
along p^T (X u)_+, so phi(u) = g(u) @ u. One evaluation a step and no line search, every column with a step length of
its own:

    roam      gradient steps of Barzilai-Borwein length, taken whether the value rises or falls; the best point counts
    ascend    nonlinear conjugate gradients (Polak-Ribiere, restarted where the direction does not ascend), with lengths
              that follow the secant of the slope and shrink when the value does not rise

Ridges of phi stop whatever only rises, far below the maxima nearby: with as many evaluations from the same starts,
roaming first finds maxima that ascents alone hardly ever find (tests/certificates/test_pricing.py measures it).

Source: Barzilai & Borwein, "Two-point step size gradient methods", IMA J. Numerical Analysis 8, 1988; Raydan 1997 for
steps that need not ascend.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.program.operators import row_blocks

__all__ = ["Ascent", "ascend", "best_first", "prices", "roam", "spectrum", "start_ascent"]

Array = Any
FIRST, SHORT = 0.3, 1e-4  # angles of roaming: the first, and the shortest
FAR, NEAR = 0.7, 0.1  # the longest, at first and at last


class Ascent(NamedTuple):
    """Ascents side by side: unit points (d, S), values, tangent gradients and their squared lengths, unit search
    directions, slopes along these relative to |g|, and step lengths.
    """

    u: Float[Array, "d S"]
    value: Float[Array, " S"]
    gradient: Float[Array, "d S"]
    squared: Float[Array, " S"]
    direction: Float[Array, "d S"]
    slope: Float[Array, " S"]
    length: Float[Array, " S"]


def prices(X: Float[Array, "n d"], p: Float[Array, "n c"], u: Float[Array, "d S"]) -> Float[Array, " S"]:
    """|p^T (X u)_+| for every column of u."""
    xp = array_namespace(X)
    zero = xp.zeros((), dtype=X.dtype)
    q = sum(p[b, :].T @ xp.maximum(X[b, :] @ u, zero) for b in row_blocks(X, u.shape[1]))
    return xp.sqrt(xp.sum(q * q, axis=0))


def _value_and_gradient(X: Array, p: Array, u: Array, scale: Array | None = None) -> tuple[Array, Array, Array]:
    """phi, the part of g/|g| that is tangent to the sphere, and the square of its length; u unit or zero columns.

    With a scale (d, 1), phi / |scale * u| and its gradient, of no more than about unit length too.
    """
    xp = array_namespace(X)
    zero, one = xp.zeros((), dtype=X.dtype), xp.ones((), dtype=X.dtype)
    blocks = row_blocks(X, u.shape[1])
    if p.shape[1] == 1:  # g @ u is p^T (X u)_+ up to its sign: one product less, and p weighs rows of X, not of X u
        g = sum((p[b, :] * X[b, :]).T @ xp.astype(X[b, :] @ u > 0, X.dtype) for b in blocks)
        signed = value = xp.sum(g * u, axis=0)
        value = xp.abs(signed)
    else:
        hidden = [xp.maximum(X[b, :] @ u, zero) for b in blocks]
        q = sum(p[b, :].T @ h for b, h in zip(blocks, hidden, strict=True))
        signed = value = xp.sqrt(xp.sum(q * q, axis=0))
        s = q / xp.where(value > 0, value, one)[None, :]
        g = sum(X[b, :].T @ xp.where(h > 0, p[b, :] @ s, zero) for b, h in zip(blocks, hidden, strict=True))
    squared = xp.sum(g * g, axis=0)
    if scale is None:
        size = xp.sqrt(xp.where(squared > 0, squared, one))
        size = xp.where(signed < 0, -size, size)
        gradient = g / size[None, :] - u * (value / xp.abs(size))[None, :]  # g @ u = phi
        return value, gradient, _dots(gradient, gradient)
    normal = scale * scale * u
    length = _dots(normal, u)
    length = xp.where(length > 0, length, one)
    normal = normal * (value / length)[None, :]
    size = xp.sqrt(xp.maximum(squared, _dots(normal, normal)))
    size = xp.where(size > 0, size, one)[None, :]
    gradient = (xp.where(signed < 0, -g, g) - normal) / size
    gradient = gradient - u * _dots(gradient, u)[None, :]  # zero but for rounding
    return value / xp.sqrt(length), gradient, _dots(gradient, gradient)


def roam(
    backend: Backend,
    X: Float[Array, "n d"],
    p: Float[Array, "n c"],
    u: Float[Array, "d S"],
    steps: Any,
    scale: Float[Array, "d 1"] | None = None,
) -> Float[Array, "d S"]:
    """The best points that `steps` Barzilai-Borwein steps from the columns of u meet; no value is below that at u."""
    xp = array_namespace(X)
    shrink = (NEAR / FAR) ** (1.0 / steps)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        u, gradient, length, far, best, largest = state
        squared = _dots(gradient, gradient)
        size = xp.sqrt(squared)
        size = xp.where(size > 0, size, xp.ones_like(size))
        length = xp.minimum(xp.maximum(length, SHORT / size), far / size)
        new = _unit(u + length[None, :] * gradient)
        value, slope, _ = _value_and_gradient(X, p, new, scale)
        move, change = new - u, slope - gradient
        curvature = xp.abs(_dots(move, change))
        secant = _dots(move, move) / xp.where(curvature > 0, curvature, xp.ones_like(curvature))
        better = value > largest
        best, largest = xp.where(better, new, best), xp.where(better, value, largest)
        secant = xp.where(curvature > 0, secant, xp.zeros_like(secant))
        return new, slope, secant, xp.astype(far * shrink, far.dtype), best, largest

    u = _unit(u)
    value, gradient, squared = _value_and_gradient(X, p, u, scale)
    size = xp.sqrt(squared)
    first = FIRST / xp.where(size > 0, size, xp.ones_like(size))
    return backend.repeat(steps, step, (u, gradient, first, xp.ones_like(first) * FAR, u, value))[4]


def start_ascent(
    backend: Backend,
    X: Float[Array, "n d"],
    p: Float[Array, "n c"],
    u: Float[Array, "d S"],
    scale: Float[Array, "d 1"] | None = None,
) -> Ascent:
    """Ascents at the columns of u, which are scaled to unit length; zero columns stay zero, with value zero.

    scale : of the norm that a value is relative to, |scale * u|; None for |u|, which is one.
    """
    xp = array_namespace(X)
    u = _unit(u)
    value, gradient, squared = _value_and_gradient(X, p, u, scale)
    size = xp.sqrt(squared)
    return Ascent(u, value, gradient, squared, _unit(gradient), size, size)


def ascend(
    backend: Backend,
    X: Float[Array, "n d"],
    p: Float[Array, "n c"],
    ascent: Ascent,
    steps: Any,
    scale: Float[Array, "d 1"] | None = None,
) -> Ascent:
    """`steps` steps of all ascents, one evaluation each; a value never falls.

    Search directions are unit tangents, so that some inner products are known: with the angle of a step u and the
    direction turn in their plane, and the gradient is orthogonal to u.
    """
    xp = array_namespace(X)

    def step(a: Ascent) -> Ascent:
        zero, one = xp.zeros_like(a.value), xp.ones_like(a.value)
        cosine = one / xp.sqrt(one + a.length * a.length)
        u = _unit(a.u + a.length[None, :] * a.direction)
        value, gradient, squared = _value_and_gradient(X, p, u, scale)
        better = value > a.value
        after = _dots(gradient, a.direction)
        # Where the slope along the direction would vanish if it fell linearly.
        fall = a.slope - after
        factor = xp.where(fall > 0, a.slope / xp.where(fall > 0, fall, one), 2 * one)
        factor = xp.minimum(xp.maximum(factor, 0.5 * one), 2 * one)
        change = squared - _dots(gradient, a.gradient)
        beta = xp.minimum(xp.maximum(change / xp.where(a.squared > 0, a.squared, one), zero), 2 * one)
        beta = xp.where(squared + beta * after > 0, beta, zero)
        # gradient + beta * the part of the old direction that is tangent at u
        direction = gradient + beta[None, :] * a.direction - (beta * cosine * a.length)[None, :] * u
        size = xp.sqrt(_dots(direction, direction))
        size = xp.where(size > 0, size, one)
        direction, slope = direction / size[None, :], (squared + beta * after) / size
        return Ascent(
            xp.where(better, u, a.u),
            xp.where(better, value, a.value),
            xp.where(better, gradient, a.gradient),
            xp.where(better, squared, a.squared),
            xp.where(better, direction, a.direction),
            xp.where(better, slope, a.slope),
            xp.where(better, xp.minimum(factor * a.length, 3 * one), xp.minimum(factor, 0.35 * one) * a.length),
        )

    return backend.repeat(steps, step, ascent)


def _dots(a: Array, b: Array) -> Array:
    return array_namespace(a).sum(a * b, axis=0)


def _unit(a: Array) -> Array:
    xp = array_namespace(a)
    length = xp.sqrt(xp.sum(a * a, axis=0))
    return a / xp.where(length > 0, length, length * 0 + 1)[None, :]


def spectrum(backend: Backend, X: Float[Array, "n d"], weight: Float[Array, " n"]) -> Float[Array, "d d"]:
    """Eigenvectors of X^T diag(weight) X, of decreasing eigenvalue."""
    xp = array_namespace(X)
    scatter = X.T @ (weight[:, None] * X)
    return xp.flip(xp.linalg.eigh(0.5 * (scatter + scatter.T))[1], axis=1)


def best_first(ascent: Ascent, count: int) -> Ascent:
    """The `count` ascents with the largest values, in falling order."""
    xp = array_namespace(ascent.u)
    order = xp.argsort(-ascent.value)[:count]
    return Ascent(*(xp.take(a, order, axis=a.ndim - 1) for a in ascent))
