"""Whether neurons are taken: the rule, and the figures that it goes by.

Of a path in beta with K points, let k be the one with the smallest held-out log-loss, d_k the mean of its losses minus
those of the linear model, pair by pair, and s_k the standard error of that mean over G groups. Neurons are taken, by

    significant    where  d_k < -max(t(1 - 0.05 / K, G - 1) s_k, 0.002),  and the held-out accuracy is not below the
                   linear model's
    lowest         where  d_k < 0

t being the quantile of Student's distribution. The reason for the first is the winner's curse. The best of several
points is chosen by the very numbers that it is judged by: where no point is better than the linear model, the smallest
of K differences still is negative most of the time, and below minus one standard error in a good part of the cases. The
test at 5 % is therefore one-sided, as there is only one way to win, and corrected for the number of points (Bonferroni;
points of one path are alike, so that it is on the safe side). The price: gains that the data cannot tell from chance
are given away, and so are gains of less than 0.002 nats, which many pairs could tell, but nobody would notice. Neither
rule is a guarantee, held-out pairs being a sample.

Source: R. G. Miller, *Simultaneous statistical inference*, 1981, for the correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

__all__ = ["RULES", "Point", "accuracy_of", "compared", "paired_difference", "taken"]

RULES = ("significant", "lowest")
LEVEL = 0.05
EFFECT = 0.002  # nats a pair: the least gain that neurons are taken for


class Point(NamedTuple):
    """One candidate: a ridge or a beta, its held-out log-loss and the difference to the linear model's.

    `loss` and `difference` come with standard errors over groups; `n_neurons` is the mean over folds, `accuracy` that
    of the held-out pairs, ties one half.
    """

    kind: str
    skip_l2: float
    beta: float
    relative: float
    loss: float
    error: float
    difference: float
    difference_error: float
    n_neurons: float
    accuracy: float


def paired_difference(
    losses: Float[np.ndarray, " m"], others: Float[np.ndarray, " m"], weight: np.ndarray, group: np.ndarray
) -> tuple[float, float]:
    """Mean of `losses - others` and its standard error, groups being what is independent."""
    _, classes = np.unique(group, return_inverse=True)
    total = float(weight.sum())
    mean = float(weight @ (losses - others)) / total
    sums = np.bincount(classes, weight * (losses - others - mean))
    groups = len(sums)
    return mean, float(np.sqrt(groups / max(groups - 1, 1) * np.sum(sums**2)) / total)


def accuracy_of(margins: Float[np.ndarray, " m"], weight: Float[np.ndarray, " m"]) -> float:
    """Weighted share of positive margins, ties one half."""
    return float(np.average(0.5 + 0.5 * np.sign(margins), weights=weight))


def taken(points: Sequence[Point], accuracy: float, n_groups: int, rule: str) -> int | None:
    """Number of the point whose neurons are taken, or None for the linear model.

    points : those of the path in beta, at least one. accuracy : of the linear model on the same held-out pairs.
    """
    best = min(range(len(points)), key=lambda i: points[i].loss)
    point = points[best]
    if rule == "lowest":
        return best if point.difference < 0 else None
    needed = float(scipy.stats.t.ppf(1 - LEVEL / len(points), n_groups - 1)) * point.difference_error
    rounding = 1e-12  # equal accuracies, summed with weights in another order
    return best if point.difference < -max(needed, EFFECT) and point.accuracy >= accuracy - rounding else None


def compared(points: Sequence[Point], n_groups: int, neurons: bool) -> list[str]:
    """Two lines on the best point of a path and the linear model; none where there was nothing to compare.

    The interval is of that point by itself, as if it had not been chosen among others. `neurons`: whether it was taken.
    """
    network = [point for point in points if point.kind == "network"]
    linear = [point for point in points if point.kind == "linear"]
    if not network or not linear:
        return []
    best, other = (min(some, key=lambda point: point.loss) for some in (network, linear))
    half = float(scipy.stats.t.ppf(0.975, n_groups - 1)) * best.difference_error
    return [
        f"held out       log-loss {other.loss:.4f}, accuracy {other.accuracy:.3f} of the linear model; best of "
        f"{len(network)} points with neurons {best.loss:.4f}, {best.accuracy:.3f}",
        f"neurons        {'taken' if neurons else 'not taken'}: difference in log-loss {best.difference:+.4f} "
        f"(95 % interval {best.difference - half:+.4f} to {best.difference + half:+.4f})",
    ]
