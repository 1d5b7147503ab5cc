"""Forms that are linear in a symmetric matrix U, or quadratic, as ones of its upper triangle, row after row."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["pairs_of", "squares_of", "weighted_pairs"]


def pairs_of(Y: Float[np.ndarray, "n r"], G: Float[np.ndarray, "*B n r"] | None = None) -> Any:
    """(*B, n, s): coefficients of y_i U g_i, of y_i U y_i without G."""
    first, second = np.triu_indices(Y.shape[1])
    half = np.where(first == second, 0.5, 1.0).astype(Y.dtype)
    if G is None:
        return Y[:, first] * Y[:, second] * (2.0 * half)
    return (G[..., first] * Y[:, second] + G[..., second] * Y[:, first]) * half


def weighted_pairs(
    Y: Float[np.ndarray, "n r"], weights: Float[np.ndarray, "B n"], G: Float[np.ndarray, "B n r"]
) -> Float[np.ndarray, "B s"]:
    """Coefficients of sum_i weight_i y_i U g_i."""
    first, second = np.triu_indices(Y.shape[1])
    A = Y.T @ (weights[:, :, None] * G)
    return (A[:, first, second] + A[:, second, first]) * np.where(first == second, 0.5, 1.0)


def squares_of(A: Float[np.ndarray, "B r r"]) -> Float[np.ndarray, "B s s"]:
    """The form tr(U A U), for symmetric A."""
    first, second = np.triu_indices(A.shape[1])
    half, total = np.where(first == second, 0.5, 1.0), 0.0
    for a, b in ((first, second), (second, first)):
        for c, d in ((first, second), (second, first)):
            total = total + np.equal.outer(a, c) * A[:, b][:, :, d]
    return total * np.outer(half, half)
