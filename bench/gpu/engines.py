"""The engines of the sampled program beside each other on a CPU: `python -m bench.gpu.engines [--quick]`.

Iterations and CPU seconds to certified gaps of 1e-2, 1e-3 and 1e-4 on the planted problems of `bench.peers`: ADMM by
JAX with the exact u-step, semismooth Newton with its products by JAX as on a device, and Newton on the host. Every
cell is a run of its own to that gap, after one that compiled; a run ends after `CAP` seconds of CPU, and says then what
gap it had. JAX on a CPU says how many steps an engine takes and what its calls cost; not what a card makes of them.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import cvxrelu
from bench.common.problems import Planted, planted
from bench.common.report import markdown_table, put_between_markers, save_json
from cvxrelu.backends.choose import get_backend
from cvxrelu.program.losses import Squared
from cvxrelu.sampled.on_device.newton import DeviceNewton
from cvxrelu.sampled.semismooth import SampledNewton

__all__ = ["main"]

SIZES = [(200, 10, 50), (1000, 20, 100), (2000, 50, 200)]
FRACTIONS = (0.1, 0.01)
TOLERANCES = (1e-2, 1e-3, 1e-4)
CAP = 60.0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest problem, nothing written")
    options = parser.parse_args(arguments)
    header = ["(n, d, P)", "beta", "engine", *(f"to {tol:g}: steps, CPU s" for tol in TOLERANCES)]
    rows = []
    for size in SIZES[:1] if options.quick else SIZES:
        for fraction in FRACTIONS[:1] if options.quick else FRACTIONS:
            problem = planted(*size, fraction=fraction)
            for engine, run in (("ADMM, JAX", _admm), ("Newton, JAX", _on_device), ("Newton, host", _on_host)):
                rows.append([str(size), f"{fraction:g}", engine, *_cells(run, problem)])
                print(rows[-1], flush=True)
    table = markdown_table(header, rows)
    note = (
        "CPU seconds of a second run, one thread. beta in units of the largest |X^T (M_i y)|. A cell with a gap is of "
        f"a run that was stopped after {CAP:g} s."
    )
    print(f"\n{table}\n{note}")
    if not options.quick:
        save_json("engines", {"header": header, "rows": rows, "note": note})
        put_between_markers("docs/devices.md", "engines", f"{table}\n\n{note}")


def _cells(run: Any, problem: Planted) -> list[str]:
    """Of every tolerance; none after one that was not reached."""
    cells: list[str] = []
    for tol in TOLERANCES:
        if not cells or run is not _admm:  # what ADMM compiles depends on the sizes alone
            run(problem, tol)
        started = time.process_time()
        steps, gap = run(problem, tol)
        seconds = time.process_time() - started
        cells.append(f"{steps}, {seconds:.2g}" + ("" if gap <= tol else f" (gap {gap:.1e})"))
        if gap > tol:
            break
    return cells + [""] * (len(TOLERANCES) - len(cells))


def _admm(problem: Planted, tol: float) -> tuple[int, float]:
    started = time.process_time()
    sol = cvxrelu.solve(
        problem.X, problem.y, beta=problem.beta, patterns=problem.gates, refine=False, certificate="relaxed", tol=tol,
        backend="jax", linear_solver="direct", callback=lambda record: time.process_time() - started > CAP,
    )  # fmt: skip
    assert sol.sampled is not None
    return sol.n_iter, sol.sampled.gap


def _on_host(problem: Planted, tol: float) -> tuple[int, float]:
    solver = SampledNewton(*_given(problem), beta=problem.beta, tol=tol)
    return _run(solver)


def _on_device(problem: Planted, tol: float) -> tuple[int, float]:
    backend = get_backend("jax")
    with backend.scope():
        return _run(DeviceNewton(backend, *_given(problem), beta=problem.beta, tol=tol))


def _given(problem: Planted) -> Any:
    return problem.X, problem.patterns, problem.gates, Squared(problem.y[:, None], np.ones((len(problem.y), 1)))


def _run(solver: SampledNewton) -> tuple[int, float]:
    started = time.process_time()
    solver.run(lambda: time.process_time() - started > CAP)
    return solver.steps, solver.gap


if __name__ == "__main__":
    main()
