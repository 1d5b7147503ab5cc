"""`cvxrelu-llm alternate`: triples out of conversations."""

from __future__ import annotations

import argparse
from pathlib import Path

from cvxrelu.support.errors import InputError
from cvxrelu.support.files import new_files
from cvxrelu_llm.command_line.command import Command, input_errors
from cvxrelu_llm.command_line.common import counted, refuse_existing
from cvxrelu_llm.preferences.conversations import alternate

__all__ = ["command"]


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", metavar="DATA", help="conversations: records with a list of messages")
    parser.add_argument("--out", metavar="FILE", help="a .jsonl or .jsonl.gz file to write")
    parser.add_argument("--student", default="student", metavar="ROLE", help="role that asks (default: %(default)s)")
    parser.add_argument("--tutor", default="tutor", metavar="ROLE", help="role that answers (default: %(default)s)")
    parser.add_argument("--split", default="train", metavar="NAME", help="of a hub data set (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --out names")


def _run(options: argparse.Namespace) -> int:
    out = Path(options.out)
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"--out {out}: expected a .jsonl or .jsonl.gz file")
    refuse_existing("--out", out, options.overwrite)
    with input_errors():
        triples = alternate(options.data, student=options.student, tutor=options.tutor, split=options.split)
    with new_files(out, overwrite=options.overwrite) as (file,):
        triples.save(file)
    print(f"{options.data}: {counted(triples.counts)}")
    print(f"written         {out}")
    return 0


command = Command(
    "make preferences out of conversations",
    "For every turn of the student: the tutor's next reply is preferred to the reply after that.\n"
    "Writes TRL's conversational preference format, with the conversation as group.",
    "  cvxrelu-llm alternate lessons.jsonl.gz --out triples.jsonl.gz\n"
    "  cvxrelu-llm alternate chats.jsonl --student user --tutor assistant --out triples.jsonl\n",
    ("data", "out"),
    _add,
    _run,
)
