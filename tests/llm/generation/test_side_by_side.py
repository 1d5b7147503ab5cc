"""Texts of several prompts side by side: what each would be alone, for every kind of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_lm import WORDS, make_lm, make_tokenizer

pytest.importorskip("transformers", reason="needs transformers: pip install 'cvxrelu[llm]'")

import torch
import transformers

from cvxrelu_llm.generation.decoding import Generation, guide, guide_batch, sample
from cvxrelu_llm.generation.scorers import HiddenStateScorer, score_tokens
from cvxrelu_llm.generation.side_by_side import SideBySide
from cvxrelu_llm.generation.states import POOLINGS, prefill

PROMPTS = [[5, 6, 7, 40], [9], [5, 6, 7, 8, 10, 11, 12, 41, 42], [30, 31], [1, 2, 3, 4, 5]]
FREE: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 12, "normalise": False, "scale": 3.0}
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.5, "word_embed_proj_dim": 16, "ffn_dim": 32,
}  # fmt: skip
TOGETHER = {"Llama": {}, "GPT2": {}, "Qwen3": {"head_dim": 8}, "GPTNeoX": {}, "OPT": {}, "Phi": {}}
ALONE = {"Mistral": {"sliding_window": 6}, "Bloom": {}}


def model(kind: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**SIZES, **{**TOGETHER, **ALONE}[kind])
        return getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config).eval()


def head(features: np.ndarray) -> np.ndarray:
    return np.tanh(features @ np.random.default_rng(0).standard_normal(features.shape[1]))


def scorer(**options: Any) -> HiddenStateScorer:
    return HiddenStateScorer(head, **{"layer": [1, -1], "pooling": ["last", "response_mean"], **options})


def same(found: Generation, wanted: Generation) -> None:
    assert found.tokens == wanted.tokens and found.finished == wanted.finished
    assert (found.forward_passes, found.tokens_read) == (wanted.forward_passes, wanted.tokens_read)
    assert found.score == pytest.approx(wanted.score, abs=1e-4)
    for name in ("tilting", "candidates", "truncation"):
        assert getattr(found.kl, name) == pytest.approx(getattr(wanted.kl, name), abs=1e-3)


@pytest.mark.parametrize("kind", [*TOGETHER, *ALONE])
def test_every_text_is_the_one_written_alone(kind: str) -> None:
    lm, tokenizer = model(kind), make_tokenizer()
    states = [prefill(lm, torch.tensor([prompt])) for prompt in PROMPTS]
    assert SideBySide(states).together == (kind in TOGETHER)
    lengths = set()
    for options in (
        {},
        {"every": 3},
        {"n_candidates": None, "top_k": 7},
        {"scale": 0.0},
        {"do_sample": False},
    ):
        found = guide_batch(lm, tokenizer, PROMPTS, scorer(), seed=3, batch_size=3, **FREE | options)
        assert len(found) == len(PROMPTS)
        for i, (text, prompt) in enumerate(zip(found, PROMPTS, strict=True)):
            same(text, guide(lm, tokenizer, prompt, scorer(), seed=3 + i, **FREE | options))
        lengths |= {len(text.tokens) for text in found}
    assert len(lengths) > 1 or kind != "Llama"  # which ends its texts, and at different steps


@pytest.mark.parametrize("pooling", POOLINGS)
def test_scores_are_those_of_a_pass_of_their_own(pooling: str) -> None:
    lm, tokenizer = make_lm(), make_tokenizer()
    for prompt in ("read", "product"):
        how = scorer(pooling=pooling, prompt=prompt)
        for text, asked in zip(guide_batch(lm, tokenizer, PROMPTS, how, **FREE), PROMPTS, strict=True):
            tokens = [*asked, *(text.tokens[:-1] if text.finished else text.tokens)]
            alone = score_tokens(lm, how, tokens, prompt_length=len(asked))[0]
            assert text.score == pytest.approx(alone, abs=1e-4)


def test_without_guidance_texts_are_those_of_the_model() -> None:
    lm, tokenizer = make_lm("gpt2"), make_tokenizer()
    plain = FREE | {"scale": 0.0}
    found = guide_batch(lm, tokenizer, PROMPTS, scorer(), seed=7, **plain)
    for i, (text, prompt) in enumerate(zip(found, PROMPTS, strict=True)):
        (wanted,) = sample(lm, tokenizer, prompt, seed=7 + i, temperature=1.0, max_new_tokens=12)
        assert text.tokens == wanted.tokens


def test_states_are_those_of_texts_read_alone() -> None:
    """Rows repeated, exchanged and left out between reads."""
    lm = model("Llama")
    states = [prefill(lm, torch.tensor([prompt]), layer=[0, 1, 2]) for prompt in PROMPTS[:3]]
    reader = SideBySide(states)
    a, b, c = reader.read(states, [torch.tensor([7, 8]), torch.tensor([9]), torch.tensor([10, 11, 12])])
    c, a = c.select([2]), a.select([1])
    c, a = reader.read([c, a], [torch.tensor([20, 21]), torch.tensor([22])])
    for state, rows in ((c, [[*PROMPTS[2], 12, 20], [*PROMPTS[2], 12, 21]]), (a, [[*PROMPTS[0], 8, 22]])):
        with torch.no_grad():
            out = lm(torch.tensor(rows), output_hidden_states=True)
        assert state.tokens.tolist() == rows
        torch.testing.assert_close(state.logits, out.logits[:, -1], atol=1e-5, rtol=1e-4)
        wanted = torch.stack([hidden[:, -1] for hidden in out.hidden_states], dim=1)
        torch.testing.assert_close(state.last, wanted, atol=1e-5, rtol=1e-4)
    assert b.usage.tokens == 2 and b.usage.forward_passes == 2


def test_bad_input() -> None:
    lm, tokenizer = make_lm(), make_tokenizer()
    with pytest.raises(TypeError, match="guide has no option 'scales'"):
        guide_batch(lm, tokenizer, PROMPTS, scorer(), scales=2.0)
    with pytest.raises(ValueError, match="batch_size"):
        guide_batch(lm, tokenizer, PROMPTS, scorer(), batch_size=0)
    with pytest.raises(ValueError, match="prompts must be a list"):
        guide_batch(lm, tokenizer, "why?", scorer())
    assert guide_batch(lm, tokenizer, [], scorer()) == []
