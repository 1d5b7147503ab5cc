"""Residual-balanced ADMM on the sampled program, as pure steps over an array namespace.

The split. `U = W` carries the group norms, `G U = s` the cones:

    minimise  loss(F U) + beta sum |w|    s.t.  U = W  (penalty rho_copy),  G U = s >= 0  (penalty rho_cone).

The state. With scaled duals `lam` and `nu`, ADMM only ever needs `x = W + lam` and `t = s + nu`, because both proximal
maps are projections in disguise: `W = prox(x)`, `lam = x - W`, `s = max(t, 0)`, `nu = min(t, 0)`, and the right-hand
side's `s - nu` is just |t|. One array of the slack's size is therefore the whole memory of the method (the
Douglas-Rachford form).

One iteration, over-relaxed by alpha = 1.6:

    U  <- u-step with rhs = F^T(D target) + rho_copy (2 W - x) + rho_cone G^T |t|
    x  <- alpha U   + (1 - alpha) W + lam
    t  <- alpha G U + (1 - alpha) s + nu

in six GEMM passes, 12 n d P c flops. Everything runs in the right singular basis of X (`linear_systems`).

A loss that is not quadratic gets a split of its own, `R F U + C z = a` with loss(a), where C z is the skip: with scaled
dual `kappa` and `p = a + kappa`, again a = prox(p), kappa = p - a, and the target of the u-step becomes 2 a - p. Its
penalty is rho_loss weight / mean(weight), row by row: the proximal map then is equally strong in every row, and rows
without weight take no part. The u-step's solution holds `R F U + C z` already, so that none of this costs a product.

Sources: Boyd et al., "Distributed optimization and statistical learning via ADMM", 2011 (sections 3.4.1, 3.4.3); Bai,
Gautam & Sojoudi 2023 for this split with one penalty; Eckstein & Bertsekas 1992 for relaxation and summable
inexactness.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from array_api_compat import array_namespace
from jaxtyping import Bool, Float

from cvxrelu.backends.base import Backend
from cvxrelu.numerics.proximal import group_soft_threshold
from cvxrelu.program.loss import Loss, ProximalLoss
from cvxrelu.program.operators import F1_adjoint, G, G_adjoint
from cvxrelu.program.readout import Pairs, adjoint, read
from cvxrelu.sampled.data_term import Reading, SkipFactors
from cvxrelu.sampled.linear_systems import LinearSystem, build_system, solve_blocks
from cvxrelu.support.blocks import Parts, is_streamed, over_blocks, scratch

__all__ = [
    "Data", "Penalties", "Report", "State", "balance", "cg_tolerance", "divide", "initial_state", "make_system",
    "prepare", "rescale", "run_chunk", "start", "step",
]  # fmt: skip

Array = Any
RELAXATION = 1.6


class Data(NamedTuple):
    """What every step reads. X in the rotated basis, with the eigenvalues of X^T X."""

    X: Float[Array, "n r"]
    eigenvalues: Float[Array, " r"]
    patterns: Bool[Array, "n P"]
    loss: Loss
    linear: Any  # (r, c, P), F1^T R^T D^1/2 T D^1/2 target of a quadratic loss, else None
    beta: Float[Array, ""]
    curvature: Float[Array, "m 1"]  # D of a quadratic loss; that of a split one for rho_loss = 1
    readout: Pairs | None = None
    skip: SkipFactors | None = None  # for this curvature


class Penalties(NamedTuple):
    """rho_copy of `U = W`, rho_cone of `G U = s`, rho_loss of `R F U + C z = a` where the loss is not quadratic."""

    copy: Float[Array, ""]
    cone: Float[Array, ""]
    loss: Any = None


class State(NamedTuple):
    x: Float[Array, "r 2 c P"]  # W + scaled dual
    t: Float[Array, "n 2 c P"]  # s + scaled dual
    warm: Float[Array, "m c"]  # last solution of the u-step's inner system
    iteration: Any
    p: Any = None  # (m, c), a + scaled dual, where the loss is not quadratic
    a: Any = None  # (m, c), the a before, from which the next one is found


class Report(NamedTuple):
    """What the last step of a chunk leaves for the check, still on the device."""

    W: Float[Array, "r 2 c P"]
    prediction_U: Float[Array, "m c"]  # R F U, or a where the loss is not quadratic
    residuals: Float[Array, " r"]  # relative: primal copy, dual copy, primal cone, dual cone[, primal loss, dual loss]
    skip: Float[Array, "k c"] | None = None  # sqrt(l2) times the coefficients of a penalised skip


def initial_state(data: Data) -> State:
    """All zeros: the zero network."""
    xp = array_namespace(data.X)
    (n, rank), P, (m, c) = data.X.shape, data.patterns.shape[1], data.loss.y.shape
    dtype = data.X.dtype
    return State(
        xp.zeros((rank, 2, c, P), dtype=dtype),
        scratch((n, 2, c, P), dtype) if is_streamed(data.patterns) else xp.zeros((n, 2, c, P), dtype=dtype),
        xp.zeros((m, c), dtype=dtype),
        xp.zeros((), dtype=xp.int32),
        *(() if data.loss.is_quadratic else (xp.zeros((m, c), dtype=dtype), xp.zeros((m, c), dtype=dtype))),
    )


def start(backend: Backend, data: Data) -> State:
    """The initial state, divided over devices."""
    return divide(backend, initial_state(data))


def divide(backend: Backend, state: State) -> State:
    """The same state, blocks and slack divided over devices as the patterns are, slack and predictions as the rows."""
    warm, p, a = (None if v is None else backend.split(v, None, 0) for v in (state.warm, state.p, state.a))
    return State(backend.split(state.x, -1), backend.split(state.t, -1, 0), warm, state.iteration, p, a)


def cg_tolerance(iteration: Any, dtype: Any, xp: Any) -> Any:
    """Relative tolerance of the u-step's CG: 0.1 / (k + 1)^1.5, summable as convergence requires, floored at 10 eps."""
    k = xp.astype(iteration, dtype)
    floor = xp.asarray(10.0 * float(xp.finfo(dtype).eps), dtype=dtype)
    return xp.maximum(0.1 * (k + 1.0) ** -1.5, floor)


def step(backend: Backend, data: Data, system: LinearSystem, rho: Penalties, state: State) -> tuple[State, Any]:
    """One iteration; also returns U for the residuals."""
    xp = array_namespace(data.X)
    W = group_soft_threshold(state.x, data.beta / rho.copy)
    X, M, t = data.X, data.patterns, state.t
    width = t.shape[1] * t.shape[2] * t.shape[3]
    pulled = over_blocks(width, _pulled, X, M, t).sums[0]
    rhs = rho.copy * (2.0 * W - state.x) + rho.cone * pulled
    target = a = None
    if data.loss.is_quadratic:
        rhs = rhs + xp.stack([data.linear, -data.linear], axis=1)
    else:
        a = _loss_prox(data, rho, state.p, state.a)
        target = 2.0 * a - state.p
    U, warm = solve_blocks(backend, system, X, M, rhs, state.warm, cg_tolerance(state.iteration, X.dtype, xp), target)
    # alpha U + (1 - alpha) W + lam with lam = x - W, and the same for t with s = max(t, 0).
    x = state.x + RELAXATION * (U - W)
    t_new = over_blocks(width, _moved, X, M, t, beside=(U,), like=t).rows[0]
    p = None if a is None else state.p + RELAXATION * (target + _beyond(system.reading, warm) - a)
    return State(x, t_new, warm, state.iteration + 1, p, a), U


def _pulled(X: Any, M: Any, t: Any) -> Parts:
    return Parts(sums=(G_adjoint(X, M, array_namespace(t).abs(t)),))


def _moved(X: Any, M: Any, t: Any, U: Any) -> Parts:
    xp = array_namespace(t)
    return Parts(rows=(t + RELAXATION * (G(X, M, U) - xp.maximum(t, xp.zeros((), dtype=t.dtype))),))


def _loss_prox(data: Data, rho: Penalties, p: Any, start: Any) -> Any:
    """a: the proximal map of the loss at p; p itself where there is no weight."""
    xp = array_namespace(p)
    unit = xp.where(data.curvature > 0, data.curvature, xp.ones_like(data.curvature))
    return cast("ProximalLoss", data.loss).prox(p, rho.loss * unit, start)


def _beyond(reading: Reading, t: Any) -> Any:
    """`R F U + C z - q` from the t of the u-step, 0 where there is no weight.

    The slope of the minimum over z is that at its minimiser, `D (R F U + C z - q) = D^1/2 T^1/2 t / 2`.
    """
    xp = array_namespace(t)
    positive = reading.root > 0
    zero, one = xp.zeros_like(reading.root), xp.ones_like(reading.root)
    return xp.where(positive, 0.5 / xp.where(positive, reading.root, one), zero) * reading.contract(t)


def run_chunk(
    backend: Backend, data: Data, system: LinearSystem, rho: Penalties, state: State, n_steps: Any
) -> tuple[State, Report]:
    """`n_steps >= 1` iterations; residuals are computed on the last one only."""
    state = backend.repeat(n_steps - 1, lambda s: step(backend, data, system, rho, s)[0], state)
    new, U = step(backend, data, system, rho, state)
    return new, _report(data, rho, state, new, U)


def _report(data: Data, rho: Penalties, old: State, new: State, U: Any) -> Report:
    xp = array_namespace(data.X)
    threshold = data.beta / rho.copy
    W_old, W = group_soft_threshold(old.x, threshold), group_soft_threshold(new.x, threshold)
    width = new.t.shape[1] * new.t.shape[2] * new.t.shape[3]
    (*squares, by_step, by_dual), (outputs,), _ = over_blocks(width, _of_cones, data.X, data.patterns, old.t, new.t)
    outside, of_GU, of_s = map(xp.sqrt, squares)

    def norm(v: Any) -> Any:
        return xp.sqrt(xp.sum(v * v))

    def relative(v: Any, *scales: Any) -> Any:
        scale = scales[0] if len(scales) == 1 else xp.maximum(*scales)
        return norm_ratio(xp, norm(v), scale)

    residuals = [
        relative(U - W, norm(U), norm(W)),
        relative(W - W_old, norm(new.x - W)),
        norm_ratio(xp, outside, xp.maximum(of_GU, of_s)),
        relative(by_step, norm(by_dual)),
    ]
    neurons = prediction = read(data.readout, outputs)
    target = data.loss.y  # of a quadratic loss
    if not data.loss.is_quadratic:
        a_old, prediction = new.a, _loss_prox(data, rho, new.p, new.a)
        target = 2.0 * a_old - old.p
        reached = a_old + (new.p - old.p) / RELAXATION  # R F U + C z

        def adjoint_F(v: Any) -> Any:
            return F1_adjoint(data.X, data.patterns, adjoint(data.readout, data.curvature * v))

        residuals += [
            relative(reached - prediction, norm(reached), norm(prediction)),
            relative(adjoint_F(prediction - a_old), norm(adjoint_F(new.p - prediction))),
        ]
    skip = None
    if data.skip is not None and data.skip.lift is not None:
        scale = _scale(data, rho)
        skip = data.skip.scaled(scale).coefficients(xp.sqrt(scale * data.curvature) * (target - neurons))
    return Report(W, prediction, xp.stack(residuals), skip)


def _of_cones(X: Any, M: Any, before: Any, after: Any) -> Parts:
    """|G U - s|^2, |G U|^2, |s|^2, G^T (s - s_old) and G^T nu of the rows, and their part of F U."""
    xp = array_namespace(X)
    zero = xp.zeros((), dtype=X.dtype)
    s_old, s = xp.maximum(before, zero), xp.maximum(after, zero)
    GU = s_old + (after - before) / RELAXATION
    inside = xp.where(M[:, None, None, :], GU, zero)
    squares = (xp.sum((GU - s) ** 2), xp.sum(GU * GU), xp.sum(s * s))
    pulled = (G_adjoint(X, M, v) for v in (s - s_old, xp.minimum(after, zero)))
    return Parts((*squares, *pulled), (xp.sum(inside[:, 0, ...] - inside[:, 1, ...], axis=-1),))


def norm_ratio(xp: Any, value: Any, scale: Any) -> Any:
    """value / scale, 0 where both vanish, 1 where only the scale does."""
    one = xp.ones((), dtype=value.dtype)
    positive = scale > 0
    return xp.where(positive, value / xp.where(positive, scale, one), xp.where(value > 0, one, 0.0 * one))


def prepare(
    backend: Backend,
    X: Any,
    eigenvalues: Any,
    patterns: Any,
    loss: Loss,
    beta: Any,
    readout: Pairs | None = None,
    skip: SkipFactors | None = None,
) -> Data:
    """Data of the steps, with the constant part of the right-hand side.

    skip : the factors for `row_curvature(loss)`.
    """
    linear, curvature = None, row_curvature(loss)
    if loss.is_quadratic:
        reading = Reading.make(curvature, readout, skip)
        linear = F1_adjoint(X, patterns, reading.adjoint(reading.contract(reading.root * loss.y)))
    return Data(X, eigenvalues, patterns, loss, linear, beta, curvature, readout, skip)


def row_curvature(loss: Loss) -> Float[Array, "m 1"]:
    """D of a quadratic loss; else the weights, in units of their mean."""
    xp = array_namespace(loss.weight)
    return loss.curvature if loss.is_quadratic else loss.weight / xp.mean(loss.weight)


def make_system(backend: Backend, data: Data, rho: Penalties, landmarks: Any, method: str) -> LinearSystem:
    """Prepare the u-step for these penalties."""
    curvature, skip = data.curvature, data.skip
    if not data.loss.is_quadratic:
        curvature, skip = rho.loss * curvature, None if skip is None else skip.scaled(rho.loss)
    return build_system(
        backend, data.X, data.patterns, data.eigenvalues, curvature, rho.copy, rho.cone, landmarks, method,
        data.readout, skip,
    )  # fmt: skip


def _scale(data: Data, rho: Penalties) -> Any:
    """What multiplies `data.curvature` in the u-step."""
    return array_namespace(data.X).ones((), dtype=data.X.dtype) if rho.loss is None else rho.loss


def rescale(backend: Backend, data: Data, old: Penalties, new: Penalties, state: State) -> State:
    """The state after a change of penalties: the unscaled duals rho lam and rho nu stay what they were."""
    xp = array_namespace(data.X)
    W, p = group_soft_threshold(state.x, data.beta / old.copy), state.p
    if p is not None:
        a = _loss_prox(data, old, p, state.a)
        p = a + (p - a) * (old.loss / new.loss)
    return state._replace(
        x=W + (state.x - W) * (old.copy / new.copy),
        t=xp.where(state.t > 0, state.t, state.t * (old.cone / new.cone)),
        p=p,
    )


def balance(primal: float, dual: float) -> float:
    """Factor for a penalty with these relative residuals: sqrt(primal / dual), in [1/5, 5], 1 inside a dead band.

    A change costs a factorisation, so small imbalances are left alone.
    """
    if primal <= 0 or dual <= 0:
        return 1.0
    factor = min(max((primal / dual) ** 0.5, 0.2), 5.0)
    return factor if factor > 1.5 or factor < 1 / 1.5 else 1.0
