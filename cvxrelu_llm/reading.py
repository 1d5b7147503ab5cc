"""Records out of JSON lines, JSON, CSV and Parquet files, data sets in memory, and data sets of the hub.

Every record comes with its place ("train.jsonl.gz, line 12"), which error messages about it begin with.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cvxrelu_llm.errors import InputError
from cvxrelu_llm.files import open_text, readable

__all__ = ["Record", "read_records"]

SUFFIXES = ".jsonl, .json, .csv (each also .gz) or .parquet"


class Record(NamedTuple):
    """One row and where it stands."""

    place: str
    fields: Mapping[str, Any]


def read_records(source: Any, *, split: str = "train") -> Iterator[Record]:
    """The records of `source`, one by one, in order.

    source : path of a .jsonl, .json, .csv (each also packed as .gz) or .parquet file; a `datasets.Dataset` or any
        iterable of mappings; or the name of a data set on the hub, which needs the package `datasets` and the network.
    split : of a hub data set.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.exists() or not _is_hub_name(str(source)):
            yield from _read_file(path)
            return
        name, source = str(source), _hub_dataset(str(source), split)
    elif isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise TypeError(f"source must be a path, a hub name or an iterable of records, got {type(source).__name__}")
    else:
        name = "source"
    for index, fields in enumerate(source):
        if not isinstance(fields, Mapping):
            raise InputError(f"{name}, record {index}: expected a mapping of fields, got {type(fields).__name__}")
        yield Record(f"{name}, record {index}", fields)


def _is_hub_name(text: str) -> bool:
    """`owner/name`, without the look of a file."""
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not Path(text.removesuffix(".gz")).suffix


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
    with readable(path):
        if kind == [".jsonl"]:
            yield from _json_lines(path)
        elif kind == [".json"]:
            yield from _json_list(path)
        elif kind == [".csv"]:
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
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{place}: not JSON ({error.msg} at column {error.colno})") from None
            if not isinstance(fields, dict):
                raise InputError(f"{place}: expected an object of fields, got {type(fields).__name__}")
            yield Record(place, fields)


def _json_list(path: Path) -> Iterator[Record]:
    with open_text(path) as file:
        try:
            rows = json.load(file)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of records, got {type(rows).__name__}")
    for index, fields in enumerate(rows):
        if not isinstance(fields, dict):
            raise InputError(f"{path}, record {index}: expected an object of fields, got {type(fields).__name__}")
        yield Record(f"{path}, record {index}", fields)


def _csv_rows(path: Path) -> Iterator[Record]:
    """Cells are text; one that is a JSON list holds chat messages, an empty one counts as absent."""
    with open_text(path) as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{place}: expected {len(reader.fieldnames or [])} cells, as in the header")
                yield Record(place, {name: _cell(text) for name, text in row.items() if text != ""})
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}") from None


def _cell(text: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _parquet_rows(path: Path) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(f"{path}: Parquet files need: pip install 'cvxrelu[parquet]'") from error
    try:
        with ParquetFile(path) as file:
            row = 0
            for batch in file.iter_batches():
                for fields in batch.to_pylist():
                    yield Record(f"{path}, row {row}", fields)
                    row += 1
    except ArrowException as error:
        raise InputError(f"{path}: not a Parquet file, or a damaged one ({error})") from error
