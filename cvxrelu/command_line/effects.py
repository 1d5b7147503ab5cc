"""The effects of the columns of a table, in the units and under the names that the table has."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax

from cvxrelu.command_line.columns import Column, number_column
from cvxrelu.command_line.training import Task, Trained
from cvxrelu.reports.effects import Effects, Varied, effects_of

__all__ = ["column_effects", "target_words"]

GRID, FEW = 25, 12  # values of a column of numbers that are tried, and how many different ones are all tried
TAIL = 0.01  # share of the rows at either end that the grid leaves out


def target_words(task: Task) -> str:
    """Name and unit of the target, for an axis; "value" where there is no name."""
    name, data = task.data.target_name or "value", task.data
    if task.classes or not data.columns:
        return name
    column = number_column(data.target, data.target_index, data.decimal)
    unit = column.style[1:] if column is not None else ""
    return f"{name}, {unit}" if unit else name


def column_effects(task: Task, trained: Trained, seed: int) -> Effects:
    """Of every column, over the training rows: on the prediction, or on the share that each class is given."""
    X, network, classes = task.data.X[task.train_rows], trained.network, task.classes
    logistic = network.metadata.get("settings", {}).get("loss") in ("logistic", "multinomial")

    def predict(rows: np.ndarray) -> np.ndarray:
        output = network.predict(rows).reshape(len(rows), -1)
        if logistic:
            output = expit(output) if output.shape[1] == 1 else softmax(output, axis=1)
        return output

    outputs = [""] if not classes else [str(classes[1])] if len(classes) == 2 else [str(name) for name in classes]
    predicted = target_words(task)
    if classes:
        kind = "probability" if logistic else "estimated share"
        predicted = f"{kind} of {outputs[0]}" if len(classes) == 2 else f"{kind} of a class"
        outputs = outputs if len(classes) > 2 else [""]
    else:
        predicted = f"predicted {predicted}"
    return effects_of(predict, X, _varied(task, X), outputs=outputs, predicted=predicted, seed=seed)


def _varied(task: Task, X: np.ndarray) -> list[Varied]:
    data = task.data
    if data.plan is None:
        names = data.feature_names or [f"column {k + 1}" for k in range(X.shape[1])]
        grids = [_grid(X[:, k]) for k in range(X.shape[1])]
        return [
            Varied(name, "number", [k], grids[k].tolist(), grids[k][:, None], seen=X[:, k])
            for k, name in enumerate(names)
        ]
    found, first = [], 0
    for column in data.plan.columns:
        width = len(column.features)
        features, first = list(range(first, first + width)), first + width
        found.append(_of_column(column, features, X[:, features]))
    return found


def _of_column(column: Column, features: list[int], rows: np.ndarray) -> Varied:
    missing = column.encode([None], str)[0][0] if column.missing else None
    if column.kind == "category":
        levels = sorted([*column.levels, *([column.base] if column.base else [])])
        unknown = "\0"  # no cell of a table holds it: all the values that share a feature
        grid = column.encode([*levels, *[unknown] * column.other], str)[0]
        return Varied(
            column.name, "category", features, [*levels, *["other"] * column.other], grid, missing=missing
        )  # fmt: skip
    seen = rows[:, 0] if missing is None else rows[rows[:, -1] == 0, 0]
    values = np.array([0.0, 1.0]) if column.kind == "boolean" else _grid(seen)
    grid = column.spread(values)
    if missing is not None:
        grid = np.column_stack([grid, np.zeros(len(grid))])
    if column.kind == "boolean":
        return Varied(column.name, "category", features, ["no", "yes"], grid, missing=missing)
    unit = column.style[1:] if column.kind == "number" else ""
    return Varied(column.name, column.kind, features, values.tolist(), grid, unit, seen, missing)


def _grid(seen: np.ndarray) -> np.ndarray:
    """All values where they are few, else points between the tails, evenly spaced."""
    distinct = np.unique(seen)
    if distinct.size <= FEW:
        return distinct
    low, high = np.quantile(seen, [TAIL, 1.0 - TAIL])
    return np.linspace(low, high, GRID) if low < high else distinct[:: -(-distinct.size // GRID)]
