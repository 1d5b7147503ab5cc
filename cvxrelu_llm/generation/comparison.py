"""Guided decoding against plain sampling that may read as many tokens, over a sweep of temperatures.

A guided text reads n_candidates tokens for each it writes. Plain sampling gets no fewer: texts are drawn until they
have read at least as many (so the number of texts is a stopping time, and short texts are not favoured). The best of
them is what best-of-n would return at that price, their mean what a single text is worth. Whoever compares a guided
text with one plain text compares different amounts of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxrelu.support.checks import as_positive, as_seed
from cvxrelu_llm.generation.decoding import Generation, guide_batch, sample
from cvxrelu_llm.generation.kl import KLCost, best_of_n_bound
from cvxrelu_llm.generation.scorers import Scorer

__all__ = ["TEMPERATURES", "Comparison", "compare"]

TEMPERATURES = (0.1, 0.2, 0.3, 0.4, 0.7, 1.0)
BATCH = 8  # plain texts drawn side by side
STRIDE = 1_000_003  # between the seeds of batches, far beyond those of prompts
SAMPLING = ("temperature", "top_k", "top_p", "max_new_tokens", "do_sample", "template")


@dataclass(frozen=True)
class Comparison:
    """One temperature, averaged over prompts.

    Attributes
    ----------
    temperature, n_prompts : of this row.
    guided_score, plain_score, best_score : of guided texts, of plain texts, and of the best plain text per prompt.
    wins : share of prompts whose guided text scores above the best plain one; a tie counts half.
    plain_texts : plain texts per prompt that the tokens of the guided one paid for.
    guided_length, plain_length, best_length : new tokens per text.
    guided_read, plain_read : tokens read per prompt; the plain figure is the larger one, by less than a text.
    guided_kl : divergence of guided from plain sampling, in nats: mean over prompts of `tilting + candidates`, kind
        "estimate"; without sampling kind "none".
    guided_bound : mean of the guided texts' own `kl.nats`, cost of tilting alone; None without sampling.
    best_kl : `log n - (n - 1) / n`, mean over prompts, kind "bound"; without sampling kind "none".
    """

    temperature: float
    n_prompts: int
    guided_score: float
    plain_score: float
    best_score: float
    wins: float
    plain_texts: float
    guided_length: float
    plain_length: float
    best_length: float
    guided_read: float
    plain_read: float
    guided_kl: KLCost
    guided_bound: float | None
    best_kl: KLCost

    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**vars(self), "guided_kl": self.guided_kl._asdict(), "best_kl": self.best_kl._asdict()}


def compare(
    lm: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    scorer: Scorer,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    seed: int = 0,
    **options: Any,
) -> list[Comparison]:
    """One row per temperature. `options` are those of `guide_batch`; its sampling options go to plain sampling too.

    Every prompt has a seed of its own, the same at all temperatures. Scores are the scorer's: they say whether guidance
    raises what it is guided by, not whether people prefer the result. For that there is the survey.
    """
    if len(prompts) == 0:
        raise ValueError("prompts must hold at least one prompt, got none")
    if len(temperatures) == 0:
        raise ValueError("temperatures must hold at least one temperature, got none")
    for temperature in temperatures:
        as_positive("temperatures", temperature)
    seed = as_seed(seed)
    rows = []
    for temperature in temperatures:
        settings = {**options, "temperature": temperature}
        pairs = []
        texts = guide_batch(lm, tokenizer, prompts, scorer, seed=seed, **settings)
        for i, (prompt, guided) in enumerate(zip(prompts, texts, strict=True)):
            plain = {name: value for name, value in settings.items() if name in SAMPLING}
            pairs.append((guided, matched(lm, tokenizer, prompt, scorer, guided.tokens_read, seed + i, plain)))
        rows.append(_row(float(temperature), pairs))
    return rows


def matched(
    lm: Any, tokenizer: Any, prompt: Any, scorer: Scorer, tokens: int, seed: int, options: dict[str, Any]
) -> list[Generation]:
    """Plain texts, drawn until they have read so many tokens, the prompt counted once."""
    texts: list[Generation] = []
    while tokens > 0:
        batch = len(texts) // BATCH
        for text in sample(lm, tokenizer, prompt, scorer, n=BATCH, seed=seed + STRIDE * (batch + 1), **options):
            tokens -= text.forward_passes - 1 if texts else text.tokens_read
            texts.append(text)
            if tokens <= 0:
                break
    return texts


def _row(temperature: float, pairs: list[tuple[Generation, list[Generation]]]) -> Comparison:
    guided = [text for text, _ in pairs]
    plain = [text for _, texts in pairs for text in texts]
    best = [max(texts, key=_score) for _, texts in pairs]
    margins = np.array([_score(text) - _score(rival) for text, rival in zip(guided, best, strict=True)])
    read = [texts[0].tokens_read + sum(text.forward_passes - 1 for text in texts[1:]) for _, texts in pairs]
    tilting, candidates, truncation = (
        _mean([getattr(text.kl, name) for text in guided]) for name in ("tilting", "candidates", "truncation")
    )
    sampled = all(text.kl.nats is not None for text in guided)
    return Comparison(
        temperature=temperature,
        n_prompts=len(pairs),
        guided_score=_mean([_score(text) for text in guided]),
        plain_score=_mean([_mean([_score(text) for text in texts]) for _, texts in pairs]),
        best_score=_mean([_score(text) for text in best]),
        wins=float(np.mean((margins > 0) + 0.5 * (margins == 0))),
        plain_texts=len(plain) / len(pairs),
        guided_length=_mean([len(text.tokens) for text in guided]),
        plain_length=_mean([_mean([len(text.tokens) for text in texts]) for _, texts in pairs]),
        best_length=_mean([len(text.tokens) for text in best]),
        guided_read=_mean([text.tokens_read for text in guided]),
        plain_read=_mean(read),
        guided_kl=KLCost(
            "estimate" if sampled else "none",
            tilting + candidates if sampled else None,
            tilting,
            candidates,
            truncation,
            guided[0].kl.budget,
        ),
        guided_bound=_mean([text.kl.nats for text in guided if text.kl.nats is not None]) if sampled else None,
        best_kl=KLCost("bound", _mean([best_of_n_bound(len(texts)) for _, texts in pairs]))
        if sampled
        else KLCost("none", None),
    )


def _score(text: Generation) -> float:
    assert text.score is not None
    return text.score


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
