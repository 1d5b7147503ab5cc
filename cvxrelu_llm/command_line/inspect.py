"""`cvxrelu-llm inspect`: what is in a file of preferences, and whether two files leak into each other."""

from __future__ import annotations

import argparse

import numpy as np

from cvxrelu_llm.command_line.command import Command
from cvxrelu_llm.command_line.common import add_data_options, counted, read_triples
from cvxrelu_llm.preferences import splits
from cvxrelu_llm.preferences.triples import Triples

__all__ = ["command"]


def _add(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    parser.add_argument("--against", metavar="DATA", help="training data that must not share a prompt or group with it")


def _run(options: argparse.Namespace) -> int:
    triples = read_triples(options)
    print(f"{options.data}: {counted(triples.counts)}")
    print(f"groups          {len(np.unique(splits.components(triples)))}, kept whole by every split")
    print(f"messages        {_spread([len(t.prompt) for t in triples])} per prompt")
    for name, lengths in _lengths(triples).items():
        print(f"{name:15} {_spread(lengths)} characters")
    longer = np.mean([len(t.chosen) > len(t.rejected) for t in triples])
    print(f"chosen longer   {longer:.1%} (a head that only measures length would be right that often)")
    print(f"fingerprint     {triples.fingerprint}")
    if options.against is None:
        return 0
    other = read_triples(options, options.against)
    leaked = splits.leakage(other, triples)
    print(f"leakage         {leaked} of {len(triples)} triples share a prompt or group with {options.against}")
    return 1 if leaked else 0


def _lengths(triples: Triples) -> dict[str, list[int]]:
    return {
        "prompt": [sum(len(message.content) for message in t.prompt) for t in triples],
        "chosen": [len(t.chosen) for t in triples],
        "rejected": [len(t.rejected) for t in triples],
    }


def _spread(values: list[int]) -> str:
    low, middle, high = np.percentile(values, [0, 50, 100])
    return f"{low:.0f} to {high:.0f}, median {middle:g}"


command = Command(
    "say what a file of preferences holds",
    "Read and validate preferences, count what is dropped and why, and print lengths, groups and a fingerprint.\n"
    "With --against, count the triples that share a prompt or group with training data: exit code 1 if there are any.",
    "  cvxrelu-llm inspect pairs.jsonl.gz\n  cvxrelu-llm inspect test.jsonl --against train.jsonl\n",
    ("data",),
    _add,
    _run,
)
