"""Results of the benchmarks: JSON with machine and versions, and tables put between markers of a docs page."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["environment", "markdown_table", "put_between_markers", "save_json", "spread", "timed", "write_json"]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
FIGURES = ROOT / "docs" / "figures"
PACKAGES = (
    "cvxrelu",
    "numpy",
    "scipy",
    "jax",
    "jaxlib",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "clarabel",
    "scikit-learn",
    "pandas",
    "torch",
    "transformers",
    "trl",
)


def environment() -> dict[str, Any]:
    """Date, machine and versions, as every result file carries them."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    processor = platform.processor() or platform.machine()
    try:
        models = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        processor = models[0] if models else processor
    except OSError:
        pass
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def save_json(name: str, payload: dict[str, Any]) -> Path:
    """Write `bench/results/NAME.json` with the environment, by a temporary file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    return write_json(RESULTS / f"{name}.json", {"environment": environment(), **payload})


def write_json(path: Path, payload: dict[str, Any]) -> Path:
    """Write a file by a temporary one beside it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(payload, indent=1) + "\n")
    os.replace(temporary, path)
    return path


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats are shown with three digits."""

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def put_between_markers(page: str, marker: str, text: str) -> None:
    """Replace what stands between the markers begin:MARKER and end:MARKER of PAGE, a path from the repository root."""
    path = ROOT / page
    old = path.read_text()
    begin, end = f"<!-- begin:{marker} -->", f"<!-- end:{marker} -->"
    if begin not in old or end not in old:
        raise ValueError(f"{page} has no markers for {marker!r}")
    new = old[: old.index(begin) + len(begin)] + "\n\n" + text.strip() + "\n\n" + old[old.index(end) :]
    temporary = path.with_suffix(".tmp")
    temporary.write_text(new)
    os.replace(temporary, path)


def timed(
    fn: Callable[[], Any], repeats: int = 7, warm: int = 1, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of `repeats` calls after `warm` uncounted ones. `fn` must block until its work is done."""
    for _ in range(warm):
        fn()
    seconds = []
    for _ in range(repeats):
        started = clock()
        fn()
        seconds.append(clock() - started)
    return seconds


def spread(seconds: Sequence[float], unit: float = 1e3) -> str:
    """`median (min-max)` in milliseconds."""
    return f"{unit * statistics.median(seconds):.3g} ({unit * min(seconds):.3g}-{unit * max(seconds):.3g})"
