"""Does this installation read a language model as it should? A tiny random one, made in memory, has a known answer."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress

import numpy as np

from cvxrelu_llm.features.extract import embed

__all__ = ["checkup", "packages"]

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "gguf", "sentence-transformers", "keras-hub",
            "datasets", "pyyaml")  # fmt: skip
PROMPT, ANSWERS = "the sum of two", ["sides", "sides and two more", "the two"]
TOLERANCE = 1e-4


def packages() -> dict[str, str]:
    """Versions of what is installed of the packages that `cvxrelu_llm` can use."""
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def checkup() -> str:
    """What is missing or wrong; nothing where all is well.

    The states of a random Llama, prompt shared and texts batched, must be those of `transformers` text by text.
    """
    try:
        import transformers
        from tokenizers import Tokenizer, models, pre_tokenizers

        from cvxrelu_llm.models.torch_models import TorchModel
    except ImportError as error:
        return f"not available: pip install 'cvxrelu[llm]' ({error})"
    words = ["<unk>", *sorted({word for text in (PROMPT, *ANSWERS) for word in text.split()})]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<unk>")
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.5, pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    lm = transformers.LlamaModel(config).eval()
    model = TorchModel(lm, tokenizer, name="check")
    texts = [(PROMPT, " " + answer) for answer in ANSWERS]
    found = embed(model, texts, layer=2, pooling="last", template="plain")
    for (prompt, answer), row in zip(texts, found, strict=True):
        ids = tokenizer(prompt + answer, return_tensors="pt", return_token_type_ids=False)
        expected = lm(**ids, output_hidden_states=True).hidden_states[2][0, -1].detach().numpy()
        off = float(np.abs(row - expected).max() / np.abs(expected).max())
        if not off <= TOLERANCE:
            return f"WRONG: states of {answer.strip()!r} differ from those of transformers by {off:.1e}"
    return ""
