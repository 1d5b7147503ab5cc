"""The rows of a last-layer program: an array, a memory map, or a factory of mini-batches; checked once, on the host.

Only `A` may be larger than memory: y, weights and margins are one number per row each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxrelu.program.losses import Logistic
from cvxrelu.support.checks import as_finite_array, check_scale

__all__ = ["Rows", "read_rows"]


@dataclass(frozen=True)
class Rows:
    """`source` is a host array (n, d), or a callable that starts a new pass: an iterator over arrays (k, d).

    `streamed` rows never are in memory together. `loss` holds y, weight and margin of all rows, float64 columns.
    """

    source: Any
    streamed: bool
    shape: tuple[int, int]
    loss: Logistic
    batch_size: int

    @property
    def n_batches(self) -> int:
        """Batches in a pass, of an array; a factory decides that by itself."""
        return -(-self.shape[0] // self.batch_size)

    def all(self) -> np.ndarray:
        """Every row, (n, d) float64, for rows in memory."""
        return self.source.astype(np.float64, copy=False)

    def batches(self, order: np.ndarray | None = None, shuffle: np.ndarray | None = None) -> Iterator[tuple[Any, Any]]:
        """(A, loss) of batch after batch; `order` names batches, and `shuffle` rows, neither of them for a factory.

        Without `order` a pass over all, in order.
        """
        if callable(self.source):
            yield from self._from_factory()
            return
        for k in range(self.n_batches) if order is None else order:
            rows: Any = slice(int(k) * self.batch_size, (int(k) + 1) * self.batch_size)
            rows = rows if shuffle is None else shuffle[rows]
            yield np.asarray(self.source[rows], dtype=np.float64), _part(self.loss, rows)

    def _from_factory(self) -> Iterator[tuple[Any, Any]]:
        first = 0
        for block in _blocks(self.source, self.shape[1]):
            rows = slice(first, first + len(block))
            first += len(block)
            if first <= self.shape[0]:
                yield block, _part(self.loss, rows)
        if first != self.shape[0]:
            raise ValueError(f"A must yield the same rows on every pass: {self.shape[0]} at first, now {first}")


def read_rows(A: Any, y: Any, sample_weight: Any, margin: Any, scale: float, batch_size: int | None, stochastic: bool,
              dtype: Any) -> Rows:  # fmt: skip
    """Check everything that comes by rows, or raise one error that names the argument.

    A factory and, where `stochastic`, a memory map are read once, batch by batch.
    """
    if callable(A):
        if not stochastic:
            raise ValueError("A is a factory of mini-batches, which needs method='svrg' or 'adamw'; or pass an array")
        source, streamed = A, True
        n, d, largest = _scan(_blocks(A, None))
    else:
        streamed = stochastic and isinstance(A, np.memmap)
        source = A if streamed else as_finite_array("A", A, ndim=(2,))
        if source.ndim != 2 or 0 in source.shape:
            raise ValueError(f"A must have shape (n, d) with at least one row and one column, got {source.shape}")
        n, d = source.shape
        batch_size = batch_size or (256 if streamed else max(8, min(n // 100, 256)))
        size = batch_size if streamed else n
        _, _, largest = _scan(as_finite_array("A", source[k : k + size], ndim=(2,)) for k in range(0, n, size))
    signs = np.ones((n, 1)) if y is None else _column("y", y, n)
    if not np.isin(signs, (-1.0, 1.0)).all():
        bad = signs[~np.isin(signs, (-1.0, 1.0))][0]
        raise ValueError(f"y must hold -1 and +1 only, got {bad!r}; for labels 0 and 1 pass 2 * y - 1")
    weight = np.ones((n, 1)) if sample_weight is None else _column("sample_weight", sample_weight, n)
    if weight.min() < 0 or weight.max() == 0:
        raise ValueError(
            f"sample_weight must be nonnegative with a positive entry, got values in [{weight.min()}, {weight.max()}]"
        )
    margins = np.full((n, 1), float(m)) if (m := _number(margin)) is not None else _column("margin", margin, n)
    check_scale("scale * A", np.asarray([scale * largest]), dtype)
    check_scale("sample_weight", weight, dtype)
    check_scale("margin", np.maximum(np.abs(margins), 1.0), dtype)  # a small one does no harm
    return Rows(source, streamed, (n, d), Logistic(signs, weight, margins), batch_size or 1)


def _blocks(factory: Callable[[], Any], d: int | None) -> Iterator[np.ndarray]:
    """One pass of a factory, every block checked: (k, d), finite, k > 0, d the same in all."""
    try:
        blocks = iter(factory())
    except TypeError as error:
        raise TypeError(f"A must be an array, or a callable that returns an iterable of arrays: {error}") from None
    for k, block in enumerate(blocks):
        array = as_finite_array(f"A (batch {k})", block, ndim=(2,))
        d = array.shape[1] if d is None else d
        if array.shape[1] != d or 0 in array.shape:
            raise ValueError(f"A (batch {k}) must have shape (k, {d}) with k >= 1, got {array.shape}")
        yield array.astype(np.float64, copy=False)


def _scan(blocks: Iterator[np.ndarray]) -> tuple[int, int, float]:
    """Rows, columns and largest magnitude of a pass."""
    n, d, largest = 0, 0, 0.0
    for block in blocks:
        n, d = n + block.shape[0], block.shape[1]
        largest = max(largest, float(np.abs(block.astype(np.float64, copy=False)).max()))
    if n == 0:
        raise ValueError("A must have at least one row, got a factory that yields none")
    return n, d, largest


def _number(value: Any) -> float | None:
    """A finite scalar as a float; None for anything that has entries."""
    array = as_finite_array("margin", value, ndim=(0, 1, 2))
    return float(array) if array.ndim == 0 else None


def _column(name: str, value: Any, n: int) -> np.ndarray:
    array = as_finite_array(name, value, ndim=(1,))
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {array.shape}")
    return array.astype(np.float64)[:, None]


def _part(loss: Logistic, rows: Any) -> Logistic:
    return Logistic(*(array[rows] for array in loss))
