"""The history of a run, and its table of progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from cvxrelu.support.status_line import say

__all__ = ["History", "Progress", "branch_row", "progress_row", "refinement_row"]


class History:
    """The checks of a solve, in order: a sequence of records, and arrays by column name.

    >>> history = History([{"iteration": 20, "gap": 0.5}, {"iteration": 40, "gap": 0.1}])
    >>> history["gap"]
    array([0.5, 0.1])
    >>> len(history), history[-1]["iteration"]
    (2, 40)
    """

    def __init__(self, records: list[dict[str, Any]] | None = None) -> None:
        self.records: list[dict[str, Any]] = list(records or [])

    def append(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    @property
    def columns(self) -> list[str]:
        """The column names, in the order in which they first appeared."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def __getitem__(self, key: str | int) -> Any:
        """A column as a float array (NaN where a record lacks it), or the record at a position."""
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"no column {key!r}; there are {', '.join(self.columns) or 'none'}")
            return np.array([record.get(key, np.nan) for record in self.records])
        return self.records[key]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"History({len(self)} checks; columns {', '.join(self.columns)})"


class Progress:
    """Clock, history, printed lines and callback of a run.

    started : of `time.perf_counter`. spent : seconds in the runs before that this one goes on from.
    """

    def __init__(self, verbose: bool, callback: Callable | None, started: float | None = None) -> None:
        self.verbose, self.callback = verbose, callback
        self.started = time.perf_counter() if started is None else started
        self.spent = 0.0
        self.history = History()

    def elapsed(self) -> float:
        """Seconds since the start of this run."""
        return time.perf_counter() - self.started

    def note(self, record: dict[str, Any], row: str) -> bool:
        """Append to the history, print its row, call back; true when the callback asks to stop."""
        self.history.append(record)
        if self.verbose:
            say(row)
        return bool(self.callback(dict(record))) if self.callback is not None else False


def progress_row(record: Mapping[str, Any], header: bool = False) -> str:
    """One line of the progress table for a record of the history, below the heading if asked for.

    `network` is the best objective of (N); `sampled`, `bound` and `gap` are of (S); residuals are the larger of the
    two.
    """
    heading = (
        "  iter     network |     sampled       bound      gap |     pri      dua |  rho copy  rho cone |    time\n"
    )
    primal = max(record["primal_copy"], record["primal_cone"])
    dual = max(record["dual_copy"], record["dual_cone"])
    row = (
        f"{record['iteration']:6d} {record['objective']:11.5g} | {record['sampled_objective']:11.5g} "
        f"{record['sampled_lower_bound']:11.5g} {record['sampled_gap']:8.1e} | {primal:.1e}  {dual:.1e} | "
        f"{record['rho_copy']:9.2e} {record['rho_cone']:9.2e} | {record['time']:6.1f}s"
    )
    return heading + row if header else row


def refinement_row(record: Mapping[str, Any], header: bool = False) -> str:
    """One line of the progress table for a round of refinement, below the heading if asked for."""
    heading = " round     network       bound      gap | neurons   added   starts |    time\n"
    row = (
        f"{record['round']:6d} {record['objective']:11.5g} {record['lower_bound']:11.5g} {record['gap']:8.1e} | "
        f"{record['n_neurons']:7d} {record['added']:7d} {record['starts']:8d} | {record['priced']:6.1f}s"
    )
    return heading + row if header else row


def branch_row(record: Mapping[str, Any], header: bool = False) -> str:
    """One line of the progress table for a bound proved by branch and bound, below the heading if asked for."""
    heading = "       bound  price / beta     cones |    time\n"
    row = f"{record['lower_bound']:12.6g} {record['price']:13.4f} {record['cones']:9d} | {record['time']:6.1f}s"
    return heading + row if header else row
