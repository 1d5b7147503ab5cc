"""Values of records made plain: Python's own kinds, one mark for what is missing, and text that UTF-8 can hold.

Every reader goes through here, so that a record means the same out of JSON, CSV, Parquet or memory. Half a surrogate
pair, which JSON can spell and no text can hold, becomes U+FFFD, the replacement character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cvxrelu.support.errors import InputError

__all__ = ["clean_text", "is_missing", "parse_json", "plain", "read_number"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_AVAILABLE = ("NAType", "NaTType")  # of pandas, which is not imported for two names


def clean_text(text: str) -> str:
    r"""`text` with whole surrogate pairs joined, and each half one replaced by U+FFFD.

    >>> clean_text("\ud83d\ude00 \ud800") == "\U0001f600 \ufffd"
    True
    """
    if _SURROGATE.search(text) is None:
        return str(text)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def plain(value: Any) -> Any:
    """`value` without NumPy and pandas: arrays become lists, scalars Python's, what is not available None."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return float(value) if isinstance(value, np.longdouble) else plain(value.tolist())
    if type(value).__name__ in _NOT_AVAILABLE:
        return None
    return value


def is_missing(value: Any) -> bool:
    """Whether a plain value says that there is none: None, or a NaN."""
    return value is None or (isinstance(value, float) and value != value)


def read_number(value: Any) -> float | None:
    """A plain value as a float, which may be infinite or NaN; None where it is no number.

    Of texts, numbers in ASCII digits are taken, as in tables: not `1_000`, nor the digits of other scripts.
    """
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else None
    try:
        return None if isinstance(value, (bool, bytes, bytearray)) else float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None


def parse_json(text: str, place: str) -> Any:
    """What a JSON text holds; InputError, beginning with `place`, where it is none or says one thing twice."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        if "\0" in text:
            raise InputError(f"{place}: not a text in UTF-8 (zero bytes, as in UTF-16); save it as UTF-8") from None
        where = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise InputError(f"{place}: not JSON ({error.msg} at {where})") from None
    except _Twice as error:
        raise InputError(f"{place}: the field {error.args[0]!r} stands twice in one object") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets a thousand deep
        raise InputError(f"{place}: JSON that cannot be read ({error})") from None


class _Twice(Exception):
    """A name that an object holds twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found
