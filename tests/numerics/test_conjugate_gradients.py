"""Conjugate gradients on every backend: against a direct solve, with the limits and odd systems there are."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st
from oracles import make_backend

from cvxrelu.numerics.conjugate_gradients import conjugate_gradients


def _solve(backend, A, M, b, x0, atol, max_iter):
    return conjugate_gradients(lambda x: A @ x, b, x0, lambda r: M @ r, atol, max_iter)


def solve(name, A, b, x0=None, M=None, atol=0.0, max_iter=1000):
    """On the host; (x, steps)."""
    backend = make_backend(name)
    x0, M = np.zeros_like(b) if x0 is None else x0, np.eye(len(A), dtype=A.dtype) if M is None else M
    with backend.scope():
        arrays = backend.put((A, M, b, x0, np.asarray(atol, dtype=b.dtype)), b.dtype)
        run = backend.compile(_solve, ("max_iter",))
        x, steps = backend.get(tuple(run(backend, *arrays, max_iter=max_iter)))
    return x, int(steps)


def system(n, c=1, spread=100.0, seed=0):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (Q * np.geomspace(1.0, spread, n)) @ Q.T, rng.standard_normal((n, c))


@pytest.mark.parametrize("c", [1, 3])
def test_against_a_direct_solve(backend_name, c):
    A, b = system(30, c)
    x, steps = solve(backend_name, A, b, atol=1e-10)
    np.testing.assert_allclose(x, np.linalg.solve(A, b), atol=1e-10)
    assert 0 < steps < 300


def test_steps_are_those_of_scipy(backend_name):
    A, b = system(30)
    M = np.diag(1.0 / np.diagonal(A))
    counted = []
    scipy.sparse.linalg.cg(A, b[:, 0], rtol=0.0, atol=1e-8, M=M, callback=counted.append)
    x, steps = solve(backend_name, A, b, M=M, atol=1e-8)
    assert abs(steps - len(counted)) <= 1  # the last residual may be at the tolerance
    np.testing.assert_allclose(x[:, 0], counted[-1], atol=1e-7)


def test_a_good_preconditioner_needs_one_step(backend_name):
    A, b = system(20, spread=1e4)
    x, steps = solve(backend_name, A, b, M=np.linalg.inv(A), atol=1e-8)
    assert steps == 1 and np.linalg.norm(A @ x - b) <= 1e-8


@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 2**31), st.floats(1.0, 1e4))
def test_the_residual_is_what_was_asked_for(n, c, seed, spread):
    A, b = system(n, c, spread, seed)
    x, steps = solve("numpy", A, b, atol=1e-6)
    assert np.linalg.norm(A @ x - b) <= 1.01e-6 and steps <= 20 * n


def test_limits_and_nothing_to_do(backend_name):
    A, b = system(20)
    assert solve(backend_name, A, b, max_iter=3)[1] == 3
    x, steps = solve(backend_name, A, 0 * b)
    assert steps == 0 and not x.any()
    exact = np.linalg.solve(A, b)
    x, steps = solve(backend_name, A, b, x0=exact, atol=1e-9)
    assert steps == 0 and np.array_equal(x, exact)


def test_what_is_not_finite_ends(backend_name):
    A, b = system(5)
    b[2] = np.nan
    x, steps = solve(backend_name, A, b)
    assert steps == 0 and np.isfinite(x).all()  # where it started


def test_a_precision_keeps_its_type(backend_name):
    A, b = system(10)
    x, _ = solve(backend_name, A.astype(np.float32), b.astype(np.float32), atol=1e-3)
    assert x.dtype == np.float32
