"""Log-probabilities of answers under a language model: the reference offset of preference optimisation, and a baseline.

    log p(answer | prompt) = sum over tokens t of the answer of log p(t | prompt, tokens before)

The tokens are those that features are made of: same template, same truncation, no end-of-turn mark. A prompt runs once
for all of its answers, which follow it side by side, padded on the right, where no token sees the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu_llm.models.kv_cache import cache_keyword, cache_of
from cvxrelu_llm.models.templates import Template
from cvxrelu_llm.preferences.formats import Triple
from cvxrelu_llm.preferences.messages import Message

__all__ = ["reference_log_ratios", "response_log_probabilities"]

AT_ONCE = 8  # answers behind one prompt: their logits hold a row of the vocabulary for every token


def response_log_probabilities(
    lm: Any, tokenizer: Any, prompt: Sequence[Message], responses: Sequence[str], *, template: str = "auto",
    max_length: int = 1024, max_response_length: int | None = None, share_prefix: bool = True,
) -> list[tuple[float, int]]:  # fmt: skip
    """(log-probability, number of tokens) of each response to one prompt.

    Parameters
    ----------
    template, max_length, max_response_length : as in `extract`.
    share_prefix : run the prompt once; False runs it before every response, for models whose cache cannot be repeated.
    """
    if template not in ("auto", "chat", "plain"):
        raise ValueError(f"template must be 'auto', 'chat' or 'plain', got {template!r}")
    import torch

    if template == "auto":
        template = "chat" if getattr(tokenizer, "chat_template", None) else "plain"
    layout, half = Template(tokenizer, template), max_response_length or max_length // 2
    before = layout.prompt_tokens(prompt)
    texts = [layout.text(before, layout.response_tokens(text), max_length, half) for text in responses]
    if not texts:
        return []
    start = torch.tensor([texts[0].prompt], device=lm.device)
    answers = [list(text.response) for text in texts]
    if not share_prefix:
        return [_behind(lm, start, [answer], share=False)[0] for answer in answers]
    found: list[tuple[float, int]] = []
    for begin in range(0, len(answers), AT_ONCE):
        found += _behind(lm, start, answers[begin : begin + AT_ONCE], share=True)
    return found


def _behind(lm: Any, start: Any, answers: list[list[int]], *, share: bool) -> list[tuple[float, int]]:
    import torch

    width = max(map(len, answers))
    ids = torch.tensor([[*answer, *[0] * (width - len(answer))] for answer in answers], device=lm.device)
    with torch.inference_mode():
        if width == 0:
            return [(0.0, 0)] * len(answers)
        if share:
            before = lm(start, use_cache=True, logits_to_keep=1)
            cache = cache_of(before)
            if len(answers) > 1:
                cache.batch_repeat_interleave(len(answers))
            logits = before.logits[:, -1:].expand(len(answers), -1, -1)
            if width > 1:
                after = lm(ids[:, :-1], use_cache=True, **{str(cache_keyword(lm)): cache}).logits
                logits = torch.cat([logits, after], dim=1)
        else:
            whole = torch.cat([start, ids], dim=1)
            logits = lm(whole, use_cache=False).logits[:, start.shape[1] - 1 : -1]
        each = logits.float().log_softmax(dim=-1).gather(2, ids[:, :, None])[:, :, 0].double()
    return [(float(row[: len(answer)].sum()), len(answer)) for row, answer in zip(each, answers, strict=True)]


def reference_log_ratios(
    lm: Any, tokenizer: Any, triples: Sequence[Triple], *, template: str = "auto", max_length: int = 1024,
    max_response_length: int | None = None, per_token: bool = False, share_prefix: bool = True,
) -> Float[np.ndarray, " m"]:  # fmt: skip
    """`log p(chosen | prompt) - log p(rejected | prompt)` of triples; `per_token` divides both by their lengths.

    The other options are those of `response_log_probabilities`.
    """
    asked: dict[tuple[Message, ...], dict[str, float]] = {}
    for triple in triples:
        asked.setdefault(tuple(triple.prompt), {}).update({triple.chosen: np.nan, triple.rejected: np.nan})
    for prompt, answers in asked.items():
        found = response_log_probabilities(
            lm, tokenizer, prompt, list(answers), template=template, max_length=max_length,
            max_response_length=max_response_length, share_prefix=share_prefix,
        )  # fmt: skip
        for text, (total, n) in zip(list(answers), found, strict=True):
            answers[text] = total / max(n, 1) if per_token else total
    return np.array([asked[tuple(t.prompt)][t.chosen] - asked[tuple(t.prompt)][t.rejected] for t in triples])
