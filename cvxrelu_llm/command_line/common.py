"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvxrelu.support.errors import InputError
from cvxrelu_llm.command_line.command import count, input_errors
from cvxrelu_llm.models.causal import load_lm
from cvxrelu_llm.preferences.published import PUBLISHED
from cvxrelu_llm.preferences.triples import Triples, load_triples

__all__ = [
    "SAMPLING",
    "add_data_options",
    "add_model_options",
    "add_output_options",
    "add_reading_options",
    "add_sampling_options",
    "add_text_options",
    "counted",
    "lm_of",
    "read_triples",
    "refuse_existing",
]

SAMPLING = ("temperature", "top_k", "top_p", "max_new_tokens")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """DATA and how to read it."""
    parser.add_argument("data", nargs="?", metavar="DATA",
                        help="a .jsonl, .json, .csv, .tsv (also .gz) or .parquet file, or a hub data set")  # fmt: skip
    add_reading_options(parser)
    parser.add_argument("--strict", action="store_true", help="refuse the data where triples would be dropped")


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """What `load_triples` wants to know of data, wherever they are named."""
    parser.add_argument("--columns", nargs="+", metavar="NAME=COLUMN",
                        help="where fields have other names, e.g. chosen=better rejected=worse")  # fmt: skip
    parser.add_argument("--format", choices=("auto", "standard", *PUBLISHED), default="auto",
                        help="auto: published collections are known by their fields")  # fmt: skip
    parser.add_argument("--ratings", choices=("ignore", "margin"), default="ignore",
                        help="margin: pairs rated further apart have larger margins")  # fmt: skip
    parser.add_argument("--dialogue", choices=("auto", "text"), default="auto",
                        help="auto: texts marked with Human: and Assistant: become chat messages")  # fmt: skip
    parser.add_argument("--split", default="train", metavar="NAME", help="of a hub data set (default: %(default)s)")


def read_triples(options: argparse.Namespace, source: str | None = None) -> Triples:
    """The triples of DATA, or of another source, read as the options say; `--strict` is of DATA alone."""
    columns = {}
    for item in options.columns or []:
        name, sign, column = item.partition("=")
        if not sign or name in columns:
            raise InputError(f"--columns {item!r}: expected NAME=COLUMN, each name once")
        columns[name] = column
    with input_errors():  # an unknown name in --columns
        return load_triples(
            options.data if source is None else source,
            format=options.format,
            columns=columns,
            ratings=options.ratings,
            dialogue=options.dialogue,
            strict=source is None and getattr(options, "strict", False),
            # of a hub data set: where only one of DATA and another source is one, it is of that one
            split=options.split if source is None or not Path(source).exists() else "train",
        )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The model and where it runs: the arguments of `load_model`."""
    parser.add_argument("--model", metavar="NAME", help="folder, .gguf file, or name on the hub")
    parser.add_argument("--gguf-file", metavar="FILE", help="its name in that folder or repository")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"),
                        help="default: bfloat16 where the processor computes in it")  # fmt: skip
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, ... (default: the first GPU, if any)")
    parser.add_argument("--backend", choices=("torch", "jax"), default="torch", help="jax: a GPT-2 through KerasHub")


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """How texts become tokens and tokens become batches."""
    parser.add_argument("--template", choices=("auto", "chat", "plain"), default="auto",
                        help="auto: the model's chat template if it has one")  # fmt: skip
    parser.add_argument("--max-length", type=count, metavar="N",
                        help="tokens per text (default: the model's limit, at most 1024)")  # fmt: skip
    parser.add_argument("--max-response-length", type=count, metavar="N",
                        help="tokens of a response (default: half of --max-length)")  # fmt: skip
    parser.add_argument("--batch-tokens", type=count, default=4096, metavar="N",
                        help="padded tokens per batch (default: %(default)s)")  # fmt: skip
    parser.add_argument("--share-prefix", action=argparse.BooleanOptionalAction, default=True,
                        help="run each prompt once for all of its responses")  # fmt: skip


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """What becomes of files that are there, and of lines on the screen."""
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--quiet", action="store_true", help="print nothing but results and errors")


def refuse_existing(option: str, path: str | os.PathLike[str] | None, overwrite: bool) -> None:
    """InputError where a file to write is there already, before any work."""
    if path is not None and os.path.lexists(path) and not overwrite:
        raise InputError(f"{option} {os.fspath(path)}: the file exists; choose another, or pass --overwrite")


def features_file(path: str, name: str) -> str:
    """The file of features that `path` means: itself, or the one of this name in a folder of `cvxrelu-llm extract`."""
    inside = os.path.join(path, name)
    return inside if os.path.isfile(inside) else path


def counted(counts: Mapping[str, int]) -> str:
    """Counts in one line, zeros left out."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items() if value)


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
