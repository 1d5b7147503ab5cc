"""Branch and bound for the network program (N): a lower bound that is rigorous at any time, and rises.

What a dual variable t proves follows from an upper bound on its price, the largest of the bounds over regions of
directions that cover the sphere: D(kappa t) with kappa = beta / price(t). Regions are cones with bounds by secants
(`cones`, `subdivision`), or boxes with bounds by moment matrices (`boxes`, `moment_bounds`), of which one takes as long
as some fifty cones and is tighter the more dimensions there are. There are these ways (`cone_search`, `box_search`):

    close    cones at the t of a good network: in the end the bound comes as close as that is to the optimum;
    search   cones at the t that is best for those at hand, found anew as they are cut. Where the loss couples rows or
             outputs (several outputs, pairs, a skip, the multinomial loss) it is `relaxed`: the t of the relaxed bound;
    boxes    the same with boxes;
    coupled  one bound for all directions, by rows coupled in pairs, at the t that is best for it (`coupled_line`).

Up to rank 5 the first way is taken, from rank 8 on the last two; in between the others have a share of the time, and
the rest is for the one that would prove most at the end, if it went on rising as it did. The relaxed bound is where
they start from, and the result is never below it.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.certificates.branching.box_search import BoxLine
from cvxrelu.certificates.branching.cone_search import ConeLine
from cvxrelu.certificates.branching.coupled_line import CoupledLine
from cvxrelu.certificates.branching.line import Line
from cvxrelu.certificates.relaxation import relaxed_lower_bound
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.problem import Problem
from cvxrelu.runs.progress import History
from cvxrelu.runs.proving import Branching, Ledger, Proof

__all__ = ["branch_lower_bound"]

FIRST = 0.15  # of the time, for the relaxed bound to begin with
FEW_CONES = 2000  # of that
CONES, BOXES = 14, 36  # largest rank for cones, of which there are 2^r to begin with, and for boxes
LOW_RANK = 5  # up to which the t of the network is the one to close
HIGH_RANK = 8  # from which cones stay too large
MANY_ROWS = 10_000  # beyond which the angles between all of them are not looked at
ENTRIES = 20_000_000  # of the products of coordinates of all rows, which boxes need
FORM = 3  # of the states of lines; 1, without one, had no g, and 2 had them of every X
FAR = 2.0  # times the least excess, beyond which a way is not the one to go on with, however it rises
# What the excess of other ways counts beside that at the t of the network: this one falls to nothing in the end, and
# faster than a power of time (yacht, beta a hundredth: .036 predicted, .015 proved).
FLOOR = 1.5
# Of the time, for each way; the rest is for the best one.
SHARES = {"close": 0.15, "search": 0.2, "relaxed": 0.2, "boxes": 0.2, "coupled": 0.07}


def branch_lower_bound(
    problem: Problem, t: Float[np.ndarray, "m c"], options: Branching, *, deadline: float
) -> tuple[Proof, History]:
    """The best lower bound that is found by the deadline, or one that is good enough, and how it rose.

    t : t minus the derivative of the loss at a good prediction.
    """
    saved = None if options.checkpoint is None else options.checkpoint.load("branch")
    began = time.perf_counter()
    run = _Run(problem, t, options, saved, deadline)
    try:
        run.go(began, deadline)
    finally:
        if options.checkpoint is not None:
            options.checkpoint.save("branch", run.state())
    return run.ledger.best, run.ledger.history


class _Run:
    """All lines, and which of them is due."""

    def __init__(
        self, problem: Problem, t: np.ndarray, options: Branching, saved: dict[str, Any] | None, deadline: float
    ) -> None:
        began = time.perf_counter()
        if saved is None:
            until = began + FIRST * (deadline - began) if np.isfinite(deadline) else deadline
            start = Proof(*relaxed_lower_bound(problem, t, deadline=until, cones=FEW_CONES))
            duals = (t, start.dual)
        else:
            start, duals = Proof(*saved["best"]), (t, t)
        self.ledger = Ledger(start, options, self.state)
        self.ledger.started = began
        self.ways = _ways(problem)
        # By another version: its bound stays, no more.
        known = saved is not None and (saved.get("form"), saved.get("ways")) == (FORM, self.ways)
        states = saved["lines"] if saved is not None and known else [None] * len(self.ways)
        self.lines: list[Line] = []
        for way, state in zip(self.ways, states, strict=True):
            if way == "boxes":
                self.lines.append(BoxLine(problem, duals[1], self.ledger, saved=state))
            elif way == "coupled":
                self.lines.append(CoupledLine(problem, duals[0], self.ledger, saved=state))
            else:
                search = way == "search"
                self.lines.append(ConeLine(problem, duals[search], self.ledger, weighs=search, saved=state))
        self.stage = saved["stage"] if saved is not None and known else 0  # lines that have had their share
        self.failed: list[Line] = []
        if saved is None:
            self.ledger.record(start, 0, np.nan)
        else:
            self.ledger.history, self.ledger.spent = History(saved["history"]), saved["spent"]

    def state(self) -> dict[str, Any]:
        """All that `saved` needs to go on from here."""
        ledger = self.ledger
        return {
            "best": tuple(ledger.best), "spent": ledger.elapsed, "history": list(ledger.history.records),
            "form": FORM, "ways": self.ways, "stage": self.stage, "lines": [line.state() for line in self.lines],
        }  # fmt: skip

    def go(self, began: float, deadline: float) -> None:
        """Each line for its share, then the best one to the end."""
        cones = self.ledger.options.cones if np.isinf(deadline) else 2**62
        length = deadline - began
        while self.stage < len(self.lines) > 1 and not self.ledger.over:
            shares = [SHARES[way] for way in self.ways[: self.stage + 1]]
            line, now = self.lines[self.stage], time.perf_counter()
            with self.standing(line):
                line.go(began + sum(shares) * length, int(shares[-1] * cones))
            line.slope = self.slope(line, now)
            if self.ledger.stopped or time.perf_counter() > deadline:
                return  # a run that goes on from here gives this line the rest of its share
            self.stage += 1
        # Where the one that is due ends early, or failed, the next one has what is left of the time.
        lines = sorted(self.lines, key=lambda line: self.outlook(line, deadline - time.perf_counter(), length))
        for line in (line for line in lines if line not in self.failed):
            now = time.perf_counter()
            if self.ledger.over or now > deadline:
                return
            share = line.closing_share
            with self.standing(line):
                until = deadline if np.isinf(deadline) else deadline - share * (deadline - now)
                line.go(until, int((1.0 - share) * cones))
                line.finish(deadline, cones)
            if np.isinf(deadline) and line not in self.failed:
                return

    def excess(self, bound: float) -> float:
        """Of the least objective that is known over a bound."""
        return max(min(self.ledger.options.objectives, default=np.inf) - bound, 0.0)

    def slope(self, line: Line, began: float) -> float:
        """The power of time with which the excess of a line fell, from half of its share to the end; 0 if unknown."""
        half = 0.5 * (began + time.perf_counter())
        before = self.excess(max((best for at, best in line.rise if at <= half), default=np.inf))
        now = self.excess(line.best)
        return float(np.log2(before / now)) if 0.0 < now < before < np.inf else 0.0

    def outlook(self, line: Line, left: float, length: float) -> tuple[float, float]:
        """What the excess of a line would be after the time left, infinite if it is far behind; and minus its best."""
        now = self.excess(line.best)
        if not (np.isfinite(left) and now <= FAR * min(self.excess(other.best) for other in self.lines) < np.inf):
            return np.inf, -line.best
        way = self.ways[self.lines.index(line)]
        later = now * (1.0 + max(left, 0.0) / (SHARES[way] * length)) ** -line.slope
        return later * (1.0 if way == "close" else FLOOR), -line.best

    @contextlib.contextmanager
    def standing(self, line: Line) -> Iterator[None]:
        """What is proved stays proved where a line runs out of memory or its eigenvalues do not converge: it ends."""
        try:
            yield
        except (MemoryError, np.linalg.LinAlgError) as error:
            self.failed.append(line)
            warnings.warn(
                f"branch and bound: one way of covering the directions ended early ({type(error).__name__}: {error}); "
                "the bound so far holds",
                RuntimeWarning,
                stacklevel=2,
            )


def _ways(problem: Problem) -> list[str]:
    """Lines that are worth their time for this problem."""
    rank = row_space(problem.X).rows.shape[1]
    separable = problem.skip is None and problem.readout is None and problem.loss_name != "multinomial"
    weighs = separable and problem.n_outputs == 1
    boxes = weighs and len(problem.X) * rank * (rank + 1) // 2 <= ENTRIES
    if weighs and rank >= HIGH_RANK:
        ways = ["coupled"] * (len(problem.X) <= MANY_ROWS) + ["boxes"] * (boxes and rank <= BOXES)
        if ways:
            return ways
    if rank > CONES:
        return []
    if rank <= LOW_RANK:
        return ["close"] * (rank > 0)
    return ["close", "search" if weighs else "relaxed", *["boxes"] * boxes]
