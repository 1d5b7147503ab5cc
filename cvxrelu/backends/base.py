"""What an array library must offer for the solver to run on it.

Every algorithm of this package is a set of pure functions over arrays and NamedTuples, written once against the array
API standard. A `Backend` adds what the standard lacks: moving data, compiling, loops and the factorisation. The base
class is the plain eager driver; NumPy and CuPy need little more, JAX overrides the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["Backend", "BackendError"]


class BackendError(RuntimeError):
    """A backend that cannot be used: not installed, no device, or wrong numbers. The message says which."""


class Backend:
    """The eager driver. Instances are hashable singletons, so that compiled functions can take them as static."""

    name: str
    xp: Any
    on_mesh = False  # on devices that the user has named, maybe several
    stream: Any = None  # what computes with blocks of rows of files, in place of the host: see `streaming`

    # -- data ---------------------------------------------------------------------------------------------------
    def put(self, tree: Any, dtype: Any = None, split: int | None = None, rows: int | None = None) -> Any:
        """Host to device; floating arrays are cast to `dtype` if given, booleans and integers keep theirs.

        split, rows : axes that a grid of devices divides: `rows` by its first axis, `split` (patterns, neurons,
            directions) by its second, the same axis for both by all devices; each where its length is a multiple of
            theirs, else they get copies.
        """
        return _map(lambda a: self._put_array(_cast(a, dtype)), tree)

    def get(self, tree: Any) -> Any:
        """Device to host as NumPy, in one blocking transfer."""
        return _map(self._get_array, tree)

    def _put_array(self, array: np.ndarray) -> Any:
        return self.xp.asarray(array)

    def _get_array(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def split(self, array: Any, axis: int | None, rows: int | None = None) -> Any:
        """The same array on the device, divided along these axes as `put` divides; also within compiled functions."""
        return array

    # -- control ------------------------------------------------------------------------------------------------
    def compile(
        self, fn: Callable[..., Any], static: Sequence[str] = (), donate: Sequence[str] = ()
    ) -> Callable[..., Any]:
        """A function of module level whose first argument is the backend, made fast. Eager backends return it as is.

        `static` names arguments that are plain hashable values, not arrays; `donate` those whose memory the result may
        take, which nobody may look at afterwards.
        """
        return fn

    def padded(self, size: int) -> int:
        """The size to pad an axis to that changes from call to call; where shapes are compiled in, one of few."""
        return size

    def repeat(self, n: Any, body: Callable[[Any], Any], state: Any) -> Any:
        """Apply `body` n times."""
        for _ in range(int(n)):
            state = body(state)
        return state

    def spd_inverse(self, matrix: Any) -> Any:
        """Inverse of a symmetric positive definite matrix by its Cholesky factor; NaN where there is none."""
        raise NotImplementedError

    def smallest(self, values: Any, count: int) -> Any:
        """Indices of the `count` smallest entries of every row of `values` (m, n), in any order."""
        return self.xp.argsort(values, axis=1)[:, :count]

    # -- surroundings -------------------------------------------------------------------------------------------
    def block(self, tree: Any) -> Any:
        """Wait until the arrays are computed, then return them: for timing."""
        return tree

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The setting in which all work of this backend runs: 64-bit types allowed, full-precision products."""
        return contextlib.nullcontext()

    @property
    def device(self) -> str:
        """Where the arrays live, in words."""
        return "cpu"

    @property
    def grid(self) -> tuple[int, int]:
        """Devices along the rows, and along patterns, neurons and directions."""
        return 1, 1

    @property
    def own_memory(self) -> tuple[float, float] | None:
        """Bytes that the smallest device has in all and free, where arrays do not lie in the machine's memory."""
        return None

    @property
    def is_accelerator(self) -> bool:
        return False

    # -- processes ----------------------------------------------------------------------------------------------
    @property
    def n_processes(self) -> int:
        """Processes that run the same program on the devices of this backend."""
        return 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads and writes files for all of them."""
        return True

    def share(self, data: bytes) -> bytes:
        """What the leading process gives; all of them have to call it."""
        return data

    def __repr__(self) -> str:
        return f"<cvxrelu backend {self.name} on {self.device}>"


def _map(fn: Callable[[Any], Any], tree: Any) -> Any:
    """Apply `fn` to the arrays of nested (named) tuples; None passes through."""
    if tree is None:
        return None
    if isinstance(tree, tuple):
        items = [_map(fn, item) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    return fn(tree)


def _cast(array: Any, dtype: Any) -> np.ndarray:
    array = np.asarray(array)
    if dtype is not None and array.dtype.kind == "f":
        array = array.astype(dtype, copy=False)
    return array
