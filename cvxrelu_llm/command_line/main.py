"""The command line `cvxrelu-llm`.

A command is a module of `cvxrelu_llm.command_line` with a `Command` called `command`; one of two words is in `commands`
of the module called by the first, under the second. Adding its name below suffices.
What a user can mend ends as one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cvxrelu.support.errors import InputError
from cvxrelu.support.program import BAD_INPUT, exit_code
from cvxrelu_llm.command_line.command import Command
from cvxrelu_llm.command_line.config import config_arguments, read_config

__all__ = ["COMMANDS", "build_parser", "command_of", "main", "parse"]

COMMANDS = (
    "inspect", "alternate", "extract", "fit", "eval", "audit", "export", "demo", "generate", "survey build",
    "survey score", "simulate", "doctor",
)  # fmt: skip
GROUPS = {"survey": "make a blind survey, or count its votes"}  # first words

EXIT_CODES = """\
exit codes:
  0    success
  1    the answer is no: `inspect` found a leak; the last program of `fit` was not solved to --tol (the head is kept)
  2    bad usage, bad input, or a file that cannot be written; one line on stderr says what
  3    `doctor` found a package missing or wrong
  4    an error inside cvxrelu_llm: the traceback belongs in a bug report
  5    unproven: the search of `fit` met --tol, but the bound it reports does not (the head is kept)
  6    stalled: `fit` stopped making progress before the gap was at most --tol (the head is kept)
  130  interrupted
"""


class _Parser(argparse.ArgumentParser):
    """argparse with one line per error, and help texts as they were typed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def command_of(name: str) -> Command:
    """The command of that name, of one word or two."""
    first, _, second = name.partition(" ")
    module = importlib.import_module(f"cvxrelu_llm.command_line.{first}")
    return module.commands[second] if second else module.command


def build_parser() -> tuple[_Parser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of its commands by name."""
    parser = _Parser(
        prog="cvxrelu-llm",
        description="Alignment of language models with convex heads: data, features, training, evaluation.",
        epilog=EXIT_CODES,
    )
    try:
        number = version("cvxrelu")
    except PackageNotFoundError:  # used from a checkout that is not installed
        number = "unknown"
    parser.add_argument("--version", action="version", version=f"cvxrelu-llm {number}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    subparsers: dict[str, argparse.ArgumentParser] = {}
    groups: dict[str, Any] = {}
    for name in COMMANDS:
        entry, (first, _, second) = command_of(name), name.partition(" ")
        if second and first not in groups:
            group = commands.add_parser(first, help=GROUPS[first])
            groups[first] = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
        sub = groups.get(first, commands).add_parser(
            second or first,
            help=entry.summary,
            description=entry.description,
            epilog=f"examples:\n{entry.examples}\n{EXIT_CODES}",
        )
        entry.add_arguments(sub)
        for action in sub._actions:  # a configuration may have what is not typed
            action.required = False
        sub.add_argument(
            "--config", metavar="FILE", help="YAML or JSON file of options, with _ for -; what is typed has precedence"
        )
        sub.set_defaults(command=name)
        subparsers[name] = sub
    return parser, subparsers


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, those of its configuration included."""
    parser, subparsers = build_parser()
    options = parser.parse_args(list(arguments))
    if options.command is None:
        parser.print_help()
        parser.exit(BAD_INPUT)
    sub = subparsers[options.command]
    if options.config:
        words = options.command.split()
        values = read_config(options.config, options.command, COMMANDS)
        positional = {action.dest for action in sub._actions if not action.option_strings}
        given = list(arguments[arguments.index(words[0]) + len(words) :])
        flags = {flag: action.dest for action in sub._actions for flag in action.option_strings}
        typed = {flags.get(text.partition("=")[0]) for text in given}
        typed |= {name for name in positional if getattr(options, name)}
        extra = config_arguments(sub, {k: value for k, value in values.items() if k not in typed}, options.config)
        end = given.index("--") if "--" in given else len(given)
        options = parser.parse_args([*words, *given[:end], *extra, *given[end:]])
    for name in command_of(options.command).required:
        if getattr(options, name) in (None, []):
            spelt = next(action.option_strings for action in sub._actions if action.dest == name)
            sub.error(f"{spelt[0] if spelt else name.upper()} is missing")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return its exit code.

    >>> main(["inspect", "no-such-file.jsonl"])
    2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return exit_code("cvxrelu-llm", lambda: _run(arguments), {InputError: BAD_INPUT})


def _run(arguments: list[str]) -> int:
    options = parse(arguments)
    return command_of(options.command).run(options)
