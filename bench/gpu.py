"""Figures of one accelerator: shares of its own GEMM and copy ceilings, JAX and CuPy beside the CPU, whole solves.

Run `python -m bench.gpu` on a machine with a GPU: the tests marked `gpu` first, then the tables, into
`bench/results/gpu.json` with date, card, driver and versions. `--quick` does the same on tiny problems, and without an
accelerator it is a dry run on the CPU that says so and is never written to `bench/results`; `--out FILE` keeps it.

Ceilings are measured on the card that is judged: the rate of products of the shapes at hand, as `bench.speed` takes
them, and the bandwidth of a copy. Useful work is what the method needs: 12 n d P flops for an iteration, 4 n d P for
the products of a u-step, 4 n d S for a step of S ascents.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import cvxrelu
from bench.problems import planted
from bench.report import ROOT, environment, markdown_table, save_json, spread, timed
from bench.speed import CHUNK, Bench, _one_solve, _products
from cvxrelu.backends import Backend
from cvxrelu.backends.choose import check_backend, get_backend
from cvxrelu.certificates import ascents

__all__ = ["backends", "main", "shares", "solves"]

SIZES = [(20_000, 1024, 128), (100_000, 4096, 64)]
SMALL = (5000, 100, 200)  # for the CPU beside it
QUICK = [(200, 12, 8)]
DIRECT = 12_000  # rows up to which the (n, n) inverse is timed; CG above, as in a solve
STARTS = 512


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny problems; without an accelerator a dry run")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument("--skip-tests", action="store_true", help="the tables only")
    options = parser.parse_args(arguments)
    there = accelerators()
    if not there and not options.quick:
        sys.exit("no accelerator: JAX has none, and CuPy finds none. `--quick` is a dry run on the CPU")
    dry = not there
    names = there or ["jax"]
    found: dict[str, Any] = {"run": "dry run, CPU" if dry else "GPU", "card": card(names), "quick": options.quick}
    if not options.skip_tests:
        found["tests"] = run_tests()
        print(found["tests"], flush=True)
    sizes = QUICK if options.quick else SIZES
    for title, table in (
        ("shares", shares(names, sizes)),
        ("backends", backends(names, QUICK[0] if options.quick else SMALL)),
        ("solves", solves(names, sizes)),
    ):
        header, rows, note = table
        found[title] = {"header": header, "rows": rows, "note": note}
        print(f"\n{title} ({found['run']})\n{markdown_table(header, rows)}\n{note}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({"environment": environment(), **found}, indent=1) + "\n")
    if dry or options.quick:
        print("\nnot written to bench/results: " + ("a dry run on the CPU" if dry else "--quick"))
    else:
        print(f"\n{save_json('gpu', found)}")


def accelerators() -> list[str]:
    """Backends with a device that is no CPU."""
    return [name for name in ("jax", "cupy") if check_backend(name).available and get_backend(name).is_accelerator]


def card(names: list[str]) -> dict[str, Any]:
    """Card, driver, and what the libraries call the device."""
    found: dict[str, Any] = {name: get_backend(name).device for name in names}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        found["nvidia-smi"] = subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        found["nvidia-smi"] = f"not there: {error}"
    return found


def run_tests() -> str:
    """The last line of pytest on the tests marked `gpu`; they skip themselves without a device."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 5):
        sys.exit(f"the tests of the accelerator fail:\n{done.stdout[-4000:]}")
    return done.stdout.strip().splitlines()[-1]


Table = tuple[list[str], list[list[Any]], str]


def shares(names: list[str], sizes: list[tuple[int, int, int]]) -> Table:
    """Useful work over time, as shares of the card's ceilings for the same shapes."""
    rows = []
    for size in sizes:
        for name in names:
            backend = get_backend(name)
            for dtype in ("float32", "float64"):
                method = "gram" if size[0] <= DIRECT else "cg"
                bench = Bench(backend, size, dtype, method=method, stand_in=method == "gram")
                with backend.scope():
                    rows.append([str(size), name, dtype, method, *_figures(backend, bench, size, dtype)])
    header = ["(n, d, P)", "backend", "precision", "u-step", "GEMM Tflop/s", "copy GB/s", "chunk ms per iteration",
              "of GEMM", "u-step ms", "of GEMM", "ascents ms per step", "of GEMM"]  # fmt: skip
    note = (
        f"GEMM: the products X U and X^T S at these shapes, full precision (no TF32). Useful flops: 12 n d P an "
        f"iteration, 4 n d P a u-step by the inverse (by CG one product with each of F1 and its adjoint, however many "
        f"steps it takes), 4 n d S a step of S = {STARTS} ascents, one output."
    )
    return header, rows, note


def _figures(backend: Backend, bench: Bench, size: tuple[int, int, int], dtype: str) -> list[Any]:
    n, d, P = *size[:2], bench.data.patterns.shape[1]
    rng = np.random.default_rng(0)
    wide, dual, u = backend.put(
        (rng.standard_normal((d, 2 * P)), rng.standard_normal((n, 1)), rng.standard_normal((d, STARTS))), dtype
    )
    X = bench.data.X
    products, copied = backend.compile(_products), backend.compile(_copied)
    gemm = [s / CHUNK for s in timed(lambda: backend.block(products(backend, X, wide[: X.shape[1], :], CHUNK)), 5)]
    copy = timed(lambda: backend.block(copied(backend, bench.state.t)), 5)
    chunk = [s / CHUNK for s in timed(bench.chunk, 5)]
    solve = backend.compile(_one_solve)
    ustep = timed(lambda: backend.block(solve(backend, bench.system, bench.data, bench.rho, bench.state)), 5)
    start, climb = backend.compile(ascents.start_ascent), backend.compile(ascents.ascend)
    ascent = start(backend, X, dual, u[: X.shape[1], :])
    ascend = [s / CHUNK for s in timed(lambda: backend.block(climb(backend, X, dual, ascent, CHUNK)), 5)]
    rate = 8.0 * n * d * P / statistics.median(gemm)
    moved = 2.0 * bench.state.t.size * np.dtype(dtype).itemsize / statistics.median(copy)

    def of_gemm(flops: float, seconds: list[float]) -> str:
        return f"{100 * flops / statistics.median(seconds) / rate:.0f} %"

    return [
        rate / 1e12, moved / 1e9, spread(chunk), of_gemm(12.0 * n * d * P, chunk), spread(ustep),
        of_gemm(4.0 * n * d * P, ustep), spread(ascend), of_gemm(4.0 * n * d * STARTS, ascend),
    ]  # fmt: skip


def _copied(backend: Backend, array: Any) -> Any:
    """A copy that nothing can leave out: reads and writes every entry once."""
    return array + 1.0


def backends(names: list[str], size: tuple[int, int, int]) -> Table:
    """Milliseconds of an ADMM iteration on the card by each library, and on this machine's CPU by NumPy."""
    rows = []
    for dtype in ("float64", "float32"):
        benches = {name: Bench(get_backend(name), size, dtype, stand_in=True) for name in [*names, "numpy"]}
        seconds: dict[str, list[float]] = {name: [] for name in benches}
        for repeat in range(5):
            for name, bench in benches.items():
                seconds[name] += [s / CHUNK for s in bench.in_scope(bench.chunk, repeats=1, warm=int(repeat == 0))]
        slowest = statistics.median(seconds["numpy"])
        rows += [
            [str(size), dtype, name, get_backend(name).device, spread(values), slowest / statistics.median(values)]
            for name, values in seconds.items()
        ]
    header = ["(n, d, P)", "precision", "backend", "device", "ms per iteration", "NumPy / this"]
    return header, rows, "One output, exact u-step, interleaved; the CPU is that of the same machine."


def solves(names: list[str], sizes: list[tuple[int, int, int]]) -> Table:
    """(S) to a certified gap of 1e-2 or five minutes: float32 iterations, float64 certificates."""
    rows = []
    for size in sizes:
        problem = planted(*size)
        for name in names:
            sol = cvxrelu.solve(
                problem.X.astype(np.float32), problem.y.astype(np.float32), beta=problem.beta, patterns=problem.gates,
                refine=False, certificate="priced", tol=1e-2, time_limit=300.0, backend=name, dtype="float32",
                linear_solver="auto", max_iter=5000,
            )  # fmt: skip
            sampled = sol.sampled
            assert sampled is not None
            phases = ", ".join(f"{phase} {seconds:.3g}" for phase, seconds in sol.timings.items())
            rows.append(
                [str(size), name, sol.device, sol.status.value, sol.n_iter, sampled.gap, sol.gap, phases,
                 str(sampled.dual.dtype)]
            )  # fmt: skip
    header = ["(n, d, P)", "backend", "device", "status", "iterations", "gap of (S)", "gap of (N)", "seconds",
              "precision of the certificate"]  # fmt: skip
    return (
        header,
        rows,
        "float32 iterations; seconds of a first solve, compilation and the priced certificate of (N) included.",
    )


if __name__ == "__main__":
    main()
