"""The sampled program to high accuracy: proximal points in the blocks, semismooth Newton in the dual variable (host).

With p(u) = beta |u| on the cone of a block and infinity elsewhere, the sampled program is

    minimise over U, z   loss(R F U + C z) + l2/2 |z|^2 + sum_b p(u_b).                                              (S)

A proximal point step, which adds |U - U_old|^2 / (2 sigma), has as its dual a smooth convex problem in t (m, c),
because the proximal map of p is soft-thresholding after projection onto the cone:

    minimise over t   phi(t) = loss*(-t) + sum_b (|Proj_b(w_b)| - sigma beta)_+^2 / (2 sigma) + |C^T t|^2 / (2 l2)
                      w = U_old + sigma F^T R^T t
    gradient          R F U(t) + C z(t) - a(t)
                      u_b(t) = (1 - sigma beta / |v_b|)_+ v_b,  v_b = Proj_b(w_b),  z(t) = C^T t / l2
    Newton matrix     D^-1 + sigma sum_b R A_b S_b A_b^T R^T + C C^T / l2,     A_b = M_b * X,
                      S_b = N_b ((1 - r) I + r v v^T / |v|^2) N_b^T,  r = sigma beta / |v_b|

where a(t) is the prediction with the dual variable t, D the Hessian of the loss there, and N_b an orthonormal basis of
the face that v_b lies on. Cones of random patterns are slivers and their projections nearly extreme rays, so N_b has
one column or few, and of the 2 P c blocks few are active: by the Woodbury identity a Newton step costs a Cholesky
factorisation of a matrix of a few hundred rows, whatever n and d are. The work is in the projections (`cone_memory`),
and most blocks are ruled out by the multipliers of their last one.

The steps are taken in the prediction a, with t = -loss'(a): every t is then in the domain of the conjugate, whose value
is -t a - loss(a), and the step g - W (I + W^T D W)^-1 W^T D g, with g the gradient and W W^T the matrix less D^-1, asks
for no inverse of a curvature that may vanish. For the squared loss steps in a are steps in t.

Every evaluation gives both bounds for nothing: U(t) is in its cones, and the multipliers of the projections bound the
dual constraint, `|Proj_b(F_b^T t)| <= beta + |u_b(t) - u_old| / sigma`. Proximal points converge ever faster as sigma
grows, and no constraint qualification is asked for: a cone without interior, or one that is {0}, needs no care.

Sources: Li, Sun & Toh, "A highly efficient semismooth Newton augmented Lagrangian method for solving lasso problems",
SIAM J. Optimization 28, 2018; Rockafellar, "Augmented Lagrangians and applications of the proximal point algorithm",
1976. The proximal map of p: Yu, "On decomposing the proximal map", NIPS 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int

from cvxrelu.numerics.rounding import gamma
from cvxrelu.numerics.semidefinite import semidefinite_solver
from cvxrelu.program.dual import Ridge, pull_back
from cvxrelu.program.loss import Loss
from cvxrelu.program.readout import Pairs, read
from cvxrelu.runs.checkpoint import State
from cvxrelu.runs.status import relative_gap
from cvxrelu.sampled.cone_memory import ConeMemory
from cvxrelu.sampled.newton_program import NewtonProgram
from cvxrelu.sampled.newton_start import combination_of_gates, gates_of
from cvxrelu.support.errors import OutOfTime

__all__ = ["SampledNewton"]

GROWTH = 2.0  # of sigma, from one proximal point to the next
# First sigma, in units of the largest block of the start over beta. Less where blocks have more coordinates than the
# loss sees numbers, by this factor (`freedom`): first points would take many steps.
START, START_CROWDED, CROWDED = 1.0, 0.1, 1.5
INEXACT = 0.5  # a proximal point is good enough when its error is below this share of what it gained, and of the gap
MAX_POINTS, MAX_STEPS = 60, 30
STALLED = 8  # proximal points without progress of the gap
# What a checkpoint holds of an output.
KEPT = (
    "blocks", "skip", "objective", "dual", "norms", "lower_bound", "steps", "sigma", "working", "residuals", "position",
    "a",
)  # fmt: skip


class _Evaluation(NamedTuple):
    """phi at t = -loss'(a), with U(t), z(t): the active blocks, their projections v and the lengths of these."""

    a: Float[np.ndarray, "m c"]
    t: Float[np.ndarray, "m c"]
    q: Float[np.ndarray, "d B"]  # F^T R^T t
    value: float
    scale: float  # of the terms of the value, whose rounding it has
    active: Int[np.ndarray, " a"]
    v: Float[np.ndarray, "d a"]
    lengths: Float[np.ndarray, " a"]
    U: Float[np.ndarray, "d B"]
    z: Any  # (k, c), or None
    neurons: Float[np.ndarray, "m c"]
    prediction: Float[np.ndarray, "m c"]


class SampledNewton:
    """The outputs of a loss together. Of every output, blocks 0 to P - 1 are v, P to 2 P - 1 are z.

    Attributes
    ----------
    blocks, skip, objective : the best point of the cones, the skip's coefficients beside it, its value.
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
        loss: Loss,
        *,
        beta: float,
        tol: float,
        readout: Pairs | None = None,
        ridge: Ridge | None = None,
        deadline: float = np.inf,
        memory: ConeMemory | None = None,
        unseen: float = 0.0,
    ) -> None:
        self.program = NewtonProgram(X, patterns.astype(np.float64), loss, beta, readout, ridge)
        self.tol, self.deadline, self.unseen = tol, deadline, unseen
        gates = gates_of(X, patterns) if gates is None else gates
        self.memory = memory or ConeMemory(X, patterns, gates, self.program.sides)
        self.row_lengths = np.linalg.norm(X, axis=1)
        zero = np.zeros_like(loss.y)
        self.steps, self.sigma = 0, 0.0
        self.working = np.ones(self.program.n_blocks, dtype=bool)  # those that may move; the others are priced in turn
        self.blocks = np.zeros((X.shape[1], self.program.n_blocks))
        self.skip = None if ridge is None else np.zeros((ridge.columns.shape[1], loss.y.shape[1]))
        self.objective = self.program.objective(zero, self.skip, 0.0)
        self.dual, self.norms, self.lower_bound = zero, np.zeros(self.program.n_blocks), 0.0
        self.residuals = (0.0, 0.0)
        self.position: Any = None  # of `run`, between two proximal points: U, a, best gap, points waited, points
        self._start(patterns, gates)

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
    def freedom(self) -> float:
        """Coordinates of the blocks that may move, per number that the loss sees."""
        m, c = self.program.loss.y.shape
        return float(self.working.sum() * len(self.blocks)) / (min(m, len(self.program.X)) * c)

    @property
    def gap(self) -> float:
        """Relative gap of these outputs."""
        return relative_gap(self.objective, self.lower_bound)

    def run(self, report: Callable[[], bool], save: Callable[[], None] | None = None) -> bool:
        """Solve until the gap is at most tol: true then. `report` is called after every proximal point, true to stop.

        False when stopped, out of time, or without progress. `save` is called between two proximal points, when what
        this object and its memory hold is all that the next one depends on.
        """
        U, a, best, waited, first = self.position or (self.blocks, self.a, np.inf, 0, 0)
        if self.gap <= self.tol:
            return True
        try:
            for point in range(first, MAX_POINTS):
                now = self._proximal_point(U, a)
                U, a = now.U, now.a
                self._price(now.t, now.q)
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
                    self.position = (U, a, best, waited, point + 1)
                    save()
        except OutOfTime:
            report()
        return False

    def _start(self, patterns: np.ndarray, gates: np.ndarray) -> None:
        """The best combination of the gates; a sigma of its size."""
        program = self.program
        blocks, z = combination_of_gates(program, patterns, gates, self.memory, self.deadline)
        self._offer_point(blocks, program.neurons(blocks), z)
        self.working = np.any(blocks, axis=0)
        largest = float(np.linalg.norm(blocks, axis=0).max(initial=0.0))
        self.a = program.neurons(self.blocks) + program.skip_part(self.skip)
        if largest == 0:
            q = float(np.linalg.norm(program.pull(program.loss.dual(self.a)), axis=0).max(initial=0.0))
            largest = self.objective / q * program.beta / q if q > 0 else 1.0
        self.sigma = (START if self.freedom <= CROWDED else START_CROWDED) * largest / program.beta

    def _proximal_point(self, U: np.ndarray, a: np.ndarray) -> _Evaluation:
        """Newton steps on phi from -loss'(a) until the point is good enough, or the gap is."""
        now, loss = self._evaluate(U, a), self.program.loss
        for step in range(MAX_STEPS + 1):
            gradient = now.prediction - now.a
            # The duality gap of the proximal point step.
            error = float(loss.value(now.prediction)) - float(loss.value(now.a)) + float(np.sum(now.t * gradient))
            gained = 0.5 * float(np.sum((now.U - U) ** 2)) / self.sigma
            self._judge(now, max(error, 0.0), gained)
            enough = INEXACT * min(self.objective - self.lower_bound, gained)
            if self.gap <= self.tol or (step > 0 and error <= enough) or step == MAX_STEPS:
                break
            better = self._search(U, now, gradient, self._direction(now, gradient))
            if better is None:
                break
            now = better
            self.steps += 1
        return now

    def _evaluate(self, U: np.ndarray, a: np.ndarray) -> _Evaluation:
        """phi, U(t), z(t). Blocks that their last multipliers rule out are not projected."""
        program, limit = self.program, self.sigma * self.program.beta
        t = program.loss.dual(a)
        q = program.pull(t)
        w = U + self.sigma * q
        candidates = np.flatnonzero(self.working & (self.memory.bounds(w)[0] > limit))
        v = self.memory.project(candidates, w[:, candidates], limit, self.deadline)
        lengths = np.linalg.norm(v, axis=0)
        inside = lengths > limit
        active, v, lengths = candidates[inside], v[:, inside], lengths[inside]
        blocks, z = np.zeros_like(U), program.skip(t)
        blocks[:, active] = v * (1.0 - limit / lengths)
        terms = [-float(np.sum(t * a)), -float(program.loss.value(a))]
        terms.append(float(np.sum((lengths - limit) ** 2)) / (2.0 * self.sigma))
        if program.ridge is not None and z is not None:
            terms.append(0.5 * float(program.ridge.l2) * float(np.sum(z * z)))
        neurons = program.neurons(blocks)
        parts = (active, v, lengths, blocks, z, neurons, neurons + program.skip_part(z))
        return _Evaluation(a, t, q, sum(terms), max(map(abs, terms)), *parts)

    def _roots(self, now: _Evaluation) -> tuple[Float[np.ndarray, "d f"], np.ndarray, np.ndarray]:
        """sqrt(sigma) times roots of S_b of the active blocks, and the pattern and output of every column."""
        inner: list[np.ndarray] = []
        for block, v, length in zip(now.active, now.v.T, now.lengths, strict=True):
            basis, unit = self.memory.basis(int(block)), v / length
            root = math.sqrt(1.0 - self.sigma * self.program.beta / length)
            inner.append(root * basis + ((1.0 - root) * unit)[:, None] * (unit @ basis))
        pattern, output, _ = self.program.place(np.repeat(now.active, [part.shape[1] for part in inner]))
        return np.sqrt(self.sigma) * np.concatenate([now.v[:, :0], *inner], axis=1), pattern, output

    def _direction(self, now: _Evaluation, gradient: np.ndarray) -> Float[np.ndarray, "m c"]:
        """The Newton step in a, by the Woodbury identity."""
        program, loss, c = self.program, self.program.loss, gradient.shape[1]
        directions, pattern, output = self._roots(now)
        W = read(program.readout, (program.X @ directions) * program.masks[:, pattern])
        if program.ridge is not None:
            k = program.ridge.columns.shape[1]
            W = np.hstack([W, np.tile(program.ridge.columns / np.sqrt(program.ridge.l2), c)])
            output = np.concatenate([output, np.repeat(np.arange(c), k)])
        if not output.size:
            return gradient
        of_output = np.eye(c)[:, output]
        G = program.gram(now.a, W, of_output)
        G[np.diag_indices_from(G)] += 1.0
        right = np.sum((loss.hessian_product(now.a, gradient).T @ W) * of_output, axis=0)
        try:
            factor = scipy.linalg.cho_factor(G, lower=True, check_finite=False)
            x = scipy.linalg.cho_solve(factor, right, check_finite=False)
        except scipy.linalg.LinAlgError:
            x = semidefinite_solver(G)(right)
        return gradient - (W * x) @ of_output.T

    def _search(self, U: np.ndarray, now: _Evaluation, gradient: np.ndarray, step: np.ndarray) -> _Evaluation | None:
        """The first point along the step where phi has fallen; lengths from the slope at the point before."""
        loss = self.program.loss
        slope, length = -float(np.sum(gradient * loss.hessian_product(now.a, step))), 1.0
        for _ in range(10):
            trial = self._evaluate(U, now.a + length * step)
            if trial.value <= now.value + 1e-4 * length * slope + 1e-13 * now.scale:
                return trial
            there = -float(np.sum((trial.prediction - trial.a) * loss.hessian_product(trial.a, step)))
            length *= min(0.7, max(0.1, slope / (slope - there))) if there > 0 else 0.5
        return None

    def _judge(self, now: _Evaluation, error: float, gained: float) -> None:
        """Keep the point and the bound of an evaluation where they are the best so far."""
        self._offer_point(now.U, now.neurons, now.z)
        self._offer_dual(now.t, now.q)
        scale = max(float(np.linalg.norm(now.prediction)), float(np.linalg.norm(self.program.loss.y)), 1e-300)
        size = max(float(np.linalg.norm(now.U)), 1e-300)
        self.residuals = (np.sqrt(2.0 * error) / scale, np.sqrt(2.0 * gained * self.sigma) / size)

    def _price(self, t: np.ndarray, q: Float[np.ndarray, "d B"]) -> None:
        """Project the blocks outside of the working set that may exceed beta; those that do join it."""
        beta = self.program.beta
        outside = np.flatnonzero(~self.working & (self.memory.bounds(q)[0] > beta))
        if outside.size:
            v = self.memory.project(outside, q[:, outside], beta, self.deadline)
            self.working[outside[np.linalg.norm(v, axis=0) > beta]] = True
            self._offer_dual(t, q)

    def _offer_dual(self, t: Float[np.ndarray, "m c"], q: Float[np.ndarray, "d B"]) -> None:
        """The bound that t proves with the multipliers of the last projections; q = F^T R^T t."""
        program = self.program
        p, error = pull_back(program.readout, program.X, t)
        norms, mass = self.memory.bounds(q)
        per_output = np.abs(p).T @ self.row_lengths
        width = norms.size // per_output.size
        norms = norms + (gamma(*program.X.shape) + self.unseen) * (mass + np.repeat(per_output, width))
        if error is not None:
            norms += np.repeat(error, width)
        bound = program.bound(t, norms)
        if bound > self.lower_bound:
            self.lower_bound, self.dual, self.norms = bound, t, norms

    def _offer_point(self, blocks: np.ndarray, neurons: np.ndarray, z: np.ndarray | None) -> None:
        """Blocks in their cones, scaled by the best common factor."""
        lengths = float(np.linalg.norm(blocks, axis=0).sum())
        scale = self.program.best_multiple(neurons, z, lengths)
        objective = self.program.objective(scale * neurons, z, scale * lengths)
        if objective < self.objective:
            self.blocks, self.skip, self.objective = scale * blocks, z, objective
