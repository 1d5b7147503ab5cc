"""Small random network programs of every loss with one output, readout and skip, for tests against `convex_optimum`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from network_optimum import Program

__all__ = ["Case", "draw"]

KINDS = ("logistic", "logistic pairs", "squared pairs", "squared")


class Case(NamedTuple):
    """A problem as `solve` takes it, and the same one as the oracle does."""

    data: tuple[np.ndarray, np.ndarray | None]
    options: dict[str, Any]
    program: Program


def draw(seed: int) -> Case:
    """Few rows, plain, repeated, integer, with zero rows, separable, of one class, or at any scale."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % 4]
    loss, paired = kind.partition(" ")[0], kind.endswith("pairs")
    intercept = bool(rng.random() < 0.3)
    d = int(rng.integers(1, 3)) if intercept or rng.random() < 0.8 else 3
    n = int(rng.integers(2, 9 if d + intercept < 3 else 6))
    X = rng.standard_normal((n, d))
    shape = rng.choice(["plain", "repeated", "integer", "scaled"], p=[0.4, 0.2, 0.2, 0.2])
    if shape == "repeated":
        X = X[rng.integers(n, size=n)] * rng.choice([-1.0, 0.0, 1.0, 2.0], size=(n, 1))
    elif shape == "integer":
        X = np.round(2 * X)
    elif shape == "scaled":
        X = X * 10.0 ** rng.uniform(-6, 6)
    if rng.random() < 0.3:
        X = X.astype(np.float32)
    pairs = _pairs(rng, n) if paired else None
    m = len(pairs) if paired else n
    weight = (
        rng.choice([0.0, 0.5, 1.0, 2.0], size=m) * 10.0 ** rng.choice([0, 0, -3, 3]) if rng.random() < 0.4 else None
    )
    if weight is not None:
        weight[0] = weight[0] or 1.0
    options: dict[str, Any] = {"loss": loss, "intercept": intercept}
    y, margin = None, np.zeros(m)
    if loss == "squared":
        y = rng.standard_normal(m) * 10.0 ** rng.uniform(-2, 2)
    else:
        labels = rng.choice(["random", "one class", "separable"], p=[0.5, 0.25, 0.25])
        ideal = X.astype(float) @ rng.standard_normal(d)
        ideal = ideal[pairs[:, 0]] - ideal[pairs[:, 1]] if paired else ideal
        y = {
            "random": rng.choice([-1.0, 1.0], m),
            "one class": np.ones(m),
            "separable": np.where(ideal > 0, 1.0, -1.0),
        }[labels]
        if rng.random() < 0.5:
            margin = rng.standard_normal(m) * 10.0 ** rng.uniform(-2, 1)
            options["margin"] = margin
    if paired:
        options["pairs"] = pairs
    if weight is not None:
        options["sample_weight"] = weight
    full = np.hstack([X.astype(np.float64), np.ones((n, int(intercept)))])
    columns, l2, equality = None, 0.0, None
    skip = rng.choice([False, "bias", "linear"], p=[0.4, 0.2, 0.4])
    if skip != "False":
        skip = str(skip)
        l2 = 0.0 if loss == "squared" and rng.random() < 0.3 else float(10.0 ** rng.uniform(-6, 3))
        columns = np.ones((n, 1)) if skip == "bias" else np.hstack([X.astype(np.float64), np.ones((n, 1))])
        columns = columns[:, :-1] if paired else columns
        options |= {"skip": skip, "skip_l2": l2}
        if skip == "linear" and rng.random() < 0.4:
            q = int(rng.integers(1, d + 1))
            C = rng.standard_normal((q, d))
            e = C @ rng.standard_normal(d) * rng.choice([0.0, 1.0]) / max(np.abs(X).max(), 1e-3)
            options["equality"] = (C, e)
            equality = (np.hstack([C, np.zeros((q, columns.shape[1] - d))]), e)
        if columns.shape[1] == 0:
            columns, l2 = None, 0.0
    ones = np.ones(m) if weight is None else weight
    slopes = ones * np.abs(y if loss == "squared" else 1.0)
    unit = float(np.linalg.norm(full, axis=1).max() * slopes.sum()) or 1.0
    beta = unit * 10.0 ** rng.uniform(-3, 0)
    program = Program(full, y, beta, loss, ones, margin, pairs, columns, l2, equality)
    return Case((X, y), {"beta": beta, **options}, program)


def _pairs(rng: np.random.Generator, n: int) -> np.ndarray:
    """At random, so that some are repeated and some contradict one another."""
    first = rng.integers(n, size=int(rng.integers(1, 9)))
    second = (first + rng.integers(1, n, size=len(first))) % n
    pairs = np.stack([first, second], axis=1)
    return np.concatenate([pairs, pairs[:1, ::-1]]) if rng.random() < 0.3 else pairs
