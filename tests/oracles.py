"""What the tests compare with: dense matrices, CVXPY with Clarabel, brute force. No routine of the solver is used here.

(`enumerate_patterns`, which has tests of its own, is the exception: it says which cells there are.)
Arrays are laid out as the operators have them: U (d, 2, c, P), s (n, 2, c, P), t (n, c).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from cvxrelu.backends import Backend
from cvxrelu.backends.numpy import NumpyBackend
from cvxrelu.program.arrangement import enumerate_patterns

ORACLES = Path(__file__).parent / "data" / "oracles.json"


def stored_oracle(name: str, data: Sequence[Any], compute: Callable[[], float]) -> float:
    """What `compute` gave for these data when it was last run: of minutes of an independent solver, the one number.

    data : arrays and numbers; what is stored counts only where their probes, sums of squares, agree. It is computed
    anew otherwise, and written down with `STORE_ORACLES=1` in the environment.
    """
    probes = [float(np.sum(np.square(np.asarray(array, dtype=np.float64)))) for array in data]
    known = json.loads(ORACLES.read_text()) if ORACLES.exists() else {}
    if name in known and np.allclose(known[name]["probes"], probes, rtol=1e-9, atol=0.0):
        return known[name]["value"]
    value = compute()
    if os.environ.get("STORE_ORACLES"):
        known[name] = {"probes": probes, "value": value}
        ORACLES.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    return value


def make_backend(name: str) -> Backend:
    if name == "numpy":
        return NumpyBackend()
    if name == "strict":
        from strict_backend import StrictBackend

        return StrictBackend()
    from cvxrelu.backends.choose import get_backend

    return get_backend(name)


class Problem(NamedTuple):
    """X (n, d), y (n, c), weight (n, 1), patterns (n, P), beta."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    patterns: np.ndarray
    beta: float


def planted(n: int, d: int, P: int, seed: int, fraction: float, c: int = 1, weights: bool = False) -> Problem:
    """A noisy network with three neurons, and P patterns of random gates; beta is a fraction of the plain beta_max."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ rng.standard_normal((3, c))
    y = y + 0.1 * rng.standard_normal((n, c))
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=(n, 1)) if weights else np.ones((n, 1))
    weight[0] = 1.0
    patterns = X @ rng.standard_normal((d, P)) >= 0
    largest = max(np.linalg.norm(X.T @ (M[:, None] * weight * y), axis=0).max() for M in patterns.T)
    return Problem(X, y, weight, patterns, fraction * largest + 1e-3)


def rotated(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X in its right singular basis, without null directions; the eigenvalues of X^T X there; the basis (d, r)."""
    _, singular, basis = np.linalg.svd(X, full_matrices=False)
    keep = singular > 1e-12 * singular[0]
    return X @ basis[keep].T, singular[keep] ** 2, basis[keep].T


# -- dense operators: one output; `columns` lays the outputs of U or s side by side --------------------------------
def dense_F(X: np.ndarray, M: np.ndarray) -> np.ndarray:
    """(n, d * 2 * P)."""
    return np.einsum("nd,np,s->ndsp", X, M, [1.0, -1.0]).reshape(len(X), -1)


def dense_G(X: np.ndarray, M: np.ndarray) -> np.ndarray:
    """(n * 2 * P, d * 2 * P)."""
    P = M.shape[1]
    E = 2.0 * M - 1.0
    return np.einsum("nd,np,st,pq->nspdtq", X, E, np.eye(2), np.eye(P)).reshape(len(X) * 2 * P, -1)


def columns(U: np.ndarray) -> np.ndarray:
    """(k, 2, c, P) -> (k * 2 * P, c)."""
    return np.moveaxis(U, 2, -1).reshape(-1, U.shape[2])


def blocks(flat: np.ndarray, P: int) -> np.ndarray:
    """(k * 2 * P, c) -> (k, 2, c, P)."""
    return np.moveaxis(flat.reshape(-1, 2, P, flat.shape[1]), -1, 2)


# -- the sampled program (S), the network program (N) ----------------------------------------------------------------
def sampled_objective(p: Problem, U: np.ndarray) -> float:
    prediction = np.stack([dense_F(p.X, p.patterns) @ u for u in columns(U).T], axis=1)
    return float(0.5 * np.sum(p.weight * (prediction - p.y) ** 2) + p.beta * np.linalg.norm(U, axis=0).sum())


def infeasibility(p: Problem, U: np.ndarray) -> float:
    """The largest violation of E * X u >= 0."""
    return float(max(0.0, -(dense_G(p.X, p.patterns) @ columns(U)).min()))


def solve_sampled(p: Problem) -> tuple[float, np.ndarray]:
    """Optimum of (S) and a minimiser (d, 2, c, P), by an interior point method."""
    import cvxpy as cp

    (d, P), c = (p.X.shape[1], p.patterns.shape[1]), p.y.shape[1]
    E = 2.0 * p.patterns - 1.0
    U = [[cp.Variable((d, P)) for _ in range(2)] for _ in range(c)]
    objective, constraints = 0, []
    for k, (V, Z) in enumerate(U):
        prediction = cp.sum(cp.multiply(1.0 * p.patterns, p.X @ (V - Z)), axis=1)
        objective += 0.5 * cp.sum_squares(cp.multiply(np.sqrt(p.weight[:, 0]), prediction - p.y[:, k]))
        for block in (V, Z):
            objective += p.beta * cp.sum(cp.norm(block, 2, axis=0))
            constraints.append(cp.multiply(E, p.X @ block) >= 0)
    program = cp.Problem(cp.Minimize(objective), constraints)
    program.solve(solver=cp.CLARABEL)
    assert program.status == "optimal"
    return float(program.value), np.stack([[b.value for b in pair] for pair in U]).transpose(2, 1, 0, 3)


def solve_network(p: Problem) -> float:
    """Optimum of (N) for one output and rank(X) <= 3: the sampled program with every pattern."""
    assert p.y.shape[1] == 1
    return solve_sampled(p._replace(patterns=enumerate_patterns(p.X).patterns))[0]


def lasso_optimum(features: np.ndarray, y: np.ndarray, weight: np.ndarray, beta: float) -> float:
    """min over c >= 0 of sum weight / 2 (features @ c - y)^2 + beta sum(c), in a millisecond.

    Its dual projects sqrt(weight) y onto {z : A^T z <= beta}: Lawson & Hanson's least distance programming.
    """
    root = np.sqrt(weight.ravel())
    A, b = root[:, None] * features, root * y.ravel()
    size, unit = np.abs(A).max(), np.abs(b).max()
    if size == 0 or unit == 0:
        return float(0.5 * b @ b)
    A, b = A / size, b / unit
    E, last = np.vstack([-A, A.T @ b - beta / (size * unit)]), np.eye(len(b) + 1)[-1]
    r = E @ nnls(E, last)[0] - last
    z = b - r[:-1] / r[-1]
    return float(unit**2 * (0.5 * b @ b - 0.5 * (z - b) @ (z - b)))


def circle_features(p: Problem, sampled: bool, resolution: int = 48) -> np.ndarray:
    """Columns +-(X u)_+, or +-M_i * X u for u in cone i, over directions u: all for d = 1, a fine grid for d = 2."""
    if p.X.shape[1] == 1:
        directions = np.array([[1.0, -1.0]])
    else:
        angles = np.concatenate([np.linspace(0, 2 * np.pi, resolution, endpoint=False), _breakpoints(p.X)])
        directions = np.array([np.cos(angles), np.sin(angles)])
    hidden = p.X @ directions
    if sampled:
        signed = (2.0 * p.patterns - 1.0)[:, :, None] * hidden[:, None, :]
        i, j = np.nonzero(signed.min(axis=0) >= -1e-12)
        hidden = p.patterns[:, i] * hidden[:, j]
    hidden = np.maximum(hidden, 0)
    return np.concatenate([hidden, -hidden, np.zeros((len(p.X), 1))], axis=1)


# -- cones and the constraint of (N) ---------------------------------------------------------------------------------
def support(X: np.ndarray, pattern: np.ndarray, q: np.ndarray) -> float:
    """max {q @ u : u in the cone of the pattern, |u| <= 1}."""
    import cvxpy as cp

    u = cp.Variable(X.shape[1])
    program = cp.Problem(cp.Maximize(q @ u), [cp.multiply(2.0 * pattern - 1.0, X @ u) >= 0, cp.norm(u) <= 1])
    program.solve(solver=cp.CLARABEL)
    assert program.status == "optimal"
    return float(program.value)


def project(X: np.ndarray, pattern: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Projection of q onto the cone of the pattern, from non-negative least squares over all rows at once."""
    A = ((2.0 * pattern - 1.0)[:, None] * X).T
    return q + A @ nnls(A, -q)[0]


def constraint_at(X: np.ndarray, t: np.ndarray, u: np.ndarray) -> np.ndarray:
    """|t^T (X u)_+|_2 for every column u of norm at most one."""
    return np.linalg.norm(t.T @ np.maximum(X @ u, 0), axis=0)


def max_on_circle(X: np.ndarray, t: np.ndarray) -> float:
    """max over |u| <= 1 of |t^T (X u)_+|_2 for d = 2, any number of outputs.

    Between consecutive breakpoints the square is a quadratic form of u, so the maximum sits at a breakpoint or at the
    top eigenvector of one of these forms.
    """
    angles = np.sort(_breakpoints(X))
    middles = (angles + np.append(angles[1:], angles[0] + 2 * np.pi)) / 2
    candidates = [np.array([np.cos(angles), np.sin(angles)])]
    for middle in middles:
        g = X.T @ ((X @ [np.cos(middle), np.sin(middle)] > 0)[:, None] * t)
        top = np.linalg.eigh(g @ g.T)[1][:, -1:]
        candidates += [top, -top]
    return float(constraint_at(X, t, np.concatenate(candidates, axis=1)).max())


def max_in_cells(X: np.ndarray, t: np.ndarray) -> float:
    """max over |u| <= 1 of |t^T (X u)_+| for one output and rank(X) <= 3: the largest projection over all cells."""
    return max(
        float(np.linalg.norm(project(X, M, sign * (X.T @ (M * t[:, 0])))))
        for M, sign in itertools.product(enumerate_patterns(X).patterns.T, (1.0, -1.0))
    )


def _breakpoints(X: np.ndarray) -> np.ndarray:
    """Angles at which some x @ u = 0, and one that is always there."""
    rows = X[np.any(X != 0, axis=1)]
    normal = np.arctan2(rows[:, 1], rows[:, 0])
    return np.unique(np.concatenate([[0.0], (normal + np.pi / 2) % (2 * np.pi), (normal - np.pi / 2) % (2 * np.pi)]))


def rounding(dtype: Any) -> float:
    """A tolerance for a few dozen operations on numbers near one."""
    return 1e3 * float(np.finfo(dtype).eps)


def odd_rows(rng, n, d, kind, column_decades=8, least_apart=1e-6):
    """Gaussian X (n, d), or one that is hard on rounding: repeated, parallel or zero rows, scales, exact integers."""
    X = rng.standard_normal((n, d))
    if kind == "integer":
        return rng.integers(-2, 3, size=(n, d)).astype(float)
    if kind == "repeated":
        return X[rng.integers(n, size=n)] * rng.choice([-1.0, 0.0, 0.3, 1.0, 2.0], size=(n, 1))
    if kind == "row scales":
        return X * 10.0 ** rng.uniform(-8, 8, size=(n, 1))
    if kind == "column scales":
        return X * 10.0 ** rng.uniform(-column_decades, column_decades, size=(1, d))
    if kind == "nearly parallel":
        apart = 10.0 ** rng.uniform(-16, np.log10(least_apart))
        return X[rng.integers(n, size=n)] + apart * rng.standard_normal((n, d))
    if kind == "float32":
        return X.astype(np.float32).astype(float)
    if kind == "flat":
        return X @ rng.standard_normal((d, 2)) @ rng.standard_normal((2, d))
    return X


def check_best_scale(loss, a, penalty):
    """`loss.best_scale` minimises loss(s a) + s penalty over s >= 0: zero for a = 0, large where classes separate."""
    value = lambda s: loss.value(s * a) + s * penalty  # noqa: E731
    s = float(loss.best_scale(a, penalty))
    assert 0 <= s < np.inf
    for other in [0.0, *(s * (1 + np.array([-0.5, -1e-3, 1e-3, 1.0]))), 1e-3, 1.0, 1e3]:
        assert value(s) <= value(other) + 1e-10 * (1 + abs(value(other)))
    assert loss.best_scale(0 * a, penalty) == 0
    separable = loss.y * (1 + np.abs(a))
    assert loss.value(loss.best_scale(separable, 0.0) * separable) < 1e-12  # the infimum is zero, and not attained


def cones(seed, n, d, P):
    """Rows, some of them repeated, opposite or zero; patterns of gates, perhaps realised by nothing; gates."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    if seed % 3 == 1:
        X = X[rng.integers(n, size=n)] * rng.choice([-1.0, 0.0, 1.0, 3.0], size=(n, 1))
    gates = rng.standard_normal((d, P))
    patterns = X @ gates >= 0
    if seed % 3 == 2:
        patterns ^= rng.random(patterns.shape) < 0.1
    return rng, X, patterns, gates
