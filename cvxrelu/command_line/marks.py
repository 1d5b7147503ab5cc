"""Numbers as people write them: decimal points and commas, thousands, currencies, units."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from cvxrelu.command_line.cells import is_number
from cvxrelu.command_line.tables import Table

__all__ = ["MOST_NUMBERS", "as_number", "as_numbers", "mark_of_file", "unit_of"]

MOST_NUMBERS = 0.5  # of the cells, from which on other text among them is a slip
CURRENCY = "$€£¥₹%"
POINT = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
PLAIN = re.compile(r"[0-9eE+\-.\n]*")
UNIT = re.compile(r"[^A-Za-zµ°Ω]*[0-9][.,]?[ \u00a0\u202f]*(?P<unit>[A-Za-zµ°Ω][A-Za-z0-9µ°Ω²³/^.-]{0,11})")
COMMA = re.compile(r"[+-]?(?:[0-9]{1,3}(?:[.' ][0-9]{3})+|[0-9]+)(?:,[0-9]*)?(?:[eE][+-]?[0-9]+)?|[+-]?,[0-9]+")


def mark_of_file(table: Table) -> str | None:
    """The decimal mark of all columns that can be read in one way only; None where there is none, or they differ.

    A file is written by one program: beside a column with `97,4` the cells `1.234` and `999` are both above 900.
    """
    found = set()
    columns = [[cell for cell in table.column(k) if cell is not None] for k in range(table.n_columns)]
    if not any("," in cell for cells in columns for cell in cells):
        return None
    for cells in columns:
        if any("," in cell or "." in cell for cell in cells):
            unit = unit_of(cells)
            point, comma = (float(np.isfinite(as_numbers(cells, mark + unit)).mean()) for mark in ".,")
            if point != comma and max(point, comma) >= MOST_NUMBERS:
                found.add("." if point > comma else ",")
    return found.pop() if len(found) == 1 else None


def as_numbers(cells: Sequence[str], mark: str) -> np.ndarray:
    """Of plain numbers at once, of others one by one."""
    if mark == "." and PLAIN.fullmatch("\n".join(cells)):
        try:
            return np.array(cells, dtype=np.float64)
        except ValueError:
            pass
    return np.array([as_number(cell, mark) for cell in cells])


def unit_of(cells: Sequence[str]) -> str:
    """What stands behind the number in every cell, or nothing: the letter of 1e5 is part of a number."""
    found = UNIT.fullmatch(cells[0].strip()) if cells and not is_number(cells[0].strip()) else None
    unit = found["unit"] if found else ""
    return unit if unit and all(cell.rstrip().endswith(unit) for cell in cells) else ""


def as_number(cell: str, mark: str) -> float:
    """The value with this decimal mark and the unit behind it, if there is one; NaN for other text."""
    mark, unit = mark[:1], mark[1:]
    text = cell.strip().removesuffix(unit)
    negative = text.startswith("(") and text.endswith(")")
    text = (text[1:-1] if negative else text).strip(CURRENCY + " \u00a0\u202f").replace("\u2212", "-")
    if text[:1] in "+-" and text[1:2] in CURRENCY:  # -$12
        text = text[:1] + text[1:].strip(CURRENCY + " \u00a0\u202f")
    text = text.replace("\u00a0", " ").replace("\u202f", " ")
    if mark == "." and is_number(text):
        value = float(text)
    elif mark == "." and POINT.fullmatch(text):
        value = float(text.replace(",", ""))
    elif mark == "," and COMMA.fullmatch(text):
        value = float(re.sub("[.' ]", "", text).replace(",", "."))
    else:
        return math.nan
    return -value if negative else value
