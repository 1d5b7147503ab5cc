"""The feature maps that a sweep tries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cvxrelu_llm.models.feature_map import PROMPTS, FeatureMap
from cvxrelu_llm.models.pooling import POOLINGS
from cvxrelu_llm.models.protocol import FeatureModel

__all__ = ["candidates", "spread"]

SEVERAL = 6  # layers that are joined
DEEP = 12  # models with more layers also get a set without the last ones, where the pass ends earlier


def spread(layers: Sequence[int], n: int) -> tuple[int, ...]:
    """At most n of the layers, evenly, the last among them."""
    if len(layers) <= n:
        return tuple(layers)
    places = np.linspace(len(layers) - 1, 0, n + 1)[:-1][::-1]
    return tuple(layers[round(place)] for place in places)


def candidates(
    model: FeatureModel, layers: Sequence[int], poolings: Sequence[str], prompts: Sequence[str], *,
    join_layers: bool = True, join_poolings: bool = True, singles: bool = False,
) -> list[FeatureMap]:  # fmt: skip
    """Layers joined, poolings one by one and joined, each with what of the prompt may enter.

    Few on purpose: scored on a few hundred pairs, the best of a hundred single layers is chosen by chance as much as by
    merit. `python -m bench.alignment.maps` compares both.

    layers, poolings, prompts : those to choose from. join_layers, join_poolings : False where they are given as a
    whole, to be taken together. singles : every layer by itself, too.
    """
    together = [tuple(layers)]
    if join_layers:
        together = [spread(layers, SEVERAL)]
        if len(layers) > DEEP:
            together.append(spread(layers[len(layers) // 3 : len(layers) * 5 // 6], 4))
    one = [(layer,) for layer in layers] if singles else []
    pooled: list[tuple[str, ...]] = [(pooling,) for pooling in poolings] if join_poolings else [tuple(poolings)]
    if join_poolings and {"last", "response_mean"} <= {*poolings}:
        pooled.append(("last", "response_mean"))
    found = []
    for prompt in prompts:
        tried = pooled
        if join_poolings and prompt != "read" and "mean" in poolings and len(pooled) > 1:
            # An encoder's answer apart is a text, and the mean over it what such models are trained for. Of causal
            # models the mean holds the prompt's states already.
            tried = [p for p in pooled if p != ("mean",)] if model.causal else [("mean",)]
            if prompt == "both" and "response_mean" in poolings:  # that of the pass which reads the prompt
                tried = [("response_mean",)]
        found += [FeatureMap(some, chosen, prompt) for chosen in tried for some in [*one, *together]]
    return sorted(dict.fromkeys(found), key=lambda m: (m.n_features(1), PROMPTS.index(m.prompt), m.layers,
                                                       [POOLINGS.index(p) for p in m.poolings]))  # fmt: skip
