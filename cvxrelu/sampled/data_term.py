"""What lies between the neurons' outputs F U and the quadratic form of the u-step: weights, readout, skip.

    minimise over a skip's z     1/2 |D^1/2 (R F U + C z - q)|^2 + l2/2 |z|^2   =   1/2 |T^1/2 D^1/2 (R F U - q)|^2,

with B = D^1/2 C = Q S V^T and T = I - Q diag(S^2 / (S^2 + l2)) Q^T. So a skip, whether it is penalised or free (l2 = 0,
T a projection), only puts a contraction of low rank beside the weights, and its best coefficients are

    z = V diag(S / (S^2 + l2)) Q^T D^1/2 (q - R F U).

A change of D by a factor, as a penalty makes it, leaves Q and V what they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.program.readout import Pairs, adjoint, read
from cvxrelu.program.skip import Skip

__all__ = ["Reading", "SkipFactors", "skip_factors"]

Array = Any


class SkipFactors(NamedTuple):
    """`D^1/2 C = basis diag(S) lift^T`, `stretch = S^2 / l2`. A free skip has stretch = inf, and no lift is kept."""

    basis: Float[Array, "m r"]
    stretch: Float[Array, " r"]
    lift: Any  # (k, r), or None

    def scaled(self, factor: Any) -> SkipFactors:
        """The factors for D multiplied by `factor`."""
        return self._replace(stretch=factor * self.stretch)

    def coefficients(self, residual: Float[Array, "m c"]) -> Float[Array, "k c"]:
        """`sqrt(l2) z` for the residual D^1/2 (q - R F U): a penalty as small as can be overflows nowhere."""
        xp = array_namespace(residual)
        gain = xp.sqrt(self.stretch) / (1.0 + self.stretch)
        return self.lift @ (gain[:, None] * (self.basis.T @ residual))


class Reading(NamedTuple):
    """`v -> T^1/2 D^1/2 R v` from (n, c) to (m, c), and its adjoint."""

    root: Float[Array, "m 1"]
    readout: Pairs | None = None
    basis: Float[Array, "m r"] | None = None
    shrink: Any = None  # (r,): T^1/2 = I - basis diag(shrink) basis^T

    @classmethod
    def make(cls, curvature: Float[Array, "m 1"], readout: Pairs | None, skip: SkipFactors | None) -> Reading:
        """From D = diag(curvature), and the factors of the skip for this D."""
        xp = array_namespace(curvature)
        root = xp.sqrt(curvature)
        if skip is None:
            return cls(root, readout)
        return cls(root, readout, skip.basis, 1.0 - 1.0 / xp.sqrt(1.0 + skip.stretch))

    def forward(self, values: Float[Array, "n k"]) -> Float[Array, "m k"]:
        return self.contract(self.root * read(self.readout, values))

    def adjoint(self, t: Float[Array, "m k"]) -> Float[Array, "n k"]:
        return adjoint(self.readout, self.root * self.contract(t))

    def contract(self, t: Float[Array, "m k"]) -> Float[Array, "m k"]:
        """T^1/2 t."""
        if self.basis is None:
            return t
        return t - self.basis @ (self.shrink[:, None] * (self.basis.T @ t))


def skip_factors(
    skip: Skip | None, free: Float[np.ndarray, "m r"] | None, weight: Float[np.ndarray, "m 1"]
) -> SkipFactors | None:
    """Factors of a penalised skip, or of the `free` columns of a squared loss, for D = diag(weight)."""
    root = np.sqrt(weight)
    if free is not None:
        return SkipFactors(root * free, np.full(free.shape[1], np.inf), None) if free.shape[1] else None
    if skip is None or skip.columns.shape[1] == 0:
        return None
    left, singular, right = np.linalg.svd(root * skip.columns, full_matrices=False)
    return SkipFactors(left, singular**2 / skip.l2, right.T)
