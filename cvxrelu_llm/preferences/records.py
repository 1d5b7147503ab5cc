"""Records out of JSON lines, JSON, CSV and Parquet files, data sets in memory, and data sets of the hub.

Every record comes with its place ("train.jsonl.gz, line 12"), which error messages about it begin with.

A text names a file where there is one of that name, else a data set of the hub where it reads `owner/name` and does not
end like a data file; a `Path` is always a file.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cvxrelu.support.errors import InputError
from cvxrelu.support.text_files import open_text, readable
from cvxrelu.support.values import is_missing, parse_json, plain
from cvxrelu_llm.preferences.messages import is_conversation

__all__ = ["Record", "missing", "read_records"]

SUFFIXES = ".jsonl, .json, .csv, .tsv (each also .gz) or .parquet"
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".txt", ".arrow", ".xlsx", ".zip")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


class Record(NamedTuple):
    """One row and where it stands."""

    place: str
    fields: Mapping[str, Any]


def missing(record: Record, field: str, column: str) -> str:
    """What to say of a record without `column`, where `field` is read from: which columns there are, and the cure."""
    said = f"{record.place}, field {column!r}: missing"
    if column in record.fields or not record.fields:
        return said
    there = ", ".join(map(repr, list(record.fields)[:8])) + (", ..." if len(record.fields) > 8 else "")
    cure = f"columns={{{field!r}: NAME}}, on the command line --columns {field}=NAME"
    return f"{said}; there are {there}: say which one it is, {cure}"


def read_records(source: Any, *, split: str = "train") -> Iterator[Record]:
    """The records of `source`, one by one, in order.

    source : path of a .jsonl, .json, .csv, .tsv (each also packed as .gz) or .parquet file; a `datasets.Dataset`, a
        table of pandas, pyarrow or polars, or any iterable of mappings, in which NaN stands for a missing value; or the
        name of a data set on the hub, which needs the package `datasets` and the network.
    split : of a hub data set; another than "train" is refused elsewhere.
    """
    from_hub = isinstance(source, str) and _is_hub_name(source) and not Path(source).exists()
    if split != "train" and not from_hub:
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "source"
        raise InputError(f"split={split!r} is of data sets on the hub, and {name} is none")
    if from_hub:
        name, rows = source, _hub_dataset(source, split)
    elif isinstance(source, (str, os.PathLike)):
        yield from _read_file(Path(source))
        return
    elif isinstance(source, Mapping) or not isinstance(found := _rows(source), Iterable):
        raise TypeError(f"source must be a path, a hub name or an iterable of records, got {type(source).__name__}")
    else:
        name, rows = "source", found
    for index, fields in enumerate(rows):
        if not isinstance(fields, Mapping):
            raise InputError(f"{name}, record {index}: expected a mapping of fields, got {type(fields).__name__}")
        values = {key: plain(value) for key, value in fields.items()}
        yield Record(f"{name}, record {index}", {key: None if is_missing(v) else v for key, v in values.items()})


def _rows(source: Any) -> Any:
    """The rows of a table, which itself would give its columns; anything else as it is."""
    try:
        for method in ("to_pylist", "to_dicts"):  # pyarrow, polars
            if hasattr(source, method):
                return getattr(source, method)()
        if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
            return source.to_dict("records")
    except UnicodeDecodeError as error:
        raise InputError(f"source: a text that is not UTF-8 ({error.reason})") from error
    return source


def _is_hub_name(text: str) -> bool:
    """`owner/name`, dots included, unless it ends like a file of data."""
    return HUB_NAME.fullmatch(text) is not None and not text.lower().endswith(DATA_SUFFIXES)


def _hub_dataset(name: str, split: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(f"{name}: no such file; data sets of the hub need: pip install datasets") from error
    try:
        return load_dataset(name, split=split)
    except Exception as error:  # the hub's own exceptions are many
        raise InputError(f"{name}: no such file, and the hub does not give it ({error})") from error


def _read_file(path: Path) -> Iterator[Record]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if packed else suffixes)[-1:]
    if HUB_NAME.fullmatch(str(path)) and not path.exists():
        raise InputError(f"{path}: no such file, and by its ending it is no data set of the hub")
    with readable(path):
        if kind == [".jsonl"]:
            yield from _json_lines(path)
        elif kind == [".json"]:
            yield from _json_list(path)
        elif kind in ([".csv"], [".tsv"]):
            yield from _csv_rows(path)
        elif kind == [".parquet"] and not packed:
            yield from _parquet_rows(path)
        else:
            raise InputError(f"{path}: unknown kind of file; expected {SUFFIXES}")


def _json_lines(path: Path) -> Iterator[Record]:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            fields = parse_json(line, place)
            if not isinstance(fields, dict):
                raise InputError(f"{place}: expected an object of fields, got {type(fields).__name__}")
            yield Record(place, plain(fields))


def _json_list(path: Path) -> Iterator[Record]:
    with open_text(path) as file:
        text = file.read()
    try:
        rows = parse_json(text, str(path))
    except InputError as error:
        if "Extra data" in str(error) and text.lstrip().startswith("{"):
            raise InputError(f"{error}; JSON lines belong into a .jsonl file") from None
        raise
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of records, got {type(rows).__name__}")
    for index, fields in enumerate(rows):
        if not isinstance(fields, dict):
            raise InputError(f"{path}, record {index}: expected an object of fields, got {type(fields).__name__}")
        yield Record(f"{path}, record {index}", plain(fields))


def _csv_rows(path: Path) -> Iterator[Record]:
    """Cells are text; one that is a JSON list of messages holds a conversation, an empty one counts as absent.

    The header says whether commas, semicolons or tabs divide.
    """
    with open_text(path) as file:
        head = file.readline()
        while head and not head.strip():
            head = file.readline()
        if "\0" in head:
            raise InputError(f"{path}: not a text file in UTF-8 (zero bytes, as in UTF-16); save it as UTF-8")
    with open_text(path) as file:
        delimiter = max(",;\t", key=re.sub('"[^"]*"', "", head).count)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        names: list[str] = []
        try:
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if not row or (len(row) == 1 and row != [""] and not row[0].strip()):
                    continue
                if not names:
                    names = [name.strip() for name in row]
                    if twice := [name for name in names if name and names.count(name) > 1]:
                        raise InputError(f"{place}: two columns are called {twice[0]!r}")
                    continue
                if len(row) != len(names):
                    raise InputError(f"{place}: expected {len(names)} cells, as in the header, got {len(row)}")
                yield Record(place, {name: _cell(text, place) for name, text in zip(names, row, strict=True)})
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}") from None


def _cell(text: str, place: str) -> Any:
    if text == "":
        return None
    if text.lstrip().startswith("["):
        try:
            value = plain(parse_json(text, place))
        except InputError:
            return text
        return value if is_conversation(value) else text
    return text


def _parquet_rows(path: Path) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(f"{path}: Parquet files need: pip install 'cvxrelu[parquet]'") from error
    row = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                for fields in batch.to_pylist():
                    yield Record(f"{path}, row {row}", plain(fields))
                    row += 1
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, after row {row}: a text that is not UTF-8 ({error.reason})") from error
    except (ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not a Parquet file, or a damaged one ({error})") from error
