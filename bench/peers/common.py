"""What the programs of the peers share: the problem, and a recorder of iterates whose clock stands while it writes.

    minimise  1/2 |sum_i M_i * X(v_i - z_i) - y|^2 + beta sum_i (|v_i| + |z_i|)   s.t.  E_i * X v_i, E_i * X z_i >= 0

A peer with a callback makes one run and records on the way; one that returns only a final point makes several runs,
tighter each time, and a time is then that of the whole run that reached the accuracy. Everything is written at once, so
that a peer stopped at the cap leaves what it had.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Problem", "Recorder", "load_problem", "main", "peak_memory", "save_problem"]


class Problem(NamedTuple):
    """X (n, d) and y (n,) float64; patterns (n, P) bool; gates (d, P) that realise them; beta."""

    X: np.ndarray
    y: np.ndarray
    patterns: np.ndarray
    gates: np.ndarray
    beta: float

    @property
    def signs(self) -> np.ndarray:
        """E = 2 M - 1, (n, P) float64."""
        return 2.0 * self.patterns - 1.0


def save_problem(path: Path, problem: Problem) -> None:
    """Write a problem as NPZ."""
    np.savez(path, **problem._asdict())


def load_problem(path: Path) -> Problem:
    """Read what `save_problem` wrote."""
    with np.load(path) as arrays:
        return Problem(arrays["X"], arrays["y"], arrays["patterns"], arrays["gates"], float(arrays["beta"]))


def peak_memory() -> int | None:
    """Largest resident set of this process so far in bytes (Linux), None where it is not known.

    Not `getrusage`: what it says of a child starts from the size its parent had.
    """
    return status_bytes(Path("/proc/self/status"), "VmHWM")


def status_bytes(path: Path, name: str) -> int | None:
    """One of the sizes in a process's status file, in bytes."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(name + ":"):
                return 1024 * int(line.split()[1])
    return None


class Recorder:
    """Runs and their iterates, in FOLDER/record.json and FOLDER/NNN.npy.

    A run has a name, its start as `time.time()` while it goes on (the driver's cap counts from there), `seconds` at its
    end, and points: seconds on its clock, and either the file of the blocks U (2, d, P) or, for a network that is not
    one of the sampled program, its objective of (N).
    """

    def __init__(self, folder: Path, cap: float, packages: tuple[str, ...] = (), clock: str = "perf_counter") -> None:
        self.folder, self.cap, self.clock_name = folder, cap, clock
        folder.mkdir(parents=True, exist_ok=True)
        versions = {name: importlib.metadata.version(name) for name in ("numpy", *packages)}
        self.content: dict[str, Any] = {"versions": versions, "runs": [], "note": "", "memory_before": None}
        self._clock = self._paused = self._due = 0.0
        self._count = 0
        self._write()

    @contextlib.contextmanager
    def run(self, name: str, **facts: Any) -> Iterator[None]:
        """Clock a run. `facts`, such as the seconds of compilation, are stored with it."""
        if not self.content["runs"]:
            self.content["memory_before"] = peak_memory()  # with all that is imported
        self.content["runs"].append({"name": name, "began": time.time(), "points": [], **facts})
        self._write()
        self._paused, self._due = 0.0, 0.02
        self._clock = self.clock()
        yield
        seconds = self.seconds
        self.content["runs"][-1].pop("began")
        self.facts(seconds=seconds)

    def clock(self) -> float:
        """Seconds of the clock of the runs, a function of `time`."""
        return float(getattr(time, self.clock_name)())

    @property
    def seconds(self) -> float:
        """On the clock of the present run, less what recording took."""
        return self.clock() - self._clock - self._paused

    @property
    def expired(self) -> bool:
        """Whether the present run has used up its time."""
        return self.seconds >= self.cap

    @property
    def due(self) -> bool:
        """Whether the last point is old enough: points are spaced by a quarter of the time so far."""
        return self.seconds >= self._due

    def point(self, blocks: np.ndarray, seconds: float | None = None, **facts: Any) -> None:
        """Record U (2, d, P); `seconds` when it was reached, by default now."""
        started, now = self.clock(), self.seconds
        at = now if seconds is None else seconds
        name = f"{self._count:03d}.npy"
        np.save(self.folder / name, np.asarray(blocks, dtype=np.float64))
        self._count += 1
        self.content["runs"][-1]["points"].append({"seconds": at, "blocks": name, **facts})
        self._end_point(started, now)

    def network_point(self, objective: float, seconds: float | None = None) -> None:
        """Record the objective of (N) of a network; `seconds` when it was reached, by default now."""
        started, now = self.clock(), self.seconds
        at = now if seconds is None else seconds
        self.content["runs"][-1]["points"].append({"seconds": at, "objective": float(objective)})
        self._end_point(started, now)

    def facts(self, **facts: Any) -> None:
        """Store facts of the last run."""
        self.content["runs"][-1].update(facts)
        self._write()

    def note(self, text: str) -> None:
        """Say something of the peer as a whole: why it does not apply, say."""
        self.content["note"] = text
        self._write()

    def _end_point(self, started: float, seconds: float) -> None:
        self._due = 1.25 * seconds
        self._write()
        self._paused += self.clock() - started

    def _write(self) -> None:
        self.content["memory"] = peak_memory()
        temporary = self.folder / "record.tmp"
        temporary.write_text(json.dumps(self.content))
        os.replace(temporary, self.folder / "record.json")


def main(solve: Callable[[Problem, Recorder], None], *packages: str) -> None:
    """The program of a peer: solve the problem named on the command line, record in the folder named there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("problem", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cap", type=float, default=120.0, help="seconds a run may take")
    parser.add_argument("--cpu", action="store_true", help="seconds of the process instead of the wall's")
    arguments = parser.parse_args()
    clock = "process_time" if arguments.cpu else "perf_counter"
    recorder = Recorder(arguments.folder, arguments.cap, packages, clock)
    solve(load_problem(arguments.problem), recorder)
