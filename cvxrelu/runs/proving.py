"""What a proof by branch and bound has come to: the best lower bound, how it rose, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.runs.checkpoint import Checkpoint
from cvxrelu.runs.progress import History, branch_row
from cvxrelu.runs.settings import Settings
from cvxrelu.support.status_line import say

__all__ = ["Branching", "Ledger", "Proof", "branching"]


class Proof(NamedTuple):
    """A lower bound, the sum of the magnitudes it was computed from, and the feasible multiple of t."""

    bound: float
    magnitude: float
    dual: Float[np.ndarray, "m c"]


class Branching(NamedTuple):
    """When to stop, and what to tell.

    gap : relative to the least of `objectives`, at which to stop. cones : most of them, where there is no time limit.
    network : (d + 1, m), neurons of one output, magnitude times direction and then the sign of the output: where the
    search for a dual variable starts. note : called with every record of the progress; true to stop. checkpoint : where
    the state is saved and found.
    """

    gap: float = 1e-3
    objectives: tuple[float, ...] = ()
    cones: int = 100_000
    network: np.ndarray | None = None
    note: Callable[[dict[str, Any]], bool] | None = None
    checkpoint: Checkpoint | None = None


def branching(
    settings: Settings,
    gap: float,
    objectives: tuple[float, ...],
    checkpoint: Checkpoint | None,
    neurons: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Branching:
    """As a call with these settings wants it: printed, told to its callback. neurons : directions, outputs, sizes."""
    network = None
    if neurons is not None and len(neurons[1]) == 1:
        network = np.concatenate([neurons[0] * neurons[2], neurons[1]])

    def note(record: dict[str, Any]) -> bool:
        if settings.verbose:
            say(branch_row(record, header=not told))
        told.append(True)
        return bool(settings.callback(dict(record))) if settings.callback is not None else False

    told: list[bool] = []
    return Branching(gap, objectives, network=network, note=note, checkpoint=checkpoint)


class Ledger:
    """The best proof so far, and the history. state : of everything, for the checkpoint."""

    def __init__(self, best: Proof, options: Branching, state: Callable[[], dict[str, Any]]) -> None:
        self.best, self.options, self.state = best, options, state
        self.target = max(0.0, min(options.objectives, default=np.inf) * (1.0 - options.gap))
        self.history, self.stopped, self.spent, self.started = History(), False, 0.0, time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds, with those of the runs before that this one goes on from."""
        return self.spent + time.perf_counter() - self.started

    @property
    def over(self) -> bool:
        return self.stopped or bool(self.best.bound >= self.target)

    def record(self, proof: Proof, cones: int, price: float) -> None:
        """Keep a proof if it is the best; price : the bound on that of its t, over beta."""
        if proof.bound > self.best.bound:
            self.best = proof
        record = {
            "time": self.elapsed, "lower_bound": float(self.best.bound), "cones": cones, "price": float(price),
        }  # fmt: skip
        self.history.append(record)
        if self.options.note is not None and self.options.note(record):
            self.stopped = True
        if self.options.checkpoint is not None:
            self.options.checkpoint.offer("branch", self.state)
