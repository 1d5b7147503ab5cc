"""Problems the benchmarks share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cvxrelu import sample_patterns

__all__ = ["Planted", "planted"]


class Planted(NamedTuple):
    """A planted regression problem, sampled patterns, and beta as a fraction of max_i |X^T (M_i * y)|."""

    X: np.ndarray
    y: np.ndarray
    patterns: np.ndarray
    gates: np.ndarray
    beta: float


def planted(n: int, d: int, P: int, *, seed: int = 0, fraction: float = 0.1, teachers: int = 5) -> Planted:
    """Gaussian X (n, d); y = a network of `teachers` neurons plus noise of a tenth of its standard deviation."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    signal = np.maximum(X @ rng.standard_normal((d, teachers)), 0) @ rng.choice([-1.0, 1.0], teachers) / np.sqrt(d)
    y = signal + 0.1 * signal.std() * rng.standard_normal(n)
    patterns, gates = sample_patterns(X, P, seed)
    beta = fraction * np.linalg.norm(X.T @ (patterns * y[:, None]), axis=0).max()
    return Planted(X, y, patterns, gates, float(beta))
