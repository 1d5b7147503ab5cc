"""The stages of `bench.gpu`, each a process: `python -m bench.gpu.stages NAME --rows FILE`, one JSON line a row.

A row is written as soon as it is measured: what a stage has found stands when it is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import cvxrelu
from bench.common.problems import Planted, planted
from bench.common.report import ROOT
from bench.gpu.rates import interleaved, of_iteration
from cvxrelu.backends import Backend
from cvxrelu.backends.choose import check_backend, get_backend
from cvxrelu.program.losses import Squared
from cvxrelu.sampled.on_device.newton import DeviceNewton
from cvxrelu.sampled.semismooth import SampledNewton

__all__ = ["STAGES", "main"]

Rows = Iterator[dict[str, Any]]
SIZES = [(20_000, 1024, 128), (100_000, 4096, 64)]
BESIDE = (5000, 100, 200)  # where the CPU is measured too
ENGINES = [(20_000, 100, 200), (100_000, 100, 200)]
EMBEDDINGS = (20_000, 1024)
SMALL, SMALL_EMBEDDINGS = (200, 12, 8), (200, 16)
WRONG = 1e-9  # relative, of float64


def answers(names: list[str], small: bool, limit: float) -> Rows:
    """Every backend: is it there, are its products right; then, row by row, what differs from NumPy."""
    usable = []
    for name in ("numpy", "jax", "cupy"):
        report = check_backend(name)
        row: dict[str, Any] = {"backend": name, "device": ", ".join(report.devices), "versions": report.versions}
        if not report.available and report.known_answer == "not run":
            yield {**row, "accelerator": False, "said": report.detail}
            continue
        usable += [name] * (report.known_answer == "ok" and name != "numpy")
        accelerator = report.known_answer == "ok" and get_backend(name).is_accelerator
        yield {**row, "accelerator": accelerator, "check": "products", "answer": report.known_answer}
    for name in usable:
        for check, error in _errors(get_backend(name)):
            answer = "ok" if error <= WRONG else f"{check} off by {error:.1e}"
            yield {"backend": name, "check": check, "error": error, "answer": answer}


def _errors(backend: Backend) -> Iterator[tuple[str, float]]:
    """An inverse, and solves of (S) by Newton and by ADMM both ways: how far bounds are beyond those of NumPy."""
    rng, host = np.random.default_rng(0), get_backend("numpy")
    A = rng.standard_normal((300, 300))
    matrix = A @ A.T + 300.0 * np.eye(300)
    with backend.scope():
        found = backend.get(backend.compile(_inverse)(backend, backend.put(matrix)))
    yield "inverse", float(np.abs(found @ matrix - np.eye(300)).max())
    p = planted(300, 10, 20)
    expected, reached = _newton(host, p, 1e-9), _newton(backend, p, 1e-9)
    outside = max(reached.lower_bound - expected.objective, expected.lower_bound - reached.objective, 0.0)
    yield "Newton", (outside if reached.gap <= 1e-8 else np.inf) / expected.objective
    for solver in ("direct", "cg"):
        sol = cvxrelu.solve(
            p.X, p.y, beta=p.beta, patterns=p.patterns, refine=False, tol=1e-2, linear_solver=solver,
            backend=backend.name, certificate="relaxed",
        )  # fmt: skip
        assert sol.sampled is not None
        below = expected.lower_bound - sol.sampled.objective
        outside = max(sol.sampled.lower_bound - expected.objective, below, 0.0)
        yield f"ADMM, {solver}", (outside if sol.success else np.inf) / expected.objective


def _inverse(backend: Backend, matrix: Any) -> Any:
    return backend.spd_inverse(matrix)


def tests(names: list[str], small: bool, limit: float) -> Rows:
    """The tests marked `gpu`, without the plugins and options of this project's own runs."""
    if importlib.util.find_spec("pytest") is None:
        yield {"tests": "not run: no pytest"}
        return
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-c", "/dev/null", "--rootdir", str(ROOT), "--noconftest",
               "-o", f"pythonpath={ROOT} {ROOT / 'tests'}", "-p", "no:cacheprovider",
               "-W", "ignore::pytest.PytestUnknownMarkWarning", str(ROOT / "tests" / "gpu")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last = done.stdout.strip().splitlines()[-1:] or ["nothing said"]
    yield {"tests": last[0], "rc": done.returncode}
    if done.returncode not in (0, 5):
        raise SystemExit(done.stdout[-1800:])


def backends(names: list[str], small: bool, limit: float) -> Rows:
    """An ADMM iteration by each library, and by NumPy on the CPU of the same machine."""
    for dtype in ("float32", "float64"):
        yield from interleaved([*names, "numpy"], SMALL if small else BESIDE, dtype)


def shares(names: list[str], small: bool, limit: float) -> Rows:
    """Useful work over time, as shares of the card's ceilings for the same shapes."""
    for size in [SMALL] if small else SIZES:
        problem = planted(*size)
        for dtype in ("float32", "float64"):
            for name in names:
                yield of_iteration(get_backend(name), problem, size, dtype)


def engines(names: list[str], small: bool, limit: float) -> Rows:
    """Seconds and steps to gaps of the sampled program, by Newton on the card, on the host, and by ADMM."""
    until = time.monotonic() + limit
    for size in [SMALL] if small else ENGINES:
        problem = planted(*size)
        for engine, name in [*(("Newton", name) for name in [*names, "numpy"]), *(("ADMM", name) for name in names)]:
            for call in ("first", "second"):
                left = until - time.monotonic()
                if left > 2.0:
                    yield _run_engine(engine, get_backend(name), problem, size, call, min(0.3 * limit, left))


def _run_engine(
    engine: str, backend: Backend, problem: Planted, size: tuple[int, int, int], call: str, seconds: float
) -> dict[str, Any]:
    """To 1e-3, or until the time is up."""
    started = time.perf_counter()
    row: dict[str, Any] = {"(n, d, P)": str(size), "engine": engine, "backend": backend.name, "call": call}
    if engine == "Newton":
        solver = _newton(backend, problem, 1e-3, started + seconds)
        row |= {"steps": solver.steps, "gap": solver.gap}
    else:
        sol = cvxrelu.solve(
            problem.X, problem.y, beta=problem.beta, patterns=problem.gates, refine=False, certificate="relaxed",
            tol=1e-3, backend=backend.name, linear_solver="auto", max_iter=20_000, time_limit=seconds,
        )  # fmt: skip
        assert sol.sampled is not None
        row |= {"steps": sol.n_iter, "gap": sol.sampled.gap}
    return {**row, "seconds": time.perf_counter() - started}


def _newton(backend: Backend, problem: Planted, tol: float, deadline: float = np.inf) -> SampledNewton:
    """Run to its end: on the host for NumPy, else with products on the device."""
    given: Any = (problem.X, problem.patterns, problem.gates, Squared(problem.y[:, None], np.ones((len(problem.y), 1))))
    options: Any = {"beta": problem.beta, "tol": tol, "deadline": deadline}
    with backend.scope():
        if backend.name == "numpy":
            solver = SampledNewton(*given, **options)
        else:
            solver = DeviceNewton(backend, *given, **options)
        solver.run(lambda: False)
    return solver


def solves(names: list[str], small: bool, limit: float) -> Rows:
    """(S) to a certified gap of 1e-2, or as far as the time goes: float32 iterations, float64 certificates."""
    sizes = [SMALL] if small else SIZES
    for size in sizes:
        problem = planted(*size)
        for name in names:
            sol = cvxrelu.solve(
                problem.X.astype(np.float32), problem.y.astype(np.float32), beta=problem.beta, patterns=problem.gates,
                refine=False, certificate="relaxed", tol=1e-2, backend=name, dtype="float32",
                time_limit=0.7 * limit / (len(sizes) * len(names)),
            )  # fmt: skip
            assert sol.sampled is not None
            phases = {phase: round(seconds, 3) for phase, seconds in sol.timings.items()}
            yield {
                "(n, d, P)": str(size), "backend": name, "device": sol.device, "status": sol.status.value,
                "steps": sol.n_iter, "gap of (S)": sol.sampled.gap, "seconds": phases,
                "certificate": str(sol.sampled.dual.dtype),
            }  # fmt: skip


def refinement(names: list[str], small: bool, limit: float) -> Rows:
    """(N) on unit rows with a decaying spectrum and labels of +-1, as pooled embeddings of texts are."""
    (n, d), limit = (SMALL_EMBEDDINGS, min(limit, 16.0)) if small else (EMBEDDINGS, limit)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) @ (rng.standard_normal((d, d)) * (1.0 + np.arange(d)) ** -0.5)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    margin = np.abs(X @ rng.standard_normal(d)) - np.abs(X @ rng.standard_normal(d)) + 0.1 * rng.standard_normal(n)
    y, X = np.where(margin > np.median(margin), 1.0, -1.0), X.astype(np.float32)
    beta = 0.05 * cvxrelu.beta_max(X, y)
    for name in [*names, "numpy"]:
        sol = cvxrelu.solve(
            X, y, beta=beta, backend=name, tol=1e-2, time_limit=0.8 * limit / (len(names) + 1), certificate="relaxed"
        )
        yield {
            "(n, d)": str((n, d)), "backend": name, "device": sol.device, "status": sol.status.value,
            "rounds": sol.n_rounds, "objective": sol.objective, "neurons": sol.network.n_neurons,
            "priced gap": float(sol.history["gap"][-1]) if len(sol.history) else None,
            "seconds": sol.timings["total"],
        }  # fmt: skip


STAGES: dict[str, Callable[[list[str], bool, float], Rows]] = {
    "answers": answers, "tests": tests, "backends": backends, "shares": shares, "engines": engines,
    "solves": solves, "refinement": refinement,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--backends", nargs="*", default=["jax"])
    options = parser.parse_args()
    with (
        open(options.rows, "a") as rows,
        contextlib.closing(
            STAGES[options.stage](options.backends, options.small, options.limit)  # type: ignore[arg-type]
        ) as found,
    ):
        for row in found:
            rows.write(json.dumps(row, default=float) + "\n")
            rows.flush()


if __name__ == "__main__":
    main()
