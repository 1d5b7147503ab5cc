"""What both methods of the sampled stage share: best so far, history, counters, and what a checkpoint holds of them.

A checkpoint holds the incumbent, the history and the counters that decide when to certify and to balance; then either
ADMM's state and penalties, or the position of semismooth Newton between two proximal points with the memory of its
cones. What follows from the data alone (rotated basis, factorisations, gates in their cones) is computed again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.program.problem import Problem
from cvxrelu.runs.checkpoint import Checkpoint, State
from cvxrelu.runs.progress import History, Progress, progress_row
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.status import Status
from cvxrelu.sampled.incumbent import Incumbent
from cvxrelu.sampled.memory import Plan

__all__ = ["SampledRun"]

COUNTERS = (
    "iteration", "residuals", "certify_below", "certify_at", "estimate", "balance_at", "best_gap", "best_at", "method",
    "rho_values", "timings",
)  # fmt: skip


class SampledRun(Progress):
    """Clock, settings, history, counters and checkpoint of one solve of the sampled program.

    `best`, the incumbent, and `method`, with its penalties `rho_values`, are set by whoever goes on with it.
    """

    best: Incumbent
    method: str
    rho_values: tuple[float, ...]

    def __init__(
        self, problem: Problem, backend: Backend, settings: Settings, *, started: float | None = None,
        checkpoint: Checkpoint | None = None, memory: Plan | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.backend, self.settings = problem, backend, settings
        super().__init__(settings.verbose, settings.callback, started)
        self.checkpoint, self.memory = checkpoint, memory
        self.streamed = memory is not None and memory.streamed
        self.timings = {"setup": 0.0, "factor": 0.0, "iterate": 0.0, "certify": 0.0}
        self.iteration = 0
        # With a loss that is not quadratic, the loss has a split of its own.
        self.splits = ("copy", "cone") if problem.loss.is_quadratic else ("copy", "cone", "loss")
        self.residuals = np.full(2 * len(self.splits), np.nan)
        self.saved: State | None = None
        self.certify_below = 2 * settings.tol  # estimated gap at which the next certification is worth its price
        self.certify_at = 120  # iteration of the next one in any case
        self.estimate = np.inf
        self.balance_at = 10
        self.best_gap, self.best_at = np.inf, 0

    def record(self, n_neurons: int) -> bool:
        """Append to the history, print, call back; true when the callback asks to stop."""
        best = self.best
        record = {
            "iteration": self.iteration,
            "time": self.spent + self.elapsed(),
            "objective": best.objective,
            "lower_bound": best.lower_bound,
            "gap": best.gap,
            "n_neurons": n_neurons,
            "sampled_objective": best.sampled_objective,
            "sampled_lower_bound": best.sampled_bound,
            "sampled_gap": best.sampled_gap,
            **self.named_residuals(),
            **{f"rho_{name}": rho for name, rho in zip(self.splits, self.rho_values, strict=True)},
        }
        return self.note(record, progress_row(record, header=len(self.history) == 0))

    def named_residuals(self) -> dict[str, float]:
        """The residuals of the last check, by kind and split."""
        names = [f"{kind}_{split}" for split in self.splits for kind in ("primal", "dual")]
        return dict(zip(names, map(float, self.residuals), strict=True))

    # -- checkpoints --------------------------------------------------------------------------------------------------
    def state(self) -> State:
        """Incumbent, history and counters."""
        return {
            "best": self.best.state(), "history": self.history.records, "spent": self.spent + self.elapsed(),
            "tol": self.settings.tol, **{name: getattr(self, name) for name in COUNTERS},
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """The inverse of `state`."""
        self.best.restore(state["best"])
        self.history, self.spent = History(state["history"]), state["spent"]
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.rho_values = tuple(self.rho_values)

    def load(self) -> None:
        """Take up what was saved, if anything was; `saved` then is the whole of it."""
        self.saved = None if self.checkpoint is None else self.checkpoint.load("sampled")
        if self.saved is not None:
            self.restore(self.saved)

    def save(self, ended: Status | None, parts: Callable[[], State]) -> None:
        """Save the run if it is time to, and in any case when it has ended.

        parts : gives {"admm": ..., "newton": ...}, where either method stands, None for the one that is not under way.
        """
        if self.checkpoint is None or ended is Status.NUMERICAL_ERROR:
            return
        if ended is None:
            self.checkpoint.offer("sampled", lambda: {**self.state(), **parts()})
        else:
            self.checkpoint.save("sampled", {**self.state(), **parts()})
