"""Tables of numbers and text out of .csv, .csv.gz, .npz and .npy files, and features and target out of a table.

A cell is a number where it is one in ASCII digits, `-12`, `.5`, `1.5e-3`, blanks around it aside. What Python's `float`
takes beyond that (`1_000`, the digits of other scripts, `inf`) is text here: where it stands for a number, only the one
who wrote the file knows which.

The first line is the header where it holds words and no number, or numbers and words among which are the names asked
for. It is data where it holds numbers alone, or a word that comes again below it. What could be either is refused,
with the option that decides.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

__all__ = ["Data", "Table", "UserError", "is_number", "load_data", "read_table"]

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_POSITION = re.compile(r"-?[0-9]{1,9}")


class UserError(Exception):
    """Something the user can mend: shown as one line, exit code 2."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of one file: `cells` (n, k) of numbers or text, `names` None where the file has no header."""

    path: Path
    names: list[str] | None
    cells: list[list[str]] | np.ndarray
    lines: list[int] | None = None

    @property
    def n_columns(self) -> int:
        return len(self.cells[0])

    def index(self, target: str) -> int:
        """Position of the column called `target`, or counted from 0 (negative: from the end)."""
        target = target.strip()
        named = self.names.index(target) if self.names and target in self.names else None
        counted, far = None, False
        if _POSITION.fullmatch(target):
            far = not -self.n_columns <= int(target) < self.n_columns
            counted = None if far else int(target) % self.n_columns
        if named is not None and counted not in (None, named):
            raise UserError(
                f"--target {target}: in {self.path} a column is called {target!r}, and another one stands at position "
                f"{target}; count from the end, {named - self.n_columns} for the one of that name"
            )
        position = counted if named is None else named
        if position is not None:
            return position
        if far:
            raise UserError(f"--target {target}: {self.path} has {self.n_columns} columns, counted from 0")
        known = ", ".join(self.names[:20]) if self.names else "it has no header row; give the column's position"
        if self.names is None and self.lines is not None:
            known += ", or --header if its first line is one"
        raise UserError(f"--target {target!r}: no such column in {self.path} ({known})")

    def text(self, column: int) -> list[str]:
        """A column as it stands, without missing cells."""
        for row, line in enumerate(self.cells):
            if str(line[column]).strip().lower() in _MISSING:
                raise UserError(f"{self._place(row, column)}: missing value")
        return [str(line[column]).strip() for line in self.cells]

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """Columns as float64 (n, len(columns)); an error names file, line and column of the first bad cell."""
        values = None
        if isinstance(self.cells, np.ndarray) and self.cells.dtype.kind != "U":
            values = self.cells[:, list(columns)].astype(np.float64)
        else:
            with contextlib.suppress(ValueError):
                values = np.array([[_as_number(str(line[column])) for column in columns] for line in self.cells])
        if values is None or not np.isfinite(values).all():
            for row, line in enumerate(self.cells):
                for column in columns:
                    self._check_number(str(line[column]).strip(), row, column)
        assert values is not None
        return values

    def _check_number(self, cell: str, row: int, column: int) -> None:
        if cell.lower() in _MISSING:
            raise UserError(f"{self._place(row, column)}: missing value; fill it in or leave the row out")
        if is_number(cell) and np.isfinite(float(cell)):
            return
        if _looks_like_number(cell) and not np.isfinite(float(cell)):
            raise UserError(f"{self._place(row, column)}: {cell[:40]} is not a finite number")
        raise UserError(f"{self._place(row, column)}: {cell[:40]!r} is not a number")

    def _place(self, row: int, column: int) -> str:
        if self.lines is None:
            return f"{self.path}, row {row}, column {column} (counted from 0)"
        name = f" ({self.names[column]})" if self.names else ""
        return f"{self.path}, line {self.lines[row]}, column {column + 1}{name}"


def read_table(path: str | os.PathLike[str], wanted: Sequence[str] = (), header: bool | None = None) -> Table:
    """Read the table in a .csv, .csv.gz, .npy or .npz file.

    wanted : names of columns; a first line of numbers and words that holds them all is a header.
    header : whether the first line is one; None decides by what it holds, or refuses to.
    """
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] in ([".npy"], [".npz"]):
        arrays = _load_arrays(path)
        if len(arrays) > 1 and "X" not in arrays:
            raise UserError(f"{path}: no array X among {', '.join(arrays)}")
        _no_header(path, header)
        return _array_table(path, arrays["X"] if "X" in arrays else next(iter(arrays.values())))
    with _reading(path):
        packed = suffixes[-1:] == [".gz"]
        if (suffixes[:-1] if packed else suffixes)[-1:] not in ([".csv"], [".tsv"], [".txt"]):
            raise UserError(f"{path}: unknown kind of file; expected .csv, .csv.gz, .npz or .npy")
        data = path.read_bytes()
        return _csv_table(path, (gzip.decompress(data) if packed else data).decode("utf-8-sig"), wanted, header)


def _no_header(path: Path, header: bool | None) -> None:
    if header is not None:
        raise UserError(f"{path}: arrays have no header row; leave --{'' if header else 'no-'}header out")


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
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
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file")
        if path.is_dir():
            raise UserError(f"{path}: is a folder, not a file")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        yield
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: the file is truncated or damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start}); save it as UTF-8") from error
    except UserError:
        raise
    except Exception as error:  # decoders of damaged content raise whatever they happen to stumble over
        words = (
            str(error) if isinstance(error, (ValueError, OSError, csv.Error)) else f"{type(error).__name__}: {error}"
        )
        raise UserError(f"{path}: cannot be read ({words})") from error


def _array_table(path: Path, array: np.ndarray) -> Table:
    if array.ndim != 2 or not array.size:
        raise UserError(f"{path}: expected a 2-D array with rows and columns, found shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path}: expected numbers, found an array of type {array.dtype}")
    return Table(path, None, array)


def _csv_table(path: Path, text: str, wanted: Sequence[str], header: bool | None) -> Table:
    if "\0" in text:
        raise UserError(f"{path}: not a text file in UTF-8 (zero bytes, as in UTF-16); save it as UTF-8")
    first = re.sub('"[^"]*"', "", text[: 1 << 20]).lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    lines: list[list[str]] = []
    numbers: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for line in reader:
        # A blank line is no row; one of empty cells is a row whose values are missing.
        if line and (len(line) > 1 or not line[0] or line[0].strip()):
            lines.append([cell.strip() for cell in line])
            numbers.append(reader.line_num)
    if not lines:
        raise UserError(f"{path}: the file is empty")
    for line, number in zip(lines, numbers, strict=True):
        if len(line) != len(lines[0]):
            comment = next((k for row, k in zip(lines, numbers, strict=True) if row[0].startswith("#")), None)
            hint = "" if comment is None else f"; line {comment} begins with #: take comments out"
            raise UserError(f"{path}, line {number}: {len(line)} columns, but the first line has {len(lines[0])}{hint}")
    if len(lines[0]) > 1 and not any(line[-1] for line in lines):  # every line ends in a delimiter
        lines = [line[:-1] for line in lines]
    if header is None:
        header = _is_header(path, lines, wanted)
    names = lines[0] if header else None
    if names is not None:
        if "" in names:
            raise UserError(
                f"{path}: column {names.index('') + 1} has no name; leave row numbers out (pandas: index=False)"
            )
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(f"{path}: two columns are called {twice[0]!r}")
        lines, numbers = lines[1:], numbers[1:]
    if not lines:
        raise UserError(f"{path}: a header, but no rows")
    return Table(path, names, lines, numbers)


def _is_header(path: Path, lines: Sequence[Sequence[str]], wanted: Sequence[str]) -> bool:
    """Whether the first line holds names; an error where it might and might not."""
    first = lines[0]
    words = [k for k, cell in enumerate(first) if cell.lower() not in _MISSING and not _looks_like_number(cell)]
    numbers = [k for k, cell in enumerate(first) if _looks_like_number(cell)]
    named = bool(wanted) and all(name in first for name in wanted)
    again = next((k for k in words if any(line[k] == first[k] for line in lines[1:])), None)
    if not words:
        # pandas calls columns 0, 1, 2, ... where they have no names
        if not named and (len(first) < 2 or list(first) != [str(k) for k in range(len(first))]):
            return False
        why = "it holds numbers alone, but they could be names"
    elif again is None:
        if not numbers or named:
            return True
        why = f"it holds numbers and {first[words[0]][:40]!r}"
    else:
        if numbers and not named:
            return False
        why = f"its {first[again][:40]!r} comes again below, in column {again + 1}"
    raise UserError(f"{path}: the first line may be a header or data ({why}); say which: --header or --no-header")


def is_number(cell: str) -> bool:
    """Whether the cell is a number in ASCII digits, as the module says; it may be too large to be finite."""
    return _NUMBER.fullmatch(cell) is not None


def _as_number(cell: str) -> float:
    cell = cell.strip()
    if not is_number(cell):
        raise ValueError(cell)
    return float(cell)


def _looks_like_number(cell: str) -> bool:
    """Whether Python's `float` takes it, which says that no one meant a name; whether it is one says `is_number`."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.lower() not in _MISSING


@dataclasses.dataclass(frozen=True)
class Data:
    """Features (n, d) float64 and the target column, not yet read as numbers or as classes."""

    X: np.ndarray
    feature_names: list[str] | None
    target: Table
    target_index: int

    @property
    def target_name(self) -> str | None:
        return self.target.names[self.target_index] if self.target.names else None


def load_data(path: str, target: str | None, header: bool | None = None) -> Data:
    """Features and target out of one file; see `cvxrelu fit --help` for what the file may hold.

    header : of `read_table`.
    """
    if path.lower().endswith(".npz"):
        arrays = _load_arrays(Path(path))
        label = "y" if target is None else target
        others = [name for name in arrays if name != label]
        if label in arrays and others:
            rows = "X" if "X" in others else others[0]
            if rows != "X" and len(others) > 1:
                raise UserError(f"{path}: no array X among {', '.join(others)}")
            _no_header(Path(path), header)
            return _pair(Path(path), rows, arrays[rows], label, arrays[label])
        if len(arrays) != 1:
            raise UserError(
                f"{path}: expected arrays X and {label} (or a single table and --target COLUMN), found "
                f"{', '.join(arrays)}"
            )
    if target is None:
        raise UserError("--target is missing: the name of the column to predict, or its position (0 first, -1 last)")
    # A whole number may be a position, so that its being in the first line says nothing.
    table = read_table(path, [] if _POSITION.fullmatch(target.strip()) else [target.strip()], header)
    index = table.index(target)
    if table.n_columns < 2:
        raise UserError(f"{path}: a single column; expected features beside the target")
    columns = [column for column in range(table.n_columns) if column != index]
    names = [table.names[column] for column in columns] if table.names else None
    return Data(table.numbers(columns), names, table, index)


def _pair(path: Path, rows: str, X: np.ndarray, label: str, y: np.ndarray) -> Data:
    features = _array_table(path, X)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or len(y) != len(X):
        raise UserError(f"{path}: {label} has shape {y.shape}; expected ({len(X)},), one value per row of {rows}")
    if y.dtype.kind not in "biufU":
        raise UserError(f"{path}: {label} has type {y.dtype}; expected numbers or text")
    y = y.astype(int) if y.dtype.kind == "b" else y
    return Data(features.numbers(range(features.n_columns)), None, Table(path, None, y[:, None]), 0)
