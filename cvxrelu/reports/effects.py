"""What each column does to the prediction of a network: how much, and in which direction.

    change    mean over rows of |f(x) - f(x')|, x' with the column's value of another row
    average   for a value v, mean over rows of f(x with the column at v): partial dependence

Both are of the network, not of the world: they say what it does with a column beside the others. Where columns go
together, rows enter that nobody has seen. Source: J. H. Friedman, *Greedy function approximation*, Annals of Statistics
2001; L. Breiman, *Random forests*, Machine Learning 2001.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Effect", "Effects", "Varied", "effects_of"]

MOST_ROWS, DRAWN = 300, 9  # rows that are averaged over; columns with a curve of their own
CELLS = 2e5  # of the rows that are looked at: of a wide table fewer, but never less than LEAST
LEAST = 50


@dataclass(frozen=True)
class Varied:
    """A column and the values to try: `grid[i]` is what the network's `features` are at `values[i]`.

    kind : "number", "date" (days since 1970) or "category". values : numbers, or the names of categories. seen : of a
    number or date, (n,) values of the rows. missing : what the features are where the value is missing; None for never.
    """

    name: str
    kind: str
    features: list[int]
    values: list[float] | list[str]
    grid: np.ndarray
    unit: str = ""
    seen: np.ndarray | None = None
    missing: np.ndarray | None = None


@dataclass(frozen=True)
class Effect:
    """A column, the mean change of the prediction, and (k, c) averages at its values; (c,) where it is missing."""

    column: Varied
    change: float
    averages: np.ndarray
    missing: np.ndarray | None = None


@dataclass(frozen=True)
class Effects:
    """Of all columns, the largest change first: `changes` by name, `drawn` those with averages.

    base : (c,) average prediction. outputs : what the c outputs are, one without a name. predicted : what the axis of
    the prediction says, with its unit. rows : how many were averaged over.
    """

    changes: dict[str, float]
    drawn: list[Effect]
    base: np.ndarray
    outputs: list[str]
    predicted: str
    rows: int


def effects_of(
    predict: Callable[[np.ndarray], np.ndarray],
    X: np.ndarray,
    columns: Sequence[Varied],
    *,
    outputs: Sequence[str],
    predicted: str,
    seed: int = 0,
) -> Effects:
    """Effects on `predict`, (n, d) to (n, c), over rows of X; columns that change nothing are left out of `drawn`."""
    rng = np.random.default_rng(seed)
    rows = min(len(X), MOST_ROWS, max(LEAST, int(CELLS / X.shape[1])))
    X = X[np.sort(rng.permutation(len(X))[:rows])]
    base, other = predict(X), rng.permutation(rows)
    changes = []
    for column in columns:
        exchanged = X.copy()
        exchanged[:, column.features] = X[other][:, column.features]
        changes.append(float(np.abs(predict(exchanged) - base).mean(axis=0).max()))
    order = sorted(range(len(columns)), key=lambda k: -changes[k])

    def average(column: Varied, value: np.ndarray) -> np.ndarray:
        changed = X.copy()
        changed[:, column.features] = value
        return predict(changed).mean(axis=0)

    drawn = [
        Effect(
            column, changes[k], np.array([average(column, value) for value in column.grid]),
            None if column.missing is None else average(column, column.missing),
        )
        for k in order[:DRAWN] if changes[k] > 0 and len((column := columns[k]).values) > 1
    ]  # fmt: skip
    named = {columns[k].name: changes[k] for k in order}
    return Effects(named, drawn, base.mean(axis=0), list(outputs), predicted, rows)
