"""Log-probabilities of answers under a language model.

log p(answer | prompt) = sum over tokens t of the answer of log p(t | prompt, tokens before)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvxrelu_llm.models.kv_cache import cache_keyword, cache_of
from cvxrelu_llm.models.templates import Template
from cvxrelu_llm.models.torch_models import evaluating
from cvxrelu_llm.preferences.messages import Message

__all__ = ["response_log_probabilities"]


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
    with torch.inference_mode(), evaluating(lm):
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
