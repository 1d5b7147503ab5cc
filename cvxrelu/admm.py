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
Sources: Boyd et al., "Distributed optimization and statistical learning via ADMM", 2011 (sections 3.4.1, 3.4.3); Bai,
Gautam & Sojoudi 2023 for this split with one penalty; Eckstein & Bertsekas 1992 for relaxation and summable
inexactness.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace
from jaxtyping import Bool, Float

from cvxrelu.backends.base import Backend
from cvxrelu.linear_systems import LinearSystem, solve_blocks
from cvxrelu.losses import Squared
from cvxrelu.operators import F1_adjoint, G, G_adjoint
from cvxrelu.proximal import group_soft_threshold

__all__ = ["Data", "Penalties", "Report", "State", "balance", "cg_tolerance", "initial_state", "run_chunk", "step"]

Array = Any
RELAXATION = 1.6


class Data(NamedTuple):
    """What every step reads. X in the rotated basis, with the eigenvalues of X^T X."""

    X: Float[Array, "n r"]
    eigenvalues: Float[Array, " r"]
    patterns: Bool[Array, "n P"]
    loss: Squared
    linear: Float[Array, "r c P"]  # F1^T(D target), constant for the squared loss
    beta: Float[Array, ""]


class Penalties(NamedTuple):
    """rho_copy of `U = W`, rho_cone of `G U = s`."""

    copy: Float[Array, ""]
    cone: Float[Array, ""]


class State(NamedTuple):
    x: Float[Array, "r 2 c P"]  # W + scaled dual
    t: Float[Array, "n 2 c P"]  # s + scaled dual
    warm: Float[Array, "n c"]  # last solution of the u-step's inner system
    iteration: Any


class Report(NamedTuple):
    """What the last step of a chunk leaves for the check, still on the device."""

    W: Float[Array, "r 2 c P"]
    prediction_U: Float[Array, "n c"]
    residuals: Float[Array, " 4"]  # relative: primal copy, dual copy, primal cone, dual cone


def initial_state(data: Data) -> State:
    """All zeros: the zero network."""
    xp = array_namespace(data.X)
    (n, rank), P, c = data.X.shape, data.patterns.shape[1], data.loss.y.shape[1]
    dtype = data.X.dtype
    return State(
        xp.zeros((rank, 2, c, P), dtype=dtype),
        xp.zeros((n, 2, c, P), dtype=dtype),
        xp.zeros((n, c), dtype=dtype),
        xp.zeros((), dtype=xp.int32),
    )


def cg_tolerance(iteration: Any, dtype: Any, xp: Any) -> Any:
    """Relative tolerance of the u-step's CG: 0.1 / (k + 1)^1.5, summable as convergence requires, floored at 10 eps."""
    k = xp.astype(iteration, dtype)
    floor = xp.asarray(10.0 * float(xp.finfo(dtype).eps), dtype=dtype)
    return xp.maximum(0.1 * (k + 1.0) ** -1.5, floor)


def step(backend: Backend, data: Data, system: LinearSystem, rho: Penalties, state: State) -> tuple[State, Any, Any]:
    """One iteration; also returns U and G U for the residuals."""
    xp = array_namespace(data.X)
    W = group_soft_threshold(state.x, data.beta / rho.copy)
    rhs = rho.copy * (2.0 * W - state.x) + rho.cone * G_adjoint(data.X, data.patterns, xp.abs(state.t))
    rhs = rhs + xp.stack([data.linear, -data.linear], axis=1)
    tolerance = cg_tolerance(state.iteration, data.X.dtype, xp)
    U, warm = solve_blocks(backend, system, data.X, data.patterns, rhs, state.warm, tolerance)
    GU = G(data.X, data.patterns, U)
    # alpha U + (1 - alpha) W + lam with lam = x - W, and the same for t with s = max(t, 0).
    x = state.x + RELAXATION * (U - W)
    t = state.t + RELAXATION * (GU - xp.maximum(state.t, xp.zeros((), dtype=state.t.dtype)))
    return State(x, t, warm, state.iteration + 1), U, GU


def run_chunk(
    backend: Backend, data: Data, system: LinearSystem, rho: Penalties, state: State, n_steps: Any
) -> tuple[State, Report]:
    """`n_steps >= 1` iterations; residuals are computed on the last one only."""
    state = backend.repeat(n_steps - 1, lambda s: step(backend, data, system, rho, s)[0], state)
    new, U, GU = step(backend, data, system, rho, state)
    return new, _report(data, rho, state, new, U, GU)


def _report(data: Data, rho: Penalties, old: State, new: State, U: Any, GU: Any) -> Report:
    xp = array_namespace(data.X)
    threshold = data.beta / rho.copy
    W_old, W = group_soft_threshold(old.x, threshold), group_soft_threshold(new.x, threshold)
    zero = xp.zeros((), dtype=data.X.dtype)
    s_old, s, nu = xp.maximum(old.t, zero), xp.maximum(new.t, zero), xp.minimum(new.t, zero)
    adjoint = lambda v: G_adjoint(data.X, data.patterns, v)  # noqa: E731

    def norm(v: Any) -> Any:
        return xp.sqrt(xp.sum(v * v))

    def relative(v: Any, *scales: Any) -> Any:
        scale = scales[0] if len(scales) == 1 else xp.maximum(*scales)
        return norm_ratio(xp, norm(v), scale)

    residuals = xp.stack(
        [
            relative(U - W, norm(U), norm(W)),
            relative(W - W_old, norm(new.x - W)),
            relative(GU - s, norm(GU), norm(s)),
            relative(adjoint(s - s_old), norm(adjoint(nu))),
        ]
    )
    XU = xp.where(data.patterns[:, None, None, :], GU, zero)
    return Report(W, xp.sum(XU[:, 0, ...] - XU[:, 1, ...], axis=-1), residuals)


def norm_ratio(xp: Any, value: Any, scale: Any) -> Any:
    """value / scale, 0 where both vanish, 1 where only the scale does."""
    one = xp.ones((), dtype=value.dtype)
    positive = scale > 0
    return xp.where(positive, value / xp.where(positive, scale, one), xp.where(value > 0, one, 0.0 * one))


def prepare(backend: Backend, X: Any, eigenvalues: Any, patterns: Any, loss: Squared, beta: Any) -> Data:
    """Data of the steps, with the constant part of the right-hand side."""
    linear = F1_adjoint(X, patterns, loss.curvature * loss.target)
    return Data(X, eigenvalues, patterns, loss, linear, beta)


def rescale(backend: Backend, data: Data, old: Penalties, new: Penalties, state: State) -> State:
    """The state after a change of penalties: the unscaled duals rho lam and rho nu stay what they were."""
    xp = array_namespace(data.X)
    W = group_soft_threshold(state.x, data.beta / old.copy)
    return state._replace(
        x=W + (state.x - W) * (old.copy / new.copy),
        t=xp.where(state.t > 0, state.t, state.t * (old.cone / new.cone)),
    )


def balance(primal: float, dual: float) -> float:
    """Factor for a penalty with these relative residuals: sqrt(primal / dual), in [1/5, 5], 1 inside a dead band.

    A change costs a factorisation, so small imbalances are left alone.
    """
    if primal <= 0 or dual <= 0:
        return 1.0
    factor = min(max((primal / dual) ** 0.5, 0.2), 5.0)
    return factor if factor > 1.5 or factor < 1 / 1.5 else 1.0
