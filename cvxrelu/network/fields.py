"""Names of the arrays of a network, as files and conversions know them."""

from __future__ import annotations

REQUIRED = ("first_layer", "second_layer")


OPTIONAL = ("hidden_bias", "skip", "bias")
