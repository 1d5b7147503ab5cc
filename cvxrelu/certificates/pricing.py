"""Pricing: neurons that a dual variable says are worth adding.

    price(p) = max over |u| <= 1 of |p^T (X u)_+|_2,     p = R^T t   (n, c), 2-norm over outputs

A unit vector whose value exceeds beta violates the dual constraint of the network program, hence belongs into the
network. The maximum has very many local maxima; ascents from many starts find some of them, and the best is an estimate
from below of the price, never a proof.

Ascents (`ascents`) start from directions of many kinds. The best distinct ends are then polished on the kinks where
local maxima lie (`polish`), and mixtures and noisy copies of what is best start the next wave.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.backends.base import Backend
from cvxrelu.certificates.ascents import ascend, best_first, prices, roam, spectrum, start_ascent
from cvxrelu.certificates.coordinates import Ranked, distinct, features, kinks, merged, new_maxima, snapped
from cvxrelu.certificates.polish import polish
from cvxrelu.certificates.search_space import LARGEST_SPECTRUM, Ground, White, dtype_name
from cvxrelu.numerics.rounding import power_of_two

__all__ = ["DEAR_WAVE", "QUIET", "Priced", "Pricing"]

PARENTS, PARENTS_APART = 30, 0.99  # directions that a wave recombines, and their largest cosine
WAVE_FLOPS = 1e10  # of ascents: fewer starts where they are dear
MOST_GROWN = 8  # starts of a wave beside those of the first
PART_FLOPS = 5e9  # of ascents between two looks at the clock
# Ascents that cost more are halved: a third of the steps for all, the others for the better half, from where they are.
# From the same starts that finds larger values, and more violators, in less time.
DEAR_FLOPS, EARLY, HALVED = 1e10, 3, 64
LEAST_PART, MOST_FLOPS = 128, 1e11  # but so many ascents, up to more flops: products of few columns wait for memory
HOPE, DEAR_WAVE = 10.0, 3e10  # times the rise of a wave: see `enough`; flops of one from which that counts
QUIET = 3  # waves without a rise after which there are no more, unless more are asked for
REPEATED = 2  # so many without a rise, which met the known maxima near the largest alone, saw all that ascents can see
POLISHED = 32  # directions
TOGETHER, IN_CACHE = 8, 2**17  # of them at a time on the host, or more while their Gram matrices have no more numbers
ON_DEVICE = 128  # of them at a time elsewhere
POLISHED_APART = 0.95  # their largest cosine
POLISH_ROUNDS, POLISH_STEPS = 3, 100
MOST_NEAR, BEYOND = 256, 6  # rows on whose kinks a direction is polished; so many, or d / 4, more than lie on a maximum
BESIDE = -2.0, 0.0  # logarithms of the relative distances at which copies of directions are polished too
SEEN = 0.99  # cosine above which a direction is not polished again


class Priced(NamedTuple):
    """What one pricing found (host): the largest value, unit directions and their values in falling order."""

    price: float
    directions: Float[np.ndarray, "d k"]
    values: Float[np.ndarray, " k"]
    starts: int
    complete: bool = True  # false where the deadline left starts or waves out
    exhausted: bool = False  # whether the last waves met the same maxima near the largest again, and no others


class Pricing:
    """Ascents from many kinds of starts on one data matrix; remembers the near misses of the last call.

    even : whether p is orthogonal to X up to rounding, so that u and -u have the same value. Of the two computed ones
        the smaller counts: where all rows are on one side of u, the larger is the rounding of zero, times X.
    """

    def __init__(self, backend: Backend, ground: Ground, rng: np.random.Generator, *, even: bool = False) -> None:
        self.backend, self.ground, self.rng, self.even = backend, ground, rng, even
        self.X, self.exact_X, self.whitening, self.white = ground.X, ground.exact_X, ground.whitening, ground.white
        self.sizes = None if ground.white is None else ground.white.sizes
        self.n, self.d = ground.X.shape
        self.misses = np.zeros((self.d, 0))

    def price(
        self,
        p: Float[np.ndarray, "n c"],
        known: Float[np.ndarray, "d m"],
        count: int,
        *,
        coarse: bool = False,
        waves: int = 0,
        steps: tuple[int, int] = (12, 16),
        polished: int = POLISHED,
        copies: int = 0,
        most_quiet: int = QUIET,
        enough: Callable[[float], bool] | None = None,
        rise: float = 0.0,
        least: float = 0.0,
        deadline: float = np.inf,
    ) -> Priced:
        """Ascend from `count` starts of every kind, all for `steps[0]` steps, and the best for `steps[1]` more.

        known : unit directions of the neurons there are. Ascents that return to them are kept: that the values there
            are beta is what says that the rest is below.
        coarse : take the first steps on a sample of the rows, where n is many times d.
        waves : how often to start again from mixtures and noisy copies of the best directions so far, at most.
        polished : of the first ascents and of every wave, how many of the best new directions are polished.
        copies : how many noisy copies of these are polished as well, in every wave; the neurons are in any case.
        enough : of the price so far, a true answer ends the waves; so do `most_quiet` in which it rose by less than the
            fraction `rise`, or fewer that met no new maximum near the largest; where ascents are dear also those of
            which `HOPE` more would not change the answer.
        least : a value known from elsewhere, below which no rise counts.
        deadline : of `time.perf_counter`; after it no ascents begin, but for a first part with starts of every kind.
        """
        unit = power_of_two(p)  # so that no p overflows the working precision
        p = p / unit
        working_p = self.backend.put(p, dtype_name(self.X.dtype), rows=0)
        directions, values, seen = *self._rank(p, known), np.zeros((self.d, 0))
        price, quiet, starts, late, new = 0.0, 0, 0, False, []
        dear = 16.0 * self.n * self.d * sum(steps) * count > DEAR_WAVE
        for wave in range(waves + 1):
            u = self._again(directions, count, wave, steps[0]) if wave else self._starts(p, known, count)
            ends = [np.zeros((self.d, 0))]
            for part in self._parts(u, sum(steps)):
                late = starts > 0 and time.perf_counter() > deadline
                if late:
                    break
                starts += part.shape[1]
                ends.append(self._climb(working_p, part, coarse and wave == 0, steps))
            if self.white is not None and not late:
                z = self._white_starts(p, self.white, directions if wave else known, count)
                starts += z.shape[1]
                z = self._climb(working_p, z, coarse and wave == 0, steps, self.white)
                ends.append(self.white.scale[:, None] * z)
            found = self._rank(p, np.concatenate(ends, axis=1))
            late = late or time.perf_counter() > deadline
            if self.white is not None and polished and not late:
                found = self._snap(p, found, self.white, polished)
            ranked = found if wave else merged(found, (directions, values))
            fresh = self._new(ranked, seen, 0 if late else polished)
            if polished and not late:
                neurons, beside = known[:, : 0 if wave else None], self._beside(ranked[0], polished, copies)
                fresh = np.concatenate([neurons, fresh, beside], axis=1)
            moved = self._polish(p, fresh)
            seen = np.concatenate([seen, fresh, moved[0]], axis=1)
            found = merged(moved, found)
            new.append(new_maxima((directions, values), found, self.sizes))
            directions, values = merged((directions, values), found)
            before, price = price, float(values.max(initial=0.0))
            hopeless = dear and wave > 0 and enough is not None and not enough(unit * (price + HOPE * (price - before)))
            quiet = quiet + 1 if hopeless or price <= max(before, least / unit) * (1.0 + rise) else 0
            exhausted = not late and quiet >= REPEATED and not any(new[-REPEATED:])
            if late or exhausted or quiet == most_quiet or (enough is not None and enough(price * unit)):
                break
        self.misses = directions[:, self.distinct(directions, SEEN, POLISHED)]
        return Priced(price * unit, directions, values * unit, starts, not late, exhausted)

    def _parts(self, u: np.ndarray, steps: int) -> list[np.ndarray]:
        """The columns of u in parts of some `PART_FLOPS`, or `LEAST_PART` columns; each with starts of every kind."""
        flops, width = 4.0 * self.n * self.d * steps * u.shape[1], u.shape[1]
        count = int(max(1, min(width, flops // PART_FLOPS, max(width // LEAST_PART, flops // MOST_FLOPS))))
        return [u[:, k::count] for k in range(count)]

    def _polish(self, p: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The columns of u moved onto the kinks of their maxima, in the working precision, and ranked."""
        if u.shape[1] == 0:
            return u, np.zeros(0)
        near = min(self.n, MOST_NEAR, self.d + min(self.d, max(BEYOND, self.d // 4)))
        run = self.backend.compile(polish, ("near",))
        size = max(TOGETHER, IN_CACHE // near**2) if self.backend.name == "numpy" else ON_DEVICE  # few: in the cache
        working, moved = dtype_name(self.X.dtype), []
        data = self.X, self.ground.lengths, self.backend.put(p, working, rows=0)
        for k in range(0, u.shape[1], size):
            part = u[:, k : k + size]
            padded = np.pad(part, ((0, 0), (0, self.backend.padded(part.shape[1]) - part.shape[1])))
            found, _ = run(
                self.backend, *data, self.backend.put(padded, working, split=1),
                near=near, rounds=POLISH_ROUNDS, steps=POLISH_STEPS,
            )  # fmt: skip
            moved.append(self.backend.get(found)[:, : part.shape[1]].astype(np.float64))
        return self._rank(p, np.concatenate(moved, axis=1))

    def _again(self, directions: np.ndarray, count: int, wave: int, steps: int) -> np.ndarray:
        """Mixtures and noisy copies of the best directions so far: while cheap, twice those of the wave before."""
        dear = WAVE_FLOPS / (16.0 * self.n * self.d * steps * count)
        count *= 2 * int(max(1, min(2**wave, MOST_GROWN, dear)))
        parents = directions[:, self.distinct(directions, PARENTS_APART, PARENTS)]
        return np.concatenate([self._mixtures(parents, count), self._copies(parents, count, 0.5)], axis=1)

    def _climb(
        self, p: Any, u: np.ndarray, coarse: bool, steps: tuple[int, int], white: White | None = None
    ) -> np.ndarray:
        """Where ascents from the columns of u end, the best first; the best thirty-two or more take more steps.

        white : coordinates to climb in where they are not the given ones.
        """
        backend, some_p = self.backend, p
        X, scale = all_X, _ = (self.X, None) if white is None else (white.X, white.device_scale)
        size = backend.padded(u.shape[1])
        u = np.pad(u, ((0, 0), (0, size - u.shape[1])))
        rows = 1000 + 60 * self.d
        if coarse and self.n > 2 * rows:
            sample = backend.put(np.sort(self.rng.choice(self.n, size=rows, replace=False)))
            X, some_p = (backend.xp.take(a, sample, axis=0) for a in (X, p))
        start, climb = backend.compile(start_ascent), backend.compile(ascend)
        at, first, wander = backend.put(u, dtype_name(self.X.dtype), split=1), steps[0], backend.compile(roam)
        if 4.0 * self.n * self.d * first * size > DEAR_FLOPS and size >= HALVED and X is all_X:
            at = wander(backend, X, some_p, at, first // EARLY, scale)
            size = backend.padded(size // 2)
            at, first = best_first(start(backend, X, p, at, scale), size).u, first - first // EARLY
        at = wander(backend, X, some_p, at, first, scale)
        ascent = start(backend, all_X, p, at, scale)
        if X is not all_X:
            ascent = climb(backend, all_X, p, ascent, 2, scale)
        ascent = best_first(ascent, size)
        finish = min(backend.padded(max(32, size // 16)), size)
        best = climb(backend, all_X, p, best_first(ascent, finish), steps[1], scale)
        return np.concatenate([backend.get(best.u), backend.get(ascent.u)[:, finish:]], axis=1).astype(np.float64)

    def _rank(self, p: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit directions in falling order of their values, which are float64; zero directions are dropped."""
        lengths = np.linalg.norm(u, axis=0)
        u = u[:, lengths > 0] / lengths[lengths > 0]
        padded = np.pad(u, ((0, 0), (0, self.backend.padded(u.shape[1]) - u.shape[1])))
        at, evaluate = self.backend.put(padded, split=1), self.backend.compile(_prices)
        data = (self.backend, self.exact_X, self.backend.put(p, rows=0))
        values = self.backend.get(evaluate(*data, at))[: u.shape[1]]
        if self.even and self.sizes is not None:
            values = np.minimum(values, self.backend.get(evaluate(*data, -at))[: u.shape[1]])
        order = np.argsort(-values, kind="stable")
        return u[:, order], values[order]

    def _starts(self, p: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
        """Gaussian and spectral directions; neurons, their negatives, noisy copies, sums, and moves along data rows."""
        rng, d = self.rng, self.d
        kinds = [rng.standard_normal((d, count)), self.whitening @ rng.standard_normal((d, count))]
        kinds.append(self._spectral(p, max(2, count // 8), self.X))
        if known.shape[1]:
            kinds += [known, -known, self._copies(known, count, 0.3), self._copies(known, count, 0.6)]
            kinds += [self._mixtures(known, count), self._nudged(known, count), self.misses]
        return np.concatenate(kinds, axis=1)

    def _white_starts(self, p: np.ndarray, white: White, known: np.ndarray, count: int) -> np.ndarray:
        """As `_starts`, in the coordinates where all columns are alike, with kinks through rows, and in between."""
        rng, Q, scale = self.rng, white.rows, white.scale[:, None]
        gauss = rng.standard_normal((self.d, count))
        kinds = [rng.standard_normal((self.d, count)), gauss * scale ** -rng.uniform(size=count)]
        through = kinks(Q, count, rng)
        kinds += [through, -through, self._spectral(p, max(2, count // 8), white.X)]
        if known.shape[1]:
            z = known / scale
            z = z / np.maximum(np.linalg.norm(z, axis=0), np.finfo(np.float64).tiny)
            parents = z[:, self.distinct(known, PARENTS_APART, max(PARENTS, count))]
            noise = rng.standard_normal((self.d, 2 * count)) / np.sqrt(self.d)
            copies = parents[:, rng.integers(parents.shape[1], size=2 * count)] * rng.choice([-1.0, 1.0], 2 * count)
            kinds += [parents, -parents, self._mixtures(parents, count)]
            kinds += [copies + np.repeat([0.1, 0.5], count) * noise]
        return np.concatenate(kinds, axis=1)

    def _snap(self, p: np.ndarray, found: Ranked, white: White, most: int) -> Ranked:
        """The best distinct directions moved onto the nearest kinks, as often as that brings something."""
        for _ in range(POLISH_ROUNDS):
            best = found[0][:, self.distinct(found[0][:, : 50 * most], POLISHED_APART, most)]
            before = found[1].max(initial=0.0)
            found = merged(found, self._rank(p, snapped(white.rows, white.sizes, p, best, self.rng)))
            if found[1].max(initial=0.0) <= before:
                break
        return found

    def distinct(self, directions: Float[np.ndarray, "d k"], cosine: float, most: int) -> Int[np.ndarray, " j"]:
        """`distinct`, as vectors and as functions of the rows."""
        return distinct(features(directions, self.sizes), cosine, most)

    def _new(self, ranked: Ranked, seen: np.ndarray, most: int) -> np.ndarray:
        """The best distinct directions that are not among those seen."""
        u = ranked[0][:, : 50 * most]
        if seen.shape[1]:
            u = u[:, (features(seen, self.sizes).T @ features(u, self.sizes)).max(axis=0) < SEEN]
        return u[:, self.distinct(u, POLISHED_APART, most)] if most else u[:, :0]

    def _beside(self, directions: np.ndarray, most: int, count: int) -> np.ndarray:
        """Copies of the best distinct directions at all small distances: the next maximum is often in a cell nearby."""
        parents = directions[:, self.distinct(directions[:, : 50 * most], PARENTS_APART, most)]
        distances = 10.0 ** self.rng.uniform(*BESIDE, size=count if parents.shape[1] else 0)
        u = self._copies(parents, len(distances), distances, turned=False)
        return u / np.linalg.norm(u, axis=0)

    def _mixtures(self, u: np.ndarray, count: int) -> np.ndarray:
        """Random combinations of two random columns of u."""
        pairs = u[:, self.rng.integers(u.shape[1], size=(2, count))] * self.rng.standard_normal((2, count))
        return pairs[:, 0] + pairs[:, 1]

    def _copies(self, u: np.ndarray, count: int, noise: Any, *, turned: bool = True) -> np.ndarray:
        """Random columns of u, `turned` or not, plus noise of this relative length that moves all of X u alike."""
        rng = self.rng
        chosen = u[:, rng.integers(max(1, u.shape[1]), size=count)] * (
            rng.choice([-1.0, 1.0], count) if turned else 1.0
        )
        moves = self.whitening @ rng.standard_normal((self.d, count))
        return chosen + noise * moves / np.maximum(np.linalg.norm(moves, axis=0), np.finfo(np.float64).tiny)

    def _nudged(self, known: np.ndarray, count: int) -> np.ndarray:
        """Neurons moved along random rows of X, by about their own length."""
        rng = self.rng
        sample = self.backend.put(rng.integers(self.n, size=count))
        rows = self.backend.get(self.backend.xp.take(self.exact_X, sample, axis=0)).T
        lengths = np.linalg.norm(rows, axis=0)
        rows = rows * rng.choice([-0.5, 0.5], count) / np.where(lengths > 0, lengths, 1.0)
        return known[:, rng.integers(known.shape[1], size=count)] + rows

    def _spectral(self, p: np.ndarray, count: int, X: Any) -> np.ndarray:
        """Random combinations of the leading eigenvectors of +-X^T diag(w p) X, w = 1 and w log-normal."""
        if self.d > LARGEST_SPECTRUM:
            return np.zeros((self.d, 0))
        rng, found = self.rng, []
        for weight in (np.ones(self.n), np.exp(1.5 * rng.standard_normal(self.n))):
            mixed = weight * (p @ rng.standard_normal(p.shape[1]))
            size = np.abs(mixed).max()
            mixed = self.backend.put(mixed / (size if size > 0 else 1.0), dtype_name(self.X.dtype), rows=0)
            vectors = self.backend.get(self.backend.compile(spectrum)(self.backend, X, mixed))
            for end in (vectors, vectors[:, ::-1]):
                found += [end[:, :k] @ rng.standard_normal((min(k, self.d), count)) for k in (3, 10, 30)]
        return np.concatenate(found, axis=1)


def _prices(backend: Backend, X: Any, p: Any, u: Any) -> Any:
    return prices(X, p, u)
