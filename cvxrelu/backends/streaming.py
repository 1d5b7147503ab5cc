"""Rows of files on a device: the host runs the algorithm on NumPy, and hands the device one block of rows at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from cvxrelu.backends.base import Backend
from cvxrelu.backends.numpy import NumpyBackend

__all__ = ["Stream", "StreamingBackend"]


class Stream:
    """What `support.blocks.over_blocks` asks of a device: functions of blocks of rows, compiled for one number of them.

    The device holds the arrays beside the rows and a block; sums stay there until the last one.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend, self.get = backend, backend.get

    def begin(self, fn: Callable[..., Any], beside: tuple[Any, ...]) -> Callable[[tuple[Any, ...]], Any]:
        """A function of blocks; those after the first are filled up with zero rows to be as long as that."""
        placed, compiled = self.backend.put(beside), self.backend.compile(_part, static=("fn",))
        lengths: list[int] = []

        def run(blocks: tuple[np.ndarray, ...]) -> Any:
            lengths.append(len(blocks[0]))
            missing = lengths[0] - lengths[-1]
            full = tuple(np.pad(block, [(0, missing)] + [(0, 0)] * (block.ndim - 1)) for block in blocks)
            return compiled(self.backend, self.backend.put(full), placed, fn=fn)

        return run


class StreamingBackend(NumpyBackend):
    """NumPy, with the products of rows of files done by the device of another backend."""

    def __init__(self, device: Backend) -> None:
        self.name, self.inner, self.stream = device.name, device, Stream(device)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.inner.scope()

    @property
    def device(self) -> str:
        return self.inner.device


def _part(backend: Backend, blocks: tuple[Any, ...], beside: tuple[Any, ...], fn: Callable[..., Any]) -> Any:
    return fn(*blocks, *beside)
