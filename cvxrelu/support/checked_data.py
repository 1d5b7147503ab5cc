"""Whether the data of a solve were looked at already, so that it need not warn of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["checked", "data_are_checked"]

_CHECKED: ContextVar[bool] = ContextVar("_CHECKED", default=False)


@contextmanager
def checked() -> Iterator[None]:
    """Solves inside do not warn: their data were looked at, or standardised, by whoever asks for them."""
    token = _CHECKED.set(True)
    try:
        yield
    finally:
        _CHECKED.reset(token)


def data_are_checked() -> bool:
    """Whether this is inside `checked`."""
    return _CHECKED.get()
