"""Readouts: what of the network's outputs the loss sees.

    identity (None)   (R f)_k = f_k
    Pairs             (R f)_k = f_first(k) - f_second(k)                                  preferences, Bradley & Terry

R is applied to values by indexing and never formed. Its adjoint sums, for every row, the t of the pairs that it is in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from jaxtyping import Float, Int

__all__ = ["Pairs", "adjoint", "largest_degree", "make_pairs", "read"]

Array = Any


class Pairs(NamedTuple):
    """Differences of rows. `order` sorts the 2 m positions of (first, second) by row; those of row i end at ends[i]."""

    first: Int[Array, " m"]
    second: Int[Array, " m"]
    order: Int[Array, " 2m"]
    ends: Int[Array, " n"]


def make_pairs(pairs: Int[np.ndarray, "m 2"], n: int) -> Pairs:
    """The readout of m pairs of n rows."""
    both = pairs.T.reshape(-1)
    ends = np.cumsum(np.bincount(both, minlength=n))
    return Pairs(pairs[:, 0].copy(), pairs[:, 1].copy(), np.argsort(both, kind="stable"), ends)


def read(readout: Pairs | None, values: Float[Array, "n k"]) -> Float[Array, "m k"]:
    """R values, columns apart."""
    if readout is None:
        return values
    xp = array_namespace(values)
    return xp.take(values, readout.first, axis=0) - xp.take(values, readout.second, axis=0)


def adjoint(readout: Pairs | None, t: Float[Array, "m k"]) -> Float[Array, "n k"]:
    """R^T t, columns apart."""
    if readout is None:
        return t
    xp = array_namespace(t)
    if is_numpy_array(t):
        n = readout.ends.shape[0]
        sums = [np.bincount(readout.first, c, n) - np.bincount(readout.second, c, n) for c in t.T]
        return np.stack(sums, axis=1).astype(t.dtype) if sums else np.zeros((n, 0), dtype=t.dtype)
    # Differences of running sums: no scatter, so the same order of additions every time on every device. In float64,
    # because a running sum forgets what is small beside the whole.
    signed = xp.astype(xp.concat([t, -t]), xp.float64)
    running = xp.cumulative_sum(xp.take(signed, readout.order, axis=0), axis=0, include_initial=True)
    upto = xp.take(running, readout.ends, axis=0)
    before = xp.concat([xp.zeros_like(upto[:1, ...]), upto[:-1, ...]])
    return xp.astype(upto - before, t.dtype)


def largest_degree(readout: Pairs | None) -> float:
    """A bound on |R|^2: 1 for the identity, twice the most pairs that any row is in."""
    return 1.0 if readout is None else 2.0 * float(np.diff(readout.ends, prepend=0).max())
