"""A language model part-way through texts: key-value cache, next-token logits, pooled hidden states, one forward pass.

k texts of equal length share what they have in common: extending one text by k different tokens repeats its cache, and
costs one pass of k tokens; choosing one of them keeps that row, so the pass is not repeated. Causal models have hidden
states `h_1 .. h_n` that do not change when a text grows, so pooled features are updated, never recomputed:

    last           h_n
    mean           (h_1 + ... + h_n) / n
    response_mean  (h_(m+1) + ... + h_n) / (n - m),      m tokens of prompt.

Layers are counted as `output_hidden_states` of transformers does: 0 is the embedding, -1 the last layer after its norm.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

try:
    import torch
except ImportError as error:  # pragma: no cover
    raise ImportError("generation needs PyTorch and transformers: pip install 'cvxrelu[llm]'") from error

from cvxrelu_llm.models.feature_map import joined
from cvxrelu_llm.models.kv_cache import cache_keyword, cache_of
from cvxrelu_llm.models.pooling import POOLINGS
from cvxrelu_llm.models.torch_models import evaluating

__all__ = ["POOLINGS", "LMState", "Usage", "as_layers", "forward", "prefill", "prefix_features"]

Tensor = torch.Tensor


@dataclass
class Usage:
    """What a generation has cost: forward passes, and tokens that went through the model in them."""

    forward_passes: int = 0
    tokens: int = 0


@dataclass
class LMState:
    """k texts of n tokens, all read by the model.

    Attributes
    ----------
    lm : a causal language model of transformers.
    cache : its key-value cache, k rows. `extend` hands it on, so a state can be extended once (or with `keep=True`).
    tokens : (k, n) int64.
    prompt_length : how many of the n belong to the prompt.
    logits : (k, V) float32, of the next token.
    layers : whose hidden states are pooled.
    last, total, response_total : (k, L, D) float32, states of the last token, sums over all and over the response.
    prompt_last : (k, L, D), states of the last token of the prompt.
    usage : shared by a state and all that come from it.
    """

    lm: Any
    cache: Any
    tokens: Int[Tensor, "k n"]
    prompt_length: int
    logits: Float[Tensor, "k V"]
    layers: tuple[int, ...]
    last: Float[Tensor, "k L D"]
    total: Float[Tensor, "k L D"]
    response_total: Float[Tensor, "k L D"]
    prompt_last: Float[Tensor, "k L D"]
    usage: Usage = field(default_factory=Usage)

    @property
    def has_response(self) -> bool:
        """Whether anything follows the prompt."""
        return self.tokens.shape[1] > self.prompt_length

    def features(self, poolings: str | Sequence[str], prompt: str = "read") -> Float[np.ndarray, "k F"]:
        """Features, float32 on the host, as `models.feature_map` joins them."""
        if prompt == "product" and self.prompt_length == 0:
            raise ValueError("prompt='product' needs a prompt of at least one token, got none")
        pooled = [self._pooled(pooling) for pooling in ([poolings] if isinstance(poolings, str) else poolings)]
        return joined(torch.stack(pooled, dim=2), self.prompt_last if prompt == "product" else None).cpu().numpy()

    def _pooled(self, pooling: str) -> Float[Tensor, "k L D"]:
        n = self.tokens.shape[1]
        if pooling == "last":
            return self.last
        if pooling == "mean":
            return self.total / n
        if self.has_response:
            return self.response_total / (n - self.prompt_length)
        raise ValueError("pooling 'response_mean' needs a response of at least one token, got none")

    def extend(self, tokens: Int[Tensor, "rows m"], keep: bool = False) -> LMState:
        """All rows extended by m tokens in one pass; a single row may be extended by several rows of tokens.

        keep : whether this state stays usable, at the price of a copy of its cache.
        """
        if self.cache is None:
            raise RuntimeError(
                "this state was extended already; extend its successor, or pass keep=True the first time"
            )
        cache, self.cache = (copy.deepcopy(self.cache), self.cache) if keep else (self.cache, None)
        repeats = tokens.shape[0] // self.tokens.shape[0]
        if repeats > 1:
            cache.batch_repeat_interleave(repeats)
        out, hidden = forward(self.lm, tokens, self.layers, self.usage, cache=cache)
        return self.grown(cache_of(out), tokens, out.logits[:, -1].float(), hidden)

    def grown(
        self, cache: Any, tokens: Int[Tensor, "rows m"], logits: Float[Tensor, "rows V"],
        hidden: Float[Tensor, "rows m L D"],
    ) -> LMState:  # fmt: skip
        """The state after `tokens`, of whose pass these are the results; each row here is the start of as many."""
        repeats = tokens.shape[0] // self.tokens.shape[0]
        before = (self.tokens, self.total, self.response_total, self.prompt_last)
        spread = [part.repeat_interleave(repeats, dim=0) for part in before]
        added = hidden.sum(dim=1)
        return replace(
            self,
            cache=cache,
            tokens=torch.cat([spread[0], tokens], dim=1),
            logits=logits,
            last=hidden[:, -1],
            total=spread[1] + added,
            response_total=spread[2] + added,
            prompt_last=spread[3],
        )

    def select(self, rows: Sequence[int]) -> LMState:
        """The texts `rows`, in that order; the cache is handed on."""
        if list(rows) == list(range(self.tokens.shape[0])):
            return self
        index = torch.as_tensor(list(rows), device=self.tokens.device)
        cache, self.cache = self.cache, None
        cache.batch_select_indices(index)
        names = ("tokens", "logits", "last", "total", "response_total", "prompt_last")
        return replace(self, cache=cache, **{name: getattr(self, name)[index] for name in names})


def prefill(
    lm: Any, tokens: Int[Tensor, "k n"], *, prompt_length: int | None = None, layer: int | Sequence[int] = -1
) -> LMState:
    """Read k texts of equal length in one pass. prompt_length : None when all of it is prompt. layer : or several."""
    n = tokens.shape[1]
    usage, layers = Usage(), as_layers(layer)
    out, hidden = forward(lm, tokens, layers, usage)
    length = n if prompt_length is None else prompt_length
    return LMState(
        lm=lm,
        cache=cache_of(out),
        tokens=tokens,
        prompt_length=length,
        logits=out.logits[:, -1].float(),
        layers=layers,
        last=hidden[:, -1],
        total=hidden.sum(dim=1),
        response_total=hidden[:, length:].sum(dim=1),
        prompt_last=hidden[:, max(length - 1, 0)],
        usage=usage,
    )


def as_layers(layer: int | Sequence[int]) -> tuple[int, ...]:
    """One layer, or several, as a tuple."""
    return tuple(layer) if isinstance(layer, (list, tuple)) else (int(layer),)  # type: ignore[arg-type]


def prefix_features(
    lm: Any,
    tokens: Int[Tensor, "n"],
    lengths: Sequence[int],
    *,
    prompt_length: int,
    layer: int = -1,
    pooling: str = "last",
) -> Float[np.ndarray, "k D"]:
    """Features of the first `lengths[j]` tokens of a text, for all j in one pass.

    A head that has only seen whole texts is asked about beginnings of texts by `guide`. Fitting it on differences of
    prefixes too, cut at the same random share of both answers, makes these scores fair.

    Parameters
    ----------
    tokens : (n,) the text, prompt first.
    lengths : how many tokens each prefix has, each above `prompt_length` and at most n.

    Returns
    -------
    (k, D) float32, what `LMState.features` gives for each of the k prefixes.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    wanted = np.asarray(lengths)
    if wanted.size == 0 or wanted.min() <= prompt_length or wanted.max() > tokens.shape[0]:
        raise ValueError(
            f"lengths must lie between prompt_length + 1 = {prompt_length + 1} and {tokens.shape[0]}, got {wanted}"
        )
    hidden = forward(lm, tokens[None], (layer,), Usage())[1][0, :, 0]
    ends = torch.as_tensor(wanted - 1, device=hidden.device)
    if pooling == "last":
        return hidden[ends].cpu().numpy()
    start = 0 if pooling == "mean" else prompt_length
    sums = hidden[start:].cumsum(dim=0)[ends - start]
    return (sums / (ends + 1 - start)[:, None]).cpu().numpy()


@torch.inference_mode()
def forward(
    lm: Any, tokens: Tensor, layers: Sequence[int], usage: Usage, *, cache: Any = None, **options: Any
) -> tuple[Any, Float[Tensor, "k m L D"]]:
    """One pass: what the model returns, and the hidden states of the layers in float32. options : of the model."""
    if "logits_to_keep" in inspect.signature(lm.forward).parameters:
        options["logits_to_keep"] = 1
    if (name := cache_keyword(lm)) is not None:
        options[name] = cache
    with evaluating(lm):
        out = lm(tokens, use_cache=True, output_hidden_states=True, return_dict=True, **options)
    usage.forward_passes += 1
    usage.tokens += tokens.numel()
    return out, torch.stack([out.hidden_states[layer].float() for layer in layers], dim=2)
