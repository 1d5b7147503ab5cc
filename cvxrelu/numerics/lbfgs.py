"""Limited-memory BFGS over an array namespace: pure functions, one evaluation a step, no branches.

One step evaluates the function at `x + length * direction` and either accepts the point, updates the memory and takes a
new direction, or shortens `length`; which of the two is decided by `where`, so that a compiled chunk of steps needs no
transfer. The direction is that of the compact inverse representation with S, Y the last steps and gradient changes,

    H = gamma I + [S, gamma Y] [[R^-T (D + gamma Y^T Y) R^-1, -R^-T], [-R^-1, 0]] [S, gamma Y]^T,

    R = the upper triangle of S^T Y, D its diagonal, gamma = s @ y / y @ y of the latest pair.

Only sufficient decrease is asked for: the functions this package descends have kinks, where a curvature condition may
have no solution; pairs without positive curvature are skipped instead.
Source: Byrd, Nocedal & Schnabel, "Representations of quasi-Newton matrices", Math. Programming 63, 1994, theorem 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.backends.base import Backend

__all__ = ["MEMORY", "State", "run", "start"]

Array = Any
MEMORY = 20
DECREASE = 1e-4  # fraction of the decrease that the slope promises which a step must reach
FIRST, LONGEST = 0.01, 10.0  # lengths of a first step and of any step, relative to x
CURVATURE = 1e-8  # least s @ y / |s| |y| of a pair that is remembered


class State(NamedTuple):
    """Where the descent is; `S` and `Y` hold the newest pair last, unused slots are zero."""

    x: Float[Array, "*p"]
    value: Float[Array, ""]
    gradient: Float[Array, "*p"]
    direction: Float[Array, "*p"]
    length: Float[Array, ""]
    S: Float[Array, "k *p"]
    Y: Float[Array, "k *p"]


# (data, x) -> (value, gradient); hashable, as functions of modules are: compiled chunks take it as static
Objective = Callable[[Any, Array], tuple[Array, Array]]


def start(backend: Backend, data: Any, x: Float[Array, "*p"], objective: Objective) -> State:
    """Empty memory, steepest descent, and a first step of a hundredth of |x|, or of length 0.01 from zero."""
    xp = array_namespace(x)
    value, gradient = objective(data, x)
    memory = xp.zeros((MEMORY, *x.shape), dtype=x.dtype)
    return State(x, value, gradient, -gradient, FIRST * _relative(x, gradient), memory, memory)


def run(backend: Backend, data: Any, state: State, steps: Any, objective: Objective) -> State:
    """`steps` steps, each one evaluation of the objective."""
    return backend.repeat(steps, lambda s: _step(objective, data, s), state)


def _step(objective: Objective, data: Any, state: State) -> State:
    x, value, gradient, direction, length, S, Y = state
    xp = array_namespace(x)
    move = length * direction
    trial = x + move
    trial_value, trial_gradient = objective(data, trial)
    slope = xp.sum(gradient * direction)
    accept = trial_value <= value + DECREASE * length * slope  # false for NaN
    change = trial_gradient - gradient
    remembers = xp.sum(Y[-1, ...] * Y[-1, ...]) > 0
    curved = xp.sum(move * change) > CURVATURE * _length(move) * _length(change)
    S, Y = (xp.where(accept & curved, _push(memory, new), memory) for memory, new in ((S, move), (Y, change)))
    # Beyond the minimiser of the parabola through value, slope and trial value, but not by leaps.
    excess = trial_value - value - length * slope
    half = value * 0 + 0.5
    factor = xp.where(excess > 0, -half * length * slope / xp.where(excess > 0, excess, half), half)
    factor = xp.where(xp.isfinite(factor), factor, value * 0)
    factor = xp.minimum(xp.maximum(factor, 0.2 * half), half)
    shorter = length * factor

    x = xp.where(accept, trial, x)
    value = xp.where(accept, trial_value, value)
    gradient = xp.where(accept, trial_gradient, gradient)
    # After some twenty halvings the memory is of no use here: start again from the gradient, whose own first step may
    # be far shorter than that, and is shortened until it descends.
    lost = ~accept & remembers & (shorter < 1e-6)
    S, Y = (xp.where(lost, memory * 0, memory) for memory in (S, Y))
    step = _direction(S, Y, gradient)
    empty = xp.sum(Y[-1, ...] * Y[-1, ...]) == 0  # or so small that its square is zero
    descends = ~empty & (xp.sum(step * gradient) < 0)
    renewed = xp.where(descends, step, -gradient)
    direction = xp.where(accept | lost, renewed, direction)
    # A pair of hardly any curvature may ask for a step that overflows.
    unit = xp.minimum(length * 0 + 1, LONGEST * _relative(x, direction))
    fresh = xp.where(empty, FIRST * _relative(x, gradient), unit)
    return State(x, value, gradient, direction, xp.where(accept | lost, fresh, shorter), S, Y)


def _direction(S: Float[Array, "k *p"], Y: Float[Array, "k *p"], gradient: Float[Array, "*p"]) -> Float[Array, "*p"]:
    """-H gradient; unused slots of the memory count for nothing."""
    xp = array_namespace(gradient)
    k, dtype = S.shape[0], gradient.dtype
    s, y, g = xp.reshape(S, (k, -1)), xp.reshape(Y, (k, -1)), xp.reshape(gradient, (-1,))
    # The k x k algebra is in float64: R may be badly conditioned.
    SY, YY, Sg, Yg = (xp.astype(a, xp.float64) for a in (s @ y.T, y @ y.T, s @ g, y @ g))
    diagonal = xp.linalg.diagonal(SY)
    unused = diagonal == 0
    one, zero = xp.ones((), dtype=xp.float64), xp.zeros((), dtype=xp.float64)
    D = xp.where(unused, one, diagonal)
    R = xp.triu(SY, k=1) + D[None, :] * xp.eye(k, dtype=xp.float64)
    last = YY[-1, -1]
    gamma = xp.where(last > 0, diagonal[-1] / xp.where(last > 0, last, one), one)
    upper = xp.linalg.solve(R, Sg[:, None])[:, 0]
    middle = xp.where(unused, zero, D) * upper + gamma * (YY @ upper - Yg)
    of_S = xp.linalg.solve(R.T, middle[:, None])[:, 0]
    combined = xp.astype(gamma, dtype) * g + xp.astype(of_S, dtype) @ s - xp.astype(gamma * upper, dtype) @ y
    return xp.reshape(-combined, gradient.shape)


def _push(memory: Float[Array, "k *p"], new: Float[Array, "*p"]) -> Float[Array, "k *p"]:
    return array_namespace(new).concat([memory[1:, ...], new[None, ...]])


def _length(a: Array) -> Float[Array, ""]:
    xp = array_namespace(a)
    return xp.sqrt(xp.sum(a * a))


def _relative(x: Array, direction: Array) -> Float[Array, ""]:
    """The step along `direction` that is as long as x, or of unit length where x is zero."""
    xp = array_namespace(x)
    of_x, of_direction = _length(x), _length(direction)
    one = of_x * 0 + 1
    return xp.where(of_x > 0, of_x, one) / xp.where(of_direction > 0, of_direction, one)
