"""A network as directions and magnitudes, and what refinement computes with it.

    f(X) = sum_j s_j (X u_j)_+ a_j^T,    |u_j| = |a_j| = 1,  s_j >= 0,    penalty beta sum_j s_j

On the device: the objective of the balanced weights and its gradient, the predictions of a network, the Hessian in its
magnitudes. On the host: merging, magnitudes, and Caratheodory's reduction.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.numerics.rounding import power_of_two
from cvxrelu.program.loss import Loss
from cvxrelu.program.operators import row_blocks
from cvxrelu.program.readout import Pairs, adjoint, read

__all__ = [
    "Balanced",
    "Neurons",
    "Terms",
    "balanced",
    "from_weights",
    "merge",
    "moments",
    "predict",
    "reduce_count",
    "to_weights",
]

Array = Any
QUICK = 1e9  # flops that are done even after the deadline
PARALLEL = 1e-12  # 1 - cosine of second layers that are merged


class Terms(NamedTuple):
    """The problem on the device, in one precision: the loss sees `a = R f(X) + columns z`, z penalised by ridge.

    columns, ridge : of a penalised skip, in coordinates where the loss is about equally curved, with penalty
        `1/2 sum_i ridge_i |z_i|^2`; None without one. unit : of z in the vector that is descended. scale : of the rows
        of the first layer there, with X scaled alike; None for one.
    """

    X: Float[Array, "n d"]
    loss: Loss
    beta: Float[Array, ""]
    readout: Pairs | None = None
    columns: Float[Array, "m k"] | None = None
    ridge: Float[Array, " k"] | None = None
    unit: Float[Array, ""] | None = None
    scale: Float[Array, "d 1"] | None = None


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


class Balanced(NamedTuple):
    """`balanced`, its neurons divided over the devices of the backend: what descents take."""

    backend: Backend

    def __call__(self, data: Terms, x: Float[Array, " p"]) -> tuple[Array, Array]:
        return balanced(data, x, self.backend)


def balanced(data: Terms, x: Float[Array, " p"], backend: Backend | None = None) -> tuple[Array, Array]:
    """`loss + beta/2 sum_j (|w_j|^2 + |a_j|^2) + 1/2 sum_i ridge_i |z_i|^2` and gradient in x = (W, A, z / unit).

    backend : divides the neurons over its devices: a sum of n c numbers for the predictions, the gradient to all.
    """
    X, loss, beta, readout, columns, ridge, unit, scale = data
    xp = array_namespace(X)
    d, c = X.shape[1], loss.y.shape[1]
    k = 0 if columns is None else columns.shape[1]
    m = (x.shape[0] - k * c) // (d + c)
    layers = xp.reshape(x[: (d + c) * m], (d + c, m))
    layers = layers if backend is None else backend.split(layers, 1)
    W, A = layers[:d, :], layers[d:, :]
    zero = xp.zeros((), dtype=X.dtype)
    blocks = row_blocks(X, m)
    hidden = [xp.maximum(X[b, :] @ W, zero) for b in blocks]
    prediction = read(readout, xp.concat([h @ A.T for h in hidden]))
    # The vector has the first layer in units of the scale.
    weights = layers if scale is None else xp.concat([scale * W, A])
    value = 0.5 * beta * xp.sum(weights * weights)
    if columns is not None and ridge is not None:
        z = unit * xp.reshape(x[(d + c) * m :], (k, c))
        prediction = prediction + columns @ z
        value = value + 0.5 * xp.sum(ridge[:, None] * z * z)
    t = loss.dual(prediction)
    value = value + loss.value(prediction)
    p = adjoint(readout, t)
    if c == 1:  # p weighs rows of X, not of X W
        of_W = A * sum((p[b, :] * X[b, :]).T @ xp.astype(h > 0, X.dtype) for b, h in zip(blocks, hidden, strict=True))
    else:
        of_W = sum(X[b, :].T @ xp.where(h > 0, p[b, :] @ A, zero) for b, h in zip(blocks, hidden, strict=True))
    of_A = sum(p[b, :].T @ h for b, h in zip(blocks, hidden, strict=True))
    weights = layers if scale is None else xp.concat([scale * scale * W, A])
    gradient = xp.reshape(beta * weights - xp.concat([of_W, of_A]), (-1,))
    if columns is not None and ridge is not None:
        of_z = unit * (ridge[:, None] * z - columns.T @ t)
        gradient = xp.concat([gradient, xp.reshape(of_z, (-1,))])
    return value, gradient


def predict(backend: Backend, data: Terms, u: Array, a: Array, s: Array) -> Array:
    """R f(X) of neurons, (m, c)."""
    xp = array_namespace(data.X)
    hidden = xp.maximum(data.X @ backend.split(u, 1), xp.zeros((), dtype=data.X.dtype))
    return read(data.readout, hidden @ (s[None, :] * a).T)


def moments(backend: Backend, data: Terms, u: Array, a: Array, s: Array, z: Array) -> tuple[Array, Array]:
    """Hessian and minus the gradient of loss and ridge at (s, z), in the magnitudes and then the rows of z.

    Devices divide the rows: the Gram matrix is then a sum of m^2 numbers, where divided columns would all have to meet.
    """
    xp = array_namespace(data.X)
    columns, ridge, c = data.columns, data.ridge, a.shape[0]
    hidden = backend.split(xp.maximum(data.X @ u, xp.zeros((), dtype=data.X.dtype)), 0, 0)
    hidden = read(data.readout, hidden)
    prediction, second = hidden @ (s[None, :] * a).T, a
    if columns is not None:
        prediction = prediction + columns @ z
        k = columns.shape[1]
        hidden = xp.concat([hidden, xp.repeat(columns, c, axis=1)], axis=1)
        second = xp.concat([a, xp.tile(xp.eye(c, dtype=a.dtype), (1, k))], axis=1)
    gram = data.loss.gram(prediction, hidden, second)
    slope = xp.sum((data.loss.dual(prediction).T @ hidden) * second, axis=0)
    if columns is not None and ridge is not None:
        each = xp.repeat(ridge, c)
        padding = xp.zeros((s.shape[0],), dtype=a.dtype)
        gram = gram + xp.concat([padding, each])[None, :] * xp.eye(gram.shape[0], dtype=a.dtype)
        slope = slope - xp.concat([padding, each * xp.reshape(z, (-1,))])
    return gram, slope


def keys(backend: Backend, data: Terms, u: Array, random: Array) -> Array:
    """A number for each neuron's activation pattern: equal patterns have equal numbers."""
    xp = array_namespace(data.X)
    u = backend.split(u, 1)
    return xp.sum(xp.where(data.X @ u > 0, random[:, None], xp.zeros((), dtype=random.dtype)), axis=0)


def to_weights(
    neurons: Neurons, z: Float[np.ndarray, "k c"], scale: Float[np.ndarray, "d 1"] | None = None
) -> Float[np.ndarray, " p"]:
    """W / scale and A, with |w_j| = |a_j|, and z, in one vector."""
    root = np.sqrt(neurons.s)
    u = neurons.u if scale is None else neurons.u / scale
    return np.concatenate([(u * root).ravel(), (neurons.a * root).ravel(), z.ravel()])


def from_weights(
    x: Float[np.ndarray, " p"], d: int, c: int, k: int, scale: Float[np.ndarray, "d 1"] | None = None
) -> tuple[Neurons, Float[np.ndarray, "k c"]]:
    """Directions and magnitudes, and z, of what `to_weights` makes; dead neurons dropped."""
    x = x.astype(np.float64)
    layers, z = x[: x.size - k * c].reshape(d + c, -1), x[x.size - k * c :].reshape(k, c)
    W, A = layers[:d], layers[d:]
    W = W if scale is None else scale * W
    inner, outer = np.linalg.norm(W, axis=0), np.linalg.norm(A, axis=0)
    s = inner * outer
    alive = s > 1e-10 * s.max(initial=0.0)
    return Neurons(W[:, alive] / inner[alive], A[:, alive] / outer[alive], s[alive]), z


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


def reduce_count(neurons: Neurons, X: Float[np.ndarray, "n d"], deadline: float = np.inf) -> Neurons:
    """At most n c + 1 neurons, the same predictions and penalty (Caratheodory), by null vectors of their columns.

    The null space of up to 2 (n c + 1) columns is taken at once, by one QR decomposition, O((n c)^3). Along each of its
    vectors one magnitude falls to zero first; a reflection then gathers the row of that neuron in one vector, which is
    dropped, so that the others stay orthonormal, O(n c) each. More neurons are left where the deadline (of
    `time.perf_counter`) has passed before a decomposition of more than `QUICK` flops.
    """
    n, c = X.shape[0], neurons.a.shape[0]
    rows = n * c + 1
    while neurons.width > rows:
        some = np.arange(min(neurons.width, 2 * rows))
        if float(len(some)) ** 3 > QUICK and time.perf_counter() > deadline:
            break
        hidden = np.maximum(X @ neurons.u[:, some], 0.0)
        columns = (hidden[:, None, :] * neurons.a[None, :, some]).reshape(n * c, -1)
        columns /= power_of_two(columns)  # of the size of the row that keeps the penalty
        null = np.linalg.qr(np.concatenate([columns, np.ones((1, len(some)))]).T, mode="complete")[0][:, rows:]
        s = neurons.s[some]
        while null.shape[1] > 0:
            step = null[:, 0] if null[:, 0].max() > 0 else -null[:, 0]
            ratio = np.where(step > 0, s / np.where(step > 0, step, 1.0), np.inf)
            leaving = int(np.argmin(ratio))
            s = np.maximum(s - ratio[leaving] * step, 0.0)
            s[leaving] = 0.0
            null = _without_row(null, leaving)
        neurons = Neurons(neurons.u, neurons.a, np.concatenate([s, neurons.s[len(some) :]])).take(
            np.r_[s > 0, np.ones(neurons.width - len(some), dtype=bool)]
        )
    return neurons


def _without_row(basis: Float[np.ndarray, "m k"], row: int) -> Float[np.ndarray, "m j"]:
    """An orthonormal basis of the vectors in the span of another that are zero in this row, j = k - 1."""
    mirror = basis[row].copy()
    mirror[0] += np.copysign(np.linalg.norm(mirror), mirror[0])
    mirror /= np.linalg.norm(mirror)
    basis = basis[:, 1:] - 2.0 * np.outer(basis @ mirror, mirror[1:])
    basis[row] = 0.0
    return basis
