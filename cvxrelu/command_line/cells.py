"""What a cell of a table is, and the error that says what is wrong with one."""

from __future__ import annotations

import re

__all__ = ["MISSING", "UserError", "as_number", "is_number", "looks_like_number"]

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "?"})
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class UserError(Exception):
    """Something the user can mend: shown as one line, exit code 2."""


def is_number(cell: str) -> bool:
    """Whether the cell is a number in ASCII digits, as the module says; it may be too large to be finite."""
    return _NUMBER.fullmatch(cell) is not None


def as_number(cell: str) -> float:
    """The value; ValueError for other text."""
    cell = cell.strip()
    if not is_number(cell):
        raise ValueError(cell)
    return float(cell)


def looks_like_number(cell: str) -> bool:
    """Whether Python's `float` takes it, which says that no one meant a name; whether it is one says `is_number`."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.lower() not in MISSING
