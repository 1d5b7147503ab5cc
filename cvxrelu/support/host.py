"""Arrays between NumPy and the other libraries: to the host exactly, and where and how X's own library computes."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

__all__ = ["column_norms", "host_array", "to_host"]


def host_array(name: str, value: Any) -> np.ndarray:
    """A read-only, C-contiguous, finite copy of an array of any library, on any device, or of nested lists.

    float32 stays float32; other real numbers, float16 and bfloat16 among them, become float64.

    Raises
    ------
    TypeError : not an array of real numbers.
    ValueError : NaN or infinity. Both name `name`.
    """
    try:
        array = to_host(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} is a {type(value).__name__} that NumPy cannot read ({error}); expected an array"
        ) from error
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
    single = array.dtype == np.float32 and not str(getattr(value, "dtype", "")).endswith("bfloat16")
    array = np.array(array, dtype=np.float32 if single else np.float64, order="C", subok=False)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity; expected finite numbers")
    array.flags.writeable = False
    return array


def to_host(value: Any) -> np.ndarray:
    """NumPy array from any array library, pandas, or lists. PyTorch's bfloat16, which NumPy lacks, becomes float32."""
    if array_api_compat.is_torch_array(value):
        value = value.detach().cpu()
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return value.get() if array_api_compat.is_cupy_array(value) else np.asarray(value)


def column_norms(blocks: np.ndarray) -> np.ndarray:
    """2-norms along the first axis, free of overflow and underflow: zero only where every entry is zero."""
    largest = np.max(np.abs(blocks), axis=0, initial=0.0)
    scale = np.where(largest > 0, largest, 1.0)
    return scale * np.linalg.norm(blocks / scale, axis=0)
