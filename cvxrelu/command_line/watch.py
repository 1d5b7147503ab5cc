"""What `cvxrelu fit` says of its progress, on the line that `cvxrelu.support.status_line` keeps, if it is open."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from cvxrelu.api.beta_search import Step
from cvxrelu.support.status_line import tell
from cvxrelu.support.time_left import GapClock, WalkClock

__all__ = ["fit_watch", "search_watch"]


def search_watch(
    betas: int, folds: int, clock: Callable[[], float] = time.monotonic, said: Callable[[str], Any] = tell
) -> Callable[[Step], None]:
    """For `search_beta`: which beta of how many, which fold, and about how long."""
    walk = WalkClock(betas, folds, clock)
    return lambda step: said(f"choosing beta: {walk.at(*step)}, then the last fit")


def fit_watch(tol: float, said: Callable[[str], Any] = tell) -> Callable[[Mapping[str, Any]], None]:
    """For `solve` as callback: how far the gap is from `tol`, and about how long."""
    clock = GapClock(tol)
    said("fitting to all training rows")

    def watch(record: Mapping[str, Any]) -> None:
        if "round" in record:
            where, gap, seconds = f"round {record['round']}", record["gap"], record["priced"]
        else:
            where, gap, seconds = f"iteration {record['iteration']}", record["sampled_gap"], record["time"]
        said(f"{where}: gap {gap:.1e}, {tol:.0e} is wanted{clock.left(seconds, gap)}")

    return watch
