"""Refinement as `solve` runs it: where it starts, history, progress, checkpoints, and the Solution at its end."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.certificates.network import network_certificate, network_objective, not_refuted, proof_begins
from cvxrelu.certificates.pricing import Priced
from cvxrelu.certificates.search_space import SearchSpace
from cvxrelu.network.balanced import to_arrays
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.program.problem import Problem, fits
from cvxrelu.program.skip import free_coefficients
from cvxrelu.refinement.search import MAX_ROUNDS, Refined, Refinement
from cvxrelu.runs.checkpoint import Checkpoint
from cvxrelu.runs.progress import History, Progress, refinement_row
from cvxrelu.runs.proving import branching
from cvxrelu.runs.settings import FLOAT32_TOL, Settings
from cvxrelu.runs.solution import Certificate, Solution
from cvxrelu.runs.status import Status, relative_gap, status_of_bound
from cvxrelu.support.status_line import say

__all__ = ["RefinementStage", "in_words"]

ALL_ROUNDS = (
    f"{MAX_ROUNDS} rounds of refinement, the most there are, ended before the gap was at most tol; raise tol, or start "
    "from this solution with warm_start="
)
ROUGH = "progress slowed, where refine='rough' ends without a search for a bound"
UNCONFIRMED = "time_limit reached before a gap of at most tol was confirmed; raise time_limit or tol"


class RefinementStage(Progress):
    """Refinement as `solve` runs it: history, progress and the Solution around `refinement.Refinement`.

    space : of the X of the problem. started : of `time.perf_counter`, when the call was made.
    """

    def __init__(
        self, problem: Problem, backend: Backend, settings: Settings, *, space: SearchSpace, started: float,
        checkpoint: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.backend, self.settings, self.space = problem, backend, settings, space
        super().__init__(settings.verbose, settings.callback, started)
        self.checkpoint = checkpoint
        self.last: dict[str, Any] | None = None  # state at the top of the round under way
        self.dtype = problem.dtype.name
        if settings.dtype is None and settings.tol >= FLOAT32_TOL and fits(problem, np.dtype(np.float32)):
            self.dtype = "float32"
        self.until = proof_begins(settings.certificate, started, settings.time_limit)  # the search ends here
        self.reached = 0.0

    def run(self, start: ReLUNetwork | None, sampled: Solution | None) -> Solution:
        """Refine from the network given, certify what comes out, and put the Solution together."""
        problem, settings, before = self.problem, self.settings, 0.0
        if sampled is not None:
            self.history, before = sampled.history, self.elapsed()
            self.spent = sampled.timings["total"] - before
        search = Refinement(
            problem, self.backend, dtype=self.dtype, tol=settings.tol, seed=settings.seed,
            exact=settings.certificate == "exact", strict=settings.dtype is not None, deadline=self.until,
            space=self.space, rough=settings.rough,
        )  # fmt: skip
        self.dtype = search.dtype
        setup = self.elapsed() - before
        try:
            saved = None if self.checkpoint is None else self.checkpoint.load("refinement")
            if saved is not None:
                search.restore(saved)
                self.history, self.spent = History(saved["history"]), saved["spent"]
            elif start is not None:
                W, A, _, _ = to_arrays(start, problem.intercept)
                sizes = np.linalg.norm(W, axis=0)
                search.start_from(W / sizes, A.T / sizes, sizes**2)
            save = None if self.checkpoint is None else self._save
            found = search.run(self._record, self.until, save)
        except KeyboardInterrupt:
            found = search.result(Status.INTERRUPTED)
        if self.checkpoint is not None and self.last is not None:
            self.checkpoint.save("refinement", self.last)
        refined = self.elapsed() - before - setup
        return self._solution(found, sampled, setup, refined)

    def _save(self, search: Refinement) -> None:
        """Remember the top of a round, and write it down if it is time to."""
        assert self.checkpoint is not None
        state = self.last = {
            **search.state(), "history": list(self.history.records), "spent": self.spent + self.elapsed(),
        }  # fmt: skip
        self.checkpoint.offer("refinement", lambda: state)

    def _record(self, search: Refinement, added: int, priced: Priced) -> bool:
        """Append to the history, print, call back; true when the callback asks to stop."""
        record = {
            "round": search.rounds,
            "time": self.spent + search.reached - self.started,
            "priced": self.spent + self.elapsed(),
            "objective": search.objective,
            "lower_bound": search.lower_bound,
            "gap": relative_gap(search.objective, search.lower_bound, self.problem.resolution),
            "n_neurons": search.neurons.width,
            "added": added,
            "starts": priced.starts,
        }
        return self.note(record, refinement_row(record, header=search.rounds == 0))

    def _solution(self, found: Refined, sampled: Solution | None, setup: float, refined: float) -> Solution:
        """The network, evaluated once more as it is returned, and its certificate."""
        problem, settings, evaluated = self.problem, self.settings, self.elapsed()
        plain = {
            "n": len(problem.X), "d": problem.n_features, "c": problem.n_outputs, "loss": problem.loss_name,
            "beta": problem.beta, "tol": settings.tol, "intercept": problem.intercept, "skip": problem.skip_kind,
            "seed": settings.seed, "refine": True,
        }  # fmt: skip
        if problem.readout is not None:
            plain["pairs"] = len(problem.loss.y)
        if problem.penalised_skip is not None:
            plain["skip_l2"] = problem.penalised_skip.l2
        network = self._network(found)
        objective, dual = network_objective(network, problem)
        if settings.certificate == "priced" and not settings.rough:
            proof = found.dual[:, 0] if problem.scalar_output else found.dual
            bound = found.lower_bound if objective > problem.resolution else min(found.lower_bound, objective)
            bound = not_refuted(bound, objective)
            gap = relative_gap(objective, bound, problem.resolution)
            certificate = Certificate("priced", False, bound, gap, proof, found.starts, objective)
        else:
            prove = partial(
                network_certificate, settings.certificate, problem, dual, objective, self.backend, seed=settings.seed,
                known=found.neurons.u, space=self.space,
                branching=branching(settings, settings.tol, (objective,), self.checkpoint, found.neurons),
            )  # fmt: skip
            try:
                certificate = prove(deadline=-np.inf if settings.rough else self.started + settings.time_limit)
            except KeyboardInterrupt:  # the network is worth keeping, with the bound that costs nothing
                found = found._replace(status=Status.INTERRUPTED)
                certificate = prove(deadline=-np.inf)
        ended = found.status
        if ended is Status.OPTIMAL and certificate.kind == "priced" and certificate.gap > 2.0 * settings.tol:
            ended = Status.ILL_CONDITIONED  # the network as it is stored is not the one that was found
        timings = {"setup": setup, "refine": refined, "certify": self.elapsed() - evaluated}
        if sampled is not None:
            timings = {**sampled.timings, **{name: sampled.timings.get(name, 0.0) + s for name, s in timings.items()}}
        timings["total"] = self.spent + self.elapsed()
        status = status_of_bound(ended, certificate.gap, settings.tol, certificate.rigorous)
        message = self._message(status, found, certificate)
        network = replace(network, metadata={"settings": plain, "status": status.value})
        if self.verbose:
            say(f"{status.value}: {message}")
        return Solution(
            network, objective, certificate, None if sampled is None else sampled.sampled, status, message,
            0 if sampled is None else sampled.n_iter, self.history, timings, self.backend.name, self.dtype,
            self.backend.device, plain, found.rounds, problem,
        )  # fmt: skip

    def _message(self, status: Status, found: Refined, certificate: Certificate) -> str:
        """What the status means here, the gap reported, and where it proves less than the search found that gap too."""
        tol, advice = self.settings.tol, status.advice
        if status is Status.MAX_ITER:
            advice = ALL_ROUNDS
        elif status is Status.STALLED and self.settings.rough:
            advice = ROUGH
        elif status is Status.TIME_LIMIT and certificate.gap <= tol:
            advice = UNCONFIRMED
        words = in_words(certificate)
        if certificate.kind in ("relaxed", "branch") and not self.settings.rough:
            estimate = relative_gap(found.objective, found.lower_bound, self.problem.resolution)
            words += f"; {estimate:.1e} by the search's own estimate"
        return f"{advice} ({words}, tol {tol:.1e})"

    def _network(self, found: Refined) -> ReLUNetwork:
        """Balanced weights, with the skip beside them: its coefficients, or the best where it is free."""
        problem, (u, a, s) = self.problem, found.neurons
        skip = bias = None
        if problem.skip is not None:
            z = found.z
            if problem.skip.l2 == 0:
                prediction = problem.read(np.maximum(problem.X @ u, 0.0) @ (s * a).T)
                z = free_coefficients(problem.skip, problem.loss, prediction)
            skip, bias = problem.skip.coefficients(z)
        first, second = u * np.sqrt(s), (a * np.sqrt(s)).T
        first, hidden_bias = (first[:-1], first[-1]) if problem.intercept else (first, None)
        if problem.scalar_output:
            second = second[:, 0]
            skip, bias = (None if part is None else part[..., 0] for part in (skip, bias))
        return ReLUNetwork(first, second, hidden_bias, skip, bias)


def in_words(certificate: Certificate) -> str:
    """One line about a certificate of (N)."""
    nature = "rigorous" if certificate.rigorous else "an estimate"
    return f"network program: gap {certificate.gap:.1e} by the {certificate.kind} bound, {nature}"
