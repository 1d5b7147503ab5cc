"""Features and target out of a file, for `cvxrelu fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.columns import Plan, plan_columns
from cvxrelu.command_line.marks import mark_of_file
from cvxrelu.command_line.tables import (
    POSITION,
    Table,
    array_table,
    load_arrays,
    no_header,
    read_table,
)

__all__ = ["Data", "load_data"]


@dataclasses.dataclass(frozen=True)
class Data:
    """Features (n, d) float64 and the target column, not yet read as numbers or as classes.

    plan : how the columns of a text file became features; None for arrays. notes : on rows that were left out.
    columns : positions of the features in the table of the target. decimal : of `plan_columns`.
    """

    X: np.ndarray
    feature_names: list[str] | None
    target: Table
    target_index: int
    plan: Plan | None = None
    notes: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()
    decimal: str | None = None

    def planned(self, rows: np.ndarray | None) -> Data:
        """With the features as these rows, those to train on, say; all rows for None. Arrays stay what they are."""
        if not self.columns:
            return self
        plan = plan_columns(self.target, self.columns, self.decimal, None if rows is None else rows.tolist())
        position = {self.target.name(column): column for column in self.columns}
        X, _ = plan.encode(self.target, [position[column.name] for column in plan.columns])
        return dataclasses.replace(self, X=X, plan=plan, feature_names=plan.features if self.target.names else None)

    @property
    def left_out(self) -> list[str]:
        """Columns and rows that are not learned from, in words."""
        return [*(f"column {words}" for words in (self.plan.left_out if self.plan else ())), *self.notes]

    @property
    def target_name(self) -> str | None:
        return self.target.names[self.target_index] if self.target.names else None


def load_data(
    path: str, target: str | None, header: bool | None = None, *, features: Sequence[str] = (),
    drop: Sequence[str] = (), na: Sequence[str] = (), decimal: str | None = None,
) -> Data:  # fmt: skip
    """Features and target out of one file; see `cvxrelu fit --help` for what the file may hold.

    header, na : of `read_table`. features, drop : columns, by name or position, to take alone or to leave out.
    decimal : of `plan_columns`; None for the mark that other columns show. Rows whose target is missing are left out.
    """
    if path.lower().endswith(".npz"):
        arrays = load_arrays(Path(path))
        label = "y" if target is None else target
        others = [name for name in arrays if name != label]
        if label in arrays and others:
            rows = "X" if "X" in others else others[0]
            if rows != "X" and len(others) > 1:
                raise UserError(f"{path}: no array X among {', '.join(others)}")
            no_header(Path(path), header)
            return _pair(Path(path), rows, arrays[rows], label, arrays[label])
        if len(arrays) != 1:
            raise UserError(
                f"{path}: expected arrays X and {label} (or a single table and --target COLUMN), found "
                f"{', '.join(arrays)}"
            )
    if target is None:
        raise UserError("--target is missing: the name of the column to predict, or its position (0 first, -1 last)")
    # A whole number may be a position, so that its being in the first line says nothing.
    wanted = [name.strip() for name in (target, *features, *drop) if not POSITION.fullmatch(name.strip())]
    table = read_table(path, wanted, header, na)
    index = table.index(target)
    if table.n_columns < 2:
        raise UserError(f"{path}: a single column; expected features beside the target")
    chosen = [table.index(name, "--features") for name in features] or list(range(table.n_columns))
    out = {index, *(table.index(name, "--drop") for name in drop)}
    columns = [column for column in dict.fromkeys(chosen) if column not in out]
    if not columns:
        raise UserError(f"{table.path}: --features and --drop leave no column beside the target")
    notes = []
    if without := [row for row, cell in enumerate(table.column(index)) if cell is None]:
        if len(without) == len(table.cells):
            raise UserError(f"{table.path}: the target {table.name(index)!r} has no value at all")
        notes.append(f"{len(without)} rows without a value of the target")
        table = table.without(without)
    if isinstance(table.cells, np.ndarray):
        names = [table.names[column] for column in columns] if table.names else None
        return Data(table.numbers(columns), names, table, index, None, tuple(notes))
    mark = decimal or mark_of_file(table)
    data = Data(np.zeros((0, 0)), None, table, index, None, tuple(notes), tuple(columns), mark)
    return data.planned(None)


def _pair(path: Path, rows: str, X: np.ndarray, label: str, y: np.ndarray) -> Data:
    features = array_table(path, X)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or len(y) != len(X):
        raise UserError(f"{path}: {label} has shape {y.shape}; expected ({len(X)},), one value per row of {rows}")
    if y.dtype.kind not in "biufU":
        raise UserError(f"{path}: {label} has type {y.dtype}; expected numbers or text")
    y = y.astype(int) if y.dtype.kind == "b" else y
    return Data(features.numbers(range(features.n_columns)), None, Table(path, None, y[:, None]), 0)
