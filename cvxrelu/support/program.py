"""How a command line ends: what every program of ours makes of the errors that leave a command."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping

from cvxrelu.support import interrupts

__all__ = ["BAD_INPUT", "INTERNAL", "INTERRUPTED", "OK", "complain", "exit_code"]

OK, BAD_INPUT, INTERNAL, INTERRUPTED = 0, 2, 4, interrupts.EXIT_CODE


def exit_code(name: str, program: Callable[[], int], known: Mapping[type[Exception], int]) -> int:
    """The exit code of `program`, or of the error that left it.

    name : of the program, before the one line on stderr. known : errors with a code of their own; they, and those of
    the operating system, are the user's to mend and are said in one line. Any other is ours: a traceback.
    """
    try:
        return program()
    except SystemExit as exit_:  # argparse has printed its message, or the help
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        return complain(name, "interrupted", INTERRUPTED)
    except BrokenPipeError:  # `... | head`: the reader of our output has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - keeps Python from flushing into the closed pipe at exit
        return OK
    except Exception as error:
        for kind, code in known.items():
            if isinstance(error, kind):
                return complain(name, error, code)
        if isinstance(error, OSError):  # a full disk, a folder without permission
            return complain(name, error, BAD_INPUT)
        if interrupts.pending():  # what an interrupt became in the hands of someone else's code
            return complain(name, "interrupted", INTERRUPTED)
        traceback.print_exc()
        return INTERNAL


def complain(name: str, message: object, code: int) -> int:
    """Print the message as one line on stderr; the code."""
    print(f"{name}: " + " ".join(str(message).split()), file=sys.stderr)
    return code
