"""A network as directions and magnitudes, and what refinement computes with it.

    f(X) = sum_j s_j (X u_j)_+ a_j^T,    |u_j| = |a_j| = 1,  s_j >= 0,    penalty beta sum_j s_j

On the device: the objective of the balanced weights and its gradient, the value and dual variable of a network, the
Gram matrix of its neurons. On the host: merging, magnitudes, and Caratheodory's reduction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.operators import row_blocks
from cvxrelu.row_space import power_of_two

__all__ = ["Neurons", "Terms", "balanced", "from_weights", "merge", "reduce_count", "to_weights"]

Array = Any
PARALLEL = 1e-12  # 1 - cosine of second layers that are merged


class Terms(NamedTuple):
    """The problem on the device, in one precision."""

    X: Float[Array, "n d"]
    loss: Any
    beta: Float[Array, ""]


class Neurons(NamedTuple):
    """Unit directions (d, m), unit outputs (c, m), magnitudes (m,) >= 0. Host, float64."""

    u: Float[np.ndarray, "d m"]
    a: Float[np.ndarray, "c m"]
    s: Float[np.ndarray, " m"]

    @property
    def width(self) -> int:
        return self.s.shape[0]

    def take(self, which: Any) -> Neurons:
        return Neurons(self.u[:, which], self.a[:, which], self.s[which])

    def join(self, other: Neurons) -> Neurons:
        return Neurons(*(np.concatenate(pair, axis=-1) for pair in zip(self, other, strict=True)))

    def padded(self, size: int) -> Neurons:
        """With zero neurons appended: they predict nothing and have no gradient."""
        missing = size - self.width
        return Neurons(*(np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)]) for array in self))


def balanced(data: Terms, x: Float[Array, "p m"]) -> tuple[Array, Array]:
    """`loss(f(X)) + beta/2 sum_j (|w_j|^2 + |a_j|^2)` and its gradient; x holds W (d, m) above A (c, m)."""
    X, loss, beta = data
    xp = array_namespace(X)
    d = X.shape[1]
    W, A = x[:d, :], x[d:, :]
    zero = xp.zeros((), dtype=X.dtype)
    blocks = row_blocks(X, W.shape[1])
    hidden = [xp.maximum(X[b, :] @ W, zero) for b in blocks]
    t = loss.dual(prediction := xp.concat([h @ A.T for h in hidden]))
    value = loss.value(prediction) + 0.5 * beta * xp.sum(x * x)
    if A.shape[0] == 1:  # t weighs rows of X, not of X W
        of_W = A * sum((t[b, :] * X[b, :]).T @ xp.astype(h > 0, X.dtype) for b, h in zip(blocks, hidden, strict=True))
    else:
        of_W = sum(X[b, :].T @ xp.where(h > 0, t[b, :] @ A, zero) for b, h in zip(blocks, hidden, strict=True))
    of_A = sum(t[b, :].T @ h for b, h in zip(blocks, hidden, strict=True))
    return value, beta * x - xp.concat([of_W, of_A])


def state(backend: Backend, data: Terms, u: Array, a: Array, s: Array) -> tuple[Array, Array]:
    """(objective of (N), dual variable (n, c)) of neurons."""
    xp = array_namespace(data.X)
    prediction = xp.maximum(data.X @ u, xp.zeros((), dtype=data.X.dtype)) @ (s * a).T
    return data.loss.value(prediction) + data.beta * xp.sum(s), data.loss.dual(prediction)


def moments(backend: Backend, data: Terms, u: Array, a: Array, s: Array) -> tuple[Array, Array]:
    """Hessian (m, m) and minus the gradient (m,) of the loss in the magnitudes, at s."""
    xp = array_namespace(data.X)
    hidden = xp.maximum(data.X @ u, xp.zeros((), dtype=data.X.dtype))
    t = data.loss.dual(hidden @ (s * a).T)
    hidden = data.loss.settle(hidden)
    gram = (hidden.T @ (data.loss.curvature * hidden)) * (a.T @ a)
    return gram, xp.sum((t.T @ hidden) * a, axis=0)


def keys(backend: Backend, data: Terms, u: Array, random: Array) -> Array:
    """A number for each neuron's activation pattern: equal patterns have equal numbers."""
    xp = array_namespace(data.X)
    return xp.sum(xp.where(data.X @ u > 0, random[:, None], xp.zeros((), dtype=random.dtype)), axis=0)


def to_weights(neurons: Neurons) -> Float[np.ndarray, "p m"]:
    """W above A, with |w_j| = |a_j|."""
    root = np.sqrt(neurons.s)
    return np.concatenate([neurons.u * root, neurons.a * root])


def from_weights(x: Float[np.ndarray, "p m"], d: int) -> Neurons:
    """Directions and magnitudes of W above A; dead neurons dropped."""
    W, A = x[:d].astype(np.float64), x[d:].astype(np.float64)
    inner, outer = np.linalg.norm(W, axis=0), np.linalg.norm(A, axis=0)
    s = inner * outer
    alive = s > 1e-10 * s.max(initial=0.0)
    return Neurons(W[:, alive] / inner[alive], A[:, alive] / outer[alive], s[alive])


def merge(neurons: Neurons, key: np.ndarray) -> Neurons:
    """One neuron for all with the same pattern and parallel second layers: the same function, no larger a penalty."""
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=np.nan) != 0)
    merged: list[tuple[np.ndarray, np.ndarray]] = []
    for group in np.split(order, starts[1:]):
        left = list(group)
        while left:
            a = neurons.a[:, left[0]]
            same = [j for j in left if neurons.a[:, j] @ a >= 1.0 - PARALLEL]
            merged.append((neurons.u[:, same] @ neurons.s[same], a))
            left = [j for j in left if j not in same]
    if len(merged) == neurons.width:
        return neurons
    v = np.stack([pair[0] for pair in merged], axis=1)
    s = np.linalg.norm(v, axis=0)
    alive = s > 0
    return Neurons(v[:, alive] / s[alive], np.stack([pair[1] for pair in merged], axis=1)[:, alive], s[alive])


def reduce_count(neurons: Neurons, X: Float[np.ndarray, "n d"]) -> Neurons:
    """At most n c + 1 neurons, the same predictions and penalty (Caratheodory), by null vectors of their columns."""
    n, c = X.shape[0], neurons.a.shape[0]
    while neurons.width > n * c + 1:
        some = np.arange(n * c + 2)
        hidden = np.maximum(X @ neurons.u[:, some], 0.0)
        columns = (hidden[:, None, :] * neurons.a[None, :, some]).reshape(n * c, -1)
        columns /= power_of_two(columns)  # of the size of the row that keeps the penalty
        null = np.linalg.svd(np.concatenate([columns, np.ones((1, len(some)))]))[2][-1]
        if null.max() <= 0:
            null = -null
        ratio = np.where(null > 0, neurons.s[some] / np.where(null > 0, null, 1.0), np.inf)
        leaving = int(np.argmin(ratio))
        s = neurons.s.copy()
        s[some] = np.maximum(s[some] - ratio[leaving] * null, 0.0)
        s[leaving] = 0.0
        neurons = Neurons(neurons.u, neurons.a, s).take(s > 0)
    return neurons
