"""What `generate` and `simulate` share: the model, and how it is sampled."""

from __future__ import annotations

import argparse
from typing import Any

from cvxrelu.support.errors import InputError
from cvxrelu_llm.models.causal import load_lm

__all__ = ["SAMPLING", "add_sampling_options", "lm_of"]

SAMPLING = ("temperature", "top_k", "top_p", "max_new_tokens")


def lm_of(options: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer of --model."""
    if options.gguf_file is not None and options.model.endswith(".gguf"):
        raise InputError(f"--gguf-file has no effect with --model {options.model}, which is such a file")
    where = {"gguf_file": options.gguf_file, "revision": options.revision}
    return load_lm(options.model, options.device, options.dtype or "auto", **where)


def add_sampling_options(parser: argparse.ArgumentParser, *, tokens: int, temperature: float) -> None:
    """The model, where it runs, and how tokens are drawn."""
    parser.add_argument("--model", metavar="NAME", help="a folder, a .gguf file, or the name of a model on the hub")
    parser.add_argument("--gguf-file", metavar="FILE", help="its name in that folder or repository")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"),
                        help="default: that of the head's features, or else of the file")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="as PyTorch names it (cpu)")
    parser.add_argument("--temperature", type=float, default=temperature, help=f"({temperature})")
    parser.add_argument("--top-k", type=int, default=50, help="(50)")
    parser.add_argument("--top-p", type=float, default=0.9, help="(0.9)")
    parser.add_argument("--max-new-tokens", type=int, default=tokens, help=f"tokens per text ({tokens})")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
