"""A linear skip or an output bias beside the neurons, penalised or not, with linear equality constraints.

    skip(x) = theta^T (x, 1),   penalty l2/2 |theta|^2,   C theta = e on its linear part

Eliminating the constraint: theta = origin + basis z, basis orthonormal on the null space of C and origin the shortest
solution, hence orthogonal to it, so that |theta|^2 = |origin|^2 + |z|^2. What is left is a shift of the prediction,
which the loss absorbs, free coefficients z on the columns `R (X, 1) basis`, and a constant.

With l2 > 0 the dual value of any t gains `-|columns^T t|^2 / (2 l2)`. Without, t must satisfy `columns^T t = 0`, which
`losses.Squared` sees to by minimising over the span of its `free` columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.readout import Pairs, read
from cvxrelu.validation import as_finite_array

__all__ = ["Skip", "as_skip", "free_directions", "make_skip", "skip_columns"]

TINY = float(np.finfo(np.float64).tiny)


class Skip(NamedTuple):
    """What z means. Columns (m, k) of z in the prediction that the loss sees; theta = origin (K, c) + basis (K, k) z.

    linear, bias : whether theta has a linear part, and whether its last row is a bias.
    """

    columns: Float[np.ndarray, "m k"]
    l2: float
    basis: Float[np.ndarray, "K k"]
    origin: Float[np.ndarray, "K c"]
    linear: bool
    bias: bool

    @property
    def constant(self) -> float:
        """Penalty of the origin, which no z can avoid."""
        return 0.5 * self.l2 * float(np.sum(self.origin**2))

    def coefficients(self, z: Float[np.ndarray, "k c"]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(linear part (d, c) or None, bias (c,) or None)."""
        theta = self.origin + self.basis @ z
        linear, bias = (theta[:-1], theta[-1]) if self.bias else (theta, None)
        return (linear if self.linear else None), bias


def as_skip(skip: Any) -> str | None:
    """False as None, else "bias" or "linear"."""
    if skip is None or (isinstance(skip, (bool, np.bool_)) and not skip):
        return None
    if not (isinstance(skip, str) and skip in ("bias", "linear")):
        raise ValueError(f"skip must be False, 'bias' or 'linear', got {skip!r}")
    return skip


def skip_columns(data: np.ndarray, intercept: bool, skip: str | None, bias: bool = True) -> np.ndarray:
    """What a skip adds to a prediction, (n, K): X without the constant column, then a constant one."""
    n, D = data.shape
    linear = data[:, : D - intercept] if skip == "linear" else data[:, :0]
    return np.concatenate([linear, np.ones((n, int(bias)))], axis=1)


def make_skip(
    data: np.ndarray, intercept: bool, skip: str | None, l2: float, equality: Any, readout: Pairs | None, n_outputs: int
) -> tuple[Skip | None, Float[np.ndarray, "m c"] | None]:
    """The skip, and the shift of the prediction by its origin where that is not zero."""
    bias = readout is None  # a constant drops out of differences
    if skip is None or (skip == "bias" and not bias):
        return None, None
    columns = skip_columns(data, intercept, skip, bias)
    basis, origin = np.eye(columns.shape[1]), np.zeros((columns.shape[1], n_outputs))
    if equality is not None:
        d = columns.shape[1] - bias
        linear_basis, linear_origin = _eliminate(*_read_equality(equality, d, n_outputs))
        basis = np.zeros((d + bias, linear_basis.shape[1] + bias))
        basis[:d, : linear_basis.shape[1]] = linear_basis
        basis[d:, linear_basis.shape[1] :] = 1.0
        origin[:d] = linear_origin
    read_columns = read(readout, columns)
    shift = read_columns @ origin if origin.any() else None
    seen = read_columns if equality is None else read_columns @ basis
    return Skip(seen, l2, basis, origin, skip == "linear", bias), shift


def free_directions(columns: Float[np.ndarray, "m k"], weight: Float[np.ndarray, "m 1"]) -> Float[np.ndarray, "m r"]:
    """An orthonormal basis, in the inner product of the weights, of what the columns span."""
    root = np.sqrt(weight)
    columns = root * columns
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), TINY)  # their units must not decide their rank
    left, singular, _ = np.linalg.svd(columns, full_matrices=False)
    left = left[:, singular > 1e-12 * singular.max(initial=0.0)]
    return np.divide(left, root, out=np.zeros_like(left), where=root > 0)


def _read_equality(equality: Any, d: int, c: int) -> tuple[np.ndarray, np.ndarray]:
    """(C (q, d), e (q, c)) in float64."""
    try:
        C, e = equality
    except (TypeError, ValueError):
        raise ValueError(f"equality must be a pair (C, e) with C @ skip = e, got {type(equality).__name__}") from None
    C = as_finite_array("equality, C,", C, ndim=(1, 2)).astype(np.float64)
    C = C[None, :] if C.ndim == 1 else C
    e = as_finite_array("equality, e,", e, ndim=(0, 1, 2)).astype(np.float64)
    if C.shape[1] != d:
        raise ValueError(f"equality must have C of shape (q, {d}) for the linear part of the skip, got {C.shape}")
    q = C.shape[0]
    wanted = {(q,), (q, c)} | ({()} if q == 1 else set())
    if e.shape not in wanted:
        raise ValueError(f"equality must have e of shape ({q},) or ({q}, {c}) to match C {C.shape}, got {e.shape}")
    return C, np.broadcast_to(e.reshape(q, -1), (q, c)).copy()


def _eliminate(C: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(orthonormal basis of the null space of C, shortest solution of C theta = e)."""
    lengths = np.linalg.norm(C, axis=1, keepdims=True)
    if np.any((lengths[:, 0] == 0) & np.any(e != 0, axis=1)):
        raise ValueError("equality has no solution: a row of C is zero and its e is not")
    units = np.where(lengths > 0, lengths, 1.0)
    C, e = C / units, e / units
    left, singular, right = np.linalg.svd(C)
    rank = int(np.sum(singular > 1e-10 * singular.max(initial=0.0)))
    origin = right[:rank].T @ ((left[:, :rank].T @ e) / singular[:rank, None])
    if np.abs(C @ origin - e).max(initial=0.0) > 1e-8 * max(1e-300, np.abs(e).max(initial=0.0)):
        raise ValueError("equality has no solution: its rows contradict one another")
    return right[rank:].T, origin
