"""Where an array lies, and in which precision its library multiplies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import array_api_compat
import numpy as np

__all__ = ["device_of", "precise"]


def device_of(X: Any) -> Any:
    """The device the weights go to; None for JAX arrays that are traced, sharded or uncommitted: JAX then follows X."""
    if not array_api_compat.is_jax_array(X):
        return array_api_compat.device(X)
    import jax

    if isinstance(X, jax.core.Tracer) or not X.committed or not isinstance(X.device, jax.Device):
        return None
    return X.device


@contextlib.contextmanager
def precise(X: Any) -> Iterator[None]:
    """For JAX arrays: full-precision products, and float64 allowed where X has it. Nothing for other libraries."""
    if not array_api_compat.is_jax_array(X):
        yield
        return
    import jax

    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_matmul_precision("highest"))
        if X.dtype == np.float64:
            stack.enter_context(jax.enable_x64(True))
        yield
