"""How far a margin can be believed: temperature, expected calibration error, Brier score, abstention.

The head says that the first of a pair is preferred with probability `sigma(margin / T)`. T is found on pairs that the
margins z were not fitted on, as the minimiser of

    sum_k weight_k [t log(1 + exp(-z_k / T)) + (1 - t) log(1 + exp(z_k / T))],      t = (m + 1) / (m + 2)

which is strictly convex in 1/T. With t = 1 it would be the log-loss, whose minimiser is T = 0 where every z_k > 0, and
then the first error to come costs without bound. Platt's targets t say what m pairs can tell of the next one: with a
uniform prior, m successes out of m leave a probability of 1 / (m + 2) for the other outcome. They keep T away from 0,
and as m grows give the T of the log-loss. m is the number of pairs, with unequal weights the effective one,
`(sum weight)^2 / sum weight^2`.

Since every pair is given as (preferred, rejected), its mirror image carries the same information: a predicted
probability p stands for a confidence `max(p, 1 - p)`, and is right when the margin is positive.

Sources: J. Platt, *Probabilistic outputs for support vector machines and comparisons to regularized likelihood
methods*, in Advances in Large Margin Classifiers, 1999; Guo, Pleiss, Sun and Weinberger, *On calibration of modern
neural networks*, ICML 2017.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float
from scipy.special import expit

__all__ = ["Calibration", "abstention_curve", "brier", "calibrate", "expected_calibration_error", "log_losses"]


class Calibration(NamedTuple):
    """The temperature, and what the same pairs say with it; `n_pairs` of them."""

    temperature: float
    log_loss: float
    ece: float
    brier: float
    n_pairs: int


def log_losses(margins: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """`log(1 + exp(-margin))` of every pair."""
    return np.logaddexp(0.0, -margins)


def brier(margins: Float[np.ndarray, " m"], weight: Float[np.ndarray, " m"] | None = None) -> float:
    """Mean of `(1 - sigma(margin))^2`."""
    return float(np.average(expit(-margins) ** 2, weights=weight))


def expected_calibration_error(
    margins: Float[np.ndarray, " m"], weight: Float[np.ndarray, " m"] | None = None, bins: int = 10
) -> float:
    """`sum over bins of share * |accuracy - mean confidence|`, bins of equal width in confidence, from 1/2 to 1."""
    weight = np.ones(len(margins)) if weight is None else weight
    confidence, right = expit(np.abs(margins)), 0.5 * (1.0 + np.sign(margins))
    which = np.minimum((2 * bins * (confidence - 0.5)).astype(int), bins - 1)
    gaps = np.bincount(which, weight * (right - confidence), minlength=bins)
    return float(np.abs(gaps).sum() / weight.sum())


def calibrate(margins: Float[np.ndarray, " m"], weight: Float[np.ndarray, " m"] | None = None) -> Calibration:
    """The temperature that fits held-out margins best, by smoothed targets, and the calibration with it.

    What is reported with it is not smoothed. Where the best 1/T is not positive, because the margins are worth nothing,
    T is 1000 times the size of a margin.
    """
    weight = np.ones(len(margins)) if weight is None else weight
    size = float(np.sqrt(np.average(margins**2, weights=weight))) or 1.0
    effective = float(weight.sum()) ** 2 / float(weight @ weight)
    target = (effective + 1) / (effective + 2)

    def slope(inverse: float) -> float:
        return float(np.sum(weight * margins * (expit(inverse * margins) - target)))

    inverse, high = 1e-3 / size, 1.0 / size
    if slope(inverse) < 0:
        while slope(high) < 0:  # it is positive as soon as sigma(high * margin) > t for every positive margin
            high *= 2.0
        inverse = float(scipy.optimize.brentq(slope, inverse, high, xtol=1e-12 / size, rtol=1e-10))
    scaled = inverse * margins
    loss = float(np.average(log_losses(scaled), weights=weight))
    return Calibration(
        1 / inverse, loss, expected_calibration_error(scaled, weight), brier(scaled, weight), len(margins)
    )


def abstention_curve(
    margins: Float[np.ndarray, " m"], shares: tuple[float, ...] = (1.0, 0.9, 0.75, 0.5, 0.25)
) -> list[dict[str, float]]:
    """What accuracy is left when only the pairs with the largest |margin| are decided.

    One row per share of pairs kept: `coverage`, `margin` (the least |margin| that is decided), `accuracy`.
    """
    size = np.sort(np.abs(margins))[::-1]
    right = 0.5 * (1.0 + np.sign(margins))
    rows = []
    for share in shares:
        least = float(size[max(1, round(share * len(size))) - 1])
        kept = np.abs(margins) >= least
        rows.append({"coverage": float(kept.mean()), "margin": least, "accuracy": float(right[kept].mean())})
    return rows
