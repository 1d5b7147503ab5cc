"""What a solve prepares before it iterates: the rotated basis, the start penalties, the way to solve the u-step."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from cvxrelu.program.problem import Problem
from cvxrelu.sampled.admm import balance
from cvxrelu.sampled.memory import INVERSE, machine_memory
from cvxrelu.support.blocks import in_words

__all__ = ["balance_factors", "choose_method", "initial_penalties", "penalties_of"]

DIRECT_LIMIT = 12_000  # largest system whose inverse is formed when linear_solver="auto"

# Start value of rho_cone and rho_loss in units of the loss' curvature, and of rho_copy in units of curvature times the
# mean eigenvalue of X^T X: in these units the iterates do not depend on the scale of X, y or the weights. Chosen on
# planted problems.
RHO_CONE, RHO_COPY, RHO_LOSS = 16.0, 0.5, 1.0


def initial_penalties(
    rho: float | None, eigenvalues: np.ndarray, curvature: float, split_curvature: float | None = None
) -> tuple[float, ...]:
    """(rho_copy, rho_cone[, rho_loss]): all rho if given, else scaled with the data as the u-step is.

    curvature : of the loss per row of X. split_curvature : per row of the prediction that the loss sees, for a loss
        with a split of its own.
    """
    mean = float(eigenvalues.mean())
    scaled = [RHO_COPY * curvature * (mean if mean > 0 else 1.0), RHO_CONE * curvature]
    if split_curvature is not None:
        scaled.append(RHO_LOSS * split_curvature)
    return tuple(scaled) if rho is None else (rho,) * len(scaled)


def penalties_of(problem: Problem, rho: float | None, eigenvalues: np.ndarray) -> tuple[float, ...]:
    """The start penalties of a problem, whose X^T X has these eigenvalues."""
    curvature = float(problem.loss.curvature.mean())
    per_row = curvature
    if problem.readout is not None:
        per_row = curvature * 2.0 * problem.loss.y.shape[0] / problem.X.shape[0]
    return initial_penalties(rho, eigenvalues, per_row, None if problem.loss.is_quadratic else curvature)


def balance_factors(
    rho: tuple[float, ...], residuals: Float[np.ndarray, " r"], usual: tuple[float, ...]
) -> list[float]:
    """By what to multiply penalties with these relative residuals, a primal and a dual one each.

    Where the dual residual is zero and the primal one is not, nothing moves: the penalty is so small that thresholding
    by beta / rho leaves no block. There is then no ratio to go by: the penalty goes to its usual start, by at most 5.
    """
    factors = []
    for value, start, (primal, dual) in zip(rho, usual, residuals.reshape(-1, 2).tolist(), strict=True):
        stuck = primal > 0 and dual == 0 and value < start
        factors.append(min(start / value, 5.0) if stuck else balance(primal, dual))
    return factors


def choose_method(
    wanted: str, shape: tuple[int, int], P: int, dtype: np.dtype, room: float = np.inf
) -> str:  # fmt: skip
    """ "gram" or "primal", whichever system is smaller, if its inverse fits; else "cg".

    `shape` is (n, rank), or (m, rank) with a readout. Raises ValueError when "direct" is asked for and does not fit,
    before anything is allocated. room : bytes that a memory limit leaves for the system. What the machine has in all
    counts, never what is free at the moment: the answer would depend on what else runs.
    """
    n, rank = shape
    size = min(n, rank * P)
    direct = "gram" if n <= rank * P else "primal"
    machine = machine_memory()
    needed, available = INVERSE * size * size * dtype.itemsize, min(machine, room)
    if wanted == "direct" and needed > available:
        limited = "memory_limit leaves room for" if available == room else "the machine has"
        raise ValueError(
            f"linear_solver='direct' needs about {in_words(needed)} for a {size} x {size} system, and {limited} "
            f"{in_words(max(0.0, available))}; use 'cg' or 'auto'"
        )
    if wanted == "cg" or (wanted == "auto" and (size > DIRECT_LIMIT or needed > min(0.5 * machine, room))):
        return "cg"
    return direct
