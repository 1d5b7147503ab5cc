"""First-order algorithms for the last-layer program: accelerated gradient, SVRG and AdamW, as pure functions.

An algorithm is a pair `init(theta)`, `step(program, constants, state)`; a step reads the rows in `program`, all of them
for accelerated gradient, a batch for the other two. For an L-smooth, l2-strongly convex f, q = l2 / L:

**Accelerated gradient** (Nesterov 2004, section 2.2.1, constant step scheme II with gamma_0 = L)

    x_(k+1) = y_k - grad f(y_k) / L,     y_(k+1) = x_(k+1) + b_k (x_(k+1) - x_k)
    a_(k+1)^2 = (1 - a_(k+1)) a_k^2 + q a_(k+1),     b_k = a_k (1 - a_k) / (a_k^2 + a_(k+1))

    f(x_k) - f* <= min((1 - sqrt q)^k, 4 / (k + 2)^2) (f(x_0) - f* + L/2 |x_0 - x*|^2)

(theorem 2.2.2). With `restart` the momentum is dropped when it points uphill (O'Donoghue & Candes 2015, gradient
scheme), but only if no fewer than a quarter of all steps before this phase have been taken in it, and if the descent
lemma's bound `f(y_k) - |grad f(y_k)|^2 / (2 L) >= f(x_(k+1))` has not risen since the phase began. So phases grow
geometrically and start ever lower: of k steps the longest phase has at least k / 6, and the guarantee holds with
k / 6 - 1 in the place of k and with the largest |x - x*| of the level set of x_0 in the place of |x_0 - x*|.

**SVRG** (Johnson & Zhang 2013; here a component is a batch f_j of N, taken at random)

    theta <- theta - step (N (grad f_j(theta) - grad f_j(snapshot)) + grad f(snapshot) + l2 (theta - snapshot))

converges linearly in expectation for steps below 1 / (4 max_j L_j), L_j the constant of N f_j + the ridge, if the inner
loop is long enough; the driver doubles it when progress is slow (Allen-Zhu & Yuan 2016).

**AdamW** (Loshchilov & Hutter 2019, defaults of PyTorch) on the mean loss, with decoupled decay l2 / n. The
minimiser is not a fixed point of it: it has no guarantee here, and the certificate says how far off it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.last_layer.program import Program, gradient

__all__ = [
    "ADAMW",
    "AGD",
    "SVRG",
    "Algorithm",
    "Smoothness",
    "Snapshot",
    "State",
    "run_chunk",
]

Array = Any
BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


class Algorithm(NamedTuple):
    """`init(theta) -> state` and `step(program, constants, state) -> state`; a state's field `theta` is its answer."""

    init: Callable[..., Any]
    step: Callable[..., Any]


def run_chunk(
    backend: Backend, program: Program, constants: Any, state: Any, n_steps: Any, algorithm: Algorithm
) -> Any:
    """`n_steps` steps on the same rows; compile with `algorithm` static."""
    return backend.repeat(n_steps, lambda s: algorithm.step(program, constants, s), state)


# -- accelerated gradient ---------------------------------------------------------------------------------------------
class Smoothness(NamedTuple):
    """Constants of accelerated gradient: L, q = l2 / L, and whether restarts are allowed."""

    L: Float[Array, ""]
    q: Float[Array, ""]
    restart: Any  # bool, zero-dimensional


class State(NamedTuple):
    theta: Float[Array, "d 1"]  # x_k
    y: Float[Array, "d 1"]
    alpha: Float[Array, ""]  # a_k; 0 before the first step, which knows q
    phase: Float[Array, ""]  # steps in this phase
    earlier: Float[Array, ""]  # steps before it
    ceiling: Float[Array, ""]  # no less than f at the phase's start


def _agd_init(theta: Float[Array, "d 1"]) -> State:
    xp = array_namespace(theta)
    zero = xp.zeros((), dtype=theta.dtype)
    return State(theta, theta, zero, zero, zero, zero)


def _agd_step(program: Program, constants: Smoothness, state: State) -> State:
    xp = array_namespace(program.A)
    L, q, allowed = constants
    slope, value = gradient(program, state.y)
    theta = state.y - slope / L
    ceiling = value - 0.5 * xp.sum(slope * slope) / L
    move = theta - state.theta
    one, zero = xp.ones_like(L), xp.zeros_like(L)
    highest = xp.where(state.alpha > 0, state.ceiling, value)
    # Root of a^2 = (1 - a) + q a, that is gamma_0 = L.
    first = 0.5 * (q - 1.0 + xp.sqrt((1.0 - q) * (1.0 - q) + 4.0))
    alpha = xp.where(state.alpha > 0, state.alpha, first)
    square = alpha * alpha
    following = 0.5 * (q - square + xp.sqrt((square - q) * (square - q) + 4.0 * square))
    momentum = alpha * (1.0 - alpha) / (square + following)

    phase = state.phase + one
    uphill = xp.sum(slope * move) > 0
    restart = allowed & uphill & (phase >= 0.25 * state.earlier) & (ceiling <= highest)
    return State(
        theta,
        theta + xp.where(restart, zero, momentum) * move,
        xp.where(restart, first, following),
        xp.where(restart, zero, phase),
        xp.where(restart, state.earlier + phase, state.earlier),
        xp.where(restart, ceiling, highest),
    )


# -- variance reduction -----------------------------------------------------------------------------------------------
class Snapshot(NamedTuple):
    """Constants of an inner loop of SVRG: where the full gradient was taken, its value, step, number of batches."""

    theta: Float[Array, "d 1"]
    gradient: Float[Array, "d 1"]
    step: Float[Array, ""]
    count: Float[Array, ""]


class SVRGState(NamedTuple):
    theta: Float[Array, "d 1"]


def _svrg_step(batch: Program, constants: Snapshot, state: SVRGState) -> SVRGState:
    xp = array_namespace(batch.A)
    A, loss, scale, l2, _ = batch
    t = loss.dual(scale * (A @ xp.concat([state.theta, constants.theta], axis=1)))
    change = -constants.count * scale * (A.T @ (t[:, :1] - t[:, 1:]))
    slope = change + constants.gradient + l2 * (state.theta - constants.theta)
    return SVRGState(state.theta - constants.step * slope)


# -- AdamW ------------------------------------------------------------------------------------------------------------
class Rate(NamedTuple):
    """Constants of AdamW: the learning rate and 1 / n, in which the ridge becomes the decay of the mean loss."""

    learning_rate: Float[Array, ""]
    share: Float[Array, ""]


class AdamWState(NamedTuple):
    theta: Float[Array, "d 1"]
    mean: Float[Array, "d 1"]
    square: Float[Array, "d 1"]
    left1: Float[Array, ""]  # beta1^k
    left2: Float[Array, ""]


def _adamw_init(theta: Float[Array, "d 1"]) -> AdamWState:
    xp = array_namespace(theta)
    zero, one = xp.zeros_like(theta), xp.ones((), dtype=theta.dtype)
    return AdamWState(theta, zero, zero, one, one)


def _adamw_step(batch: Program, constants: Rate, state: AdamWState) -> AdamWState:
    xp = array_namespace(batch.A)
    A, loss, scale, l2, _ = batch
    rate, share = constants
    slope = -scale * (A.T @ loss.dual(scale * (A @ state.theta))) / float(A.shape[0])
    mean = BETA1 * state.mean + (1.0 - BETA1) * slope
    square = BETA2 * state.square + (1.0 - BETA2) * slope * slope
    left1, left2 = BETA1 * state.left1, BETA2 * state.left2
    move = (mean / (1.0 - left1)) / (xp.sqrt(square / (1.0 - left2)) + ADAM_EPS)
    return AdamWState(state.theta - rate * (move + l2 * share * state.theta), mean, square, left1, left2)


AGD = Algorithm(_agd_init, _agd_step)
SVRG = Algorithm(SVRGState, _svrg_step)
ADAMW = Algorithm(_adamw_init, _adamw_step)
