"""Names of the arrays of a network, as files and conversions know them."""

from __future__ import annotations

import json
from typing import Any

REQUIRED = ("first_layer", "second_layer")


OPTIONAL = ("hidden_bias", "skip", "bias")


def plain_metadata(metadata: Any) -> dict[str, Any]:
    """A deep copy of `metadata`, as JSON gives it back."""
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata is a {type(metadata).__name__}; expected a dict")
    try:
        return json.loads(json.dumps(metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata cannot be written as JSON ({error})") from error
