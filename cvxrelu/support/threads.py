"""How many threads BLAS gets: for small products one is faster than several, which spend their time waiting."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

__all__ = ["blas_threads"]

SERIAL = 100_000  # numbers in X up to which whole solves were faster with one thread than with two, by 1.2 to 1.6 times


def blas_threads(size: int) -> contextlib.AbstractContextManager[Any]:
    """One thread within this context, of the process, where X has few numbers; else as many as there were."""
    if size > SERIAL:
        return contextlib.nullcontext()
    limit: contextlib.AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@functools.cache
def _controller() -> Any:
    """What finds the BLAS libraries of the process, once."""
    import scipy.linalg  # noqa: F401 - which brings one of its own
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
