"""From y, pairs, weights and margin to the loss: labels and targets are read and checked here."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.multinomial import Multinomial
from cvxrelu.support.checks import as_finite_array, short

__all__ = ["LARGEST_LABEL", "LOSSES", "as_loss", "read_pairs", "read_targets", "read_weight"]

LOSSES = ("squared", "logistic", "multinomial")
LARGEST_LABEL = 10_000  # beyond, y is hardly of classes


def as_loss(loss: Any) -> str:
    """One of the three names."""
    if not (isinstance(loss, str) and loss in LOSSES):
        raise ValueError(f"loss must be one of {', '.join(map(repr, LOSSES))}, got {short(loss)}")
    return loss


def read_pairs(pairs: Any, n: int, loss: str) -> Int[np.ndarray, "m 2"] | None:
    """(m, 2) rows of X, no row beside itself; None for None."""
    if pairs is None:
        return None
    if loss == "multinomial":
        raise ValueError("pairs needs loss='logistic' or 'squared': a difference has no classes")
    array = as_finite_array("pairs", pairs, ndim=(2,))
    if array.dtype.kind not in "iu" or array.shape[1] != 2 or array.shape[0] == 0:
        raise ValueError(
            f"pairs must be integers of shape (m, 2) with m >= 1, got {array.dtype} of shape {array.shape}"
        )
    rows = array.astype(np.int64)
    outside = np.flatnonzero((rows < 0).any(axis=1) | (rows >= n).any(axis=1))
    if outside.size:
        k = int(outside[0])
        raise ValueError(f"pairs must hold rows of X, from 0 to {n - 1}, got {rows[k].tolist()} at pair {k}")
    same = np.flatnonzero(rows[:, 0] == rows[:, 1])
    if same.size:
        k = int(same[0])
        raise ValueError(f"pairs must compare different rows, got row {rows[k, 0]} beside itself at pair {k}")
    return rows


def read_weight(sample_weight: Any, m: int) -> np.ndarray:
    """(m, 1) float64, ones for None."""
    if sample_weight is None:
        return np.ones((m, 1))
    given = as_finite_array("sample_weight", sample_weight, ndim=(1,))
    if given.shape != (m,):
        raise ValueError(f"sample_weight must have shape ({m},), got {given.shape}")
    if given.min() < 0 or given.max() == 0:
        raise ValueError(
            f"sample_weight must be nonnegative with a positive entry, got values in [{given.min()}, {given.max()}]"
        )
    return given[:, None].astype(np.float64)


def read_targets(
    loss: str, y: Any, weight: np.ndarray, margin: Any, paired: bool, x_shape: tuple[int, ...]
) -> tuple[Any, bool]:
    """(the loss in float64, whether y was one-dimensional and the network has one output)."""
    m = weight.shape[0]
    margins = _read_margin(margin, m, loss)
    if y is None and not (paired and loss == "logistic"):
        raise ValueError("y is required (only pairs= with loss='logistic' goes without it), got None")
    if loss == "multinomial":
        indicators = _read_classes(y, m)
        return Multinomial(indicators, weight, np.zeros_like(indicators)), False
    given = np.ones(m) if y is None else as_finite_array("y", y, ndim=(1,) if paired else (1, 2))
    if given.shape[0] != m or 0 in given.shape:
        shapes = f"({m},), one for each pair" if paired else f"({m},) or ({m}, c) with c >= 1 to match X {x_shape}"
        raise ValueError(f"y must have shape {shapes}, got {given.shape}")
    targets = given.astype(np.float64).reshape(m, -1)
    if loss == "squared":
        return Squared(targets, weight), given.ndim == 1
    if not np.isin(targets, (-1.0, 1.0)).all():
        bad = float(targets[~np.isin(targets, (-1.0, 1.0))][0])
        raise ValueError(f"y must hold -1 and +1 only with loss='logistic', got {bad!r}; for 0 and 1 pass 2 * y - 1")
    return Logistic(targets, weight, margins), given.ndim == 1


def _read_margin(margin: Any, m: int, loss: str) -> np.ndarray:
    given = as_finite_array("margin", margin, ndim=(0, 1))
    if given.shape not in ((), (m,)):
        raise ValueError(f"margin must be a number or have shape ({m},), got {given.shape}")
    if loss != "logistic" and given.any():
        raise ValueError(f"margin needs loss='logistic', got {short(margin)} with loss={loss!r}")
    return np.broadcast_to(given.astype(np.float64), (m,))[:, None].copy()


def _read_classes(y: Any, m: int) -> np.ndarray:
    """Unit rows (m, c), from labels 0 to c - 1 or from unit rows."""
    given = as_finite_array("y", y, ndim=(1, 2))
    if given.shape[0] != m:
        raise ValueError(f"y must have {m} rows to match X, got shape {given.shape}")
    if given.ndim == 2:
        if given.shape[1] < 2 or not (np.isin(given, (0, 1)).all() and (given.sum(axis=1) == 1).all()):
            raise ValueError(
                f"y of shape {given.shape} must be indicators with loss='multinomial': two or more columns, one 1 a row"
            )
        return given.astype(np.float64)
    if given.dtype.kind == "f" and (broken := given != np.floor(given)).any():
        raise ValueError(
            f"y must hold class labels 0, 1, ..., c - 1 with loss='multinomial', got {float(given[broken][0])!r}"
        )
    if given.min() < 0 or given.max() > LARGEST_LABEL:
        raise ValueError(
            f"y must hold class labels from 0 to c - 1 with loss='multinomial', got values in "
            f"[{given.min()}, {given.max()}]"
        )
    labels = given.astype(np.int64)
    return np.eye(max(2, int(labels.max()) + 1))[labels]
