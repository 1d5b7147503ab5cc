"""Loops of one building block each, compiled to be timed."""

from __future__ import annotations

from typing import Any

from cvxrelu.backends import Backend
from cvxrelu.sampled import admm
from cvxrelu.sampled.linear_systems import solve_blocks


def one_solve(backend: Backend, system: Any, data: Any, rho: Any, state: Any) -> Any:
    """The u-step alone, for a right-hand side made from the state."""
    xp = backend.xp
    rhs = rho.copy * state.x + xp.stack([data.linear, -data.linear], axis=1)
    tolerance = admm.cg_tolerance(state.iteration, data.X.dtype, xp)
    return solve_blocks(backend, system, data.X, data.patterns, rhs, state.warm, tolerance)


def repeated_products(backend: Backend, X: Any, wide: Any, n: Any) -> Any:
    """X^T (X U), n times: each result is the next U, so that nothing can be hoisted out of the loop."""
    return backend.repeat(n, lambda U: (X.T @ (X @ U)) * (1.0 / X.shape[0]), wide)


def repeated_matvec(backend: Backend, matrix: Any, vector: Any, n: Any) -> Any:
    return backend.repeat(n, lambda v: matrix @ v, vector)
