"""What a command of `cvxrelu-llm` is, and how its options come from the command line, a configuration, or both.

A configuration is a YAML or JSON file of option names, as in Python (`max_length: 512`), either at its top or under the
name of the command, so that one file can serve a whole run. The command line has the last word.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from cvxrelu.support.errors import InputError

__all__ = ["Command", "count", "input_errors", "share", "whole"]


class Command(NamedTuple):
    """One command.

    add_arguments : adds them to a parser. The one positional argument, if any, must have nargs="?" or "+". What must
        be given, typed or by a configuration, is in `required`, by destination.
    run : takes the parsed options, returns the exit code.
    """

    summary: str
    description: str
    examples: str
    required: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


@contextmanager
def input_errors() -> Iterator[None]:
    """What public functions say of the options they were given is the user's to mend."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error


# -- types of options -------------------------------------------------------------------------------------------------
def _number(text: str, kind: type, accept: Callable[[Any], bool], words: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
    return value


def count(text: str) -> int:
    """A whole number from 1."""
    return _number(text, int, lambda value: value >= 1, "a whole number from 1")


def whole(text: str) -> int:
    """A whole number from 0."""
    return _number(text, int, lambda value: value >= 0, "a whole number from 0")


def share(text: str) -> float:
    """A number from 0, below 1."""
    return _number(text, float, lambda value: 0 <= value < 1, "a share from 0, below 1")
