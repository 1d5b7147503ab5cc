"""The cells of a task in one file of the repository: what a machine has measured stays when its cache is gone.

A run measures every cell anew that the cache does not hold; results are made of the cells of the cache, and of those of
the archive where the cache has none. Texts are among them, for whoever wants to read what was judged.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

from bench.common.report import RESULTS
from bench.comparison.cells import Cell
from cvxrelu.support.files import atomic_write

__all__ = ["Archive"]

DIGITS = 6  # significant ones of every number that is kept


class Archive:
    """The cells of `task`, by the names of their files.

    met : environments of the cells that `record` has found.
    """

    def __init__(self, task: str) -> None:
        self.file = RESULTS / f"comparison-{task}-cells.json.gz"
        self.cells: dict[str, dict[str, Any]] = {}
        self.met: dict[str, dict[str, Any]] = {}
        if self.file.exists():
            self.cells = json.loads(gzip.decompress(self.file.read_bytes()))

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """What was found, from the cache, else from the archive; None from neither."""
        name = cell.file.stem
        if cell.file.exists():
            self.cells[name] = rounded(json.loads(cell.file.read_text()))
        found = self.cells.get(name)
        if found is not None and "environment" in found:  # not in cells of before 30 November 2026
            self.met[name] = found["environment"]
        return found

    def save(self) -> None:
        """With the cells of the cache that `record` has found."""
        words = json.dumps(dict(sorted(self.cells.items()))).encode()  # rows of tables come in the order of the cell
        atomic_write(self.file, gzip.compress(words, mtime=0))  # the same cells, the same bytes


def rounded(found: Any) -> Any:
    """Numbers to `DIGITS`, wherever they are."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return float(f"{found:.{DIGITS}g}") if isinstance(found, float) else found
