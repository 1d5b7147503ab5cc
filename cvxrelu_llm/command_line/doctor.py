"""`cvxrelu-llm doctor`: what is installed for language models, and whether states come out right."""

from __future__ import annotations

import argparse

from cvxrelu.support.program import complain
from cvxrelu_llm.command_line.command import Command
from cvxrelu_llm.features.check import checkup, packages

__all__ = ["command"]

BROKEN = 3


def _add(parser: argparse.ArgumentParser) -> None:
    del parser  # no options


def _run(options: argparse.Namespace) -> int:
    del options
    found = packages()
    print("versions  " + (", ".join(f"{name} {version}" for name, version in found.items()) or "none of the packages"))
    wrong = checkup()
    print(f"states    {wrong or 'those of a random Llama are what transformers computes'}")
    return complain("cvxrelu-llm", wrong, BROKEN) if wrong else 0


command = Command(
    "check what is installed for language models",
    "Print the versions of torch, transformers and others, and compare hidden states of a tiny random model, made in\n"
    "memory, with those that transformers computes text by text. Exit code 3 where something is missing or wrong.",
    "  cvxrelu-llm doctor\n",
    (),
    _add,
    _run,
)
