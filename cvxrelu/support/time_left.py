"""How long a command may still take: estimates, by what has been done so far, that say "about"."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

__all__ = ["GapClock", "WalkClock", "about", "time_left"]

CHEAP = 3  # points of a path that say nothing of those that follow: their networks have hardly a neuron
GROWTH = 1.7  # of the time from point to point, at most
AHEAD = 4  # points that can be foreseen: beyond them an error in the growth is all there is
RECENT = 5  # checks of a gap by which its fall is judged, beside the later half of all


def about(seconds: float) -> str:
    """A duration as exact as an estimate is.

    >>> about(0.3), about(7.4), about(48), about(200), about(9000)
    ('about 1 s', 'about 7 s', 'about 50 s', 'about 3 min', 'about 2.5 h')
    """
    if seconds < 10:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def time_left(done: float, total: float, spent: float) -> str:
    """ ", about 3 min left", by the time that each part has taken so far; nothing before the first is done.

    >>> time_left(2, 6, 90.0), time_left(0, 6, 1.0), time_left(6, 6, 90.0)
    (', about 3 min left', '', '')
    """
    return f", {about(spent * (total - done) / done)} left" if 0 < done < total else ""


class WalkClock:
    """The time of a walk over `points`, each of so many `parts` (folds), that ends early once it has turned.

    Points get dearer as they go. What is left is said twice: as far as the walk goes at the least, and to its last
    point, where that is near enough to be foreseen.
    """

    def __init__(self, points: int, parts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.points, self.parts, self.clock = points, parts, clock
        self.took: list[float] = []
        self.begun = clock()

    def at(self, point: int, done: int, soonest: int, limit: float = np.inf) -> str:
        """Where the walk is, and what is left.

        point : from 0. done : parts of it that are. soonest : the point that it ends with at the earliest. limit :
        seconds that it may still take.
        """
        now = self.clock()
        while len(self.took) < point:
            self.took.append((now - self.begun) / (point - len(self.took)))
            self.begun += self.took[-1]
        words = f"{point + 1} of at most {self.points}, fold {min(done + 1, self.parts)} of {self.parts}"
        if point < CHEAP:
            return words
        recent = np.log(np.maximum(self.took[-AHEAD:], 1e-9))
        growth = float(np.clip(np.exp(np.polyfit(np.arange(len(recent)), recent, 1)[0]), 1.0, GROWTH))
        spent = now - self.begun
        whole = spent * self.parts / done if done else max(self.took[-1] * growth, spent)

        def until(last: int) -> float:
            later = sum(whole * growth**k for k in range(1, last - point + 1))
            return float(min(whole - spent + later, limit))

        shortest, longest = until(min(max(soonest, point), self.points - 1)), until(self.points - 1)
        if self.points - 1 - point > AHEAD and longest < limit:
            return f"{words}; {about(shortest)} left, more if it does not turn"
        if about(shortest) == about(longest):
            return f"{words}; {about(longest)} left"
        return f"{words}; {about(shortest)} left, {about(longest)} if all are needed"


class GapClock:
    """The time until a gap has fallen to `tol`, by how fast it fell in the last checks."""

    def __init__(self, tol: float) -> None:
        self.tol = tol
        self.seen: list[tuple[float, float]] = []

    def left(self, seconds: float, gap: float) -> str:
        """ "; about 7 s left", or nothing where the gap does not fall; a gap at tol is still to be confirmed."""
        if not (np.isfinite(gap) and gap > 0):
            return ""
        if gap <= self.tol:
            return "; being confirmed"
        # The lowest so far: one pricing sees more than another, so that single gaps go up and down.
        lowest = min([float(np.log(gap)), *(level for _, level in self.seen[-1:])])
        self.seen.append((seconds, lowest))
        left = 0.0
        for count in (RECENT, len(self.seen) // 2 + 1):
            times, levels = np.array(self.seen[-count:]).T
            if len(times) < 3 or np.ptp(times) == 0:
                return ""
            slope = float(np.polyfit(times - times.mean(), levels, 1)[0])
            if slope >= -1e-9:
                return ""
            left = max(left, (lowest - float(np.log(self.tol))) / -slope)
        return f"; {about(left)} left"
