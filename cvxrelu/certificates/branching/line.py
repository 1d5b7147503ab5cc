"""A line of branch and bound: a dual variable, and regions that cover all directions and bound its price."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.numerics.rounding import UNDERFLOW, gamma, power_of_two
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.dual import largest_multiple
from cvxrelu.program.problem import Problem
from cvxrelu.runs.proving import Ledger, Proof

__all__ = ["Line"]


class Line:
    """What lines over cones (`cone_search`) and boxes (`box_search`) share: units, and what they prove.

    Rows are those of X / unit in an orthonormal basis of row space.
    """

    closing_share = 0.4  # of the time that is left, at the best t of a search

    def __init__(
        self, problem: Problem, t: Float[np.ndarray, "m c"], ledger: Ledger, saved: dict[str, Any] | None
    ) -> None:
        self.problem, self.t, self.ledger = problem, t, ledger
        self.unit = power_of_two(problem.X)
        self.space = row_space(problem.X / self.unit)
        self.rank = self.space.rows.shape[1]
        self.best = 0.0  # of this line
        self.best_t = t
        self.pace = 0.0  # seconds for a region
        self.rise: list[tuple[float, float]] = []  # (moment, best of this line by then), of this process
        self.slope = 0.0  # by which its excess fell with time, in logarithms
        self.deadline, self.most = np.inf, 0  # of the call at hand
        if saved is not None:
            self.t, self.best_t, self.best = saved["t"], saved["best_t"], saved["best"]
            self.pace, self.slope = saved["pace"], saved["slope"]

    def state(self) -> dict[str, Any]:
        """All that `saved` needs to go on from here."""
        return {"t": self.t, "best_t": self.best_t, "best": self.best, "pace": self.pace, "slope": self.slope}

    def go(self, deadline: float, cones: int) -> None:
        """Until the deadline, so many cones, the target of the ledger, or nothing is left to gain."""
        raise NotImplementedError

    def finish(self, deadline: float, cones: int) -> None:
        """Close at the best t so far."""
        raise NotImplementedError

    @property
    def regions(self) -> int:
        """Cones or boxes."""
        raise NotImplementedError

    @property
    def over(self) -> bool:
        return self.ledger.over or time.perf_counter() > self.deadline or self.regions >= self.most

    def scaled(self, t: np.ndarray) -> tuple[Float[np.ndarray, "n c"], float]:
        """The function of t, pulled back to the rows, near one; and beta in its units."""
        p = self.problem.pull_back(t)[0]
        size = power_of_two(p)
        return p / size, self.problem.beta / (size * self.unit)

    def price(self, t: np.ndarray, bound: float, moved: np.ndarray | float = 0.0, outward: float = 1.0) -> float:
        """The price of t that a bound on its scaled function over all directions proves.

        moved, outward : what a further rotation of the rows can change, added to each and as a factor.
        """
        p, slack = self.problem.pull_back(t)
        size = power_of_two(p)
        # What the move into row space, and the length of a unit vector there, can change.
        change = float(np.linalg.norm(p / size, axis=1) @ (self.space.moved + moved))
        outward = outward * (1.0 + gamma(*self.space.basis.shape))
        # These units are large beside `change` and bounds of which p is largest where rows are zero.
        return (outward * bound + change + UNDERFLOW) * size * self.unit + slack

    def proved(self, price: float) -> None:
        """Keep what t proves with this bound on its price, if it is more."""
        proof = Proof(*self.problem.dual_bound(self.t, largest_multiple(self.problem.beta, price)))
        if proof.bound > self.best:
            self.best, self.best_t = proof.bound, self.t
            self.rise.append((time.perf_counter(), self.best))
        self.ledger.record(proof, self.regions, price / self.problem.beta)
