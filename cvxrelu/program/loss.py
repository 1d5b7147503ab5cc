"""What a loss must offer to be trained with: copy `Logistic` in `losses` for a new one, and name it in `targets`.

A loss is a NamedTuple of arrays, hence free for JAX to trace, whose methods are pure functions of the prediction
a = R f(X), of shape (m, c). It does not divide by the number of rows. With t = `dual(a)`, minus its derivative,

    value(a)                      the loss, convex in a
    dual_value(t)[0]              -loss*(-t), which together with the constraint on t bounds the optimum from below
    prox(v, rho, start)           the minimiser over a of value(a) + rho/2 |a - v|^2, where it is not quadratic
    curvature                     of every row, an upper bound of the second derivative
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["Loss", "ProximalLoss"]

Array = Any
Self = TypeVar("Self", bound="Loss")


@runtime_checkable
class Loss(Protocol):
    """The methods and attributes that the algorithms use; no algorithm asks which loss it has."""

    @property
    def y(self) -> Array:
        """(m, c) targets or labels."""

    @property
    def weight(self) -> Array:
        """(m, 1), nonnegative."""

    @property
    def is_quadratic(self) -> bool:
        """Whether one Newton step solves what is convex in the prediction."""

    @property
    def added(self) -> Array:
        """What the loss adds to predictions, a margin or an offset, up to signs; broadcasts to (m, c)."""

    @property
    def curvature(self) -> Array:
        """(m, 1), the largest second derivative that a row can have."""

    def by_output(self: Self) -> list[Self]:
        """The losses that it is the sum of, on outputs of their own, in order: one where it couples the outputs."""

    def value(self, a: Array) -> Array:
        """The loss at a (m, c): a scalar."""

    def dual(self, a: Array) -> Array:
        """t (m, c), minus the derivative at a."""

    def prediction(self, t: Array) -> Array:
        """An a (m, c) with dual(a) = t, for t inside the domain of the conjugate; the nearest there is, at its edge."""

    def settle(self, v: Array) -> Array:
        """v (m, k) less what a free part of the prediction takes of it; v itself without one."""

    def hessian_product(self, a: Array, v: Array) -> Array:
        """The Hessian of the value at a, times v (m, c)."""

    def gram(self, a: Array, hidden: Array, second: Array) -> Array:
        """(k, k) Hessian of the value at a in the magnitudes of k columns `hidden_j second_j^T`."""

    def shifted(self: Self, shift: Array) -> Self:
        """The loss of a + shift."""

    def dual_value(self, t: Array) -> tuple[Array, Array]:
        """(-loss*(-t), sum of the magnitudes it was computed from); minus infinity outside the domain."""

    def best_dual_scale(self, t: Array, kappa_max: Array, quadratic: Any = 0.0) -> Array:
        """The kappa in [0, kappa_max] with the largest dual value of kappa t, less `kappa^2 quadratic / 2`."""

    def best_scale(self, a: Array, penalty: Any) -> Array:
        """The s >= 0 that minimises `value(s a) + s penalty`."""


class ProximalLoss(Loss, Protocol):
    """A loss with a proximal operator, which ADMM asks for where the loss is not quadratic."""

    def prox(self, v: Array, rho: Any, start: Any = None) -> Array:
        """(m, c), the minimiser of `value(a) + rho/2 |a - v|^2`, from `start`."""
