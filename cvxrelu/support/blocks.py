"""Large arrays row by row: in blocks that stay in the cache, or in files that never are in memory as a whole.

Everything that is as large as the data (n, d), the patterns (n, P) or the slack (n, 2, c, P) is read and written in
blocks of rows. In memory that saves temporaries: NumPy works two to three times as fast within the cache as on fresh
memory. Of a memory map every block's pages are let go when the next one starts; they stay in the system's page cache
while there is room, and count for no process. What is computed from a map and is as large lies in a scratch file, which
has no name and is gone with the array.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_cupy_array, is_jax_array, is_numpy_array
from jaxtyping import Bool, Float

__all__ = [
    "CACHED",
    "LAUNCHED",
    "PASSED",
    "Parts",
    "blocks",
    "each",
    "in_words",
    "is_streamed",
    "over_blocks",
    "release",
    "row_blocks",
    "scratch",
    "scratch_folder",
    "streamed_by",
    "summed",
]

Array = Any
CACHED = 1 << 17  # entries of a temporary that stay in a core's own cache
LAUNCHED = 1 << 23  # of one that keeps a device busy for long beside the start of its kernel
PASSED = 1 << 20  # of one that is copied to a device for one use
SCRATCH: list[str | None] = [None]  # folder of scratch files; None for that of `tempfile`
# What computes with blocks of rows of files, None for the host; of each thread its own, since folds run side by side.
STREAM: ContextVar[Any] = ContextVar("stream", default=None)


def row_blocks(X: Float[Array, "n ..."] | Bool[Array, "n ..."], width: int, entries: int | None = None) -> list[slice]:
    """Slices of rows for temporaries of shape (rows, width): few rows on NumPy, many on CuPy, whose temporaries would
    take several times the memory of the data; all of them elsewhere, where compilers see to that.

    entries : of a temporary, None for these.
    """
    n = X.shape[0]
    if entries is None:
        entries = CACHED if is_numpy_array(X) else LAUNCHED if is_cupy_array(X) else None
    step = n if entries is None else max(32, entries // max(width, 1))
    return [slice(start, min(start + step, n)) for start in range(0, n, max(step, 1))]


def blocks(width: int, *arrays: Array, entries: int | None = None) -> Iterator[slice]:
    """`row_blocks` of the first array; after each block the pages of all arrays that are memory maps are let go."""
    maps = [array for array in arrays if is_streamed(array)]
    width = max(width, *(array[:1].size for array in maps), 1)  # what is mapped counts too
    for block in row_blocks(arrays[0], width, entries):
        yield block
        for array in maps:
            release(array)


def each(width: int, fn: Callable[[slice], Array], *arrays: Array, like: Array = None) -> Array:
    """The rows `fn(block)` of every block, one below the other; a scratch file where `like` is a memory map."""
    rows, out = arrays[0].shape[0], None
    parts = []
    for block in blocks(width, *arrays):
        part = fn(block)
        if part.shape[0] == rows:
            return part
        if is_jax_array(part):  # cannot be filled
            parts.append(part)
            continue
        if out is None:
            shape, xp = (rows, *part.shape[1:]), array_namespace(part)
            out = scratch(shape, part.dtype) if is_streamed(like) else xp.empty(shape, dtype=part.dtype)
        out[block, ...] = part
        if is_streamed(out):
            release(out)
    return out if out is not None else array_namespace(parts[0]).concat(parts)


def summed(width: int, fn: Callable[[slice], Any], *arrays: Array) -> Any:
    """The sum of `fn(block)` over all blocks, of one array or of every one of a tuple."""
    found: Any = None
    for block in blocks(width, *arrays):
        part = fn(block)
        if found is None:
            found = part
        elif isinstance(part, tuple):
            found = tuple(a + b for a, b in zip(found, part, strict=True))
        else:
            found = found + part
    return found


class Parts(NamedTuple):
    """What a block of rows gives: terms of sums over all rows, rows of its own, smallest entries over the rows."""

    sums: Sequence[Array] = ()
    rows: Sequence[Array] = ()
    least: Sequence[Array] = ()


def over_blocks(
    width: int, fn: Callable[..., Parts], *arrays: Array, beside: tuple[Array, ...] = (), like: Array = None
) -> Parts:
    """`fn(*blocks, *beside)` for every block of rows of the arrays: terms summed, rows one below the other, the least.

    fn : a function of a module. Where arrays lie in files and something else computes with them (`streamed_by`), all
        blocks have as many rows, the last one filled up with zeros, which must change neither sums nor the least.
    like : rows lie in scratch files where this is a memory map.
    """
    n, rows = arrays[0].shape[0], []
    found: Any = None
    stream = STREAM.get() if any(is_streamed(array) for array in arrays) else None
    run = None if stream is None else stream.begin(fn, beside)
    for block in blocks(width, *arrays, entries=None if run is None else PASSED):
        some = tuple(array[block, ...] for array in arrays)
        part = fn(*some, *beside) if run is None else run(some)
        own = part.rows if stream is None else stream.get(part.rows)
        if found is None and block.stop == n:
            return part if stream is None else Parts(*stream.get(part))
        if found is None:
            for row in own:
                shape, xp = (n, *row.shape[1:]), array_namespace(row)
                rows.append(scratch(shape, row.dtype) if is_streamed(like) else xp.empty(shape, dtype=row.dtype))
            found = part
        else:
            least = [array_namespace(a).minimum(a, b) for a, b in zip(found.least, part.least, strict=True)]
            found = Parts([a + b for a, b in zip(found.sums, part.sums, strict=True)], (), least)
        for out, row in zip(rows, own, strict=True):
            out[block, ...] = row[: block.stop - block.start, ...]
            if is_streamed(out):
                release(out)
    sums, _, least = found if stream is None else stream.get(Parts(found.sums, (), found.least))
    return Parts(sums, rows, least)


@contextlib.contextmanager
def streamed_by(stream: Any) -> Iterator[None]:
    """While this is entered, `stream` computes with blocks of rows of files; None for the host."""
    before = STREAM.set(stream)
    try:
        yield
    finally:
        STREAM.reset(before)


def is_streamed(array: Any) -> bool:
    """Whether the array lies in a file."""
    return isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None


def release(array: Any) -> None:
    """Let the pages of a memory map go; of a private one that may hold changes none."""
    if array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)


def scratch(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros in a file without a name. The space is taken at once: a full disk is an OSError now, not a crash later."""
    size = max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
    with tempfile.TemporaryFile(dir=SCRATCH[0], prefix="cvxrelu-") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def in_words(size: float) -> str:
    """Bytes with three digits and a binary unit."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


class scratch_folder:
    """While this is entered, scratch files are made in `folder`."""

    def __init__(self, folder: Any) -> None:
        self.folder = None if folder is None else os.fspath(folder)

    def __enter__(self) -> None:
        self.before, SCRATCH[0] = SCRATCH[0], self.folder

    def __exit__(self, *_: object) -> None:
        SCRATCH[0] = self.before
