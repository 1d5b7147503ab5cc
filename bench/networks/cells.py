"""Results of long benchmarks in cells, a small JSON file each: an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common.report import environment

__all__ = ["cached", "load", "path_of"]


def path_of(cache: Path, name: str, stage: str, fraction: float | None = None) -> Path:
    """Where a cell is stored."""
    return cache / name / (f"{stage}.json" if fraction is None else f"{fraction:g}-{stage}.json")


def load(path: Path) -> dict[str, Any] | None:
    """A stored cell, or None."""
    return json.loads(path.read_text()) if path.exists() else None


def cached(
    path: Path, settings: dict[str, Any], belongs_to: list[Any], make: Callable[[], dict[str, Any]], redo: bool = False
) -> dict[str, Any]:
    """The cell stored at `path` if its settings and what it belongs to (data, beta) are these; else made and stored."""
    key = {"settings": settings, "belongs_to": belongs_to}
    found = load(path)
    if found is not None and not redo and found["key"] == json.loads(json.dumps(key)):
        return found
    started = time.perf_counter()
    cell = {"key": key, "environment": environment(), **make()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(cell, separators=(",", ":")) + "\n")
    os.replace(temporary, path)
    print(f"{path.parent.name} {path.stem}: {time.perf_counter() - started:.1f} s", flush=True)
    return cell


FRACTIONS = [0.3, 0.1, 0.03, 0.01]


TARGET = 1.0005  # times the best baseline: the objective whose time is taken
