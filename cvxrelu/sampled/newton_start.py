"""Where the Newton method starts: the best combination of the gates, beside the best skip.

    minimise over s >= 0, z   loss(sum_b s_b A_b g_b + C z) + l2/2 |z|^2 + beta sum_b s_b,  g_b unit vectors in cones

a non-negative lasso over the 2 P c gates' columns: one quadratic program for the squared loss, some for the others,
each a model of the loss at the point before. Patterns that come without gates have those that fit their signs best, by
least squares; gates that are not in their cones, as some of these, are projected onto them first.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from cvxrelu.numerics.lasso import nonnegative_quadratic
from cvxrelu.numerics.semidefinite import semidefinite_solver
from cvxrelu.program.readout import read
from cvxrelu.sampled.cone_memory import ConeMemory
from cvxrelu.sampled.cones import TOLERANCE
from cvxrelu.sampled.newton_program import NewtonProgram

__all__ = ["combination_of_gates", "gates_of"]

NOTHING = 1e-9  # of its length: what is left of a gate after projection onto a cone that is {0}
MODELS, ENOUGH = 8, 1e-3  # quadratic models at most, and the relative fall from which on another is worth its price
LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.02)  # of steps to the minimiser of a model


def gates_of(X: Float[np.ndarray, "n d"], patterns: Bool[np.ndarray, "n P"]) -> Float[np.ndarray, "d P"]:
    """Vectors whose signs on the rows are nearly those of the patterns: least squares to +-1, rows of unit length."""
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    rows = X / np.where(lengths > 0, lengths, 1.0)
    return np.linalg.lstsq(rows, np.where(patterns, 1.0, -1.0))[0]


def combination_of_gates(
    program: NewtonProgram,
    patterns: Bool[np.ndarray, "n P"],
    gates: Float[np.ndarray, "d P"],
    memory: ConeMemory,
    deadline: float,
) -> tuple[Float[np.ndarray, "d B"], Float[np.ndarray, "k c"] | None]:
    """Blocks in their cones, and a skip."""
    X, P = program.X, patterns.shape[1]
    lengths = np.linalg.norm(gates, axis=0)
    directions = gates / np.where(lengths > 0, lengths, 1.0)
    hidden = X @ directions
    signed = np.where(patterns, hidden, -hidden)
    inside = (lengths > 0) & np.all(signed >= 0, axis=0)
    if not inside.all():
        # Few of them will be used: which, the gates tell as they are.
        sizes, _ = _combine(program, np.maximum(signed, 0.0) * program.masks, deadline)
        wanted = np.flatnonzero(~inside & (sizes.reshape(-1, P) > 0).any(axis=0))
        directions[:, ~inside] = 0.0
        v, longest = memory.project(wanted, gates[:, wanted], 0.0, deadline), lengths[wanted]
        lengths = np.linalg.norm(v, axis=0)
        left = lengths > NOTHING * longest
        directions[:, wanted[left]] = v[:, left] / lengths[left]
        hidden = X @ directions
        outside = np.where(patterns, -hidden, hidden) > 2.0 * TOLERANCE * np.linalg.norm(X, axis=1)[:, None]
        directions[:, outside.any(axis=0)] = 0.0  # by a projection that did not converge
        hidden[:, outside.any(axis=0)] = 0.0
    sizes, z = _combine(program, np.maximum(hidden, 0.0) * program.masks, deadline)
    return np.tile(directions, program.sides) * sizes, z


def _combine(
    program: NewtonProgram, hidden: Float[np.ndarray, "n P"], deadline: float
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, "k c"] | None]:
    """The sizes s of all blocks, whose columns are these and their negatives for every output, and the skip."""
    loss, ridge = program.loss, program.ridge
    c, P = loss.y.shape[1], hidden.shape[1]
    columns = read(program.readout, hidden)
    skip = columns[:, :0] if ridge is None else ridge.columns
    k, l2 = skip.shape[1], 0.0 if ridge is None else float(ridge.l2)
    # Columns by output: c times those of the neurons, with both signs in `s`, then c times those of the skip.
    every = np.hstack([np.tile(columns, c), np.tile(skip, c)])
    second = np.hstack([np.repeat(np.eye(c), P, axis=1), np.repeat(np.eye(c), k, axis=1)])

    def predict(s: np.ndarray, z: np.ndarray) -> np.ndarray:
        return columns @ (s[:, 0] - s[:, 1]).T + skip @ z.T

    def objective(s: np.ndarray, z: np.ndarray) -> float:
        return float(loss.value(predict(s, z))) + program.beta * float(s.sum()) + 0.5 * l2 * float(np.sum(z * z))

    s, z = np.zeros((c, 2, P)), np.zeros((c, k))
    value = objective(s, z)
    for _ in range(MODELS):
        a = predict(s, z)
        t = loss.dual(a)
        H = program.gram(a, every, second)
        H[np.diag_indices_from(H)] += np.repeat([0.0, l2], [c * P, c * k])
        x = np.concatenate([(s[:, 0] - s[:, 1]).ravel(), z.ravel()])
        slope = np.concatenate([(columns.T @ t).T.ravel(), (skip.T @ t - l2 * z.T).T.ravel()])
        linear = slope + H @ x
        inner = slice(0, c * P)
        G, b = H[inner, inner], linear[inner]
        if k:
            cross = H[inner, c * P :]
            solve = semidefinite_solver(H[c * P :, c * P :])
            G, b = G - cross @ solve(cross.T), b - cross @ solve(linear[c * P :])
        both = np.block([[G, -G], [-G, G]])
        start = s.transpose(1, 0, 2).ravel()
        sizes = nonnegative_quadratic(both, np.concatenate([b, -b]) - program.beta, start, deadline)
        new = sizes.reshape(2, c, P).transpose(1, 0, 2)
        lifted = z
        if k:
            lifted = solve(linear[c * P :] - cross.T @ (new[:, 0] - new[:, 1]).ravel()).reshape(c, k)
        if loss.is_quadratic:
            s, z = new, lifted
            break
        for length in LENGTHS:
            trial = s + length * (new - s), z + length * (lifted - z)
            lower = objective(*trial)
            if lower < value:
                break
        else:
            break
        s, z = trial
        fall, value = value - lower, lower
        if fall <= ENOUGH * value:
            break
    return s.ravel(), None if ridge is None else z.T
