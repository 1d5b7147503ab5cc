"""A GPT-2 in JAX, through KerasHub, behind the same protocol as the models on PyTorch.

KerasHub reads a `transformers` folder of GPT-2 (config.json and model.safetensors) and runs it on Keras' JAX backend.
Its backbone knows neither left padding nor early exit, so the pass is put together here from its layers:

    x = tokens' embeddings + positions';   for each block up to the last one asked for:  x = block(x, keys and values)
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from cvxrelu.support.errors import InputError
from cvxrelu_llm.models.protocol import Forward, sharing_works

__all__ = ["KerasModel", "load_keras_model"]


class KerasModel:
    """A KerasHub `GPT2Backbone` on JAX, in float32; see `models.FeatureModel` for the attributes."""

    causal = True
    dtype = "float32"
    revision = ""
    pooling: str | None = None

    def __init__(self, backbone: Any, tokenizer: Any, *, name: str) -> None:
        self.backbone, self.tokenizer, self.name = backbone, tokenizer, name
        self.n_layers, self.hidden_size = backbone.num_layers, backbone.hidden_dim
        self.max_length = backbone.max_sequence_length
        digest = hashlib.blake2b(
            json.dumps(backbone.get_config(), sort_keys=True, default=str).encode(), digest_size=16
        )
        for variable in backbone.variables:
            digest.update(np.ascontiguousarray(variable.numpy()).data)
        self.fingerprint = digest.hexdigest()
        self.shares_prefix = False
        self.shares_prefix = sharing_works(self)

    def forward(
        self,
        tokens: Int[np.ndarray, "b s"],
        mask: Bool[np.ndarray, "b t"],
        layers: Sequence[int],
        past: Any = None,
        keep: bool = False,
    ) -> Forward:
        """See `models.FeatureModel.forward`. `past` is a list of (b, 2, t, heads, size), one for every block run."""
        import jax

        with jax.numpy_dtype_promotion("standard"):  # Keras relies on it, whatever the process has set
            return self._forward(tokens, mask, layers, past, keep)

    def _forward(
        self,
        tokens: Int[np.ndarray, "b s"],
        mask: Bool[np.ndarray, "b t"],
        layers: Sequence[int],
        past: Any,
        keep: bool,
    ) -> Forward:
        import jax.numpy as jnp

        backbone, (n, width) = self.backbone, tokens.shape
        total = mask.shape[1]
        positions = np.clip(np.cumsum(mask, axis=1) - 1, 0, self.max_length - 1)[:, -width:]
        table = backbone.position_embedding.position_embeddings.value
        x = backbone.token_embedding(jnp.asarray(tokens.astype(np.int32))) + table[positions]
        allowed = jnp.asarray(np.broadcast_to(mask[:, None, :], (n, width, total)))
        heads = backbone.num_heads
        shape = (n, 2, width, heads, self.hidden_size // heads)
        states: dict[int, Any] = {}
        caches: list[Any] = []
        for number, block in enumerate(backbone.transformer_layers[: max(layers)]):
            room = jnp.zeros(shape, dtype=x.dtype)
            cache = room if past is None else jnp.concatenate([past[number], room], axis=2)
            x, cache = block(
                x,
                decoder_attention_mask=allowed,
                self_attention_cache=cache,
                self_attention_cache_update_index=total - width,
                training=False,
            )
            if keep:
                caches.append(cache)
            states[number + 1] = x
        if self.n_layers in layers:
            states[self.n_layers] = backbone.layer_norm(x)
        return Forward([states[layer] for layer in layers], caches or None)

    def repeat(self, past: Any, rows: Int[np.ndarray, " b"]) -> Any:
        """See `models.FeatureModel.repeat`."""
        return [cache[rows] for cache in past]


def load_keras_model(name: str) -> KerasModel:
    """See `models.load_model`; `name` is a folder in `transformers`' format, tokenizer included."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "jax"  # read once, when Keras is imported
    try:
        import keras
        import keras_hub
        from transformers import AutoTokenizer
    except ImportError as error:
        raise InputError(f"backend='jax' needs keras, keras-hub and transformers ({error})") from error
    if keras.backend.backend() != "jax":
        raise InputError(f"backend='jax': Keras runs on {keras.backend.backend()} here; set KERAS_BACKEND=jax")
    if not Path(name).is_dir():
        raise InputError(f"{name}: no such folder")
    try:
        kind = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))["model_type"]
        if kind != "gpt2":
            raise ValueError(f"model_type is {kind!r}, expected 'gpt2'")
        backbone = keras_hub.models.GPT2Backbone.from_preset(str(Path(name).resolve()), dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{name}: not a GPT-2 that KerasHub can load ({error})") from error
    return KerasModel(backbone, tokenizer, name=name)
