"""Features as a head is fitted on them, and the way back: a network on standardised features is one on raw ones.

    z = ((x - center) / scale) V,        V the identity, or the first principal components of the training rows

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


def standardise(X: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " k"], components: int | None) -> Standard:
    """Mean 0 and variance 1 over the rows given, once each; constant columns keep their scale.

    components : how many principal components of the standardised rows to keep; None for all features as they are.
    """
    training = X[np.unique(rows)].astype(np.float64)
    center, scale = training.mean(axis=0), training.std(axis=0)
    scale = np.where(scale > 1e-7 * np.maximum(np.abs(center), 1e-30), scale, 1.0)
    if components is None or components >= min(training.shape):
        return Standard(center, scale, None)
    _, _, right = np.linalg.svd((training - center) / scale, full_matrices=False)
    return Standard(center, scale, np.ascontiguousarray(right[:components].T))


def lipschitz_bound(network: ReLUNetwork) -> float:
    """`sum_j |w_j| |a_j| + |skip|`: no two inputs at distance 1 have outputs further apart than this."""
    first, second = network.first_layer.astype(np.float64), np.abs(network.second_layer.astype(np.float64))
    skip = 0.0 if network.skip is None else float(np.linalg.norm(network.skip.astype(np.float64)))
    return float(np.linalg.norm(first, axis=0) @ second) + skip
