"""Which ridge, which beta, and whether neurons at all: grouped cross-validation inside the training split.

First the linear end: the ridge with the smallest held-out log-loss of the linear Bradley-Terry model. Then, at that
ridge, the network program for falling beta, each point started from the one before, every fold on its own; the walk
ends when two points in a row have not improved. In a fold, beta and ridge are multiplied by its share of all weight,
because the loss is a sum.

Whether the best point of the path is taken, or the linear model, is said in `head_rule`.

A solve that has ended is a file, so a fit that was killed goes on after the last one, to the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

import cvxrelu
from cvxrelu import ReLUNetwork
from cvxrelu.support.checked_data import checked
from cvxrelu.support.entries import stored
from cvxrelu.support.errors import InputError
from cvxrelu.support.status_line import tell
from cvxrelu.support.time_left import WalkClock
from cvxrelu_llm.heads.calibration import log_losses
from cvxrelu_llm.heads.rule import Point, accuracy_of, paired_difference, taken
from cvxrelu_llm.heads.standardise import Standard, standardise

__all__ = [
    "Choice",
    "Rows",
    "grouped_folds",
    "hidden_layer",
    "linear_network",
    "refuse_interrupted",
    "select_beta",
    "select_ridge",
    "walk_ridges",
]

RIDGES = tuple(float(ridge) for ridge in 10.0 ** np.arange(2, -8.5, -0.5))  # per unit of weight
PATIENCE = 2  # points of beta in a row that do not improve
ALWAYS = 1e-4  # the ridges below it are tried while the held-out loss falls


class Rows(NamedTuple):
    """Standardised features of one training set, and its pairs."""

    Z: Float[np.ndarray, "n r"]
    pairs: Int[np.ndarray, "m 2"]
    weight: Float[np.ndarray, " m"]
    margin: Float[np.ndarray, " m"]

    @property
    def differences(self) -> Float[np.ndarray, "m r"]:
        return self.Z[self.pairs[:, 0]] - self.Z[self.pairs[:, 1]]


@dataclass(frozen=True)
class Fold:
    """One part of the cross-validation: what it trains on, which pairs it does not see, its share of the weight.

    X, pairs, weight, margin : of all pairs. standard : of the training rows. What is made of them is made when asked
    for, and not kept: features of thousands of columns, once a fold, would be several times the data.
    """

    X: Float[np.ndarray, "n d"]
    pairs: Int[np.ndarray, "m 2"]
    weight: Float[np.ndarray, " m"]
    margin: Float[np.ndarray, " m"]
    standard: Standard
    test: Int[np.ndarray, " k"]
    share: float

    def made(self) -> tuple[Rows, Float[np.ndarray, "n r"]]:
        """Training rows that its training pairs use, and all rows, standardised by the former."""
        Z = self.standard.apply(self.X)
        used, local = np.unique(self.pairs[self.train], return_inverse=True)
        return Rows(Z[used], local.reshape(-1, 2), self.weight[self.train], self.margin[self.train]), Z

    @property
    def train(self) -> Int[np.ndarray, " k"]:
        return np.setdiff1d(np.arange(len(self.pairs)), self.test)


class Choice(NamedTuple):
    """What was chosen, the table it was chosen by, and the out-of-fold margins of the choice.

    beta None means the linear model; n_groups is that of the pairs when a path was walked, else 0.
    """

    skip_l2: float
    beta: float | None
    points: list[Point]
    margins: Float[np.ndarray, " m"] | None
    n_groups: int = 0


def grouped_folds(group: Int[np.ndarray, " m"], k: int, seed: int) -> list[Int[np.ndarray, " j"]]:
    """Test sides of k folds; a group goes, whole, to the smallest fold so far."""
    _, classes = np.unique(group, return_inverse=True)
    sizes = np.bincount(classes)
    k = min(k, len(sizes))
    if k < 2:
        raise InputError("choosing ridge and beta needs at least 2 groups of pairs; give both as numbers")
    shuffled = np.random.default_rng([seed, 11]).permutation(len(sizes))
    load, fold = np.zeros(k, dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
    for number in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold[number] = int(np.argmin(load))
        load[fold[number]] += sizes[number]
    return [np.flatnonzero(fold[classes] == j) for j in range(k)]


def make_folds(
    X: np.ndarray, pairs: np.ndarray, weight: np.ndarray, margin: np.ndarray, tests: Sequence[np.ndarray],
    components: int | None, directions: Sequence[np.ndarray | None] | None = None,
) -> list[Fold]:  # fmt: skip
    """Folds, each standardised by its own training rows; `directions`: of `standardise`, one a fold."""
    folds = []
    for j, test in enumerate(tests):
        train = np.setdiff1d(np.arange(len(pairs)), test)
        share = float(weight[train].sum() / weight.sum())
        if share == 0 or weight[test].sum() == 0:
            raise InputError("a fold of the cross-validation has no weight; use fewer folds, or drop pairs of weight 0")
        direction = None if directions is None else directions[j]
        standard = standardise(X, pairs[train].ravel(), components, direction)
        folds.append(Fold(X, pairs, weight, margin, standard, test, share))
    return folds


def linear_network(theta: Float[np.ndarray, " r"]) -> ReLUNetwork:
    """`f(z) = z @ theta`, without neurons."""
    return ReLUNetwork(np.zeros((len(theta), 0)), np.zeros(0), skip=theta)


def row_space(A: Float[np.ndarray, "m r"]) -> Float[np.ndarray, "r m"] | None:
    """An orthonormal basis of the rows, where they are fewer than the columns: linear models with a ridge lie there."""
    return np.linalg.qr(A.T)[0] if A.shape[1] > len(A) else None


def linear_direction(rows: Rows, ridge: float) -> Float[np.ndarray, " r"]:
    """theta of the linear model."""
    return cvxrelu.solve_logistic(
        rows.differences, l2=ridge, sample_weight=rows.weight, margin=rows.margin, tol=1e-5
    ).theta


def hidden_layer(network: ReLUNetwork, Z: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "n h"]:
    """`(z @ first_layer + hidden_bias)_+`."""
    bias = 0.0 if network.hidden_bias is None else network.hidden_bias
    return np.maximum(Z @ network.first_layer + bias, 0.0)


def margins_of(network: ReLUNetwork, Z: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """f(preferred) - f(rejected)."""
    f = network.predict(Z)
    return f[pairs[:, 0]] - f[pairs[:, 1]]


def refuse_interrupted(solution: Any) -> None:
    """KeyboardInterrupt where the user stopped the solve: what it had found so far must not be kept as its answer."""
    if solution.status is cvxrelu.Status.INTERRUPTED:
        raise KeyboardInterrupt


def select_ridge(
    folds: list[Fold], pairs: np.ndarray, weight: np.ndarray, group: np.ndarray, ridges: Sequence[float]
) -> tuple[float, np.ndarray, list[Point]]:
    """(ridge, out-of-fold margins, table) of the linear model with the smallest held-out log-loss."""
    total, parts = float(weight.sum()), []
    for fold in folds:
        rows, Z = fold.made()
        basis = row_space(rows.differences)
        few = rows._replace(Z=rows.Z if basis is None else rows.Z @ basis)
        held_out = Z[pairs[fold.test, 0]] - Z[pairs[fold.test, 1]]
        parts.append((few, held_out if basis is None else held_out @ basis, fold.test, fold.share))
        del rows, Z

    def margins_at(ridge: float) -> np.ndarray:
        margins = np.zeros(len(pairs))
        for rows, held_out, test, share in parts:
            margins[test] = held_out @ linear_direction(rows, ridge * share)
        return margins

    blank = Point("linear", 0.0, np.inf, np.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return walk_ridges(margins_at, [ridge * total for ridge in ridges], weight, group, blank)


def walk_ridges(
    margins_at: Callable[[float], np.ndarray], ridges: Sequence[float], weight: np.ndarray, group: np.ndarray,
    blank: Point,
) -> tuple[float, np.ndarray, list[Point]]:  # fmt: skip
    """(ridge, out-of-fold margins, table) of the smallest held-out log-loss; `blank` names what is walked.

    From the largest down, and below 1e-4 per unit of weight while the loss falls: data that can be separated on every
    fold want ridges that others need not visit.
    """
    points: list[Point] = []
    best: tuple[float, float, np.ndarray] | None = None
    for i, ridge in enumerate(sorted(ridges, reverse=True)):
        tell(f"choosing the ridge: {i + 1} of at most {len(ridges)}")
        margins = margins_at(ridge)
        loss, error = paired_difference(log_losses(margins), np.zeros(len(margins)), weight, group)
        accuracy = accuracy_of(margins, weight)
        points.append(blank._replace(skip_l2=ridge, loss=loss, error=error, accuracy=accuracy))
        if best is None or loss < best[0]:
            best = (loss, ridge, margins)
        elif ridge < 0.99 * ALWAYS * float(weight.sum()):
            break
    assert best is not None
    return best[1], best[2], points


def select_beta(
    folds: list[Fold],
    pairs: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray,
    linear: np.ndarray | None,
    largest: float,
    relative: Sequence[float],
    skip_l2: float,
    options: dict[str, Any],
    rule: str,
    folder: Path | None,
) -> Choice:
    """Down the path in beta, fold by fold, and the choice by `rule`, of `head_rule.taken`.

    linear : out-of-fold margins of the linear model; None where the network has no skip.
    """
    base = log_losses(np.zeros(len(pairs)) if linear is None else linear)
    points: list[Point] = []
    found: list[np.ndarray] = []
    before: list[ReLUNetwork | None] = [None] * len(folds)
    made = [fold.made() for fold in folds]
    if linear is not None:
        before = [linear_network(np.zeros(Z.shape[1])) for _, Z in made]
    stale, best = 0, float(weight @ base) / float(weight.sum())
    clock = WalkClock(len(relative), len(folds))
    for i, factor in enumerate(sorted(relative, reverse=True)):
        margins, widths = np.zeros(len(pairs)), []
        for j, fold in enumerate(folds):
            (rows, Z), test, share = made[j], fold.test, fold.share
            tell(f"choosing beta: {clock.at(i, j, i + PATIENCE - stale - 1)}, then the last fit")
            file = None if folder is None else folder / f"point-{i:03d}-fold-{j:02d}.safetensors"
            if file is not None and file.exists():
                with stored(file, "a network of a fit"):
                    network = ReLUNetwork.load(file)
            else:
                with checked():  # principal components may differ in scale, and are meant to
                    solution = cvxrelu.solve(
                        rows.Z, beta=factor * largest * share, loss="logistic", pairs=rows.pairs,
                        sample_weight=rows.weight, margin=rows.margin, warm_start=before[j],
                        skip_l2=skip_l2 * share, refine="rough", **options,
                    )  # fmt: skip
                refuse_interrupted(solution)
                network = solution.network
                if file is not None:
                    network.save(file)
            margins[test] = margins_of(network, Z, pairs[test])
            before[j] = network
            widths.append(network.n_neurons)
        losses = log_losses(margins)
        loss, error = paired_difference(losses, np.zeros(len(pairs)), weight, group)
        difference = paired_difference(losses, base, weight, group)
        points.append(
            Point(
                "network", skip_l2, factor * largest, factor, loss, error, *difference,
                n_neurons=float(np.mean(widths)), accuracy=accuracy_of(margins, weight),
            )
        )  # fmt: skip
        found.append(margins)
        stale = 0 if loss < best else stale + 1
        best = min(best, loss)
        if stale >= PATIENCE:
            break
    n_groups = len(np.unique(group))
    if linear is None:  # nothing to fall back on
        which = min(range(len(points)), key=lambda i: points[i].loss)
    else:
        decided = taken(points, accuracy_of(linear, weight), n_groups, rule)
        if decided is None:
            return Choice(skip_l2, None, points, linear, n_groups)
        which = decided
    return Choice(skip_l2, points[which].beta, points, found[which], n_groups)
