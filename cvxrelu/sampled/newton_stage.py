"""The sampled stage by semismooth Newton: when it pays, one output after the other, with the history of ADMM's stage.

It runs in float64, whatever the precision of the problem: on the host, with its products on an accelerator where the
backend has one. Outputs separate in the sampled program, so that each is solved to the gap asked for, with one memory
of the cones for all, unless the loss couples them. With more columns than rows it runs in row space: no block of an
optimum leaves it, and a projection costs n^3 instead of d^3.
"""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np
from jaxtyping import Float

from cvxrelu.backends import Backend
from cvxrelu.numerics.rounding import gamma
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.dual import Ridge, sampled_bound
from cvxrelu.program.loss import Loss
from cvxrelu.program.operators import masked, signed
from cvxrelu.runs.checkpoint import State
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.status import Status
from cvxrelu.sampled.bounds import Check
from cvxrelu.sampled.cone_memory import ConeMemory
from cvxrelu.sampled.incumbent import host_ridge
from cvxrelu.sampled.newton_start import gates_of
from cvxrelu.sampled.on_device.cones import DeviceCones
from cvxrelu.sampled.on_device.newton import DeviceNewton
from cvxrelu.sampled.run import SampledRun
from cvxrelu.sampled.semismooth import SampledNewton

__all__ = ["pays", "run"]

LEAST_FLOPS = 1.2e5  # of an ADMM iteration: below, either method takes some hundredths of a second
LARGEST_DIMENSION = 200  # projections cost its cube each and more
# Rows per column, and at most this `freedom` at the start, from which on Newton wins at a gap of 1e-3. With fewer rows
# cones are wide, which suits ADMM, and many coordinates may move, which makes a Newton step dear. ADMM pays for every
# digit more, Newton hardly.
ROWS, FREEDOM, AT = 10.0, 3.5, 1e-3
MEMORY = 2.0**31  # bytes for the faces of all blocks


def pays(shape: tuple[int, int, int, int], settings: Settings, backend: Backend) -> bool:
    """Whether the sampled program goes to Newton: of middling size, with many rows, ADMM not asked for.

    Whoever sets `rho`, `max_iter` or `linear_solver` speaks of ADMM and gets it; so does who names devices.

    shape : (n, D, P, c).
    """
    n, d, P, _ = shape
    r = min(n, d)
    fitting = 12.0 * math.prod(shape) >= LEAST_FLOPS and r <= LARGEST_DIMENSION and 32.0 * P * r * r <= MEMORY
    fitting &= n * _favour(settings.tol) >= ROWS * d
    return not settings.of_admm and fitting and not backend.on_mesh


def _favour(tol: float) -> float:
    """By what the limits move for Newton."""
    return math.sqrt(AT / min(tol, AT))


def run(stage: SampledRun) -> Status | None:
    """Solve every output and keep points and bounds in `stage.best`. None hands over to ADMM, which goes on from there.

    A proximal point is a check: it makes a record of the history, prints a line and calls back.
    """
    newton = _NewtonStage(stage)
    try:
        return newton.run()
    except KeyboardInterrupt:
        return Status.INTERRUPTED


class _NewtonStage:
    """The blocks, skip, dual variables and norms of all outputs; those not reached yet are zero, which is feasible."""

    def __init__(self, stage: SampledRun) -> None:
        self.stage = stage
        n, d, P, c = stage.problem.shape
        self.blocks, self.norms = np.zeros((d, 2, c, P)), np.zeros((2, c, P))
        self.dual = np.zeros_like(stage.problem.loss.y)
        self.steps, self.stopped, self.certifying = 0, False, 0.0
        self.space = row_space(stage.problem.X) if n < d else None
        self.ridge, self.lift = _thin(host_ridge(stage.problem))
        self.skip = None if self.ridge is None else np.zeros((self.ridge.columns.shape[1], c))
        splits = len(stage.splits)
        stage.method, stage.rho_values, stage.residuals = "newton", (np.nan,) * splits, np.zeros(2 * splits)

    def run(self) -> Status | None:
        stage, problem, settings = self.stage, self.stage.problem, self.stage.settings
        started = time.perf_counter()
        deadline = stage.started + 0.9 * settings.time_limit
        arrived, saved = True, self._position()
        gates, patterns = problem.patterns.gates, problem.patterns.patterns
        if gates is None:
            gates = gates_of(problem.X, patterns)
        X, unseen, space = problem.X, 0.0, self.space
        if space is not None:
            X, gates, lengths = space.rows, space.basis.T @ gates, np.linalg.norm(space.rows, axis=1)
            # What the move may change of a row, and a basis that is orthonormal up to rounding of a length.
            lost = np.where(space.moved > 0, np.inf, 0.0)
            moved = np.divide(space.moved, lengths, out=lost, where=lengths > 0)
            unseen = float(moved.max()) + gamma(*space.basis.shape)
        losses = problem.loss.by_output()
        together = problem.n_outputs // len(losses)
        engine: type[SampledNewton] | partial[DeviceNewton] = SampledNewton
        memory = ConeMemory(X, patterns, gates, 2 * together)
        if stage.backend.is_accelerator:
            placed = stage.best.exact.X if space is None else stage.backend.put(X)
            engine = partial(DeviceNewton, stage.backend, placed=(placed, stage.best.exact.patterns))
            memory = DeviceCones(stage.backend, X, patterns, gates, 2 * together)
        for k in range(0 if saved is None else saved["output"], len(losses)):
            solver = engine(
                X, patterns, gates, losses[k], beta=problem.beta, tol=0.9 * settings.tol, readout=problem.readout,
                ridge=self.ridge, deadline=deadline, memory=memory, unseen=unseen,
            )  # fmt: skip
            if saved is not None:
                solver.restore(_in_predictions(saved["solver"], losses[k]))
                memory.restore(saved["memory"])
            elif k == 0 and solver.freedom > FREEDOM * _favour(settings.tol):
                return None
            saved, save = None, partial(self._save, k, solver, memory)
            outputs = slice(k * together, (k + 1) * together)
            arrived &= solver.run(partial(self._report, outputs, solver), save)
            self.steps += solver.steps
            if self.stopped or time.perf_counter() > deadline:
                break
        stage.timings["iterate"] += time.perf_counter() - started - self.certifying
        gap = stage.best.sampled_gap
        if gap <= settings.tol:
            return Status.OPTIMAL
        if self.stopped:
            return Status.INTERRUPTED
        if time.perf_counter() > deadline:
            return Status.TIME_LIMIT
        return Status.OPTIMAL_INACCURATE if gap <= 10 * settings.tol else None

    def _position(self) -> State | None:
        """Where Newton was in the middle of an output, if it was; the outputs before it are then as they were."""
        saved = self.stage.saved
        if saved is None or saved["newton"] is None or saved["newton"]["ended"] is not None:
            return None
        position: State = saved["newton"]
        self.stage.saved = None
        self.blocks, self.dual, self.norms = (position[name] for name in ("blocks", "dual", "norms"))
        self.skip = position.get("skip")
        self.steps = position["steps"]
        if len(position["solver"]["blocks"]) == len(self.blocks):
            self.space = None  # of a run that began in the coordinates of X, before row space was taken
        return position

    def _save(self, output: int, solver: SampledNewton, memory: ConeMemory) -> None:
        """What the solver of this output calls between two proximal points."""
        position = {
            "ended": None, "output": output, "blocks": self.blocks, "dual": self.dual, "norms": self.norms,
            "skip": self.skip, "steps": self.steps, "solver": solver.state(), "memory": memory.state(),
        }  # fmt: skip
        self.stage.save(None, lambda: {"admm": None, "newton": position})

    def _report(self, outputs: slice, solver: SampledNewton) -> bool:
        """Offer what these outputs have reached to the incumbent, and make a record; true to stop."""
        stage = self.stage
        started, problem = time.perf_counter(), stage.problem
        d, P = problem.shape[1:3]
        blocks = solver.blocks if self.space is None else self.space.basis @ solver.blocks
        self.blocks[:, :, outputs] = blocks.reshape(d, -1, 2, P).transpose(0, 2, 1, 3)
        self.norms[:, outputs] = solver.norms.reshape(-1, 2, P).transpose(1, 0, 2)
        self.dual[:, outputs] = solver.dual
        skip = None
        if self.skip is not None:
            self.skip[:, outputs] = solver.skip
            skip = self.skip if self.lift is None else self.lift @ self.skip
        side, output, pattern = used = np.nonzero(self.blocks.any(axis=0))
        columns, chosen = self.blocks[:, side, output, pattern], problem.patterns.patterns[:, pattern]
        image = problem.X @ columns
        # As in `certificates`: a row is left by a point that is outside by more than rounding of its own size.
        allowed = 1e-10 * np.linalg.norm(problem.X, axis=1)[:, None] * np.linalg.norm(columns, axis=0)
        outside = signed(chosen, image)
        slack = np.zeros_like(self.norms)
        slack[used] = np.where(outside >= -allowed, 0.0, outside).min(axis=0)
        bound, _ = sampled_bound(
            problem.loss, self.dual, self.norms.max(axis=(0, 2)), problem.beta, host_ridge(problem)
        )
        inside = masked(chosen, image) * np.where(side == 0, 1.0, -1.0)
        prediction = problem.read(inside @ np.eye(problem.shape[3])[output])
        values = np.array([np.inf, 1.0, np.nan, 0.0, float(bound), float(side.size)])
        check = Check(values, self.blocks.copy(), prediction, self.dual.copy(), self.norms.copy(), slack, skip)
        stage.best.offer(check, values)
        stage.best.offer_point(self.blocks.copy(), slack, skip, stage.started + stage.settings.time_limit)
        stage.best.relax(self.dual)
        stage.iteration = self.steps + solver.steps
        rest = len(stage.splits) - 1
        stage.rho_values = (1.0 / solver.sigma, *(0.0,) * rest)  # the proximal term is the only penalty
        stage.residuals = np.array([*solver.residuals, *(0.0,) * (2 * rest)])
        elapsed = time.perf_counter() - started
        self.certifying += elapsed
        stage.timings["certify"] += elapsed
        self.stopped = stage.record(side.size)
        return self.stopped


def _in_predictions(state: State, loss: Loss) -> State:
    """The state of a solver; of an older version's, of one output and the squared loss, t becomes the prediction a."""
    if "a" in state:
        return state
    inverse = np.divide(1.0, loss.weight, out=np.zeros_like(loss.weight), where=loss.weight > 0)

    def prediction(t: np.ndarray) -> np.ndarray:
        a: np.ndarray = loss.y - inverse * t[:, None]
        return a

    position = state["position"]
    if position is not None:
        position = (position[0], prediction(position[1]), *position[2:])
    new = {"a": prediction(state["t"]), "dual": state["dual"][:, None], "position": position, "skip": None}
    return {**state, **new}


def _thin(ridge: Ridge | None) -> tuple[Ridge | None, Float[np.ndarray, "k m"] | None]:
    """A skip of at most as many columns as rows, orthogonal ones, with the same predictions and penalties.

    Its coefficients w stand for lift @ w; without a lift for themselves.
    """
    if ridge is None or ridge.columns.shape[1] <= ridge.columns.shape[0]:
        return ridge, None
    left, singular, right = np.linalg.svd(ridge.columns, full_matrices=False)
    return ridge._replace(columns=left * singular), right.T
