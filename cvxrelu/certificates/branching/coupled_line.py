"""A line of the proof without regions: the dual variable that is best for the relaxation with coupled rows.

One bound holds for all directions (`coupling`), with parameters for each sign of p. They and t are improved together,

    maximise   D(kappa t(f)),      kappa = min(best kappa, beta / largest of the two bounds),

over a prediction f with t(f) minus the derivative of the loss, and the parameters, by L-BFGS. The largest is smoothed
as a p-norm, and the barrier of the bounds is lowered once it is what stops them. Nothing of that has to be exact: what
is proved is evaluated at the t and the parameters that there are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.certificates.branching.line import Line
from cvxrelu.certificates.coupling import Coupling
from cvxrelu.numerics.rounding import power_of_two
from cvxrelu.program.problem import Problem
from cvxrelu.runs.proving import Ledger

__all__ = ["PER_ROUND", "CoupledLine"]

BARRIERS = (0.06, 0.015, 0.003)  # over the rank, of the size of the bound
STALLED = (1e-3, 1e-3, 3e-4)  # a rise of what is proved in a round, relative to it, that ends a level
ROUND, FIRST_ROUND = 300, 50  # iterations of L-BFGS between two proofs; the first ones are shorter, and double
PER_ROUND = 6000  # as many cones, where these are counted
MEMORY, ENTRIES = 60, 12_000_000  # of L-BFGS: pairs of steps and gradients, and numbers in each half of them
STEP = 0.2  # of the size of t: the unit of f beside the logarithms in z; larger ones are slower by far
NORM = 30.0  # of the two bounds, for the larger one
SIGNS = (1.0, -1.0)
STATE = ("level", "rounds", "divisor", "step", "middles", "f", "z")
TINY = 1e-300


class CoupledLine(Line):
    """For one output and a loss that is a sum over rows. `state` and `saved` as in a checkpoint."""

    closing_share = 0.0

    def __init__(
        self, problem: Problem, t: Float[np.ndarray, "m 1"], ledger: Ledger, *, saved: dict[str, Any] | None = None
    ) -> None:
        super().__init__(problem, t, ledger, saved)
        self.level, self.rounds, self.divisor = 0, 0, power_of_two(t)
        self.f, self.z, self.middles = problem.loss.prediction(t), np.zeros((2, 0)), np.zeros((2, 0))
        slope = max(float(np.max(problem.loss.curvature)), TINY)
        self.step = STEP * max(float(np.sqrt(np.mean(t * t))), TINY) / slope
        if saved is not None:
            self.__dict__.update({name: saved[name] for name in STATE})
        self.couplings: list[Coupling] = []

    def state(self) -> dict[str, Any]:
        """All that `saved` needs to go on from here."""
        return super().state() | {name: getattr(self, name) for name in STATE}

    @property
    def regions(self) -> int:
        return 0

    @property
    def over(self) -> bool:
        late = time.perf_counter() > self.deadline or PER_ROUND * self.rounds >= self.most
        return late or self.ledger.over or self.level == len(BARRIERS)

    def go(self, deadline: float, cones: int) -> None:
        self.deadline, self.most = deadline, cones
        if self.rank == 0 or not np.any(self.t) or self.over:
            return
        if not self.couplings:
            self.begin()
        while not self.over:
            before = self.best
            self.improve()
            self.prove()
            if time.perf_counter() < deadline and self.best <= (1.0 + STALLED[self.level]) * before:
                self.level += 1

    def begin(self) -> None:
        """Bounds for both signs, as a saved line had them."""
        self.couplings = [Coupling(self.space.rows) for _ in SIGNS]
        if self.z.shape[1] == 0:
            self.z = np.stack([side.start(p) for side, p, _ in self.sides(self.t)])
            self.middles = np.stack([side.middle for side in self.couplings])
        for side, middle in zip(self.couplings, self.middles, strict=True):
            side.middle = middle

    def size(self) -> float:
        """Of the larger bound, without barrier."""
        return max(side.smoothed(z, p, TINY)[0] for (side, p, _), z in zip(self.sides(self.t), self.z, strict=True))

    def finish(self, deadline: float, cones: int) -> None:
        """Nothing is left to do: every round ends with a proof."""

    def sides(self, t: Float[np.ndarray, "n 1"]) -> Iterator[tuple[Coupling, np.ndarray, float]]:
        """(bounds, function over the divisor, sign) of both signs of t."""
        for side, s in zip(self.couplings, SIGNS, strict=True):
            yield side, s * t[:, 0] / self.divisor, s

    def prove(self) -> None:
        """What the t of f proves with the parameters at hand."""
        t = self.problem.loss.dual(self.f)
        if not np.any(t):
            return
        self.t = t
        largest = max(side.bound(z, p) for (side, p, _), z in zip(self.sides(t), self.z, strict=True))
        size = power_of_two(self.problem.pull_back(t)[0])
        self.proved(self.price(t, max(largest, 0.0) * (self.divisor / size)))

    def improve(self) -> None:
        """A round of L-BFGS in f and the parameters of both signs."""
        from scipy.optimize import minimize

        for side in self.couplings:  # from where a run that goes on from a checkpoint starts too
            side.solved = np.zeros(side.n)
        barrier = BARRIERS[self.level] / self.rank * self.size()
        most = max(float(self.problem.loss.value(0.0 * self.f)), TINY)

        def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, of_f, of_z = self.value(
                self.step * x[:n].reshape(self.f.shape), x[n:].reshape(self.z.shape), barrier
            )
            return -value / most, -np.concatenate([self.step * of_f.ravel(), of_z.ravel()]) / most

        def on_time(_: np.ndarray) -> None:
            if time.perf_counter() > self.deadline:
                raise StopIteration

        n = self.f.size
        x = np.concatenate([self.f.ravel() / self.step, self.z.ravel()])
        iterations = min(ROUND, FIRST_ROUND * 2 ** min(self.rounds, 30))
        options = {"maxiter": iterations, "maxcor": min(MEMORY, max(10, ENTRIES // x.size))}
        with np.errstate(all="ignore"):  # a step too far is taken back
            x = minimize(negative, x, method="L-BFGS-B", jac=True, options=options, callback=on_time).x
        if np.all(np.isfinite(x)):
            self.f, self.z = self.step * x[:n].reshape(self.f.shape), x[n:].reshape(self.z.shape)
        self.rounds += 1

    def value(
        self, f: Float[np.ndarray, "n 1"], z: Float[np.ndarray, "2 k"], barrier: float
    ) -> tuple[float, Float[np.ndarray, "n 1"], Float[np.ndarray, "2 k"]]:
        """D(kappa t(f)), with the barrier and the p-norm, and its gradients in f and z."""
        loss, beta = self.problem.loss, self.problem.beta / (self.divisor * self.unit)
        t = loss.dual(f)
        found = [(*side.smoothed(one, p, barrier), s) for (side, p, s), one in zip(self.sides(t), z, strict=True)]
        bounds = np.maximum([value for value, *_ in found], TINY)
        weights = bounds / bounds.max()
        price = bounds.max() * np.sum(weights**NORM) ** (1.0 / NORM)
        weights = (bounds / price) ** (NORM - 1.0)
        limit = beta / price
        kappa = float(loss.best_dual_scale(t, np.asarray(limit)))
        prediction = loss.prediction(kappa * t)  # the gradient of D there, at a right angle to t below the limit
        of_price = -float(np.sum(t * prediction)) * kappa / price if kappa > 0.5 * limit else 0.0
        of_t = kappa * prediction
        for weight, (_, _, of_p, s) in zip(weights, found, strict=True):
            of_t[:, 0] += of_price * weight * s * of_p / self.divisor
        of_z = np.stack([of_price * weight * of for weight, (_, of, _, _) in zip(weights, found, strict=True)])
        return float(loss.dual_value(kappa * t)[0]), -loss.hessian_product(f, of_t), of_z
