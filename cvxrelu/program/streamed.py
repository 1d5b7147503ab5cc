"""Data and patterns of a solve whose large arrays lie in files: read, checked and drawn in blocks of rows."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from cvxrelu.program.patterns import Patterns
from cvxrelu.support.blocks import blocks, is_streamed, scratch
from cvxrelu.support.checks import as_finite_array
from cvxrelu.support.host import to_host

__all__ = ["in_file", "read_rows_in_blocks", "streamed_patterns"]


def read_rows_in_blocks(X: Any) -> np.ndarray:
    """X (n, d), finite: the memory map itself, or another library's array on the host."""
    if not is_streamed(X):
        return as_finite_array("X", X, ndim=(2,))
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must have shape (n, d) with at least one row and one column, got {X.shape}")
    for b in blocks(X.shape[1], X):
        as_finite_array(f"X (rows {b.start} to {b.stop - 1})", np.asarray(X[b]), ndim=(2,))
    return X


def in_file(X: np.ndarray, intercept: bool) -> np.ndarray:
    """X in float64 as a memory map, the constant column appended if asked for."""
    if is_streamed(X) and X.dtype == np.float64 and X.flags.c_contiguous and not intercept:
        return X
    n, d = X.shape
    out = scratch((n, d + intercept), np.float64)
    for b in blocks(d, X, out):
        out[b, :d] = X[b]
        out[b, d:] = 1.0
    return out


def streamed_patterns(patterns: Any, X: np.ndarray, seed: int, check_patterns: bool) -> tuple[Patterns, int]:
    """As `patterns.as_patterns`, for a number or gates: the same gates and patterns, the latter in a file."""
    d = X.shape[1]
    if isinstance(patterns, (int, np.integer)) and not isinstance(patterns, bool):
        gates, drawn = np.random.default_rng(seed).standard_normal((d, int(patterns))), True
    else:
        gates, drawn = to_host(None if isinstance(patterns, tuple) else patterns), False
        if gates.dtype.kind != "f" or gates.ndim != 2 or len(gates) != d or gates.shape[1] == 0 or check_patterns:
            raise ValueError(
                f"patterns must be a number, or a float ({d}, P) of gates, where rows are streamed, got "
                f"{type(patterns).__name__} of dtype {gates.dtype} and shape {gates.shape}"
            )
        gates = as_finite_array("patterns", gates, ndim=(2,)).astype(np.float64)
    P = gates.shape[1]
    hashes, some = [hashlib.blake2b(digest_size=16) for _ in range(P)], np.zeros(P, dtype=bool)
    for b in blocks(P, X):
        M = X[b] @ gates >= 0
        some |= M.any(axis=0)
        for column, found in zip(np.ascontiguousarray(np.packbits(M, axis=0).T), hashes, strict=True):
            found.update(column.data)
    keys = np.array([found.digest() for found in hashes], dtype="S16")
    first = np.sort(np.unique(keys, return_index=True)[1])
    kept = gates[:, first[some[first]] if drawn else first]
    if kept.shape[1] == 0:
        kept = np.zeros((d, 0))
    chosen = scratch((len(X), max(1, kept.shape[1])), bool)
    if kept.shape[1]:
        each_into(chosen, X, kept)
    return Patterns(chosen, kept if kept.shape[1] else None), P


def each_into(out: np.ndarray, X: np.ndarray, gates: np.ndarray) -> None:
    """The patterns of the gates, block by block."""
    for b in blocks(gates.shape[1], X, out):
        out[b] = X[b] @ gates >= 0
