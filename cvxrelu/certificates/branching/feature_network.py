"""The network that is best among features between limits: its dual variable gives the next t of a search over boxes.

A box of directions allows features z with z_lo <= z <= z_hi, the same limits for every point of its moment matrices
(`moment_bounds`); a neuron u has z_lo = z_hi = (X u)_+. Of K such columns k, each of sign s_k = +-1,

    minimise over c >= 0   sum_i min over f_i in [lo_i, hi_i] of loss_i(f_i) + beta sum_k c_k,

    lo = sum_+ c_k z_lo,k - sum_- c_k z_hi,k,    hi with the limits exchanged,

is a convex program, minimised by L-BFGS, and t = min(t(lo), 0) + max(t(hi), 0) its dual variable, with t(f) minus the
derivative of the loss. The best bound that the boxes can prove is the same program over all of their columns, which are
generated where the bound of a box at t exceeds beta. Nothing here is rigorous, and nothing has to be.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.certificates.relaxed_network import least_loss
from cvxrelu.program.loss import Loss

__all__ = ["Columns", "feature_network"]

TINY = 1e-300


class Columns(NamedTuple):
    """Limits of features, their signs, the boxes that they are of (-1: a neuron, of any), and their weights."""

    low: Float[np.ndarray, "K n"]
    high: Float[np.ndarray, "K n"]
    signs: Float[np.ndarray, " K"]
    owners: Int[np.ndarray, " K"]
    weights: Float[np.ndarray, " K"]

    def of(self, which: np.ndarray) -> Columns:
        return Columns(*(part[which] for part in self))

    def joined(self, other: Columns) -> Columns:
        return Columns(*(np.concatenate(parts) for parts in zip(self, other, strict=True)))


def feature_network(
    loss: Loss, beta: float, columns: Columns, *, max_iter: int, deadline: float = np.inf
) -> tuple[Float[np.ndarray, "n 1"], Float[np.ndarray, " K"], float]:
    """(t, weights, value), up to what `max_iter` L-BFGS iterations from the weights at hand leave.

    loss : separable, of one output. Cost of an iteration: O(n K).
    """
    from scipy.optimize import minimize

    n = columns.low.shape[1]
    nothing = np.zeros((n, 1))
    if len(columns.weights) == 0:
        return loss.dual(nothing), columns.weights, float(loss.value(nothing))
    positive = (columns.signs > 0)[:, None]
    scale = 1.0 / np.maximum(np.linalg.norm(columns.high, axis=1), TINY)[:, None]
    least = scale * np.where(positive, columns.low, -columns.high)
    most = scale * np.where(positive, columns.high, -columns.low)
    price, size = beta * scale[:, 0], max(float(loss.value(nothing)), TINY)

    def parts(c: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        lo, hi = (c @ least)[:, None], (c @ most)[:, None]
        at_lo, at_hi = loss.dual(lo), loss.dual(hi)
        value = float(loss.value(least_loss(lo, hi, at_lo, at_hi))) + float(price @ c)
        return value, np.minimum(at_lo, 0.0)[:, 0], np.maximum(at_hi, 0.0)[:, 0]

    def scaled(c: np.ndarray) -> tuple[float, np.ndarray]:
        value, low, high = parts(c)
        return value / size, (price - least @ low - most @ high) / size

    def on_time(_: np.ndarray) -> None:
        if time.perf_counter() > deadline:
            raise StopIteration

    # L-BFGS in units of the norm that a weight of the loss alone would have.
    options = {"maxiter": max_iter, "maxcor": 20, "gtol": 1e-10, "ftol": 1e-11}
    found = minimize(
        scaled, columns.weights / scale[:, 0], method="L-BFGS-B", jac=True, bounds=[(0.0, None)] * len(scale),
        options=options, callback=on_time,
    )  # fmt: skip
    value, low, high = parts(found.x)
    return (low + high)[:, None], found.x * scale[:, 0], value
