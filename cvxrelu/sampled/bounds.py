"""Bounds that hold: the dual of the sampled program, and the closed-form relaxed bound of the network program.

Dual variable. For the scaled dual variable `t (n, c)` = minus the derivative of the loss at some prediction, let D(t)
be the dual value (`losses`). If t satisfies the dual constraint, D(t) is at most the optimum. If the constraint only
holds as `bound(t) <= beta / kappa`, then kappa t satisfies it, and the best kappa below that limit is taken.

    (S):  for every pattern i and output some mu, nu >= 0 with
          |X^T (M_i * t) + X^T (E_i * mu)| <= beta   and   |-X^T (M_i * t) + X^T (E_i * nu)| <= beta
    (N):  max over |u| <= 1 of |t^T (X u)_+|_2 <= beta                     (2-norm over outputs)

For (S) any mu >= 0 is admissible. ADMM's multipliers, -rho_cone min(t_state, 0), are nearly the best near the optimum;
blocks that still exceed beta get the best one, by projection onto their cone (`cones`). For (N), with p a column of t
and (z)_+ = (z + |z|) / 2,

    p^T (X u)_+ <= 1/2 |X^T p| + 1/2 sqrt(sum(p_+) lambda_max(X^T diag(p_+) X)),

because p^T (X u)_+ = 1/2 p^T X u + 1/2 p^T |X u| and Cauchy-Schwarz bounds sum p_+ |X u|; the same for -p, and the root
of the sum of squares over outputs. Rigorous in any dimension, and loose.

With a readout R, p = R^T t takes the place of t in the constraints. A skip with penalty l2 and columns C takes
|C^T t|^2 / (2 l2) from the dual value and adds a constant to it (`skip`); a free one is within the loss.

Everything here is float64 with full-precision products, whatever precision the iterations used, and every computed
bound is moved to the safe side by a rounding allowance: inner products of length m are wrong by at most m eps times the
sum of magnitudes (Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.1).
Source of the sampled dual: Pilanci & Ergen 2020, appendix; Mishkin, Sahiner & Pilanci, "Fast convex optimization for
two-layer ReLU networks", ICML 2022.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Bool, Float

from cvxrelu.backends.base import Backend
from cvxrelu.numerics.proximal import block_norms
from cvxrelu.numerics.rounding import gamma
from cvxrelu.program.dual import Ridge, pull_back, row_lengths, sampled_bound
from cvxrelu.program.loss import Loss
from cvxrelu.program.operators import F, F_adjoint, G_adjoint, masked, signed
from cvxrelu.program.readout import Pairs, read
from cvxrelu.sampled.cones import project_onto_cones
from cvxrelu.support.blocks import Parts, is_streamed, over_blocks, summed

__all__ = [
    "Check",
    "Exact",
    "check",
    "repair",
    "tighten",
    "used_blocks",
]

Array = Any
PROJECTED = 1 << 20  # rows times blocks that are projected at a time


class Exact(NamedTuple):
    """The problem in original coordinates and float64, on the device: what bounds and objectives are evaluated with."""

    X: Float[Array, "n d"]
    patterns: Bool[Array, "n P"]
    loss: Loss
    beta: Float[Array, ""]
    readout: Pairs | None = None
    ridge: Ridge | None = None


class Check(NamedTuple):
    """What one check computes on the device. `values` is the handful of scalars that is transferred every time."""

    # network objective, its scale, objective of (S) at W, first-order cost of repair, bound of (S), nonzero blocks
    values: Float[Array, " 6"]
    W: Float[Array, "d 2 c P"]
    network_prediction: Float[Array, "m c"]  # of the scaled network, skip and all
    dual: Float[Array, "m c"]
    norms: Float[Array, "2 c P"]  # |(+-) X^T (M p) + X^T (E mu)| with rounding allowance
    slack: Float[Array, "2 c P"]  # smallest entry of E * X w, per block
    skip: Float[Array, "k c"] | None = None  # coefficients of a penalised skip


def check(
    backend: Backend,
    exact: Exact,
    basis: Float[Array, "d r"],
    W_rotated: Float[Array, "r 2 c P"],
    prediction_U: Float[Array, "m c"],
    t_state: Float[Array, "n 2 c P"],
    rho_cone: Float[Array, ""],
    scaled_skip: Float[Array, "k c"] | None = None,
) -> Check:
    """Objectives at the copy W, and the bound of (S) from the prediction at U with ADMM's own multipliers.

    prediction_U : without the skip for a quadratic loss, with it for the others. scaled_skip : sqrt(l2) times the
        coefficients of a penalised skip; objectives are those with this skip.
    """
    xp = array_namespace(exact.X)
    X, M, loss, beta, readout, ridge = exact
    zero = xp.zeros((), dtype=X.dtype)
    W = xp.tensordot(basis, xp.astype(W_rotated, X.dtype), axes=1)
    lengths = block_norms(W)
    penalty = beta * xp.sum(lengths)
    skip, offset, beside, constant = None, None, loss, zero  # `beside`: the loss of what stands beside the skip
    if ridge is not None:
        none = xp.zeros((0, loss.y.shape[1]), dtype=X.dtype)  # the constraints leave nothing free
        skip = none if scaled_skip is None else xp.astype(scaled_skip, X.dtype) / xp.sqrt(ridge.l2)
        offset = ridge.columns @ skip
        beside, constant = loss.shifted(offset), ridge.penalty(skip)

    length, multiplier = row_lengths(X), -xp.astype(rho_cone, X.dtype)
    width = W.shape[1] * W.shape[2] * W.shape[3]
    found = over_blocks(width, _of_rows, X, M, t_state, length, beside=(W, multiplier))
    (pulled, pulled_mass, repair_cost), (inner, outer), (lowest,) = found
    sampled_prediction = read(readout, inner)
    sampled_objective = beside.value(sampled_prediction) + penalty + constant
    prediction = read(readout, outer)
    scale = beside.best_scale(prediction, penalty)
    objective = beside.value(scale * prediction) + scale * penalty + constant

    dual = (beside if loss.is_quadratic else loss).dual(xp.astype(prediction_U, X.dtype))
    p, error = pull_back(readout, X, dual)
    norms = block_norms(F_adjoint(X, M, p) + pulled)
    mass = xp.sum(length[:, None] * xp.abs(p), axis=0)[None, :, None] + pulled_mass
    norms = norms + gamma(*X.shape) * mass
    norms = norms if error is None else norms + error[None, :, None]
    bound, _ = sampled_bound(loss, dual, xp.max(norms, axis=(0, 2)), beta, ridge)
    n_nonzero = xp.sum(xp.astype(lengths > 0, X.dtype))
    values = xp.stack([objective, scale, sampled_objective, repair_cost, bound, n_nonzero])
    full = scale * prediction if offset is None else scale * prediction + offset
    return Check(values, W, full, dual, norms, lowest, skip)


def _of_rows(X: Any, M: Any, t_state: Any, length: Any, W: Any, multiplier: Any) -> Parts:
    """G^T mu, |x| @ mu and the cost of repair; what the rows predict in (S) and (N); the least E * X w.

    Rows of zeros are on every side: they have no say in the least.
    """
    xp = array_namespace(X)
    zero = xp.zeros((), dtype=X.dtype)
    XW = xp.tensordot(X, W, axes=1)
    GW, inside, hidden = signed(M, XW), masked(M, XW), xp.maximum(XW, zero)
    mu = multiplier * xp.minimum(xp.astype(t_state, X.dtype), zero)
    sums = (G_adjoint(X, M, mu), xp.tensordot(length, mu, axes=1), xp.sum(mu * xp.maximum(-GW, zero)))
    predicted = (xp.sum(v[:, 0, ...] - v[:, 1, ...], axis=-1) for v in (inside, hidden))
    seen = xp.where(length[:, None, None, None] > 0, GW, xp.full_like(GW, xp.inf))
    return Parts(sums, tuple(predicted), (xp.min(seen, axis=0),))


def tighten(
    X: Float[np.ndarray, "n d"],
    patterns: Bool[np.ndarray, "n P"],
    dual: Float[np.ndarray, "n c"],
    norms: Float[np.ndarray, "2 c P"],
    beta: float,
    slack: float = 0.0,
    deadline: float = np.inf,
    error: Float[np.ndarray, " c"] | None = None,
) -> Float[np.ndarray, "2 c P"]:
    """Replace the norms above (1 + slack) beta by their smallest value over multipliers, |Proj_K(q)| (host, float64).

    dual, error : with a readout what `pull_back` gives.
    Norms within the slack cost the bound at most the relative amount `slack`, and a projection less each.
    """
    side, output, pattern = np.nonzero(norms > beta * (1.0 + slack))
    if side.size == 0:
        return norms
    tightened, of_dual = norms.copy(), row_lengths(X) @ np.abs(dual)
    at_a_time = max(1, PROJECTED // len(X))
    for start in range(0, side.size, at_a_time):
        group = slice(start, start + at_a_time)
        s, k, i = side[group], output[group], pattern[group]
        sign, chosen = np.where(s == 0, 1.0, -1.0), patterns[:, i]
        q = summed(s.size, lambda b, M=chosen, k=k, e=sign: X[b].T @ np.where(M[b], dual[b][:, k] * e, 0.0), X)  # type: ignore[misc]
        projection = project_onto_cones(X, chosen, q, deadline)
        best = np.linalg.norm(projection.points, axis=0) + gamma(*X.shape) * (of_dual[k] + projection.multiplier_mass)
        best = best if error is None else best + error[k]
        tightened[s, k, i] = np.minimum(best, norms[s, k, i])
    return tightened


def repair(
    X: Float[np.ndarray, "n d"],
    patterns: Bool[np.ndarray, "n P"],
    loss: Loss,
    beta: float,
    W: Float[np.ndarray, "d 2 c P"],
    slack: Float[np.ndarray, "2 c P"],
    negligible: float = 0.0,
    deadline: float = np.inf,
    readout: Pairs | None = None,
) -> tuple[float, Float[np.ndarray, "d 2 c P"]]:
    """A cone-feasible point near W and its objective: infeasible blocks projected, then all scaled by the best factor.

    The smallest blocks are dropped while they hold no more than the fraction `negligible` of the total norm, and so is
    a block whose projection does not converge or leaves its cone: zero is in every cone. `loss` is that of what stands
    beside the skip. (host, float64)
    """
    lengths = np.linalg.norm(W, axis=0)
    order = np.sort(lengths, axis=None)
    small = np.cumsum(order) <= negligible * order.sum()
    lengths = np.where(lengths <= order[small].max(initial=0.0), 0.0, lengths)
    W = np.where(lengths > 0, W, 0.0)
    side, output, pattern = np.nonzero((lengths > 0) & (slack < 0))
    if side.size:
        at_a_time = max(1, PROJECTED // len(X))
        for start in range(0, side.size, at_a_time):
            s, k, i = (index[start : start + at_a_time] for index in (side, output, pattern))
            W[:, s, k, i] = _into_cones(X, patterns[:, i], W[:, s, k, i], deadline)
    prediction = read(readout, F(X, *used_blocks(patterns, W)))
    penalty = beta * float(np.linalg.norm(W, axis=0).sum())
    scale = float(loss.best_scale(prediction, penalty))
    return float(loss.value(scale * prediction)) + scale * penalty, scale * W


def used_blocks(patterns: Bool[np.ndarray, "n P"], W: Float[np.ndarray, "d 2 c P"]) -> tuple[np.ndarray, np.ndarray]:
    """The patterns whose blocks are not all zero, and these blocks. Streamed ones as they are."""
    if is_streamed(patterns):
        return patterns, W
    used = np.flatnonzero(W.any(axis=(0, 1, 2)))
    return patterns[:, used], W[..., used]


def _into_cones(X: np.ndarray, patterns: np.ndarray, W: np.ndarray, deadline: float) -> np.ndarray:
    """Each column projected onto its cone; zero where that does not converge or ends outside."""
    projection = project_onto_cones(X, patterns, W, deadline)
    points = np.where(projection.converged, projection.points, 0.0)
    # A cone may leave next to nothing of a block; that is then rounding, and has to be judged by its own size.
    outside = _outside(X, patterns, points)
    if outside.any():
        again = project_onto_cones(X, patterns[:, outside], points[:, outside], deadline)
        points[:, outside] = np.where(again.converged, again.points, 0.0)
        points[:, _outside(X, patterns, points)] = 0.0
    return points


def _outside(X: np.ndarray, patterns: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which columns of points leave the cone of their pattern by more than 1e-10 |x_j| |point| in some row."""
    lengths, sizes = row_lengths(X), np.linalg.norm(points, axis=0)

    def part(b: slice) -> np.ndarray:
        return np.any(signed(patterns[b], X[b] @ points) < -1e-10 * lengths[b, None] * sizes, axis=0)

    return summed(points.shape[1], part, X, patterns)
