"""The problem as the solver sees it: validated once, on the host, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from cvxrelu.losses import Squared
from cvxrelu.patterns import Patterns, as_patterns

__all__ = ["Problem", "as_finite_array", "as_fraction", "as_positive", "build_problem", "skip_columns", "to_host"]


# Beyond these, squares overflow or underflow, and a norm that underflows would make a bound false. A sentence now beats
# that later: the largest entry of X and y must lie within 10^-k and 10^k, for float64 and float32.
SCALES = {"float64": 50, "float32": 8}
TINY = float(np.finfo(np.float64).tiny)
BETAS = {"float64": (1e-100, 1e100), "float32": (1e-30, 1e30)}


@dataclass(frozen=True)
class Problem:
    """Validated input. X (n, D) float64 with the constant column if asked for; y as (n, c) inside `loss`."""

    X: np.ndarray
    loss: Squared
    beta: float
    patterns: Patterns
    n_requested: int
    intercept: bool
    scalar_output: bool
    dtype: np.dtype
    skip: str | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, D, P, c)."""
        return (*self.X.shape, self.patterns.patterns.shape[1], self.loss.y.shape[1])

    @property
    def flops(self) -> float:
        """Useful flops of one ADMM iteration, 12 n D P c."""
        return 12.0 * math.prod(self.shape)


def build_problem(
    X: Any,
    y: Any,
    *,
    beta: Any,
    sample_weight: Any,
    intercept: bool,
    patterns: Any,
    check_patterns: bool,
    dtype: Any,
    seed: Any,
    skip: Any = False,
    sampled: bool = True,
) -> Problem:
    """Check every argument and put the problem together, or raise one error that names the argument.

    sampled : False when the sampled program will not be solved: then no patterns are drawn, P = 0.
    """
    host_X = as_finite_array("X", X, ndim=(2,))
    if host_X.shape[0] == 0 or host_X.shape[1] == 0:
        raise ValueError(f"X must have at least one row and one column, got shape {host_X.shape}")
    if y is None:
        raise ValueError("y is required (only pairs= goes without it), got None")
    host_y = as_finite_array("y", y, ndim=(1, 2))
    n = host_X.shape[0]
    if host_y.shape[0] != n or 0 in host_y.shape:
        raise ValueError(
            f"y must have shape ({n},) or ({n}, c) with c >= 1 to match X {host_X.shape}, got {host_y.shape}"
        )
    weight = np.ones((n, 1))
    if sample_weight is not None:
        given = as_finite_array("sample_weight", sample_weight, ndim=(1,))
        if given.shape != (n,):
            raise ValueError(f"sample_weight must have shape ({n},), got {given.shape}")
        if given.min() < 0 or given.max() == 0:
            raise ValueError(
                f"sample_weight must be nonnegative with a positive entry, got values in [{given.min()}, {given.max()}]"
            )
        weight = given[:, None].astype(np.float64)
    working = _working_dtype(dtype, host_X.dtype)
    seed = as_seed(seed)
    intercept = as_bool("intercept", intercept)
    check_patterns = as_bool("check_patterns", check_patterns)
    beta = as_positive("beta", beta)
    smallest, largest = BETAS[working.name]
    if not smallest <= beta <= largest:
        raise ValueError(f"beta must lie between {smallest:.0e} and {largest:.0e} for {working.name}, got {beta!r}")

    data = host_X.astype(np.float64)
    if intercept:
        data = np.concatenate([data, np.ones((n, 1))], axis=1)
    skip = as_skip(skip)
    if sampled:
        chosen, n_requested = as_patterns(patterns, data, seed, check_patterns)
    else:
        chosen, n_requested = Patterns(np.zeros((n, 0), dtype=bool), None), patterns
    if (
        sampled and chosen.patterns.shape[1] == 0
    ):  # all were empty, as one row allows: keep one, whose blocks do nothing
        chosen = Patterns(np.zeros((n, 1), dtype=bool), None)
    targets = host_y.astype(np.float64).reshape(n, -1)
    for name, array in (("X", data), ("y", targets), ("sample_weight", weight)):
        check_scale(name, array, working)
    loss = Squared(targets, weight, free_directions(data, weight, intercept, skip))
    return Problem(data, loss, beta, chosen, n_requested, intercept, host_y.ndim == 1, working, skip)


def as_skip(skip: Any) -> str | None:
    """False as None, else "bias" or "linear"."""
    if skip is None or (isinstance(skip, (bool, np.bool_)) and not skip):
        return None
    if not (isinstance(skip, str) and skip in ("bias", "linear")):
        raise ValueError(f"skip must be False, 'bias' or 'linear', got {skip!r}")
    return skip


def skip_columns(data: np.ndarray, intercept: bool, skip: str | None) -> np.ndarray:
    """What a skip adds to a prediction, (n, k): X without the constant column, then a constant one."""
    n, D = data.shape
    linear = data[:, : D - intercept] if skip == "linear" else data[:, :0]
    return np.concatenate([linear, np.ones((n, 1))], axis=1)


def free_directions(data: np.ndarray, weight: np.ndarray, intercept: bool, skip: str | None) -> np.ndarray | None:
    """An orthonormal basis, in the inner product of the weights, of what an unpenalised skip spans."""
    if skip is None:
        return None
    root = np.sqrt(weight)
    columns = root * skip_columns(data, intercept, skip)
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), TINY)  # their units must not decide their rank
    left, singular, _ = np.linalg.svd(columns, full_matrices=False)
    left = left[:, singular > 1e-12 * singular[0]]
    return np.divide(left, root, out=np.zeros_like(left), where=root > 0)


def check_scale(name: str, array: np.ndarray, working: np.dtype) -> None:
    """Refuse data whose squares would not fit the precision; all zeros are fine."""
    largest, exponent = float(np.abs(array).max()), SCALES[working.name]
    if largest > 0 and not 10.0**-exponent <= largest <= 10.0**exponent:
        raise ValueError(
            f"{name} has largest entry {largest:.1e}, outside 1e-{exponent} to 1e{exponent} for {working.name}: "
            "rescale it (standardised columns work best)"
        )


def fits(problem: Problem, working: np.dtype) -> bool:
    """Whether the data are of a size that this precision can work with."""
    smallest, largest = BETAS[working.name]
    try:
        for name, array in (("X", problem.X), ("y", problem.loss.y), ("sample_weight", problem.loss.weight)):
            check_scale(name, array, working)
    except ValueError:
        return False
    return smallest <= problem.beta <= largest


def to_host(array: Any) -> np.ndarray:
    """NumPy array from any array library, pandas, or nested lists."""
    if array_api_compat.is_cupy_array(array):
        return array.get()
    if array_api_compat.is_torch_array(array):
        return array.detach().cpu().numpy()
    return np.asarray(array)


def as_finite_array(name: str, value: Any, ndim: tuple[int, ...]) -> np.ndarray:
    """A real, finite host array of the wanted number of axes; booleans and integers pass."""
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"{name} is a sparse matrix; pass a dense array ({name}.toarray())")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill or drop the masked entries")
    try:
        array = to_host(value)
    except (TypeError, ValueError) as error:
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


def _working_dtype(dtype: Any, of_X: np.dtype) -> np.dtype:
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
