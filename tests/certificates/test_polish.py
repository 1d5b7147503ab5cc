"""Polish meets kinks exactly: against SciPy's bounded least squares; it never loses, on any backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import constraint_at, make_backend
from scipy.optimize import lsq_linear

from cvxrelu.certificates.ascents import ascend, start_ascent
from cvxrelu.certificates.polish import boxed_least_squares, polish

seeds = st.integers(0, 10**6)
NUMPY = make_backend("numpy")


def draw(seed, n=30, d=4, c=1, width=6):
    """Rows, some zero or repeated, a dual variable with zeros, and unit directions, one of them zero."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    if seed % 3 == 0:
        X = X[rng.integers(n, size=n)] * rng.choice([0.0, 1.0, 2.0], size=(n, 1))
    u = rng.standard_normal((d, width))
    u /= np.linalg.norm(u, axis=0)
    u[:, 0] = 0.0
    return X, rng.standard_normal((n, c)) * (rng.random((n, 1)) < 0.8), u


def run(X, p, u, near=None, rounds=3, steps=200, backend=NUMPY):
    lengths = np.linalg.norm(X, axis=1)
    lengths[lengths == 0] = 1.0
    with backend.scope():
        data = backend.put((X, lengths, p, u))
        compiled = backend.compile(polish, ("near",))
        return backend.get(compiled(backend, *data, near=near or len(X), rounds=rounds, steps=steps))


def concave(seed, n=40, d=8):
    """One row that adds and many that take away: where it is positive, the function is concave with one maximum."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    X[0] *= 4.0
    X[1:] += 0.2 * X[0]
    p = -rng.uniform(0.02, 0.4, (n, 1))
    p[0] = 2.0
    return X, p


def best_of_concave(X, p):
    """max over the unit ball of g @ u - sum b_i (x_i @ u)_+ by its dual."""
    fit = lsq_linear(X[1:].T, p[0, 0] * X[0], (np.zeros(len(X) - 1), -p[1:, 0]), tol=1e-14, method="bvls")
    return float(np.sqrt(2 * fit.cost))


# -- the least-squares problems --------------------------------------------------------------------------------------
def test_boxed_least_squares_against_scipy(backend_name):
    rng = np.random.default_rng(0)
    rows, target = rng.standard_normal((5, 12, 4)), 3 * rng.standard_normal((5, 4))
    rows[0] = 0.0
    upper = rng.uniform(0.0, 0.4, (5, 12)) * (rng.random((5, 12)) < 0.9)
    backend = make_backend(backend_name)
    with backend.scope():
        fit = backend.compile(boxed_least_squares)
        found = backend.get(fit(backend, *backend.put((rows, target, upper, 0.5 * upper)), 2000))
    assert np.all((found >= 0) & (found <= upper))
    for multipliers, A, b, top in zip(found, rows, target, upper, strict=True):
        best = lsq_linear(A.T, b, (np.zeros(12), top + 1e-300), tol=1e-14).cost
        assert 0.5 * np.sum((b - A.T @ multipliers) ** 2) == pytest.approx(best, rel=1e-6)


# -- polish ----------------------------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 3), st.integers(1, 6), st.integers(1, 30))
def test_no_value_falls(seed, c, d, near):
    X, p, u = draw(seed, d=d, c=c)
    moved, values = run(X, p, u, near)
    np.testing.assert_allclose(np.linalg.norm(moved[:, 1:], axis=0), 1.0, rtol=1e-12)
    mass = np.linalg.norm(X, axis=1) @ np.linalg.norm(p, axis=1)
    np.testing.assert_allclose(values, constraint_at(X, p, moved), rtol=1e-10, atol=1e-13 * mass)
    assert np.all(values >= constraint_at(X, p, u) - 1e-13 * mass)


def test_the_maximum_of_a_concave_function_is_found_where_ascents_stop_short():
    short = []
    for seed in range(4):
        X, p = concave(seed)
        best = best_of_concave(X, p)
        u = X[:1].T / np.linalg.norm(X[0])
        climbed = ascend(NUMPY, X, p, start_ascent(NUMPY, X, p, u), 100).u
        short.append(1 - constraint_at(X, p, climbed)[0] / best)
        _, values = run(X, p, u, rounds=2, steps=2000)
        assert values[0] == pytest.approx(best, rel=1e-6)
    assert max(short) > 1e-4


def test_on_every_backend(backend_name):
    X, p, u = draw(7, c=2)
    for one, other in zip(run(X, p, u, 8, backend=make_backend(backend_name)), run(X, p, u, 8), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
