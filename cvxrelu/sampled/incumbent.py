"""The best network and the best bounds a solve has seen so far.

A network is only ever read from blocks whose own objective was evaluated, in float64, on the network they define;
bounds are only kept with the dual variable that proves them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.certificates.closed_form import relaxed_bound
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.program.best_skip import best_skip, skip_objective
from cvxrelu.program.dual import Ridge, pull_back, sampled_bound
from cvxrelu.program.operators import F
from cvxrelu.program.problem import Problem
from cvxrelu.runs.status import relative_gap
from cvxrelu.sampled import bounds
from cvxrelu.support.blocks import each

__all__ = ["Incumbent", "host_ridge", "public_order"]


class Incumbent:
    """Best of (N) and of (S), starting from the zero network, which is feasible for both.

    Attributes
    ----------
    objective, lower_bound : of the network program; the bound is the relaxed one.
    sampled_objective, sampled_bound : of the sampled program, at a cone-feasible point.
    dual, sampled_dual : (m, c), the feasible dual variables behind the two bounds.
    sampled_blocks : (d, 2, c, P), the cone-feasible point. sampled_skip : (k, c), a penalised skip's coefficients
        there, or None: those of a free one are found at the end.
    certify_seconds : duration of the last `certify`, or None before the first.
    """

    def __init__(self, problem: Problem, backend: Backend, exact: bounds.Exact, tol: float) -> None:
        self.problem, self.backend, self.exact, self.tol = problem, backend, exact, tol
        _, d, P, c = problem.shape
        zero = np.zeros_like(problem.loss.y)
        skip = None if problem.penalised_skip is None else best_skip(problem, zero)
        self.objective = self.sampled_objective = skip_objective(problem, zero, skip)
        self.sampled_blocks, self.sampled_skip = np.zeros((d, 2, c, P)), skip
        # Blocks, maybe on the device, their scale, and the skip's coefficients.
        self._network: tuple[Any, float, Any] = (self.sampled_blocks, 1.0, skip)
        self.lower_bound = self.sampled_bound = 0.0 if problem.skip is None else problem.skip.constant
        self.dual = self.sampled_dual = zero
        self._cheap: bounds.Check | None = None  # holds the dual of the best bound by ADMM's own multipliers
        self.certify_seconds: float | None = None
        self.relax(problem.loss.dual(self._with_skip(zero, skip)))

    @property
    def gap(self) -> float:
        """Relative gap of (N)."""
        return relative_gap(self.objective, self.lower_bound, self.problem.resolution)

    @property
    def sampled_gap(self) -> float:
        """Relative gap of (S)."""
        return relative_gap(self.sampled_objective, self.sampled_bound, self.problem.resolution)

    def offer(self, check: bounds.Check, values: np.ndarray) -> None:
        """Keep what a check found better; costs nothing on the host."""
        if values[0] < self.objective:
            self.objective, self._network = float(values[0]), (check.W, float(values[1]), check.skip)
        if values[4] > self.sampled_bound:
            self.sampled_bound, self._cheap = float(values[4]), check

    def state(self) -> dict[str, Any]:
        """All of it on the host, for a checkpoint."""
        blocks, scale, skip = self._network
        names = ("objective", "lower_bound", "sampled_objective", "sampled_bound", "sampled_blocks", "sampled_skip")
        network = (self.backend.get(blocks), scale, self.backend.get(skip))
        kept = {"dual": self.dual, "sampled_dual": self.settle_dual(), "certify_seconds": self.certify_seconds}
        return {**{name: getattr(self, name) for name in names}, **kept, "network": network}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name, value in state.items():
            if name == "network":
                self._network = (self.backend.put(value[0]), value[1], self.backend.put(value[2]))
            else:
                setattr(self, name, value)
        self._cheap = None

    def certify(self, check: bounds.Check, final: bool, deadline: float) -> None:
        """The expensive half of a check: a cone-feasible point, exact multipliers for the bound, the relaxed bound.

        Exact multipliers cost one projection per violated block; unless `final`, they are only computed when the bound
        they could at best lead to, that of all blocks at beta, would close the gap. At the deadline (of
        `time.perf_counter`) projections stop where they are, which costs tightness, never validity.
        """
        started = time.perf_counter()
        problem = self.problem
        X, masks, loss, beta = problem.X, problem.patterns.patterns, problem.loss, problem.beta
        W, dual, norms, slack, prediction, skip = self.backend.get(
            (check.W, check.dual, check.norms, check.slack, check.network_prediction, check.skip)
        )
        self.offer_point(W, slack, skip, deadline)
        ridge = self.ridge
        hoped, _ = sampled_bound(loss, dual, np.minimum(norms, beta).max(axis=(0, 2)), beta, ridge)
        if final or (self.sampled_gap > self.tol and relative_gap(self.sampled_objective, float(hoped)) <= self.tol):
            p, error = pull_back(problem.readout, X, dual)
            norms = bounds.tighten(X, masks, p, norms, beta, 0.05 * self.tol, deadline, error)
            bound, feasible = sampled_bound(loss, dual, norms.max(axis=(0, 2)), beta, ridge)
            if bound > self.sampled_bound:
                self.sampled_bound, self.sampled_dual, self._cheap = float(bound), feasible, None
        for candidate in (dual, loss.dual(prediction)):
            self.relax(candidate)
        self.certify_seconds = time.perf_counter() - started

    def offer_point(self, W: np.ndarray, slack: np.ndarray, skip: np.ndarray | None, deadline: float) -> None:
        """Blocks (d, 2, c, P), made feasible where their slack (2, c, P) says that they are not: kept if better."""
        problem = self.problem
        X, masks, loss, beta = problem.X, problem.patterns.patterns, problem.loss, problem.beta
        penalised = problem.penalised_skip
        beside = loss if penalised is None else loss.shifted(penalised.columns @ skip)
        objective, blocks = bounds.repair(
            X, masks, beside, beta, W, slack, negligible=0.05 * self.tol, deadline=deadline, readout=problem.readout
        )
        penalty = beta * float(np.linalg.norm(blocks, axis=0).sum())
        if penalised is not None:
            neurons = problem.read(F(X, *bounds.used_blocks(masks, blocks)))
            skip = best_skip(problem, neurons, skip)
            objective = skip_objective(problem, neurons, skip) + penalty
        if objective < self.sampled_objective:
            self.sampled_objective, self.sampled_blocks, self.sampled_skip = objective, blocks, skip
        # On its cones the sampled program's prediction is the network's, up to rounding: the network's own counts.
        neurons = problem.read(_outputs(X, blocks))
        repaired = skip_objective(problem, neurons, skip) + penalty
        if repaired < self.objective:
            self.objective, self._network = repaired, (blocks, 1.0, skip)

    def network(self, metadata: dict[str, Any]) -> ReLUNetwork:
        """The best network; `objective` becomes its objective as `predict` gives it."""
        problem = self.problem
        _, d, _, c = problem.shape
        blocks, scale, skip = self._network
        V, Z = public_order(scale * self.backend.get(blocks))
        network = ReLUNetwork.from_blocks(
            V, Z, intercept=problem.intercept, scalar=problem.scalar_output, metadata=metadata
        )
        neurons = problem.read(_predict(network, problem.X, d - problem.intercept).reshape(-1, c))
        self.objective = float(problem.loss.value(neurons)) + problem.beta * network.path_norm
        if problem.skip is not None:
            skip = best_skip(problem, neurons, self.backend.get(skip))
            linear, bias = self.coefficients(skip)
            network = replace(network, skip=linear, bias=bias)
            prediction = problem.read(_predict(network, problem.X, d - problem.intercept).reshape(-1, c))
            self.objective = float(problem.plain.value(prediction)) + problem.beta * network.path_norm
            parts = (part for part in (linear, bias) if part is not None)
            self.objective += 0.5 * problem.skip.l2 * sum(float(np.sum(part**2)) for part in parts)
        self.relax(problem.loss.dual(self._with_skip(neurons, skip)))
        return network

    def coefficients(self, skip: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(linear part, bias) of the skip as networks have them, each None where there is none."""
        if self.problem.skip is None:
            return None, None
        parts = self.problem.skip.coefficients(skip)
        scalar = self.problem.scalar_output
        linear, bias = (part[..., 0] if scalar and part is not None else part for part in parts)
        return linear, bias

    def sampled_coefficients(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """`coefficients` at the cone-feasible point."""
        problem, blocks, skip = self.problem, self.sampled_blocks, self.sampled_skip
        if problem.skip is not None and skip is None:
            skip = best_skip(problem, problem.read(F(problem.X, problem.patterns.patterns, blocks)))
        return self.coefficients(skip)

    @property
    def ridge(self) -> Ridge | None:
        """The penalised skip on the host, as bounds take it."""
        return host_ridge(self.problem)

    def _with_skip(self, neurons: np.ndarray, skip: np.ndarray | None) -> np.ndarray:
        """What the loss sees: a penalised skip is part of it, a free one within the loss."""
        penalised = self.problem.penalised_skip
        return neurons if penalised is None else neurons + penalised.columns @ skip

    def settle_dual(self) -> np.ndarray:
        """The feasible dual variable of the best bound of (S), (n, c)."""
        if self._cheap is not None:
            dual, norms = self.backend.get((self._cheap.dual, self._cheap.norms))
            _, self.sampled_dual = sampled_bound(
                self.problem.loss, dual, norms.max(axis=(0, 2)), self.problem.beta, self.ridge
            )
            self._cheap = None
        return self.sampled_dual

    def relax(self, dual: np.ndarray) -> None:
        """Closed-form bound of (N) from one dual variable, evaluated on the device."""
        relaxed = self.backend.compile(_relaxed_bound)
        bound, feasible = self.backend.get(relaxed(self.backend, self.exact, self.backend.put(dual, rows=0)))
        if bound > self.lower_bound:
            self.lower_bound, self.dual = float(bound), feasible


def _outputs(X: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """(n, c), what the network of the blocks predicts without a skip; in blocks of rows."""
    blocks = blocks[..., blocks.any(axis=(0, 1, 2))]

    def part(b: slice) -> np.ndarray:
        hidden = np.maximum(np.tensordot(X[b], blocks, axes=1), 0.0)
        return np.sum(hidden[:, 0] - hidden[:, 1], axis=-1)

    return each(max(1, blocks[0].size), part, X)


def _predict(network: ReLUNetwork, X: np.ndarray, d: int) -> np.ndarray:
    """What the network predicts for the rows of X without the constant column, in blocks of rows."""
    return each(max(1, network.n_neurons), lambda b: network.predict(X[b, :d]), X)


def _relaxed_bound(backend: Backend, exact: bounds.Exact, dual: Any) -> tuple[Any, Any]:
    return relaxed_bound(exact.loss, exact.X, dual, exact.beta, exact.readout, exact.ridge)


def host_ridge(problem: Problem) -> Ridge | None:
    """The penalised skip as bounds take it."""
    skip = problem.penalised_skip
    return skip if skip is None else Ridge(skip.columns, np.asarray(skip.l2), np.asarray(skip.constant))


def public_order(blocks: np.ndarray) -> np.ndarray:
    """(d, 2, c, P) as the operators store blocks, to the documented (2, d, P, c)."""
    return np.transpose(blocks, (1, 0, 3, 2))
