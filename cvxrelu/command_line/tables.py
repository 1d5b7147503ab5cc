"""Tables of numbers and text out of .csv, .csv.gz, .parquet, .npz and .npy files, and the target out of a table.

A cell is a number where it is one in ASCII digits, `-12`, `.5`, `1.5e-3`, blanks around it aside. What Python's `float`
takes beyond that (`1_000`, the digits of other scripts, `inf`) is text here: where it stands for a number, only the one
who wrote the file knows which.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import gzip
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.command_line.cells import MISSING, UserError, as_number, is_number, looks_like_number
from cvxrelu.command_line.csv_text import decoded, rows_of

__all__ = ["POSITION", "Table", "array_table", "load_arrays", "no_header", "read_table"]

POSITION = re.compile(r"-?[0-9]{1,9}")


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of one file: `cells` (n, k) of numbers or text, `names` None where the file has no header."""

    path: Path
    names: list[str] | None
    cells: list[list[str]] | np.ndarray
    lines: list[int] | None = None
    missing: frozenset[str] = MISSING

    @property
    def n_columns(self) -> int:
        return len(self.cells[0])

    def index(self, target: str, option: str = "--target") -> int:
        """Position of the column called `target`, or counted from 0 (negative: from the end); of that option."""
        target = target.strip()
        named = self.names.index(target) if self.names and target in self.names else None
        counted, far = None, False
        if POSITION.fullmatch(target):
            far = not -self.n_columns <= int(target) < self.n_columns
            counted = None if far else int(target) % self.n_columns
        if named is not None and counted not in (None, named):
            raise UserError(
                f"{option} {target}: in {self.path} a column is called {target!r}, and another one stands at position "
                f"{target}; count from the end, {named - self.n_columns} for the one of that name"
            )
        position = counted if named is None else named
        if position is not None:
            return position
        if far:
            raise UserError(f"{option} {target}: {self.path} has {self.n_columns} columns, counted from 0")
        known = ", ".join(self.names[:20]) if self.names else "it has no header row; give the column's position"
        if self.names is None and self.lines is not None:
            known += ", or --header if its first line is one"
        raise UserError(f"{option} {target!r}: no such column in {self.path} ({known})")

    def name(self, column: int) -> str:
        """What the header calls a column, or its position, from 1."""
        return self.names[column] if self.names else f"column {column + 1}"

    def column(self, column: int) -> list[str | None]:
        """A column as it stands; None where a value is missing."""
        cells = [str(line[column]).strip() for line in self.cells]
        return [None if cell.lower() in self.missing else cell for cell in cells]

    def without(self, rows: Sequence[int]) -> Table:
        """The table without these rows."""
        gone = set(rows)
        kept = [row for row in range(len(self.cells)) if row not in gone]
        cells = self.cells[kept] if isinstance(self.cells, np.ndarray) else [self.cells[row] for row in kept]
        lines = None if self.lines is None else [self.lines[row] for row in kept]
        return dataclasses.replace(self, cells=cells, lines=lines)

    def text(self, column: int) -> list[str]:
        """A column as it stands, without missing cells."""
        cells = self.column(column)
        for row, cell in enumerate(cells):
            if cell is None:
                raise UserError(f"{self.place(row, column)}: missing value")
        return [cell for cell in cells if cell is not None]

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """Columns as float64 (n, len(columns)); an error names file, line and column of the first bad cell."""
        values = None
        if isinstance(self.cells, np.ndarray) and self.cells.dtype.kind != "U":
            values = self.cells[:, list(columns)].astype(np.float64)
        else:
            with contextlib.suppress(ValueError):
                values = np.array([[as_number(str(line[column])) for column in columns] for line in self.cells])
        if values is None or not np.isfinite(values).all():
            for row, line in enumerate(self.cells):
                for column in columns:
                    self._check_number(str(line[column]).strip(), row, column)
        assert values is not None
        return values

    def _check_number(self, cell: str, row: int, column: int) -> None:
        if cell.lower() in self.missing:
            raise UserError(f"{self.place(row, column)}: missing value; fill it in or leave the row out")
        if is_number(cell) and np.isfinite(float(cell)):
            return
        if looks_like_number(cell) and not np.isfinite(float(cell)):
            raise UserError(f"{self.place(row, column)}: {cell[:40]} is not a finite number")
        raise UserError(f"{self.place(row, column)}: {cell[:40]!r} is not a number")

    def place(self, row: int, column: int) -> str:
        """Where a cell stands, in words."""
        if self.lines is None:
            return f"{self.path}, row {row}, column {column} (counted from 0)"
        name = f" ({self.names[column]})" if self.names else ""
        return f"{self.path}, line {self.lines[row]}, column {column + 1}{name}"


def read_table(
    path: str | os.PathLike[str], wanted: Sequence[str] = (), header: bool | None = None, na: Sequence[str] = ()
) -> Table:
    """Read the table in a .csv, .csv.gz, .tsv, .txt, .parquet, .npy or .npz file, or "-" for a CSV on standard input.

    wanted : names of columns; a first line of numbers and words that holds them all is a header.
    header : whether the first line is one; None decides by what it holds, or refuses to.
    na : cells that stand for missing values, beside the usual ones.
    """
    table = _read_table(path, wanted, header)
    return dataclasses.replace(table, missing=MISSING | {text.strip().lower() for text in na})


def _read_table(path: str | os.PathLike[str], wanted: Sequence[str], header: bool | None) -> Table:
    if os.fspath(path) == "-":
        place = Path("standard input")
        if not (data := sys.stdin.buffer.read()):
            raise UserError(f"{place}: nothing came")
        with _naming(place):
            return Table(place, *rows_of(place, decoded(place, data), wanted, header))
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] in ([".npy"], [".npz"]):
        arrays = load_arrays(path)
        if len(arrays) > 1 and "X" not in arrays:
            raise UserError(f"{path}: no array X among {', '.join(arrays)}")
        no_header(path, header)
        return array_table(path, arrays["X"] if "X" in arrays else next(iter(arrays.values())))
    if suffixes[-1:] == [".parquet"]:
        no_header(path, header)
        return _parquet_table(path)
    with _reading(path):
        packed = suffixes[-1:] == [".gz"]
        if (suffixes[:-1] if packed else suffixes)[-1:] not in ([".csv"], [".tsv"], [".txt"]):
            raise UserError(f"{path}: unknown kind of file; expected .csv, .csv.gz, .parquet, .npz or .npy")
        data = path.read_bytes()
        return Table(path, *rows_of(path, decoded(path, gzip.decompress(data) if packed else data), wanted, header))


def _parquet_table(path: Path) -> Table:
    try:
        from pyarrow import parquet, types
    except ImportError as error:
        raise UserError(f"{path}: Parquet files need: pip install 'cvxrelu[parquet]'") from error
    with _reading(path):
        found = parquet.read_table(path)
        names = [str(name) for name in found.column_names]
        if len(set(names)) < len(names):
            raise UserError(f"{path}: two columns have the same name")
        if not found.num_rows or not names:
            raise UserError(f"{path}: no rows, or no columns")
        columns = []
        for name, column in zip(names, found.columns, strict=True):
            kind = column.type.value_type if types.is_dictionary(column.type) else column.type
            if types.is_nested(kind) or types.is_binary(kind):
                raise UserError(f"{path}: column {name!r} holds {kind}, not numbers or text; leave it out of the file")
            columns.append([_cell(value) for value in column.to_pylist()])
        return Table(path, names, [list(row) for row in zip(*columns, strict=True)])


def _cell(value: Any) -> str:
    """A value of a Parquet file as a CSV would have it."""
    if value is None or value != value:
        return ""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat(timespec="seconds")
    return repr(value) if isinstance(value, float) else str(value).strip()


def no_header(path: Path, header: bool | None) -> None:
    if header is not None:
        raise UserError(f"{path}: arrays have no header row; leave --{'' if header else 'no-'}header out")


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name, or that of a .npy file under the name ""."""
    with _reading(path), open(path, "rb") as file:  # opened here: NumPy leaves damaged archives open
        loaded = np.load(file, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        if not arrays:
            raise UserError(f"{path}: holds no arrays")
        return arrays


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong with a file into one clear line."""
    with _naming(path):
        if not path.exists():
            raise UserError(f"{path}: no such file")
        if path.is_dir():
            raise UserError(f"{path}: is a folder, not a file")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        yield


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Any error of reading as one line that begins with the file."""
    try:
        yield
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: the file is truncated or damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-16 (byte {error.start}); save it as UTF-8") from error
    except UserError:
        raise
    except Exception as error:  # decoders of damaged content raise whatever they happen to stumble over
        words = (
            str(error) if isinstance(error, (ValueError, OSError, csv.Error)) else f"{type(error).__name__}: {error}"
        )
        raise UserError(f"{path}: cannot be read ({words})") from error


def array_table(path: Path, array: np.ndarray) -> Table:
    if array.ndim != 2 or not array.size:
        raise UserError(f"{path}: expected a 2-D array with rows and columns, found shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path}: expected numbers, found an array of type {array.dtype}")
    return Table(path, None, array)
