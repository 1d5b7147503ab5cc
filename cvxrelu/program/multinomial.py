"""The multinomial loss, which couples the outputs; otherwise like those of `losses`.

    sum_k weight_k (logsumexp(b_k) - b_k,y(k)),   b = a + offset
    t = weight (Y - softmax(b))                                     -loss*(-t) = weight H(Y - t / weight) - t offset

Y holds the labels as unit rows, and H(q) = -sum q log q is the entropy; its domain is the simplex. A multiple kappa t
stands for q = (1 - kappa) Y + kappa q_1, hence is in the domain with t for kappa in [0, 1] and a little beyond.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.numerics.roots import increasing_root, wright_omega

__all__ = ["Multinomial"]

Array = Any
LOG_RANGE = 80.0  # scales are looked for within e^80 of the largest there can be


class Multinomial(NamedTuple):
    """`sum_k weight_k (logsumexp(a_k + offset_k) - (a_k + offset_k) @ Y_k)` over rows.

    y : (n, c), unit rows. weight : (n, 1) nonnegative. offset : (n, c), what is added to every prediction.
    """

    y: Float[Array, "n c"]
    weight: Float[Array, "n 1"]
    offset: Float[Array, "n c"]

    @property
    def is_quadratic(self) -> bool:
        """Whether one Newton step solves what is convex in the prediction."""
        return False

    @property
    def added(self) -> Float[Array, "n _"]:
        """What the loss adds to predictions, up to signs."""
        return self.offset

    @property
    def curvature(self) -> Float[Array, "n 1"]:
        """The largest eigenvalue there can be of a row's Hessian, weight / 2."""
        return 0.5 * self.weight

    def by_output(self) -> list[Multinomial]:
        """Itself: it couples the outputs."""
        return [self]

    def value(self, a: Float[Array, "n c"]) -> Float[Array, ""]:
        xp = array_namespace(self.y)
        b = a + self.offset
        top = xp.max(b, axis=1, keepdims=True)
        # Differences from the label's own prediction: what is added to all outputs does not even round.
        own = xp.sum(self.y * (b - top), axis=1, keepdims=True)
        others = xp.sum((1.0 - self.y) * xp.exp(b - top), axis=1, keepdims=True)
        # Small losses keep all their digits.
        return xp.sum(self.weight * xp.where(own == 0, xp.log1p(others), xp.log(xp.exp(own) + others) - own))

    def dual(self, a: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """t = weight (Y - softmax): minus the derivative at prediction a; in the domain up to rounding."""
        xp = array_namespace(a)
        others = (1.0 - self.y) * self._softmax(a)
        own = xp.sum(others, axis=1, keepdims=True)
        return self.weight * (self.y * xp.minimum(own, xp.ones_like(own)) - others)

    def prediction(self, t: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The logarithms of the probabilities Y - t / weight, less the offset: a prediction with dual variable t."""
        xp = array_namespace(self.y)
        changed, _ = self._changed(t)
        p = xp.where(self.y > 0, 1.0 - changed, changed)
        return xp.log(xp.maximum(p, float(xp.finfo(p.dtype).smallest_normal) * xp.ones_like(p))) - self.offset

    def settle(self, v: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """v: no part of a prediction is free here."""
        return v

    def hessian_product(self, a: Float[Array, "n c"], v: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The Hessian of the value at prediction a, times v."""
        xp, p = array_namespace(v), self._softmax(a)
        others = (1.0 - self.y) * p * (v - xp.sum(p * v, axis=1, keepdims=True))
        return self.weight * (others - self.y * xp.sum(others, axis=1, keepdims=True))  # a row adds up to zero

    def gram(
        self, a: Float[Array, "n c"], hidden: Float[Array, "n m"], second: Float[Array, "c m"]
    ) -> Float[Array, "m m"]:
        """Hessian of the value at prediction a in the magnitudes of columns `hidden_j second_j^T`."""
        p = self._softmax(a)
        mean = p @ second
        # Each output less the mean of all, before it is squared: what is left is no difference, hence semidefinite.
        columns = [hidden * (second[k, :][None, :] - mean) for k in range(p.shape[1])]
        return sum(h.T @ (self.weight * p[:, k : k + 1] * h) for k, h in enumerate(columns))

    def shifted(self, shift: Float[Array, "n c"]) -> Multinomial:
        """The loss of a + shift."""
        return self._replace(offset=self.offset + shift)

    def dual_value(self, t: Float[Array, "n c"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """`(D(t), the sum of the magnitudes it was computed from)`; D is -inf outside the domain of the conjugate.

        Rounding may leave the simplex by a few machine epsilons; the magnitude, which scales the allowance for it,
        counts every q a few times: rounding q moves H(q) by up to 40 machine epsilons times q.
        """
        xp = array_namespace(self.y)
        changed, inside = self._changed(t)
        zero, one = xp.zeros((), dtype=t.dtype), xp.ones((), dtype=t.dtype)
        label, positive = self.y > 0, (changed > 0) & (changed < 1)
        p = xp.where(positive, changed, 0.5 * one)
        entropy = xp.where(positive, xp.where(label, -(1.0 - p) * xp.log1p(-p), -p * xp.log(p)), zero)
        value = xp.sum(self.weight * entropy) - xp.sum(t * self.offset)
        magnitude = xp.sum(self.weight * (xp.abs(entropy) + 4.0 * changed)) + xp.sum(xp.abs(t * self.offset))
        return xp.where(xp.all(inside), value, -xp.inf * one), magnitude

    def best_dual_scale(
        self, t: Float[Array, "n c"], kappa_max: Float[Array, "..."], quadratic: Any = 0.0
    ) -> Float[Array, ""]:
        """The kappa in [0, kappa_max] that maximises `D(kappa t) - kappa^2 quadratic / 2`; 0 if only D(0) is finite.

        Outputs do not separate: of several limits the smallest holds for all, and several quadratics add up.
        """
        xp = array_namespace(self.y)
        zero, one = xp.zeros((), dtype=t.dtype), xp.ones((), dtype=t.dtype)
        eps, tiny = float(xp.finfo(t.dtype).eps), float(xp.finfo(t.dtype).smallest_normal)
        largest, quadratic = xp.min(kappa_max), xp.sum(zero + quadratic)
        positive = self.weight > 0
        share = xp.where(positive, t / xp.where(positive, self.weight, one), zero)
        label = self.y > 0
        own = xp.max(xp.where(label, share, zero))  # what the label's probability falls by at kappa = 1
        wrong = xp.any((label & (share < 0)) | (~label & (share > 0)) | (~positive & (t != 0)))
        usable = (own >= tiny) & ~wrong & (largest > 0)
        top = xp.minimum(largest, (1.0 - 8.0 * eps) / xp.where(usable, own, one))
        top = xp.where(usable, top, one)
        share = xp.where(usable, share, zero)
        linear = xp.sum(t * self.offset)
        size = xp.where(label, one, xp.where(share < 0, -share, one))
        constant = xp.sum(xp.where(label | (share >= 0), zero, self.weight * share * xp.log(size))) - linear
        others = xp.sum(xp.where(label, zero, self.weight * share))  # at most 0
        own_share, own_mass = xp.where(label, share, zero), xp.where(label, self.weight * share, zero)

        def slope(x: Any) -> tuple[Any, Any]:
            """Minus the derivative in kappa at kappa = top / (1 + exp(-x)), and its derivative in x."""
            e = xp.exp(-xp.abs(x))
            sigmoid = xp.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e))
            kappa, rest = top * sigmoid, xp.where(x >= 0, e / (1.0 + e), 1.0 / (1.0 + e))
            left = 1.0 - kappa * own_share
            rise = xp.sum(own_mass * xp.log(left)) + others * xp.log(kappa) + constant - kappa * quadratic
            fall = kappa * (xp.sum(own_mass * own_share / left) + quadratic) - others  # times kappa, which may be tiny
            return -rise, fall * rest

        hi = 37.0 * one
        start = xp.minimum(-xp.log(xp.maximum(top - one, eps * top)), hi)  # kappa = 1
        found = increasing_root(slope, -LOG_RANGE - xp.log1p(quadratic), hi, start)
        e = xp.exp(-xp.abs(found))
        kappa = top * xp.where(found >= 0, 1.0 / (1.0 + e), e / (1.0 + e))
        return xp.where(usable, xp.minimum(kappa, top), zero)

    def best_scale(self, a: Float[Array, "n c"], penalty: Any) -> Float[Array, ""]:
        """The s >= 0 that minimises `value(s a) + s penalty`; finite also where the infimum is not attained."""
        xp = array_namespace(self.y)
        zero, one = xp.zeros((), dtype=a.dtype), xp.ones((), dtype=a.dtype)
        lead = xp.abs(a - xp.sum(self.y * a, axis=1, keepdims=True))
        size = xp.where((lead > 0) & (self.weight > 0), lead, xp.inf * one)
        # Beyond the first, every exponential has vanished; beyond the second, s penalty alone exceeds the value at 0.
        flat = (750.0 + 2.0 * xp.max(xp.abs(self.offset))) / xp.min(size)
        penalty = zero + penalty
        positive = penalty > 0
        worth = self.value(xp.zeros_like(a)) / xp.where(positive, penalty, one)
        top = xp.minimum(xp.where(positive, xp.minimum(flat, worth), flat), 1e30 * one)
        usable = (penalty < xp.sum(self.dual(xp.zeros_like(a)) * a)) & (top > 0)
        hi = xp.log(xp.where(usable, top, one))

        def slope(x: Any) -> tuple[Any, Any]:
            s = xp.exp(x)
            p = self._softmax(s * a)
            mean = xp.sum(p * a, axis=1, keepdims=True)
            return penalty - xp.sum(self.dual(s * a) * a), s * xp.sum(self.weight * p * (a - mean) ** 2)

        x = increasing_root(slope, hi - LOG_RANGE, hi, xp.minimum(hi, zero))
        return xp.where(usable, xp.exp(x), zero)

    def prox(self, v: Float[Array, "n c"], rho: Any, start: Any = None) -> Float[Array, "n c"]:
        """The a that minimises `value(a) + rho / 2 |a - v|^2`, row by row. `rho`: a number, or (n, 1). `start`: (n, c),
        a guess of it.

        With tau = weight / rho, b = a + offset, u = v + offset and w = tau softmax(b), a falls from v by w_k in every
        output but the label's, and that rises by their sum tau q. There `w_k + log w_k = log tau + u_k - log sum exp b`
        and `log sum exp b = u_y + tau q - log(1 - q)`, so that one equation for q is left, increasing in it:

            tau q - sum over k != y of omega(log tau + u_k - u_y - tau q + log(1 - q)) = 0.

        It is solved for the logit x of q, between `log E - 2 tau q`, of which `Logistic.prox` has a bound, and log E,
        where E = sum over k != y of exp(u_k - u_y).
        """
        xp = array_namespace(self.y)
        zero, one = xp.zeros((), dtype=v.dtype), xp.ones((), dtype=v.dtype)
        tau = self.weight / rho + xp.zeros_like(self.weight)
        moves, other = tau > 0, self.y == 0
        tau = xp.where(moves, tau, one)
        u = v + self.offset

        def log_odds(b: Any) -> tuple[Any, Any]:
            """Of any output but the label's, and what each of them is ahead of it."""
            lead = xp.where(other, b - xp.sum(self.y * b, axis=1, keepdims=True), -xp.inf * one)
            top = xp.max(lead, axis=1, keepdims=True)
            return top + xp.log(xp.sum(xp.exp(lead - top), axis=1, keepdims=True)), lead

        hi, lead = log_odds(u)
        lo = xp.maximum(hi - 2.0 * tau, xp.minimum(hi, zero) - xp.log1p(2.0 * tau))
        argument = xp.where(other, xp.log(tau) + lead, zero)

        def others(x: Any) -> tuple[Any, Any, Any]:
            """(1 - q, y, omega(y)) of the other outputs, for q = 1 / (1 + exp(-x))."""
            e = xp.exp(-xp.abs(x))
            small, large = e / (1.0 + e), 1.0 / (1.0 + e)
            q, rest = xp.where(x >= 0, large, small), xp.where(x >= 0, small, large)
            y = argument - tau * q - xp.maximum(x, zero) - xp.log1p(e)
            return rest, y, xp.where(other, wright_omega(y), zero)

        def slope(x: Any) -> tuple[Any, Any]:
            """Of the logarithms' difference, which is nearly linear in x."""
            rest, y, w = others(x)
            log_w = xp.where(w > 1.0, xp.log(xp.where(w > 1.0, w, one)), y - w)
            log_w = xp.where(other, log_w, -xp.inf * one)
            top = xp.max(log_w, axis=1, keepdims=True)
            share = xp.exp(log_w - top)
            total = xp.sum(share, axis=1, keepdims=True)
            log_q = -xp.maximum(-x, zero) - xp.log1p(xp.exp(-xp.abs(x)))
            fall = xp.sum(share / (1.0 + w), axis=1, keepdims=True) / total
            return xp.log(tau) + log_q - top - xp.log(total), rest + (1.0 - rest) * (tau * rest + 1.0) * fall

        first = lo if start is None else xp.minimum(xp.maximum(log_odds(start + self.offset)[0], lo), hi)
        w = others(increasing_root(slope, lo, hi, first))[2]
        return xp.where(moves, v - w + self.y * xp.sum(w, axis=1, keepdims=True), v)

    def _softmax(self, a: Any) -> Any:
        xp = array_namespace(self.y)
        b = a + self.offset
        e = xp.exp(b - xp.max(b, axis=1, keepdims=True))
        return e / xp.sum(e, axis=1, keepdims=True)

    def _changed(self, t: Any) -> tuple[Any, Any]:
        """|Y - q| for q = Y - t / weight, 0 where the weight is, and whether t is in the domain of the conjugate.

        It is small where t is, and has a small relative error, which 1 - q of a label would not.
        """
        xp = array_namespace(self.y)
        zero, eps = xp.zeros((), dtype=t.dtype), float(xp.finfo(t.dtype).eps)
        positive = self.weight > 0
        share = xp.where(positive, t / xp.where(positive, self.weight, zero + 1.0), zero)
        changed = xp.where(self.y > 0, share, -share)
        total = xp.abs(xp.sum(share, axis=1, keepdims=True))
        balanced = total <= 4.0 * eps * t.shape[1] * xp.max(xp.abs(share), axis=1, keepdims=True)
        return changed, xp.where(positive, (changed >= 0) & (changed <= 1) & balanced, t == 0)
