"""What heads are fitted to: pair features, checked, and known by their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.support.checks import as_groups, as_numbers
from cvxrelu.support.errors import InputError
from cvxrelu_llm.features.pair_features import PairFeatures

__all__ = ["IDENTITY", "as_pair_features", "checked_margins", "data_hash"]

IDENTITY = ("fingerprint", "layer", "pooling", "prompt", "template_fingerprint")  # of the features: all have to agree


def as_pair_features(
    X: Any, pairs: Any, *, weight: Any = None, margin: Any = None, group: Any = None, settings: Any = None
) -> PairFeatures:
    """Features of one's own, as heads take them.

    Parameters
    ----------
    X : (n, D) finite real numbers, kept in float32, as those of `extract`; in float64 where rounding would change what
        tells rows apart (a column far from zero for its spread, or beyond the range of float32).
    pairs : (m, 2) whole numbers of rows of X: preferred, rejected.
    weight, margin : (m,), by default 1 and 0; weights are nonnegative.
    group : (m,) names; by default, and where None or NaN, every pair by itself.
    settings : what the features depend on, a mapping.

    Raises
    ------
    InputError, a ValueError, naming the argument, what it must be and what was got.
    """
    rows = as_numbers("X", X, (None, None))
    found = _as_pairs(pairs, len(rows))
    m = len(found)
    weight = np.ones(m) if weight is None else as_numbers("weight", weight, (m,), "pair")
    if (weight < 0).any():
        raise InputError(f"weight must be nonnegative, got {weight.min():g}")
    margin = np.zeros(m) if margin is None else as_numbers("margin", margin, (m,), "pair")
    codes = np.arange(m) if group is None else as_groups("group", group)
    if len(codes) != m:
        raise InputError(f"group must have one entry per pair, {m}, got {len(codes)}")
    if settings is not None and not isinstance(settings, Mapping):
        raise InputError(f"settings must be a mapping, got {type(settings).__name__}")
    return PairFeatures(_compact(rows), found, weight, margin, codes, np.arange(m), dict(settings or {}))


def _as_pairs(pairs: Any, n: int) -> Int[np.ndarray, "m 2"]:
    """(m, 2) int64 rows of X out of whole numbers; truth values are a mask, and no rows."""
    given = as_numbers("pairs", pairs, (None, 2))
    if np.asarray(pairs).dtype.kind == "b":
        raise InputError("pairs must be numbers of rows of X, got truth values")
    if (bad := given[given != np.round(given)]).size:
        raise InputError(f"pairs must be whole numbers, rows of X, got {bad[0]:g}")
    if (bad := given[(given < 0) | (given >= n)]).size:
        raise InputError(f"pairs must be rows of X from 0 to {n - 1}, got {bad[0]:.0f}")
    return given.astype(np.int64)


def _compact(X: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    """X in float32 where that moves no column by more than a millionth of its deviation, a constant aside."""
    if not X.size:
        return X.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        short = X.astype(np.float32)
        lost, spread = (short - X).std(axis=0), X.std(axis=0)
    rounding = np.finfo(np.float64).eps * np.abs(X).max(axis=0)
    return short if np.isfinite(short).all() and (lost <= 1e-6 * spread + rounding).all() else X


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
    identity = {name: features.settings.get(name) for name in IDENTITY}
    if identity["prompt"] in (None, "read"):  # as before there was anything else
        del identity["prompt"]
    digest.update(json.dumps(identity, sort_keys=True).encode())
    return digest.hexdigest()
