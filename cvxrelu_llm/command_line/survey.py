"""`cvxrelu-llm survey`: a blind survey as a page, and what its votes say."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cvxrelu.support.files import atomic_write
from cvxrelu_llm.command_line.sampling import _refuse_existing
from cvxrelu_llm.survey.page import INTRO, TITLE, build_survey, read_answers
from cvxrelu_llm.survey.votes import score_survey


def _survey_build(args: argparse.Namespace) -> int:
    for path in (args.out, args.key):
        _refuse_existing(path, args.overwrite)
    key = build_survey(
        read_answers(*args.answers), args.out, args.key, title=args.title, intro=args.intro, seed=args.seed,
        overwrite=args.overwrite,
    )  # fmt: skip
    if not args.quiet:
        print(f"{args.out}: {len(key['order'])} questions on {', '.join(key['models'])}; send it to the raters")
        print(f"{args.key}: says whose answer was whose; keep it from them")
    return 0


def _survey_score(args: argparse.Namespace) -> int:
    result = score_survey(args.key, args.votes, level=args.level, seed=args.seed)
    if args.out:
        _refuse_existing(args.out, args.overwrite)
        atomic_write(args.out, json.dumps(result.record(), indent=1) + "\n", overwrite=args.overwrite)
    print(result.summary())
    return 0


def _build_options(parser: Any) -> None:
    parser.add_argument(
        "answers", nargs="+", metavar="FILE", help="JSON lines as `generate` writes them, one per model"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the page to write")
    parser.add_argument("--key", required=True, metavar="FILE", help="where to write whose answer is whose")
    parser.add_argument("--title", default=TITLE, help="of the page")
    parser.add_argument("--intro", default=INTRO, help="first paragraph of the page")
    parser.add_argument("--seed", type=int, help="of the order (default: one that nobody knows)")


def _score_options(parser: Any) -> None:
    parser.add_argument("votes", nargs="+", metavar="FILE", help="files that raters saved on the page")
    parser.add_argument("--key", required=True, metavar="FILE", help="the key of `survey build`")
    parser.add_argument("--out", metavar="FILE", help="a JSON file for the rates")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
