"""Log-probabilities of answers under a language model: the reference offset of preference optimisation, and a baseline.

    log p(answer | prompt) = sum over tokens t of the answer of log p(t | prompt, tokens before)

An end-of-turn mark is not part of the answer, as in the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu_llm.formats import Triple
from cvxrelu_llm.messages import Message

__all__ = ["reference_log_ratios", "response_log_probability"]


def response_log_probability(
    lm: Any, tokenizer: Any, prompt: Sequence[Message], response: str, *, template: str = "auto",
    max_length: int = 1024,
) -> tuple[float, int]:  # fmt: skip
    """(log-probability of the response, number of its tokens); the prompt loses its oldest tokens, at `max_length`."""
    import torch

    from cvxrelu_llm.scorers import as_tokens

    answer = tokenizer(response, add_special_tokens=False)["input_ids"][: max_length // 2]
    messages = [message._asdict() for message in prompt]
    given: Any = messages[0]["content"] if len(messages) == 1 and template == "plain" else messages
    start = as_tokens(tokenizer, given, template).tolist()[-(max_length - len(answer)) :]
    ids = torch.tensor([[*start, *answer]], device=lm.device)
    with torch.inference_mode():
        logits = lm(ids, use_cache=False).logits[0, len(start) - 1 : -1].float()
    chosen = logits.log_softmax(dim=-1).gather(1, ids[0, len(start) :, None])
    return float(chosen.double().sum()), len(answer)


def reference_log_ratios(
    lm: Any, tokenizer: Any, triples: Sequence[Triple], *, template: str = "auto", max_length: int = 1024,
    per_token: bool = False,
) -> Float[np.ndarray, " m"]:  # fmt: skip
    """`log p(chosen | prompt) - log p(rejected | prompt)` of triples; `per_token` divides both by their lengths."""
    ratios = []
    for triple in triples:
        sides = []
        for response in (triple.chosen, triple.rejected):
            total, n = response_log_probability(
                lm, tokenizer, triple.prompt, response, template=template, max_length=max_length
            )
            sides.append(total / max(n, 1) if per_token else total)
        ratios.append(sides[0] - sides[1])
    return np.array(ratios)
