"""Separable convex losses: value, dual variable, conjugate, and what the u-step needs of them.

A loss is a NamedTuple of arrays, hence free for JAX to trace, with methods that are pure functions of the prediction
`a (n, c)`. No loss divides by n.

    squared     sum_k weight_k / 2 (a_k - y_k)^2        t = weight (y - a)      -loss*(-t) = t y - t^2 / (2 weight)
    logistic    sum_k weight_k log(1 + exp(u_k)),  u = margin - y a,  y in {-1, +1}
                t = weight y s,  s = 1 / (1 + exp(-u))                         -loss*(-t) = weight (H(s) + s margin)

with H(s) = -s log s - (1 - s) log(1 - s), the binary entropy; its domain is s = t y / weight in [0, 1].

The scaled dual variable t is minus the derivative of the loss at a prediction. For any t that satisfies the constraint
of the dual program, `dual_value(t)` bounds the optimum from below; if t only satisfies it after division, so does
`kappa t` for every kappa up to `kappa_max`, and `best_dual_scale` is the best of these, which is not always the
largest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.numerics.roots import increasing_root
from cvxrelu.numerics.sigmoid import logit, sigmoid
from cvxrelu.program.logistic_slopes import dual_slope, prox_slope

__all__ = ["Logistic", "Squared"]

Array = Any


class Squared(NamedTuple):
    """`sum_k weight_k / 2 (a_k - y_k)^2` over rows and outputs; with `free`, its minimum over a + span(free).

    y : (n, c) targets. weight : (n, 1) nonnegative.
    free : (n, k) or None, columns with `free^T diag(weight) free = I`: what an unpenalised output bias or linear skip
        may add to the prediction. Minimising over it makes `free^T t = 0` for every dual variable t that `dual` gives,
        which is what the bound needs: a t without that proves nothing.
    """

    y: Float[Array, "n c"]
    weight: Float[Array, "n 1"]
    free: Float[Array, "n k"] | None = None

    @property
    def is_quadratic(self) -> bool:
        """Whether one Newton step solves what is convex in the prediction."""
        return True

    @property
    def added(self) -> Float[Array, "n _"]:
        """What the loss adds to predictions, up to signs."""
        return array_namespace(self.y).zeros_like(self.y[:1, :1])

    @property
    def curvature(self) -> Float[Array, "n 1"]:
        """Second derivative in the prediction: the diagonal that the u-step puts between F^T and F."""
        return self.weight

    def by_output(self) -> list[Squared]:
        """The loss of every output."""
        return [self._replace(y=self.y[:, k : k + 1]) for k in range(self.y.shape[1])]

    def value(self, a: Float[Array, "n c"]) -> Float[Array, ""]:
        r = self.settle(self.y - a)
        return 0.5 * array_namespace(r).sum(self.weight * r * r)

    def dual(self, a: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """t = weight (y - a): minus the derivative at prediction a."""
        return self.weight * self.settle(self.y - a)

    def prediction(self, t: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """y - t / weight, for t = 0 where the weight is: a prediction with dual variable t."""
        return self.y - t / array_namespace(t).where(self.weight > 0, self.weight, self.weight + 1.0)

    def settle(self, v: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """v less its weighted projection onto the span of `free`; v itself where there is none.

        Projected twice, for what rounding left. A column that the second time loses more than half of its length was
        nothing but rounding, and becomes zero: scaled up it would prove false bounds.
        """
        if self.free is None:
            return v
        xp = array_namespace(v)
        once = v - self.free @ (self.free.T @ (self.weight * v))
        twice = once - self.free @ (self.free.T @ (self.weight * once))
        before, after = (xp.sum(self.weight * a * a, axis=0) for a in (once, twice))
        return xp.where(after >= 0.25 * before, twice, xp.zeros_like(twice))

    def hessian_product(self, a: Float[Array, "n c"], v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The Hessian of the value at prediction a, times v."""
        return self.weight * self.settle(v)

    def gram(
        self, a: Float[Array, "n c"], hidden: Float[Array, "n m"], second: Float[Array, "c m"]
    ) -> Float[Array, "m m"]:
        """Hessian of the value at prediction a in the magnitudes of columns `hidden_j second_j^T`."""
        hidden = self.settle(hidden)
        return (hidden.T @ (self.weight * hidden)) * (second.T @ second)

    def shifted(self, shift: Float[Array, "n c"]) -> Squared:
        """The loss of a + shift."""
        return self._replace(y=self.y - shift)

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

    def best_dual_scale(
        self, t: Float[Array, "n c"], kappa_max: Float[Array, "..."], quadratic: Any = 0.0
    ) -> Float[Array, "..."]:
        """The kappa in [0, kappa_max] that maximises `D(kappa t) - kappa^2 quadratic / 2`.

        `quadratic` is what a ridge adds, |columns^T t|^2 / l2. `kappa_max` of shape (c,) asks for one scale per output,
        which the sampled program allows because outputs separate there; a zero-dimensional one for a common scale.
        """
        xp = array_namespace(self.y)
        linear, own = self.dual_terms(t)
        if kappa_max.ndim == 0:
            linear, own = xp.sum(linear), xp.sum(own)
        quadratic = own + quadratic
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
        a = self.settle(a)
        slope = xp.sum(self.weight * a * self.y) - penalty
        curvature = xp.sum(self.weight * a * a)
        zero = xp.zeros((), dtype=a.dtype)
        usable = (curvature > 0) & (slope > 0)
        return xp.where(usable, slope / xp.where(usable, curvature, 1.0 + zero), zero)


class Logistic(NamedTuple):
    """`sum_k weight_k log(1 + exp(margin_k - y_k a_k))` over rows and outputs.

    y : (n, c), each -1 or +1. weight : (n, 1) nonnegative. margin : (n, 1) or (n, c), of any sign.
    No method overflows: exponentials are taken of `-|u|` only.
    """

    y: Float[Array, "n c"]
    weight: Float[Array, "n 1"]
    margin: Float[Array, "n _"]

    @property
    def is_quadratic(self) -> bool:
        """Whether one Newton step solves what is convex in the prediction."""
        return False

    @property
    def added(self) -> Float[Array, "n _"]:
        """What the loss adds to predictions, up to signs."""
        return self.margin

    @property
    def curvature(self) -> Float[Array, "n 1"]:
        """The largest second derivative in the prediction, weight / 4, taken where u = 0."""
        return 0.25 * self.weight

    def by_output(self) -> list[Logistic]:
        """The loss of every output."""
        columns = [slice(k, k + 1) for k in range(self.y.shape[1])]
        shared = self.margin.shape[1] == 1
        return [self._replace(y=self.y[:, k], margin=self.margin if shared else self.margin[:, k]) for k in columns]

    def value(self, a: Float[Array, "n c"]) -> Float[Array, ""]:
        xp = array_namespace(self.y)
        u = self._argument(a)
        return xp.sum(self.weight * (xp.maximum(u, xp.zeros_like(u)) + xp.log1p(xp.exp(-xp.abs(u)))))

    def dual(self, a: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """t = weight y s: minus the derivative at prediction a. It lies in the domain of the conjugate exactly."""
        return self.weight * self.y * sigmoid(self._argument(a))

    def prediction(self, t: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """y (margin - logit(t y / weight)): the prediction with dual variable t."""
        return self.y * (self.margin - logit(self._share(t)[0]))

    def hessian(self, a: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """weight s (1 - s): the second derivative at prediction a."""
        xp = array_namespace(self.y)
        e = xp.exp(-xp.abs(self._argument(a)))
        return self.weight * e / ((1.0 + e) * (1.0 + e))

    def settle(self, v: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """v: no part of a prediction is free here."""
        return v

    def hessian_product(self, a: Float[Array, "n c"], v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The Hessian of the value at prediction a, times v."""
        return self.hessian(a) * v

    def gram(
        self, a: Float[Array, "n c"], hidden: Float[Array, "n m"], second: Float[Array, "c m"]
    ) -> Float[Array, "m m"]:
        """Hessian of the value at prediction a in the magnitudes of columns `hidden_j second_j^T`."""
        curvature = self.hessian(a)
        columns = [hidden * second[k, :][None, :] for k in range(a.shape[1])]
        return sum(h.T @ (curvature[:, k : k + 1] * h) for k, h in enumerate(columns))

    def shifted(self, shift: Float[Array, "n c"]) -> Logistic:
        """The loss of a + shift."""
        return self._replace(margin=self.margin - self.y * shift)

    def dual_value(self, t: Float[Array, "n c"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """`(D(t), the sum of the magnitudes it was computed from)`; D is -inf outside the domain of the conjugate.

        The magnitude counts every s a few times: rounding s moves H(s) by up to 40 machine epsilons times s.
        """
        xp = array_namespace(self.y)
        s, inside = self._share(t)
        zero, one = xp.zeros((), dtype=t.dtype), xp.ones((), dtype=t.dtype)
        interior = (s > 0) & (s < 1)
        p = xp.where(interior, s, 0.5 * one)
        entropy = xp.where(interior, -p * xp.log(p) - (1.0 - p) * xp.log1p(-p), zero)
        weight = self.weight
        value = xp.sum(weight * entropy) + xp.sum(weight * s * self.margin)
        magnitude = xp.sum(weight * (entropy + s * (4.0 + xp.abs(self.margin))))
        return xp.where(xp.all(inside), value, -xp.inf * one), magnitude

    def best_dual_scale(
        self, t: Float[Array, "n c"], kappa_max: Float[Array, "..."], quadratic: Any = 0.0
    ) -> Float[Array, "..."]:
        """The kappa in [0, kappa_max] that maximises `D(kappa t) - kappa^2 quadratic / 2`; 0 if only D(0) is finite.

        `quadratic` is what a ridge adds, |columns^T t|^2 / l2. Shapes as for `Squared`. Never above the largest kappa
        inside the domain, less a few machine epsilons.
        """
        xp = array_namespace(self.y)
        share, inside = self._share(t)
        axis = None if kappa_max.ndim == 0 else 0
        eps, zero, one = float(xp.finfo(t.dtype).eps), xp.zeros((), dtype=t.dtype), xp.ones((), dtype=t.dtype)
        largest = xp.max(share, axis=axis)
        usable = (largest > 0) & xp.all(inside | (share > 1), axis=axis) & (kappa_max > 0)
        unit = xp.where(usable, largest, one)
        r = xp.where(usable, share, zero) / (unit[None, :] if unit.ndim else unit)
        mass = self.weight * r
        total = xp.sum(mass, axis=axis)
        constant = xp.sum(mass * (self.margin - xp.log(xp.where(r > 0, r, one))), axis=axis)
        quadratic = (zero + quadratic) / unit / unit

        hi = logit(unit * xp.where(usable, kappa_max, one))
        start = xp.minimum(hi, logit(unit))  # kappa = 1, which is nearly the best at the dual of a good prediction
        lo = start - LOG_RANGE - xp.max(xp.abs(self.margin)) - xp.log1p(quadratic)
        slope = lambda x: dual_slope(x, r, mass, total, constant, quadratic, axis)  # noqa: E731
        x = increasing_root(slope, lo, hi, start)
        kappa = xp.minimum(sigmoid(x), (1.0 - 8.0 * eps) * one) / unit
        return xp.where(usable, xp.minimum(kappa, kappa_max), zero)

    def best_scale(self, a: Float[Array, "n c"], penalty: Any) -> Float[Array, ""]:
        """The s >= 0 that minimises `value(s a) + s penalty`; finite also where the infimum is not attained."""
        xp = array_namespace(self.y)
        zero, one = xp.zeros((), dtype=a.dtype), xp.ones((), dtype=a.dtype)
        size = xp.where((a != 0) & (self.weight > 0), xp.abs(a), xp.inf * one)
        # Beyond the first, every exponential has vanished; beyond the second, s penalty alone exceeds the value at 0.
        flat = (750.0 + xp.max(xp.abs(self.margin))) / xp.min(size)
        penalty = xp.zeros_like(one) + penalty
        positive = penalty > 0
        worth = self.value(xp.zeros_like(a)) / xp.where(positive, penalty, one)
        top = xp.minimum(xp.where(positive, xp.minimum(flat, worth), flat), 1e30 * one)
        usable = (penalty < xp.sum(self.dual(xp.zeros_like(a)) * a)) & (top > 0)
        hi = xp.log(xp.where(usable, top, one))

        slope = lambda x: self._scale_slope(x, a, penalty)  # noqa: E731
        x = increasing_root(slope, hi - LOG_RANGE, hi, xp.minimum(hi, zero))
        return xp.where(usable, xp.exp(x), zero)

    def prox(self, v: Float[Array, "n c"], rho: Any, start: Any = None) -> Float[Array, "n c"]:
        """The a that minimises `value(a) + rho / 2 |a - v|^2`, entry by entry. `start`: (n, c), a guess of it.

        With r = y a - margin it is the root of `r - (weight / rho) / (1 + exp(r)) = y v - margin`, between
        b = y v - margin and the smaller of b + weight / rho and max(b, 0) + log(1 + weight / rho).
        """
        xp = array_namespace(self.y)
        b, pull = self.y * v - self.margin, self.weight / rho + xp.zeros_like(v)
        hi = xp.minimum(b + pull, xp.maximum(b, xp.zeros_like(b)) + xp.log1p(pull))

        slope = lambda r: prox_slope(r, b, pull)  # noqa: E731
        first = hi if start is None else xp.minimum(xp.maximum(self.y * start - self.margin, b), hi)
        return self.y * (increasing_root(slope, b, hi, first) + self.margin)

    def _scale_slope(self, x: Any, a: Any, penalty: Any) -> tuple[Any, Any]:
        """Derivative of `value(s a) + s penalty` at s = exp(x), and its derivative in x."""
        xp = array_namespace(self.y)
        s = xp.exp(x)
        return penalty - xp.sum(self.dual(s * a) * a), s * xp.sum(self.hessian(s * a) * a * a)

    def _argument(self, a: Any) -> Any:
        return self.margin - self.y * a

    def _share(self, t: Any) -> tuple[Any, Any]:
        """s = t y / weight, 0 where the weight is, and whether t is in the domain of the conjugate."""
        xp = array_namespace(self.y)
        zero = xp.zeros((), dtype=t.dtype)
        positive = self.weight > 0
        s = xp.where(positive, t * self.y / xp.where(positive, self.weight, zero + 1.0), zero)
        return s, xp.where(positive, (s >= 0) & (s <= 1), t == 0)


LOG_RANGE = 80.0  # scales are looked for within e^80 of what margins and quadratic suggest
