"""What a solve returns: status, history, certificate, sampled solution and the solution itself.

Plain records on the host. Nothing here computes anything that is not a ratio of two stored numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from cvxrelu.network.relu_network import ReLUNetwork

__all__ = [
    "Certificate",
    "History",
    "SampledSolution",
    "Solution",
    "Status",
    "progress_row",
    "refinement_row",
    "relative_gap",
    "status_of_bound",
]


class Status(StrEnum):
    """Why a solve ended, and what the bound reported says of it. The values are stable strings."""

    OPTIMAL = "optimal"
    OPTIMAL_INACCURATE = "optimal_inaccurate"
    UNPROVEN = "unproven"
    STALLED = "stalled"
    MAX_ITER = "max_iter"
    TIME_LIMIT = "time_limit"
    INTERRUPTED = "interrupted"
    NUMERICAL_ERROR = "numerical_error"
    ILL_CONDITIONED = "ill_conditioned"

    @property
    def advice(self) -> str:
        """One sentence: what the status means and what to do about it."""
        return self.advice_on("")

    def advice_on(self, program: str) -> str:
        """The same sentence about the gap of a program, such as "the sampled program"; "" leaves its name out."""
        return _ADVICE[self].format(gap=f"the gap of {program}" if program else "the gap")

    @property
    def success(self) -> bool:
        """Whether the gap reported is at most tol, or stopped falling at most ten times above it."""
        return self in (Status.OPTIMAL, Status.OPTIMAL_INACCURATE)

    @property
    def exit_code(self) -> int:
        """What the command lines end with: 0 only where the gap reported is at most tol."""
        return _EXIT_CODES.get(self, 1)


_ADVICE = {
    Status.OPTIMAL: "{gap} is at most tol",
    Status.OPTIMAL_INACCURATE: "{gap} stopped falling within ten times tol; use dtype='float64' or a larger tol",
    Status.UNPROVEN: "the search met tol, but the bound asked for does not prove it: {gap} that it leaves is larger; "
    "raise tol, or ask for a tighter certificate",
    Status.STALLED: "progress stopped before {gap} was at most tol; raise tol, or use dtype='float64'",
    Status.MAX_ITER: "max_iter reached before {gap} was at most tol; raise max_iter or tol",
    Status.TIME_LIMIT: "time_limit reached before {gap} was at most tol; raise time_limit or tol",
    Status.INTERRUPTED: "stopped by the user; the best network so far is returned",
    Status.ILL_CONDITIONED: (
        "rounding of the data hides what the bound depends on: float64 cannot tell how far from optimal this is; "
        "subtract from the columns of X what they have in common, or raise tol"
    ),
    Status.NUMERICAL_ERROR: "the iterates stopped being finite; standardise X and y, or use dtype='float64'",
}

_EXIT_CODES = {Status.OPTIMAL: 0, Status.UNPROVEN: 5, Status.STALLED: 6, Status.INTERRUPTED: 130}


def status_of_bound(ended: Status, gap: float, tol: float, rigorous: bool) -> Status:
    """The status of a search that ended so, once the certificate reported leaves this gap.

    What the search believed of its own bound counts only where the certificate agrees: a search that met tol is
    "optimal" if the gap reported is at most tol, else "unproven"; one that stalled is "optimal_inaccurate" if that gap
    is at most ten times tol, else "stalled". A proof of tol makes any but a stopped or broken search "optimal"; an
    estimate does not, because a search believes one only after pricing again.
    """
    if ended in (Status.INTERRUPTED, Status.NUMERICAL_ERROR):
        return ended
    if gap <= tol and (rigorous or ended is Status.OPTIMAL):
        return Status.OPTIMAL
    if ended is Status.OPTIMAL:
        return Status.UNPROVEN
    if ended in (Status.OPTIMAL_INACCURATE, Status.STALLED):
        return Status.OPTIMAL_INACCURATE if gap <= 10 * tol else Status.STALLED
    return ended


def relative_gap(objective: float, lower_bound: float) -> float:
    """`(objective - lower_bound) / max(|objective|, tiny)`, never below 0; 0 when both are 0."""
    return max(0.0, objective - lower_bound) / max(abs(objective), float(np.finfo(np.float64).tiny))


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


@dataclass(frozen=True)
class Certificate:
    """A lower bound on the optimum of the network program (N), and how it was obtained.

    Attributes
    ----------
    kind : "exact", "relaxed" or "priced".
    rigorous : True when the bound holds whatever was computed; False for an estimate ("priced").
    lower_bound : the bound, float64.
    gap : `(objective - lower_bound) / max(|objective|, tiny)` for the objective it was issued for.
    dual : the scaled dual variable t that proves it, (n,) or (n, c).
    starts : number of ascents behind a "priced" bound, else None.
    objective : the objective the gap is of.
    """

    kind: str
    rigorous: bool
    lower_bound: float
    gap: float
    dual: np.ndarray
    starts: int | None = None
    objective: float = np.nan

    def __str__(self) -> str:
        nature = "rigorous" if self.rigorous else f"estimate from {self.starts} starts"
        return f"{self.kind} ({nature}): lower bound {self.lower_bound:.6g}, gap {self.gap:.2e}"


@dataclass(frozen=True)
class SampledSolution:
    """The solution of the sampled program (S).

    Attributes
    ----------
    blocks : (2, d, P) or (2, d, P, c). The cone-feasible point whose objective is `objective`; with `intercept=True`
        the last of the d rows belongs to the constant column.
    patterns : (n, P) bool, distinct.
    gates : (d, P) vectors that realise the patterns, or None when patterns were given as such.
    n_requested : number of patterns asked for, before deduplication.
    objective : objective of (S) at `blocks`; an upper bound on its optimum.
    lower_bound : rigorous lower bound on the optimum of (S), float64.
    gap : relative gap of the two.
    status : Status of the sampled stage.
    residuals : {"primal_copy", "dual_copy", "primal_cone", "dual_cone"}, relative, at the last check; where the loss is
        not the squared one also "primal_loss" and "dual_loss".
    rho : (penalty of U = copy, penalty of G U = s) at the end; then also that of the prediction's split.
    dual : the scaled dual variable t behind `lower_bound`, (n,) or (n, c); with m pairs (m,).
    skip, bias : the skip at `blocks`, (d,) or (d, c) and () or (c,), each None where there is none.
    """

    blocks: np.ndarray
    patterns: np.ndarray
    gates: np.ndarray | None
    n_requested: int
    objective: float
    lower_bound: float
    gap: float
    status: Status
    residuals: Mapping[str, float]
    rho: tuple[float, ...]
    dual: np.ndarray
    skip: np.ndarray | None = None
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class Solution:
    """A network, its objective, and a bound on how far from the global optimum it can be.

    `objective`, `lower_bound`, `gap` and `certificate` are always about the network program (N); `sampled` is about
    the sampled program (S). `status` is "optimal" only where the gap reported, `gap`, is at most tol; with
    `refine=False` it speaks of (S), where that gap is `sampled.gap`, and `message` says so.

    Attributes
    ----------
    network : the best network seen, by objective of (N).
    objective : its objective, float64.
    certificate : the bound, its kind, and whether it is rigorous.
    sampled : the solution of (S), or None when that stage did not run.
    status, message : why the solve ended, and the same in words.
    n_iter : ADMM iterations.
    history : one record per check.
    timings : seconds by phase: "setup", "factor", "iterate", "certify", "total"; on JAX each holds its own compilation.
    backend, dtype, device : where and in what precision the iterations ran.
    settings : the problem's sizes and the options in force, as plain values.
    n_rounds : rounds of refinement.
    problem : the data as the solver saw them, for `leave_one_out`; never saved.
    """

    network: ReLUNetwork
    objective: float
    certificate: Certificate
    sampled: SampledSolution | None
    status: Status
    message: str
    n_iter: int
    history: History
    timings: Mapping[str, float]
    backend: str
    dtype: str
    device: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_rounds: int = 0
    problem: Any = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled, by joblib and within a fitted estimator too: everything but the training data."""
        return {**self.__dict__, "problem": None}

    @property
    def lower_bound(self) -> float:
        """Lower bound on the optimum of (N); `certificate.kind` says of which kind."""
        return self.certificate.lower_bound

    @property
    def gap(self) -> float:
        """`(objective - lower_bound) / max(|objective|, tiny)` for (N)."""
        return relative_gap(self.objective, self.lower_bound)

    @property
    def success(self) -> bool:
        """True for the statuses "optimal" and "optimal_inaccurate"."""
        return self.status.success

    @property
    def _of_sampled(self) -> bool:
        """Whether `status` speaks of the sampled program."""
        return self.sampled is not None and self.settings.get("refine") is False

    def summary(self) -> str:
        """The whole result as text, one fact per line."""
        size = self.settings
        work = f"rounds          {self.n_rounds}" if self.n_rounds or not self.n_iter else ""
        if self.n_iter:
            work = f"iterations      {self.n_iter}" + (f", then {self.n_rounds} rounds" if work else "")
        lines = [
            f"{'status of (S)' if self._of_sampled else 'status':15} {self.status.value}: {self.message}",
            f"problem         n = {size.get('n')}, d = {size.get('d')}, outputs = {size.get('c')}, "
            f"loss = {size.get('loss')}, beta = {size.get('beta'):.6g}",
            f"network         {self.network.n_neurons} neurons, objective {self.objective:.8g}",
            f"certificate     {self.certificate}",
        ]
        if self.sampled is not None:
            s = self.sampled
            lines += [
                f"sampled program {s.patterns.shape[1]} distinct patterns of {s.n_requested}, "
                f"objective {s.objective:.8g}, "
                f"lower bound {s.lower_bound:.8g} (rigorous), gap {s.gap:.2e}",
            ]
        lines += [
            f"{work} on {self.backend} ({self.device}, {self.dtype})",
            "seconds         " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.timings.items()),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        sampled = f", sampled_gap={self.sampled.gap:.2e}" if self.sampled is not None and self._of_sampled else ""
        return (
            f"Solution(status={self.status.value!r}{sampled}, objective={self.objective:.6g}, "
            f"lower_bound={self.lower_bound:.6g}, gap={self.gap:.2e}, certificate={self.certificate.kind!r}, "
            f"neurons={self.network.n_neurons})"
        )
