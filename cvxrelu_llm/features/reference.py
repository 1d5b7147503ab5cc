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

from cvxrelu_llm.models.log_probabilities import response_log_probabilities
from cvxrelu_llm.preferences.messages import Message
from cvxrelu_llm.preferences.triple import Triple

__all__ = ["reference_log_ratios"]


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
