"""The price in few dimensions: branch and bound over directions, for any number of outputs.

Directions are covered by simplicial cones (`cones`), and those with the largest bounds are cut in two. The error of a
bound falls with the square of the size of its cone, as the price itself falls off around a maximum, so that few cones
survive at any size: in two to five dimensions the bound closes. For one output each sign has cones of its own.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxrelu.certificates.cones import Norm, OneSide, Price, covering, cut, orthants
from cvxrelu.numerics.rounding import EPS

__all__ = ["Cover", "Subdivision", "prices_of", "split_worst", "subdivided_price"]

CLOSED = 1e-6  # relative distance to an attained value at which a cone is left alone
BATCH = 1000  # cones at a time
ENTRIES = 4_000_000  # of a temporary array, at most
ROUND = 40  # share of the cones known so far that is split at once, and the least number of them
PARTS = ("vertices", "bounds", "points", "carried", "worth")  # of a cover, one entry for each cone
NUMBERS = ("depth", "attained", "evaluated", "settled", "complete")


class Subdivision(NamedTuple):
    """bound >= max over |u| <= 1 of |P^T (X u)_+|_2 >= attained (up to rounding), after evaluating so many cones."""

    bound: float
    attained: float
    cones: int


def prices_of(X: Float[np.ndarray, "n r"], P: Float[np.ndarray, "n c"]) -> list[Price]:
    """The functions whose largest maximum is the price of P: both signs of one output, or the norm of several."""
    if P.shape[1] == 1:
        return [OneSide(X, P[:, 0]), OneSide(X, -P[:, 0])]
    return [Norm(X, P)]


class Cover:
    """Cones that cover all directions, with bounds on one function, which may be changed for another.

    carried : (cones, r), a point of each cone that goes along when it is cut, and worth : (cones,), what that is worth.
    complete : whether all bounds are on the
    function at hand; not so after a `refresh` of some, or one that the deadline cut short.
    """

    def __init__(self, price: Price, deadline: float = np.inf) -> None:
        r = price.rows.shape[1]
        self.vertices, self.depth = orthants(r), 0
        self.bounds, self.points = np.full(len(self.vertices), np.inf), np.zeros((len(self.vertices), r))
        self.carried, self.worth = np.zeros_like(self.points), np.zeros(len(self.vertices))
        self.attained, self.evaluated, self.settled = 0.0, 0, 0.0
        self.refresh(price, deadline=deadline)

    def state(self) -> dict[str, Any]:
        """All of it but the function."""
        return {name: getattr(self, name) for name in (*PARTS, *NUMBERS)}

    @classmethod
    def restored(cls, price: Price, state: dict[str, Any]) -> Cover:
        """The cover with this state, whose bounds are on this function."""
        cover = cls.__new__(cls)
        cover.price = price
        for name, value in state.items():
            setattr(cover, name, value)
        return cover

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def bound(self) -> float:
        """Over all directions of the unit ball, with what rounding may add."""
        r = self.price.rows.shape[1]
        largest = max(self.settled, float(self.bounds.max(initial=0.0))) if self.complete else np.inf
        rounding = 4.0 * r**0.5 + covering(self.depth, r) / EPS
        return largest * (1.0 + covering(self.depth, r)) + rounding * self.price.allowance

    def refresh(self, price: Price, which: Any = None, deadline: float = np.inf) -> None:
        """Bounds on this function, of the cones named or of all."""
        self.price, self.complete, everything = price, False, which is None
        if which is None:
            which = np.arange(len(self))
            self.attained = 0.0
        for k in range(0, len(which), self._step):
            if time.perf_counter() > deadline:
                return
            part = which[k : k + self._step]
            self.bounds[part], self.points[part] = self._evaluated(self.vertices[part])
        self.complete = everything

    def split(self, which: Int[np.ndarray, " k"]) -> None:
        """Cut these cones in two: the halves come last. In one dimension they are rays, and stay."""
        if self.vertices.shape[1] == 1:
            return
        halves = []
        for k in range(0, len(which), self._step):
            part = which[k : k + self._step]
            vertices, carried = cut(self.price, self.vertices[part], self.points[part], self.carried[part])
            bounds, points = self._evaluated(vertices)
            worth = np.where(np.any(carried > 0, axis=1), np.tile(self.worth[part], 2), 0.0)
            halves.append((vertices, np.minimum(bounds, np.tile(self.bounds[part], 2)), points, carried, worth))
        kept = np.delete(np.arange(len(self)), which)
        new = {
            name: np.concatenate([getattr(self, name)[kept], *parts])
            for name, parts in zip(PARTS, zip(*halves, strict=True), strict=True)
        }
        self.__dict__.update(new, depth=self.depth + 1)  # at once: an interrupt finds all of it or nothing

    def leave(self, closed: Bool[np.ndarray, " cones"]) -> None:
        """Set these cones aside for good, with the bounds they have."""
        self.settled = max(self.settled, float(self.bounds[closed].max(initial=0.0)))
        self.__dict__.update({name: getattr(self, name)[~closed] for name in PARTS})

    @property
    def _step(self) -> int:
        return max(1, min(BATCH, ENTRIES // self.price.rows.size))

    def _evaluated(self, vertices: Float[np.ndarray, "B r r"]) -> tuple[np.ndarray, np.ndarray]:
        bounds, points, attained = self.price.bounds(vertices)
        self.attained, self.evaluated = max(self.attained, attained), self.evaluated + len(vertices)
        return bounds, points


def split_worst(covers: list[Cover], count: int, above: float = 0.0) -> None:
    """Cut the cones with the largest bounds in all covers, so many, but none whose bound is not above this."""
    bounds = np.concatenate([cover.bounds for cover in covers])
    count = min(count, int(np.sum(bounds > above)))
    if count == 0:
        return
    worst, start = np.argpartition(-bounds, count - 1)[:count], 0
    for cover in covers:
        end = start + len(cover)
        mine = worst[(worst >= start) & (worst < end)] - start
        start = end
        if mine.size:
            cover.split(mine)


def subdivided_price(
    X: Float[np.ndarray, "n r"],
    P: Float[np.ndarray, "n c"],
    *,
    cones: int,
    target: float = 0.0,
    deadline: float = np.inf,
) -> Subdivision:
    """Bounds on the price of P; stops when they agree to 1e-6, below `target`, after so many `cones`, at the deadline.

    X, P : float64, with entries near one.
    """
    covers = [Cover(price) for price in prices_of(X, P)]
    while True:
        attained, evaluated = max(c.attained for c in covers), sum(c.evaluated for c in covers)
        noise = 4.0 * X.shape[1] ** 0.5 * covers[0].price.allowance
        level = max((1.0 + CLOSED) * attained, target, noise)
        for cover in covers:
            cover.leave(cover.bounds <= level)
        remaining = sum(len(c) for c in covers)
        if remaining == 0 or evaluated >= cones or time.perf_counter() > deadline:
            break
        split_worst(covers, max(ROUND, evaluated // ROUND))
        if sum(len(c) for c in covers) == remaining:
            break  # in one dimension none can be cut
    return Subdivision(max(c.bound for c in covers), attained, evaluated)
