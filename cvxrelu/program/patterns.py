"""Activation patterns `M = 1[X g >= 0]`: sampled, checked, and read from a user's option."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cvxrelu.numerics.rounding import EPS
from cvxrelu.support.host import to_host

__all__ = ["Patterns", "as_patterns", "check_realisable", "sample_patterns"]


class Patterns(NamedTuple):
    """Activation patterns, one a column, and gates that realise them.

    Attributes
    ----------
    patterns : (n, P) bool, distinct columns.
    gates : (d, P) float64 with `patterns == (X @ gates >= 0)`, or None when patterns were given as such.
    """

    patterns: np.ndarray
    gates: np.ndarray | None


def sample_patterns(X: ArrayLike, P: int, seed: Any = 0) -> Patterns:
    """The distinct columns of `1[X @ G >= 0]`, `G = numpy.random.default_rng(seed).standard_normal((d, P))`.

    Columns keep the order in which they were first drawn. The all-zero pattern is dropped, since it contributes nothing
    to a prediction; so at most P patterns come back, and none where every draw was all-zero.

    Parameters
    ----------
    X : (n, d) real, evaluated in float64.
    P : number of gates to draw, at least 1.
    seed : anything `numpy.random.default_rng` takes.

    Raises
    ------
    TypeError, ValueError : X is not a finite real matrix, or P is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> patterns, gates = sample_patterns(np.array([[1.0, 0.0], [0.0, 1.0]]), 50)
    >>> patterns.shape, gates.shape
    ((2, 3), (2, 3))
    """
    X = _data(X)
    if isinstance(P, bool) or not isinstance(P, (int, np.integer)):
        raise TypeError(f"P is {P!r}; expected a positive integer")
    if P < 1:
        raise ValueError(f"P is {P}; expected a positive integer")
    gates = np.random.default_rng(seed).standard_normal((X.shape[1], int(P)))
    M = X @ gates >= 0
    first = _first_occurrences(M)
    first = first[M[:, first].any(axis=0)]
    return Patterns(np.ascontiguousarray(M[:, first]), np.ascontiguousarray(gates[:, first]))


def check_realisable(X: ArrayLike, M: ArrayLike) -> np.ndarray:
    """Whether `M[:, i] == 1[X u >= 0]` for some u, by one linear program a column; (P,) bool.

    Looks for u with `x @ u >= 0` where M is True and `x @ u <= -|x|` where it is False: the scale of u is free, so this
    is the definition. Patterns of boundaries count: u = 0 gives all True.

    Parameters
    ----------
    X : (n, d) real.
    M : (n, P) bool.

    Examples
    --------
    >>> import numpy as np
    >>> check_realisable([[1.0], [2.0]], np.array([[True, True, False], [True, False, False]]))
    array([ True, False,  True])
    """
    from scipy.optimize import linprog  # half of the package's import time otherwise

    X, M = _data(X), to_host(M)
    if M.dtype != bool or M.ndim != 2 or len(M) != len(X):
        raise ValueError(f"M has dtype {M.dtype} and shape {M.shape}; expected bool ({len(X)}, P)")
    scale = np.max(np.abs(X), axis=0)
    scale[scale == 0] = 1.0
    rows = _unit_rows(X / scale)
    realisable = np.ones(M.shape[1], dtype=bool)
    for i, column in enumerate(M.T):
        if column.all():
            continue
        answer = linprog(
            np.zeros(X.shape[1]),
            A_ub=np.where(column[:, None], -rows, rows),
            b_ub=np.where(column, 0.0, -1.0),
            bounds=(None, None),
            method="highs",
        )
        if answer.status not in (0, 2):
            raise RuntimeError(f"pattern {i} could not be checked: {answer.message}")
        realisable[i] = answer.status == 0
    return realisable


def as_patterns(patterns: Any, X: ArrayLike, seed: Any = 0, check_patterns: bool = False) -> tuple[Patterns, int]:
    """The `patterns` option of a solve as `Patterns`, and how many were asked for before duplicates were removed.

    Parameters
    ----------
    patterns : an integer P (as `sample_patterns`); a bool array (n, P) of patterns; a float array (d, P) of gates; or
        `Patterns`, or a pair (patterns, gates), gates possibly None. Only sampling drops the all-zero pattern.
    X : (n, d) real, evaluated in float64.
    seed : for sampling.
    check_patterns : with patterns given without gates, one linear program for each tells whether X realises it.

    Raises
    ------
    TypeError, ValueError : `patterns` is none of these, has the wrong shape, is not finite, is not what its gates give,
        or (with `check_patterns`) is not realised by any gate.

    Examples
    --------
    >>> import numpy as np
    >>> as_patterns(np.array([[True, True], [False, False]]), [[1.0], [-1.0]])
    (Patterns(patterns=array([[ True],
           [False]]), gates=None), 2)
    """
    X = _data(X)
    n, d = X.shape
    expected = f"expected an integer P >= 1, a bool ({n}, P), a float ({d}, P) of gates, or a pair of the two, P >= 1"
    if isinstance(patterns, (bool, np.bool_)) or patterns is None:
        raise TypeError(f"patterns is {patterns!r}; {expected}")
    if isinstance(patterns, (int, np.integer)):
        if patterns < 1:
            raise ValueError(f"patterns is {patterns}; {expected}")
        return sample_patterns(X, int(patterns), seed), int(patterns)
    pair = isinstance(patterns, tuple)
    if pair and len(patterns) != 2:
        raise ValueError(f"patterns is a tuple of {len(patterns)}; {expected}")
    M, gates = patterns if pair else (patterns, None)
    M = _array(M, expected)
    if not pair and M.dtype.kind == "f":
        gates = _check_gates(M, d, expected)
        return _distinct(X @ gates >= 0, gates), gates.shape[1]
    if M.dtype != bool:
        raise TypeError(f"patterns has dtype {M.dtype} and shape {M.shape}; {expected}")
    if M.ndim != 2 or len(M) != n or M.shape[1] == 0:
        raise ValueError(f"patterns is a bool array of shape {M.shape}; {expected}")
    if gates is not None:
        gates = _check_gates(_array(gates, expected), d, expected)
        if gates.shape[1] != M.shape[1]:
            raise ValueError(f"patterns has {M.shape[1]} patterns but {gates.shape[1]} gates; {expected}")
        product = X @ gates
        differs = ((product >= 0) != M) & (np.abs(product) > 4 * d * EPS * (np.abs(X) @ np.abs(gates)))
        if differs.any():
            wrong = np.flatnonzero(differs.any(axis=0))
            raise ValueError(
                f"patterns differs from 1[X @ gates >= 0] in {len(wrong)} columns, the first is {wrong[0]}"
            )
    found = _distinct(M, gates)
    if check_patterns and gates is None:
        wrong = np.flatnonzero(~check_realisable(X, M))
        if len(wrong):
            raise ValueError(
                f"patterns has {len(wrong)} of {M.shape[1]} columns that no gate realises on X, the first is {wrong[0]}"
            )
    return found, M.shape[1]


def _data(X: ArrayLike) -> np.ndarray:
    """X as a finite float64 matrix with at least one row and one column."""
    X = to_host(X)
    if X.dtype.kind not in "fiub":
        raise TypeError(f"X has dtype {X.dtype}; expected real numbers")
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X has shape {X.shape}; expected (n, d), n >= 1, d >= 1")
    X = X.astype(np.float64, copy=False)
    if not np.isfinite(X).all():
        raise ValueError("X contains NaN or infinity; expected finite numbers")
    return X


def _array(value: Any, expected: str) -> np.ndarray:
    try:
        array = to_host(value)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(value).__name__
        raise TypeError(f"patterns holds a {kind} that NumPy cannot read ({error}); {expected}") from error
    if array.dtype.kind not in "bf":
        raise TypeError(f"patterns holds a {type(value).__name__} of dtype {array.dtype}; {expected}")
    return array


def _check_gates(gates: np.ndarray, d: int, expected: str) -> np.ndarray:
    if gates.dtype.kind != "f" or gates.ndim != 2 or len(gates) != d or gates.shape[1] == 0:
        raise ValueError(f"patterns holds gates of dtype {gates.dtype} and shape {gates.shape}; {expected}")
    if not np.isfinite(gates).all():
        raise ValueError(f"patterns holds gates with NaN or infinity; {expected}, finite")
    return gates.astype(np.float64, copy=False)


def _distinct(M: np.ndarray, gates: np.ndarray | None) -> Patterns:
    """The distinct columns of M in order of first occurrence, and their gates."""
    first = _first_occurrences(M)
    return Patterns(np.ascontiguousarray(M[:, first]), None if gates is None else np.ascontiguousarray(gates[:, first]))


def _first_occurrences(M: np.ndarray) -> np.ndarray:
    packed = np.ascontiguousarray(np.packbits(M, axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    return np.sort(np.unique(keys, return_index=True)[1])


def _unit_rows(A: np.ndarray) -> np.ndarray:
    """Rows scaled to norm 1 (zero rows stay), free of overflow and underflow."""
    largest = np.max(np.abs(A), axis=1, keepdims=True)
    A = A / np.where(largest > 0, largest, 1.0)
    norm = np.linalg.norm(A, axis=1, keepdims=True)
    return A / np.where(norm > 0, norm, 1.0)
