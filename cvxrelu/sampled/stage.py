"""The sampled program: semismooth Newton where it pays (`newton_stage`), else ADMM in compiled chunks, certified.

Rotate X so that the u-step is diagonal but for one (n, n) matrix; run ADMM on fixed patterns; after each chunk read a
handful of scalars, keep the best network and the best bounds, and decide whether to certify, to rebalance the
penalties, or to stop.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from cvxrelu.numerics.row_space import right_singular_basis
from cvxrelu.program.readout import largest_degree
from cvxrelu.runs.checkpoint import State
from cvxrelu.runs.solution import Certificate, SampledSolution, Solution
from cvxrelu.runs.status import Status, relative_gap
from cvxrelu.sampled import admm, bounds, newton_stage
from cvxrelu.sampled.data_term import skip_factors
from cvxrelu.sampled.incumbent import Incumbent, host_ridge, public_order
from cvxrelu.sampled.memory import LANDMARKS, Sizes
from cvxrelu.sampled.penalties import balance_factors, choose_method, penalties_of
from cvxrelu.sampled.run import SampledRun
from cvxrelu.support.blocks import each

__all__ = ["SampledStage"]

CHUNK_FLOPS = 5e10  # a chunk is at most 25 iterations and about this much work: a second or less on two cores


class SampledStage(SampledRun):
    """One solve: the device state of ADMM on one side, the best network and bounds so far on the other."""

    def run(self) -> Solution:
        """The method: chunk, check, decide."""
        self._set_up()
        self.load()
        status = self._settled()
        in_admm = self.saved is not None and self.saved["admm"] is not None
        if status is None and not in_admm and self._newton_pays():
            status = newton_stage.run(self)
            if status in (Status.OPTIMAL, Status.OPTIMAL_INACCURATE):
                self.save(status, partial(self._where, status))
        if status is None:
            self._set_up_admm()
        self.saved = None  # may be as large as all the rest
        try:
            if status is None and in_admm and self.iteration >= self.balance_at:
                self._balance()
            while status is None:
                report = self._iterate(self._chunk_size())
                check, values = self._check(report)
                if not np.isfinite(values).all():
                    status = Status.NUMERICAL_ERROR
                    break
                self.best.offer(check, values)
                if self._worth_certifying(values):
                    self._certify(check)
                status = self._decide(stop=self.record(int(values[5])))
                if (
                    status is Status.INTERRUPTED
                ):  # the callback's wish: a tenth of the time so far for a last word on (S)
                    self.best.certify(check, False, time.perf_counter() + 0.1 * self.elapsed())
                self.save(status, partial(self._where, status))
                if status is None and self.iteration >= self.balance_at:
                    self._balance()
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        return self._finish(status)

    def _settled(self) -> Status | None:
        """The status that a saved run has under the limits of now; None to go on with it."""
        saved = self.saved
        if saved is None:
            return None
        if saved["admm"] is not None:
            return self._decide(stop=False)
        if self.best.sampled_gap <= self.settings.tol:
            return Status.OPTIMAL
        ended = saved["newton"]["ended"]
        return Status(ended) if ended is not None and self.settings.tol >= saved["tol"] else None

    def _where(self, ended: Status | None = None) -> State:
        """Where the method stands, for a checkpoint: ADMM's iterate, or that Newton has ended."""
        if self.method == "newton":
            return {"admm": None, "newton": {"ended": None if ended is None else ended.value}}
        iterate = [None if a is None else np.asarray(a) for a in self.backend.get(self.iterate)]
        return {"admm": iterate, "newton": None}

    def _first_iterate(self) -> admm.State:
        """ADMM's state to start from: that of the checkpoint, or zeros."""
        if self.saved is None or self.saved["admm"] is None:
            return self.backend.compile(admm.start)(self.backend, self.data)
        iterate = admm.State(*self.backend.put(tuple(self.saved["admm"])))
        return self.backend.compile(admm.divide)(self.backend, iterate)

    def _newton_pays(self) -> bool:
        problem = self.problem
        fits = self.memory is None or self.memory.fits(self._sizes(), "newton", self.backend.name)
        return fits and newton_stage.pays(problem.shape, self.settings, self.backend)

    def _sizes(self) -> Sizes:
        return Sizes(*self.problem.shape, len(self.problem.loss.y), self.problem.dtype.itemsize)

    def _set_up(self) -> None:
        """Move the data to the device; the best so far is zero."""
        backend, problem = self.backend, self.problem
        masks = problem.patterns.patterns
        if missing := -masks.shape[1] % backend.grid[1]:
            # Empty patterns, to make their number one that the devices divide: they predict nothing, and F^T t is zero
            # on them, so that their blocks and multipliers stay zero whatever the others do.
            masks = np.pad(masks, ((0, 0), (0, missing)))
        exact = bounds.Exact(
            problem.X, None, problem.loss, np.asarray(problem.beta), problem.readout, host_ridge(problem)
        )
        # Streamed, X and patterns stay the memory maps that they are.
        placed = masks if self.streamed else backend.put(masks, split=1, rows=0)
        self.exact = backend.put(exact, np.float64, rows=0)._replace(patterns=placed)
        if self.streamed:
            self.exact = self.exact._replace(X=problem.X)
        self.best = Incumbent(problem, backend, self.exact, self.settings.tol)
        self.timings["setup"] += self.elapsed()

    def _set_up_admm(self) -> None:
        """Rotate X, choose penalties, prepare the u-step."""
        started, factored = time.perf_counter(), self.timings["factor"]
        backend, problem, xp = self.backend, self.problem, self.backend.xp
        masks = problem.patterns.patterns
        self.basis, eigenvalues = right_singular_basis(self.exact.X, xp)
        rank = eigenvalues.shape[0]
        m = problem.loss.y.shape[0]
        room = np.inf if self.memory is None else self.memory.beside(self._sizes(), backend.name)
        wanted = "cg" if self.streamed else self.settings.linear_solver
        self.method = choose_method(wanted, (m, rank), masks.shape[1], problem.dtype, room)
        working = getattr(xp, problem.dtype.name)

        def cast(array: Any) -> Any:
            return None if array is None else xp.astype(array, working, copy=False)

        X = self.exact.X
        rotated = each(rank, lambda b: cast(X[b, :] @ self.basis), X, like=self.exact.patterns)
        # The patterns are shared with `exact`; in float64 the targets and weights are too.
        rows = admm.row_curvature(problem.loss)
        factors = skip_factors(problem.penalised_skip, getattr(problem.loss, "free", None), rows)
        self.data = backend.compile(admm.prepare)(
            backend, rotated, cast(eigenvalues), self.exact.patterns,
            type(problem.loss)(*map(cast, self.exact.loss)), cast(self.exact.beta), self.exact.readout,
            backend.put(factors, problem.dtype, rows=0),
        )  # fmt: skip
        self.iterate = self._first_iterate()
        rng = np.random.default_rng([self.settings.seed, 1])
        count = LANDMARKS if self.memory is None else self.memory.landmarks(self._sizes(), backend.name)
        self.landmarks = backend.put(np.sort(rng.choice(m, size=min(m, count), replace=False)))
        start = penalties_of(problem, self.settings.rho, backend.get(eigenvalues))
        resumed = self.saved is not None and self.saved["admm"] is not None
        self._set_penalties(*(self.rho_values if resumed else start))
        self.timings["setup"] += time.perf_counter() - started - (self.timings["factor"] - factored)

    def _set_penalties(self, *rho: float) -> None:
        """Prepare the u-step for these penalties."""
        started = time.perf_counter()
        self.rho_values = rho
        self.rho = admm.Penalties(*self.backend.put(tuple(map(np.asarray, rho)), self.problem.dtype))
        self.system = admm.make_system(self.backend, self.data, self.rho, self.landmarks, self.method)
        self.backend.block(self.system)
        self.factor_seconds = time.perf_counter() - started
        self.timings["factor"] += self.factor_seconds

    def _chunk_size(self) -> int:
        """Short at first, so that a picture appears early; bounded in flops, so that limits and Ctrl-C are kept."""
        most = 5 if self.iteration < 10 else 25
        return int(max(1, min(most, CHUNK_FLOPS // self.problem.flops, self.settings.max_iter - self.iteration)))

    def _iterate(self, steps: int) -> admm.Report:
        """One compiled chunk of ADMM."""
        started = time.perf_counter()
        chunk = self.backend.compile(admm.run_chunk, donate=("state",))
        self.iterate, report = chunk(self.backend, self.data, self.system, self.rho, self._take_iterate(), steps)
        self.backend.block(report)
        self.iteration += steps
        self.timings["iterate"] += time.perf_counter() - started
        return report

    def _take_iterate(self) -> admm.State:
        """The state, of which this object then keeps nothing: a chunk holds one slack less."""
        iterate: admm.State = self.iterate
        del self.iterate
        return iterate

    def _check(self, report: admm.Report) -> tuple[bounds.Check, np.ndarray]:
        """Objectives, residuals, and the bound with ADMM's own multipliers. One transfer of scalars."""
        started = time.perf_counter()
        check = self.backend.compile(bounds.check)(
            self.backend,
            self.exact,
            self.basis,
            report.W,
            report.prediction_U,
            self.iterate.t,
            self.rho.cone,
            report.skip,
        )
        P = self.problem.shape[2]
        if check.norms.shape[-1] > P:
            check = check._replace(W=check.W[..., :P], norms=check.norms[..., :P], slack=check.slack[..., :P])
        values, residuals = self.backend.get((check.values, report.residuals))
        self.residuals = residuals.astype(np.float64)
        self.timings["certify"] += time.perf_counter() - started
        return check, values

    def _worth_certifying(self, values: np.ndarray) -> bool:
        """At the end, when the gap looks small enough, and at spaced iterations."""
        self.estimate = relative_gap(values[2] + values[3], values[4])
        last = self.iteration >= self.settings.max_iter or self._time_is_up()
        return bool(last or self.iteration >= self.certify_at or self.estimate <= self.certify_below)

    def _certify(self, check: bounds.Check) -> None:
        """Repair and tighten, and predict from the result when the next time will pay."""
        self.best.certify(check, self.iteration >= self.settings.max_iter, self.started + self.settings.time_limit)
        self.timings["certify"] += self.best.certify_seconds or 0.0
        ratio = self.settings.tol / max(self.best.sampled_gap, self.settings.tol)
        self.certify_below = self.estimate * min(0.9, max(0.2, ratio))
        self.certify_at = 2 * self.iteration

    def _time_is_up(self) -> bool:
        """Iterations end at nine tenths of the time limit: the rest is for the last certification."""
        return self.elapsed() > 0.9 * self.settings.time_limit

    def _decide(self, stop: bool) -> Status | None:
        """The status to end with, or None to go on."""
        gap, settings = self.best.sampled_gap, self.settings
        if gap < 0.98 * self.best_gap:
            self.best_gap, self.best_at = gap, self.iteration
        if gap <= settings.tol:
            return Status.OPTIMAL
        if stop:
            return Status.INTERRUPTED
        if self._time_is_up():
            return Status.TIME_LIMIT
        if self.iteration >= settings.max_iter:
            return Status.MAX_ITER
        if self.iteration - self.best_at <= 2000 + self.iteration // 2:
            return None
        if gap <= 10 * settings.tol:
            return Status.OPTIMAL_INACCURATE
        # Far from tol a gap can stand still while there is no bound yet, and the objective falls all the same.
        then = next((record for record in self.history if record["iteration"] >= self.best_at), None)
        moved = np.inf if then is None else then["sampled_objective"] - self.best.sampled_objective
        return None if moved > settings.tol * abs(self.best.sampled_objective) else Status.STALLED

    def _balance(self) -> None:
        """Change penalties whose primal and dual residuals are far apart; ever more rarely, so that ADMM converges.

        A change costs a new system, worth many iterations where that is large: they are spaced accordingly, and none is
        made that would not be done within the time limit.
        """
        (m, _), P = self.problem.loss.y.shape, self.problem.shape[2]
        size = {"gram": m, "primal": self.data.X.shape[1] * P, "cg": 0}[self.method]
        cost = int(0.2 * size**3 / self.problem.flops)
        self.balance_at = self.iteration + max(20, int(0.3 * self.iteration), cost)
        usual = penalties_of(self.problem, None, self.backend.get(self.data.eigenvalues))
        factors = balance_factors(self.rho_values, self.residuals, usual)
        if set(factors) == {1.0} or self.elapsed() + self.factor_seconds > 0.9 * self.settings.time_limit:
            return
        old = self.rho
        copy, cone, *loss = (value * factor for value, factor in zip(self.rho_values, factors, strict=True))
        # The u-step's matrix has condition 1 + 2 P curvature / rho_cone at most: keep it invertible in this precision.
        curvature = admm.row_curvature(self.problem.loss) * (loss[0] if loss else 1.0)
        top = float(curvature.max()) * largest_degree(self.problem.readout)
        floor = 200 * P * top * float(np.finfo(self.problem.dtype).eps)
        self._set_penalties(copy, max(cone, floor), *loss)
        rescale = self.backend.compile(admm.rescale, donate=("state",))
        self.iterate = rescale(self.backend, self.data, old, self.rho, self._take_iterate())

    def _finish(self, status: Status) -> Solution:
        """Put the best network and bounds into a Solution; objectives are evaluated once more on what is returned."""
        problem, settings, best = self.problem, self.settings, self.best
        n, D, P, c = problem.shape
        plain = {
            "n": n, "d": D - problem.intercept, "c": c, "loss": problem.loss_name, "beta": problem.beta,
            "tol": settings.tol, "intercept": problem.intercept, "patterns": P,
            "patterns_requested": problem.n_requested, "max_iter": settings.max_iter, "linear_solver": self.method,
            "rho": settings.rho, "seed": settings.seed, "skip": problem.skip_kind, "refine": False,
        }  # fmt: skip
        network = best.network({"settings": plain, "status": status.value})
        m = problem.loss.y.shape[0]
        shape = (m,) if problem.scalar_output else (m, c)
        skip, bias = best.sampled_coefficients()
        blocks = public_order(best.sampled_blocks)
        sampled = SampledSolution(
            blocks=blocks[..., 0] if problem.scalar_output else blocks,
            patterns=problem.patterns.patterns,
            gates=problem.patterns.gates,
            n_requested=problem.n_requested,
            objective=best.sampled_objective,
            lower_bound=best.sampled_bound,
            gap=best.sampled_gap,
            status=status,
            residuals=self.named_residuals(),
            rho=self.rho_values,
            dual=best.settle_dual().reshape(shape),
            skip=skip,
            bias=bias,
        )
        certificate = Certificate("relaxed", True, best.lower_bound, best.gap, best.dual.reshape(shape))
        self.timings["total"] = self.spent + self.elapsed()
        message = (
            f"{status.advice_on('the sampled program')} (sampled program: gap {best.sampled_gap:.1e}, tol "
            f"{settings.tol:.1e}; network program: gap {best.gap:.1e} by the relaxed bound, rigorous and loose)"
        )
        return Solution(
            network, best.objective, certificate, sampled, status, message, self.iteration, self.history,
            dict(self.timings), self.backend.name, problem.dtype.name, self.backend.device, plain,
        )  # fmt: skip
