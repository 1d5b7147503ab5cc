"""Columns of a table as features of a network: numbers, yes and no, dates, and categories.

`plan_columns` looks at the training table and decides for every column what its cells are; a `Column` is that decision,
plain enough for JSON, and applies it to any other table. Nothing is guessed twice: what is ambiguous is refused, with
the option that decides.

    number     12, -.5, 1e-3; 1,234.5 or, with a decimal comma, 1.234,5; $ 12, 12 %, (12) for -12; with one unit
               behind all cells of the column, 12 km
    boolean    two of true and false, yes and no, t and f, y and n: 1 and 0
    date       2024-03-31, 2024/03/31, 31.03.2024, 31/03/2024 or 03/31/2024, a time behind it or not: days since 1970,
               and where a column spans most of a year, sine and cosine of the time of the year
    category   other text of few different values: a feature for each frequent one, and one for all others

Cells without a value are filled, numbers with the median, and a feature of their own says so where there were any.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from cvxrelu.command_line.cells import UserError, looks_like_number
from cvxrelu.command_line.marks import MOST_NUMBERS, as_number, as_numbers, unit_of
from cvxrelu.command_line.tables import Table

__all__ = ["Column", "Plan", "number_column", "plan_columns"]

BOOLEANS = ({"true": 1.0, "false": 0.0}, {"yes": 1.0, "no": 0.0}, {"t": 1.0, "f": 0.0}, {"y": 1.0, "n": 0.0})
DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d")
TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", "T%H:%M:%S.%f", " %H:%M:%S.%f", "T%H:%M:%SZ")
SEASONAL = 300.0  # days that a column of dates spans, from which on the time of the year is a feature
YEAR = 365.2425
LEVELS, RARE = 50, 0.005  # categories at most, and the share of rows below which one joins the others
EPOCH = datetime(1970, 1, 1)


@dataclasses.dataclass(frozen=True)
class Column:
    """What the cells of one column mean, and the features they become.

    kind : "number", "boolean", "date" or "category". style : the decimal mark of numbers and, behind it, their unit if
    they have one; the format of dates. fill : for missing numbers and dates. levels : of a category, with a feature
    each. base : one without, where there are two. missing : whether a feature says that the value is missing. other :
    whether one stands for all other levels. seasonal : whether dates give the time of the year.
    """

    name: str
    kind: str
    style: str = ""
    fill: float = 0.0
    levels: tuple[str, ...] = ()
    base: str = ""
    missing: bool = False
    other: bool = False
    seasonal: bool = False

    @property
    def features(self) -> list[str]:
        """Their names, in order."""
        more = [f"{self.name} is missing"] * self.missing
        if self.kind == "category":
            return [f"{self.name} = {level}" for level in self.levels] + [f"{self.name} is other"] * self.other + more
        seasonal = [f"{self.name}, sine of the year", f"{self.name}, cosine of the year"] * self.seasonal
        return [self.name, *seasonal, *more]

    def values(self, cells: Sequence[str]) -> np.ndarray:
        """Of numbers, booleans or dates; NaN for other text."""
        if self.kind == "number":
            return as_numbers(cells, self.style)
        return np.array([READERS[self.kind](cell, self.style) for cell in cells], dtype=float)

    def encode(self, cells: Sequence[str | None], place: Callable[[int], str]) -> tuple[np.ndarray, int]:
        """((n, k) features, how many cells were new to a category); UserError names the place of a bad cell."""
        absent = np.array([cell is None for cell in cells])
        if self.kind == "category":
            known = {level: j for j, level in enumerate(self.levels)}
            values, new = np.zeros((len(cells), len(self.levels) + self.other)), 0
            for row, cell in enumerate(cells):
                j = None if cell is None else known.get(cell)
                if j is not None:
                    values[row, j] = 1.0
                elif cell is not None and cell != self.base:
                    new += 1
                    values[row, len(self.levels) :] = 1.0
        else:
            new, single = 0, np.full(len(cells), self.fill)
            single[~absent] = self.values([cell for cell in cells if cell is not None])
            for i in map(int, np.flatnonzero(~np.isfinite(single))):
                raise UserError(f"{place(i)}: {str(cells[i])[:40]!r} is no {self.kind}; {CURE[self.kind]}")
            values = self.spread(single)
        if self.missing:
            values = np.column_stack([values, absent])
        return values, new

    def spread(self, single: np.ndarray) -> np.ndarray:
        """(n, k) features, without that for missing values, of numbers, booleans or dates (n,)."""
        angle = 2.0 * math.pi * single / YEAR
        return np.stack([single, np.sin(angle), np.cos(angle)] if self.seasonal else [single], axis=1)

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**dataclasses.asdict(self), "levels": list(self.levels)}

    @classmethod
    def of(cls, record: Any) -> Column:
        """The inverse of `record`; ValueError where an entry is missing, unknown or of another type."""
        kinds = {field.name: field.type for field in dataclasses.fields(cls)}
        if not isinstance(record, Mapping) or set(record) != set(kinds):
            raise ValueError(f"a column must have the entries {', '.join(kinds)}")
        types: dict[str, Any] = {"str": str, "float": (int, float), "bool": bool, "tuple[str, ...]": list}
        for name, kind in kinds.items():
            value = record[name]
            if not isinstance(value, types[str(kind)]) or (kind == "float" and isinstance(value, bool)):
                raise ValueError(f"the entry {name} of a column has the wrong type")
        if record["kind"] not in (*READERS, "category"):
            raise ValueError(f"the kind of a column is {str(record['kind'])[:40]!r}")
        levels = record["levels"]
        if not all(isinstance(level, str) for level in levels) or len(set(levels)) != len(levels):
            raise ValueError("the levels of a column must be different texts")
        if not math.isfinite(record["fill"]):
            raise ValueError("the fill of a column must be finite")
        return cls(**{**record, "levels": tuple(levels), "fill": float(record["fill"])})


@dataclasses.dataclass(frozen=True)
class Plan:
    """The columns that become features, in order, and what was left out, in words."""

    columns: list[Column]
    left_out: list[str]

    @property
    def features(self) -> list[str]:
        """Their names, all different: a column may be called what another one's feature is."""
        found: dict[str, None] = {}
        for name in (name for column in self.columns for name in column.features):
            while name in found:
                name += "'"
            found[name] = None
        return list(found)

    def encode(self, table: Table, positions: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        """(features (n, d), notes) of these columns of a table, in the order of the plan."""
        parts, notes = [], []
        for column, k in zip(self.columns, positions, strict=True):
            values, new = column.encode(table.column(k), partial(table.place, column=k))
            parts.append(values)
            if new and not column.other:
                notes.append(f"{new} cells of {column.name!r} hold values that the model has not seen")
        return np.concatenate(parts, axis=1), notes


def plan_columns(
    table: Table, positions: Iterable[int], decimal: str | None = None, rows: Sequence[int] | None = None
) -> Plan:
    """Decide what these columns of a table are.

    decimal : "." or ",", where numbers could be read with either; None to be told so. rows : those to train on, from
    which the values to fill in, and the levels of categories, are taken; None for all.

    Raises UserError for a column that cannot be decided, or that has numbers and other text.
    """
    columns, left_out = [], []
    for k in positions:
        name, cells = table.name(k), table.column(k)
        present = [cell for cell in cells if cell is not None]
        if not present or (len(cells) > 1 and len(set(present)) < 2):
            left_out.append(f"{name!r} ({'one value only' if present else 'no value'})")
            continue
        column = (
            number_column(table, k, decimal) or _boolean(name, set(present)) or _date(table, name, present)
            or Column(name, "category")
        )  # fmt: skip
        trained = present if rows is None else [cell for row in rows if (cell := cells[row]) is not None]
        if column.kind == "category":
            distinct = Counter(trained)
            if len(set(present)) > max(LEVELS, 0.5 * len(present)):
                left_out.append(f"{name!r} (text of {len(set(present))} different values)")
                continue
            column = _with_levels(column, distinct)
        elif trained:
            column = dataclasses.replace(column, fill=float(np.median(column.values(trained))))
        columns.append(dataclasses.replace(column, missing=len(present) < len(cells)))
    if not columns:
        raise UserError(f"{table.path}: no column can be a feature: {', '.join(left_out)}")
    return Plan(columns, left_out)


# -- what a column is -------------------------------------------------------------------------------------------------
def number_column(table: Table, k: int, decimal: str | None = None) -> Column | None:
    """Column k as numbers, or None where less than half of its values are; decimal as in `plan_columns`.

    Raises UserError for other text among numbers, and for commas that could be either.
    """
    name, cells = table.name(k), table.column(k)
    present = [cell for cell in cells if cell is not None]
    # Without a comma anywhere points are decimal points: 1.234 is what it looks like.
    marks = [decimal] if decimal else [".", ","] if any("," in cell for cell in present) else ["."]
    marks = [mark + unit_of(present) for mark in marks]
    found = {mark: as_numbers(present, mark) for mark in marks}
    read = [mark for mark in marks if np.isfinite(found[mark]).all()]
    if len(read) == 2 and not np.array_equal(found[read[0]], found[read[1]]):
        cell = present[int(np.flatnonzero(found[read[0]] != found[read[1]])[0])]
        raise UserError(
            f"{table.path}: {cell[:40]!r} in column {name!r} is {as_number(cell, read[0]):g} with a decimal point and "
            f"{as_number(cell, read[1]):g} with a decimal comma; say which: --decimal . or --decimal ,"
        )
    if read:
        return Column(name, "number", read[0])
    share = {mark: float(np.isfinite(found[mark]).mean()) for mark in marks}
    mark = max(marks, key=lambda mark: share[mark])
    if share[mark] < MOST_NUMBERS:
        return None
    row = next(i for i, cell in enumerate(cells) if cell is not None and not math.isfinite(as_number(cell, mark)))
    cell = str(cells[row])[:40]
    if looks_like_number(cell) and not math.isfinite(float(cell)):
        raise UserError(f"{table.place(row, k)}: {cell} is not a finite number")
    raise UserError(f"{table.place(row, k)}: {cell!r} is not a number, and most of the column are; {CURE['number']}")


def _boolean(name: str, distinct: set[str]) -> Column | None:
    lower = {level.lower() for level in distinct}
    return Column(name, "boolean") if any(lower == set(words) for words in BOOLEANS) else None


def _date(table: Table, name: str, present: Sequence[str]) -> Column | None:
    first, distinct = present[0], list(dict.fromkeys(present))
    fitting = [day + clock for day in DATES for clock in TIMES if math.isfinite(_as_date(first, day + clock))]
    fitting = [style for style in fitting if all(math.isfinite(_as_date(cell, style)) for cell in distinct)]
    if not fitting:
        return None
    days = {style: [_as_date(cell, style) for cell in distinct] for style in fitting}
    if any(days[style] != days[fitting[0]] for style in fitting[1:]):
        raise UserError(
            f"{table.path}: {first!r} in column {name!r} may begin with the day or with the month; write dates as "
            f"2024-03-31, or leave the column out: --drop {name}"
        )
    span = max(days[fitting[0]]) - min(days[fitting[0]])
    return Column(name, "date", fitting[0], seasonal=span >= SEASONAL)


def _with_levels(column: Column, distinct: Mapping[str, int]) -> Column:
    rows = sum(distinct.values())
    frequent = [level for level, count in Counter(distinct).most_common(LEVELS) if count >= max(2, RARE * rows)]
    other = len(frequent) < len(distinct)
    base = min(frequent) if len(distinct) == 2 and not other else ""  # one feature says it all
    return dataclasses.replace(column, levels=tuple(sorted(set(frequent) - {base})), base=base, other=other)


# -- what a cell is ---------------------------------------------------------------------------------------------------
def _as_boolean(cell: str, _: str) -> float:
    return next((words[cell.lower()] for words in BOOLEANS if cell.lower() in words), math.nan)


def _as_date(cell: str, style: str) -> float:
    """Days since 1970, NaN for other text."""
    try:
        return (datetime.strptime(cell.strip(), style) - EPOCH).total_seconds() / 86400.0
    except ValueError:
        return math.nan


READERS: dict[str, Callable[[str, str], float]] = {
    "number": as_number, "boolean": _as_boolean, "date": _as_date,
}  # fmt: skip
CURE = {
    "number": "if it stands for a missing value, pass it with --na; else correct it, or --drop the column",
    "boolean": "the model knows two values of this column only",
    "date": "the model was trained on dates as they were written there",
}
