"""A causal language model with its output layer, and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["load_lm"]


def load_lm(
    path: str, device: str = "cpu", dtype: str = "auto", *, gguf_file: str | None = None, revision: str | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer from a folder, a .gguf file (needs gguf and accelerate) or the name of a model on the hub.

    gguf_file : its name, where `path` is that of a folder or a repository. revision : of a hub model.
    ValueError for a model without output layer, of which the library would make one at random.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise ValueError("generation needs transformers: pip install 'cvxrelu[llm]'") from error
    keywords: dict[str, Any] = {"gguf_file": gguf_file, "revision": revision}
    keywords = {name: value for name, value in keywords.items() if value is not None}
    if path.endswith(".gguf"):
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
        path, keywords["gguf_file"] = str(Path(path).resolve().parent), Path(path).name
    tokenizer = AutoTokenizer.from_pretrained(path, **keywords)
    lm, loaded = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True, **keywords)
    output = getattr(lm.get_output_embeddings(), "weight", None)
    if any(weight is output and name in loaded["missing_keys"] for name, weight in lm.named_parameters()):
        raise ValueError(f"{path}: has no weights for the output layer, so that it is not a causal language model")
    return lm.to(device).eval(), tokenizer
