"""Proximal maps of the two nonsmooth terms of the sampled program.

    prox of tau |.|_2 (a block):     (1 - tau / |u|)_+ u
    prox of the indicator s >= 0:    max(s, 0)

Both are projections in disguise, so the scaled dual variable of ADMM is what the map removes; see `admm.State`.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace
from jaxtyping import Float

__all__ = ["block_norms", "group_soft_threshold"]

Array = Any


def block_norms(U: Float[Array, "d ..."]) -> Float[Array, "..."]:
    """Euclidean norm of every block: over the first axis."""
    xp = array_namespace(U)
    return xp.sqrt(xp.sum(U * U, axis=0))


def group_soft_threshold(U: Float[Array, "d ..."], tau: Any) -> Float[Array, "d ..."]:
    """`(1 - tau / |u|)_+ u` for every block u; blocks of norm at most tau become exactly zero.

    Minimises `tau |w| + 1/2 |w - u|^2` over w. tau >= 0 is a number or a zero-dimensional array.
    """
    xp = array_namespace(U)
    norms = block_norms(U)
    keep = norms > tau
    safe = xp.where(keep, norms, xp.ones((), dtype=U.dtype))
    return U * xp.where(keep, 1.0 - tau / safe, xp.zeros((), dtype=U.dtype))[None, ...]
