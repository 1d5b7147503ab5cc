"""What a user can mend: data, settings or files. The command line shows it as one line."""

from __future__ import annotations

__all__ = ["InputError", "OutOfTime"]


class InputError(ValueError):
    """Bad data or settings; the message names file, line and field, or the argument."""


class OutOfTime(Exception):
    """The deadline has passed in the middle of a projection."""
