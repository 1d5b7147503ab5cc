"""Features as a head is fitted on them, and the way back: a network on standardised features is one on raw ones.

    z = ((x - center) / scale) V,        V the identity, or an orthonormal basis of a few directions

The few are the first principal components of the training rows. Since what tells answers apart need not be among them,
one direction can be given, that of a linear model: V then begins with it, and the components are those of the rest.

Center, scale and V come from training rows alone. Folding them in, `f(z) = g(x)`, changes nothing but rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from cvxrelu import ReLUNetwork
from cvxrelu_llm.features.pair_features import center_and_scale

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
    training = X[np.unique(rows)]
    center, scale = center_and_scale(training)
    if components is None or components >= min(training.shape):
        return Standard(center, scale, None)
    Z, first = (training - center) / scale, np.zeros((0, X.shape[1]))
    if direction is not None and (size := float(np.linalg.norm(direction))) > 0:
        first = direction[None] / size
        Z = Z - (Z @ first.T) @ first
    basis = np.concatenate([first, _principal(Z, components - len(first))]).T
    return Standard(center, scale, np.ascontiguousarray(basis))


def _principal(Z: Float[np.ndarray, "k d"], r: int) -> Float[np.ndarray, "q d"]:
    """The first r principal directions of the rows, or as many as there are, by the smaller of both Gram matrices."""
    tall = len(Z) >= Z.shape[1]
    gram = Z.T @ Z if tall else Z @ Z.T
    r = min(r, len(gram))
    if r == 0:
        return np.zeros((0, Z.shape[1]))
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=(len(gram) - r, len(gram) - 1))
    vectors = vectors[:, values > 1e-12 * max(values[-1], 1e-300)][:, ::-1]
    return vectors.T if tall else np.linalg.qr(Z.T @ vectors)[0].T


def lipschitz_bound(network: ReLUNetwork) -> float:
    """`sum_j |w_j| |a_j| + |skip|`: no two inputs at distance 1 have outputs further apart than this."""
    first, second = network.first_layer.astype(np.float64), np.abs(network.second_layer.astype(np.float64))
    skip = 0.0 if network.skip is None else float(np.linalg.norm(network.skip.astype(np.float64)))
    return float(np.linalg.norm(first, axis=0) @ second) + skip
