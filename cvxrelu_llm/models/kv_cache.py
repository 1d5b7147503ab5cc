"""The key-value cache of `transformers` under its old name and its new one: `past_key_values`, from 5.24 on `cache`."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["cache_keyword", "cache_of"]


def cache_keyword(lm: Any) -> str | None:
    """What the forward pass of this model calls its cache; None where it takes none."""
    accepted = inspect.signature(lm.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in accepted), None)


def cache_of(output: Any) -> Any:
    """The cache in what a forward pass returned."""
    return output["cache"] if "cache" in output else output["past_key_values"]
