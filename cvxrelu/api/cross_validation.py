"""Samples to train on and to score on: the folds of a cross-validation, and the scores of a network.

The loss is a sum over samples, rows or pairs of rows, so on a part of them the same beta regularises more. A fold
therefore solves with

    beta * (weight of its training samples) / (weight of all samples),

which keeps the balance of loss and penalty per sample that beta has on all of the data; and likewise with skip_l2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.support.checks import short
from cvxrelu.support.host import to_host

__all__ = [
    "Fold", "Samples", "Scorer", "accuracy", "as_folds", "as_scorer", "check_spread", "neg_log_loss",
    "neg_mean_squared_error", "r2", "standard_errors",
]  # fmt: skip


class Samples(NamedTuple):
    """What a loss sums over: rows of X, or pairs of them, with everything that comes by sample."""

    X: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "m *c"]
    weight: Float[np.ndarray, " m"]
    margin: Float[np.ndarray, " m"]
    pairs: Int[np.ndarray, "m 2"] | None

    def take(self, which: Int[np.ndarray, " k"]) -> Samples:
        X = self.X[which] if self.pairs is None else self.X
        pairs = None if self.pairs is None else self.pairs[which]
        return Samples(X, self.y[which], self.weight[which], self.margin[which], pairs)

    def predict(self, network: ReLUNetwork) -> np.ndarray:
        """f(X), or its differences."""
        f = network.predict(self.X)
        return f if self.pairs is None else f[self.pairs[:, 0]] - f[self.pairs[:, 1]]

    def as_given(self) -> tuple[np.ndarray, ...]:
        """(X, y), or (X, y, pairs)."""
        return (self.X, self.y) if self.pairs is None else (self.X, self.y, self.pairs)


Scorer = Callable[[ReLUNetwork, Samples], float]


class Fold(NamedTuple):
    """Positions of the training and of the test rows, and the share of all weight that the training rows carry."""

    train: Int[np.ndarray, " a"]
    test: Int[np.ndarray, " b"]
    share: float


def r2(a: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """`1 - sum weight (a - y)^2 / sum weight (y - mean)^2`, sums over samples and outputs, means by output."""
    return 1.0 - _squares(a - y, weight) / _spread(y, weight)


def neg_mean_squared_error(a: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """`-sum weight (a - y)^2 / sum weight`, the squares averaged over outputs."""
    return -_squares(a - y, weight) / float(weight.sum()) / y[0].size


def neg_log_loss(a: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Mean log-likelihood, weighed: of the signs y under `1 / (1 + exp(-y a))`, of indicators y under the softmax."""
    if a.ndim == 2 and not np.isin(y, (-1.0, 1.0)).all():
        each = np.sum(y * a, axis=1) - logsumexp(a, axis=1)
    else:
        each = -np.logaddexp(0.0, -y * a).reshape(len(a), -1).mean(axis=1)
    return float(each @ weight) / float(weight.sum())


def accuracy(a: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Share of the weight whose sign or class is right; a prediction of zero is half right."""
    if a.ndim == 2 and not np.isin(y, (-1.0, 1.0)).all():
        each = (np.argmax(a, axis=1) == np.argmax(y, axis=1)).astype(np.float64)
    else:
        each = (0.5 + 0.5 * np.sign(y * a)).reshape(len(a), -1).mean(axis=1)
    return float(each @ weight) / float(weight.sum())


# What every score is defined for: real targets, or signs and classes.
_SCORERS: dict[str, dict[str, Callable]] = {
    "squared": {"r2": r2, "neg_mean_squared_error": neg_mean_squared_error},
    "logistic": {"neg_log_loss": neg_log_loss, "accuracy": accuracy},
    "multinomial": {"neg_log_loss": neg_log_loss, "accuracy": accuracy},
}


def as_scorer(scorer: Any, loss: str) -> tuple[str, Scorer]:
    """Name and function of the score, the larger the better: by name, the user's own, or for None the loss' first."""
    known = _SCORERS[loss]
    name = next(iter(known)) if scorer is None else scorer
    if isinstance(name, str) and name in known:
        score = known[name]

        def named(network: ReLUNetwork, samples: Samples) -> float:
            return score(samples.predict(network), samples.y, samples.weight)

        return name, named
    if isinstance(name, str) or not callable(name):
        names = ", ".join(map(repr, known))
        raise ValueError(
            f"scorer must be None, one of {names}, or callable as (network, X, y), got {short(scorer)} with "
            f"loss={loss!r}"
        )

    def given(network: ReLUNetwork, samples: Samples) -> float:
        value = name(network, *samples.as_given())
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = np.nan
        if not np.isfinite(number):
            raise ValueError(f"scorer must return a finite number, got {short(value)}")
        return number

    return getattr(scorer, "__name__", "scorer"), given


def as_folds(cv: Any, weight: Float[np.ndarray, " n"], seed: int) -> list[Fold]:
    """The folds that `cv` describes.

    Parameters
    ----------
    cv : an integer k from 2 to n, for k parts of rows in random order; or pairs of (train, test) rows, as positions or
        as masks.
    weight : (n,) of all rows.
    """
    n = weight.size
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        if not 2 <= cv <= n:
            raise ValueError(f"cv must be at least 2 and at most {n}, the number of rows, got {cv}")
        parts = np.array_split(np.random.default_rng([seed, 5]).permutation(n), int(cv))
        pairs: list[Any] = [(np.setdiff1d(np.arange(n), part), np.sort(part)) for part in parts]
    elif isinstance(cv, Iterable) and not isinstance(cv, (str, bytes, dict)):
        pairs = list(cv)
    else:
        raise TypeError(f"cv must be None, an integer or a list of (train, test) pairs of rows, got {short(cv)}")
    if not pairs:
        raise ValueError("cv has no (train, test) pair")
    return [_as_fold(f"cv[{i}]", pair, weight) for i, pair in enumerate(pairs)]


def check_spread(folds: list[Fold], y: Float[np.ndarray, "n c"], weight: Float[np.ndarray, " n"]) -> None:
    """Refuse folds without an R^2: their test targets are all the same."""
    for i, fold in enumerate(folds):
        if _spread(y[fold.test], weight[fold.test]) == 0:
            raise ValueError(
                f"cv[{i}] has test rows whose targets are all the same, so R^2 does not exist for them; "
                "use scorer='neg_mean_squared_error' or other folds"
            )


def standard_errors(fold_scores: Float[np.ndarray, "k folds"]) -> Float[np.ndarray, " k"]:
    """Of the means over folds, `std(ddof=1) / sqrt(folds)`; NaN with one fold."""
    k, folds = fold_scores.shape
    return fold_scores.std(axis=1, ddof=1) / np.sqrt(folds) if folds > 1 else np.full(k, np.nan)


def _as_fold(name: str, pair: Any, weight: np.ndarray) -> Fold:
    try:
        train, test = pair
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a pair (train, test), got {short(pair)}") from None
    train, test = (_as_rows(f"{name}, {part},", rows, weight) for part, rows in (("train", train), ("test", test)))
    if (both := np.intersect1d(train, test)).size:
        raise ValueError(f"{name} trains and tests on the same row {both[0]} ({both.size} such rows)")
    return Fold(train, test, float(weight[train].sum() / weight.sum()))


def _as_rows(name: str, rows: Any, weight: np.ndarray) -> np.ndarray:
    n, rows = weight.size, to_host(rows)
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or rows.size == 0:
        raise ValueError(
            f"{name} must be integers, or a mask of shape ({n},), with at least one row, "
            f"got {rows.dtype} of shape {rows.shape}"
        )
    if rows.min() < 0 or rows.max() >= n or np.unique(rows).size < rows.size:
        raise ValueError(f"{name} must be distinct rows from 0 to {n - 1}, got values in [{rows.min()}, {rows.max()}]")
    if not weight[rows].any():
        raise ValueError(f"{name} has no row of positive sample_weight")
    return rows.astype(np.int64)


def _squares(values: np.ndarray, weight: np.ndarray) -> float:
    return float(np.sum(weight * (values**2).T))


def _spread(y: np.ndarray, weight: np.ndarray) -> float:
    """Weighted squares about the mean of each output, exactly 0 where all targets that count are equal."""
    y, weight = y[weight > 0], weight[weight > 0]
    if not np.ptp(y, axis=0).any():
        return 0.0
    return _squares(y - np.average(y, axis=0, weights=weight), weight)
