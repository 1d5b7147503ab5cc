"""Held-out losses of many linear Bradley-Terry models, by their Gram matrices.

    minimise over c  sum_k weight_k log(1 + exp(margin_k - (K c)_k)) + l2/2 c @ K c,      K = A A^T,  theta = A^T c

has as many unknowns as there are pairs, however many features are joined; and the K of features side by side is the sum
of theirs. K is divided by the number of features, so that one grid of l2 serves all. Newton's method with the matrix
`I + W^(1/2) K W^(1/2) / l2`, whose eigenvalues are at least 1 (Rasmussen & Williams, *Gaussian processes for machine
learning*, 2006, algorithm 3.1), and halved steps while the objective does not fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float
from scipy.special import expit

__all__ = ["HeldOut", "first_of_best", "held_out", "kernel_logistic", "nested"]

L2 = (1e-2, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6)  # per pair, of standardised features divided by the root of their number
TOL, STEPS, HALVINGS = 1e-5, 50, 30
EQUAL = 1e-3  # nats: no difference that a few hundred pairs could tell


class HeldOut(NamedTuple):
    """Margins of m pairs, for every entry of `L2`.

    margins : each pair by the model that has not seen its fold.
    inner : (.., i, j) of pair i by the model that has seen neither its fold nor fold j; NaN where fold j is its own.
    """

    margins: Float[np.ndarray, "l m"]
    inner: Float[np.ndarray, "l m k"]


def kernel_logistic(
    K: Float[np.ndarray, "m m"], l2: float, weight: Float[np.ndarray, " m"], margin: Float[np.ndarray, " m"],
    start: Float[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, " m"]:  # fmt: skip
    """c of the module's problem, until `c - weight * sigma(margin - K c) / l2` is below 1e-5 of its largest."""
    c = np.zeros(len(K)) if start is None else start
    f = K @ c

    def objective(f: np.ndarray, c: np.ndarray) -> float:
        return float(weight @ np.logaddexp(0.0, margin - f)) + 0.5 * l2 * float(c @ f)

    value = objective(f, c)
    for _ in range(STEPS):
        share = expit(margin - f)
        g = weight * share
        if np.all(np.abs(l2 * c - g) <= TOL * np.maximum(weight, 1e-300)):
            break
        root = np.sqrt(g * (1.0 - share))
        b = root * root * f + g
        B = root[:, None] * K * (root / l2)
        B.flat[:: len(K) + 1] += 1.0
        factor = scipy.linalg.cho_factor(B, lower=True, overwrite_a=True, check_finite=False)
        inside = scipy.linalg.cho_solve(factor, root * (K @ b) / l2, check_finite=False)
        step = (b - root * inside) / l2 - c
        change, size = K @ step, 1.0
        for _ in range(HALVINGS):
            new = objective(f + size * change, c + size * step)
            if new <= value + 1e-12 * abs(value):
                break
            size *= 0.5
        c, f, value = c + size * step, f + size * change, new
    return c


def held_out(
    K: Float[np.ndarray, "m m"], weight: Float[np.ndarray, " m"], margin: Float[np.ndarray, " m"],
    tests: Sequence[np.ndarray],
) -> HeldOut:  # fmt: skip
    """Margins of all pairs by models that have not seen them, and by those that have not seen a second fold either."""
    m, k = len(K), len(tests)
    margins, inner = np.zeros((len(L2), m)), np.full((len(L2), m, k), np.nan)

    def fit(without: Sequence[int]) -> list[np.ndarray]:
        """For each l2, K c of the model that was fitted without these folds, for all pairs."""
        kept = np.setdiff1d(np.arange(m), np.concatenate([tests[j] for j in without]))
        inside, found, c = K[np.ix_(kept, kept)], [], None
        for l2 in L2:
            c = kernel_logistic(inside, l2 * len(kept), weight[kept], margin[kept], c)
            found.append(K[:, kept] @ c)
        return found

    for j, test in enumerate(tests):
        for at, f in enumerate(fit([j])):
            margins[at, test] = f[test]
        for i in range(j):
            for at, f in enumerate(fit([i, j])):
                inner[at, test, i], inner[at, tests[i], j] = f[test], f[tests[i]]
    return HeldOut(margins, inner)


def nested(
    models: Sequence[HeldOut], weight: Float[np.ndarray, " m"], margin: Float[np.ndarray, " m"],
    tests: Sequence[np.ndarray],
) -> Float[np.ndarray, " m"]:  # fmt: skip
    """Margins of all pairs, those of a fold by the model and l2 that the *other* folds would choose.

    models : smaller ones first, which are taken where the difference is less than `EQUAL`.

    What the choice is worth, therefore: no pair has had a say in which model it is judged by.
    """
    found = np.zeros(len(weight))
    for j, test in enumerate(tests):
        others = np.setdiff1d(np.arange(len(weight)), test)
        share = weight[others] / max(float(weight[others].sum()), 1e-300)
        losses = [np.logaddexp(0.0, margin[others] - model.inner[:, others, j]) @ share for model in models]
        i = first_of_best([float(loss.min()) for loss in losses])
        found[test] = models[i].margins[int(np.argmin(losses[i])), test]
    return found


def first_of_best(losses: Sequence[float]) -> int:
    """The first whose loss is not above the least by more than `EQUAL`."""
    return next(i for i, loss in enumerate(losses) if loss <= min(losses) + EQUAL)
