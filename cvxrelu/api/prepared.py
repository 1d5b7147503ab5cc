"""`Prepared`: data that were checked, copied and put where the computation is, once, for solves at any beta.

`solve` prepares and runs; `path`, its folds, `certify` and the estimators prepare once and run as often as they like.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.api.run_identity import open_checkpoint
from cvxrelu.backends import Backend
from cvxrelu.backends.choose import get_backend, select_backend, select_devices
from cvxrelu.backends.streaming import StreamingBackend
from cvxrelu.certificates.network import check_kind, network_certificate, network_objective
from cvxrelu.certificates.search_space import SearchSpace
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.program.problem import Problem, build_problem
from cvxrelu.refinement.stage import RefinementStage, in_words
from cvxrelu.runs.checkpoint import Checkpoint
from cvxrelu.runs.proving import branching
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status
from cvxrelu.sampled.choice import method_ahead
from cvxrelu.sampled.memory import LARGE, Grid, Plan, Sizes, as_limit, plan, refuse_what_is_not_free, sizes_of
from cvxrelu.sampled.newton_stage import pays
from cvxrelu.sampled.stage import SampledStage
from cvxrelu.support.blocks import streamed_by
from cvxrelu.support.status_line import say
from cvxrelu.support.threads import blas_threads

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A problem, its place of computation, and what follows from X alone; runs leave it as it is.

    problem : checked, on the host, at some beta. sampled : whether it has patterns, whose program (S) comes first.
    memory : the plan of `prepare`, or None where sizes told nothing. space : X for the searches, on the device once
    one has begun.
    """

    problem: Problem
    backend: Backend
    sampled: bool
    memory: Plan | None
    space: SearchSpace = field(repr=False)

    def solve(
        self, beta: float, settings: Settings, *, warm_start: Any = None, checkpoint: Path | None = None,
        started: float | None = None,
    ) -> Solution:  # fmt: skip
        """The method: the sampled program where it is asked for, then refinement, from its network, the given one or
        nothing, and the certificate.

        beta : > 0. warm_start, checkpoint : as in `solve`. started : of `time.perf_counter`, from which on the time
        limit counts; None for now.
        """
        started = time.perf_counter() if started is None else started
        problem = self.problem if beta == self.problem.beta else self.problem.at(beta)
        start = None if warm_start is None else start_network(warm_start, problem)
        if start is not None and not settings.refine:
            raise ValueError("warm_start needs refine=True: the sampled program starts from zero")
        saves = open_checkpoint(checkpoint, problem, self._options(settings), start, self.backend)
        solution = None
        with self.backend.scope(), streamed_by(self.backend.stream), blas_threads(problem.X.size):
            if self.sampled:
                first = SampledStage(
                    problem, self.backend, settings, started=started, checkpoint=saves, memory=self.memory
                )
                solution = first.run()
                if first.streamed:
                    return replace(solution, problem=problem)
                if not settings.refine or solution.status in (
                    Status.INTERRUPTED, Status.TIME_LIMIT, Status.NUMERICAL_ERROR
                ):  # fmt: skip
                    return self._certified(replace(solution, problem=problem), settings, started, saves)
                start = start or solution.network
            stage = RefinementStage(
                problem, self.backend, settings, space=self.space, started=started, checkpoint=saves
            )
            return stage.run(start, solution)

    def _options(self, settings: Settings) -> dict[str, Any]:
        """What a checkpoint must have been written with, beside the problem."""
        rows, patterns = self.backend.grid
        return {
            "refine": "rough" if settings.rough else settings.refine, "certificate": settings.certificate,
            "rho": settings.rho,
            "linear_solver": settings.linear_solver, "seed": settings.seed,
            "dtype": "auto" if settings.dtype is None else "given", "working_dtype": self.problem.dtype.name,
            "backend": self.backend.name, "devices": patterns if rows == 1 else [rows, patterns],
        }  # fmt: skip

    def _certified(self, solution: Solution, settings: Settings, started: float, saves: Checkpoint | None) -> Solution:
        """The solution of the sampled stage, with a certificate of (N) of the kind asked for.

        Where the time is over, or an interrupt comes, it keeps the one it has: rigorous, relaxed in closed form.
        """
        begun, deadline = time.perf_counter(), started + settings.time_limit
        if solution.status is not Status.TIME_LIMIT and begun <= deadline:
            try:
                _, dual = network_objective(solution.network, solution.problem)
                certificate = network_certificate(
                    settings.certificate, solution.problem, dual, solution.objective, self.backend,
                    seed=settings.seed, deadline=deadline, space=self.space,
                    branching=branching(settings, settings.tol, (solution.objective,), saves),
                )  # fmt: skip
            except KeyboardInterrupt:
                solution.network.metadata["status"] = Status.INTERRUPTED.value
                _, _, gaps = solution.message.partition(" (")
                message = f"{Status.INTERRUPTED.advice} ({gaps}"
                solution = replace(solution, status=Status.INTERRUPTED, message=message)
            else:
                if certificate.kind not in ("relaxed", "branch") or certificate.lower_bound >= solution.lower_bound:
                    solution = _with_certificate(solution, certificate, time.perf_counter() - begun)
        if settings.verbose:
            say(f"{solution.status.value}: {solution.message}")
        return solution


def prepare(
    X: Any,
    y: Any,
    *,
    settings: Settings,
    beta: float = 1.0,
    patterns: Any = 1,
    backend: str = "auto",
    devices: Any = None,
    memory_limit: Any = None,
    checkpoint: Path | None = None,
    **data: Any,
) -> Prepared:
    """Check every argument, plan the memory, and put the problem together, or raise one error before any work.

    beta : that of the problem until `Prepared.solve` is given others. data : loss, pairs, sample_weight, margin,
    intercept, skip, skip_l2, equality and check_patterns, as in `solve`.
    """
    limit = as_limit(memory_limit)
    sampled = not settings.refine or not isinstance(patterns, (int, np.integer)) or isinstance(patterns, bool)
    if not sampled and patterns < 1:
        raise ValueError(f"patterns is {patterns}; expected an integer P >= 1, or an array of patterns or gates")
    time_limit = None if np.isinf(settings.time_limit) else settings.time_limit
    divided = None if devices is None else select_devices(backend, devices, time_limit)
    loss, pairs, skip = data.get("loss", "squared"), data.get("pairs"), data.get("skip", False)
    sizes = sizes_of(X, y, pairs, patterns, data.get("intercept", False), settings.dtype, loss)
    memory, named = None, divided
    if sizes is not None:
        flops = 12.0 * sizes.slack * sizes.d / (2 * sizes.itemsize) if sampled else 0.0
        if pays(sizes[:4], settings, get_backend("numpy")):
            flops = 0.0  # Newton's method runs on the host
        named = divided or select_backend(backend, (X, y), flops)
        check_rows(sizes.n, named)
        named, memory = fitting(sizes, settings, named, sampled, limit, backend == "auto" and divided is None)
        if memory.streamed:
            check_streamed(settings.certificate, skip, pairs, checkpoint, divided)
            named = named if named.name == "numpy" else StreamingBackend(named)
        method = "refinement"
        if sampled:
            method = method_ahead(sizes, settings, named, memory)
        refuse_what_is_not_free(sizes, method, named.name, limit, own_memory(named, 1))
        if settings.verbose and (limit is not None or memory.estimate.bytes >= LARGE):
            say(f"memory: about {memory.estimate}{', rows streamed' if memory.streamed else ''}")
    problem = build_problem(
        X, y, beta=beta, patterns=patterns, dtype=settings.dtype, seed=settings.seed, sampled=sampled,
        streamed=memory is not None and memory.streamed, **data,
    )  # fmt: skip
    check_kind(settings.certificate, problem)
    named = named or select_backend(backend, (X, y), problem.flops if sampled else 0.0)
    return Prepared(problem=problem, backend=named, sampled=sampled, memory=memory, space=SearchSpace(problem.X))


def own_memory(backend: Backend, which: int) -> tuple[Grid, float] | None:
    """(grid of devices, bytes of each) of memory that is not the machine's, in all (0) or free (1)."""
    own = backend.own_memory
    return None if own is None else (backend.grid, own[which])


def check_rows(n: int, named: Backend) -> None:
    """ValueError where the devices do not divide the rows of X: copies of X might not fit."""
    rows = named.grid[0]
    if n % rows:
        raise ValueError(
            f"devices has {rows} rows, which do not divide the {n} rows of X; expected a multiple of {rows} of them: "
            "append rows of zeros with a sample_weight of zero, which change nothing, or leave some out"
        )


def fitting(
    sizes: Sizes, settings: Settings, named: Backend, sampled: bool, limit: float | None, free: bool
) -> tuple[Backend, Plan]:
    """The plan for this backend; NumPy and its plan, where the choice is `free` and only that fits the same memory."""

    def ahead(backend: Backend) -> Plan:
        return plan(
            sizes, settings.linear_solver, backend.name, settings.refine, sampled, limit, own_memory(backend, 0)
        )

    movable = free and named.name != "numpy" and not named.is_accelerator
    try:
        found = ahead(named)
        if not (movable and found.streamed):
            return named, found
    except (MemoryError, ValueError):
        if not movable:
            raise
    numpy = get_backend("numpy")
    return numpy, ahead(numpy)


def check_streamed(kind: str, skip: Any, pairs: Any, folder: Any, devices: Any) -> None:
    """Refuse what needs all rows in memory, before any work."""
    asked = {
        "certificate='relaxed'": kind != "relaxed", "skip=False": skip not in (None, False),
        "pairs=None": pairs is not None, "checkpoint=None": folder is not None, "devices=None": devices is not None,
    }  # fmt: skip
    if needed := [name for name, missing in asked.items() if missing]:
        raise ValueError(
            f"memory_limit, or the machine, has no room for this solve but by streaming its rows, which needs "
            f"{', '.join(needed)}"
        )


def start_network(warm_start: Any, problem: Problem) -> ReLUNetwork:
    """The network to refine from, which must fit the problem."""
    network = ReLUNetwork.from_(warm_start, intercept=problem.intercept)
    d, c = problem.n_features, problem.n_outputs
    if (network.n_features, network.n_outputs) != (d, c):
        raise ValueError(
            f"warm_start takes {network.n_features} features and has {network.n_outputs} outputs; "
            f"expected {d} and {c}, as X and y have"
        )
    return network


def _with_certificate(solution: Solution, certificate: Any, taken: float) -> Solution:
    timings = {**solution.timings, **{name: solution.timings[name] + taken for name in ("certify", "total")}}
    gap = solution.sampled.gap if solution.sampled is not None else np.nan
    advice = solution.message.partition(" (")[0]
    message = f"{advice} (sampled program: gap {gap:.1e}; {in_words(certificate)})"
    return replace(solution, certificate=certificate, timings=timings, message=message)
