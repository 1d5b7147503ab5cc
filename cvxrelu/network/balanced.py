"""A network as balanced arrays, `|w_j| = |a_j|`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.network.foreign import check_intercept
from cvxrelu.support.host import column_norms

if TYPE_CHECKING:
    from cvxrelu.network.relu_network import ReLUNetwork

__all__ = ["BalancedArrays", "to_arrays"]


class BalancedArrays(NamedTuple):
    """A network in float64, |w_j| = |a_j| for each of its m neurons. D = d, or d + 1 with the constant column last."""

    W: Float[np.ndarray, "D m"]
    A: Float[np.ndarray, "m c"]
    skip: Float[np.ndarray, "d c"] | None
    bias: Float[np.ndarray, " c"] | None


def to_arrays(network: ReLUNetwork, intercept: bool) -> BalancedArrays:
    """`w_j <- w_j sqrt(|a_j| / |w_j|)`, `a_j <- a_j sqrt(|w_j| / |a_j|)`: the same function, balanced.

    Parameters
    ----------
    network : hidden neurons without effect, `|w_j| |a_j| = 0`, are left out; the order of the others is kept.
    intercept : the last row of W is the hidden bias, zeros where the network has none.

    Raises
    ------
    ValueError : the network has a hidden bias and `intercept` is False.
    """
    check_intercept(network.hidden_bias, intercept)
    W = network.first_layer.astype(np.float64)
    if intercept:
        hidden = np.zeros(network.n_neurons) if network.hidden_bias is None else network.hidden_bias
        W = np.vstack([W, hidden])
    c = network.n_outputs
    A = network.second_layer.astype(np.float64).reshape(network.n_neurons, c)
    inner, outer = column_norms(W), column_norms(A.T)
    live = (inner > 0) & (outer > 0)
    W, A, inner, outer = W[:, live], A[live], inner[live], outer[live]
    root = np.sqrt(inner) * np.sqrt(outer)  # of each: the product, or the ratio, of the norms may overflow
    skip = None if network.skip is None else network.skip.astype(np.float64).reshape(-1, c)
    bias = None if network.bias is None else network.bias.astype(np.float64).reshape(c)
    return BalancedArrays(W / inner * root, A / outer[:, None] * root[:, None], skip, bias)
