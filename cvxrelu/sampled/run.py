"""What both methods of the sampled stage run on: incumbent, history, limits, clock and checkpoint.

A checkpoint of the stage holds the incumbent, the history and the counters that decide when to certify and to balance;
then either ADMM's state and penalties, or the position of semismooth Newton between two proximal points with the memory
of its cones. What follows from the data alone (rotated basis, factorisations, gates in their cones) is computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.program.problem import Problem
from cvxrelu.runs.checkpoint import Checkpoint, State
from cvxrelu.runs.limits import Limits
from cvxrelu.runs.progress import History, progress_row
from cvxrelu.runs.solution import Certificate, SampledSolution, Solution
from cvxrelu.runs.status import Status
from cvxrelu.sampled.incumbent import Incumbent, public_order

__all__ = ["SampledRun"]

COUNTERS = (
    "iteration", "residuals", "certify_below", "certify_at", "estimate", "balance_at", "best_gap", "best_at", "method",
    "rho_values", "timings",
)  # fmt: skip


class SampledRun:
    """The best network and bounds so far, the history, the clock and the checkpoint of one solve of (S).

    seed, verbose, callback : of `solve`. checkpoint : where to save the run, or None.
    """

    best: Incumbent
    state: Any  # of ADMM, on the device
    method: str
    rho_values: tuple[float, ...]
    certify_below: float
    certify_at: int
    estimate: float
    balance_at: int

    def __init__(
        self, problem: Problem, backend: Backend, limits: Limits, *, seed: int = 0, verbose: bool = False,
        callback: Callable[[dict[str, Any]], Any] | None = None, checkpoint: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.backend, self.limits, self.seed = problem, backend, limits, seed
        self.verbose, self.callback, self.checkpoint = verbose, callback, checkpoint
        self.spent = 0.0  # seconds in the runs that the checkpoint is of
        self.started = time.perf_counter()
        self.timings = {"setup": 0.0, "factor": 0.0, "iterate": 0.0, "certify": 0.0}
        self.history = History()
        self.iteration = 0
        # With a loss that is not quadratic, the loss has a split of its own.
        self.splits = ("copy", "cone") if problem.loss.is_quadratic else ("copy", "cone", "loss")
        self.residuals = np.full(2 * len(self.splits), np.nan)
        self.saved: State | None = None
        self.best_gap, self.best_at = np.inf, 0

    # -- checkpoint ----------------------------------------------------------------------------------------------------
    def load(self) -> State | None:
        """The saved state, if there is one; incumbent, history and counters are then as they were."""
        saved = None if self.checkpoint is None else self.checkpoint.load("sampled")
        if saved is not None:
            self.best.restore(saved["best"])
            self.history = History(saved["history"])
            self.spent = saved["spent"]
            for name in COUNTERS:
                setattr(self, name, saved[name])
            self.rho_values = tuple(self.rho_values)
        return saved

    def save(self, ended: Status | None, newton: State | None = None) -> None:
        """Save the run if it is time to, and in any case when it has ended.

        newton : the position of Newton. Without one ADMM is under way, if anything is.
        """
        if self.checkpoint is None or ended is Status.NUMERICAL_ERROR:
            return
        if newton is None and self.method == "newton":
            newton = {"ended": None if ended is None else ended.value}

        def state() -> State:
            progress = None
            if newton is None:
                progress = [None if a is None else np.asarray(a) for a in self.backend.get(self.state)]
            return {
                "best": self.best.state(), "history": self.history.records, "spent": self.spent + self.elapsed(),
                "tol": self.limits.tol, "admm": progress, "newton": newton,
                **{name: getattr(self, name) for name in COUNTERS},
            }  # fmt: skip

        if ended is None:
            self.checkpoint.offer("sampled", state)
        else:
            self.checkpoint.save("sampled", state())

    def settled(self, saved: State | None) -> Status | None:
        """The status that a saved run has under the limits of now; None to go on with it."""
        if saved is None:
            return None
        if saved["admm"] is not None:
            return self.decide(stop=False)
        if self.best.sampled_gap <= self.limits.tol:
            return Status.OPTIMAL
        ended = saved["newton"]["ended"]
        return Status(ended) if ended is not None and self.limits.tol >= saved["tol"] else None

    # -- checks --------------------------------------------------------------------------------------------------------
    def elapsed(self) -> float:
        """Seconds of this run, those before a checkpoint not counted."""
        return time.perf_counter() - self.started

    def time_is_up(self) -> bool:
        """Iterations end at nine tenths of the time limit: the rest is for the last certification."""
        return self.elapsed() > 0.9 * self.limits.time_limit

    def record(self, values: np.ndarray) -> bool:
        """Append to the history, print, call back; true when the callback asks to stop."""
        best = self.best
        record = {
            "iteration": self.iteration,
            "time": self.spent + self.elapsed(),
            "objective": best.objective,
            "lower_bound": best.lower_bound,
            "gap": best.gap,
            "n_neurons": int(values[5]),
            "sampled_objective": best.sampled_objective,
            "sampled_lower_bound": best.sampled_bound,
            "sampled_gap": best.sampled_gap,
            **self.named_residuals(),
            **{f"rho_{name}": rho for name, rho in zip(self.splits, self.rho_values, strict=True)},
        }
        self.history.append(record)
        if self.verbose:
            print(progress_row(record, header=len(self.history) == 1), flush=True)
        return bool(self.callback(dict(record))) if self.callback is not None else False

    def named_residuals(self) -> dict[str, float]:
        """Those of the last check, by name."""
        names = [f"{kind}_{split}" for split in self.splits for kind in ("primal", "dual")]
        return dict(zip(names, map(float, self.residuals), strict=True))

    def decide(self, stop: bool) -> Status | None:
        """The status to end with, or None to go on."""
        gap, limits = self.best.sampled_gap, self.limits
        if gap < 0.98 * self.best_gap:
            self.best_gap, self.best_at = gap, self.iteration
        if gap <= limits.tol:
            return Status.OPTIMAL
        if stop:
            return Status.INTERRUPTED
        if self.time_is_up():
            return Status.TIME_LIMIT
        if self.iteration >= limits.max_iter:
            return Status.MAX_ITER
        if self.iteration - self.best_at <= 2000 + self.iteration // 2:
            return None
        if gap <= 10 * limits.tol:
            return Status.OPTIMAL_INACCURATE
        # Far from tol a gap can stand still while there is no bound yet, and the objective falls all the same.
        then = next((record for record in self.history if record["iteration"] >= self.best_at), None)
        moved = np.inf if then is None else then["sampled_objective"] - self.best.sampled_objective
        return None if moved > limits.tol * abs(self.best.sampled_objective) else Status.STALLED

    def finish(self, status: Status) -> Solution:
        """Put the best network and bounds into a Solution; objectives are evaluated once more on what is returned."""
        problem, limits, best = self.problem, self.limits, self.best
        n, D, P, c = problem.shape
        settings = {
            "n": n, "d": D - problem.intercept, "c": c, "loss": problem.loss_name, "beta": problem.beta,
            "tol": limits.tol, "intercept": problem.intercept, "patterns": P, "patterns_requested": problem.n_requested,
            "max_iter": limits.max_iter, "linear_solver": self.method, "rho": limits.rho, "seed": self.seed,
            "skip": problem.skip_kind, "refine": False,
        }  # fmt: skip
        network = best.network({"settings": settings, "status": status.value})
        m = problem.loss.y.shape[0]
        shape = (m,) if problem.scalar_output else (m, c)
        skip, bias = best.sampled_coefficients()
        blocks = public_order(best.sampled_blocks)
        sampled = SampledSolution(
            blocks=blocks[..., 0] if problem.scalar_output else blocks,
            patterns=problem.patterns.patterns,
            gates=problem.patterns.gates,
            n_requested=problem.n_requested,
            objective=best.sampled_objective,
            lower_bound=best.sampled_bound,
            gap=best.sampled_gap,
            status=status,
            residuals=self.named_residuals(),
            rho=self.rho_values,
            dual=best.settle_dual().reshape(shape),
            skip=skip,
            bias=bias,
        )
        certificate = Certificate("relaxed", True, best.lower_bound, best.gap, best.dual.reshape(shape))
        self.timings["total"] = self.spent + self.elapsed()
        message = (
            f"{status.advice_on('the sampled program')} (sampled program: gap {best.sampled_gap:.1e}, tol "
            f"{limits.tol:.1e}; network program: gap {best.gap:.1e} by the relaxed bound, rigorous and loose)"
        )
        return Solution(
            network, best.objective, certificate, sampled, status, message, self.iteration, self.history,
            dict(self.timings), self.backend.name, problem.dtype.name, self.backend.device, settings,
        )  # fmt: skip
