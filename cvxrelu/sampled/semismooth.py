"""The sampled program to high accuracy: proximal points in the blocks, semismooth Newton in the dual variable (host).

With p(u) = beta |u| on the cone of a block and infinity elsewhere, the sampled program is

    minimise over U   loss(F U) + sum_b p(u_b).                                                                      (S)

A proximal point step, `U <- argmin loss(F U) + p(U) + |U - U_old|^2 / (2 sigma)`, has as its dual a smooth convex
problem in one vector t (n,), because the proximal map of p is soft-thresholding after projection onto the cone:

    minimise over t   phi(t) = loss*(-t) + sum_b (|Proj_b(w_b)| - sigma beta)_+^2 / (2 sigma),   w = U_old + sigma F^T t
    gradient          F U(t) - prediction(t),     u_b(t) = (1 - sigma beta / |v_b|)_+ v_b,  v_b = Proj_b(w_b)
    Newton matrix     diag(loss*'') + sigma sum_b A_b S_b A_b^T,     A_b = M_b * X,
                      S_b = N_b ((1 - r) I + r v v^T / |v|^2) N_b^T,  r = sigma beta / |v_b|

where N_b is an orthonormal basis of the face that v_b lies on. Cones of random patterns are slivers and their
projections nearly extreme rays, so N_b has one column or few, and of the 2 P blocks few are active: by the Woodbury
identity a Newton step costs a Cholesky factorisation of a matrix of a few hundred rows, whatever n and d are. The work
is in the projections (`cone_memory`), and most blocks are ruled out by the multipliers of their last one.

Every evaluation gives both bounds for nothing: U(t) is in its cones, and the multipliers of the projections bound the
dual constraint, `|Proj_b(F_b^T t)| <= beta + |u_b(t) - u_old| / sigma`. Proximal points converge ever faster as sigma
grows, and no constraint qualification is asked for: a cone without interior, or one that is {0}, needs no care.

The start is the best combination of the gates: a non-negative lasso over 2 P columns. Patterns that come without gates
have those that fit their signs best, by least squares, which are nearly in their cones.
Sources: Li, Sun & Toh, "A highly efficient semismooth Newton augmented Lagrangian method for solving lasso problems",
SIAM J. Optimization 28, 2018; Rockafellar, "Augmented Lagrangians and applications of the proximal point algorithm",
1976. The proximal map of p: Yu, "On decomposing the proximal map", NIPS 2013.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int

from cvxrelu.numerics.lasso import nonnegative_quadratic
from cvxrelu.numerics.rounding import gamma
from cvxrelu.program.dual import sampled_bound
from cvxrelu.program.losses import Squared
from cvxrelu.runs.checkpoint import State
from cvxrelu.runs.status import relative_gap
from cvxrelu.sampled.cone_memory import ConeMemory
from cvxrelu.sampled.cones import TOLERANCE
from cvxrelu.support.errors import OutOfTime

__all__ = ["SampledNewton", "gates_of"]

GROWTH = 2.0  # of sigma, from one proximal point to the next
START = 1.0  # first sigma, in units of the largest block of the start over beta
INEXACT = 0.5  # a proximal point is good enough when its error is below this share of what it gained, and of the gap
MAX_POINTS, MAX_STEPS = 60, 30
NOTHING = 1e-9  # of its length: what is left of a gate after projection onto a cone that is {0}
STALLED = 8  # proximal points without progress of the gap
# What a checkpoint holds of an output.
KEPT = (
    "blocks", "objective", "dual", "norms", "lower_bound", "steps", "sigma", "working", "residuals", "position", "t",
)  # fmt: skip


class _Evaluation(NamedTuple):
    """phi at t, with U(t): the active blocks, their projections v and the lengths of these."""

    t: Float[np.ndarray, " n"]
    value: float
    active: Int[np.ndarray, " a"]
    v: Float[np.ndarray, "d a"]
    lengths: Float[np.ndarray, " a"]
    U: Float[np.ndarray, "d B"]
    prediction: Float[np.ndarray, " n"]


def gates_of(X: Float[np.ndarray, "n d"], patterns: Bool[np.ndarray, "n P"]) -> Float[np.ndarray, "d P"]:
    """Vectors whose signs on the rows are nearly those of the patterns: least squares to +-1, rows of unit length."""
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    rows = X / np.where(lengths > 0, lengths, 1.0)
    return np.linalg.lstsq(rows, np.where(patterns, 1.0, -1.0))[0]


class SampledNewton:
    """One output of the sampled program. Blocks 0 to P - 1 are v, P to 2 P - 1 are z.

    Attributes
    ----------
    blocks, objective : the best point of the cones and its value.
    dual, norms, lower_bound : the best dual variable, bounds on |Proj_b(F_b^T t)|, what they prove.
    steps, sigma : Newton steps so far, the current proximal parameter.
    unseen : how far the data may be from the rows of X, relative to their lengths.
    residuals : relative; of F U = prediction, and how far the last proximal point has moved.
    """

    def __init__(
        self,
        X: Float[np.ndarray, "n d"],
        patterns: Bool[np.ndarray, "n P"],
        gates: Float[np.ndarray, "d P"] | None,
        loss: Squared,
        *,
        beta: float,
        tol: float,
        deadline: float = np.inf,
        memory: ConeMemory | None = None,
        unseen: float = 0.0,
    ) -> None:
        self.X, self.patterns, self.loss, self.beta, self.tol, self.deadline = X, patterns, loss, beta, tol, deadline
        self.unseen, (self.n, self.d), self.P = unseen, X.shape, patterns.shape[1]
        self.masks = patterns.astype(np.float64)
        gates = gates_of(X, patterns) if gates is None else gates
        self.memory = memory or ConeMemory(X, patterns, gates)
        self.row_lengths = np.linalg.norm(X, axis=1)
        self.curvature = weight = loss.weight[:, 0]  # of the loss; loss*'' is its inverse
        self.inverse = np.divide(1.0, weight, out=np.zeros(self.n), where=weight > 0)
        self.steps, self.sigma = 0, 0.0
        self.working = np.ones(2 * self.P, dtype=bool)  # blocks that may move; the others are zero and priced in turn
        self.blocks, self.objective = np.zeros((self.d, 2 * self.P)), float(loss.value(np.zeros((self.n, 1))))
        self.dual, self.norms, self.lower_bound = np.zeros(self.n), np.zeros(2 * self.P), 0.0
        self.residuals = (0.0, 0.0)
        self.position: Any = None  # of `run`, between two proximal points: U, t, best gap, points waited, points
        self._start(gates)

    def state(self) -> State:
        """What the next proximal point depends on, beside the problem and the memory of the cones."""
        return {name: getattr(self, name) for name in KEPT}

    def restore(self, state: State) -> None:
        """The inverse of `state`."""
        for name in KEPT:
            setattr(self, name, state[name])
        first, second = self.residuals
        self.residuals = (first, second)

    @property
    def gap(self) -> float:
        """Relative gap of this output."""
        return relative_gap(self.objective, self.lower_bound)

    def run(self, report: Callable[[], bool], save: Callable[[], None] | None = None) -> bool:
        """Solve until the gap is at most tol: true then. `report` is called after every proximal point, true to stop.

        False when stopped, out of time, or without progress. `save` is called between two proximal points, when what
        this object and its memory hold is all that the next one depends on.
        """
        U, t, best, waited, first = self.position or (self.blocks, self.t, np.inf, 0, 0)
        if self.gap <= self.tol:
            return True
        try:
            for point in range(first, MAX_POINTS):
                now = self._proximal_point(U, t)
                U, t = now.U, now.t
                self._price(t)
                if report():
                    return False
                if self.gap <= self.tol:
                    return True
                best, waited = (self.gap, 0) if self.gap < 0.9 * best else (best, waited + 1)
                if waited >= STALLED:
                    return False
                # Waiting happens near the end, where blocks that hardly differ exchange their weights over long ways.
                self.sigma *= GROWTH if waited == 0 else 4 * GROWTH
                if save is not None:
                    self.position = (U, t, best, waited, point + 1)
                    save()
        except OutOfTime:
            report()
        return False

    def _start(self, gates: np.ndarray) -> None:
        """The best combination of the gates; a sigma of its size. Gates outside of their cones are projected first."""
        lengths = np.linalg.norm(gates, axis=0)
        directions = gates / np.where(lengths > 0, lengths, 1.0)
        hidden = self.X @ directions
        signed = np.where(self.patterns, hidden, -hidden)
        inside = (lengths > 0) & np.all(signed >= 0, axis=0)
        if not inside.all():
            # Few of them will be used: which, the gates tell as they are.
            sizes = self._combine(np.maximum(signed, 0.0) * self.masks)
            wanted = np.flatnonzero(~inside & ((sizes[: self.P] > 0) | (sizes[self.P :] > 0)))
            directions[:, ~inside] = 0.0
            v, longest = self.memory.project(wanted, gates[:, wanted], 0.0, self.deadline), lengths[wanted]
            lengths = np.linalg.norm(v, axis=0)
            left = lengths > NOTHING * longest
            directions[:, wanted[left]] = v[:, left] / lengths[left]
            hidden = self.X @ directions
            outside = np.where(self.patterns, -hidden, hidden) > 2.0 * TOLERANCE * self.row_lengths[:, None]
            directions[:, outside.any(axis=0)] = 0.0  # by a projection that did not converge
            hidden[:, outside.any(axis=0)] = 0.0
        sizes = self._combine(np.maximum(hidden, 0.0) * self.masks)
        self._offer_point(np.tile(directions, 2) * sizes)
        self.working = sizes > 0
        largest = float(sizes.max(initial=0.0))
        prediction = self._predict(self.blocks)
        self.t = self.loss.dual(prediction[:, None])[:, 0]
        if largest == 0:
            q = float(np.linalg.norm(self._adjoint(self.t), axis=0).max(initial=0.0))
            largest = self.objective / q * self.beta / q if q > 0 else 1.0
        self.sigma = START * largest / self.beta

    def _combine(self, columns: Float[np.ndarray, "n P"]) -> Float[np.ndarray, " B"]:
        """The non-negative lasso over these columns, and their negatives."""
        gram = columns.T @ (self.curvature[:, None] * columns)
        linear = columns.T @ self.loss.dual(np.zeros((self.n, 1)))[:, 0]
        both, zero = np.block([[gram, -gram], [-gram, gram]]), np.zeros(2 * self.P)
        return nonnegative_quadratic(both, np.concatenate([linear, -linear]) - self.beta, zero, self.deadline)

    def _proximal_point(self, U: np.ndarray, t: np.ndarray) -> _Evaluation:
        """Newton steps on phi from t until the point is good enough, or the gap is."""
        now = self._evaluate(U, t)
        for step in range(MAX_STEPS + 1):
            gradient = np.where(self.curvature > 0, now.prediction - self._wanted(now.t), 0.0)
            error = 0.5 * float(self.curvature @ (gradient * gradient))
            gained = 0.5 * float(np.sum((now.U - U) ** 2)) / self.sigma
            self._judge(now, error, gained)
            enough = INEXACT * min(self.objective - self.lower_bound, gained)
            if self.gap <= self.tol or (step > 0 and error <= enough) or step == MAX_STEPS:
                break
            better = self._search(U, now, gradient, self._direction(now, gradient))
            if better is None:
                break
            now = better
            self.steps += 1
        return now

    def _evaluate(self, U: np.ndarray, t: np.ndarray) -> _Evaluation:
        """phi(t) and U(t). Blocks that their last multipliers rule out are not projected."""
        limit = self.sigma * self.beta
        w = U + self.sigma * self._adjoint(t)
        candidates = np.flatnonzero(self.working & (self.memory.bounds(w)[0] > limit))
        v = self.memory.project(candidates, w[:, candidates], limit, self.deadline)
        lengths = np.linalg.norm(v, axis=0)
        inside = lengths > limit
        active, v, lengths = candidates[inside], v[:, inside], lengths[inside]
        blocks = np.zeros_like(U)
        blocks[:, active] = v * (1.0 - limit / lengths)
        value = self._conjugate(t) + float(np.sum((lengths - limit) ** 2)) / (2.0 * self.sigma)
        return _Evaluation(t, value, active, v, lengths, blocks, self._predict(blocks))

    def _direction(self, now: _Evaluation, gradient: np.ndarray) -> np.ndarray:
        """Minus the inverse of the generalised Hessian times the gradient, by the Woodbury identity."""
        columns = []
        for block, v, length in zip(now.active, now.v.T, now.lengths, strict=True):
            basis, unit = self.memory.basis(int(block)), v / length
            root = np.sqrt(1.0 - self.sigma * self.beta / length)
            inner = root * basis + (1.0 - root) * np.outer(unit, unit @ basis)
            columns.append((self.X @ inner) * self.masks[:, block % self.P, None])
        scaled = self.curvature * gradient
        if not columns:
            return -scaled
        C = np.hstack(columns)
        G = C.T @ (self.curvature[:, None] * C)
        G[np.diag_indices_from(G)] += 1.0 / self.sigma
        factor = scipy.linalg.cho_factor(G, lower=True, overwrite_a=True, check_finite=False)
        return self.curvature * (C @ scipy.linalg.cho_solve(factor, C.T @ scaled, check_finite=False)) - scaled

    def _search(self, U: np.ndarray, now: _Evaluation, gradient: np.ndarray, step: np.ndarray) -> _Evaluation | None:
        """The first point along the step where phi has fallen; lengths from the slope at the point before."""
        slope, length = float(gradient @ step), 1.0
        for _ in range(10):
            trial = self._evaluate(U, now.t + length * step)
            if trial.value <= now.value + 1e-4 * length * slope + 1e-13 * abs(now.value):
                return trial
            there = float(step @ np.where(self.curvature > 0, trial.prediction - self._wanted(trial.t), 0.0))
            length *= min(0.7, max(0.1, slope / (slope - there))) if there > 0 else 0.5
        return None

    def _judge(self, now: _Evaluation, error: float, gained: float) -> None:
        """Keep the point and the bound of an evaluation where they are the best so far."""
        self._offer_point(now.U, now.prediction)
        self._offer_dual(now.t, self._adjoint(now.t))
        scale = max(float(np.linalg.norm(now.prediction)), float(np.linalg.norm(self.loss.y)), 1e-300)
        size = max(float(np.linalg.norm(now.U)), 1e-300)
        self.residuals = (np.sqrt(2.0 * error) / scale, np.sqrt(2.0 * gained * self.sigma) / size)

    def _price(self, t: np.ndarray) -> None:
        """Project the blocks outside of the working set that may exceed beta; those that do join it."""
        q = self._adjoint(t)
        outside = np.flatnonzero(~self.working & (self.memory.bounds(q)[0] > self.beta))
        if outside.size:
            v = self.memory.project(outside, q[:, outside], self.beta, self.deadline)
            self.working[outside[np.linalg.norm(v, axis=0) > self.beta]] = True
            self._offer_dual(t, q)

    def _offer_dual(self, t: np.ndarray, q: Float[np.ndarray, "d B"]) -> None:
        """The bound that t proves with the multipliers of the last projections; q = F^T t."""
        norms, mass = self.memory.bounds(q)
        norms = norms + (gamma(self.n, self.d) + self.unseen) * (mass + float(self.row_lengths @ np.abs(t)))
        bound, _ = sampled_bound(self.loss, t[:, None], norms.max(keepdims=True), self.beta)
        if bound > self.lower_bound:
            self.lower_bound, self.dual, self.norms = float(bound), t, norms

    def _offer_point(self, blocks: np.ndarray, prediction: np.ndarray | None = None) -> None:
        """Blocks in their cones, scaled by the best common factor."""
        prediction = self._predict(blocks) if prediction is None else prediction
        penalty = self.beta * float(np.linalg.norm(blocks, axis=0).sum())
        scale = float(self.loss.best_scale(prediction[:, None], penalty))
        objective = float(self.loss.value(scale * prediction[:, None])) + scale * penalty
        if objective < self.objective:
            self.blocks, self.objective = scale * blocks, objective

    # -- the loss, by its conjugate ----------------------------------------------------------------------------------
    def _conjugate(self, t: np.ndarray) -> float:
        """loss*(-t)."""
        return -float(self.loss.dual_value(t[:, None])[0])

    def _wanted(self, t: np.ndarray) -> np.ndarray:
        """The prediction whose dual variable is t: minus the gradient of loss*(-t)."""
        return self.loss.y[:, 0] - self.inverse * t

    # -- F and its adjoint on blocks (d, 2 P) -------------------------------------------------------------------------
    def _adjoint(self, t: np.ndarray) -> Float[np.ndarray, "d B"]:
        half = self.X.T @ (self.masks * t[:, None])
        return np.hstack([half, -half])

    def _predict(self, blocks: np.ndarray) -> Float[np.ndarray, " n"]:
        used = np.flatnonzero(blocks.any(axis=0))
        signs = np.where(used < self.P, 1.0, -1.0)
        return np.sum((self.X @ blocks[:, used]) * (self.masks[:, used % self.P] * signs), axis=1)
