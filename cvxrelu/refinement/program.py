"""The network program on the device: its objective, and the steps that lower it with the neurons that there are.

weigh    the non-negative lasso over all magnitudes, solved exactly: neurons of no use get zero
merge    neurons with the same activation pattern are one neuron, with no larger a penalty
descend  L-BFGS on balanced weights
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cvxrelu.backends.base import Backend
from cvxrelu.certificates.coordinates import Coordinates
from cvxrelu.certificates.search_space import Ground
from cvxrelu.numerics import lbfgs
from cvxrelu.numerics.lasso import nonnegative_quadratic
from cvxrelu.numerics.semidefinite import semidefinite_solver
from cvxrelu.program.problem import Problem
from cvxrelu.program.skip import settle, shorter
from cvxrelu.refinement import neurons
from cvxrelu.refinement.neurons import Neurons, Terms

__all__ = ["DESCENT", "NetworkProgram"]

DESCENT = 20  # L-BFGS steps a round
CHUNK_FLOPS = 1e10  # of descent between two looks at the clock
NEWTON = 8  # steps to weigh with a loss that is not quadratic


class NetworkProgram:
    """Data on the device, in float64 and in the working precision; neurons and z come from the host and go there.

    coordinates : those in which directions are searched. ground : their rows on the device, in dtype. dtype : "float32"
        or "float64", of descent. tol : relative gap asked for. rng : of the numbers by which activation
        patterns are told apart.
    """

    def __init__(
        self, problem: Problem, backend: Backend, *, coordinates: Coordinates, ground: Ground, dtype: str, tol: float,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.problem, self.backend, self.coordinates, self.dtype, self.tol = problem, backend, coordinates, dtype, tol
        self.loss, self.beta, self.X = problem.loss, problem.beta, coordinates.rows
        # An excess of the price is about the root of one of the objective, the more so the less alike columns are.
        self.little = 1e-3 if coordinates.sizes is None else 1e-5
        self.skip = problem.whitened_skip
        columns, ridge = (None, None) if self.skip is None else self.skip[:2]
        with_rows = (problem.loss, problem.readout, columns)

        def terms(X: Any, dtype: str) -> Terms:
            loss, readout, placed = backend.put(with_rows, dtype, rows=0)
            beta, weights = backend.put((np.asarray(problem.beta), ridge), dtype)
            return Terms(X, loss, beta, readout, placed, weights)

        self.exact = terms(ground.exact_X, "float64")
        self.terms = self.exact if dtype == "float64" else terms(ground.X, dtype)
        self.key_weights = backend.put(rng.standard_normal(self.X.shape[0]), rows=0)

    def nothing(self) -> tuple[Neurons, np.ndarray]:
        """No neurons, and a skip of zero."""
        c = self.problem.n_outputs
        z = np.zeros((0 if self.skip is None else self.skip.columns.shape[1], c))
        return Neurons(np.zeros((self.X.shape[1], 0)), np.zeros((c, 0)), np.zeros(0)), z

    def weigh(self, given: Neurons, z: np.ndarray, deadline: float = np.inf) -> tuple[Neurons, np.ndarray]:
        """The magnitudes and z that minimise the objective with directions fixed; neurons without any are dropped.

        What is reached at the deadline is returned, no higher than what was given.
        One quadratic program for the squared loss; for others proximal Newton steps, each such a program.
        """
        if given.width == 0:
            return given, z
        s, m, size = given.s, given.width, self.backend.padded(given.width)
        for _ in range(1 if self.loss.is_quadratic else NEWTON):
            if time.perf_counter() > deadline:
                break
            at = Neurons(given.u, given.a, s)
            gram, slope = self._on_device(neurons.moments, self.exact, *at.padded(size), z)
            keep = np.r_[:m, size : len(slope)]
            gram, slope = gram[np.ix_(keep, keep)].astype(np.float64), slope[keep].astype(np.float64)
            slope[:m] -= self.beta
            now = np.concatenate([s, z.ravel()])
            step = _quadratic_step(gram, slope, now, m, deadline) - now
            if self.loss.is_quadratic:
                now = now + step
                s, z = np.maximum(now[:m], 0.0), now[m:].reshape(z.shape)
                break
            value, prediction = self._objective(at, self._predict(at), z)
            promised = float(slope @ step)
            if promised <= self.little * self.tol * value:
                break
            to, to_z = Neurons(given.u, given.a, np.maximum((now + step)[:m], 0.0)), (now + step)[m:].reshape(z.shape)
            reached, there = self._objective(to, self._predict(to), to_z)
            length = 1.0
            if not reached <= value - 0.1 * promised:
                length = shorter(
                    self.loss, prediction, there - prediction, self._penalty_along(s, z, to.s, to_z), promised
                )
            if length == 0.0:
                break
            s, z = s + length * (to.s - s), z + length * (to_z - z)
        return Neurons(given.u, given.a, s).take(s > 0), z

    def merge(self, given: Neurons) -> Neurons:
        if given.width < 2:
            return given
        padded = given.padded(self.backend.padded(given.width))
        key = self.backend.compile(neurons.keys)(self.backend, self.exact, self.backend.put(padded.u), self.key_weights)
        return neurons.merge(given, self.backend.get(key)[: given.width])

    def descend(self, given: Neurons, z: np.ndarray, deadline: float) -> tuple[Neurons, np.ndarray]:
        """L-BFGS on balanced weights and the skip."""
        if given.width == 0:
            return given, z
        backend, terms = self.backend, self.terms
        size = backend.padded(given.width)
        unit = 1.0
        if self.skip is not None:  # z about as curved as the first layer
            curvature = float(np.mean(given.s)) * float(np.mean(self.loss.curvature)) * float(np.sum(self.X**2))
            unit = np.sqrt(curvature / self.X.shape[1])
            terms = terms._replace(unit=backend.put(np.asarray(unit), self.dtype))
        scale = self._first_layer_scale(given)
        if scale is not None:
            placed = backend.put(scale, self.dtype)
            terms = terms._replace(X=terms.X * placed.T, scale=placed)
        x = backend.put(neurons.to_weights(given.padded(size), z / unit, scale), self.dtype)
        start = backend.compile(lbfgs.start, ("objective",))
        run = backend.compile(lbfgs.run, ("objective",), donate=("state",))
        objective = neurons.Balanced(backend)
        at = start(backend, terms, x, objective=objective)
        flops = 6.0 * self.X.size * size
        steps = int(max(1, min(DESCENT, CHUNK_FLOPS // flops)))
        for _ in range(-(-DESCENT // steps)):
            at = run(backend, terms, at, steps, objective=objective)
            if time.perf_counter() > deadline:
                break
        moved, w = neurons.from_weights(backend.get(at.x), self.X.shape[1], z.shape[1], z.shape[0], scale)
        return moved, unit * w

    def _first_layer_scale(self, given: Neurons) -> np.ndarray | None:
        """(d, 1), in units of which the objective is about equally curved in all of a balanced first layer.

        None where the columns are alike. |a_j|^2 = s_j: the loss has the curvature mean(s) curvature |X_k|^2 in column
        k, the penalty adds beta; the second layer is curved as hidden units are long.
        """
        sizes = self.coordinates.sizes
        if sizes is None:
            return None
        curvature = float(np.mean(self.loss.curvature)) * float(np.mean(given.s))
        hidden = float(np.mean(np.sum((self.X @ given.u) ** 2, axis=0)))
        return np.sqrt((curvature * hidden + self.beta) / (curvature * sizes**2 + self.beta))[:, None]

    # -- the device -------------------------------------------------------------------------------------------
    def evaluate(self, given: Neurons, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(objective, dual variable, z) in float64, with the best z there is beside these neurons."""
        base = self._predict(given)
        if self.skip is not None:
            z = settle(self.loss, self.skip, base, z)
        objective, prediction = self._objective(given, base, z)
        return objective, self.loss.dual(prediction), z

    def _penalty_along(self, s: np.ndarray, z: np.ndarray, to: np.ndarray, to_z: np.ndarray) -> tuple[float, float]:
        """The derivative of the penalty on the way from (s, z), and how it grows."""
        slope, growth = self.beta * float(np.sum(to - s)), 0.0
        if self.skip is not None:
            ridge = self.skip.ridge[:, None] * (to_z - z)
            slope, growth = slope + float(np.sum(ridge * z)), float(np.sum(ridge * (to_z - z)))
        return slope, growth

    def _predict(self, given: Neurons) -> np.ndarray:
        return self._on_device(neurons.predict, self.exact, *given.padded(self.backend.padded(given.width)))

    def _objective(self, given: Neurons, base: np.ndarray, z: np.ndarray) -> tuple[float, np.ndarray]:
        """(objective, prediction)"""
        penalty = self.beta * float(np.sum(given.s))
        if self.skip is not None and self.problem.skip is not None:
            base = base + self.skip.columns @ z
            penalty += self.problem.skip.constant + 0.5 * float(np.sum(self.skip.ridge[:, None] * z * z))
        return float(self.loss.value(base)) + penalty, base

    def _on_device(self, fn: Callable, terms: Terms, *arrays: np.ndarray) -> Any:
        dtype = "float64" if terms is self.exact else self.dtype
        return self.backend.get(self.backend.compile(fn)(self.backend, terms, *self.backend.put(arrays, dtype)))


def _quadratic_step(H: np.ndarray, slope: np.ndarray, now: np.ndarray, m: int, deadline: float) -> np.ndarray:
    """The minimiser of the quadratic model at `now` with Hessian H and minus the gradient `slope`, first m >= 0."""
    b = H @ now + slope
    if now.size == m:
        return nonnegative_quadratic(H, b, now, deadline)
    # Far out hardly more than the ridge of a skip is left, of any size; rounding then decides what is positive.
    solved = semidefinite_solver(H[m:, m:])(np.column_stack([H[m:, :m], b[m:]]))
    of_s, b_s = H[:m, :m] - H[:m, m:] @ solved[:, :m], b[:m] - H[:m, m:] @ solved[:, m]
    s = nonnegative_quadratic(of_s, b_s, now[:m], deadline)
    return np.concatenate([s, solved[:, m] - solved[:, :m] @ s])
