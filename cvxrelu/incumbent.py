"""The best network and the best bounds a solve has seen so far.

A network is only ever read from blocks whose own objective was evaluated, in float64, on the network they define;
bounds are only kept with the dual variable that proves them.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from cvxrelu import certificates
from cvxrelu.backends import Backend
from cvxrelu.network import ReLUNetwork
from cvxrelu.problem import Problem
from cvxrelu.solution import relative_gap

__all__ = ["Incumbent", "public_order"]


class Incumbent:
    """Best of (N) and of (S), starting from the zero network, which is feasible for both.

    Attributes
    ----------
    objective, lower_bound : of the network program; the bound is the relaxed one.
    sampled_objective, sampled_bound : of the sampled program, at a cone-feasible point.
    dual, sampled_dual : (n, c), the feasible dual variables behind the two bounds.
    sampled_blocks : (d, 2, c, P), the cone-feasible point.
    certify_seconds : duration of the last `certify`, or None before the first.
    """

    def __init__(self, problem: Problem, backend: Backend, exact: certificates.Exact, tol: float) -> None:
        self.problem, self.backend, self.exact, self.tol = problem, backend, exact, tol
        n, d, P, c = problem.shape
        zero = np.zeros((n, c))
        self.objective = self.sampled_objective = float(problem.loss.value(zero))
        self.sampled_blocks = np.zeros((d, 2, c, P))
        self._network: tuple[Any, float] = (self.sampled_blocks, 1.0)  # blocks, maybe on the device, and their scale
        self.lower_bound = self.sampled_bound = 0.0
        self.dual = self.sampled_dual = zero
        self._cheap: certificates.Check | None = None  # holds the dual of the best bound by ADMM's own multipliers
        self.certify_seconds: float | None = None
        self.relax(problem.loss.dual(zero))

    @property
    def gap(self) -> float:
        """Relative gap of (N)."""
        return relative_gap(self.objective, self.lower_bound)

    @property
    def sampled_gap(self) -> float:
        """Relative gap of (S)."""
        return relative_gap(self.sampled_objective, self.sampled_bound)

    def offer(self, check: certificates.Check, values: np.ndarray) -> None:
        """Keep what a check found better; costs nothing on the host."""
        if values[0] < self.objective:
            self.objective, self._network = float(values[0]), (check.W, float(values[1]))
        if values[4] > self.sampled_bound:
            self.sampled_bound, self._cheap = float(values[4]), check

    def certify(self, check: certificates.Check, final: bool, deadline: float) -> None:
        """The expensive half of a check: a cone-feasible point, exact multipliers for the bound, the relaxed bound.

        Exact multipliers cost one projection per violated block; unless `final`, they are only computed when the bound
        they could at best lead to, that of all blocks at beta, would close the gap. At the deadline (of
        `time.perf_counter`) projections stop where they are, which costs tightness, never validity.
        """
        started = time.perf_counter()
        problem = self.problem
        X, masks, loss, beta = problem.X, problem.patterns.patterns, problem.loss, problem.beta
        W, dual, norms, slack, prediction = self.backend.get(
            (check.W, check.dual, check.norms, check.slack, check.network_prediction)
        )
        self.offer_point(W, slack, deadline)
        hoped, _ = certificates.sampled_bound(loss, dual, np.minimum(norms, beta).max(axis=(0, 2)), beta)
        if final or (self.sampled_gap > self.tol and relative_gap(self.sampled_objective, float(hoped)) <= self.tol):
            norms = certificates.tighten(X, masks, dual, norms, beta, slack=0.05 * self.tol, deadline=deadline)
            bound, feasible = certificates.sampled_bound(loss, dual, norms.max(axis=(0, 2)), beta)
            if bound > self.sampled_bound:
                self.sampled_bound, self.sampled_dual, self._cheap = float(bound), feasible, None
        for candidate in (dual, loss.dual(prediction)):
            self.relax(candidate)
        self.certify_seconds = time.perf_counter() - started

    def offer_point(self, W: np.ndarray, slack: np.ndarray, deadline: float) -> None:
        """Blocks (d, 2, c, P), made feasible where their slack (2, c, P) says that they are not: kept if better."""
        problem, loss, beta = self.problem, self.problem.loss, self.problem.beta
        objective, blocks = certificates.repair(
            problem.X, problem.patterns.patterns, loss, beta, W, slack, negligible=0.05 * self.tol, deadline=deadline
        )
        if objective < self.sampled_objective:
            self.sampled_objective, self.sampled_blocks = objective, blocks
        # On its cones the sampled program's prediction is the network's, up to rounding: the network's own counts.
        hidden = np.maximum(np.tensordot(problem.X, blocks, axes=1), 0.0)
        repaired = float(loss.value(np.sum(hidden[:, 0] - hidden[:, 1], axis=-1)))
        repaired += beta * float(np.linalg.norm(blocks, axis=0).sum())
        if repaired < self.objective:
            self.objective, self._network = repaired, (blocks, 1.0)

    def network(self, metadata: dict[str, Any]) -> ReLUNetwork:
        """The best network; `objective` becomes its objective as `predict` gives it."""
        problem = self.problem
        n, d, _, c = problem.shape
        blocks, scale = self._network
        V, Z = public_order(scale * self.backend.get(blocks))
        network = ReLUNetwork.from_blocks(
            V, Z, intercept=problem.intercept, scalar=problem.scalar_output, metadata=metadata
        )
        prediction = network.predict(problem.X[:, : d - problem.intercept]).reshape(n, c)
        self.objective = float(problem.loss.value(prediction)) + problem.beta * network.path_norm
        self.relax(problem.loss.dual(prediction))
        return network

    def settle_dual(self) -> np.ndarray:
        """The feasible dual variable of the best bound of (S), (n, c)."""
        if self._cheap is not None:
            dual, norms = self.backend.get((self._cheap.dual, self._cheap.norms))
            _, self.sampled_dual = certificates.sampled_bound(
                self.problem.loss, dual, norms.max(axis=(0, 2)), self.problem.beta
            )
            self._cheap = None
        return self.sampled_dual

    def relax(self, dual: np.ndarray) -> None:
        """Closed-form bound of (N) from one dual variable, evaluated on the device."""
        relaxed = self.backend.compile(_relaxed_bound)
        bound, feasible = self.backend.get(relaxed(self.backend, self.exact, self.backend.put(dual)))
        if bound > self.lower_bound:
            self.lower_bound, self.dual = float(bound), feasible


def _relaxed_bound(backend: Backend, exact: certificates.Exact, dual: Any) -> tuple[Any, Any]:
    return certificates.relaxed_bound(exact.loss, exact.X, dual, exact.beta)


def public_order(blocks: np.ndarray) -> np.ndarray:
    """(d, 2, c, P) as the operators store blocks, to the documented (2, d, P, c)."""
    return np.transpose(blocks, (1, 0, 3, 2))
