"""`cvxrelu-llm survey`: a blind survey as a page, and what its votes say."""

from __future__ import annotations

import argparse
import json

from cvxrelu.support.files import atomic_write
from cvxrelu_llm.command_line.command import Command, input_errors
from cvxrelu_llm.command_line.common import add_output_options, refuse_existing
from cvxrelu_llm.survey.page import INTRO, TITLE, build_survey, read_answers
from cvxrelu_llm.survey.votes import score_survey

__all__ = ["commands"]


def _build(options: argparse.Namespace) -> int:
    for name in ("out", "key"):
        refuse_existing(f"--{name}", getattr(options, name), options.overwrite)
    with input_errors():
        key = build_survey(
            read_answers(*options.answers), options.out, options.key, title=options.title, intro=options.intro,
            seed=options.seed, overwrite=options.overwrite,
        )  # fmt: skip
    if not options.quiet:
        print(f"{options.out}: {len(key['order'])} questions on {', '.join(key['models'])}; send it to the raters")
        print(f"{options.key}: says whose answer was whose; keep it from them")
    return 0


def _score(options: argparse.Namespace) -> int:
    refuse_existing("--out", options.out, options.overwrite)
    with input_errors():
        result = score_survey(options.key, options.votes, level=options.level, seed=options.seed)
    if options.out:
        atomic_write(options.out, json.dumps(result.record(), indent=1) + "\n", overwrite=options.overwrite)
    print(result.summary())
    return 0


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "answers", nargs="+", metavar="FILE", help="JSON lines as `generate` writes them, one per model"
    )
    parser.add_argument("--out", metavar="FILE", help="the page to write")
    parser.add_argument("--key", metavar="FILE", help="where to write whose answer is whose")
    parser.add_argument("--title", default=TITLE, help="of the page")
    parser.add_argument("--intro", default=INTRO, help="first paragraph of the page")
    parser.add_argument("--seed", type=int, help="of the order (default: one that nobody knows)")
    add_output_options(parser)


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("votes", nargs="+", metavar="FILE", help="files that raters saved on the page")
    parser.add_argument("--key", metavar="FILE", help="the key of `survey build`")
    parser.add_argument("--out", metavar="FILE", help="a JSON file for the rates")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    add_output_options(parser)


commands = {
    "build": Command(
        "make a page that shows answers in random order",
        "Make a page that shows the answers of several models in random order, without names, and a key.",
        "  cvxrelu-llm survey build plain.jsonl guided.jsonl --out survey.html --key key.json\n",
        ("answers", "out", "key"),
        _add_build,
        _build,
    ),
    "score": Command(
        "count win rates, ties and intervals",
        "Count what raters said on the page of `survey build`: win rates, ties and intervals.",
        "  cvxrelu-llm survey score votes-*.json --key key.json\n",
        ("votes", "key"),
        _add_score,
        _score,
    ),
}
