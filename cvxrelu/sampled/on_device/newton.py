"""Semismooth Newton on the sampled program with all products of n rows on a device.

The method is that of `semismooth`: proximal points in the blocks, Newton steps in the prediction. The host decides and
keeps vectors of m numbers, blocks (d, B) and the small algebra of faces; X, the patterns and the loss lie on the device
in float64, where F^T R^T t, R F U, the columns of the Newton matrix with its Gram matrix and step, and the search for
violated rows (`on_device.cones`) are computed. An evaluation moves some m + d B numbers between the two.

Numbers of columns change from call to call and are padded with zeros to few sizes where shapes are compiled in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cvxrelu.backends.base import Backend
from cvxrelu.program.operators import F1_adjoint
from cvxrelu.program.readout import adjoint, read
from cvxrelu.sampled.newton_program import NewtonProgram
from cvxrelu.sampled.newton_start import gates_of
from cvxrelu.sampled.on_device.cones import DeviceCones
from cvxrelu.sampled.semismooth import SampledNewton

__all__ = ["DeviceNewton", "DeviceProgram"]


class DeviceProgram(NewtonProgram):
    """The same program, its two operators on the device."""

    backend: Backend
    placed: tuple[Any, ...]  # X, patterns, loss, readout and the skip's columns over sqrt(l2), on the device

    @classmethod
    def place_on(cls, backend: Backend, program: NewtonProgram, placed: tuple[Any, Any]) -> DeviceProgram:
        """A program whose X and patterns are on the device already."""
        there = cls(*program)
        columns = None if program.ridge is None else program.ridge.columns / np.sqrt(program.ridge.l2)
        there.backend = backend
        there.placed = (*placed, *backend.put((program.loss, program.readout, columns)))
        return there

    def pull(self, t: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "d B"]:
        """F^T R^T t."""
        X, M, _, readout, _ = self.placed
        half = self.backend.get(self.backend.compile(_pull)(self.backend, X, M, readout, self.backend.put(t)))
        return np.concatenate([half, -half], axis=2).reshape(half.shape[0], -1)  # by outputs, v before z

    def neurons(self, blocks: Float[np.ndarray, "d B"]) -> Float[np.ndarray, "m c"]:
        """R F U."""
        used = np.flatnonzero(blocks.any(axis=0))
        pattern, output, sign = self.place(used)
        second = sign[:, None] * np.eye(self.loss.y.shape[1])[output]
        missing = self.backend.padded(used.size) - used.size
        inputs = self.backend.put(
            (_padded(blocks[:, used], missing, 1), _padded(pattern, missing, 0), _padded(second, missing, 0))
        )
        X, M, _, readout, _ = self.placed
        return self.backend.get(self.backend.compile(_neurons)(self.backend, X, M, readout, *inputs))


class DeviceNewton(SampledNewton):
    """`SampledNewton` with a program and cones on a device.

    backend : of the device. placed : X and patterns there, X in float64, where they are there already. The other
    arguments are those of `SampledNewton`.
    """

    program: DeviceProgram

    def __init__(
        self, backend: Backend, X: Float[np.ndarray, "n d"], patterns: Bool[np.ndarray, "n P"], gates: Any, loss: Any,
        *, placed: tuple[Any, Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.backend = backend
        self.placed = backend.put((X, patterns)) if placed is None else placed
        gates = gates_of(X, patterns) if gates is None else gates
        if options.get("memory") is None:
            options["memory"] = DeviceCones(backend, X, patterns, gates, 2 * loss.y.shape[1])
        super().__init__(X, patterns, gates, loss, **options)

    def _start(self, patterns: np.ndarray, gates: np.ndarray) -> None:
        self.program = DeviceProgram.place_on(self.backend, self.program, self.placed)
        super()._start(patterns, gates)

    def _direction(self, now: Any, gradient: np.ndarray) -> Float[np.ndarray, "m c"]:
        """The Newton step in a, by the Woodbury identity."""
        program, backend = self.program, self.backend
        directions, pattern, output = self._roots(now)
        if pattern.size == 0 and program.ridge is None:
            return gradient
        missing, second = backend.padded(pattern.size) - pattern.size, np.eye(gradient.shape[1])[:, output]
        columns = (_padded(directions, missing, 1), _padded(pattern, missing, 0), _padded(second, missing, 1))
        inputs = backend.put((*columns, now.a, gradient))
        step = backend.get(backend.compile(_newton_step)(backend, *program.placed, *inputs))
        return step if np.isfinite(step).all() else super()._direction(now, gradient)


def _padded(array: np.ndarray, missing: int, axis: int) -> np.ndarray:
    """Zeros appended along an axis."""
    return np.pad(array, [(0, missing if k == axis else 0) for k in range(array.ndim)])


def _pull(backend: Backend, X: Any, M: Any, readout: Any, t: Any) -> Any:
    """X^T (M_i * p) for every pattern, p = R^T t: (d, c, P)."""
    return F1_adjoint(X, M, adjoint(readout, t))


def _columns(backend: Backend, X: Any, M: Any, inner: Any, patterns: Any) -> Any:
    """M_i * X v of vectors v, the columns of `inner`, and their patterns i."""
    xp = backend.xp
    return (X @ inner) * xp.astype(xp.take(M, patterns, axis=1), X.dtype)


def _neurons(backend: Backend, X: Any, M: Any, readout: Any, blocks: Any, patterns: Any, second: Any) -> Any:
    """R F U of some blocks, `second` (b, c) their signs in their outputs."""
    return read(readout, _columns(backend, X, M, blocks, patterns) @ second)


def _newton_step(
    backend: Backend, X: Any, M: Any, loss: Any, readout: Any, skip: Any, inner: Any, patterns: Any, second: Any,
    a: Any, gradient: Any,
) -> Any:  # fmt: skip
    """W (I + W^T D W)^-1 W^T D g - g with the sign of a step, D the Hessian of the loss at a."""
    xp = backend.xp
    W, c = read(readout, _columns(backend, X, M, inner, patterns)), gradient.shape[1]
    if skip is not None:
        identity = xp.eye(c, dtype=X.dtype)
        W = xp.concat([W] + [skip] * c, axis=1)
        second = xp.concat([second, xp.repeat(identity, skip.shape[1], axis=1)], axis=1)
    G = loss.gram(a, W, second) + xp.eye(W.shape[1], dtype=X.dtype)
    right = xp.sum((loss.hessian_product(a, gradient).T @ W) * second, axis=0)
    return gradient - (W * xp.linalg.solve(G, right[:, None]).T) @ second.T
