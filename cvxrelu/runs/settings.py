"""The options of a run: everything that `solve` takes beside the data and beta, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cvxrelu.support.checks import as_bool, as_positive, as_seed, short

__all__ = ["FLOAT32_TOL", "Settings", "as_certificate"]

DEFAULT_MAX_ITER = 20_000
FLOAT32_TOL = 1e-4  # from this tolerance on, refinement works in float32 unless told otherwise


@dataclass(frozen=True, kw_only=True)
class Settings:
    """When to stop, how to go about it, what to prove, and whom to tell; the fields are keywords of `solve`.

    Made by `read`, which checks what a user gives.
    """

    refine: bool = True  # "rough" of the user is True here
    certificate: str = "priced"
    tol: float = 1e-3
    max_iter: int = DEFAULT_MAX_ITER
    time_limit: float = np.inf
    rho: float | None = None
    linear_solver: str = "auto"
    dtype: Any = None  # as the user says it; the problem has the precision that follows
    seed: int = 0
    verbose: bool = False
    callback: Callable[[dict[str, Any]], Any] | None = None
    of_admm: bool = False  # whether rho, max_iter or linear_solver was given: they speak of ADMM
    rough: bool = False  # a network to be scored and not believed: refinement ends when it slows down, without a bound

    @classmethod
    def keywords(cls) -> tuple[str, ...]:
        """The names that a user may give: fields that neither follow from others nor are internal."""
        return tuple(field.name for field in fields(cls) if field.name not in ("of_admm", "rough"))

    @classmethod
    def read(
        cls, *, max_iter: Any = None, time_limit: Any = None, rho: Any = None, linear_solver: Any = "auto",
        tol: Any = 1e-3, refine: Any = True, certificate: Any = "priced", seed: Any = 0, verbose: Any = False,
        callback: Any = None, dtype: Any = None,
    ) -> Settings:  # fmt: skip
        """Options as a user gives them, or one error that names what is wrong."""
        rough = isinstance(refine, str) and refine == "rough"
        if isinstance(refine, str) and not rough:
            raise TypeError(f"refine must be True, False or 'rough', got {short(refine)}")
        refine, verbose, certificate = (
            rough or as_bool("refine", refine),
            as_bool("verbose", verbose),
            as_certificate(certificate),
        )
        if max_iter is not None and (
            isinstance(max_iter, bool) or not isinstance(max_iter, (int, np.integer)) or max_iter < 1
        ):
            raise ValueError(f"max_iter must be None or a positive integer, got {max_iter!r}")
        if not (isinstance(linear_solver, str) and linear_solver in ("auto", "direct", "cg")):
            raise ValueError(f"linear_solver must be 'auto', 'direct' or 'cg', got {short(linear_solver)}")
        if rho is not None and not 1e-30 <= as_positive("rho", rho) <= 1e30:
            raise ValueError(f"rho must lie between 1e-30 and 1e30, got {rho!r}")
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable or None, got {callback!r}")
        return cls(
            refine=refine,
            certificate=certificate,
            tol=as_positive("tol", tol),
            max_iter=DEFAULT_MAX_ITER if max_iter is None else int(max_iter),
            time_limit=np.inf if time_limit is None else as_positive("time_limit", time_limit),
            rho=None if rho is None else float(rho),
            linear_solver=linear_solver,
            dtype=dtype,
            seed=as_seed(seed),
            verbose=verbose,
            callback=callback,
            rough=rough,
            of_admm=rho is not None or max_iter is not None or linear_solver != "auto",
        )


def as_certificate(kind: Any, name: str = "certificate") -> str:
    """One of the kinds of certificates."""
    if not (isinstance(kind, str) and kind in ("priced", "relaxed", "branch", "exact")):
        raise ValueError(f"{name} must be 'priced', 'relaxed', 'branch' or 'exact', got {kind!r}")
    return kind
