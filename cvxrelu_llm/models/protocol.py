"""Models to take features from, behind one small protocol, and how they are loaded.

Layer k of n is the residual stream after block k, as in `transformers`' `hidden_states[k]`; layer n has been through
the model's final normalisation. There is no layer 0: embeddings know nothing of their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

__all__ = ["FeatureModel", "Forward", "as_layer", "sharing_works"]


class Forward(NamedTuple):
    """What a forward pass gives: for each layer asked for, (b, s, D) on the device, and the keys and values so far."""

    hidden: list[Any]
    past: Any


@runtime_checkable
class FeatureModel(Protocol):
    """What feature extraction needs of a model.

    name, revision : what was loaded; revision is the commit of a hub model, else "".
    fingerprint : hash of architecture, weights and precision.
    n_layers, hidden_size : layers are numbered 1 to n_layers.
    max_length : longest sequence of tokens the model takes.
    causal : whether a token sees only those before it, so that prefixes may be shared.
    shares_prefix : whether doing so was seen to give the same features.
    dtype : of the computation, "float32" or "bfloat16".
    tokenizer : of `transformers`, or anything that offers what `templates` uses of it.
    pooling : "mean" where the model was trained to be pooled like that (sentence-transformers), else None.
    """

    name: str
    revision: str
    fingerprint: str
    n_layers: int
    hidden_size: int
    max_length: int
    causal: bool
    shares_prefix: bool
    dtype: str
    tokenizer: Any
    pooling: str | None

    def forward(
        self,
        tokens: Int[np.ndarray, "b s"],
        mask: Bool[np.ndarray, "b t"],
        layers: Sequence[int],
        past: Any = None,
        keep: bool = False,
    ) -> Forward:
        """Hidden states of `tokens` at `layers`, stopping after the last of them.

        mask : True for tokens, False for padding, of everything so far: t = s without `past`. Positions count the
            tokens only, so padding on either side changes nothing.
        past : of an earlier call with `keep=True` and the same layers; it is used up.
        """
        ...

    def repeat(self, past: Any, rows: Int[np.ndarray, " b"]) -> Any:
        """A copy of `past` with the given rows, which may repeat."""
        ...


def as_layer(model: FeatureModel, layer: Any) -> int:
    """A layer number from 1 to n_layers; negative ones count from the end, -1 being the last."""
    if isinstance(layer, (bool, np.bool_)) or not isinstance(layer, (int, np.integer)):
        raise ValueError(f"layer must be 'auto' or a whole number, got {layer!r}")
    number = int(layer) + (model.n_layers + 1 if layer < 0 else 0)
    if not 1 <= number <= model.n_layers:
        raise ValueError(f"layer must be from 1 to {model.n_layers}, or negative to count from the end, got {layer!r}")
    return number


def sharing_works(model: FeatureModel) -> bool:
    """Whether this model, as loaded, gives the same last hidden state with and without a shared prefix.

    Two prefixes of different lengths, one padded, and three continuations are compared with plain passes.
    """
    rng = np.random.default_rng(0)
    low, high = 5, max(6, min(len(model.tokenizer), 1000))
    prefixes = [rng.integers(low, high, 9), rng.integers(low, high, 6)]
    tails, rows = rng.integers(low, high, (3, 4)), np.array([0, 0, 1])
    width, layer = 9, [model.n_layers]
    tokens, mask = np.zeros((2, width), dtype=np.int64), np.zeros((2, width), dtype=bool)
    for row, prefix in enumerate(prefixes):
        tokens[row, width - len(prefix) :], mask[row, width - len(prefix) :] = prefix, True
    try:
        past = model.repeat(model.forward(tokens, mask, layer, keep=True).past, rows)
        full = np.concatenate([mask[rows], np.ones((3, 4), dtype=bool)], axis=1)
        shared = _float32(model.forward(tails, full, layer, past).hidden[0][:, -1])
    except Exception:  # what a model without reusable keys and values raises here is its own affair
        return False
    for row, tail in enumerate(tails):
        plain = np.concatenate([prefixes[rows[row]], tail])[None]
        expected = _float32(model.forward(plain, np.ones(plain.shape, dtype=bool), layer).hidden[0][0, -1])
        allowed = (1e-4 if model.dtype == "float32" else 0.1) * np.abs(expected).max()
        if not np.abs(shared[row] - expected).max() <= allowed:
            return False
    return True


def _float32(array: Any) -> np.ndarray:
    """To the host; PyTorch's bfloat16 has no counterpart in NumPy."""
    return (array.float().cpu().numpy() if hasattr(array, "cpu") else np.asarray(array)).astype(np.float32)
