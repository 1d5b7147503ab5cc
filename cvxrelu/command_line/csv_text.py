"""Rows of cells out of the text of a CSV: its encoding, what parts its cells, and whether its first line is a header.

Text is UTF-8, or UTF-16 where its first bytes say so, else Windows-1252, of which Latin-1 is a part. Cells are parted
by commas, semicolons, tabs or bars, whichever part all of the first lines alike.

The first line is the header where it holds words and no number, or numbers and words among which are the names asked
for. It is data where it holds numbers alone, or a word that comes again below it. What could be either is refused,
with the option that decides.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cvxrelu.command_line.cells import MISSING, UserError, looks_like_number

__all__ = ["Rows", "decoded", "rows_of"]

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


class Rows(NamedTuple):
    """names : of the columns, None without a header. cells : of equally long rows. lines : where each row ends."""

    names: list[str] | None
    cells: list[list[str]]
    lines: list[int]


def decoded(path: Path, data: bytes) -> str:
    """The text of a file, by its byte-order mark, as UTF-8, or else as Windows-1252."""
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return data.decode("utf-16")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Bytes that Windows-1252 has no letter for, or control characters, are of no text in it.
        text = data.decode("cp1252", errors="replace")
        if "\ufffd" in text or CONTROL.search(text):
            raise UserError(
                f"{path}: not a text file in UTF-8 (byte {error.start}), nor in Windows-1252; save it as UTF-8"
            ) from error
    return text


def rows_of(path: Path, text: str, wanted: Sequence[str], header: bool | None) -> Rows:
    """The rows of the text; path is for its errors, wanted and header as in `read_table`."""
    if "\0" in text:
        raise UserError(f"{path}: not a text file in UTF-8 (zero bytes, as in UTF-16); save it as UTF-8")
    delimiter = _delimiter(text)
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
        if names[0] == "" and len(names) > 1 and "" not in names[1:]:  # row numbers, as pandas writes them
            names, lines = names[1:], [lines[0][1:], *(line[1:] for line in lines[1:])]
        if "" in names:
            raise UserError(f"{path}: column {names.index('') + 1} has no name")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(f"{path}: two columns are called {twice[0]!r}")
        lines, numbers = lines[1:], numbers[1:]
    if not lines:
        raise UserError(f"{path}: a header, but no rows")
    return Rows(names, lines, numbers)


def _delimiter(text: str) -> str:
    """What parts all of the first lines alike, tabs, semicolons and bars before commas; else the most frequent."""
    lines = [line for line in re.sub('"[^"]*"', "", text[: 1 << 16]).lstrip().splitlines() if line.strip()][:50]
    if len(text) > 1 << 16:
        lines = lines[:-1] or lines  # the last may be cut
    for mark in "\t;|,":
        if len(counts := {line.count(mark) for line in lines}) == 1 and counts != {0}:
            return mark
    return max(",;\t|", key=lines[0].count) if lines else ","


def _is_header(path: Path, lines: Sequence[Sequence[str]], wanted: Sequence[str]) -> bool:
    """Whether the first line holds names; an error where it might and might not."""
    first = lines[0]
    words = [k for k, cell in enumerate(first) if cell.lower() not in MISSING and not looks_like_number(cell)]
    numbers = [k for k, cell in enumerate(first) if looks_like_number(cell)]
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
