"""Why a run ended, and the relative gap."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

__all__ = ["Status", "relative_gap", "status_of_bound"]


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

    def for_gap(self, gap: float, tol: float, rigorous: bool) -> Status:
        """What this status of a search becomes beside a certificate that leaves `gap`; see `status_of_bound`."""
        return status_of_bound(self, gap, tol, rigorous)

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


def relative_gap(objective: float, lower_bound: float, resolution: float = 0.0) -> float:
    """`(objective - lower_bound) / max(|objective|, tiny)`, never below 0; 0 when both are 0.

    resolution : an objective of at most that is zero but for rounding, and so is its gap.
    """
    if objective <= resolution:
        return 0.0
    return max(0.0, objective - lower_bound) / max(abs(objective), float(np.finfo(np.float64).tiny))


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
