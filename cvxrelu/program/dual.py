"""The dual program: what a dual variable t proves, and how it is pulled back to the rows of X."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from jaxtyping import Float

from cvxrelu.numerics.proximal import block_norms
from cvxrelu.numerics.rounding import EPS, UNDERFLOW, gamma
from cvxrelu.program.loss import Loss
from cvxrelu.program.readout import Pairs, adjoint
from cvxrelu.support.blocks import each

Array = Any


__all__ = ["Ridge", "largest_multiple", "pull_back", "row_lengths", "sampled_bound"]


class Ridge(NamedTuple):
    """A penalised skip: its columns C in the prediction that the loss sees, its penalty, and that of its origin."""

    columns: Float[Array, "m k"]
    l2: Float[Array, ""]
    constant: Float[Array, ""]

    def penalty(self, z: Float[Array, "k c"]) -> Float[Array, ""]:
        return 0.5 * self.l2 * array_namespace(z).sum(z * z) + self.constant


def pull_back(
    readout: Pairs | None, X: Float[Array, "n d"], t: Float[Array, "m c"]
) -> tuple[Float[Array, "n c"], Float[Array, " c"] | None]:
    """p = R^T t, and by how much its rounding can change |X^T (M * p_k)| for any pattern M, per output; None for 0."""
    if readout is None:
        return t, None
    xp = array_namespace(X)
    length, size = row_lengths(X), xp.abs(t)
    if is_numpy_array(t):  # sums of the pairs of each row, one after another
        n = X.shape[0]
        degree = np.diff(readout.ends, prepend=0) + 4.0
        both = [np.bincount(readout.first, s, n) + np.bincount(readout.second, s, n) for s in size.T]
        return adjoint(readout, t), np.asarray([EPS * np.sum(degree * length * s) for s in both])
    # Differences of running sums, each of at most 2 m terms.
    return adjoint(readout, t), EPS * (4.0 * t.shape[0] + 8.0) * xp.sum(size, axis=0) * xp.sum(length)


def sampled_bound(
    loss: Loss, dual: Float[Array, "m c"], largest: Float[Array, " c"], beta: Any, ridge: Ridge | None = None
) -> tuple[Float[Array, ""], Float[Array, "m c"]]:
    """Lower bound on the optimum of (S), and its feasible dual; `largest` bounds the block norms per output."""
    return scaled_bound(loss, dual, largest, beta, ridge)


def largest_multiple(beta: Any, price: Any) -> Any:
    """The kappa with kappa * price <= beta, rounded downwards; of a price that is a norm whose squares may vanish."""
    return (1.0 - 4.0 * EPS) * beta / (price + UNDERFLOW)


def scaled_bound(loss: Loss, dual: Any, largest: Any, beta: Any, ridge: Ridge | None) -> tuple[Any, Any]:
    """D(kappa t) less the skip's part for the best kappa with kappa * largest <= beta, less the rounding of all that.

    One kappa per output where `largest` has one: outputs then separate, unless the loss couples them.
    """
    xp = array_namespace(dual)
    zero = xp.zeros((), dtype=dual.dtype)
    kappa_max = largest_multiple(beta, largest)
    quadratic, constant = zero, zero
    if ridge is not None:
        # |C^T t| per output, from above.
        pull = ridge.columns.T @ dual
        pull = UNDERFLOW + xp.abs(pull) + gamma(*ridge.columns.shape) * (xp.abs(ridge.columns).T @ xp.abs(dual))
        quadratic, constant = xp.sum(pull * pull, axis=0) / ridge.l2, ridge.constant
        quadratic = quadratic if kappa_max.ndim else xp.sum(quadratic)
    kappa = loss.best_dual_scale(dual, kappa_max, quadratic)
    feasible = (kappa[None, :] if kappa.ndim else kappa) * dual
    value, magnitude = loss.dual_value(feasible)
    taken = 0.5 * xp.sum((kappa * xp.sqrt(quadratic)) ** 2)  # of a kappa whose square may overflow
    allowance = gamma(*dual.shape) * (magnitude + taken + constant)
    # Non-negative losses: the optimum is never below the constant, whatever t says.
    return xp.maximum(value - taken - allowance, zero) + constant, feasible


def row_lengths(X: Float[Array, "n d"]) -> Float[Array, " n"]:
    """|x_i| of every row."""
    return each(X.shape[1], lambda b: block_norms(X[b, :].T), X)
