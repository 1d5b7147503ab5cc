"""Features as a head is fitted on them, and the way back: a network on standardised features is one on raw ones.

    z = ((x - center) / scale) V,        V the identity, or an orthonormal basis of a few directions

The few are the first principal components of the training rows. Since what tells answers apart need not be among them,
one direction can be given, that of a linear model: V then begins with it, and the components are those of the rest.

Center, scale and V come from training rows alone. Folding them in, `f(z) = g(x)`, changes nothing but rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cvxrelu import ReLUNetwork

__all__ = ["Standard", "lipschitz_bound", "standardise"]


class Standard(NamedTuple):
    """center, scale (d,); basis (d, r), or None for the identity."""

    center: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    basis: Float[np.ndarray, "d r"] | None

    def apply(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
        """Standardised features, float64."""
        Z = (X.astype(np.float64) - self.center) / self.scale
        return Z if self.basis is None else Z @ self.basis

    def fold_in(self, network: ReLUNetwork) -> ReLUNetwork:
        """The network that takes raw features."""
        if self.basis is not None:
            skip = None if network.skip is None else self.basis @ network.skip
            network = ReLUNetwork(
                self.basis @ network.first_layer, network.second_layer, network.hidden_bias, skip, network.bias,
                metadata=network.metadata,
            )  # fmt: skip
        return network.unstandardise(self.center, self.scale)


def standardise(
    X: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " k"],
    components: int | None,
    direction: Float[np.ndarray, " d"] | None = None,
) -> Standard:
    """Mean 0 and variance 1 over the rows given, once each; constant columns keep their scale.

    components : how many directions of the standardised rows to keep; None for all features as they are.
    direction : one of them, in standardised features; the others are principal components of what is left.
    """
    training = X[np.unique(rows)].astype(np.float64)
    center, scale = training.mean(axis=0), training.std(axis=0)
    rounding = 1e-13 if X.dtype == np.float64 else 1e-7  # what of a column far from zero is no more than that
    scale = np.where(scale > rounding * np.maximum(np.abs(center), 1e-30), scale, 1.0)
    if components is None or components >= min(training.shape):
        return Standard(center, scale, None)
    Z, first = (training - center) / scale, np.zeros((0, X.shape[1]))
    if direction is not None and (size := float(np.linalg.norm(direction))) > 0:
        first = direction[None] / size
        Z = Z - (Z @ first.T) @ first
    _, _, right = np.linalg.svd(Z, full_matrices=False)
    basis = np.concatenate([first, right])[:components].T
    return Standard(center, scale, np.ascontiguousarray(basis))


def lipschitz_bound(network: ReLUNetwork) -> float:
    """`sum_j |w_j| |a_j| + |skip|`: no two inputs at distance 1 have outputs further apart than this."""
    first, second = network.first_layer.astype(np.float64), np.abs(network.second_layer.astype(np.float64))
    skip = 0.0 if network.skip is None else float(np.linalg.norm(network.skip.astype(np.float64)))
    return float(np.linalg.norm(first, axis=0) @ second) + skip
