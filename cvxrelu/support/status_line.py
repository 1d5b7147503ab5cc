"""One line on a terminal that says how far a long command is, rewritten in place, below what is printed meanwhile.

A command opens it with `status_line`; whatever runs below may `tell` it something, which does nothing where no line is
open, and prints by `say`, which keeps the two apart. It is written to standard error, so that output may be piped.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["StatusLine", "say", "status_line", "tell"]

AGAIN = 0.1  # seconds at least between two texts on a terminal
LINES = 10.0  # the same where every text is a line of its own

_open: StatusLine | None = None


class StatusLine:
    """The line on a stream; where that is no terminal, a line of text now and then."""

    def __init__(self, stream: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = sys.stderr if stream is None else stream, clock
        self.terminal, self.text, self.last = is_terminal(self.stream), "", -float("inf")

    def tell(self, text: str) -> None:
        """Show this in place of what was shown; less often than told, where that is often."""
        now, self.text = self.clock(), " ".join(text.split())
        if now - self.last < (AGAIN if self.terminal else LINES):
            return
        self.last = now
        if self.terminal:
            self._draw()
        else:
            self._write(f"{self.text}\n")

    def wipe(self) -> None:
        """Leave the line empty, the cursor at its beginning."""
        if self.terminal and self.text:
            self._write("\r\x1b[K")

    def say(self, text: str) -> None:
        """Print above the line."""
        self.wipe()
        print(text, flush=True)
        if self.terminal and self.text:
            self._draw()

    def _draw(self) -> None:
        room = shutil.get_terminal_size((80, 24)).columns - 1  # a line that is full would be two
        shown = self.text if len(self.text) <= room else self.text[: max(room - 1, 0)] + "\u2026"
        self._write(f"\r\x1b[K{shown}")

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # closed, or without room for the ellipsis: no reason to lose the work
            self.terminal = False


def is_terminal(stream: Any) -> bool:
    """Whether a line can be rewritten there."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"
    except (AttributeError, ValueError):
        return False


@contextmanager
def status_line(wanted: bool | None = None, stream: Any = None) -> Iterator[None]:
    """A line while the block runs; wanted None for one where the stream is a terminal."""
    global _open
    before, stream = _open, sys.stderr if stream is None else stream
    line = StatusLine(stream) if (is_terminal(stream) if wanted is None else wanted) else None
    _open = line
    try:
        yield
    finally:
        _open = before
        if line is not None:
            line.wipe()


def tell(text: str) -> None:
    """Show this on the line that is open, if one is."""
    if _open is not None:
        _open.tell(text)


def say(text: str) -> None:
    """Print, above the line if one is open."""
    if _open is None:
        print(text, flush=True)
    else:
        _open.say(text)
