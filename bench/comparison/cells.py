"""Cells of the comparison: one measurement each, in a process and a file of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.common.report import environment
from bench.comparison.tasks import CACHE, PAIRS, kept, model_folder, short_name, task_of

__all__ = ["CURVE", "NOISE", "PAIRS", "Cell"]

CURVE, NOISE = (25, 50), (0.1, 0.2, 0.3, 0.4)


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is trained on what: "heads", "sensitivity" or a name in `trained`; `noise` is the share of labels turned."""

    model: str
    task: str
    pairs: int
    method: str
    seed: int = dataclasses.field(default=0, kw_only=True)
    noise: float = dataclasses.field(default=0.0, kw_only=True)

    @property
    def file(self) -> Path:
        name = "-".join("".join(c if c.isalnum() or c == "." else " " for c in self.method).split())
        where = f"{short_name(self.model)}-{self.task}-{self.pairs}-{name}-{self.seed}-{self.noise:g}"
        return CACHE / "comparison" / "cells" / f"{where}.json"

    def run(self) -> dict[str, Any]:
        """In this process; `file` keeps it, with machine, versions and date."""
        from bench.comparison.measure import head_cell, sensitivity_cell, trained_cell

        task, folder = task_of(self.task, self.pairs), model_folder(self.model)
        make = {"heads": head_cell, "sensitivity": sensitivity_cell}.get(self.method, trained_cell)
        return kept(
            self.file, lambda: {"environment": environment(), **make(self.method, folder, task, self.seed, self.noise)}
        )

    def run_apart(self) -> None:
        """In a process of its own, whose peak memory is that of the cell."""
        if self.file.exists():
            return
        print(f"{self.file.stem} ...", flush=True)
        arguments = ["--cell", json.dumps(dataclasses.asdict(self))]
        done = subprocess.run([sys.executable, "-m", "bench.comparison", *arguments], check=False)
        if done.returncode:
            raise SystemExit(f"{self.file.stem}: ended with exit code {done.returncode}")
