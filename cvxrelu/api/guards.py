"""Words for data that are no numbers, and for those that a solve takes as they are and that make it answer badly.

One error names text in a table given to an estimator. One warning, of `solve` and `path`, is about means and scales.

Measured on planted networks (n 200, d 5, beta 0.1 to 0.01 of beta_max): where the mean of y is 3 of its deviations, R^2
falls from 0.93 to 0.08, beyond 5 below zero, and a penalised constant column helps little; a skip leaves it at 0.93
whatever the mean. One column a thousand times as large as the others leaves nothing of them (R^2 0.12), one a
thousandth as large is itself lost.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.program.problem import Problem
from cvxrelu.support.blocks import blocks
from cvxrelu.support.checked_data import data_are_checked

__all__ = ["refuse_text", "warn_of_columns", "warn_of_scales"]

FAR = 3.0  # deviations of y, from which on its mean is far from zero
APART = 1e3  # of the scales of two columns, from which on they are far apart


def refuse_text(X: Any) -> None:
    """ValueError that names the first column of a data frame, or of an array of objects or text, that holds no numbers.

    scikit-learn would name the text alone. What else may be wrong is left to it.
    """
    frame = hasattr(X, "columns") and hasattr(X, "dtypes")
    if isinstance(X, list) and len({len(row) if isinstance(row, (list, tuple)) else -1 for row in X}) == 1:
        X = np.array(X, dtype=object)
    if not frame and not (isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "OUS"):
        return
    for k, name in enumerate(X.columns if frame else range(X.shape[1])):
        column = np.asarray(X[name] if frame else X[:, k])
        if column.ndim != 1 or column.dtype.kind in "biufc":
            continue
        word = next((value for value in column if not _is_number(value)), None)
        if word is not None and (frame or isinstance(word, str)):
            raise ValueError(
                f"X holds {word!r} in column {name!r}; expected numbers: encode it, for example by a "
                "ColumnTransformer with OneHotEncoder of scikit-learn, or leave it out (`cvxrelu fit` reads such "
                "tables as they are)"
            )


def _is_number(value: Any) -> bool:
    if isinstance(value, np.datetime64 | np.timedelta64):
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None  # a missing value, which scikit-learn names
    return True


def warn_of_scales(problem: Problem, stacklevel: int = 3) -> None:
    """One UserWarning that names the cure, where y has a mean that nothing carries or columns of X differ in scale.

    stacklevel : of `warnings.warn`; 3 is whoever called the function that calls this.
    """
    if data_are_checked():
        return
    found = [words for words in (_mean_of_y(problem), _scales_of_columns(problem.X[:, : problem.n_features])) if words]
    if found:
        warnings.warn("; ".join(found), UserWarning, stacklevel=stacklevel)


def _mean_of_y(problem: Problem) -> str:
    """What is wrong with y, or nothing. Labels have no mean to speak of, and a bias drops out of pairs."""
    if problem.loss_name != "squared" or problem.skip_kind or problem.readout is not None:
        return ""
    y, weight = problem.plain.y, problem.plain.weight[:, 0]
    if not weight.any():
        return ""
    mean = np.average(y, axis=0, weights=weight)
    deviation = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
    # Of a constant y there is nothing to explain; its deviation is what rounding makes of its mean.
    varies = deviation > 1e-12 * np.abs(mean) + np.finfo(np.float64).tiny
    ratio = np.where(varies, np.abs(mean) / np.where(varies, deviation, 1.0), 0.0)
    worst = int(np.argmax(ratio))
    if ratio[worst] <= FAR:
        return ""
    which = "y" if y.shape[1] == 1 else f"column {worst} of y"
    carried = ", an intercept being penalised with them" if problem.intercept else ""
    return (
        f"the mean of {which} is {ratio[worst]:.3g} of its deviations from zero, and only penalised neurons can carry "
        f"it{carried}: pass skip='bias', or subtract the mean from y (the estimators do)"
    )


def warn_of_columns(X: Float[np.ndarray, "n d"], stacklevel: int = 3) -> None:
    """The warning about columns alone."""
    if not data_are_checked() and (words := _scales_of_columns(X)):
        warnings.warn(words, UserWarning, stacklevel=stacklevel)


def _scales_of_columns(X: np.ndarray) -> str:
    """What is wrong with X, or nothing. The scale of a column is the root mean square of its entries but zeros.

    Zeros are left out so that a rare indicator is not small, nor the constant column, which `solve` appends itself.
    """
    squares, counts = np.zeros(X.shape[1]), np.zeros(X.shape[1], dtype=np.int64)
    for b in blocks(X.shape[1], X):
        squares += np.einsum("nd,nd->d", X[b], X[b], dtype=np.float64)
        counts += np.count_nonzero(X[b], axis=0)
    used = np.flatnonzero(counts)
    if used.size < 2:
        return ""
    scales = np.sqrt(squares[used] / counts[used])
    low, high = int(np.argmin(scales)), int(np.argmax(scales))
    if scales[high] < APART * scales[low]:
        return ""
    return (
        f"columns of X differ in scale, from {scales[low]:.2g} (column {used[low]}) to {scales[high]:.2g} (column "
        f"{used[high]}), and the penalty takes them as they are: standardise them (the estimators do)"
    )
