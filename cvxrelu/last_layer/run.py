"""One solve of the last-layer program: what `solve_logistic` does once its input is checked.

Reads top to bottom as the method: move the rows to the device; advance by a chunk of accelerated gradient, by epochs of
a stochastic method, or by a Newton step where that promises to be cheaper; after each read off objective and bound in
float64, keep the best of both, and decide. `last_layer` has the mathematics, `agd` and `newton` the algorithms.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.last_layer.methods import STEPPERS, Position, Setting
from cvxrelu.last_layer.newton import newton_step
from cvxrelu.last_layer.program import Program, measure, reduced_basis, row_lengths
from cvxrelu.last_layer.rows import Rows
from cvxrelu.last_layer.solution import LogisticSolution
from cvxrelu.runs.progress import Progress
from cvxrelu.runs.status import Status, relative_gap
from cvxrelu.support.status_line import say

__all__ = ["Run"]

DIRECT_NEWTON = 2048  # unknowns up to which the Hessian is formed
NEWTON_STEPS = 6  # that a finish is expected to take


class Run(Progress):
    """One solve: the algorithm's state on one side, the best theta and the best bound so far on the other."""

    def __init__(
        self, rows: Rows, backend: Backend, dtype: np.dtype, options: dict[str, Any], callback: Callable | None
    ) -> None:
        super().__init__(options["verbose"], callback)
        self.rows, self.backend, self.dtype, self.options = rows, backend, dtype, options
        self.timings = {"setup": 0.0, "iterate": 0.0, "newton": 0.0, "certify": 0.0}
        self.iteration = self.passes = self.newton_steps = 0
        n, d = rows.shape
        self.theta = self.slope = np.zeros((d, 1))  # where the last check was, and the gradient there
        self.best = self.best_slope = self.theta
        self.objective, self.lower_bound, self.dual = np.inf, 0.0, np.zeros((n, 1))
        self.gaps: list[tuple[int, float]] = []  # (passes, gap at theta) of the checks since the method last changed
        self.newton_from = 0  # iteration from which Newton may be tried (again)
        self.newton_goes_on = False
        self.improved_at = 0

    def run(self) -> LogisticSolution:
        """The method: advance, check, decide."""
        self._set_up()
        status = self._check(self.theta)
        try:
            while status is None:
                newton = self._newton_pays()
                status = self._check(self._newton() if newton else self._advance(), newton)
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        return self._finish(status)

    def _set_up(self) -> None:
        """The rows on the device: `exact` for certificates; `inner`, perhaps in fewer coordinates, for the steps."""
        backend, (n, d) = self.backend, self.rows.shape
        scalars = (np.asarray(self.options["scale"]), np.asarray(self.options["l2"]))
        self.scalars, self.loss = scalars, backend.put(self.rows.loss)
        self.exact: Program | None = None
        inner: Program | None = None
        self.basis = None
        if not self.rows.streamed:
            (A,) = backend.put((self.rows.all(),))
            inner = Program(A, self.loss, *backend.put(scalars))
            self.exact = inner._replace(lengths=row_lengths(A))
            if n < d and n <= DIRECT_NEWTON and self.options["method"] == "agd":
                Q = reduced_basis(backend, A)
                inner, self.basis = inner._replace(A=A @ Q), backend.get(Q)
        self.inner, self.unknowns = inner, d if self.basis is None else n
        self.stepper = STEPPERS[self.options["method"]](
            Setting(backend, self.dtype, self.rows, inner, scalars, self.unknowns, self.options)
        )
        self.passes += self.stepper.passes
        self.timings["setup"] = self.elapsed()

    def _batches(self) -> Iterator[Program]:
        """A full pass in float64, in the original coordinates."""
        if self.exact is not None:
            yield self.exact
            return
        for A, loss in self.rows.batches():
            yield Program(*self.backend.put((A, loss, *self.scalars)))

    def _outward(self, phi: np.ndarray) -> np.ndarray:
        """theta from the coordinates of the steps."""
        return phi if self.basis is None else self.basis @ phi

    def _inward(self, theta: np.ndarray) -> np.ndarray:
        return theta if self.basis is None else self.basis.T @ theta

    def _advance(self) -> np.ndarray:
        """A chunk or some epochs of the method."""
        started = time.perf_counter()
        left = self.options["max_iter"] - self.iteration
        position = Position(self.theta, self.slope, self.gaps[-1][1], left, self.started + self.options["time_limit"])
        phi, iterations, passes = self.stepper.advance(position)
        self.iteration += iterations
        self.passes += passes
        self.timings["iterate"] += time.perf_counter() - started
        return self._outward(phi)

    def _newton_pays(self) -> bool:
        """Whether a handful of Newton steps is cheaper than what the gradient steps still need at their present rate.

        Forming a Hessian with u unknowns has u/4 times the flops of a gradient, but runs as a matrix product: some u/20
        passes. A step by conjugate gradients is taken for 40 passes.
        """
        direct = self.unknowns <= DIRECT_NEWTON
        allowed = self.options["finish"] and self.options["method"] != "adamw" and self.iteration >= self.newton_from
        if self.newton_goes_on:
            return True
        if not allowed or len(self.gaps) < 2 or (self.exact is None and not direct):
            return False
        (earlier, before), (now, gap) = self.gaps[-2:]
        rate = math.log(before / gap) / (now - earlier) if before > gap > 0 else 0.0
        needed = math.log(gap / self.options["tol"]) / rate if rate > 0 else np.inf
        return needed > NEWTON_STEPS * (2 + self.unknowns / 20 if direct else 40)

    def _newton(self) -> np.ndarray:
        """One Newton step from the best theta."""
        started = time.perf_counter()
        inner = self.inner
        phi, passes = newton_step(
            self.backend, self._batches if inner is None else lambda: [inner], self._inward(self.best),
            self._inward(self.best_slope), self.options["l2"], self.unknowns <= DIRECT_NEWTON,
        )  # fmt: skip
        self.passes += passes
        self.iteration += 1
        self.newton_steps += 1
        self.newton_goes_on = True
        self.timings["newton"] += time.perf_counter() - started
        return self._outward(phi)

    # -- checks -------------------------------------------------------------------------------------------------------
    def _check(self, theta: np.ndarray, newton: bool = False) -> Status | None:
        """Objective and bound at theta, kept if they are the best; then the status to end with, or None."""
        started = time.perf_counter()
        found = measure(self.backend, self._batches(), self.loss, theta, self.options["l2"])
        self.passes += 1
        self.timings["certify"] += time.perf_counter() - started
        if not np.isfinite([found.objective, found.lower_bound]).all():
            return Status.NUMERICAL_ERROR
        self.theta, self.slope, previous = theta, found.gradient, self.gap
        lower = found.objective < self.objective
        # At the end objectives differ by rounding alone: the gradient then says which theta is better.
        same = found.objective <= self.objective + 1e-13 * abs(self.objective)
        if lower or (same and np.linalg.norm(found.gradient) < np.linalg.norm(self.best_slope)):
            self.best, self.best_slope, self.objective = theta, found.gradient, found.objective
        if found.lower_bound > self.lower_bound:
            self.lower_bound, self.dual = found.lower_bound, found.dual
        self.gaps.append((self.passes, relative_gap(found.objective, found.lower_bound)))
        if newton and not (lower or self.gap < previous):
            self._give_newton_up()
        if self.gap < 0.98 * previous:
            self.improved_at = self.iteration
        return self._decide(self._record(found.objective))

    def _give_newton_up(self) -> None:
        """Back to the method, from the best theta, until as many iterations again have been made."""
        self.newton_from, self.newton_goes_on = 2 * self.iteration, False
        self.gaps = self.gaps[-1:]
        self.theta, self.slope = self.best, self.best_slope
        self.stepper.restart(self._inward(self.best))

    @property
    def gap(self) -> float:
        return relative_gap(self.objective, self.lower_bound) if math.isfinite(self.objective) else np.inf

    def _decide(self, stop: bool) -> Status | None:
        tol = self.options["tol"]
        if self.gap <= tol:
            return Status.OPTIMAL
        if stop:
            return Status.INTERRUPTED
        if self.elapsed() > self.options["time_limit"]:
            return Status.TIME_LIMIT
        if self.iteration >= self.options["max_iter"]:
            return Status.MAX_ITER
        if self.iteration - self.improved_at <= 50 + self.iteration // 2:
            return None
        if self.gap <= 10 * tol:
            return Status.OPTIMAL_INACCURATE
        # Far from tol the gap can stand still while there is no bound yet, and the objective falls all the same.
        then = next(record for record in self.history if record["iteration"] >= self.improved_at)
        moved = max(then["objective"] - self.objective, self.lower_bound - then["lower_bound"])
        return None if moved > tol * abs(self.objective) else Status.STALLED

    def _record(self, current: float) -> bool:
        """Append to the history, print, call back; true when the callback asks to stop."""
        record = {
            "iteration": self.iteration,
            "passes": self.passes,
            "newton_steps": self.newton_steps,
            "time": self.elapsed(),
            "objective": self.objective,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "current_objective": current,
        }
        heading = "  iter  passes  newton        objective            bound      gap |    time\n"
        row = (
            f"{self.iteration:6d} {self.passes:7d} {self.newton_steps:7d} {self.objective:16.9g} "
            f"{self.lower_bound:16.9g} {self.gap:8.1e} | {record['time']:6.2f}s"
        )
        return self.note(record, row if len(self.history) else heading + row)

    def _finish(self, status: Status) -> LogisticSolution:
        n, d = self.rows.shape
        self.timings["total"] = self.elapsed()
        message = f"{status.advice} (gap {self.gap:.1e}, tol {self.options['tol']:.1e})"
        if self.options["verbose"]:
            say(f"{status.value}: {message}")
        settings = {"n": n, "d": d, **self.options, "passes": self.passes, "newton_steps": self.newton_steps}
        return LogisticSolution(
            self.best[:, 0], self.objective, self.lower_bound, self.dual[:, 0], status, message, self.iteration,
            self.history, dict(self.timings), self.backend.name, self.dtype.name, self.backend.device, settings,
            self.rows,
        )  # fmt: skip
