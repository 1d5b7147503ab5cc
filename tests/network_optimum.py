"""The optimum of the network program (N) in two and three dimensions, by an interior point method over all patterns.

With every pattern of the arrangement the sampled program is the network program, so Clarabel's optimum is that of every
network. It is called directly here, because the tests that compare with it solve thousands of problems.
"""

from __future__ import annotations

import clarabel
import numpy as np
import scipy.sparse as sp

from cvxrelu.arrangement import enumerate_patterns

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
