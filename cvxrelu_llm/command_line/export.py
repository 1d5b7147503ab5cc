"""`cvxrelu-llm export`: a head for other programs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write
from cvxrelu_llm.command_line.command import Command

__all__ = ["command"]

KINDS = ("torch", "onnx", "transformers", "classifier", "qwen2")


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("head", nargs="?", metavar="HEAD", help="folder of `cvxrelu-llm fit`")
    parser.add_argument("--to", choices=KINDS, default="torch",
                        help="torch: state of Sequential(Linear, ReLU, Linear) as safetensors; onnx: a graph; "
                        "transformers, classifier (linear heads), qwen2: folders with the language model")  # fmt: skip
    parser.add_argument("--out", metavar="PATH", help="the file, or the new folder, to write")
    parser.add_argument("--model", metavar="NAME", help="the language model, for transformers, classifier and qwen2")
    parser.add_argument("--gguf-file", metavar="FILE", help="its name in that folder")


def _run(options: argparse.Namespace) -> int:
    from cvxrelu_llm.exports import write as export
    from cvxrelu_llm.heads.head import ConvexRewardHead

    out = Path(options.out)
    if os.path.lexists(out):
        raise InputError(f"--out {out}: exists already; choose another name")
    if options.to not in ("torch", "onnx") and options.model is None:
        raise InputError(f"--to {options.to} needs --model, the language model that the head was fitted on")
    for name in ("model", "gguf_file"):
        if options.to in ("torch", "onnx") and getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} has no effect with --to {options.to}: no model is written")
    head = ConvexRewardHead.load(options.head)
    try:
        if options.to == "torch":
            from safetensors.torch import save

            atomic_write(out, save(export.to_torch(head).state_dict()), overwrite=False)
        elif options.to == "onnx":
            export.export_onnx(head, out, overwrite=False)
        elif options.to == "transformers":
            export.export_reward_model(head, options.model, out, gguf_file=options.gguf_file)
        elif options.to == "classifier":
            export.export_sequence_classifier(head, options.model, out, gguf_file=options.gguf_file)
        else:
            export.export_qwen2_reward_model(head, options.model, out, gguf_file=options.gguf_file)
    except ImportError as error:
        raise InputError(str(error)) from error
    print(f"written        {out}")
    return 0


command = Command(
    "write a head for PyTorch, ONNX, transformers or serving",
    "The linear part becomes two hidden units, so that every target gets a linear-ReLU-linear network. Parity with\n"
    "vLLM and SGLang, which serve qwen2, has not been tested in these programs.",
    "  cvxrelu-llm export head --to onnx --out head.onnx\n"
    "  cvxrelu-llm export head --to transformers --model my-model --out reward-model\n",
    ("head", "out"),
    _add,
    _run,
)
