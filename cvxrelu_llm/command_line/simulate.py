"""`cvxrelu-llm simulate`: a model plays student and tutor."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from cvxrelu_llm.command_line.sampling import SAMPLING, _lm, _model_options, _refuse_existing
from cvxrelu_llm.generation.simulate import STUDENT, SUBJECTS, TUTOR, Speaker, simulate, write_conversations
from cvxrelu_llm.models.causal import load_lm


def _simulate(args: argparse.Namespace) -> int:
    _refuse_existing(args.out, args.overwrite)
    lm, tokenizer = _lm(args)
    tutor = Speaker(lm, tokenizer, TUTOR)
    other = load_lm(args.student_model, args.device, args.dtype or "auto") if args.student_model else (lm, tokenizer)
    student = Speaker(*other, STUDENT)
    subjects = args.subject or SUBJECTS
    sampling = {name: getattr(args, name) for name in SAMPLING}
    talks = simulate(tutor, student, subjects=subjects, n=args.n, turns=args.turns, seed=args.seed, **sampling)

    def told() -> Iterator[dict[str, Any]]:
        for talk in talks:
            if not args.quiet:
                print(f"{talk['id']}: {talk['subject']}, {len(talk['messages'])} messages", file=sys.stderr)
            yield talk

    conversations = list(told())
    write_conversations(args.out, conversations)
    if not args.quiet:
        wanted = args.n * len(subjects)
        print(
            f"{args.out}: {len(conversations)} conversations; {wanted - len(conversations)} ended too early to be kept"
        )
    return 0


def _simulate_options(parser: Any) -> None:
    _model_options(parser, tokens=80, temperature=0.8)
    parser.add_argument("--student-model", metavar="MODEL", help="another model for the student")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON lines to write")
    parser.add_argument("--subject", action="append", metavar="TEXT", help="may be repeated (16 school subjects)")
    parser.add_argument("--n", type=int, default=1, help="conversations per subject (1)")
    parser.add_argument("--turns", type=int, default=6, help="messages per conversation, at least 4 (6)")
