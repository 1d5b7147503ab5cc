"""What `generate` and `simulate` share: the model, and how it is sampled."""

from __future__ import annotations

import argparse
import os
from typing import Any

from cvxrelu_llm.models.causal import load_lm

SAMPLING = ("temperature", "top_k", "top_p", "max_new_tokens")


def _lm(args: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer of --model."""
    if args.gguf_file is not None and args.model.endswith(".gguf"):
        raise ValueError(f"--gguf-file has no effect with --model {args.model}, which is such a file")
    where = {"gguf_file": args.gguf_file, "revision": args.revision}
    return load_lm(args.model, args.device, args.dtype or "auto", **where)


def _refuse_existing(path: str, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise ValueError(f"{path}: the file exists; choose another, or pass --overwrite")


def _model_options(parser: Any, tokens: int, temperature: float) -> None:
    parser.add_argument("--model", required=True, help="a folder, a .gguf file, or the name of a model on the hub")
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
