"""One line of branch and bound: cones that cover all directions, and a dual variable, fixed or improved in rounds.

`close` cuts the cones with the largest bounds, at a given dual variable t, and sets aside those whose bound is at most
the largest value attained. `search` improves t between cuts, in rounds of

    weigh    the best network of features between the limits of the cones (`cone_network`), over the cones that may
             matter: its dual variable is the next t;
    bound    the cones, at that t; all of them once they have become a fifth more, and then what t proves is known;
    cut      the cones whose secants the network makes most use of, and those whose bounds are far above beta.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.certificates.branching.cone_network import cone_network
from cvxrelu.certificates.branching.line import Line
from cvxrelu.certificates.cells import RANK
from cvxrelu.certificates.cones import Price
from cvxrelu.certificates.exact_pricing import exact_price
from cvxrelu.certificates.subdivision import CLOSED, Cover, prices_of, split_worst
from cvxrelu.program.problem import Problem
from cvxrelu.runs.proving import Ledger
from cvxrelu.support.errors import OutOfTime

__all__ = ["ConeLine"]

ENTRIES = 8_000_000  # of the arrays of a network over cones
MOST_CONES = 800  # in such a network, of each sign
ITERATIONS = 40  # of L-BFGS in a round: more are better for t, but cutting is better still
GROWTH = 1.2  # of the number of cones, after which all are bounded
NEAR = 0.8  # of the largest bound: cones that are bounded anew between two times that all are
REPAIRS, REPAIR_SHARE = 16, 50  # after which the worst cones are cut so often, that share of all
LEVEL = 0.5  # between beta and the largest bound: cones above are cut
CUT = 600  # cones in a round for their secants, and as many for their bounds
WORTH = 0.9  # of all excess of secants that is cut


class ConeLine(Line):
    """One dual variable and its cones, which write what they prove into a ledger.

    weighs : whether t is improved, which needs one output and a loss that does not couple rows. `state` and `saved` as
    in a checkpoint.
    """

    def __init__(
        self, problem: Problem, t: Float[np.ndarray, "m c"], ledger: Ledger, *, weighs: bool,
        saved: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(problem, t, ledger, saved)
        self.weighs = weighs
        self.covers: list[Cover] = []
        self.value, self.closing = np.inf, False
        if saved is not None:
            self.closing = saved["closing"]
            self.covers = [
                Cover.restored(price, state) for price, state in zip(self.prices(self.t), saved["covers"], strict=False)
            ]

    def state(self) -> dict[str, Any]:
        """All that `saved` needs to go on from here."""
        return {**super().state(), "closing": self.closing, "covers": [cover.state() for cover in self.covers]}

    def go(self, deadline: float, cones: int) -> None:
        """Until the deadline, so many cones, the target of the ledger, or nothing is left to gain."""
        if self.rank == 0 or not np.any(self.t):
            return
        self.deadline, self.most = deadline, cones
        if not self.covers and self.rank <= RANK and self.problem.n_outputs == 1:
            self.by_cells()
            if self.over:
                return
        if not self.covers:
            self.covers = [Cover(price, deadline) for price in self.prices(self.t)]
            self.prove()
            if self.weighs and self.ledger.options.network is not None:
                self.place(self.ledger.options.network)
        elif (self.closing or not self.weighs) and not all(cover.complete for cover in self.covers):
            for cover, price in zip(self.covers, self.prices(self.t), strict=True):
                cover.refresh(price, deadline=deadline)
            self.prove()
        if self.weighs and not self.closing:
            self.search()
        else:
            self.close()

    def finish(self, deadline: float, cones: int) -> None:
        """Close at the best t so far."""
        self.deadline, self.most = deadline, cones
        if self.weighs and not self.closing and self.covers:
            for cover in self.covers:
                cover.complete = False
            self.t, self.closing = self.best_t, True
        self.go(deadline, cones)

    @property
    def regions(self) -> int:
        return sum(len(cover) for cover in self.covers)

    def prices(self, t: np.ndarray) -> list[Price]:
        """Functions to bound over the cones."""
        return prices_of(self.space.rows, self.scaled(t)[0])

    def by_cells(self) -> None:
        """What t proves by its exact price, where the cells of the rows can be enumerated."""
        p, slack = self.problem.pull_back(self.t)
        try:
            found = exact_price(self.problem.X, np.ascontiguousarray(p[:, 0]), above=np.inf, deadline=self.deadline)
        except (ValueError, OutOfTime):
            return
        self.proved(found.value + slack)

    def prove(self) -> None:
        """What the bounds at hand prove, if all of them are on the functions of t."""
        if not all(cover.complete for cover in self.covers):
            return
        self.proved(self.price(self.t, max(cover.bound for cover in self.covers)))

    def place(self, network: Float[np.ndarray, "d m"]) -> None:
        """Its neurons, given as magnitude times direction and sign of the output, in the cones that they lie in."""
        inside = self.space.basis.T @ network[:-1]
        for cover, sign in zip(self.covers, (1.0, -1.0), strict=True):
            for u in inside[:, network[-1] * sign > 0].T:
                home = int(np.argmax(np.all(cover.vertices @ u >= 0, axis=1)))  # the first cones are orthants
                cover.carried[home] += self.unit * np.abs(u)

    def close(self) -> None:
        """Cut the cones with the largest bounds, at this t."""
        while not self.over:
            attained = max(c.attained for c in self.covers)
            for cover in self.covers:
                cover.leave(cover.bounds <= (1.0 + CLOSED) * attained)
            cones = self.regions
            split_worst(self.covers, max(40, cones // 20))
            if self.regions == cones:
                break  # none is open, or in one dimension none can be cut
            self.prove()

    def search(self) -> None:
        """Rounds of weighing, bounding and cutting."""
        before = 0
        while not self.over:
            chosen = self.weigh()
            cones = self.regions
            # The last bounds have to be done by the deadline.
            last = time.perf_counter() + 1.5 * self.pace * cones > self.deadline
            prices, level = self.prices(self.t), self.scaled(self.t)[1]
            if last or cones > GROWTH * before:
                begun, before = time.perf_counter(), cones
                for cover, price in zip(self.covers, prices, strict=True):
                    cover.refresh(price, deadline=self.deadline)
                self.pace = (time.perf_counter() - begun) / cones
                self.prove()
                self.repair(level)
            else:
                for cover, price, active in zip(self.covers, prices, chosen, strict=True):
                    near = cover.bounds > NEAR * cover.bounds.max()
                    near[active] = True
                    cover.refresh(price, np.flatnonzero(near), deadline=self.deadline)
            self.cut(level)
            if last or self.regions == before:
                break
            if self.regions == cones:
                before = 0  # nothing is left to cut: what the last t proves is still to be known

    def repair(self, level: float) -> None:
        """Cut the cones with the largest bounds, at this t, while they are few."""
        for _ in range(REPAIRS):
            if self.over:
                break
            largest = max(float(c.bounds.max()) for c in self.covers)
            split_worst(self.covers, max(20, self.regions // REPAIR_SHARE), above=level + LEVEL * (largest - level))
            self.prove()

    def weigh(self) -> list[np.ndarray]:
        """The next t; the network's points are carried along by the cones it was found over, which are returned."""
        n, r = self.space.rows.shape
        most = max(8, min(MOST_CONES, ENTRIES // (2 * n * r)))
        chosen = []
        for cover in self.covers:
            used = np.any(cover.carried > 0, axis=1)
            largest = max(float(c.bounds.max()) for c in self.covers)
            rank = np.where(used, np.inf, cover.bounds)
            order = np.argsort(-rank, kind="stable")[:most]
            chosen.append(order[rank[order] > NEAR * largest])
        if not any(active.size for active in chosen):
            return chosen  # t is zero but for rows of zeros, which no neuron sees: there is none better
        pairs = list(zip(self.covers, chosen, strict=True))
        vertices = np.concatenate([cover.vertices[active] for cover, active in pairs])
        start = np.concatenate([cover.carried[active] for cover, active in pairs])
        signs = np.repeat([1.0, -1.0], [len(active) for active in chosen])
        found = cone_network(
            self.problem.loss, self.space.rows, self.problem.beta / self.unit, vertices, signs, start,
            max_iter=ITERATIONS, deadline=self.deadline,
        )  # fmt: skip
        self.value, first = found.value, 0
        for cover, active in pairs:
            cover.complete, cover.carried[:] = False, 0.0
            part = slice(first, first + len(active))
            cover.carried[active] = found.points[part]
            cover.worth[:] = 0.0
            cover.worth[active] = np.where(np.any(found.points[part] > 0, axis=1), found.excess[part], 0.0)
            first += len(active)
        self.t = found.t
        return chosen

    def cut(self, level: float) -> None:
        """Cut cones for what their secants take off the loss, and for bounds above beta."""
        largest = max(float(c.bounds.max()) for c in self.covers)
        for cover in self.covers:
            worth = cover.worth
            order = np.argsort(-worth)[:CUT]
            total = np.cumsum(worth[order])
            order = order[(worth[order] > 0) & (total - worth[order] <= WORTH * float(worth.sum()))]
            far = np.argsort(-cover.bounds)[:CUT]
            far = far[cover.bounds[far] > level + LEVEL * max(largest - level, 0.0)]
            which = np.union1d(order, far)
            if which.size:
                cover.split(which)
