"""`cvxrelu-llm audit`: which training pairs are probably mislabelled."""

from __future__ import annotations

import argparse
import json

from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write
from cvxrelu_llm.command_line.command import Command, count
from cvxrelu_llm.command_line.common import features_file, refuse_existing
from cvxrelu_llm.features.pair_features import PairFeatures

__all__ = ["command"]


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("head", nargs="?", metavar="HEAD", help="folder of `cvxrelu-llm fit`")
    parser.add_argument(
        "--features", metavar="FILE", help="the features that the head was fitted on, or the folder of extract"
    )
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="pairs to list (%(default)s)")
    parser.add_argument("--out", metavar="FILE", help="a file of JSON lines for the list")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --out names")


def _run(options: argparse.Namespace) -> int:
    from cvxrelu_llm.heads.head import ConvexRewardHead

    refuse_existing("--out", options.out, options.overwrite)
    head = ConvexRewardHead.load(options.head).attach(
        PairFeatures.load(features_file(options.features, "train.safetensors"))
    )
    if head.data is None:
        raise InputError(f"{options.head}: no pairs")
    found = head.audit(options.limit)
    rows = [{**suspect._asdict(), "triple": int(head.data.kept[suspect.pair])} for suspect in found]
    print("  pair  triple  margin without it  probability of its label")
    for row in rows:
        print(f"{row['pair']:6} {row['triple']:7} {row['margin_without']:18.3f} {row['probability']:25.3f}")
    if options.out:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        atomic_write(options.out, text, overwrite=options.overwrite)
    return 0


command = Command(
    "list training pairs that are probably mislabelled",
    "For every pair: the margin that a model of all other pairs gives it, without refits. Most negative first.\n"
    "`triple` counts, from 0, in the triples that the features were extracted from.",
    "  cvxrelu-llm audit head --features features/train.safetensors --limit 10\n",
    ("head", "features"),
    _add,
    _run,
)
