"""The sampled program by every installed peer, on the same patterns, beta and objective: time to a true gap, memory.

    minimise  1/2 |sum_i M_i * X(v_i - z_i) - y|^2 + beta sum_i (|v_i| + |z_i|)   s.t.  E_i * X v_i, E_i * X z_i >= 0

`python -m bench.peer_comparison [--install] [--quick] [--only PEER ...] [--sizes n,d,P ...] [--betas ...] [--seeds ...]
[--cap SECONDS] [--reference-seconds SECONDS] [--cache FOLDER] [--cpu] [--redo] [--table] [--whole]`

`--cpu` takes the seconds of the processes, which other work on the machine does not lengthen (one thread: not for
JAX). `--whole` writes the table of whole calls from the cells of bench/results/peers-whole, which are made by
`--cpu --only ours ours_patterns adelie --cache bench/results/peers-whole`.

Problems: `bench.common.problems`; beta a fraction of max_i |X^T (M_i * y)|. Every size, beta, seed and peer is a cell
with a JSON file of its own under bench/results/peers/, written when it is done: an interrupted run goes on where it
stopped. A peer runs as a program of its own (`bench.peers`), one thread, in the environment that has it; `--install`
makes the environments that are missing under .bench-envs/. The driver watches: a run past the cap, or a process past
three quarters of the machine's memory, is stopped, and what was recorded before counts.

Off the clock every recorded iterate is projected onto its cones and evaluated (`judge`); its true gap is
taken against the largest rigorous lower bound that anything proved for that problem. Of a run with many iterates only
those that a bisection over time needs are judged. Times are those of the first judged iterate within the gap, over all
runs of the peer.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cvxrelu
from bench.common.problems import planted
from bench.common.report import RESULTS, ROOT
from bench.networks.cells import cached, load
from bench.peer_comparison import judge as peer_judge
from bench.peer_comparison import table as peer_table
from bench.peers.common import Problem, save_problem, status_bytes

__all__ = ["GAPS", "PEERS", "Cell", "main", "python_of", "run_peer"]

CACHE, WHOLE = RESULTS / "peers", RESULTS / "peers-whole"
SIZES = [(200, 10, 50), (1000, 20, 100), (2000, 50, 200), (5000, 100, 200)]
FRACTIONS = [0.1, 0.01]
SEEDS = [0, 1, 2]
GAPS = [1e-2, 1e-3, 1e-4, 1e-6]
GRACE = 20.0  # seconds beyond the cap for a peer to stop by itself
MEMORY_SHARE = 0.75

# The environments that are not the project's own, and what goes into them. Elsewhere torch may be its GPU build.
ENVIRONMENTS = {"adelie": ["adelie==1.1.52"], "scnn": ["torch==2.13.0", "pyscnn==0.0.10"]}
# peer: what it needs that can be missing from the project's own environment
PEERS: dict[str, str | None] = {
    "ours": None,
    "ours_patterns": None,
    "ours_admm": None,
    "adelie": "adelie",
    "scnn": "scnn",
    "clarabel": "clarabel",
    "scs": "scs",
    "papers_admm": None,
    "skglm": None,
    "ours_network": None,
    "lbfgs": None,
    "adam": None,
}


class Cell(NamedTuple):
    """One problem: its size (n, d, P), beta as a fraction, and seed."""

    size: tuple[int, int, int]
    fraction: float
    seed: int

    @property
    def problem(self) -> Problem:
        made = planted(*self.size, seed=self.seed, fraction=self.fraction)
        return Problem(made.X, made.y, made.patterns, made.gates, made.beta)

    def path(self, cache: Path, peer: str) -> Path:
        return cache / f"{'-'.join(map(str, self.size))}-{self.fraction:g}-{self.seed}-{peer}.json"


def main() -> None:
    arguments = _arguments()
    if arguments.install:
        install()
    cells = [Cell(*each) for each in itertools.product(arguments.sizes, arguments.betas, arguments.seeds)]
    if arguments.table or arguments.whole:
        peer_table.write_whole(WHOLE) if arguments.whole else peer_table.write(arguments.cache)
        return
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) if arguments.quick else arguments.cache
        for cell in cells:
            problem = cell.problem
            reference = _reference(cell, cache, problem, arguments.reference_seconds)
            for peer in arguments.only:
                _peer_cell(cell, cache, problem, peer, reference, arguments)
        print(peer_table.text(cache))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def size(text: str) -> tuple[int, ...]:
        numbers = tuple(int(number) for number in text.split(","))
        if len(numbers) != 3:
            raise argparse.ArgumentTypeError(f"{text!r} is not n,d,P")
        return numbers

    parser.add_argument("--install", action="store_true", help="make the environments of peers under .bench-envs/")
    parser.add_argument("--quick", action="store_true", help="(200, 10, 50), one seed, cap of 5 s, nothing written")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--sizes", nargs="+", type=size, default=SIZES, metavar="n,d,P")
    parser.add_argument("--betas", nargs="+", type=float, default=FRACTIONS, help="fractions of beta_max")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--cap", type=float, default=120.0, help="seconds of a run")
    parser.add_argument("--reference-seconds", type=float, default=300.0, help="for the lower bound of a problem")
    parser.add_argument("--redo", action="store_true", help="run the chosen cells of peers again")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the cells")
    parser.add_argument("--cpu", action="store_true", help="seconds of the processes")
    parser.add_argument("--whole", action="store_true", help="only write the table of whole calls")
    parser.add_argument("--table", action="store_true", help="only write the tables and the figure of the docs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.betas, arguments.seeds, arguments.cap = SIZES[:1], [0.1], [0], 5.0
    return arguments


def install() -> None:
    """Make the environments that are missing, by venv and pip."""
    for name, packages in ENVIRONMENTS.items():
        folder = ROOT / ".bench-envs" / name
        if python_of(name) is None:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(_interpreter(folder)), "-m", "pip", "install", "--quiet", *packages], check=False)


def python_of(peer: str) -> Path | None:
    """The Python that can run the peer: the present one if it has it, else that of its environment, else None."""
    needed = PEERS[peer]
    found = None
    for python in (Path(sys.executable), _interpreter(ROOT / ".bench-envs" / peer)):
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({needed or 'numpy'!r}) is None)"
        if python.exists() and subprocess.run([python, "-c", code], cwd=ROOT / "docs").returncode == 0:
            found = found or python
    return found


def _interpreter(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _reference(cell: Cell, cache: Path, problem: Problem, seconds: float) -> dict[str, Any]:
    """The problem's own cell: a lower bound from a solve to 1e-8."""

    def make() -> dict[str, Any]:
        sampled = cvxrelu.solve(
            problem.X, problem.y, beta=problem.beta, patterns=problem.gates, refine=False, tol=1e-8, time_limit=seconds
        ).sampled
        assert sampled is not None
        return {
            "cell": cell._asdict(),
            "lower_bound": sampled.lower_bound,
            "objective": sampled.objective,
            "at_zero": float(0.5 * problem.y @ problem.y),
        }

    return cached(cell.path(cache, "reference"), {"seconds": seconds}, [_fingerprint(problem)], make)


def _fingerprint(problem: Problem) -> list[float]:
    return [problem.beta, float(problem.X.sum()), float(problem.y @ problem.y), int(problem.patterns.sum())]


def _peer_cell(
    cell: Cell, cache: Path, problem: Problem, peer: str, reference: dict[str, Any], arguments: argparse.Namespace
) -> None:
    """Run a peer on a problem and judge what it recorded, unless that was done before."""
    python = python_of(peer)
    if python is None:
        print(f"{peer}: not installed (python -m bench.peer_comparison --install)", flush=True)
        return

    def make() -> dict[str, Any]:
        load_before = os.getloadavg()
        with tempfile.TemporaryDirectory() as folder:
            record = run_peer(python, peer, problem, Path(folder), arguments.cap, arguments.cpu)
            bound = judge(problem, record, Path(folder), float(reference["lower_bound"]))
        return {"cell": cell._asdict(), "peer": peer, "lower_bound": bound, "load": [load_before, os.getloadavg()],
                **record}  # fmt: skip

    settings = {"cap": arguments.cap, **({"clock": "process"} if arguments.cpu else {})}
    cached(cell.path(cache, peer), settings, [_fingerprint(problem)], make, arguments.redo)


def run_peer(python: Path, peer: str, problem: Problem, folder: Path, cap: float, cpu: bool = False) -> dict[str, Any]:
    """The record of a peer on a problem, with `outcome`: "ended", "capped", "memory", or how it failed.

    "capped" is said of the run that was too long; earlier runs of the same peer are whole.
    """
    save_problem(folder / "problem.npz", problem)
    command = [str(python), "-m", f"bench.peers.{peer}", str(folder / "problem.npz"), str(folder), "--cap", str(cap)]
    command += ["--cpu"] * cpu
    most_memory = MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    outcome, memory = "", 0
    with (folder / "output.txt").open("w+b") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                status = Path(f"/proc/{process.pid}/status")
                memory = max(memory, status_bytes(status, "VmHWM") or 0)
                if (status_bytes(status, "VmRSS") or 0) > most_memory:
                    outcome = "memory"
                elif _since_began(folder) > cap + GRACE:
                    outcome = "capped"
                if outcome:
                    process.kill()
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace").strip()
    record = load(folder / "record.json") or {"runs": [], "note": "", "versions": {}}
    if not outcome:
        outcome = "ended" if process.returncode == 0 else f"failed: {text.splitlines()[-1][:200] if text else ''}"
    if outcome == "ended" and record["runs"] and record["runs"][-1].get("seconds", 0.0) >= cap:
        outcome = "capped"
    record["memory"] = max(memory, record.get("memory") or 0)
    return {**record, "cap": cap, "outcome": outcome}


def _since_began(folder: Path) -> float:
    """Seconds since the present run of the peer began."""
    record = load(folder / "record.json")
    began = record["runs"][-1].get("began") if record and record["runs"] else None
    return 0.0 if began is None else time.time() - began


def judge(problem: Problem, record: dict[str, Any], folder: Path, bound: float) -> float:
    """Put objectives to the recorded points that matter, drop the others; the best lower bound that these prove."""
    best: tuple[float, np.ndarray | None] = (np.inf, None)

    def gap(point: dict[str, Any]) -> float:
        nonlocal best
        if "objective" not in point:
            value, repaired, outside = peer_judge.objective(problem, np.load(folder / point["blocks"]))
            point.update(objective=value, outside=outside)
            if value < best[0]:
                best = (value, repaired)
        return (point["objective"] - bound) / point["objective"]

    for run in record["runs"]:
        points = run["points"]
        if points:
            gap(points[0]), gap(points[-1])
            for target in GAPS:
                _first_within(points, gap, target)
        run["points"] = [point for point in points if "objective" in point]
        for point in run["points"]:
            point.pop("blocks", None)
    worth_it = best[1] is not None and (best[0] - bound) / best[0] < 1e-3
    return max(bound, peer_judge.lower_bound(problem, best[1])) if worth_it and best[1] is not None else bound


def _first_within(points: list[dict[str, Any]], gap: Any, target: float) -> int:
    """Index of the first point within the target, if later ones are too; the last index if none is."""
    low, high = -1, len(points) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if gap(points[middle]) <= target else (middle, high)
    return high


if __name__ == "__main__":
    main()
