"""Random two-layer language models and a tokenizer of sixty words, made in memory: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import pytest

SPECIAL = ["<unk>", "<s>", "</s>"]
WORDS = [*SPECIAL, "student", "tutor", ":", *(a + b for a in "bdfgklmnprst" for b in "aeiou")][:60]
TEMPLATE = "{% for m in messages %}<s> {{ m['role'] }} : {{ m['content'] }} {% endfor %}"


def make_tokenizer(chat: bool = False) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'cvxrelu[llm]'")
    from tokenizers import Tokenizer, models, pre_tokenizers

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    if chat:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_lm(kind: str = "llama", *, vocab: int = len(WORDS), end: int | None = 2, seed: int = 0) -> Any:
    """end : id of the token that ends a text; None for a model that never stops."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'cvxrelu[llm]'")
    import torch

    common: dict[str, Any] = {"vocab_size": vocab, "bos_token_id": 1, "eos_token_id": end, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "llama":
            sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
            heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
            config = transformers.LlamaConfig(**common, **sizes, **heads, initializer_range=0.5)
            lm = transformers.LlamaForCausalLM(config)
        else:
            config = transformers.GPT2Config(
                **common, n_embd=16, n_layer=2, n_head=2, n_positions=128, initializer_range=0.4
            )
            lm = transformers.GPT2LMHeadModel(config)
    return lm.eval()
