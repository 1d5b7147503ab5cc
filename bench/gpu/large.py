"""Refinement of large planted problems on one core, and what it spends: `python -m bench.gpu.large [--quick]`.

X lies in a float32 file that is mapped into memory, on NumPy. Measured are the gap by the search's own pricing when it
ends, peak resident memory, the share of CPU time in products with X, which a subclass of its array counts, and then
the share of the objective that the rigorous relaxed bound proves. By counts of flops and bytes, a table for one card
and for eight, which `--paper` writes alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import unittest.mock
from pathlib import Path
from typing import Any

import numpy as np

import cvxrelu
from bench.common.report import ROOT, markdown_table, put_between_markers, save_json
from bench.peers.common import peak_memory
from bench.scaling import GPU_FLOPS
from cvxrelu.backends.numpy import NumpyBackend

__all__ = ["main", "paper_rows"]

SIZES = [(1_000_000, 50), (50_000, 1024)]
QUICK = [(2000, 10)]
SECONDS, QUICK_SECONDS = 560.0, 20.0
GPU_COPY, GPU_MEMORY = 0.5 * 3.35e12, 80e9  # of one H100: half of the data sheet's bytes a second; bytes
GRIDS = [(1, 1), (1, 8), (4, 2), (8, 1)]  # cards along rows and patterns
LARGE = (1_000_000, 4096, 256)  # rows, columns, neurons or patterns
ROUND = {"descent": 20, "ascents": 16 * 200}  # evaluations of a descent, and steps times starts of a far pricing


class Counted(np.ndarray):
    """An array whose products are timed."""

    seconds = 0.0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [a.view(np.ndarray) if isinstance(a, Counted) else a for a in inputs]
        started = time.process_time()
        found = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            Counted.seconds += time.process_time() - started
        # Rows of X times weights are rows of X still: their products count too.
        return found.view(Counted) if ufunc is np.multiply and isinstance(found, np.ndarray) else found


class CountingBackend(NumpyBackend):
    """NumPy with the products of one shape counted."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def _put_array(self, array: Any) -> Any:
        return np.asarray(array).view(Counted) if np.shape(array) == self.shape else np.asarray(array)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small problem, nothing written")
    parser.add_argument("--paper", action="store_true", help="the table on paper alone")
    parser.add_argument("--one", nargs=3, type=float, help=argparse.SUPPRESS)  # what a child process measures
    options = parser.parse_args(arguments)
    if options.one:
        n, d, seconds = options.one
        print("RESULT" + json.dumps(measure(int(n), int(d), seconds)))
        return
    paper_header, paper, paper_note = paper_table()
    print(f"{markdown_table(paper_header, paper)}\n{paper_note}\n")
    if not options.quick:
        put_between_markers("docs/devices.md", "paper", f"{markdown_table(paper_header, paper)}\n\n{paper_note}")
    if options.paper:
        return
    sizes, seconds = (QUICK, QUICK_SECONDS) if options.quick else (SIZES, SECONDS)
    found = [_in_process(*size, seconds) for size in sizes]
    header, rows = list(found[0]), [list(row.values()) for row in found]
    note = "float32, one thread of a machine with other work; beta 0.1 of the network program's beta_max."
    print(f"{markdown_table(header, rows)}\n{note}")
    if not options.quick:
        save_json("large", {"header": header, "rows": rows, "note": note})
        put_between_markers("docs/devices.md", "large", f"{markdown_table(header, rows)}\n\n{note}")


def _in_process(n: int, d: int, seconds: float) -> dict[str, Any]:
    """A process of its own, for its peak memory."""
    command = [sys.executable, "-m", "bench.gpu.large", "--one", str(n), str(d), str(seconds)]
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out[out.index("RESULT") + len("RESULT") :])


def measure(n: int, d: int, seconds: float) -> dict[str, Any]:
    """One refinement for so many seconds, or to a gap of 1e-2."""
    with tempfile.TemporaryDirectory() as folder:
        X, y = _planted(n, d, Path(folder) / "rows.npy")
        beta = 0.1 * cvxrelu.beta_max(X[:20_000], y[:20_000]) * n / min(n, 20_000)
        backend = CountingBackend((n, d))
        started, began = time.process_time(), time.perf_counter()
        with unittest.mock.patch("cvxrelu.api.prepared.select_backend", lambda *given: backend):
            sol = cvxrelu.solve(X, y, beta=beta, tol=1e-2, time_limit=seconds, backend="numpy", dtype="float32")
        spent, wall, peak = time.process_time() - started, time.perf_counter() - began, peak_memory() or 0
        started = time.process_time()
        proof = cvxrelu.certify(sol.network, X, y, beta=beta, kind="relaxed", time_limit=seconds, backend="numpy")
        proving = time.process_time() - started
    return {
        "(n, d)": str((n, d)), "status": sol.status.value, "rounds": sol.n_rounds, "neurons": sol.network.n_neurons,
        "priced gap": sol.gap, "objective / that of zero": sol.objective / (0.5 * float(y @ y)), "wall s": wall,
        "CPU s": spent, "in products": f"{100 * Counted.seconds / spent:.0f} %", "peak GiB": peak / 2**30,
        "X in its file, GiB": 4 * n * d / 2**30, "share proven": proof.lower_bound / sol.objective,
        "CPU s of the proof": proving,
    }  # fmt: skip


def _planted(n: int, d: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian rows in a file, made block by block; a teacher of five neurons and noise."""
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    W, a, y = rng.standard_normal((d, 5)) / np.sqrt(d), rng.choice([-1.0, 1.0], 5), np.empty(n, dtype=np.float32)
    for start in range(0, n, 50_000):
        rows = slice(start, start + 50_000)
        X[rows] = rng.standard_normal((len(X[rows]), d))
        y[rows] = np.maximum(X[rows] @ W, 0) @ a + 0.05 * rng.standard_normal(len(X[rows]))
    X.flush()
    return np.load(path, mmap_mode="r"), y


def paper_table() -> tuple[list[str], list[list[Any]], str]:
    """One card of 80 GB, and eight in a row or a grid."""
    header = ["cards", "what", "Tflop a card", "s of products", "GB read a card", "s of reading", "MB sent a card",
              "GB held a card", "fits 80 GB"]  # fmt: skip
    note = (
        f"A model, not a measurement, of (n, d, neurons or patterns) = {LARGE}, float32, one output. Products at half "
        "of an H100's 67 Tflop/s, reading at half of 3.35 TB/s, both from the data sheet; X is read twice a pair of "
        f"products. A round of refinement is {ROUND['descent']} evaluations and 16 steps of 200 ascents, an iteration "
        "of ADMM has 10 steps of CG. Held: X in float32, and in float64 as bounds take it, the rows of a card; slack "
        "or hidden units; the memory of L-BFGS. R x C: a grid that divides rows by R and patterns by C."
    )
    return header, paper_rows(), note


def paper_rows(size: tuple[int, int, int] = LARGE) -> list[list[Any]]:
    """Work, traffic and memory of an ADMM iteration with 10 steps of CG, and of a round of refinement."""
    n, d, P = size
    rows: list[list[Any]] = []
    for R, C in GRIDS:
        k, evaluations = R * C, ROUND["descent"]
        over_rows, over_patterns = 2.0 * (R - 1) / R, 2.0 * (C - 1) / C  # what a ring sends of a sum
        of_blocks, of_rows = over_rows * d * P / C, over_patterns * n / R  # of one sum of each kind
        layers = over_rows * (d + 1) * P / C + (C - 1) / C * (d + 1) * P
        of_ascents = over_rows * d * ROUND["ascents"] / C
        for what, flops, passes, sent, held in (
            ("ADMM iteration", (12.0 + 4.0 * 10) * n * d * P / k, 3 + 10,
             4 * ((1 + 10) * of_rows + (3 + 10) * of_blocks), 3 * 8.0 * n * P / k),
            ("round of refinement", (6.0 * evaluations * n * d * P + 4.0 * n * d * ROUND["ascents"]) / k,
             2 * evaluations + 2 * 16, 4 * (evaluations * (of_rows + layers) + of_ascents),
             2 * 4.0 * n * P / k + 42 * 4.0 * (d + 1) * P),
        ):  # fmt: skip
            read, memory = 4.0 * n * d * passes / R, 12.0 * n * d / R + held
            fits, cards = "yes" if memory <= GPU_MEMORY else "no", k if R == 1 else f"{R} x {C}"
            rows.append(
                [cards, what, flops / 1e12, flops / GPU_FLOPS, read / 1e9, read / GPU_COPY, sent / 1e6, memory / 1e9,
                 fits]
            )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
