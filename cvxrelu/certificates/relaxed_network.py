"""The network that is best for the relaxation of the price: its dual variable gives the best relaxed lower bound.

The relaxation (`relaxation`) lets the price act on features z between limits instead of on (X u)_+. For a moment matrix

    [U  u; u^T  theta] = sum_k (g_k; h_k) (g_k; h_k)^T >= 0,      trace U = theta,

    1/2 (x_i u + max(|x_i u|, |U x_i|)) <= z_i <= 1/2 (x_i u + sqrt(theta x_i U x_i)),

and every network sum_j (x w_j)_+ a_j has such features. Replacing it by one group of these per output and sign gives

    minimise over g, h   sum_i min over the interval of f_i of loss_i(f_i) + beta |(theta_k+ + theta_k-)_k|_2,

a convex program whose dual is the best of all D(t) with relaxed price(t) <= beta. In the factors (g, h), of which some
thirty are enough in practice (with half as many, runs ended 3 % above the optimum at d = 50), it is minimised by L-BFGS
(Burer & Monteiro, "A nonlinear programming algorithm for solving semidefinite programs via low-rank factorization",
2003), theta replaced by 1/2 (|g|^2 + |h|^2). With t(f) = minus the derivative of the loss at f, the interval [lo, hi]
leaves t = min(t(lo), 0) + max(t(hi), 0): zero where the loss has its minimum inside. For large X, where it takes too
many iterations, |U x_i| is replaced by x_i U x_i / |x_i|, which is no more. Nothing here is rigorous, nor has to
be: any t gives a bound.
"""

from __future__ import annotations

import time
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float

from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.loss import Loss
from cvxrelu.program.losses import Squared

__all__ = ["RelaxedNetwork", "least_loss", "relaxed_network"]

FACTORS, FEW_FACTORS = 32, 16
LARGE = 1_000_000  # entries of X beyond which there are fewer factors, and no |U x|
START = 0.1  # regularisation of the first point, relative to the loss of zero
TINY = 1e-150


class RelaxedNetwork(NamedTuple):
    """t (n, c) at the optimum, and the factors (g; h) there, (d + 1, 2, c, k), of both signs of every output."""

    t: np.ndarray
    factors: np.ndarray


def relaxed_network(
    loss: Loss,
    X: Float[np.ndarray, "n d"],
    n_outputs: int,
    beta: float,
    *,
    max_iter: int = 200,
    deadline: float = np.inf,
) -> RelaxedNetwork:
    """The optimum of the relaxed network program, up to what `max_iter` L-BFGS iterations leave.

    loss : separable over rows and outputs, with `value` and `dual`. X : (n, d) float64. Cost of an iteration:
    O(n d c min(d + 1, 32)).
    """
    from scipy.optimize import minimize

    used = np.any(X != 0, axis=1)
    if not used.any():
        return RelaxedNetwork(loss.dual(np.zeros((len(X), n_outputs))), np.zeros((X.shape[1] + 1, 2, n_outputs, 1)))
    # The objective has kinks, and where a run ends among them is decided by the last bits of its data. These are
    # taken in units of their own and to forty bits, so that the units in which they were given have no say.
    unit, size_of_y = float(np.linalg.norm(X)), float(np.linalg.norm(loss.y)) if loss.is_quadratic else 0.0
    if size_of_y > 0:
        loss = cast("Squared", loss)._replace(y=_to_forty_bits(loss.y / size_of_y))
    factor = size_of_y if size_of_y > 0 else 1.0
    beta = float(_to_forty_bits(np.array([beta / unit / factor]))[0])
    space = row_space(_to_forty_bits(X / unit))
    program = _Program(loss, space.rows, n_outputs, beta)
    r = program.X.shape[1]
    factors = min(r + 1, FEW_FACTORS if program.large else FACTORS)
    z = np.random.default_rng(0).standard_normal((r + 1, 2, n_outputs, factors))
    size = max(abs(program.evaluate(0.0 * z)[0]), TINY)
    z *= np.sqrt(START * size / (program.beta * np.sum(z * z)))  # zero is a saddle point
    spread = np.sqrt(np.mean(z * z))

    def scaled(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient, _ = program.evaluate(spread * flat.reshape(z.shape))
        return value / size, gradient.ravel() * (spread / size)

    def on_time(_: np.ndarray) -> None:
        if time.perf_counter() > deadline:
            raise StopIteration

    options = {"maxiter": max_iter, "maxcor": 20, "gtol": 1e-9, "ftol": 1e-9}
    found = minimize(scaled, z.ravel() / spread, method="L-BFGS-B", jac=True, options=options, callback=on_time)
    z = spread * found.x.reshape(z.shape)
    in_columns = np.concatenate([np.tensordot(space.basis, z[:-1], axes=1), z[-1:]])
    return RelaxedNetwork(factor * program.evaluate(z)[2], in_columns)


def _to_forty_bits(a: np.ndarray) -> np.ndarray:
    """Every number rounded to 40 bits of its own."""
    mantissa, exponent = np.frexp(a)
    return np.ldexp(np.round(mantissa * 2.0**40), exponent - 40)


class _Program:
    def __init__(self, loss: Loss, X: np.ndarray, n_outputs: int, beta: float) -> None:
        self.loss, self.X, self.beta = loss, X, beta
        self.large = X.size > LARGE
        self.lengths = np.maximum(np.linalg.norm(X, axis=1), TINY)[:, None, None]

    def evaluate(self, z: Float[np.ndarray, "rows 2 c k"]) -> tuple[float, np.ndarray, np.ndarray]:
        """(objective, gradient, t) at the factors z = (g, h); axis 1 holds the two signs."""
        X, loss = self.X, self.loss
        g, h = z[:-1], z[-1]
        Xg = np.tensordot(X, g, axes=1)
        moment, along = np.sum(Xg * Xg, axis=-1), np.sum(Xg * h, axis=-1)  # x U x and x u, (n, 2, c)
        theta, trace = np.sum(h * h, axis=-1) + TINY, np.sum(g * g, axis=(0, -1)) + TINY  # (2, c)
        widest = np.sqrt(theta * moment + TINY)
        ratio = np.sqrt(theta / trace)  # of theta to the trace, after which U is scaled to have theta's
        if self.large:
            slope = ratio / self.lengths
            curved, moved = slope * moment, Xg
        else:  # |U x|, of U = g g^T, in as many columns as g has
            gram = np.einsum("rsck,rscl->sckl", g, g)
            moved = np.moveaxis(np.moveaxis(Xg, 0, -2) @ gram, -2, 0)  # g^T U x, (n, 2, c, k)
            length = np.sqrt(np.maximum(np.sum(moved * Xg, axis=-1), 0.0)) + TINY
            curved, slope = length * ratio, ratio / length
        narrowest = np.maximum(np.abs(along), curved)
        least, most = 0.5 * (along + narrowest), 0.5 * (along + widest)
        lo, hi = least[:, 0] - most[:, 1], most[:, 0] - least[:, 1]
        at_lo, at_hi = loss.dual(lo), loss.dual(hi)
        low, high = np.minimum(at_lo, 0.0), np.maximum(at_hi, 0.0)
        cost = 0.5 * np.sum(theta + trace, axis=0)
        norm = np.linalg.norm(cost)
        value = float(loss.value(least_loss(lo, hi, at_lo, at_hi)) + self.beta * norm)

        # Backwards: d value / d lo = -low, d value / d hi = -high; sign - has least and most exchanged.
        of_least = np.stack([-low, high], axis=1)
        of_most = np.stack([-high, low], axis=1)
        bent = curved > np.abs(along)
        of_along = 0.5 * (of_least + of_most) + np.where(bent, 0.0, 0.5 * of_least * np.sign(along))
        of_curved = np.where(bent, 0.5 * of_least, 0.0)
        of_widest = 0.5 * of_most / widest
        of_moment = 0.5 * of_widest * theta
        of_square = (of_curved * slope)[..., None]  # of |U x|^2, twice; of x U x where X is large
        weight = self.beta * cost / norm
        pull = 0.5 * np.sum(of_curved * curved, axis=0)
        of_theta = 0.5 * np.sum(of_widest * moment, axis=0) + pull / theta + 0.5 * weight
        of_trace = 0.5 * weight - pull / trace
        of_Xg = 2.0 * of_moment[..., None] * Xg + of_along[..., None] * h + (1 + self.large) * of_square * moved
        of_g = np.tensordot(X.T, of_Xg, axes=1) + 2.0 * of_trace[..., None] * g
        if not self.large:
            of_g += np.einsum("rsck,sckl->rscl", g, np.einsum("nsck,nscl->sckl", of_square * Xg, Xg, optimize=True))
        of_h = np.sum(of_along[..., None] * Xg, axis=0) + 2.0 * of_theta[..., None] * h
        return value, np.concatenate([of_g, of_h[None]]), low + high


def least_loss(lo: np.ndarray, hi: np.ndarray, at_lo: np.ndarray, at_hi: np.ndarray) -> np.ndarray:
    """Where in [lo, hi] a convex loss is least; inside by a secant of t, exact for the squared loss."""
    inside = (at_lo > 0) & (at_hi < 0)
    share = at_lo / np.where(inside, at_lo - at_hi, 1.0)
    return np.where(inside, lo + np.where(inside, share, 0.0) * (hi - lo), np.where(at_lo <= 0, lo, hi))
