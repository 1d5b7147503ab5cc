"""The network that is best for bounds over cones: its dual variable gives the best lower bound that they can prove.

With the limits of `cones`, a neuron of direction u = sum_j a_j v_j in cone k has features z between

    (x_i u)_+  <=  z_i  <=  sum_j a_j (x_i v_j)_+,

and the bound over the cone is the largest p^T z. Replacing all neurons by such features, one point a_k >= 0 for each
cone k of sign s_k = +-1, gives

    minimise over a >= 0   sum_i min over f_i in [lo_i, hi_i] of loss_i(f_i) + beta sum_k |V_k^T a_k|,

    lo_i = sum_+ (x_i u_k)_+ - sum_- sum_j a_kj (x_i v_kj)_+,    hi_i with the limits exchanged,

a convex program whose dual is the best of all D(t) with the bounds over all cones at most beta. It is minimised by
L-BFGS over the cones that may matter. With t(f) minus the derivative of the loss, the interval leaves
t = min(t(lo), 0) + max(t(hi), 0). Nothing here is rigorous, and nothing has to be: any t gives a bound.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.certificates.relaxed_network import least_loss
from cvxrelu.program.loss import Loss

__all__ = ["ConeNetwork", "cone_network"]

SMOOTH = 1e-7  # of the size of a prediction, where norms are smoothed
NEGLIGIBLE = 1e-5  # of the largest neuron
TINY = 1e-300


class ConeNetwork(NamedTuple):
    """points a_k, those of no use zero; t; the value, which no bound over these cones exceeds once it is minimal.

    excess (K,) : what the secants of each cone take off the loss.
    """

    points: Float[np.ndarray, "K r"]
    t: Float[np.ndarray, "n 1"]
    value: float
    excess: Float[np.ndarray, " K"]


def cone_network(
    loss: Loss,
    X: Float[np.ndarray, "n r"],
    beta: float,
    vertices: Float[np.ndarray, "K r r"],
    signs: Float[np.ndarray, " K"],
    start: Float[np.ndarray, "K r"],
    *,
    max_iter: int,
    deadline: float = np.inf,
) -> ConeNetwork:
    """The program over these cones, from points a >= 0, up to what `max_iter` L-BFGS iterations leave.

    loss : separable, of one output. signs : all of +1, then all of -1. Cost of an iteration: O(n K r); memory as much.
    """
    from scipy.optimize import minimize

    program = _Program(loss, X, beta, vertices, signs)
    size = max(float(loss.value(np.zeros((len(X), 1)))), TINY)
    unit = size / beta / max(np.sqrt(len(vertices)), 1.0)

    def scaled(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = program.evaluate(unit * flat.reshape(start.shape))
        return value / size, gradient.ravel() * (unit / size)

    def on_time(_: np.ndarray) -> None:
        if time.perf_counter() > deadline:
            raise StopIteration

    options = {"maxiter": max_iter, "maxcor": 20, "gtol": 1e-10, "ftol": 1e-10}
    found = minimize(
        scaled, start.ravel() / unit, method="L-BFGS-B", jac=True, bounds=[(0.0, None)] * start.size, options=options,
        callback=on_time,
    )  # fmt: skip
    points = unit * found.x.reshape(start.shape)
    value, _ = program.evaluate(points)
    t, excess = program.t.astype(np.float64), program.excess(points)
    norms = np.linalg.norm((points[:, None] @ vertices)[:, 0], axis=1)
    points[norms <= NEGLIGIBLE * norms.max(initial=0.0)] = 0.0
    return ConeNetwork(points, t[:, None], value, excess)


class _Program:
    """In single precision where arrays are large."""

    def __init__(self, loss: Loss, X: np.ndarray, beta: float, vertices: np.ndarray, signs: np.ndarray) -> None:
        self.loss, self.beta, self.vertices = loss, beta, vertices
        self.X = X.astype(np.float32)
        self.k, self.r = int(np.sum(signs > 0)), X.shape[1]  # cones of positive sign come first
        self.hidden = np.maximum(vertices.reshape(-1, self.r).astype(np.float32) @ self.X.T, np.float32(0))  # (K r, n)
        self.smooth = SMOOTH * float(loss.value(np.zeros((len(X), 1)))) / beta

    def evaluate(self, a: Float[np.ndarray, "K r"]) -> tuple[float, np.ndarray]:
        """(objective, gradient) at a; leaves t and its two parts behind."""
        loss, k, first = self.loss, self.k, self.k * self.r
        u = (a[:, None] @ self.vertices)[:, 0]
        flat, hidden = a.ravel().astype(np.float32), self.hidden
        least = u.astype(np.float32) @ self.X.T
        active = least > 0
        least *= active
        up, down = flat[:first] @ hidden[:first], flat[first:] @ hidden[first:]
        ones = np.ones(len(a), dtype=np.float32)
        lo = (ones[:k] @ least[:k] - down).astype(np.float64)[:, None]
        hi = (up - ones[k:] @ least[k:]).astype(np.float64)[:, None]
        at_lo, at_hi = loss.dual(lo), loss.dual(hi)
        low, high = np.minimum(at_lo, 0.0), np.maximum(at_hi, 0.0)
        norms = np.sqrt(np.sum(u * u, axis=1) + self.smooth**2)
        value = float(loss.value(least_loss(lo, hi, at_lo, at_hi))) + self.beta * float(norms.sum())
        self.low, self.high, self.t = (v[:, 0].astype(np.float32) for v in (low, high, low + high))

        # d value / d lo = -low, d value / d hi = -high.
        of_a = np.concatenate([-(hidden[:first] @ self.high), hidden[first:] @ self.low]).astype(np.float64)
        of_u = np.concatenate(
            [-(active[:k] @ (self.low[:, None] * self.X)), active[k:] @ (self.high[:, None] * self.X)]
        )
        of_u = of_u + self.beta * u / norms[:, None]
        return value, of_a.reshape(a.shape) + (self.vertices @ of_u[:, :, None])[:, :, 0]

    def excess(self, a: Float[np.ndarray, "K r"]) -> Float[np.ndarray, " K"]:
        """How much of p^T z is the secants' excess over (X u)_+, for every cone, at the point just evaluated."""
        first = self.k * self.r
        u = (a[:, None] @ self.vertices)[:, 0].astype(np.float32)
        hidden = np.maximum(u @ self.X.T, np.float32(0))
        at_points = np.concatenate([hidden[: self.k] @ self.high, -(hidden[self.k :] @ self.low)])
        at_vertices = np.concatenate([self.hidden[:first] @ self.high, -(self.hidden[first:] @ self.low)])
        return np.sum(a * at_vertices.reshape(a.shape), axis=1) - at_points
