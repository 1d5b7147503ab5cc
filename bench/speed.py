"""Speed of the building blocks: u-step direct against CG, JAX against NumPy, and the share of the machine's GEMM rate.

Run `python -m bench.speed [--quick] [--one-core] [--only ustep backends auto gemm curves solve]`, or `python -m
bench.speed peers [...]` for the comparison with other solvers (`bench.peer_comparison`). All figures of a table come
from one run, interleaved; a cell is `median (min-max)` over repeats. Useful flops of an ADMM iteration are 12 n d P c
(6 n d P c multiply-adds); the GEMM rate is that of the two products the iteration consists of, X (n, d) times (d, 2 P)
and X^T times (n, 2 P), by the same library in the same precision. `--one-core` times `gemm` and `curves` in CPU time,
which stands still while other programs have the core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import cvxrelu
from bench.common import curve_plot
from bench.common.kernels import one_solve, repeated_matvec, repeated_products
from bench.common.planted_admm import CHUNK, Bench
from bench.common.problems import planted
from bench.common.report import markdown_table, put_between_markers, save_json, spread, timed
from bench.rates import clarabel_optimum
from cvxrelu.backends.choose import get_backend

__all__ = ["one_core"]

SIZES = [(200, 10, 50), (500, 10, 50), (1000, 20, 100), (2000, 50, 200), (5000, 100, 200)]
LARGER = (10_000, 100, 200)  # for the share of the GEMM rate
CLOCK = time.perf_counter


def main() -> None:
    if sys.argv[1:2] == ["peers"]:  # a process of its own: threads are set before NumPy is imported
        raise SystemExit(subprocess.call([sys.executable, "-m", "bench.peer_comparison", *sys.argv[2:]]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the three smallest sizes, nothing written")
    parser.add_argument("--only", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--one-core", action="store_true", help="gemm and curves on one core, in CPU time")
    arguments = parser.parse_args()
    if arguments.one_core:
        if not set(arguments.only) <= {"gemm", "curves"}:
            parser.error("--one-core is for --only gemm curves")
        one_core()
    sizes = SIZES[:3] if arguments.quick else SIZES
    for name in arguments.only:
        header, rows, note = TABLES[name](sizes)
        name += "-one-core" if arguments.one_core and name == "gemm" else ""
        table = markdown_table(header, rows)
        print(f"\n{name}\n{table}\n{note}", flush=True)
        if not arguments.quick:
            save_json(f"speed-{name}", {"header": header, "rows": rows, "note": note})
            figure = ""
            if name == "curves":
                curve_plot.plot(rows)
                figure = "\n\n![Milliseconds of an iteration along n, d and P](figures/cost-curves.png)"
            put_between_markers("docs/benchmarks.md", f"speed-{name}", f"{table}\n\n{note}{figure}")


def machine_note() -> str:
    """How `gemm` and `curves` were timed."""
    return "One core, CPU time." if CLOCK is time.process_time else f"Wall time, {len(os.sched_getaffinity(0))} cores."


def ustep_table(sizes: list[tuple[int, int, int]]) -> tuple[list[str], list[list[Any]], str]:
    """Milliseconds of one u-step and of its preparation, direct and CG, at the state after 200 iterations."""
    rows = []
    backend = get_backend("jax")
    for size in sizes:
        cells: dict[str, Any] = {}
        for method in ("gram", "cg"):
            bench = Bench(backend, size, method=method)
            with backend.scope():
                bench.chunk(200)
                solve, inputs = backend.compile(one_solve), (bench.system, bench.data, bench.rho, bench.state)
                cells[f"{method} prepare"] = timed(bench.build, repeats=3)
                cells[method] = timed(lambda: backend.block(solve(backend, *inputs)), repeats=9)  # noqa: B023
        ratio = statistics.median(cells["cg"]) / statistics.median(cells["gram"])
        rows.append([str(size), *(spread(cells[name]) for name in ("gram", "cg", "gram prepare", "cg prepare")), ratio])
    header = ["(n, d, P)", "direct ms", "CG ms", "direct, prepare ms", "CG, prepare ms", "CG / direct"]
    return (
        header,
        rows,
        "JAX, float64, one output; CG to the tolerance of iteration 200, started from the previous solution.",
    )


def backends_table(sizes: list[tuple[int, int, int]]) -> tuple[list[str], list[list[Any]], str]:
    """Milliseconds per ADMM iteration on every backend of this machine, both precisions."""
    rows = []
    for size in sizes:
        for dtype in ("float64", "float32"):
            benches = {name: Bench(get_backend(name), size, dtype) for name in ("numpy", "jax")}
            seconds: dict[str, list[float]] = {name: [] for name in benches}
            for repeat in range(7):  # interleaved: a slow moment of the machine hits both
                for name, bench in benches.items():
                    seconds[name] += bench.in_scope(bench.chunk, repeats=1, warm=int(repeat == 0))
            per_iteration = {name: [s / CHUNK for s in values] for name, values in seconds.items()}
            ratio = statistics.median(seconds["numpy"]) / statistics.median(seconds["jax"])
            rows.append([str(size), dtype, bench.flops / 1e6, *(spread(v) for v in per_iteration.values()), ratio])
    note = "One output, exact u-step. Compilation, about 2 s once per shape and precision, is not in these figures."
    return ["(n, d, P)", "precision", "Mflop", "NumPy ms", "JAX ms", "NumPy / JAX"], rows, note


def auto_table(sizes: list[tuple[int, int, int]]) -> tuple[list[str], list[list[Any]], str]:
    """Seconds of whole solves on NumPy and JAX, the first of a shape and later ones: what `backend="auto"` rests on."""
    rows = []
    for size in sizes[:4]:
        problem = planted(*size)

        def run(name: str) -> None:
            cvxrelu.solve(
                problem.X, problem.y, beta=problem.beta, patterns=problem.gates, backend=name, tol=1e-3, max_iter=2000  # noqa: B023
            )  # fmt: skip

        cells = []
        for name in ("numpy", "jax"):
            first, *later = timed(lambda: run(name), repeats=4, warm=0)  # noqa: B023
            cells += [first, spread(later, 1.0)]
        flops = 12e-6 * np.prod([*size[:2], problem.patterns.shape[1]])
        rows.append([str(size), float(flops), *cells])
    header = ["(n, d, P)", "Mflop per iteration", "NumPy first s", "NumPy later s", "JAX first s", "JAX later s"]
    return header, rows, "To a certified gap of 1e-3 of (S) or 2000 iterations, float64, one process."


def gemm_table(sizes: list[tuple[int, int, int]]) -> tuple[list[str], list[list[Any]], str]:
    """The iteration's useful flops as a share of the GEMM rate for its shapes, and where the rest of its time goes."""
    rows = []
    jax, numpy = get_backend("jax"), get_backend("numpy")
    if len(sizes) == len(SIZES):
        sizes = [*(sizes if CLOCK is time.perf_counter else sizes[-1:]), LARGER]
    for size in sizes:
        for dtype in ("float64", "float32"):
            bench = Bench(jax, size, dtype, stand_in=True)
            n, d, P = size[0], size[1], bench.data.patterns.shape[1]
            wide = np.random.default_rng(0).standard_normal((d, 2 * P))
            host_X, host_wide = numpy.put((jax.get(bench.data.X), wide), dtype)
            with jax.scope():
                device_wide, vector = jax.put((wide, wide[:1, :1] + np.zeros((n, 1))), dtype)
                products, matvec = jax.compile(repeated_products), jax.compile(repeated_matvec)

                def gemm() -> None:
                    jax.block(products(jax, bench.data.X, device_wide, CHUNK))  # noqa: B023

                def best_gemm() -> None:
                    products(numpy, host_X, host_wide, CHUNK)  # noqa: B023

                def inner_product() -> None:
                    jax.block(matvec(jax, bench.system.inverse, vector, CHUNK))  # noqa: B023

                tasks = [gemm, best_gemm, inner_product, bench.chunk]
                seconds: list[list[float]] = [[] for _ in tasks]
                for repeat in range(7 if size[0] < LARGER[0] // 2 else 3):
                    for task, found in zip(tasks, seconds, strict=True):
                        found += [s / CHUNK for s in timed(task, 1, int(repeat == 0), CLOCK)]
            product, best, solve, total = (statistics.median(found) for found in seconds)
            flops = 8.0 * n * d * P
            rate, best_rate, useful = flops / product, flops / best, bench.flops / total
            shares = (useful / rate, useful / best_rate, solve / total, max(0.0, 1 - useful / rate - solve / total))
            figures = (rate / 1e9, best_rate / 1e9, useful / 1e9, *(f"{100 * share:.0f} %" for share in shares))
            rows.append([str(size), dtype, *figures])
    header = ["(n, d, P)", "precision", "XLA GEMM Gflop/s", "OpenBLAS GEMM Gflop/s", "useful Gflop/s", "of XLA's rate",
              "of OpenBLAS's rate", "time in the (n, n) product", "elsewhere"]  # fmt: skip
    note = (
        "JAX, one output, exact u-step; GEMM rates are measured on the products X U and X^T S at the iteration's "
        "shapes. Useful flops run in XLA's GEMM: their share of its rate is also the share of time spent there. "
        "`elsewhere` is what remains: masks, signs, relaxation and projections over arrays of the slack's size, bound "
        "by memory, and the residuals of the chunk's last iteration. " + machine_note()
    )
    return header, rows, note


def curves_table(sizes: list[tuple[int, int, int]]) -> tuple[list[str], list[list[Any]], str]:
    """Milliseconds of an ADMM iteration along n, d and P, one at a time, and the exponents fitted to them."""
    base, steps = (CURVE, CURVE_STEPS) if len(sizes) == len(SIZES) else ((200, 10, 20), (1, 2, 4))
    backend, rows = get_backend("jax"), []
    for axis, name in enumerate("ndP"):
        points = [tuple(s * factor if i == axis else s for i, s in enumerate(base)) for factor in steps]
        for dtype in ("float64", "float32"):
            benches = [Bench(backend, point, dtype, stand_in=True) for point in points]  # type: ignore[arg-type]
            seconds: list[list[float]] = [[] for _ in points]
            for repeat in range(5):
                for bench, found in zip(benches, seconds, strict=True):
                    with backend.scope():
                        found += [s / CHUNK for s in timed(bench.chunk, 1, int(repeat == 0), CLOCK)]
            medians = [statistics.median(found) for found in seconds]
            exponent = float(np.polyfit(np.log(steps), np.log(medians), 1)[0])
            lengths = ", ".join(str(point[axis]) for point in points)
            cells = ", ".join(f"{1e3 * seconds:.3g}" for seconds in medians)
            rows.append([name, lengths, dtype, cells, f"{exponent:.2f}", THEORY[name]])
    header = ["along", "values", "precision", "ms per iteration", "fitted exponent", "theory"]
    note = (
        f"The others stay at (n, d, P) = {base}. Exact u-step, JAX, one output, medians of five chunks; exponents by "
        f"least squares in logarithms. {machine_note()}"
    )
    return header, rows, note


CURVE, CURVE_STEPS = (1000, 25, 50), (1, 2, 4, 8)
THEORY = {
    "n": "1 (12 n d P flops, passes over n P) to 2 (the (n, n) product)",
    "d": "1 (12 n d P flops), less what passes over n P cost",
    "P": "1 (all but the (n, n) product)",
}


def solve_table(sizes: list[tuple[int, int, int]]) -> tuple[list[str], list[list[Any]], str]:
    """Whole solves of (S) to a certified gap of 1e-3, judged by Clarabel's optimum."""
    rows = []
    for size in sizes[:3]:
        problem = planted(*size)
        started = time.perf_counter()
        optimum = clarabel_optimum(problem)
        clarabel = time.perf_counter() - started

        options = {"beta": problem.beta, "patterns": problem.gates, "refine": False, "certificate": "relaxed"}

        def run() -> None:
            solutions.append(cvxrelu.solve(problem.X, problem.y, **options))  # noqa: B023

        solutions: list[cvxrelu.Solution] = []
        seconds = timed(run, repeats=3)
        solution = solutions[-1]
        sampled = solution.sampled
        rows.append(
            [str(size), sampled.gap, (sampled.objective - optimum) / optimum, (optimum - sampled.lower_bound) / optimum,
             solution.objective / optimum, spread(seconds, 1.0), clarabel]
        )  # fmt: skip
    header = ["(n, d, P)", "certified gap of (S)", "objective above optimum", "bound below optimum",
              "network objective / optimum of (S)", "seconds", "Clarabel seconds"]  # fmt: skip
    note = '`backend="auto"`, float64, beta a tenth of max_i |X^T (M_i * y)|, tol 1e-3; seconds without compilation.'
    return header, rows, note


TABLES: dict[str, Callable[[list[tuple[int, int, int]]], tuple[list[str], list[list[Any]], str]]] = {
    "ustep": ustep_table,
    "backends": backends_table,
    "auto": auto_table,
    "gemm": gemm_table,
    "curves": curves_table,
    "solve": solve_table,
}

if __name__ == "__main__":
    main()


def one_core() -> None:
    """Before JAX makes its threads: one core, and the clock that stands still while others have it."""
    global CLOCK
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read when NumPy was imported: begin again
        os.execve(
            sys.executable,
            [sys.executable, "-m", "bench.speed", *sys.argv[1:]],
            {**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
    CLOCK = time.process_time
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
