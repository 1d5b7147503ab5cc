"""Texts through a model, in batches of similar length, each prompt once.

Texts with one prompt (chosen and rejected, at least) share its keys and values: the prompt runs alone, its cache is
repeated for every response, and the responses run behind it. In a causal model this changes nothing but rounding, since
no token of the prompt sees the response.

    prompt, padded on the left | response, padded on the right

leaves no hole between a prompt and its response, so that attention which slides over a window sees what it would see in
a text alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import array_api_compat
import numpy as np
from jaxtyping import Bool, Float, Int

from cvxrelu_llm.models.pooling import PROMPT_LAST, last_state, masked_sum
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.models.templates import Text

__all__ = ["Batch", "Pooled", "pad", "plan", "pooled_states", "runs"]

ENOUGH = 256  # tokens that fill a processor well; a batch that has them does not take on much padding for more
WASTE = 0.05  # padding it does take on, per token


class Batch(NamedTuple):
    """Indices of texts; `shared`: their prompts are run apart, each once."""

    texts: list[int]
    shared: bool


class Pooled(NamedTuple):
    """Rows (k, L, K, D) float32 of the texts of one batch, for L layers and K poolings, and the tokens it took."""

    texts: list[int]
    rows: Float[np.ndarray, "k L K D"]
    n_tokens: int  # of the texts, as if each were run alone
    n_run: int  # that went through the model, without padding
    n_padded: int  # with padding


def plan(texts: Sequence[Text], todo: Sequence[int], batch_tokens: int, share_prefix: bool) -> list[Batch]:
    """Batches of at most `batch_tokens` padded tokens (or of a single prompt), longest first."""
    by_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index in todo:
        by_prompt[texts[index].prompt].append(index)
    several = {prompt for prompt, members in by_prompt.items() if share_prefix and len(members) > 1 and prompt}
    batches: list[Batch] = []
    units = sorted((by_prompt[prompt] for prompt in several), key=lambda unit: len(texts[unit[0]].prompt), reverse=True)
    responses = [sum(len(texts[index].response) for index in unit) for unit in units]
    for part in runs([len(texts[unit[0]].prompt) for unit in units], batch_tokens, responses):
        batches.append(Batch([index for unit in units[part] for index in unit], True))
    alone = [index for index in todo if texts[index].prompt not in several]
    alone.sort(key=lambda index: texts[index].n_tokens, reverse=True)
    for part in runs([texts[index].n_tokens for index in alone], batch_tokens):
        batches.append(Batch(alone[part], False))
    return batches


def runs(lengths: Sequence[int], limit: int, extra: Sequence[int] | None = None) -> Iterator[slice]:
    """Cut descending lengths into runs that cost at most `limit` padded tokens and waste little on padding.

    extra : further tokens that come with each, padded elsewhere.
    """
    begin = filled = 0
    for i, length in enumerate(lengths):
        width, more = lengths[begin], sum(extra[begin : i + 1]) if extra else 0
        padded = width * (i + 1 - begin)
        wasteful = filled >= ENOUGH and padded > (1 + WASTE) * (filled + length)
        if i > begin and (padded + more > limit or wasteful):
            yield slice(begin, i)
            begin, filled = i, 0
        filled += length
    if lengths:
        yield slice(begin, len(lengths))


def pad(
    rows: Sequence[Sequence[int]], left: bool, token: int
) -> tuple[Int[np.ndarray, "b s"], Bool[np.ndarray, "b s"]]:
    """Tokens and mask (b, s) of rows of different lengths."""
    width = max(map(len, rows))
    tokens, mask = np.full((len(rows), width), token, dtype=np.int64), np.zeros((len(rows), width), dtype=bool)
    for row, values in enumerate(rows):
        place = slice(width - len(values), width) if left else slice(len(values))
        tokens[row, place], mask[row, place] = values, True
    return tokens, mask


def pooled_states(
    model: FeatureModel,
    texts: Sequence[Text],
    batches: Sequence[Batch],
    layers: Sequence[int],
    poolings: Sequence[str],
    padding_side: str | None,
) -> Iterator[Pooled]:
    """Run the batches, one by one; `padding_side` None is left for prompts that are run apart, else right."""
    token = getattr(model.tokenizer, "pad_token_id", None) or 0
    for batch in batches:
        chosen = [texts[index] for index in batch.texts]
        runner = _shared if batch.shared else _alone
        rows, n_run, n_padded = runner(model, chosen, layers, poolings, padding_side, token)
        yield Pooled(batch.texts, _to_host(rows), sum(text.n_tokens for text in chosen), n_run, n_padded)


def _alone(
    model: FeatureModel,
    texts: Sequence[Text],
    layers: Sequence[int],
    poolings: Sequence[str],
    padding_side: str | None,
    token: int,
) -> tuple[Any, int, int]:
    """Every text from its beginning."""
    full = [(*text.prompt, *text.response, *text.tail) for text in texts]
    left = padding_side == "left"
    tokens, mask = pad(full, left, token)
    first = mask.argmax(axis=1)  # column of each text's first token
    start = first + [len(text.prompt) for text in texts]
    stop = start + [len(text.response) for text in texts]
    columns = np.arange(mask.shape[1])
    of_response = (columns >= start[:, None]) & (columns < stop[:, None])
    hidden = model.forward(tokens, mask, layers).hidden
    nothing = [0.0] * len(layers)
    ends = [last_state(states, (start - 1).tolist()) for states in hidden] if PROMPT_LAST in poolings else nothing
    pooled = _pool(hidden, nothing, ends, mask, of_response, stop - 1, mask.sum(axis=1), poolings)
    return pooled, int(mask.sum()), mask.size


def _shared(
    model: FeatureModel,
    texts: Sequence[Text],
    layers: Sequence[int],
    poolings: Sequence[str],
    padding_side: str | None,
    token: int,
) -> tuple[Any, int, int]:
    """Every prompt once, then the responses behind it."""
    prompts = list(dict.fromkeys(text.prompt for text in texts))
    number = {prompt: row for row, prompt in enumerate(prompts)}
    rows = np.array([number[text.prompt] for text in texts])
    tokens, prompt_mask = pad(prompts, padding_side != "right", token)
    hidden, past = model.forward(tokens, prompt_mask, layers, keep=True)
    before: list[Any] = [0.0] * len(layers)
    if "mean" in poolings:
        before = [masked_sum(states, _on_device(prompt_mask, states))[_on_device(rows, states)] for states in hidden]
    ends: list[Any] = [0.0] * len(layers)
    if PROMPT_LAST in poolings:
        last = prompt_mask.shape[1] - 1 - prompt_mask[:, ::-1].argmax(axis=1)
        ends = [last_state(states, last.tolist())[_on_device(rows, states)] for states in hidden]
    del hidden
    n_run, n_padded = int(prompt_mask.sum()), prompt_mask.size
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].response), reverse=True)
    parts = []
    for part in runs([len(texts[i].response) for i in order], sum(len(text.response) for text in texts)):
        some = np.array(order[part])
        tokens, mask = pad([texts[i].response for i in some], padding_side == "left", token)
        stop = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
        everything = np.concatenate([prompt_mask[rows[some]], mask], axis=1)
        hidden = model.forward(tokens, everything, layers, model.repeat(past, rows[some])).hidden
        sums, closing = (
            [states if isinstance(states, float) else states[_on_device(some, states)] for states in known]
            for known in (before, ends)
        )
        parts.append(_pool(hidden, sums, closing, mask, mask, stop - 1, everything.sum(axis=1), poolings))
        n_run, n_padded = n_run + int(mask.sum()), n_padded + mask.size
    xp = array_api_compat.array_namespace(parts[0])
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    pooled = xp.concat(parts, axis=0)
    return pooled[_on_device(back, pooled)], n_run, n_padded


def _pool(
    hidden: Sequence[Any],
    before: Sequence[Any],
    ends: Sequence[Any],
    mask: Bool[np.ndarray, "b s"],
    of_response: Bool[np.ndarray, "b s"],
    last: Int[np.ndarray, " b"],
    n_tokens: Int[np.ndarray, " b"],
    poolings: Sequence[str],
) -> Any:
    """(b, L, K, D) on the device; `before` holds sums over prompts that were run apart, `ends` prompts' last states."""
    xp = array_api_compat.array_namespace(hidden[0])
    layers = []
    for states, sums, end in zip(hidden, before, ends, strict=True):
        vectors = []
        for pooling in poolings:
            if pooling == PROMPT_LAST:
                vectors.append(end)
            elif pooling == "last":
                vectors.append(last_state(states, last.tolist()))
            elif pooling == "mean":
                total = masked_sum(states, _on_device(mask, states)) + sums
                vectors.append(total / _on_device(n_tokens.astype(np.float32)[:, None], states))
            else:
                count = of_response.sum(axis=1).astype(np.float32)[:, None]
                vectors.append(masked_sum(states, _on_device(of_response, states)) / _on_device(count, states))
        layers.append(xp.stack(vectors, axis=1))
    return xp.stack(layers, axis=1)


def _on_device(array: np.ndarray, like: Any) -> Any:
    xp = array_api_compat.array_namespace(like)
    return xp.asarray(array, device=array_api_compat.device(like))


def _to_host(array: Any) -> np.ndarray:
    return np.asarray(array.cpu() if array_api_compat.is_torch_array(array) else array, dtype=np.float32)
