"""What heads are fitted to: pair features, checked, and known by their hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu_llm.errors import InputError
from cvxrelu_llm.pair_features import PairFeatures

__all__ = ["IDENTITY", "as_pair_features", "checked_margins", "data_hash"]

IDENTITY = ("fingerprint", "layer", "pooling", "template_fingerprint")  # of the features: all have to agree


def as_pair_features(
    X: Any, pairs: Any, *, weight: Any = None, margin: Any = None, group: Any = None, settings: Any = None
) -> PairFeatures:
    """Features of one's own, (n, D) rows and (m, 2) pairs of them, as heads take them.

    weight, margin, group default to 1, 0, and every pair by itself.
    """
    X, pairs = np.asarray(X, dtype=np.float32), np.asarray(pairs, dtype=np.int64)
    m = len(pairs)
    return PairFeatures(
        X, pairs,
        np.ones(m) if weight is None else np.asarray(weight, dtype=np.float64),
        np.zeros(m) if margin is None else np.asarray(margin, dtype=np.float64),
        np.arange(m) if group is None else np.unique(np.asarray(group), return_inverse=True)[1].astype(np.int64),
        np.arange(m), {} if settings is None else dict(settings),
    )  # fmt: skip


def checked_margins(features: PairFeatures) -> Float[np.ndarray, " m"]:
    """The margins of features that a head can be fitted on; InputError for others."""
    X, pairs = features.X, features.pairs
    if len(pairs) == 0:
        raise InputError("features hold no pairs")
    if pairs.min() < 0 or pairs.max() >= len(X):
        raise InputError(f"pairs must be rows of X from 0 to {len(X) - 1}, got {pairs.min()} to {pairs.max()}")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise InputError("a pair holds the same row twice")
    if not np.isfinite(X).all():
        raise InputError("X must be finite")
    if not (np.isfinite(features.weight).all() and (features.weight >= 0).all() and features.weight.sum() > 0):
        raise InputError("weights must be finite and nonnegative, and not all zero")
    if not np.isfinite(features.margin).all():
        raise InputError("margins must be finite")
    return features.margin.astype(np.float64)


def data_hash(features: PairFeatures, margin: np.ndarray) -> str:
    """SHA-256 of all that a fit depends on, settings of the features included."""
    digest = hashlib.sha256()
    for array in (features.X, features.pairs, features.weight, margin, features.group):
        digest.update(f"{array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(json.dumps({name: features.settings.get(name) for name in IDENTITY}, sort_keys=True).encode())
    return digest.hexdigest()
