"""The optimum of the network program (N) in two and three dimensions, by an interior point method over all patterns.

With every pattern of the arrangement the sampled program is the network program, so Clarabel's optimum is that of every
network. It is called directly here, because the tests that compare with it solve thousands of problems.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import clarabel
import numpy as np
import scipy.sparse as sp

from cvxrelu.program.arrangement import enumerate_patterns

ACCURACY = 1e-7  # relative to the loss of the zero network


def network_optimum(
    X: np.ndarray, y: np.ndarray, beta: float, weight: np.ndarray | None = None, free: np.ndarray | None = None
) -> float:
    """min over blocks and c of sum weight / 2 (sum_i M_i X (v_i - z_i) + free c - y)^2 + beta sum (|v_i| + |z_i|).

    X (n, d) of rank at most 3 with every column it is to have, y (n,), free (n, k) or None. Right to about `ACCURACY`
    times the loss of the zero network, whatever the units.
    """
    weight = np.ones(len(X)) if weight is None else weight
    unit_X, unit_y, unit_w = np.abs(X).max(), np.abs(y[weight > 0]).max(initial=0.0), weight.max()
    if unit_y == 0:
        return 0.0
    unit_X = unit_X or 1.0
    X, y, weight, scaled = X / unit_X, y / unit_y, weight / unit_w, beta / (unit_X * unit_y * unit_w)
    free = np.zeros((len(X), 0)) if free is None else free / np.maximum(np.abs(free).max(axis=0), 1e-300)
    masks = enumerate_patterns(X).patterns
    (n, d), P = X.shape, masks.shape[1]
    half = np.einsum("np,nd->npd", masks, X).reshape(n, P * d)
    root = np.sqrt(weight)[:, None]
    A = sp.csc_matrix(np.hstack([root * half, -root * half, root * free]))
    target, k, B = root[:, 0] * y, free.shape[1], 2 * P  # variables: blocks (B d), free (k), bounds on norms (B)
    size = B * d + k
    quadratic = sp.block_diag([sp.triu(A.T @ A), sp.csc_matrix((B, B))], format="csc")
    linear = np.concatenate([-A.T @ target, np.full(B, scaled)])
    signed = np.where(masks, 1.0, -1.0)[:, :, None] * X[:, None, :]
    cones = sp.block_diag([signed[:, i % P] for i in range(B)], format="csc")
    inside = sp.hstack([-cones, sp.csc_matrix((B * n, k + B))])
    rows, which = np.arange(B) * (d + 1), np.arange(B)
    entries = np.concatenate([rows, (rows[:, None] + 1 + np.arange(d)).ravel()])
    at = np.concatenate([size + which, np.arange(B * d)])
    norms = sp.csc_matrix((-np.ones(len(at)), (entries, at)), shape=(B * (d + 1), size + B))
    constraint = sp.vstack([inside, norms], format="csc")
    kinds = [clarabel.NonnegativeConeT(B * n), *(clarabel.SecondOrderConeT(d + 1) for _ in range(B))]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    solver = clarabel.DefaultSolver(quadratic, linear, constraint, np.zeros(constraint.shape[0]), kinds, settings)
    found = solver.solve()
    zero = 0.5 * float(target @ target)
    assert abs(found.obj_val - found.obj_val_dual) <= 0.5 * ACCURACY * max(zero, 1e-300), found.status
    return (found.obj_val + zero) * unit_y**2 * unit_w


class Program(NamedTuple):
    """(N) with one output. X (n, d) with every column it is to have; y, weight and margin by sample, (m,).

    columns (n, K) of the skip before the readout, or None; equality (C, e) on all K coefficients.
    """

    X: np.ndarray
    y: np.ndarray
    beta: float
    loss: str
    weight: np.ndarray
    margin: np.ndarray
    pairs: np.ndarray | None = None
    columns: np.ndarray | None = None
    l2: float = 0.0
    equality: tuple[np.ndarray, np.ndarray] | None = None

    def read(self, values: np.ndarray) -> np.ndarray:
        return values if self.pairs is None else values[self.pairs[:, 0]] - values[self.pairs[:, 1]]

    def objective(self, prediction: np.ndarray, norms: float, theta: np.ndarray) -> float:
        """Of a network whose neurons predict this on X, and whose skip has the coefficients theta."""
        a = self.read(prediction + (0.0 if self.columns is None else self.columns @ theta))
        squared = 0.5 * (a - self.y) ** 2
        each = squared if self.loss == "squared" else np.logaddexp(0.0, self.margin - self.y * a)
        return float(self.weight @ each + self.beta * norms + 0.5 * self.l2 * theta @ theta)


class Optimum(NamedTuple):
    """`value` is the interior point method's; `attained` is the objective of the network that it found."""

    value: float
    attained: float


def convex_optimum(program: Program) -> Optimum:
    """Optimum of (N) by exponential and second-order cones over all patterns, in units in which the data are near one.

    No network has an objective below the optimum, so a lower bound above `attained` is false, whatever the accuracy.
    """
    import cvxpy as cp

    unit_X, unit_y, unit_w = np.abs(program.X).max() or 1.0, 1.0, program.weight.max()
    if program.loss == "squared":
        unit_y = np.abs(program.y[program.weight > 0]).max(initial=0.0) or 1.0
    X, weight = program.X / unit_X, program.weight / unit_w
    masks = 1.0 * enumerate_patterns(X).patterns
    unit = unit_w * unit_y**2
    V, Z = (cp.Variable((X.shape[1], masks.shape[1])) for _ in range(2))
    f = cp.sum(cp.multiply(masks, X @ (V - Z)), axis=1)
    penalty = program.beta * unit_y / (unit_X * unit) * (cp.sum(cp.norm(V, 2, axis=0)) + cp.sum(cp.norm(Z, 2, axis=0)))
    constraints = [cp.multiply(2.0 * masks - 1.0, X @ block) >= 0 for block in (V, Z)]
    theta, sizes = None, np.ones(0)
    if program.columns is not None:
        sizes = np.abs(program.columns).max(axis=0)
        sizes[sizes == 0] = 1.0
        theta = cp.Variable(len(sizes))  # of columns / sizes, divided by unit_y
        f = f + (program.columns / sizes) @ theta
        penalty = penalty + 0.5 * program.l2 * unit_y**2 / unit * cp.sum_squares(cp.multiply(theta, 1.0 / sizes))
        if program.equality is not None:
            C, e = program.equality
            constraints.append((C / sizes) @ theta == e / unit_y)
    a = program.read(f)
    if program.loss == "squared":
        loss = 0.5 * cp.sum_squares(cp.multiply(np.sqrt(weight), a - program.y / unit_y))
    else:
        loss = weight @ cp.logistic(program.margin - cp.multiply(program.y, a))
    solved = cp.Problem(cp.Minimize(loss + penalty), constraints)
    tight = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short of these tolerances it is a point as any other
        solved.solve(solver=cp.CLARABEL, **tight)
    blocks = np.concatenate([V.value, -Z.value], axis=1) * unit_y / unit_X
    signs = np.repeat([1.0, -1.0], masks.shape[1])
    coefficients = np.zeros(0) if theta is None else theta.value / sizes * unit_y
    if program.equality is not None:
        C, e = program.equality
        coefficients = coefficients - np.linalg.pinv(C) @ (C @ coefficients - e)
    prediction = np.maximum(program.X @ (blocks * signs), 0.0) @ signs
    attained = program.objective(prediction, float(np.linalg.norm(blocks, axis=0).sum()), coefficients)
    return Optimum(float(solved.value) * unit, attained)
