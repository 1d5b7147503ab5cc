"""Random network programs for `bench.honesty`: problem k is drawn wholly from `np.random.default_rng([BASE, k])`.

Every loss, one and several outputs, pairs, weights, margins, skips, equalities, intercepts; data that are hard on
bounds: columns far from the origin (their mean up to 1e6 of their deviations) and of any scale (1e-6 to 1e6), low rank,
repeated rows, constant and zero columns, integers, one-hot rows, sorted times, rows of weight zero, separable labels;
float64 and float32, NumPy and, for a fixed share, JAX (few shapes: JAX compiles for each).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["BASE", "Case", "draw"]

BASE = 20261127
KINDS = ("gaussian", "planted", "low rank", "repeated", "times", "integer", "one-hot", "constant column", "zero column")
JAX_EVERY = 37  # problems, one on JAX
FLOAT32_SHARE = 0.15


class Case(NamedTuple):
    """One problem as `solve` takes it, and what it was drawn as.

    options : loss, pairs, sample_weight, margin, intercept, skip, skip_l2, equality: what is not its default.
    fraction : beta over an estimate of beta_max, which the judge makes. offset : largest column mean in deviations.
    """

    k: int
    X: np.ndarray
    y: np.ndarray | None
    options: dict[str, Any]
    fraction: float
    kind: str
    offset: float
    backend: str


def draw(k: int, *, small: bool = False, base: int = BASE) -> Case:
    """Problem k. small : few rows and columns, for the test suite; other problems than those of the benchmark."""
    rng = np.random.default_rng([base, k, int(small)])
    jax = k % JAX_EVERY == JAX_EVERY - 1 and not small
    loss = str(rng.choice(["squared", "logistic", "multinomial"], p=[0.55, 0.25, 0.2]))
    paired = loss != "multinomial" and rng.random() < 0.2
    if jax:
        n, d = int(rng.choice([12, 24])), int(rng.choice([2, 4]))
    elif small:
        n, d = int(rng.integers(5, 12)), int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    else:
        n, d = int(np.exp(rng.uniform(np.log(5), np.log(61)))), int(np.exp(rng.uniform(0, np.log(9))))
    kind = str(rng.choice(KINDS))
    X = _rows(rng, n, d, kind)
    signal = _signal(rng, X)
    X, offset = _placed(rng, X)
    if rng.random() < FLOAT32_SHARE:
        X = _single(X)
    options: dict[str, Any] = {"loss": loss}
    pairs = _pairs(rng, n) if paired else None
    if pairs is not None:
        signal = signal[pairs[:, 0]] - signal[pairs[:, 1]]
        options["pairs"] = pairs
    m = len(signal)
    c = int(rng.choice([1, 2, 3], p=[0.7, 0.15, 0.15])) if not paired and loss == "squared" else 1
    if loss == "logistic" and not paired and rng.random() < 0.1:
        c = 2
    y = _targets(rng, loss, signal, c, paired)
    if rng.random() < 0.3:
        weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=m) * 10.0 ** rng.choice([0, 0, -3, 3])
        weight[0] = weight[0] or 1.0
        options["sample_weight"] = weight
    if loss == "logistic" and rng.random() < 0.3:
        options["margin"] = rng.standard_normal(m) * 10.0 ** rng.uniform(-2, 1.5)
    if rng.random() < 0.5:
        options["intercept"] = True
    skip = str(rng.choice(["none", "bias", "linear"], p=[0.4, 0.25, 0.35]))
    if skip != "none":
        options["skip"] = skip
        if loss != "squared" or rng.random() < 0.3:
            options["skip_l2"] = float(10.0 ** rng.uniform(-4, 3))
        if skip == "linear" and rng.random() < 0.15:
            C = rng.standard_normal((1, d))
            options["equality"] = (C, np.zeros(1) if rng.random() < 0.5 else rng.standard_normal(1))
    fraction = float(10.0 ** rng.uniform(-2.5, 0.05))
    return Case(k, X, y, options, fraction, kind, offset, "jax" if jax else "numpy")


def _rows(rng: np.random.Generator, n: int, d: int, kind: str) -> np.ndarray:
    """(n, d), each column of deviation about one, means about zero but for integers and one-hot rows."""
    X = rng.standard_normal((n, d))
    if kind == "low rank":
        r = int(rng.integers(1, d + 1))
        return X[:, :r] @ rng.standard_normal((r, d)) / np.sqrt(r)
    if kind == "repeated":
        return X[rng.integers(n, size=n)] * rng.choice([-1.0, 1.0, 1.0, 2.0, 0.0], size=(n, 1))
    if kind == "times":
        X[:, 0] = np.sort(rng.uniform(-1.7, 1.7, n))
        return X
    if kind == "integer":
        return rng.integers(-2, 6, size=(n, d)).astype(float)
    if kind == "one-hot":
        return np.eye(d)[rng.integers(d, size=n)]
    if kind == "constant column":
        X[:, int(rng.integers(d))] = 1.0
    if kind == "zero column":
        X[:, int(rng.integers(d))] = 0.0
    return X


def _signal(rng: np.random.Generator, X: np.ndarray) -> np.ndarray:
    """(n,) of deviation about one: neurons in the data as they lie about the origin, a wave, or noise alone."""
    n, d = X.shape
    shape = rng.choice(["neurons", "wave", "noise"], p=[0.5, 0.25, 0.25])
    clean = np.zeros(n)
    if shape == "neurons":
        clean = np.maximum(X @ rng.standard_normal((d, 3)) + 0.5 * rng.standard_normal(3), 0) @ rng.standard_normal(3)
    elif shape == "wave":
        clean = np.sin(3.0 * X[:, 0]) + X @ rng.standard_normal(d) * rng.choice([0.0, 1.0])
    noise = 1.0 if shape == "noise" else float(rng.choice([0.0, 0.1, 0.5]))
    return clean + noise * rng.standard_normal(n)


def _placed(rng: np.random.Generator, X: np.ndarray) -> tuple[np.ndarray, float]:
    """The columns moved away from the origin and scaled; and the largest mean, in deviations."""
    d, offset = X.shape[1], 0.0
    if rng.random() < 0.5:
        offset = float(10.0 ** rng.uniform(0, 6))
        share = rng.choice([1.0, 1.0, 0.01, 0.0], size=d)
        share[int(rng.integers(d))] = 1.0
        X = X + offset * share * rng.choice([-1.0, 1.0], size=d)
    which = rng.choice(["as is", "common", "each"], p=[0.5, 0.25, 0.25])
    if which != "as is":
        X = X * 10.0 ** rng.uniform(-6, 6, size=1 if which == "common" else d)
    return X, offset


def _single(X: np.ndarray) -> np.ndarray:
    """X in float32, brought between the limits that `solve` sets for it."""
    largest = np.abs(X).max()
    if largest > 0:
        X = X * (np.clip(largest, 1e-6, 1e6) / largest)
    return X.astype(np.float32)


def _pairs(rng: np.random.Generator, n: int) -> np.ndarray:
    """At random, so that some are repeated and some contradict one another."""
    first = rng.integers(n, size=int(rng.integers(3, 2 * n)))
    return np.stack([first, (first + rng.integers(1, n, size=len(first))) % n], axis=1)


def _targets(rng: np.random.Generator, loss: str, signal: np.ndarray, c: int, paired: bool) -> np.ndarray | None:
    """What `solve` takes for y."""
    m = len(signal)
    mixed = signal[:, None] * rng.choice([-1.0, 0.3, 1.0], size=c) + 0.3 * rng.standard_normal((m, c)) * (c > 1)
    if loss == "squared":
        if rng.random() < 0.2:
            mixed = mixed + 10.0 ** rng.uniform(0, 3)
        y = mixed * 10.0 ** rng.choice([0.0, rng.uniform(-6, 6)])
        return y[:, 0] if c == 1 and (paired or rng.random() < 0.9) else y
    if loss == "multinomial":
        classes = int(rng.integers(2, 4))
        return np.searchsorted(np.quantile(signal, np.arange(1, classes) / classes), signal)
    labels = np.where(mixed > 0, 1.0, -1.0)
    if rng.random() < 0.15:
        labels = np.ones_like(labels)
    if paired and rng.random() < 0.3:
        return None
    return labels[:, 0] if c == 1 else labels
