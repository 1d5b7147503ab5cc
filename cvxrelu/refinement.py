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
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu import lbfgs, neurons
from cvxrelu.backends.base import Backend
from cvxrelu.exact_pricing import arrange, price_on
from cvxrelu.lasso import nonnegative_quadratic
from cvxrelu.neurons import Neurons, Terms
from cvxrelu.preparation import right_singular_basis
from cvxrelu.pricing import Priced, Pricing, distinct
from cvxrelu.solution import Status, relative_gap

__all__ = ["Refined", "Refinement"]

DESCENT = 20  # L-BFGS steps a round
CHUNK_FLOPS = 5e10  # of descent between two looks at the clock
FEWEST_STARTS = 16  # of every kind in a pricing; half the number of neurons where that is more
MOST_ADDED = 150
FAR_GAP = 0.1
RISE = 0.01  # of the price, relative to tol: a wave that brings less is quiet
SAME = 0.99  # cosine of directions that count as one when they are added
MAX_ROUNDS = 300
STALLED = 4  # rounds without progress


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
    objective: float
    lower_bound: float
    dual: Float[np.ndarray, "n c"]
    raw_dual: Float[np.ndarray, "n c"]  # before it was scaled to be feasible
    status: Status
    rounds: int
    starts: int


class Refinement:
    """One refinement: data on the device, neurons on the host.

    Parameters
    ----------
    X (n, d), loss, beta : the problem on the host, float64.
    dtype : "float32" or "float64", of descent, lasso and ascents; objectives, duals and prices are float64.
    tol : relative gap to stop at. exact : price by all cells of the arrangement (rank at most 3, one output).
    """

    def __init__(
        self,
        X: np.ndarray,
        loss: Any,
        beta: float,
        backend: Backend,
        *,
        dtype: str,
        tol: float,
        seed: int,
        exact: bool = False,
    ) -> None:
        self.backend, self.loss, self.beta, self.tol, self.dtype = backend, loss, beta, tol, dtype
        self.basis = None
        if X.shape[1] > X.shape[0]:  # directions orthogonal to the rows cost and give nothing
            self.basis = right_singular_basis(X, np)[0]
            X = X @ self.basis
        self.X = X
        self.exact = Terms(*backend.put((X, loss, np.asarray(beta)), "float64"))
        self.terms = self.exact if dtype == "float64" else Terms(*backend.put((X, loss, np.asarray(beta)), dtype))
        rng = np.random.default_rng([seed, 2])
        self.key_weights = backend.put(rng.standard_normal(X.shape[0]))
        self.pricing = Pricing(backend, self.terms.X, self.exact.X, rng)
        self.arrangement = arrange(X) if exact else None
        c = loss.y.shape[1]
        self.neurons = Neurons(np.zeros((X.shape[1], 0)), np.zeros((c, 0)), np.zeros(0))
        self.objective, self.dual = self._state(self.neurons)
        self.lower_bound, self.proof = 0.0, 0.0 * self.dual
        self.rounds = self.starts = 0
        self.reached = time.perf_counter()  # when the objective was last looked at for progress

    def start_from(self, u: np.ndarray, a: np.ndarray, s: np.ndarray) -> None:
        """Take these neurons, weighed, if they are better than none; directions in the coordinates of the given X."""
        if self.basis is not None:
            u = self.basis.T @ u
            lengths = np.linalg.norm(u, axis=0)
            u, s = u / np.where(lengths > 0, lengths, 1.0), s * lengths
        given = Neurons(u, a, s)
        for candidate in (given, self._weigh(given)):
            self._keep_better(candidate)

    def run(self, record: Callable[[Refinement, int, Priced], bool], deadline: float) -> Refined:
        """Rounds until the confirmed gap is at most tol, until nothing moves, or until told to stop.

        record : called after each pricing with this object, the number of directions added and what was priced; a true
            result stops. deadline : of `time.perf_counter`; the round under way ends early.
        """
        status, idle, gap, near = None, 0, np.inf, False
        while status is None:
            priced = self._price(near)
            before = self.objective
            gap = relative_gap(self.objective, self.lower_bound)
            confirmed = gap <= self.tol and (near or self.arrangement is not None)
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
                near = True
            else:
                near = gap <= FAR_GAP
                self._round(new, deadline)
                idle = 0 if self.objective < before * (1 - 1e-3 * min(self.tol, 1e-3)) else idle + 1
                if idle >= STALLED:
                    self._price(near=True)
                    gap = relative_gap(self.objective, self.lower_bound)
                    close = Status.OPTIMAL_INACCURATE if gap <= 10 * self.tol else Status.MAX_ITER
                    status = Status.OPTIMAL if gap <= self.tol else close
        return self.result(status)

    def result(self, status: Status) -> Refined:
        """What there is now, in the coordinates of the given X."""
        found = neurons.reduce_count(self.neurons, self.X)
        if self.basis is not None:
            found = Neurons(self.basis @ found.u, found.a, found.s)
        return Refined(found, self.objective, self.lower_bound, self.proof, self.dual, status, self.rounds, self.starts)

    # -- the four steps -----------------------------------------------------------------------------------------
    def _price(self, near: bool) -> Priced:
        """Directions, and the lower bound D(kappa t) their largest value allows. Replaces the bound there was."""
        known = self.neurons.u
        if self.arrangement is not None:
            found = price_on(self.arrangement, self.dual[:, 0], above=0.5 * self.beta)
            priced = Priced(found.value, found.directions, found.values, 0)
        else:
            count = max(FEWEST_STARTS, known.shape[1] // 2)
            effort = NEAR if near else FAR
            priced = self.pricing.price(
                self.dual,
                known,
                count,
                coarse=not near,
                waves=effort.waves,
                steps=effort.steps,
                polished=effort.polished,
                enough=lambda price: relative_gap(self.objective, self._bound(price)[0]) > self.tol,
                rise=RISE * self.tol,
            )
        self.starts = priced.starts
        self.lower_bound, self.proof = self._bound(priced.price)
        return priced

    def _bound(self, price: float) -> tuple[float, np.ndarray]:
        """(lower bound, multiple of the dual variable that has it) if this is the price of the dual variable."""
        kappa_max = np.float64(self.beta / price if price > 0 else np.inf)
        proof = float(self.loss.best_dual_scale(self.dual, kappa_max)) * self.dual
        return max(0.0, float(self.loss.dual_value(proof)[0])), proof

    def _violators(self, priced: Priced, confirmed: bool) -> Neurons:
        """Distinct directions worth adding, with the second layers that their values call for."""
        if confirmed:
            return self.neurons.take(slice(0, 0))
        above = priced.values > self.beta * (1.0 + 0.1 * min(self.tol, 1e-2))
        directions = priced.directions[:, above][:, : 4 * MOST_ADDED]
        cosine = SAME if self.tol >= 1e-4 else 1.0 - 1e-2 * self.tol
        directions = directions[:, distinct(directions, cosine, MOST_ADDED)]
        if directions.shape[1] == 0:
            return self.neurons.take(slice(0, 0))
        outputs = self.dual.T @ np.maximum(self.X @ directions, 0.0)
        return Neurons(directions, outputs / np.linalg.norm(outputs, axis=0), np.zeros(directions.shape[1]))

    def _round(self, new: Neurons, deadline: float) -> None:
        self.rounds += 1
        self._keep_better(self._merge(self._weigh(self.neurons.join(new))))
        moved = self._descend(self.neurons, deadline)
        self._keep_better(self._merge(self._weigh(moved)))
        self.reached = time.perf_counter()

    def _keep_better(self, candidate: Neurons) -> None:
        objective, dual = self._state(candidate)
        if objective < self.objective:
            self.neurons, self.objective, self.dual = candidate, objective, dual

    def _weigh(self, given: Neurons) -> Neurons:
        """The magnitudes that minimise the objective with directions fixed; neurons without any are dropped."""
        if given.width == 0:
            return given
        padded = given.padded(self.backend.padded(given.width))
        gram, slope = self._on_device(neurons.moments, self.terms, *padded)
        m = given.width
        gram, slope = gram[:m, :m].astype(np.float64), slope[:m].astype(np.float64)
        s = nonnegative_quadratic(gram, gram @ given.s + slope - self.beta, given.s)
        return Neurons(given.u, given.a, s).take(s > 0)

    def _merge(self, given: Neurons) -> Neurons:
        if given.width < 2:
            return given
        padded = given.padded(self.backend.padded(given.width))
        key = self.backend.compile(neurons.keys)(self.backend, self.exact, self.backend.put(padded.u), self.key_weights)
        return neurons.merge(given, self.backend.get(key)[: given.width])

    def _descend(self, given: Neurons, deadline: float) -> Neurons:
        """L-BFGS on balanced weights."""
        if given.width == 0:
            return given
        backend = self.backend
        size = backend.padded(given.width)
        x = backend.put(neurons.to_weights(given.padded(size)), self.dtype)
        start, run = (backend.compile(fn, ("objective",)) for fn in (lbfgs.start, lbfgs.run))
        at = start(backend, self.terms, x, objective=neurons.balanced)
        flops = 6.0 * self.X.size * size
        steps = int(max(1, min(DESCENT, CHUNK_FLOPS // flops)))
        for _ in range(-(-DESCENT // steps)):
            at = run(backend, self.terms, at, steps, objective=neurons.balanced)
            if time.perf_counter() > deadline:
                break
        return neurons.from_weights(backend.get(at.x), self.X.shape[1])

    # -- the device ---------------------------------------------------------------------------------------------
    def _state(self, given: Neurons) -> tuple[float, np.ndarray]:
        """(objective, dual variable) in float64."""
        objective, dual = self._on_device(neurons.state, self.exact, *given.padded(self.backend.padded(given.width)))
        return float(objective), dual

    def _on_device(self, fn: Callable, terms: Terms, *arrays: np.ndarray) -> Any:
        dtype = "float64" if terms is self.exact else self.dtype
        return self.backend.get(self.backend.compile(fn)(self.backend, terms, *self.backend.put(arrays, dtype)))
