"""Derivatives whose roots the logistic loss wants: of its dual value along a ray, and of its proximal problem."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from cvxrelu.numerics.sigmoid import sigmoid


def dual_slope(x: Any, r: Any, mass: Any, total: Any, constant: Any, quadratic: Any, axis: Any) -> tuple[Any, Any]:
    """Minus the derivative of the dual value in kappa at kappa = 1 / (1 + exp(-x)), and its derivative in x.

    `r` are the s at kappa = 1, the largest of them 1; `mass` is weight r, `total` its sum, and `constant` the sum of
    mass (margin - log r).
    """
    xp = array_namespace(x, r)
    e = xp.exp(-xp.abs(x))
    small, large = e / (1.0 + e), 1.0 / (1.0 + e)
    kappa, rest = xp.where(x >= 0, large, small), xp.where(x >= 0, small, large)
    free = (1.0 - r) + r * (rest[None, :] if rest.ndim else rest)  # 1 - kappa r
    log_kappa = xp.minimum(x, xp.zeros_like(x)) - xp.log1p(e)
    value = total * log_kappa - constant - xp.sum(mass * xp.log(free), axis=axis) + kappa * quadratic
    return value, rest * (xp.sum(mass / free, axis=axis) + kappa * quadratic)


def prox_slope(r: Any, b: Any, pull: Any) -> tuple[Any, Any]:
    s = sigmoid(-r)
    return r - b - pull * s, 1.0 + pull * s * (1.0 - s)
