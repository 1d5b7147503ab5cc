"""Sentence polarity: accuracy of a certified network beside logistic regression on the same features.

The network is fitted to labels +-1 by the squared loss. beta and the C of the regression are chosen on a fifth of the
training rows, then each model is fitted once to all of them; the test rows play no part in any choice.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import cvxrelu
from bench.common.datasets import Problem, fingerprint, sentence_polarity
from bench.networks import baselines, independent_pricing
from bench.networks.cells import cached, path_of

__all__ = ["run"]

FRACTIONS = [0.3, 0.1, 0.03]  # of beta_max
SETTINGS: dict[str, Any] = {
    "version": 1,
    "solve": {"tol": 1e-3, "time_limit": 60.0, "seed": 0},
    "C": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10],
}


def run(cache: Path, embeddings: Path | None, redo: bool) -> None:
    """Sentence polarity: one cell per kind of features."""
    try:
        split = sentence_polarity(embeddings)
    except FileNotFoundError as missing:
        print(f"text: left out, {missing.filename} is absent")
        return
    path = path_of(cache, "sentence-polarity", "minilm" if embeddings else "tfidf")
    cached(path, SETTINGS, [fingerprint(split.train)], lambda: text_cell(*split), redo)


def text_cell(train: Problem, test: Problem, features: str) -> dict[str, Any]:
    """beta and C chosen on a fifth of the training rows, then one fit on all of them; squared loss on labels +-1."""
    from sklearn.linear_model import LogisticRegression

    cut = round(0.8 * len(train.y))  # rows are in random order already
    inner, validation = (Problem(train.X[part], train.y[part]) for part in (slice(cut), slice(cut, None)))

    def logistic(C: float, data: Problem) -> Any:
        return LogisticRegression(C=C, max_iter=5000).fit(data.X, data.y)

    C = max(SETTINGS["C"], key=lambda C: logistic(C, inner).score(*validation))
    regression = logistic(C, train)

    def network(fraction: float, data: Problem) -> tuple[Any, float]:
        y = 2 * data.y - 1
        beta = fraction * independent_pricing.beta_max(data.X, y).value
        return cvxrelu.solve(data.X, y, beta=beta, refine=True, **SETTINGS["solve"]), beta

    def accuracy(sol: cvxrelu.Solution, data: Problem) -> float:
        return float(np.mean((sol.network.predict(data.X) > 0) == (data.y > 0.5)))

    scores = {f"{fraction:g}": accuracy(network(fraction, inner)[0], validation) for fraction in FRACTIONS}
    fraction = float(max(scores, key=lambda name: scores[name]))
    started = time.perf_counter()
    sol, beta = network(fraction, train)
    seconds = time.perf_counter() - started
    run = baselines.lbfgs(train.X, 2 * train.y - 1, beta, 0, time.perf_counter)
    hidden = np.maximum(test.X @ run.W, 0) @ run.a
    check = independent_pricing.gap(train.X, 2 * train.y - 1, sol.network.first_layer, sol.network.second_layer, beta)
    return {
        "features": features,
        "n": len(train.y),
        "d": train.X.shape[1],
        "fraction": fraction,
        "beta": beta,
        "validation": scores,
        "C": C,
        "logistic_accuracy": float(regression.score(*test)),
        "accuracy": accuracy(sol, test),
        "lbfgs_accuracy": float(np.mean((hidden > 0) == (test.y > 0.5))),
        "lbfgs_objective": run.objective,
        "lbfgs_seconds": run.seconds,
        "objective": sol.objective,
        "gap": sol.gap,
        "independent": check._asdict(),
        "neurons": sol.network.n_neurons,
        "seconds": seconds,
    }
