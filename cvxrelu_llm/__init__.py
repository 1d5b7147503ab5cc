"""Alignment of language models with `cvxrelu`: the package holds its name and version for now."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`__version__`, read from the installed metadata when asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("cvxrelu")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
