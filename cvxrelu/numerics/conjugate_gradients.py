"""Preconditioned conjugate gradients, one text for all array libraries.

SciPy's, CuPy's and lineax's differ in how they count steps, when they look at the residual and what they make of a zero
right side, so that the same solve took different steps on every backend.

Source: Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. NBS 49, 1952.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace

from cvxrelu.backends.loops import while_loop

__all__ = ["conjugate_gradients"]

Array = Any


def conjugate_gradients(
    operator: Callable[[Array], Array], b: Array, x0: Array, preconditioner: Callable[[Array], Array], atol: Any,
    max_iter: int,
) -> tuple[Array, Any]:  # fmt: skip
    """x with `|operator(x) - b| <= atol`, in the 2-norm over all entries, and the steps taken, at most max_iter.

    operator, preconditioner : symmetric positive definite linear maps between arrays of b's shape and dtype. x0 : where
    to start. The residual is the one of the recurrence: computed anew near the precision's floor it would stall above
    that and the iteration diverge. An iterate that is not finite ends it.
    """
    xp = array_namespace(b)
    zero = xp.zeros((), dtype=b.dtype)

    def ratio(above: Array, below: Array) -> Array:
        return xp.where(below > 0, above / xp.where(below > 0, below, zero + 1), zero)

    def goes_on(state: tuple) -> Any:
        _, residual, _, _, steps = state
        return (xp.sqrt(xp.sum(residual * residual)) > atol) & (steps < max_iter)

    def step(state: tuple) -> tuple:
        x, residual, direction, size, steps = state
        image = operator(direction)
        length = ratio(size, xp.sum(direction * image))
        x, residual = x + length * direction, residual - length * image
        conditioned = preconditioner(residual)
        now = xp.sum(residual * conditioned)
        return x, residual, conditioned + ratio(now, size) * direction, now, steps + 1

    residual = b - operator(x0)
    conditioned = preconditioner(residual)
    start = (x0, residual, conditioned, xp.sum(residual * conditioned), xp.zeros((), dtype=xp.int32))
    x, *_, steps = while_loop(xp, goes_on, step, start)
    return x, steps
