"""Texts of unequal length read in one pass, which costs little more than the pass of one.

Their key-value caches become one, padded on the left; the padding is masked, and positions are counted without it, so
that every text has the states it would have alone, to rounding. Models whose cache is not of keys and values of all
tokens (sliding windows, recurrences), or that take no mask or no positions, read one text after another.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from jaxtyping import Int

from cvxrelu_llm.generation.states import LMState, Tensor, Usage, forward, torch
from cvxrelu_llm.models.kv_cache import cache_of

__all__ = ["SideBySide"]


class Rows:
    """Which rows of the common cache a text is; what `LMState.select` asks of a cache."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def batch_select_indices(self, index: Tensor) -> None:
        self.rows = [self.rows[i] for i in index.tolist()]


class SideBySide:
    """Reads on in texts of one model.

    states : of one row each, which read on here alone from now on.
    """

    def __init__(self, states: Sequence[LMState]) -> None:
        first = states[0]
        self.lm, self.together = first.lm, len(states) > 1 and all(map(can_be_padded, states))
        if not self.together:
            return
        lengths = [state.tokens.shape[1] for state in states]
        caches = [state.cache for state in states]
        for layers in zip(*(cache.layers for cache in caches), strict=True):
            for name in ("keys", "values"):
                parts = [
                    torch.nn.functional.pad(getattr(layer, name), (0, 0, max(lengths) - length, 0))
                    for layer, length in zip(layers, lengths, strict=True)
                ]
                setattr(layers[0], name, torch.cat(parts))
        self.cache = caches[0]
        self.mask = torch.zeros(len(states), max(lengths), dtype=torch.int64, device=first.tokens.device)
        for row, (state, length) in enumerate(zip(states, lengths, strict=True)):
            self.mask[row, max(lengths) - length :] = 1
            state.cache = Rows([row])

    def read(self, states: Sequence[LMState], tokens: Sequence[Int[Tensor, "_"]]) -> list[LMState]:
        """Every text of one row extended by each of its k tokens; texts that are left out are over."""
        if not self.together:
            return [state.extend(some[:, None]) for state, some in zip(states, tokens, strict=True)]
        counts = [len(some) for some in tokens]
        rows = [row for state, k in zip(states, counts, strict=True) for row in state.cache.rows * k]
        if rows != list(range(len(self.mask))):
            index = torch.as_tensor(rows, device=self.mask.device)
            self.cache.batch_select_indices(index)
            self.mask = self.mask[index]
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        given, layers = torch.cat(list(tokens))[:, None], states[0].layers
        positions = self.mask.sum(dim=1, keepdim=True) - 1
        out, hidden = forward(
            self.lm, given, layers, Usage(), cache=self.cache, attention_mask=self.mask, position_ids=positions
        )
        self.cache, logits = cache_of(out), out.logits[:, -1].float()
        found, start = [], 0
        for state, k in zip(states, counts, strict=True):
            part = slice(start, start + k)
            state.usage.forward_passes += 1
            state.usage.tokens += k
            found.append(state.grown(Rows([*range(start, start + k)]), given[part], logits[part], hidden[part]))
            start += k
        return found


def can_be_padded(state: LMState) -> bool:
    """Whether the cache holds keys and values of all tokens, and the model is told which of them are padding."""
    from transformers.cache_utils import DynamicLayer

    layers = getattr(state.cache, "layers", [])
    accepted = inspect.signature(state.lm.forward).parameters
    plain = len(layers) > 0 and all(type(layer) is DynamicLayer for layer in layers)
    return plain and {"attention_mask", "position_ids"} <= {*accepted}
