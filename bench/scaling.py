"""Scaling over devices: one ADMM iteration on 1, 2 and 4 devices, what it sends, and what it would send on eight GPUs.

Run `python -m bench.scaling [--quick]`. Where there are fewer than four accelerators, each count of devices gets a
process of its own with so many forced CPU devices: they share the machine's cores, and show what dividing costs, not
what it gains. A cell is `median (min-max)` over repeats.

The model. With k devices, patterns and blocks divided, an iteration costs each device 12 n d P c / k flops in products
with X and one sum over devices of n c numbers, and every step of CG 4 n d P c / k flops and another sum. A sum by a
ring sends 2 (k - 1) / k of its numbers from every device.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from typing import Any

import numpy as np

from bench.common.problems import planted
from bench.common.report import ROOT, markdown_table, put_between_markers, save_json, spread, timed
from cvxrelu.backends import Backend
from cvxrelu.backends.choose import get_backend, select_devices
from cvxrelu.numerics.row_space import right_singular_basis
from cvxrelu.program.losses import Squared
from cvxrelu.sampled import admm
from cvxrelu.sampled.penalties import initial_penalties

__all__ = ["collectives", "model_rows", "moved", "stepper"]

SIZES = [(500, 20, 64), (1000, 20, 128), (2000, 50, 256)]
COUNTS = (1, 2, 4)
CHUNK = 25
CG_STEPS = 10  # of an iteration, in the model
# Of one H100 with NVLink: float32 products without tensor cores, sums over devices (NVIDIA's data sheet: 67 Tflop/s,
# 900 GB/s in both directions together), from which the model takes half of each.
GPU_FLOPS, GPU_LINK = 0.5 * 67e12, 0.5 * 450e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, nothing written")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)  # what a child process measures
    arguments = parser.parse_args()
    sizes = SIZES[:1] if arguments.quick else SIZES
    if arguments.count:
        print("RESULT" + json.dumps([measure(size, arguments.count) for size in sizes]))
        return
    found = {count: in_process(count, arguments.quick) for count in COUNTS}
    measured = scaling_table(sizes, found)
    for name, (header, rows, note) in (("scaling", measured), ("scaling-model", model_table())):
        table = markdown_table(header, rows)
        print(f"\n{name}\n{table}\n{note}")
        if not arguments.quick:
            save_json(name, {"header": header, "rows": rows, "note": note})
            put_between_markers("docs/devices.md", name, f"{table}\n\n{note}")


MODEL_HEADER = ["devices k", "Tflop per device", "MB sent per device", "flop per byte", "s of products", "s of sums"]
MODEL_NOTE = (
    f"A model, not a measurement. One ADMM iteration with {CG_STEPS} steps of CG, float32, one output. Products at "
    "half of an H100's 67 Tflop/s, links at half of NVLink's 450 GB/s a direction; both from the data sheet."
)


def model_table() -> tuple[list[str], list[list[Any]], str]:
    """Eight GPUs on paper."""
    return MODEL_HEADER, model_rows(10**6, 4096, 256), MODEL_NOTE


def model_rows(n: int, d: int, P: int, counts: tuple[int, ...] = (1, 2, 4, 8), item: int = 4) -> list[list[Any]]:
    """Of one iteration: work and traffic per device."""
    rows = []
    for k in counts:
        flops = (12.0 + 4.0 * CG_STEPS) * n * d * P / k
        sent = 2.0 * (1 + CG_STEPS) * (k - 1) / k * n * item
        per_byte: Any = flops / sent if sent else "-"
        rows.append([k, flops / 1e12, sent / 1e6, per_byte, flops / GPU_FLOPS, sent / GPU_LINK])
    return rows


def in_process(count: int, quick: bool) -> list[dict[str, Any]]:
    """Measurements by a process with so many devices, forced ones if there are not enough accelerators."""
    jax = get_backend("jax")
    env = dict(os.environ)
    if not (jax.is_accelerator and len(jax._jax.devices()) >= max(COUNTS)):  # type: ignore[attr-defined]
        env["JAX_PLATFORMS"] = "cpu"
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    command = [sys.executable, "-m", "bench.scaling", "--count", str(count), *(["--quick"] if quick else [])]
    out = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out[out.index("RESULT") + len("RESULT") :])


def measure(size: tuple[int, int, int], count: int) -> dict[str, Any]:
    """Seconds of an iteration, and the numbers that its collectives move."""
    backend, inputs = stepper(select_devices("jax", count), size)
    with backend.scope():
        run = backend.compile(admm.run_chunk)
        wall, cpu = (
            timed(lambda: backend.block(run(backend, *inputs, CHUNK)), repeats=5, clock=clock)
            for clock in (time.perf_counter, time.process_time)
        )
        sizes = collectives(backend, inputs)
    return {
        "device": backend.device,
        "seconds": [s / CHUNK for s in wall],
        "cpu": [s / CHUNK for s in cpu],
        "collectives": sizes,
    }


def stepper(backend: Backend, size: tuple[int, int, int], dtype: str = "float64") -> tuple[Backend, tuple[Any, ...]]:
    """A planted problem on the backend, with P a multiple of its devices: what `admm.run_chunk` takes."""
    problem = planted(*size)
    n = len(problem.X)
    P = problem.patterns.shape[1] // backend.grid[1] * backend.grid[1]
    basis, eigenvalues = right_singular_basis(problem.X, np)
    loss = Squared(problem.y[:, None], np.ones((n, 1)))
    with backend.scope():
        X, loss = backend.put((problem.X @ basis, loss), dtype, rows=0)
        values, beta = backend.put((eigenvalues, np.asarray(problem.beta)), dtype)
        patterns = backend.put(problem.patterns[:, :P], split=1, rows=0)
        data = backend.compile(admm.prepare)(backend, X, values, patterns, loss, beta)
        start = initial_penalties(None, eigenvalues, 1.0)
        rho = admm.Penalties(*backend.put(tuple(map(np.asarray, start)), dtype))
        landmarks = backend.put(np.arange(min(n, 128)))
        system = admm.make_system(backend, data, rho, landmarks, "gram")
        return backend, (data, system, rho, backend.compile(admm.start)(backend, data))


def collectives(backend: Backend, inputs: tuple[Any, ...]) -> dict[str, list[int]]:
    """What one iteration moves between devices: sizes of the results of its collectives, scalars left out."""
    return moved(backend.compile(_one_step).lower(backend, *inputs).compile().as_text())


def moved(program: str) -> dict[str, list[int]]:
    """Sizes of the results of the collectives of a compiled program, by kind, scalars left out."""
    found: dict[str, list[int]] = {}
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    for results, kind in re.findall(rf" = (\(.*?\)|\S+) ({kinds})(?:-start)?\(", program):
        for dimensions in re.findall(r"\w+\[([\d,]*)\]", results):  # one, or those of a tuple
            size = math.prod(int(length) for length in dimensions.split(",") if length)
            if size > 1:
                found.setdefault(kind, []).append(size)
    return found


def _one_step(backend: Backend, data: Any, system: Any, rho: Any, state: Any) -> Any:
    return admm.step(backend, data, system, rho, state)[0]


def scaling_table(
    sizes: list[tuple[int, int, int]], found: dict[int, list[dict[str, Any]]]
) -> tuple[list[str], list[list[Any]], str]:
    rows = []
    for i, size in enumerate(sizes):
        cells = [found[count][i] for count in COUNTS]
        sent = "; ".join(f"{kind} {sizes}" for kind, sizes in cells[-1]["collectives"].items())
        rows += [
            [str(size), name, *(spread(cell[key]) for cell in cells), sent]
            for name, key in (("wall", "seconds"), ("CPU, all cores", "cpu"))
        ]
    header = ["(n, d, P)", "time", *(f"{count} devices, ms" for count in COUNTS), "numbers moved by 4"]
    note = (
        f"One ADMM iteration, exact u-step, float64, one output. Devices: {found[COUNTS[-1]][0]['device']}; "
        f"{os.cpu_count()} cores."
    )
    if "cpu" in found[COUNTS[-1]][0]["device"]:
        note += (
            " Forced CPU devices share the cores, which a single device uses as well: no gain is to be expected. The "
            "machine had other work: wall times are what was left, CPU times include waiting in loops for one another."
        )
    return header, rows, note


if __name__ == "__main__":
    main()
