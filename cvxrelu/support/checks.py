"""Reading what a user passes: one clear error that names argument, value and expectation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.support.blocks import blocks
from cvxrelu.support.errors import InputError
from cvxrelu.support.host import to_host
from cvxrelu.support.values import is_missing, plain

__all__ = [
    "as_bool",
    "as_finite_array",
    "as_fraction",
    "as_groups",
    "as_nonnegative",
    "as_numbers",
    "as_positive",
    "as_seed",
    "as_whole",
    "check_scale",
    "refuse_sparse",
    "short",
    "working_dtype",
]

# Beyond these, squares overflow or underflow, and a norm that underflows would make a bound false. A sentence now beats
# that later: the largest entry of X and y must lie within 10^-k and 10^k, for float64 and float32.
SCALES = {"float64": 50, "float32": 8}
BETAS = {"float64": (1e-100, 1e100), "float32": (1e-30, 1e30)}


def check_scale(name: str, array: np.ndarray, working: np.dtype) -> None:
    """Refuse data whose squares would not fit the precision; all zeros are fine."""
    array = np.atleast_1d(array)
    width = array[:1].size
    largest = max((float(np.abs(array[b]).max()) for b in blocks(width, array)), default=0.0)
    exponent = SCALES[working.name]
    if largest > 0 and not 10.0**-exponent <= largest <= 10.0**exponent:
        raise ValueError(
            f"{name} has largest entry {largest:.1e}, outside 1e-{exponent} to 1e{exponent} for {working.name}: "
            "rescale it (standardised columns work best)"
        )


def refuse_sparse(name: str, value: Any) -> None:
    """TypeError for a sparse matrix of SciPy, CuPy or PyTorch."""
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"{name} is a sparse matrix; pass a dense array ({name}.toarray())")
    if str(getattr(value, "layout", "")).startswith("torch.sparse"):
        raise TypeError(f"{name} is a sparse tensor; pass a dense one ({name}.to_dense())")


def as_finite_array(name: str, value: Any, ndim: tuple[int, ...]) -> np.ndarray:
    """A real, finite host array of the wanted number of axes; booleans and integers pass."""
    refuse_sparse(name, value)
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill or drop the masked entries")
    try:
        array = to_host(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read as a rectangular array: {error}") from None
    if array.dtype.kind not in "fiub":
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        else:
            raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim not in ndim:
        wanted = " or ".join(str(k) for k in ndim)
        raise ValueError(f"{name} must have {wanted} dimension(s), got shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        where = tuple(int(i) for i in bad[0])
        raise ValueError(f"{name} must be finite, got {array[where]} at index {where} ({len(bad)} such entries)")
    return array


def as_positive(name: str, value: Any) -> float:
    """A positive finite float."""
    return _as_real(name, value, "a positive finite number", lambda v: v > 0)


def as_nonnegative(name: str, value: Any) -> float:
    """A finite float that is not below zero."""
    return _as_real(name, value, "a nonnegative finite number", lambda v: v >= 0)


def as_fraction(name: str, value: Any) -> float:
    """A float strictly between 0 and 1."""
    return _as_real(name, value, "a number strictly between 0 and 1", lambda v: 0 < v < 1)


def _as_real(name: str, value: Any, wanted: str, accept: Any) -> float:
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)) or value is None:
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {wanted}, got {value!r}") from None
    except OverflowError:
        raise ValueError(f"{name} must be {wanted}, got an integer too large for a float") from None
    if not math.isfinite(number) or not accept(number):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return number


def as_bool(name: str, value: Any) -> bool:
    """True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def as_seed(seed: Any) -> int:
    """A nonnegative integer, of Python or NumPy."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a nonnegative integer, got {seed!r}")
    return int(seed)


def working_dtype(dtype: Any, of_X: np.dtype) -> np.dtype:
    """What was asked for, else X's own: float64 for float64 and integers, float32 for shorter floats."""
    if dtype is None:
        return np.dtype(np.float32) if of_X.kind == "f" and of_X.itemsize < 8 else np.dtype(np.float64)
    try:
        wanted = np.dtype(getattr(dtype, "__name__", dtype))
    except TypeError:
        wanted = None
    if wanted is None or wanted not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be None, 'float32' or 'float64', got {dtype!r}")
    return wanted


def short(value: Any) -> str:
    """A value as one line of a message: its repr, or its type where that is long."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def as_whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number from `least`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, got {value!r}")
    return int(value)


def as_numbers(name: str, value: Any, shape: Sequence[int | None], per: str = "") -> Float[np.ndarray, "..."]:
    """Finite real numbers of that shape (None: any length), as float64.

    per : what there must be an entry of, for the message; InputError, a ValueError, says what was got instead.
    """
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    wanted = f"finite real numbers of shape ({sizes}{',' if len(shape) == 1 else ''})"
    array = _as_array(name, value, wanted)
    if array.dtype.kind not in "biuf" and not array.dtype.name.startswith(("bfloat", "float")):
        raise InputError(f"{name} must be {wanted}, got values of type {array.dtype}")
    if array.ndim == len(shape) and per and len(array) != shape[0]:
        raise InputError(f"{name} must have one entry per {per}, {shape[0]}, got {len(array)}")
    if array.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, array.shape, strict=True)):
        raise InputError(f"{name} must be {wanted}, got shape {array.shape}")
    found = array.astype(np.float64)
    if not np.isfinite(found).all():
        place = tuple(int(k) for k in np.argwhere(~np.isfinite(found))[0])
        raise InputError(f"{name} must be {wanted}, got {found[place]} at {place if len(place) > 1 else place[0]}")
    return found


def as_groups(name: str, value: Any) -> Int[np.ndarray, " m"]:
    """(m,) numbers 0, 1, ... for names of groups; what has no group (None or NaN) is a group by itself."""
    array = _as_array(name, value, "a list of names")
    if array.ndim != 1:
        raise InputError(f"{name} must be a list of names, got shape {array.shape}")
    names = list(value) if isinstance(value, (list, tuple)) else list(array)  # NumPy makes NaN among texts a text
    alone = np.array([is_missing(plain(given)) for given in names], dtype=bool)
    given = np.asarray([known for known, missing in zip(names, alone, strict=True) if not missing])
    if given.dtype.kind == "O":
        given = np.array([str(known) for known in given])
    known, codes = np.unique(given, return_inverse=True)
    found = np.empty(len(names), dtype=np.int64)
    found[~alone] = codes
    found[alone] = len(known) + np.arange(alone.sum())
    return found


def _as_array(name: str, value: Any, wanted: str) -> np.ndarray:
    try:
        return to_host(value)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths, a tensor elsewhere
        raise InputError(f"{name} must be {wanted}, got {type(value).__name__} ({error})") from error
