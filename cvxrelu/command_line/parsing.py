"""How the command line reads its words: one line per error, and the types of options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cvxrelu.command_line.cells import UserError
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status
from cvxrelu.support.program import BAD_INPUT, INTERRUPTED, OK

NOT_TO_TOL, BROKEN_BACKEND = 1, 3  # beside those of `program`


EXIT_CODES = """\
exit codes:
  0    success: the gap reported is at most --tol
  1    solved, but not to --tol; the status says why, and the best network is kept
  2    bad usage, bad input, or a file that cannot be written; one line on stderr says what
  3    a backend is broken or missing
  4    an error inside cvxrelu: the traceback belongs in a bug report
  5    unproven: the search met --tol, but the bound that --certificate asks for leaves more; the network is kept
  6    stalled: progress stopped before the gap was at most --tol; the best network is kept
  130  interrupted; `fit` keeps the best network found so far, if there is one, also while it chooses beta
"""


class Parser(argparse.ArgumentParser):
    """argparse with one line per error, and help texts as they were typed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def number_type(kind: type, low: float, high: float, words: str) -> Any:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return convert


def as_bytes(text: str) -> float:
    """ "4GB" as a number of bytes: units of 1000 or, with an i, of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(?:([KMGT])(i?))?B?", text.strip(), re.IGNORECASE)
    size = 0.0
    if found:
        power = " KMGT".index((found[2] or " ").upper())
        size = float(found[1]) * (1024.0 if found[3] else 1000.0) ** power
    if size <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 4GB or 500MiB")
    return size


def need(load: Callable[[], object]) -> None:
    """Run `load`; that an extra is missing is something the user can mend."""
    try:
        load()
    except ImportError as error:
        raise UserError(str(error)) from error


def exit_code_of(solutions: Sequence[Solution]) -> int:
    """Of several solves that of the worst: interrupted, not to tol, stalled, unproven, success."""
    codes = {solution.status.exit_code for solution in solutions}
    worst = (INTERRUPTED, NOT_TO_TOL, Status.STALLED.exit_code, Status.UNPROVEN.exit_code)
    return next((code for code in worst if code in codes), OK)


COUNT = number_type(int, 1, float("inf"), "a whole number from 1")
POSITIVE = number_type(float, float(np.nextafter(0, 1)), float(np.finfo(float).max), "a positive number")
SHARE = number_type(float, 0, 0.9, "a share between 0 and 0.9")
WHOLE = number_type(int, 0, float("inf"), "a whole number from 0")
