"""Texts: sampled from a policy, or from the base model with a convex head; and how far they are from the base model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.comparison.tasks import WRITTEN, Comparison
from cvxrelu_llm.generation.decoding import Generation, best_of_n, guide_batch
from cvxrelu_llm.generation.scorers import as_tokens

__all__ = ["SCALES", "guided_ways", "judged", "written_by"]

SCALES, BEST_OF, CANDIDATES = (1.0, 2.0, 4.0, 8.0), (2, 5, 20), 10
SAMPLING = {"temperature": 1.0, "max_new_tokens": WRITTEN}
Write = Callable[[list[Any], int], list[Generation]]  # prompts, and the seed of the first
BATCH = 8  # prompts answered side by side


def guided_ways(lm: Any, tokenizer: Any, scorer: Any, template: str) -> dict[str, Write]:
    """The base model alone, guided by rewards times a scale, and the best of n texts, by the same head."""
    common: dict[str, Any] = {**SAMPLING, "template": template}

    def guided(scale: float) -> Write:
        more = {"scale": scale, "normalise": False, "n_candidates": CANDIDATES}
        return lambda prompts, seed: guide_batch(lm, tokenizer, prompts, scorer, seed=seed, **common, **more)

    def best(n: int) -> Write:
        return lambda prompts, seed: [
            best_of_n(lm, tokenizer, prompt, scorer, n=n, seed=seed + i, **common) for i, prompt in enumerate(prompts)
        ]

    return {
        "base model": guided(0.0),
        **{f"guided, scale {scale:g}": guided(scale) for scale in SCALES},
        **{f"best of {n}": best(n) for n in BEST_OF},
    }


def written_by(task: Comparison, write: Write, progress: str = "") -> list[dict[str, Any]]:
    """A text per prompt; `nats` is the divergence of guided texts from the base model's, exact along the text."""
    texts = []
    for start in range(0, len(task.prompts), BATCH):
        for found in write(task.prompts[start : start + BATCH], start):
            nats = found.kl.tilting + found.kl.candidates
            texts.append({"text": found.text, "tokens": list(found.tokens), "nats": nats, "read": found.tokens_read})
        if progress:
            print(f"{progress}: {len(texts)} of {len(task.prompts)} texts", flush=True)
    return texts


def policy_texts(task: Comparison, trained: Any, base: tuple[Any, Any]) -> list[dict[str, Any]]:
    """A text of the policy per prompt, and its exact divergence from the base model along that text.

        nats = sum_t KL(policy(. | prompt, text before t) || base(. | prompt, text before t))

    between the whole distributions of the next token; texts are drawn as all others, by top-k and top-p.
    """
    import torch

    plain: dict[str, Any] = SAMPLING | {"scale": 0.0}
    texts = written_by(task, lambda p, seed: guide_batch(trained.model, trained.tokenizer, p, None, seed=seed, **plain))
    for prompt, text in zip(task.prompts, texts, strict=True):
        start = as_tokens(trained.tokenizer, prompt, "auto").to(trained.model.device)
        ids = torch.cat([start, torch.tensor(text["tokens"], device=start.device)])[None, :-1]
        steps = slice(len(start) - 1, None)
        with torch.no_grad():
            ours, theirs = (lm(input_ids=ids).logits[0, steps].log_softmax(-1) for lm in (trained.model, base[0]))
        text["nats"] = float((ours.exp() * (ours - theirs)).sum())
    return texts


def judged(texts: Sequence[dict[str, Any]], good: np.ndarray, plain: np.ndarray | None) -> dict[str, Any]:
    """Share that the judge calls good, over the base model's on the same prompts, divergence, variety, length, cost."""
    error, share = 1.96 / math.sqrt(len(texts)), good > 0.5
    gain = share.astype(float) - (share if plain is None else plain > 0.5)
    nats = np.array([text["nats"] for text in texts])
    pairs = [pair for t in texts for pair in zip(t["tokens"], t["tokens"][1:], strict=False)]
    return {
        "good": float(share.mean()), "gain": float(gain.mean()), "gain_error": error * float(gain.std(ddof=1)),
        "nats": float(nats.mean()), "nats_error": error * float(nats.std(ddof=1)),
        "distinct": len(set(pairs)) / max(len(pairs), 1), "length": float(np.mean([len(t["tokens"]) for t in texts])),
        "read": float(np.mean([text["read"] for text in texts])),
    }  # fmt: skip
