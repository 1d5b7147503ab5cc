"""A line of branch and bound over boxes of directions, for ranks at which cones stay too large.

Each sign of p has boxes of its own, at first the cube around the sphere, in the principal axes of the moment matrices
that the relaxed bound uses. Rounds of

    weigh    the best network of features between limits (`feature_network`): its dual variable is the next t;
    bound    the boxes at that t (`moment_bounds`); where a bound exceeds beta, features to weigh;
    cut      the boxes whose features have weight, and those with the largest bounds, in the coordinate of the largest
             variance of the moment matrix: there its neurons lie apart, and a box that holds one of them is tight.

All boxes are bounded once they have become a fifth more, and then what t proves is known. At last the best t is closed:
its boxes are bounded more exactly, and those with the largest bounds cut.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.certificates.branching.boxes import Boxes, halves
from cvxrelu.certificates.branching.feature_network import Columns, feature_network
from cvxrelu.certificates.branching.line import Line
from cvxrelu.certificates.branching.moment_bounds import MomentPrice, Moments
from cvxrelu.numerics.rounding import EPS, gamma
from cvxrelu.program.problem import Problem
from cvxrelu.runs.proving import Ledger
from cvxrelu.support.errors import OutOfTime

__all__ = ["BoxLine"]

PER_BOX, SHARE = 100, 20  # a box is worth so many cones, where these are counted, or d^2 over that
ENTRIES, BATCH = 2_000_000, 16  # of a temporary array, and boxes at a time
FIRST_ROUNDS = 30  # before the first cut
STEP = 0.5  # of the way to the next t: all of it goes too far, where features are few
INNER, MOST_INNER, LOOSE = 2, 6, 0.02  # times that t is improved between cuts; more while bounds exceed beta so much
ITERATIONS = 150  # of L-BFGS for t
GAP, FINE = 0.02, 0.001  # that the barrier leaves, relative to beta, in the search and when closing
DRIFT, WARM = 3.0, 0.15  # first gap for a relative change of t, and the least
NEAR = 0.9  # of beta: boxes that are bounded anew between two times that all are
GROWTH = 1.2  # of the number of boxes, after which all are bounded
WORTH, MOST_CUT = 0.003, 40  # share of all weight for which a box is cut, and most of them in a round
FAR, LEVEL = 20, 0.5  # boxes cut for bounds above that, between beta and the largest
MOST_COLUMNS = 600  # beyond which those without weight are dropped
TINY = 1e-300
CLOSED = 5e-4  # relative to beta: boxes whose bounds are that near to it are not cut when closing


class BoxLine(Line):
    """For one output and a loss that is a sum over rows. `state` and `saved` as in a checkpoint."""

    closing_share = 0.2

    def __init__(
        self, problem: Problem, t: Float[np.ndarray, "m 1"], ledger: Ledger, *, saved: dict[str, Any] | None = None
    ) -> None:
        super().__init__(problem, t, ledger, saved)
        self.axes, self.before, self.next_name, self.complete = np.eye(self.rank), 0, 0, False
        self.phase, self.rounds, self.count = -1, 0, 0  # before the first cut; then even ones search, odd ones close
        self.boxes: Boxes | None = None
        self.columns = self.neurons()
        if saved is not None:
            self.axes, self.before, self.next_name = saved["axes"], saved["before"], saved["next_name"]
            self.phase, self.rounds, self.count = saved["phase"], saved["rounds"], saved["count"]
            self.complete, self.columns = saved["complete"], Columns(*saved["columns"])
            self.boxes = None if saved["boxes"] is None else Boxes(*saved["boxes"])
        self.rotate(self.axes)

    def state(self) -> dict[str, Any]:
        """All that `saved` needs to go on from here."""
        return {
            **super().state(), "axes": self.axes, "before": self.before, "next_name": self.next_name,
            "phase": self.phase, "rounds": self.rounds, "count": self.count, "complete": self.complete,
            "columns": list(self.columns), "boxes": None if self.boxes is None else list(self.boxes),
        }  # fmt: skip

    @property
    def regions(self) -> int:
        return 0 if self.boxes is None else len(self.boxes.bounds)

    def go(self, deadline: float, cones: int) -> None:
        if self.rank == 0 or not np.any(self.t):
            return
        self.deadline, self.most = deadline, self.affordable(cones)
        if self.phase < 0:
            self.begin()
        if self.phase == 0:
            self.search()

    def finish(self, deadline: float, cones: int) -> None:
        """By turns: close at the best t, and once that leaves nothing, search on."""
        self.deadline, self.most = deadline, self.affordable(cones)
        while self.phase >= 0 and not self.over:
            assert self.boxes is not None
            if self.phase % 2 == 0:
                if self.phase > 0:
                    now = time.perf_counter()
                    self.deadline = deadline if np.isinf(deadline) else deadline - self.closing_share * (deadline - now)
                    self.search()
                    self.deadline = deadline
                self.move(self.best_t)
                self.complete, self.phase = False, self.phase + 1
            self.close()
            if self.over or self.regions == self.count:
                break
            self.phase, self.count = self.phase + 1, self.regions

    def affordable(self, cones: int) -> int:
        """Boxes for so many cones: their time grows with the square of the entries of u and U."""
        d = self.rank + self.rank * (self.rank + 1) // 2
        return max(2, cones // max(PER_BOX, d * d // SHARE))

    def rotate(self, axes: Float[np.ndarray, "r r"]) -> None:
        """Take these axes for coordinates, with what rounding moves: rows = Y axes^T, up to that."""
        rows = self.space.rows
        self.axes, self.Y = axes, rows @ axes
        self.moved = np.linalg.norm(rows - self.Y @ axes.T, axis=1) + gamma(*axes.shape) * np.linalg.norm(rows, axis=1)
        skew = float(np.linalg.norm(axes.T @ axes - np.eye(len(axes))))
        self.outward = 1.0 + skew + gamma(*axes.shape)

    def neurons(self) -> Columns:
        """The features of the network that is known: they stand for any box."""
        n, network = self.problem.X.shape[0], self.ledger.options.network
        w = np.zeros((self.problem.X.shape[1], 0)) if network is None else network[:-1]
        w, signs = self.space.basis.T @ w, np.zeros(0) if network is None else network[-1]
        size = np.linalg.norm(w, axis=0)
        used = (size > 0) & (signs != 0)
        hidden = np.maximum(self.space.rows @ (w[:, used] / size[used]), 0.0).T.reshape(-1, n)
        return Columns(
            hidden, hidden, np.sign(signs[used]), np.full(len(hidden), -1), self.unit * size[used] * np.abs(signs[used])
        )

    def begin(self) -> None:
        """Both cubes; their moments give the axes."""
        r, d = self.rank, self.rank + self.rank * (self.rank + 1) // 2
        both = np.arange(2)
        if self.boxes is None:
            one, empty = np.ones((2, r)), (np.zeros(2), np.full(2, np.inf), np.zeros((2, d)))
            self.boxes, self.next_name = Boxes(-one, one, np.array([1.0, -1.0]), both, *empty), 2
        if not self.complete:  # at first, or cut short before
            self.bound(both, cold=True)
        while self.rounds < FIRST_ROUNDS and not self.over:
            if self.rounds > 0 and self.boxes.bounds.max() <= (1.0 + LOOSE) * self.scaled(self.t)[1]:
                break
            self.weigh()
            self.bound(both, cold=True)
            self.rounds += 1
            self.prove()
        if self.over or not self.complete:
            return
        weights = self.weights()
        matrices = MomentPrice(self.Y, self.scaled(self.t)[0][:, 0]).matrices(self.boxes.starts)
        U = np.tensordot(weights, matrices[:, 1:, 1:], axes=1) if weights.any() else np.eye(r)
        self.boxes, self.complete = self.boxes._replace(drifts=np.ones(2)), False
        self.rotate(self.axes @ np.linalg.eigh(U)[1][:, ::-1])
        self.bound(both, cold=True)
        self.phase = 0

    def search(self) -> None:
        """Rounds of cutting, weighing and bounding; every record finds a state to go on from."""
        while not self.over:
            count = self.regions
            if not self.cut():
                break
            last = time.perf_counter() + 1.5 * self.pace * self.regions > self.deadline
            whole = last or self.regions > GROWTH * self.before
            self.settle()
            if whole:
                assert self.boxes is not None
                self.before = self.regions
                self.bound(np.flatnonzero(self.boxes.drifts > 0))
            if time.perf_counter() > self.deadline:
                return
            self.prove()
            if last or self.regions == count:
                break

    def settle(self) -> None:
        """Improve t and bound the boxes that matter, until these bounds are near beta."""
        for inner in range(MOST_INNER):
            self.weigh()
            assert self.boxes is not None
            level = self.scaled(self.t)[1]
            near = self.boxes.bounds > NEAR * level
            self.bound(np.flatnonzero(near))
            enough = inner + 1 >= INNER and self.boxes.bounds[near].max(initial=0.0) <= (1.0 + LOOSE) * level
            if enough or time.perf_counter() > self.deadline:
                break

    def close(self) -> None:
        """More exact bounds at this t, and cuts where they are largest."""
        if not self.complete:
            self.bound(np.arange(self.regions), gap=FINE)
            self.prove()
        while not self.over and self.complete:
            assert self.boxes is not None
            bounds, level = self.boxes.bounds, self.scaled(self.t)[1]
            worst = np.argsort(-bounds, kind="stable")[: max(4, len(bounds) // 25)]
            worst = worst[bounds[worst] > max(level, bounds.max() - (bounds.max() - level) * LEVEL - CLOSED * level)]
            if worst.size == 0:
                break
            self.split(worst, gap=FINE)
            self.prove()

    def weights(self) -> Float[np.ndarray, " B"]:
        """Of the features of each box."""
        assert self.boxes is not None
        total = np.zeros(self.next_name)
        mine = self.columns.owners >= 0
        np.add.at(total, self.columns.owners[mine], self.columns.weights[mine])
        return total[self.boxes.names]

    def weigh(self) -> None:
        """The next t."""
        assert self.boxes is not None
        beta = self.problem.beta / self.unit
        t, weights, _ = feature_network(
            self.problem.loss, beta, self.columns, max_iter=ITERATIONS, deadline=self.deadline
        )  # fmt: skip
        if not np.any(t):
            return
        t = STEP * t + (1.0 - STEP) * self.t
        columns = self.columns._replace(weights=weights)
        if len(weights) > MOST_COLUMNS:
            columns = columns.of((weights > 0) | (columns.owners < 0))
        self.columns = columns
        self.move(t)

    def move(self, t: Float[np.ndarray, "m 1"]) -> None:
        """To this t, at which no box has been bounded yet."""
        assert self.boxes is not None
        if np.array_equal(t, self.t):
            return
        drift = float(np.linalg.norm(t - self.t)) / max(float(np.linalg.norm(t)), TINY)
        drift = drift if EPS < drift < 1.0 else 1.0
        self.complete = False
        self.boxes = self.boxes._replace(drifts=self.boxes.drifts + drift)
        self.t = t

    def bound(self, which: Int[np.ndarray, " k"], *, cold: bool = False, gap: float = GAP) -> None:
        """The boxes named, at this t, with features to weigh where it is above beta."""
        assert self.boxes is not None
        began, level, boxes = time.perf_counter(), self.scaled(self.t)[1], self.boxes
        try:
            for price, place, found in self.moments(boxes.of(which), cold, gap * level):
                part = which[place]
                boxes.bounds[part], boxes.starts[part], boxes.drifts[part] = found.bounds, found.starts, 0.0
                above = found.bounds > level
                low, high = price.features(self.Y, found.points[above])
                if self.phase < 0 or self.phase % 2 == 0:
                    named = boxes.of(part[above])
                    new = Columns(low, high, named.signs, named.names, np.zeros(len(named.names)))
                    self.columns = self.columns.joined(new)
        except OutOfTime:
            return
        if not cold and len(which):
            self.pace = (time.perf_counter() - began) / len(which)
        self.complete = bool(np.all(boxes.drifts == 0.0))

    def moments(self, boxes: Boxes, cold: bool, gap: float) -> Any:
        """(function, positions, moments) of batches of boxes."""
        p, level = self.scaled(self.t)
        size = max(1, min(BATCH, ENTRIES // (self.Y.shape[0] * boxes.starts.shape[1])))
        for sign in (1.0, -1.0):
            mine = np.flatnonzero(boxes.signs == sign)
            price = MomentPrice(self.Y, sign * p[:, 0]) if mine.size else None
            for k in range(0, len(mine), size):
                place = mine[k : k + size]
                assert price is not None
                found: Moments = price.solve(
                    boxes.low[place], boxes.high[place], gap, None if cold else boxes.starts[place],
                    np.inf if cold else max(WARM, DRIFT * float(boxes.drifts[place].max())) * level,
                    deadline=self.deadline,
                )  # fmt: skip
                yield price, place, found

    def prove(self) -> None:
        """What the bounds at hand prove, if all of them are at this t."""
        if self.complete and self.boxes is not None:
            largest = max(float(self.boxes.bounds.max()), 0.0)
            self.proved(self.price(self.t, largest, self.moved, self.outward))

    def cut(self) -> bool:
        """Cut boxes for the weight of their features, and for bounds above beta; whether there are any."""
        assert self.boxes is not None
        weights, bounds, level = self.weights(), self.boxes.bounds, self.scaled(self.t)[1]
        order = np.argsort(-weights, kind="stable")[:MOST_CUT]
        far = np.argsort(-bounds, kind="stable")[:FAR]
        far = far[bounds[far] > max(level + LEVEL * (bounds.max() - level), (1.0 + GAP) * level)]
        which = np.union1d(order[weights[order] > WORTH * weights.sum()], far)
        if which.size:
            self.split(which)
        return bool(which.size)

    def split(self, which: Int[np.ndarray, " k"], gap: float = GAP) -> None:
        """Halves in place of these boxes, which come last, bounded at this t."""
        boxes, r = self.boxes, self.rank
        assert boxes is not None
        old, rest = boxes.of(which), boxes.of(np.delete(np.arange(len(boxes.names)), which))
        diagonal = r + np.cumsum(np.concatenate([[0], np.arange(r, 1, -1)]))
        means = old.starts[:, :r]
        coordinates = np.argmax(old.starts[:, diagonal] - means**2, axis=1)
        low, high, parent = halves(old.low, old.high, coordinates, means[np.arange(len(which)), coordinates])
        names = self.next_name + np.arange(len(low))
        new = old.of(parent)._replace(low=low, high=high, names=names)
        earlier, was_complete = new.bounds.copy(), self.complete
        whole = rest.joined(new._replace(drifts=np.ones(len(low))))
        # At once: an interrupt finds all of it or nothing.
        self.__dict__.update(
            boxes=whole, complete=False, next_name=self.next_name + len(low),
            columns=self.columns.of(~np.isin(self.columns.owners, old.names)),
        )  # fmt: skip
        self.bound(len(rest.names) + np.arange(len(low)), cold=True, gap=gap)
        if was_complete and self.complete:
            late = whole.bounds[len(rest.names) :]
            np.minimum(late, earlier, out=late)
