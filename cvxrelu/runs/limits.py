"""The options of `solve` that are not data: limits, checked once, and keywords whose feature is not there yet."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cvxrelu.support.checks import as_positive, short

__all__ = ["Limits"]

DEFAULT_MAX_ITER = 20_000


class Limits(NamedTuple):
    """When to stop, where to start the penalties, and how to solve the u-step."""

    rho: float | None
    tol: float
    max_iter: int
    time_limit: float
    linear_solver: str
    of_admm: bool  # whether rho, max_iter or linear_solver was given: they speak of ADMM

    @classmethod
    def read(cls, *, rho: Any, tol: Any, max_iter: Any, time_limit: Any, linear_solver: Any) -> Limits:
        if max_iter is not None and (
            isinstance(max_iter, bool) or not isinstance(max_iter, (int, np.integer)) or max_iter < 1
        ):
            raise ValueError(f"max_iter must be None or a positive integer, got {max_iter!r}")
        if not (isinstance(linear_solver, str) and linear_solver in ("auto", "direct", "cg")):
            raise ValueError(f"linear_solver must be 'auto', 'direct' or 'cg', got {short(linear_solver)}")
        if rho is not None and not 1e-30 <= as_positive("rho", rho) <= 1e30:
            raise ValueError(f"rho must lie between 1e-30 and 1e30, got {rho!r}")
        return cls(
            None if rho is None else float(rho),
            as_positive("tol", tol),
            DEFAULT_MAX_ITER if max_iter is None else int(max_iter),
            np.inf if time_limit is None else as_positive("time_limit", time_limit),
            linear_solver,
            rho is not None or max_iter is not None or linear_solver != "auto",
        )


FLOAT32_TOL = 1e-4  # from this tolerance on, refinement works in float32 unless told otherwise
