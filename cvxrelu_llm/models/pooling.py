"""From hidden states to one vector per text.

    last            h_T, the state of the last token
    mean            sum_t h_t / T over all tokens, special ones included, as sentence-transformers do
    response_mean   the same over the tokens of the response alone
    prompt_last     the state of the prompt's last token: no feature of an answer, but what `feature_map` multiplies by

None has weights of its own, so none can be untrained. Sums are taken in float32 whatever the model computes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat
from jaxtyping import Bool, Float

__all__ = ["POOLINGS", "PROMPT_LAST", "as_pooling", "float32", "last_state", "masked_sum"]

POOLINGS = ("last", "mean", "response_mean")
PROMPT_LAST = "prompt_last"
Array = Any


def as_pooling(pooling: Any) -> str:
    """One of `POOLINGS`, or ValueError."""
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        raise ValueError(f"pooling must be 'auto', {', '.join(map(repr, POOLINGS))}, got {pooling!r}")
    return pooling


def masked_sum(hidden: Float[Array, "b s D"], mask: Bool[Array, "b s"]) -> Float[Array, "b D"]:
    """Sum over the tokens of the mask. Padding may hold NaN (attention to nothing), so it is replaced, not weighted."""
    xp = array_api_compat.array_namespace(hidden)
    hidden = float32(hidden)
    return xp.sum(xp.where(mask[..., None], hidden, xp.zeros_like(hidden)), axis=1)


def last_state(hidden: Float[Array, "b s D"], columns: Sequence[int]) -> Float[Array, "b D"]:
    """The states at one column per row."""
    xp = array_api_compat.array_namespace(hidden)
    return float32(xp.stack([hidden[row, column] for row, column in enumerate(columns)]))


def float32(array: Array) -> Array:
    """The array in float32, on its device."""
    xp = array_api_compat.array_namespace(array)
    return xp.astype(array, xp.float32)
