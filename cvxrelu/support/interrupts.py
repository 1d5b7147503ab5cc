"""Ctrl-C on a command line: at any moment from its first import on, exit code 130, no traceback, nothing half-written.

What Python does by itself, to raise KeyboardInterrupt between any two instructions, fails in three places: in the
middle of an import, where C extensions crash or report another error; in a finalizer or a callback, where the exception
is printed and lost; and between a file's making and its renaming. Hence

    while the program is imported    nothing has been written: the process ends at once, without a teardown
    while it runs                    KeyboardInterrupt, but not inside an import or a `shielded` block: there it waits;
                                     one that was lost is raised again
    once it has ended                ignored

This module imports nothing heavy, for the entry points import it before anything else. As a library, cvxrelu leaves
signals alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # as type checkers see it, True; `typing` would be the longest import here
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__ = ["EXIT_CODE", "pending", "run", "shielded", "unshielded"]

EXIT_CODE = 130
AGAIN = 0.02  # seconds until an interrupt that had to wait is tried again

_depth = 0  # of shields around what the main thread does
_watch: _Watch | None = None  # the command line under way


@contextmanager
def shielded() -> Iterator[None]:
    """Ctrl-C waits for the end of this block, where a command line is run by `run`. For the main thread."""
    global _depth
    before = _depth
    try:
        _depth = before + 1
        yield
    finally:
        _depth = before


@contextmanager
def unshielded() -> Iterator[None]:
    """The inverse of `shielded`, for a block inside it."""
    global _depth
    before = _depth
    try:
        _depth = 0
        yield
    finally:
        _depth = before


def run(name: str, load: Callable[[], Callable[[], int]]) -> int:
    """The exit code of the command line `name`: `load` imports it and returns what runs it.

    Does not return after a Ctrl-C: the process then ends without a teardown, in which threads of a computation that
    was left alone could crash.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        return load()()
    _watch = watch = _Watch(name)
    signal.signal(signal.SIGINT, watch.handle)
    sys.unraisablehook = watch.unraisable
    try:
        program = load()
        watch.phase = "running"
        code = program()
        watch.phase = "over"
    except KeyboardInterrupt:
        watch.phase, code = "over", EXIT_CODE
        _say(name)
    except BaseException:
        if not watch.interrupted:
            raise
        watch.phase, code = "over", EXIT_CODE  # what an interrupt became in the hands of someone else's code
        _say(name)
    if watch.interrupted:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(EXIT_CODE)
    return code


def pending() -> bool:
    """Whether there was a Ctrl-C since the command line began."""
    return _watch is not None and _watch.interrupted


class _Watch:
    """The handler of SIGINT and its state: "importing", then "running", then "over"."""

    def __init__(self, name: str) -> None:
        self.name, self.phase, self.interrupted = name, "importing", False
        self.unraisable_before = sys.unraisablehook

    def handle(self, _signal: int, frame: FrameType | None) -> None:
        if self.phase == "over":
            return
        self.interrupted = True
        if self.phase == "importing":
            if _inside(frame, _writes_bytecode):
                return self._again()
            _say(self.name)
            os._exit(EXIT_CODE)
        if _depth > 0 or _inside(frame, _imports):
            return self._again()
        raise KeyboardInterrupt

    def unraisable(self, lost: Any) -> None:
        """Python's hook for exceptions in finalizers and callbacks, which end there."""
        if issubclass(lost.exc_type, KeyboardInterrupt):
            self._again()
        else:
            self.unraisable_before(lost)

    def _again(self) -> None:
        timer = threading.Timer(AGAIN, _to_main_thread)
        timer.daemon = True
        timer.start()


def _to_main_thread() -> None:
    """The signal once more, to the thread that handles it: it may be in a call that only a signal of its own ends."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _inside(frame: FrameType | None, test: Callable[[FrameType], bool]) -> bool:
    while frame is not None:
        if test(frame):
            return True
        frame = frame.f_back
    return False


def _imports(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith("<frozen importlib._bootstrap")


def _writes_bytecode(frame: FrameType) -> bool:
    return _imports(frame) and frame.f_code.co_name == "_write_atomic"


def _say(name: str) -> None:
    """The one line, past buffers that the interrupted code may hold locked."""
    with suppress(OSError):
        os.write(2, f"{name}: interrupted\n".encode())
