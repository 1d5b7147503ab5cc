"""From pooled hidden states to features: which layers, which poolings, and what of the prompt enters.

    read      h(prompt, answer): the model reads the prompt, then the answer, and the states of that pass are pooled
    ignore    h(answer): the answer alone goes through the model (encoders)
    product   (h, g * h), by entries: g is a vector of the prompt, so that what is good can depend on what was asked.
              Causal models: h as in "read", g the state of the prompt's last token at the same layer. Encoders: prompt
              and answer go through the model apart, and are pooled alike.
    both      (h(prompt, answer), h(answer), g * h(answer)): "read", and behind it the "product" of means (encoders)

Several layers and poolings are joined: all poolings of the first layer, then of the second, and so on, then the
products in the same order. A linear function of h(prompt, answer) with states that have not seen the prompt, as those
of "ignore", gives a pair of answers the same margin whatever was asked: the prompt cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from jaxtyping import Float

from cvxrelu.support.errors import InputError
from cvxrelu_llm.models.pooling import as_pooling
from cvxrelu_llm.models.protocol import FeatureModel, as_layer

__all__ = ["ENCODERS", "PROMPTS", "FeatureMap", "as_feature_map", "as_prompt", "joined"]

PROMPTS = ("read", "ignore", "product", "both")
ENCODERS = ("ignore", "both")  # of encoders alone: causal models write an answer after its prompt
Array = Any


class FeatureMap(NamedTuple):
    """layers : as the model counts them. poolings : of each layer. prompt : one of `PROMPTS`."""

    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    prompt: str = "read"

    @property
    def settings(self) -> dict[str, Any]:
        """As files hold it: one layer, and one pooling, by itself, several in lists."""
        layers, poolings = list(self.layers), list(self.poolings)
        return {
            "layer": layers[0] if len(layers) == 1 else layers,
            "pooling": poolings[0] if len(poolings) == 1 else poolings,
            "prompt": self.prompt,
        }

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> FeatureMap:
        """Of settings that a file holds; those from before prompts could be more than read say nothing of them."""
        layers, poolings = settings["layer"], settings["pooling"]
        return cls(
            tuple(layers) if isinstance(layers, Sequence) else (int(layers),),
            (poolings,) if isinstance(poolings, str) else tuple(poolings),
            settings.get("prompt", "read"),
        )

    @property
    def parts(self) -> tuple[FeatureMap, ...]:
        """The maps whose features stand side by side in this one; itself, where they are not of two passes."""
        if self.prompt != "both":
            return (self,)
        return self._replace(prompt="read"), self._replace(poolings=("mean",), prompt="product")

    def n_features(self, hidden_size: int) -> int:
        """How many columns it has."""
        if self.prompt == "both":
            return sum(part.n_features(hidden_size) for part in self.parts)
        return len(self.layers) * len(self.poolings) * hidden_size * (2 if self.prompt == "product" else 1)

    def __str__(self) -> str:
        layers, poolings = ", ".join(map(str, self.layers)), " and ".join(self.poolings)
        return f"layer{'s' * (len(self.layers) > 1)} {layers}, {poolings}, prompt {self.prompt}"


def as_feature_map(model: FeatureModel, layer: Any, pooling: Any, prompt: Any = "read") -> FeatureMap:
    """The map that these name, checked: a layer or several, a pooling or several, and a word of `PROMPTS`."""
    layers = layer if isinstance(layer, (list, tuple, np.ndarray)) else [layer]
    poolings = pooling if isinstance(pooling, (list, tuple)) else [pooling]
    for name, values in (("layer", layers), ("pooling", poolings)):
        if not len(values):
            raise ValueError(f"{name} must hold at least one, got none")
    found = FeatureMap(
        tuple(as_layer(model, k) for k in layers), tuple(as_pooling(p) for p in poolings), as_prompt(model, prompt)
    )
    for name, numbers in (("layer", found.layers), ("pooling", found.poolings)):
        if twice := [value for value in numbers if numbers.count(value) > 1]:
            raise ValueError(f"{name} must hold different ones, got {twice[0]!r} twice")
    return found


def as_prompt(model: FeatureModel, prompt: Any) -> str:
    """One of `PROMPTS`, and one that this model has."""
    if prompt not in PROMPTS:
        raise ValueError(f"prompt must be 'auto', {', '.join(map(repr, PROMPTS))}, got {prompt!r}")
    if prompt in ENCODERS and model.causal:
        raise InputError(f"prompt={prompt!r} is for encoders: {model.name} writes an answer after its prompt")
    return str(prompt)


def joined(states: Float[Array, "n L K D"], prompt: Float[Array, "n L D"] | None = None) -> Float[Array, "n F"]:
    """The features: states side by side, and behind them their products with the prompt's where that is given."""
    xp = array_api_compat.array_namespace(states)
    flat = (states.shape[0], math.prod(states.shape[1:]))
    rows = xp.reshape(states, flat)
    return rows if prompt is None else xp.concat([rows, xp.reshape(states * prompt[:, :, None, :], flat)], axis=1)
