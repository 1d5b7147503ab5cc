"""Features of preference pairs: what `features.extract` returns and a reward is trained on, and its file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import save

from cvxrelu.support.entries import checked_shapes, stored
from cvxrelu.support.files import atomic_write
from cvxrelu.support.stored import parse_json, read_tensors

__all__ = ["PairFeatures", "center_and_scale"]

FORMAT = "cvxrelu-pair-features"


@dataclasses.dataclass(frozen=True)
class PairFeatures:
    """What a reward is trained on.

    X : (n, D) float32, one row per unique response (with its prompt); of one's own perhaps float64.
    pairs : (m, 2), rows of X: preferred, rejected.
    weight, margin : (m,) float64.
    group : (m,) which pairs belong to one prompt or conversation; a split must not divide a group.
    kept : (m,) index of each pair among the triples; those whose sides became equal by truncation are missing, and
        those on the other side of a split that `cvxrelu-llm extract` made.
    settings : what X depends on: model, revision, fingerprint, layer, pooling, template, lengths, precision.
    counts : "triples", "pairs", "rows", "prefixes" (pairs that are beginnings of others), and what truncation did:
        "equal_after_truncation" (dropped), "prompts_truncated", "responses_truncated" (kept).
    stats : what it took: texts, of these cached, tokens, tokens run, seconds, tokens per second, damaged cache files.
    sweep : the `sweep.Sweep` behind layer="auto" or pooling="auto", else None.
    reference : (m,) log-probability of the preferred answer under the model minus that of the other; None if not asked.
    """

    X: Float[np.ndarray, "n D"]
    pairs: Int[np.ndarray, "m 2"]
    weight: Float[np.ndarray, " m"]
    margin: Float[np.ndarray, " m"]
    group: Int[np.ndarray, " m"]
    kept: Int[np.ndarray, " m"]
    settings: Mapping[str, Any]
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    stats: Mapping[str, float] = dataclasses.field(default_factory=dict)
    sweep: Any = None
    reference: Float[np.ndarray, " m"] | None = None

    @property
    def differences(self) -> Float[np.ndarray, "m D"]:
        """X[preferred] - X[rejected]."""
        return self.X[self.pairs[:, 0]] - self.X[self.pairs[:, 1]]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything but the sweep to one safetensors file."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        if self.reference is not None:
            arrays["reference"] = np.ascontiguousarray(self.reference)
        about = {name: json.dumps(dict(getattr(self, name))) for name in ("settings", "counts", "stats")}
        return atomic_write(path, save(arrays, {"format": FORMAT, **about}))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> PairFeatures:
        """Read what `save` wrote.

        Raises
        ------
        InputError : the file is missing, cut, foreign or damaged, or its arrays do not fit each other (shapes, rows
            that pairs name, finite numbers, weights >= 0); the message names the file and the array.
        """
        path = Path(path)
        with stored(path, "a file of pair features"):
            arrays, about = read_tensors(path, FORMAT, _ARRAYS, {"reference": ("F64", "F32")})
            checked_shapes(arrays, _SHAPES)
            pairs, n = arrays["pairs"], len(arrays["X"])
            if pairs.size and not (pairs.min() >= 0 and pairs.max() < n):
                raise ValueError(f"the tensor pairs names rows {pairs.min()} to {pairs.max()} of {n}")
            if (arrays["weight"] < 0).any():
                raise ValueError("the tensor weight holds negative numbers")
            words: dict[str, Any] = {
                name: parse_json(about.get(name, ""), f"its {name}", finite=False)
                for name in ("settings", "counts", "stats")
            }
            if not all(type(value) in (int, float) for name in ("counts", "stats") for value in words[name].values()):
                raise ValueError("its counts and stats must hold numbers")
        fields: dict[str, Any] = {**arrays, **words}
        return PairFeatures(**fields)


def center_and_scale(X: Float[np.ndarray, "k d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and deviation of every column, in float64; the scale of columns that hold nothing but rounding is 1.

    Those are constant for their precision, or dead: some encoders have entries of 1e-32 beside others of 1, which
    divided by their own deviation would count as much as any.
    """
    rows = X.astype(np.float64)
    center, scale = rows.mean(axis=0), rows.std(axis=0)
    rounding = 1e-13 if X.dtype == np.float64 else 1e-7  # what of a column far from zero is no more than that
    dead = 1e-15 * scale.max(initial=0.0)
    return center, np.where(scale > np.maximum(rounding * np.maximum(np.abs(center), 1e-30), dead), scale, 1.0)


_WHOLE, _REAL = ("I64", "I32"), ("F64", "F32")
_ARRAYS = {"X": _REAL, "pairs": _WHOLE, "weight": _REAL, "margin": _REAL, "group": _WHOLE, "kept": _WHOLE}
_SHAPES = {
    "X": ("n", "D"), "pairs": ("m", 2), **{name: ("m",) for name in ("weight", "margin", "group", "kept", "reference")}
}  # fmt: skip
