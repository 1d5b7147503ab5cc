"""Refinement: from nothing, or from any network, to a network that pricing cannot improve.

The network program (N) is a convex problem over measures on the sphere; a network is a measure of finitely many atoms.
Its optimality conditions are that every neuron has |p^T (X u)_+| = beta and no other direction has more, with
p = R^T t and t minus the derivative of the loss at the prediction. A round takes both in turn:

    price    find directions with |p^T (X u)_+| > beta, and from the largest value a lower bound on the optimum
    weigh    add them and solve the non-negative lasso over all magnitudes, exactly: neurons of no use get zero
    merge    neurons with the same activation pattern are one neuron, with no larger a penalty
    descend  move all neurons by L-BFGS on balanced weights, then weigh again

Neither step raises the objective of (N); a descent that would is discarded. A gap below the tolerance is believed only
after several waves of new starts brought nothing. It stays an estimate: a maximum over the ascents made.

Source: the conditional gradient method over measures with local descent, e.g. Boyd, Schiebinger & Recht, "The
alternating descent conditional gradient method", SIAM J. Optimization 27, 2017; the parametrisation by Pilanci & Ergen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.certificates.cells import arrange
from cvxrelu.certificates.coordinates import search_coordinates
from cvxrelu.certificates.exact_pricing import price_on
from cvxrelu.certificates.pricing import Priced, Pricing
from cvxrelu.numerics import lbfgs
from cvxrelu.numerics.lasso import nonnegative_quadratic
from cvxrelu.program.best_skip import dual_of_zero
from cvxrelu.program.problem import Problem
from cvxrelu.program.readout import adjoint
from cvxrelu.program.skip import settle, shorter
from cvxrelu.refinement import neurons
from cvxrelu.refinement.neurons import Neurons, Terms
from cvxrelu.runs.checkpoint import State
from cvxrelu.runs.progress import History
from cvxrelu.runs.status import Status, relative_gap
from cvxrelu.support.errors import OutOfTime

__all__ = ["Refined", "Refinement", "refinement_state", "resume_refinement"]

DESCENT = 20  # L-BFGS steps a round
CHUNK_FLOPS = 1e10  # of descent between two looks at the clock
FEWEST_STARTS = 16  # of every kind in a pricing; half the number of neurons where that is more
MOST_ADDED = 150
FAR_GAP = 0.1
RISE = 0.01  # of the price, relative to tol: a wave that brings less is quiet
SEEN = 0.5  # of tol: more than this between the bounds of price and attained value is hidden by rounding
SAME = 0.99  # cosine of directions that count as one when they are added
MAX_ROUNDS = 300
STALLED = 4  # rounds without progress
NEWTON = 8  # steps to weigh with a loss that is not quadratic


class Effort(NamedTuple):
    """Of a pricing: most waves, steps of all ascents and of the best, and how many directions are polished."""

    waves: int
    steps: tuple[int, int]
    polished: int


FAR = Effort(0, (12, 4), 0)  # violators abound
NEAR = Effort(8, (20, 4), 32)


class Refined(NamedTuple):
    """The end of a refinement: neurons in the coordinates of X, the bound of their dual variable, and the counts."""

    neurons: Neurons
    z: Float[np.ndarray, "k c"]  # coefficients of a penalised skip, as `Skip.coefficients` takes them
    objective: float
    lower_bound: float
    dual: Float[np.ndarray, "m c"]
    raw_dual: Float[np.ndarray, "m c"]  # before it was scaled to be feasible
    status: Status
    rounds: int
    starts: int


class Refinement:
    """One refinement: data on the device, neurons on the host.

    Parameters
    ----------
    problem : the data and the program, on the host and in float64; its patterns are not looked at.
    dtype : "float32" or "float64", of descent, lasso and ascents; objectives, duals and prices are float64.
    strict : False where dtype may give way to float64, which is taken where columns are far from alike.
    tol : relative gap to stop at. exact : price by all cells of the arrangement (rank at most 3, one output), unless
        these are not enumerated at the deadline.
    """

    def __init__(
        self,
        problem: Problem,
        backend: Backend,
        *,
        dtype: str,
        tol: float,
        seed: int,
        exact: bool = False,
        strict: bool = True,
        deadline: float = np.inf,
    ) -> None:
        self.problem, self.backend, self.tol = problem, backend, tol
        self.loss, self.beta = problem.loss, problem.beta
        p = float(np.linalg.norm(adjoint(problem.readout, dual_of_zero(problem))))
        self.coordinates = search_coordinates(problem.X, problem.beta / p if p > 0 else np.inf)
        self.X = X = self.coordinates.rows
        # An excess of the price is about the root of one of the objective, the more so the less alike columns are.
        self.little = 1e-3 if self.coordinates.sizes is None else 1e-5
        self.dtype = dtype = dtype if strict or self.coordinates.sizes is None else "float64"
        self.skip = problem.whitened_skip
        columns, ridge = (None, None) if self.skip is None else self.skip[:2]
        terms = Terms(X, problem.loss, np.asarray(problem.beta), problem.readout, columns, ridge)
        self.exact = backend.put(terms, "float64")
        self.terms = self.exact if dtype == "float64" else backend.put(terms, dtype)
        rng = np.random.default_rng([seed, 2])
        self.key_weights = backend.put(rng.standard_normal(X.shape[0]))
        self.pricing = Pricing(backend, self.terms.X, self.exact.X, rng, self.coordinates.sizes, even=problem.even)
        self.arrangement = None
        if exact:
            with suppress(OutOfTime):
                self.arrangement = arrange(X, deadline=deadline)
        c = problem.n_outputs
        self.neurons = Neurons(np.zeros((X.shape[1], 0)), np.zeros((c, 0)), np.zeros(0))
        self.z = np.zeros((0 if columns is None else columns.shape[1], c))
        self.objective, self.dual, self.z = self._state(self.neurons, self.z)
        self.lower_bound, self.proof = 0.0, 0.0 * self.dual
        self.rounds = self.starts = self.idle = 0  # idle: rounds without progress
        self.blind = False  # whether rounding alone keeps the bound from the objective by more than tol
        self.near = False  # whether the next pricing is a thorough one
        self.reached = time.perf_counter()  # when the objective was last looked at for progress

    def start_from(self, u: np.ndarray, a: np.ndarray, s: np.ndarray) -> None:
        """Take these neurons, weighed, if they are better than none; directions in the coordinates of the given X."""
        if self.coordinates.basis is not None:
            u = self.coordinates.inward(u)
            lengths = np.linalg.norm(u, axis=0)
            u, s = u / np.where(lengths > 0, lengths, 1.0), s * lengths
        given = Neurons(u, a, s)
        for candidate in ((given, self.z), self._weigh(given, self.z)):
            self._keep_better(*candidate)

    def run(
        self,
        record: Callable[[Refinement, int, Priced], bool],
        deadline: float,
        save: Callable[[Refinement], None] | None = None,
    ) -> Refined:
        """Rounds until the confirmed gap is at most tol, until nothing moves, or until told to stop.

        record : called after each pricing with this object, the number of directions added and what was priced; a true
            result stops. deadline : of `time.perf_counter`; the round under way ends early. save : called at the top
            of every round, when what `resuming` keeps of this object is all that the round depends on.
        """
        status = None
        while status is None:
            if save is not None:
                save(self)
            priced = self._price(self.near, deadline)
            before = self.objective
            gap = relative_gap(self.objective, self.lower_bound)
            confirmed = gap <= self.tol and priced.complete and (self.near or self.arrangement is not None)
            new = self._violators(priced, confirmed)
            stop = record(self, new.width, priced)
            if confirmed:
                status = Status.OPTIMAL
            elif stop:
                status = Status.INTERRUPTED
            elif time.perf_counter() > deadline:
                status = Status.TIME_LIMIT
            elif self.rounds >= MAX_ROUNDS:
                status = Status.MAX_ITER
            elif gap <= self.tol:
                self.near = True
            else:
                self.near = gap <= FAR_GAP
                self._round(new, deadline)
                progress = self.objective < before * (1 - self.little * min(self.tol, 1e-3))
                self.idle = 0 if progress else self.idle + 1
                if self.idle >= STALLED:
                    priced = self._price(True, deadline)
                    gap = relative_gap(self.objective, self.lower_bound)
                    close = Status.OPTIMAL_INACCURATE if gap <= 10 * self.tol else Status.STALLED
                    status = Status.OPTIMAL if gap <= self.tol else Status.ILL_CONDITIONED if self.blind else close
                    status = status if priced.complete else Status.TIME_LIMIT
        return self.result(status, deadline)

    def result(self, status: Status, deadline: float = np.inf) -> Refined:
        """What there is now, in the coordinates of the given X."""
        found = neurons.reduce_count(self.neurons, self.X, deadline)
        found = Neurons(self.coordinates.outward(found.u), found.a, found.s)
        z = self.z if self.skip is None else self.skip.back @ self.z
        return Refined(
            found, z, self.objective, self.lower_bound, self.proof, self.dual, status, self.rounds, self.starts
        )

    # -- the four steps -----------------------------------------------------------------------------------------
    def _price(self, near: bool, deadline: float) -> Priced:
        """Directions, and the lower bound D(kappa t) their largest value allows. Replaces the bound there was."""
        known = self.neurons.u
        p = adjoint(self.problem.readout, self.dual)
        if self.arrangement is not None:
            found = price_on(self.arrangement, p[:, 0], above=0.5 * self.beta, deadline=deadline)
            priced = Priced(found.value, found.directions, found.values, 0)
        else:
            count = max(FEWEST_STARTS, known.shape[1] // 2)
            effort = NEAR if near else FAR
            priced = self.pricing.price(
                p,
                known,
                count,
                coarse=not near,
                waves=effort.waves,
                steps=effort.steps,
                polished=effort.polished,
                enough=lambda price: relative_gap(self.objective, self._bound(price)[0]) > self.tol,
                rise=RISE * self.tol,
                deadline=deadline,
            )
        self.starts = priced.starts
        price = priced.price
        if self.arrangement is None:
            best = self.coordinates.outward(priced.directions[:, :1])
            price += self.problem.noise(p, best) + self.coordinates.unseen * float(np.linalg.norm(p))
        self.lower_bound, self.proof = self._bound(price)
        attained = priced.values.max(initial=0.0) if self.arrangement is None else found.attained
        gaps = [relative_gap(self.objective, self._bound(value)[0]) for value in (price, attained)]
        self.blind = gaps[0] - gaps[1] > SEEN * self.tol
        return priced

    def _bound(self, price: float) -> tuple[float, np.ndarray]:
        """(lower bound, multiple of the dual variable that has it) if this is the price of the dual variable."""
        bound, _, proof = self.problem.dual_bound(self.dual, self.beta / price if price > 0 else np.inf)
        return max(0.0, bound), proof

    def _violators(self, priced: Priced, confirmed: bool) -> Neurons:
        """Distinct directions worth adding, with the second layers that their values call for."""
        if confirmed:
            return self.neurons.take(slice(0, 0))
        above = priced.values > self.beta * (1.0 + 0.1 * min(self.tol, 1e-2))
        directions = priced.directions[:, above][:, : 4 * MOST_ADDED]
        cosine = SAME if self.tol >= 1e-4 else 1.0 - 1e-2 * self.tol
        directions = directions[:, self.pricing.distinct(directions, cosine, MOST_ADDED)]
        if directions.shape[1] == 0:
            return self.neurons.take(slice(0, 0))
        outputs = adjoint(self.problem.readout, self.dual).T @ np.maximum(self.X @ directions, 0.0)
        lengths = np.linalg.norm(outputs, axis=0)
        directions, outputs, lengths = directions[:, lengths > 0], outputs[:, lengths > 0], lengths[lengths > 0]
        return Neurons(directions, outputs / lengths, np.zeros(directions.shape[1]))

    def _round(self, new: Neurons, deadline: float) -> None:
        self.rounds += 1
        weighed, z = self._weigh(self.neurons.join(new), self.z, deadline)
        self._keep_better(self._merge(weighed), z)
        if time.perf_counter() < deadline:
            moved, z = self._weigh(*self._descend(self.neurons, self.z, deadline), deadline)
            self._keep_better(self._merge(moved), z)
        self.reached = time.perf_counter()

    def _keep_better(self, candidate: Neurons, z: np.ndarray) -> None:
        objective, dual, z = self._state(candidate, z)
        if objective < self.objective:
            self.neurons, self.objective, self.dual, self.z = candidate, objective, dual, z

    def _weigh(self, given: Neurons, z: np.ndarray, deadline: float = np.inf) -> tuple[Neurons, np.ndarray]:
        """The magnitudes and z that minimise the objective with directions fixed; neurons without any are dropped.

        What is reached at the deadline is returned, no higher than what was given.
        One quadratic program for the squared loss; for others proximal Newton steps, each such a program.
        """
        if given.width == 0:
            return given, z
        s, m, size = given.s, given.width, self.backend.padded(given.width)
        for _ in range(1 if self.loss.is_quadratic else NEWTON):
            if time.perf_counter() > deadline:
                break
            at = Neurons(given.u, given.a, s)
            terms = self.terms if self.coordinates.sizes is None else self.exact
            gram, slope = self._on_device(neurons.moments, terms, *at.padded(size), z)
            keep = np.r_[:m, size : len(slope)]
            gram, slope = gram[np.ix_(keep, keep)].astype(np.float64), slope[keep].astype(np.float64)
            slope[:m] -= self.beta
            now = np.concatenate([s, z.ravel()])
            step = _quadratic_step(gram, slope, now, m, deadline) - now
            if self.loss.is_quadratic:
                now = now + step
                s, z = np.maximum(now[:m], 0.0), now[m:].reshape(z.shape)
                break
            value, prediction = self._objective(at, self._predict(at), z)
            promised = float(slope @ step)
            if promised <= self.little * self.tol * value:
                break
            to, to_z = Neurons(given.u, given.a, np.maximum((now + step)[:m], 0.0)), (now + step)[m:].reshape(z.shape)
            reached, there = self._objective(to, self._predict(to), to_z)
            length = 1.0
            if not reached <= value - 0.1 * promised:
                length = shorter(
                    self.loss, prediction, there - prediction, self._penalty_along(s, z, to.s, to_z), promised
                )
            if length == 0.0:
                break
            s, z = s + length * (to.s - s), z + length * (to_z - z)
        return Neurons(given.u, given.a, s).take(s > 0), z

    def _merge(self, given: Neurons) -> Neurons:
        if given.width < 2:
            return given
        padded = given.padded(self.backend.padded(given.width))
        key = self.backend.compile(neurons.keys)(self.backend, self.exact, self.backend.put(padded.u), self.key_weights)
        return neurons.merge(given, self.backend.get(key)[: given.width])

    def _descend(self, given: Neurons, z: np.ndarray, deadline: float) -> tuple[Neurons, np.ndarray]:
        """L-BFGS on balanced weights and the skip."""
        if given.width == 0:
            return given, z
        backend, terms = self.backend, self.terms
        size = backend.padded(given.width)
        unit = 1.0
        if self.skip is not None:  # z about as curved as the first layer
            curvature = float(np.mean(given.s)) * float(np.mean(self.loss.curvature)) * float(np.sum(self.X**2))
            unit = np.sqrt(curvature / self.X.shape[1])
            terms = terms._replace(unit=backend.put(np.asarray(unit), self.dtype))
        scale = self._first_layer_scale(given)
        if scale is not None:
            terms = terms._replace(
                X=backend.put(self.X * scale[:, 0], self.dtype), scale=backend.put(scale, self.dtype)
            )
        x = backend.put(neurons.to_weights(given.padded(size), z / unit, scale), self.dtype)
        start, run = (backend.compile(fn, ("objective",)) for fn in (lbfgs.start, lbfgs.run))
        at = start(backend, terms, x, objective=neurons.balanced)
        flops = 6.0 * self.X.size * size
        steps = int(max(1, min(DESCENT, CHUNK_FLOPS // flops)))
        for _ in range(-(-DESCENT // steps)):
            at = run(backend, terms, at, steps, objective=neurons.balanced)
            if time.perf_counter() > deadline:
                break
        moved, w = neurons.from_weights(backend.get(at.x), self.X.shape[1], z.shape[1], z.shape[0], scale)
        return moved, unit * w

    def _first_layer_scale(self, given: Neurons) -> np.ndarray | None:
        """(d, 1), in units of which the objective is about equally curved in all of a balanced first layer.

        None where the columns are alike. |a_j|^2 = s_j: the loss has the curvature mean(s) curvature |X_k|^2 in column
        k, the penalty adds beta; the second layer is curved as hidden units are long.
        """
        sizes = self.coordinates.sizes
        if sizes is None:
            return None
        curvature = float(np.mean(self.loss.curvature)) * float(np.mean(given.s))
        hidden = float(np.mean(np.sum((self.X @ given.u) ** 2, axis=0)))
        return np.sqrt((curvature * hidden + self.beta) / (curvature * sizes**2 + self.beta))[:, None]

    # -- the device ---------------------------------------------------------------------------------------------
    def _state(self, given: Neurons, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(objective, dual variable, z) in float64, with the best z there is beside these neurons."""
        base = self._predict(given)
        if self.skip is not None:
            z = settle(self.loss, self.skip, base, z)
        objective, prediction = self._objective(given, base, z)
        return objective, self.loss.dual(prediction), z

    def _penalty_along(self, s: np.ndarray, z: np.ndarray, to: np.ndarray, to_z: np.ndarray) -> tuple[float, float]:
        """The derivative of the penalty on the way from (s, z), and how it grows."""
        slope, growth = self.beta * float(np.sum(to - s)), 0.0
        if self.skip is not None:
            ridge = self.skip.ridge[:, None] * (to_z - z)
            slope, growth = slope + float(np.sum(ridge * z)), float(np.sum(ridge * (to_z - z)))
        return slope, growth

    def _predict(self, given: Neurons) -> np.ndarray:
        return self._on_device(neurons.predict, self.exact, *given.padded(self.backend.padded(given.width)))

    def _objective(self, given: Neurons, base: np.ndarray, z: np.ndarray) -> tuple[float, np.ndarray]:
        """(objective, prediction)"""
        penalty = self.beta * float(np.sum(given.s))
        if self.skip is not None and self.problem.skip is not None:
            base = base + self.skip.columns @ z
            penalty += self.problem.skip.constant + 0.5 * float(np.sum(self.skip.ridge[:, None] * z * z))
        return float(self.loss.value(base)) + penalty, base

    def _on_device(self, fn: Callable, terms: Terms, *arrays: np.ndarray) -> Any:
        dtype = "float64" if terms is self.exact else self.dtype
        return self.backend.get(self.backend.compile(fn)(self.backend, terms, *self.backend.put(arrays, dtype)))


def _quadratic_step(H: np.ndarray, slope: np.ndarray, now: np.ndarray, m: int, deadline: float) -> np.ndarray:
    """The minimiser of the quadratic model at `now` with Hessian H and minus the gradient `slope`, first m >= 0."""
    b = H @ now + slope
    if now.size == m:
        return nonnegative_quadratic(H, b, now, deadline)
    # Far out hardly more than the ridge of a skip is left, of any size; rounding then decides what is positive.
    root = np.sqrt(np.maximum(np.diagonal(H)[m:], np.finfo(np.float64).tiny))[:, None]
    free = H[m:, m:] / root / root.T + 4.0 * np.finfo(np.float64).eps * root.size * np.eye(root.size)
    factor = scipy.linalg.cho_factor(free)
    solved = scipy.linalg.cho_solve(factor, np.column_stack([H[m:, :m], b[m:]]) / root) / root
    of_s, b_s = H[:m, :m] - H[:m, m:] @ solved[:, :m], b[:m] - H[:m, m:] @ solved[:, m]
    s = nonnegative_quadratic(of_s, b_s, now[:m], deadline)
    return np.concatenate([s, solved[:, m] - solved[:, :m] @ s])


REFINED = ("z", "objective", "dual", "lower_bound", "proof", "rounds", "starts", "idle", "near")


def refinement_state(search: Refinement, history: History, spent: float) -> State:
    """The top of a round. Nothing in it is changed in place later."""
    return {
        **{name: getattr(search, name) for name in REFINED},
        "neurons": tuple(search.neurons), "misses": search.pricing.misses,
        "random": search.pricing.rng.bit_generator.state, "history": list(history.records), "spent": spent,
    }  # fmt: skip


def resume_refinement(search: Refinement, saved: State) -> None:
    """The search at the top of the round that was saved."""
    for name in REFINED:
        setattr(search, name, saved[name])
    search.neurons, search.pricing.misses = Neurons(*saved["neurons"]), saved["misses"]
    search.pricing.rng.bit_generator.state = saved["random"]
