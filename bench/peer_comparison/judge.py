"""What a recorded iterate is worth: its objective at a cone-feasible point, and the bound its residual proves.

A peer's blocks U are not taken at their word. Those outside of their cones are projected onto them, all are scaled by
the best common factor, and what results is evaluated in float64: that objective is reached by a point of (S), whatever
the peer says of its own. From the prediction at that point comes a dual variable, and with one projection per violated
constraint a rigorous lower bound. True gap of an iterate: (objective - best lower bound of anybody) / objective.
"""

from __future__ import annotations

import numpy as np

from bench.peers.common import Problem
from cvxrelu.program.dual import sampled_bound
from cvxrelu.program.losses import Squared
from cvxrelu.program.operators import masked, signed
from cvxrelu.sampled.bounds import repair, tighten

__all__ = ["lower_bound", "objective"]


def objective(problem: Problem, blocks: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Objective of (S) at the repaired point, that point (2, d, P), and how far the peer's own was outside.

    The last is the largest of -E_j x_j @ u / |x_j| over rows and blocks, relative to the largest |u|.
    """
    W = _inner_order(blocks)
    slack = signed(problem.patterns, np.tensordot(problem.X, W, axes=1))
    rows, largest = np.linalg.norm(problem.X, axis=1), np.linalg.norm(W, axis=0).max()
    depth = np.divide(-slack.min(axis=(1, 2, 3)), rows * largest, out=np.zeros(len(rows)), where=rows * largest > 0)
    outside = float(max(0.0, depth.max()))
    value, repaired = repair(problem.X, problem.patterns, _loss(problem), problem.beta, W, slack.min(axis=0))
    return value, repaired[:, :, 0, :].transpose(1, 0, 2), outside


def lower_bound(problem: Problem, blocks: np.ndarray) -> float:
    """The bound on the optimum of (S) that the residual at blocks (2, d, P) of a feasible point proves."""
    inside = masked(problem.patterns, np.tensordot(problem.X, _inner_order(blocks), axes=1))
    loss = _loss(problem)
    dual = loss.dual(np.sum(inside[:, 0] - inside[:, 1], axis=-1))
    infinite = np.full((2, 1, problem.patterns.shape[1]), np.inf)
    norms = tighten(problem.X, problem.patterns, dual, infinite, problem.beta)
    return float(sampled_bound(loss, dual, norms.max(axis=(0, 2)), problem.beta)[0])


def _inner_order(blocks: np.ndarray) -> np.ndarray:
    """(2, d, P) -> (d, 2, 1, P), as the certificates have it."""
    return blocks.transpose(1, 0, 2)[:, :, None, :]


def _loss(problem: Problem) -> Squared:
    return Squared(problem.y[:, None], np.ones((len(problem.y), 1)))
