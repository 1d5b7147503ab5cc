"""Rates of one accelerator: an iteration, a u-step and ascents as shares of its own GEMM and copy ceilings.

Ceilings are measured on the card that is judged: products X U and X^T S at the shapes at hand, in full precision, and
the bandwidth of a copy of an array as large as the slack. Useful work is what the method needs: 12 n d P flops an
iteration, 4 n d P a u-step by the inverse (by CG one product with each of F1 and its adjoint, however many steps it
takes), 4 n d S a step of S ascents; useful bytes of an iteration are X three times for its six products in pairs, and
the slack once read and once written.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.common.kernels import one_solve, repeated_products
from bench.common.planted_admm import CHUNK, Bench
from bench.common.problems import Planted, planted
from bench.common.report import timed
from cvxrelu.backends import Backend
from cvxrelu.backends.choose import get_backend
from cvxrelu.certificates import ascents

__all__ = ["interleaved", "of_iteration"]

DIRECT = 12_000  # rows up to which the (n, n) inverse is timed; CG above, as in a solve
STARTS = 512
REPEATS = 5


def interleaved(names: list[str], size: tuple[int, int, int], dtype: str) -> Iterator[dict[str, Any]]:
    """Milliseconds of an ADMM iteration with an exact u-step by each backend, in turn."""
    problem = planted(*size)
    benches = {name: Bench(get_backend(name), size, dtype, stand_in=True, problem=problem) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in benches}
    for repeat in range(REPEATS):
        for name, bench in benches.items():
            seconds[name] += [s / CHUNK for s in bench.in_scope(bench.chunk, repeats=1, warm=int(repeat == 0))]
    slowest = statistics.median(seconds["numpy"])
    for name, values in seconds.items():
        yield {
            "(n, d, P)": str(size), "precision": dtype, "backend": name, "device": get_backend(name).device,
            "ms per iteration": 1e3 * statistics.median(values), "least": 1e3 * min(values),
            "most": 1e3 * max(values), "NumPy / this": slowest / statistics.median(values),
        }  # fmt: skip


def of_iteration(backend: Backend, problem: Planted, size: tuple[int, int, int], dtype: str) -> dict[str, Any]:
    """The rates and shares of one backend and precision."""
    n, d, _ = size
    method = "gram" if n <= DIRECT else "cg"
    bench = Bench(backend, size, dtype, method=method, stand_in=method == "gram", problem=problem)
    P, item = bench.data.patterns.shape[1], np.dtype(dtype).itemsize
    rng = np.random.default_rng(0)
    with backend.scope():
        wide, dual, u = backend.put(
            (rng.standard_normal((d, 2 * P)), rng.standard_normal((n, 1)), rng.standard_normal((d, STARTS))), dtype
        )
        X = bench.data.X
        products, copied, solve = map(backend.compile, (repeated_products, _copied, one_solve))
        gemm = _median(lambda: backend.block(products(backend, X, wide[: X.shape[1], :], CHUNK))) / CHUNK
        copy = _median(lambda: backend.block(copied(backend, bench.state.t)))
        chunk = _median(bench.chunk) / CHUNK
        ustep = _median(lambda: backend.block(solve(backend, bench.system, bench.data, bench.rho, bench.state)))
        start, climb = backend.compile(ascents.start_ascent), backend.compile(ascents.ascend)
        ascent = start(backend, X, dual, u[: X.shape[1], :])
        ascend = _median(lambda: backend.block(climb(backend, X, dual, ascent, CHUNK))) / CHUNK
    rate, bandwidth = 8.0 * n * d * P / gemm, 2.0 * bench.state.t.size * item / copy
    return {
        "(n, d, P)": str(size), "backend": backend.name, "device": backend.device, "precision": dtype,
        "u-step": method, "GEMM Tflop/s": rate / 1e12, "copy GB/s": bandwidth / 1e9,
        "ms per iteration": 1e3 * chunk, "of GEMM": 12.0 * n * d * P / chunk / rate,
        "of copy": item * (3.0 * n * d + 4.0 * n * P) / chunk / bandwidth,
        "u-step ms": 1e3 * ustep, "u-step of GEMM": 4.0 * n * d * P / ustep / rate,
        "ascents ms per step": 1e3 * ascend, "ascents of GEMM": 4.0 * n * d * STARTS / ascend / rate,
    }  # fmt: skip


def _median(fn: Any) -> float:
    return statistics.median(timed(fn, REPEATS))


def _copied(backend: Backend, array: Any) -> Any:
    """A copy that nothing can leave out: reads and writes every entry once."""
    return array + 1.0
