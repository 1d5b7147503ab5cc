"""The papers' recipe under its own options: the penalty rho of ADMM over six decades, and the number of patterns P.

Phase one is a squared-loss classifier of answers over P sampled activation patterns, solved by ADMM. The papers' third
option, gamma, the step between the two penalties, has no counterpart here: the penalties are balanced by their
residuals, whatever they start from. So for every start of rho: iterations to a certified gap of 1e-2, and the accuracy
of the classifier's scores on held-out pairs; for every P, both phases by their defaults.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import cvxrelu
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.heads.standardise import standardise

__all__ = ["sensitivity"]

RHO = (None, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # None: chosen from the spectrum of the data
PATTERNS = (8, 16, 32, 64)
BETA, TOL, MOST = 0.1, 1e-2, 3000  # of beta_max; gap; iterations


def sensitivity(train: PairFeatures, test: PairFeatures) -> list[dict[str, Any]]:
    """A row for every value of rho and of P."""
    return [*(of_rho(train, test, rho) for rho in RHO), *(of_patterns(train, test, P) for P in PATTERNS)]


def of_rho(train: PairFeatures, test: PairFeatures, rho: float | None) -> dict[str, Any]:
    rows = train.pairs.ravel()
    standard = standardise(train.X, rows, None)
    X, labels = standard.apply(train.X[rows]), np.tile([1.0, -1.0], len(train.pairs))
    started = time.perf_counter()
    solution = cvxrelu.solve(
        X, labels, beta=BETA * cvxrelu.beta_max(X, labels), rho=rho, patterns=128, refine=False, max_iter=MOST, tol=TOL
    )
    score = solution.network.predict(standard.apply(test.X))
    assert solution.sampled is not None
    return {"option": "rho", "value": rho, "iterations": solution.n_iter, "gap": solution.sampled.gap,
            "accuracy": right(score[test.pairs[:, 0]] - score[test.pairs[:, 1]]),
            "seconds": time.perf_counter() - started}  # fmt: skip


def of_patterns(train: PairFeatures, test: PairFeatures, patterns: int) -> dict[str, Any]:
    started = time.perf_counter()
    head = ConvexRewardHead(mode="two_phase", patterns=patterns).fit(train)
    return {"option": "patterns", "value": patterns, "neurons": head.n_neurons,
            "accuracy": right(head.margins(test.X, test.pairs)), "seconds": time.perf_counter() - started}  # fmt: skip


def right(margins: np.ndarray) -> float:
    """Share of the pairs told apart; ties count half."""
    return float(np.mean(0.5 * (1.0 + np.sign(margins))))
