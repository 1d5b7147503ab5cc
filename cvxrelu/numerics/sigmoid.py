"""The logistic function and its inverse, with a small relative error on both sides."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace


def sigmoid(u: Any) -> Any:
    """1 / (1 + exp(-u)), with a small relative error on both sides."""
    xp = array_namespace(u)
    e = xp.exp(-xp.abs(u))
    return xp.where(u >= 0, xp.ones_like(e), e) / (1.0 + e)


def logit(p: Any) -> Any:
    """Inverse of `sigmoid`, for p moved inside (0, 1 - 8 eps)."""
    xp = array_namespace(p)
    info, one = xp.finfo(p.dtype), xp.ones_like(p)
    p = xp.minimum(xp.maximum(p, float(info.smallest_normal) * one), (1.0 - 8.0 * float(info.eps)) * one)
    return xp.log(p) - xp.log1p(-p)
