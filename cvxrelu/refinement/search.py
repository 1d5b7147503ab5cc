"""Refinement: from nothing, or from any network, to a network that pricing cannot improve.

The network program (N) is a convex problem over measures on the sphere; a network is a measure of finitely many atoms.
Its optimality conditions are that every neuron has |p^T (X u)_+| = beta and no other direction has more, with
p = R^T t and t minus the derivative of the loss at the prediction. A round takes both in turn:

    price    find directions with |p^T (X u)_+| > beta, and from the largest value a lower bound on the optimum
    weigh    add them and solve the non-negative lasso over all magnitudes, exactly: neurons of no use get zero
    merge    neurons with the same activation pattern are one neuron, with no larger a penalty
    descend  move all neurons by L-BFGS on balanced weights, then weigh again

Neither step raises the objective of (N); a descent that would is discarded. A gap below the tolerance is believed only
after another pricing, with more starts, confirmed it: of many pricings, one finds nothing by chance. It stays an
estimate: a maximum over the ascents made.

Source: the conditional gradient method over measures with local descent, e.g. Boyd, Schiebinger & Recht, "The
alternating descent conditional gradient method", SIAM J. Optimization 27, 2017; the parametrisation by Pilanci & Ergen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.certificates.cells import arrange
from cvxrelu.certificates.coordinates import merged
from cvxrelu.certificates.exact_pricing import price_on
from cvxrelu.certificates.pricing import Priced, Pricing
from cvxrelu.certificates.search_space import SearchSpace
from cvxrelu.program.best_skip import dual_of_zero
from cvxrelu.program.dual import largest_multiple
from cvxrelu.program.problem import Problem
from cvxrelu.program.readout import adjoint
from cvxrelu.refinement import neurons
from cvxrelu.refinement.effort import DEAR_SHARE, FAR, NEAR, SURE, Effort, affordable, is_dear, starts
from cvxrelu.refinement.neurons import Neurons
from cvxrelu.refinement.program import DESCENT, NetworkProgram
from cvxrelu.runs.checkpoint import State
from cvxrelu.runs.status import Status, relative_gap
from cvxrelu.support.errors import OutOfTime

__all__ = ["Refined", "Refinement"]

MOST_ADDED = 150
FAR_GAP = 0.1
RISE = 0.01  # of the price, relative to tol: a wave that brings less is quiet
SEEN = 0.5  # of tol: more than this between the bounds of price and attained value is hidden by rounding
SAME = 0.99  # cosine of directions that count as one when they are added
MAX_ROUNDS = 300
STALLED = 4  # rounds without progress
MOST_DESCENTS, CHEAP, LITTLE = 4, 0.25, 0.01  # of a round; share of a pricing; of tol, what a descent has to bring
SLOW = 0.1  # of tol: see `rough`
# by a checkpoint
KEPT = ("z", "objective", "dual", "lower_bound", "proof", "searched", "rounds", "starts", "idle", "near", "refuted")


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
    dtype : "float32" or "float64", of descent and ascents; objectives, duals and prices are float64.
    strict : False where dtype may give way to float64, which is taken where columns are very far from alike.
    tol : relative gap to stop at. exact : price by all cells of the arrangement (rank at most 3, one output), unless
        these are not enumerated at the deadline. space : of the X of the problem, None for one of its own. rough : end
        when a round lowers the objective by less than `SLOW * tol` of it. Pricings are then short, and their bound is
        not to be believed.
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
        space: SearchSpace | None = None,
        rough: bool = False,
    ) -> None:
        self.problem, self.backend, self.tol, self.rough = problem, backend, tol, rough
        self.loss, self.beta = problem.loss, problem.beta
        p = float(np.linalg.norm(adjoint(problem.readout, dual_of_zero(problem))))
        space = SearchSpace(problem.X) if space is None else space
        self.coordinates = space.coordinates(problem.beta / p if p > 0 else np.inf)
        self.X = X = self.coordinates.rows
        self.dtype = dtype = dtype if strict or self.coordinates.mild else "float64"
        rng = np.random.default_rng([seed, 2])
        ground = space.ground(backend, self.coordinates, dtype)
        self.program = NetworkProgram(
            problem, backend, coordinates=self.coordinates, ground=ground, dtype=dtype, tol=tol, rng=rng
        )
        self.pricing = Pricing(backend, ground, rng, even=problem.even)
        self.arrangement = None
        if exact:
            with suppress(OutOfTime):
                self.arrangement = arrange(X, deadline=deadline)
        self.neurons, self.z = self.program.nothing()
        self.objective, self.dual, self.z = self.program.evaluate(self.neurons, self.z)
        self.lower_bound, self.proof = 0.0, 0.0 * self.dual
        self.searched = self.lower_bound, self.proof  # the bound of the last pricing that no deadline cut short
        self.rounds = self.starts = self.idle = 0  # idle: rounds without progress
        self.refuted = 0  # gaps below tol that a thorough pricing refuted by far
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
        for candidate in ((given, self.z), self.program.weigh(given, self.z)):
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
            of every round, when what `state` holds is all that the round depends on.
        """
        status = None
        while status is None:
            if save is not None:
                save(self)
            known = self.lower_bound, self.proof
            priced = self._price(NEAR if self.near and not self.rough else FAR, deadline)
            sure, gap = self.arrangement is not None or self.rough, self._gap(self.lower_bound)
            dear = is_dear(NEAR, self.X.size, starts(self.neurons.width))
            if not sure and gap <= self.tol * (DEAR_SHARE if dear else 1.0):
                priced, sure = self._confirm(priced, deadline, dear), True
            elif not sure and gap <= self.tol and known[0] < self.lower_bound:  # not believed, and not reported
                self.lower_bound, self.proof = known
            before, gap = self.objective, self._gap(self.lower_bound)
            confirmed = sure and gap <= self.tol and priced.complete
            new = self._violators(priced, confirmed)
            stop = record(self, new.width, priced)
            if confirmed:
                status = Status.STALLED if self.rough else Status.OPTIMAL
            elif stop:
                status = Status.INTERRUPTED
            elif time.perf_counter() > deadline:
                status = Status.TIME_LIMIT
            elif self.rounds >= MAX_ROUNDS:
                status = Status.MAX_ITER
            else:
                self.near = gap <= FAR_GAP
                self._round(new, deadline)
                if self.rough and self.objective > before * (1 - SLOW * self.tol):
                    status = Status.STALLED
                progress = self.objective < before * (1 - self.program.little * min(self.tol, 1e-3))
                self.idle = 0 if progress else self.idle + 1
                if status is None and self.idle >= STALLED:
                    priced = self._price(SURE, deadline)
                    gap = self._gap(self.lower_bound)
                    close = Status.OPTIMAL_INACCURATE if gap <= 10 * self.tol else Status.STALLED
                    status = Status.OPTIMAL if gap <= self.tol else Status.ILL_CONDITIONED if self.blind else close
                    status = status if priced.complete else Status.TIME_LIMIT
        return self.result(status, deadline)

    def result(self, status: Status, deadline: float = np.inf) -> Refined:
        """What there is now, in the coordinates of the given X."""
        found = neurons.reduce_count(self.neurons, self.X, deadline)
        found = Neurons(self.coordinates.outward(found.u), found.a, found.s)
        z = self.z if self.program.skip is None else self.program.skip.back @ self.z
        return Refined(
            found, z, self.objective, self.lower_bound, self.proof, self.dual, status, self.rounds, self.starts
        )

    def state(self) -> State:
        """The top of a round. Nothing in it is changed in place later."""
        return {
            **{name: getattr(self, name) for name in KEPT},
            "neurons": tuple(self.neurons), "misses": self.pricing.misses,
            "random": self.pricing.rng.bit_generator.state,
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """The inverse of `state`."""
        state = {"searched": (state["lower_bound"], state["proof"]), "refuted": 0, **state}  # older ones lack these
        for name in KEPT:
            setattr(self, name, state[name])
        self.neurons, self.pricing.misses = Neurons(*state["neurons"]), state["misses"]
        self.pricing.rng.bit_generator.state = state["random"]

    def _confirm(self, priced: Priced, deadline: float, dear: bool) -> Priced:
        """Price again, ever more thoroughly, until the gap is above tol or the ascents know all that there is.

        Where that refuted a gap by far before, it takes two: of many such trials one finds too little by chance.
        """
        for effort in [NEAR][: not (self.near or dear)] + [SURE] * (2 if self.refuted else 1):
            if priced.exhausted or self._gap(self.lower_bound) > self.tol:
                break
            priced = self._price(effort, deadline, priced)
            self.refuted += int(effort is SURE and self._gap(self.lower_bound) > 2.0 * self.tol)
        return priced

    # -- the four steps -----------------------------------------------------------------------------------------
    def _price(self, effort: Effort, deadline: float, other: Priced | None = None) -> Priced:
        """Directions, and the lower bound D(kappa t) their largest value allows. Replaces the bound there was.

        other : of the same dual variable. Ascents then start without its near misses, and see what it did not.
        """
        known = self.neurons.u
        p = adjoint(self.problem.readout, self.dual)
        if self.arrangement is not None:
            found = price_on(self.arrangement, p[:, 0], above=0.5 * self.beta, deadline=deadline)
            priced = Priced(found.value, found.directions, found.values, 0)
        else:
            count, misses = starts(known.shape[1]), self.pricing.misses
            if effort is not FAR:
                effort = affordable(effort, self.X.size, count)
            if other is not None:
                self.pricing.misses = misses[:, :0]
            priced = self.pricing.price(
                p, known, count, coarse=effort is FAR, waves=effort.waves, steps=effort.steps,
                polished=effort.polished, copies=effort.copies, most_quiet=effort.quiet,
                enough=lambda price: self._gap(self._bound(price)[0]) > self.tol, rise=RISE * self.tol,
                least=0.0 if other is None else other.price, deadline=deadline,
            )  # fmt: skip
            if other is not None:
                self.pricing.misses = np.concatenate([misses, self.pricing.misses], axis=1)
                directions, values = merged((priced.directions, priced.values), (other.directions, other.values))
                price, count = max(priced.price, other.price), priced.starts + other.starts
                priced = Priced(price, directions, values, count, priced.complete, priced.exhausted)
        self.starts = priced.starts
        price = priced.price
        if self.arrangement is None:
            best = self.coordinates.outward(priced.directions[:, :1])
            price += self.problem.noise(p, best) + self.coordinates.unseen * float(np.linalg.norm(p))
        self.lower_bound, self.proof = self._bound(price)
        if priced.complete:
            self.searched = self.lower_bound, self.proof
        elif self.searched[0] < self.lower_bound:  # few starts suggest too high a bound: the last whole search counts
            self.lower_bound, self.proof = self.searched
        attained = priced.values.max(initial=0.0) if self.arrangement is None else found.attained
        gaps = [self._gap(self._bound(value)[0]) for value in (price, attained)]
        self.blind = gaps[0] - gaps[1] > SEEN * self.tol
        return priced

    def _gap(self, lower_bound: float) -> float:
        return relative_gap(self.objective, lower_bound, self.problem.resolution)

    def _bound(self, price: float) -> tuple[float, np.ndarray]:
        """(lower bound, multiple of the dual variable that has it) if this is the price of the dual variable."""
        bound, _, proof = self.problem.dual_bound(self.dual, largest_multiple(self.beta, price))
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
        weighed, z = self.program.weigh(self.neurons.join(new), self.z, deadline)
        self._keep_better(self.program.merge(weighed), z)
        for _ in range(self._descents()):
            if time.perf_counter() > deadline:
                break
            before = self.objective
            moved, z = self.program.weigh(*self.program.descend(self.neurons, self.z, deadline), deadline)
            self._keep_better(self.program.merge(moved), z)
            if self.objective > before * (1.0 - LITTLE * self.tol):
                break
        self.reached = time.perf_counter()

    def _descents(self) -> int:
        """How many descents a round has at most: several where they are cheap beside the pricing before them."""
        if self.arrangement is not None:
            return 1
        pricing = 4.0 * self.starts * sum((NEAR if self.near else FAR).steps)
        return int(max(1, min(MOST_DESCENTS, CHEAP * pricing / (6.0 * DESCENT * max(1, self.neurons.width)))))

    def _keep_better(self, candidate: Neurons, z: np.ndarray) -> None:
        objective, dual, z = self.program.evaluate(candidate, z)
        if objective < self.objective:
            self.neurons, self.objective, self.dual, self.z = candidate, objective, dual, z
