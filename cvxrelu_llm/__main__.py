"""`python -m cvxrelu_llm`, and the entry point of `cvxrelu-llm`: it sees to Ctrl-C before anything heavy loads."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cvxrelu.support import interrupts

__all__ = ["main"]


def main() -> int:
    """Run the command line of the process and return its exit code."""
    return interrupts.run("cvxrelu-llm", _load)


def _load() -> Callable[[], int]:
    from cvxrelu_llm.command_line import main as cli

    return cli.main


if __name__ == "__main__":
    sys.exit(main())
