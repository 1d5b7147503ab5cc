"""`cvxrelu-llm simulate`: a model plays student and tutor."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

from cvxrelu.support.time_left import time_left
from cvxrelu_llm.command_line.command import Command, input_errors
from cvxrelu_llm.command_line.common import SAMPLING, add_output_options, add_sampling_options, lm_of, refuse_existing
from cvxrelu_llm.generation.simulate import STUDENT, SUBJECTS, TUTOR, Speaker, simulate, write_conversations
from cvxrelu_llm.models.causal import load_lm

__all__ = ["command"]


def _run(options: argparse.Namespace) -> int:
    with input_errors():
        return _simulate(options)


def _simulate(options: argparse.Namespace) -> int:
    refuse_existing("--out", options.out, options.overwrite)
    lm, tokenizer = lm_of(options)
    tutor = Speaker(lm, tokenizer, TUTOR)
    other = (
        load_lm(options.student_model, options.device, options.dtype or "auto")
        if options.student_model
        else (lm, tokenizer)
    )
    student = Speaker(*other, STUDENT)
    subjects = options.subject or SUBJECTS
    sampling = {name: getattr(options, name) for name in SAMPLING}
    talks = simulate(tutor, student, subjects=subjects, n=options.n, turns=options.turns, seed=options.seed, **sampling)

    wanted, started = options.n * len(subjects), time.monotonic()

    def told() -> Iterator[dict[str, Any]]:
        for done, talk in enumerate(talks, start=1):
            if not options.quiet:
                left = time_left(done, wanted, time.monotonic() - started)
                print(f"{talk['id']}: {talk['subject']}, {len(talk['messages'])} messages{left}", file=sys.stderr)
            yield talk

    conversations = list(told())
    write_conversations(options.out, conversations)
    if not options.quiet:
        missing = wanted - len(conversations)
        print(f"{options.out}: {len(conversations)} conversations; {missing} ended too early to be kept")
    return 0


def _add(parser: argparse.ArgumentParser) -> None:
    add_sampling_options(parser, tokens=80, temperature=0.8)
    parser.add_argument("--student-model", metavar="MODEL", help="another model for the student")
    parser.add_argument("--out", metavar="FILE", help="JSON lines to write")
    parser.add_argument("--subject", action="append", metavar="TEXT", help="may be repeated (16 school subjects)")
    parser.add_argument("--n", type=int, default=1, help="conversations per subject (1)")
    parser.add_argument("--turns", type=int, default=6, help="messages per conversation, at least 4 (6)")
    add_output_options(parser)


command = Command(
    "let a model play student and tutor",
    "Let a model play student and tutor, with role prompts over a list of subjects, and write the conversations.",
    "  cvxrelu-llm simulate --model NAME --out lessons.jsonl --subject fractions --n 2\n",
    ("model", "out"),
    _add,
    _run,
)
