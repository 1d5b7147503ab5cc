"""Separable convex losses: value, dual variable, conjugate, and what the u-step needs of them.

A loss is a NamedTuple of arrays, hence free for JAX to trace, with methods that are pure functions of the prediction
`a (n, c)`. No loss divides by n.

    squared     sum_k weight_k / 2 (a_k - y_k)^2        t = weight (y - a)      -loss*(-t) = t y - t^2 / (2 weight)

The scaled dual variable t is minus the derivative of the loss at a prediction. For any t that satisfies the constraint
of the dual program, `dual_value(t)` bounds the optimum from below; if t only satisfies it after division, so does
`kappa t` for every kappa up to `kappa_max`, and `best_dual_scale` is the best of these, which is not always the
largest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace
from jaxtyping import Float

__all__ = ["Squared"]

Array = Any


class Squared(NamedTuple):
    """`sum_k weight_k / 2 (a_k - y_k)^2` over rows and outputs.

    y : (n, c) targets. weight : (n, 1) nonnegative.
    """

    y: Float[Array, "n c"]
    weight: Float[Array, "n 1"]

    @property
    def curvature(self) -> Float[Array, "n 1"]:
        """Second derivative in the prediction: the diagonal that the u-step puts between F^T and F."""
        return self.weight

    @property
    def target(self) -> Float[Array, "n c"]:
        """The prediction that the quadratic part of the u-step pulls towards."""
        return self.y

    def value(self, a: Float[Array, "n c"]) -> Float[Array, ""]:
        xp = array_namespace(self.y)
        r = a - self.y
        return 0.5 * xp.sum(self.weight * r * r)

    def dual(self, a: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """t = weight (y - a): minus the derivative at prediction a."""
        return self.weight * (self.y - a)

    def dual_terms(self, t: Float[Array, "n c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """`(t @ y, sum t^2 / weight)` for every output; D(kappa t) = kappa first - kappa^2 / 2 second.

        Where the weight is 0 the conjugate is 0 at t = 0 and infinite elsewhere, so that such a t proves nothing.
        """
        xp = array_namespace(self.y)
        zero = xp.zeros((), dtype=t.dtype)
        positive = self.weight > 0
        ratio = t * t / xp.where(positive, self.weight, zero + 1.0)
        scaled = xp.where(positive, ratio, xp.where(t == 0, zero, zero + xp.inf))
        return xp.sum(xp.where(positive, t * self.y, zero), axis=0), xp.sum(scaled, axis=0)

    def best_dual_scale(self, t: Float[Array, "n c"], kappa_max: Float[Array, "..."]) -> Float[Array, "..."]:
        """The kappa in [0, kappa_max] that maximises `D(kappa t)`.

        `kappa_max` of shape (c,) asks for one scale per output, which the sampled program allows because outputs
        separate there; a zero-dimensional one asks for a common scale.
        """
        xp = array_namespace(self.y)
        linear, quadratic = self.dual_terms(t)
        if kappa_max.ndim == 0:
            linear, quadratic = xp.sum(linear), xp.sum(quadratic)
        one = xp.ones((), dtype=t.dtype)
        best = xp.where(quadratic > 0, linear / xp.where(quadratic > 0, quadratic, one), xp.zeros((), dtype=t.dtype))
        return xp.minimum(xp.maximum(best, xp.zeros_like(best)), kappa_max)

    def dual_value(self, t: Float[Array, "n c"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """`(D(t), the sum of the magnitudes it was computed from)`; the second scales the rounding allowance."""
        xp = array_namespace(self.y)
        linear, quadratic = self.dual_terms(t)
        magnitude = xp.sum(xp.abs(t * self.y)) + 0.5 * xp.sum(quadratic)
        return xp.sum(linear) - 0.5 * xp.sum(quadratic), magnitude

    def best_scale(self, a: Float[Array, "n c"], penalty: Any) -> Float[Array, ""]:
        """The s >= 0 that minimises `value(s a) + s penalty`: a network or a point of a cone may be scaled freely."""
        xp = array_namespace(self.y)
        slope = xp.sum(self.weight * a * self.y) - penalty
        curvature = xp.sum(self.weight * a * a)
        zero = xp.zeros((), dtype=a.dtype)
        usable = (curvature > 0) & (slope > 0)
        return xp.where(usable, slope / xp.where(usable, curvature, 1.0 + zero), zero)
