"""Readouts: R and its adjoint against dense matrices, on every backend, and what rounding of the adjoint can do."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import make_backend

from cvxrelu.program.dual import pull_back
from cvxrelu.program.readout import adjoint, largest_degree, make_pairs, read


def dense(pairs, n):
    return np.eye(n)[pairs[:, 0]] - np.eye(n)[pairs[:, 1]]


def draw(rng, n, m):
    """Pairs with repetitions, both ways round, and rows that are in none."""
    used = max(2, n - 1)
    return np.array([rng.choice(used, 2, replace=False) for _ in range(m)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_read_and_adjoint_are_dense(backend_name, dtype):
    backend, rng = make_backend(backend_name), np.random.default_rng(0)
    for n, m in ((3, 9), (30, 12)):
        pairs = draw(rng, n, m)
        R, values, t = dense(pairs, n), rng.standard_normal((n, 2)), rng.standard_normal((m, 2))
        with backend.scope():
            readout = backend.put(make_pairs(pairs, n))
            got = backend.get(read(readout, backend.put(values, dtype)))
            back = backend.get(adjoint(readout, backend.put(t, dtype)))
        assert got.dtype == back.dtype == dtype
        np.testing.assert_allclose(got, R @ values, atol=1e3 * np.finfo(dtype).eps)
        np.testing.assert_allclose(back, R.T @ t, atol=1e3 * np.finfo(dtype).eps)
        assert largest_degree(make_pairs(pairs, n)) >= np.linalg.norm(R, 2) ** 2 * (1 - 1e-12)


@given(st.integers(0, 10**6))
def test_adjointness(seed):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 9)), int(rng.integers(1, 20))
    readout = make_pairs(draw(rng, n, m), n)
    v, t = rng.standard_normal((n, 1)), rng.standard_normal((m, 1))
    np.testing.assert_allclose(np.sum(read(readout, v) * t), np.sum(v * adjoint(readout, t)), atol=1e-12)


def test_none_is_the_identity():
    values = np.ones((3, 2))
    assert read(None, values) is values and adjoint(None, values) is values and largest_degree(None) == 1.0


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_the_error_of_pulling_back_is_allowed_for(name):
    """p against exact rational sums, where large and small terms cancel."""
    backend = make_backend(name)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n, m = 6, 40
        pairs, X = draw(rng, n, m), rng.standard_normal((n, 3))
        t = rng.standard_normal((m, 2)) * 10.0 ** rng.uniform(-12, 12, (m, 1))
        p, error = backend.get(pull_back(*backend.put((make_pairs(pairs, n), X, t))))
        for k in range(2):
            exact = [Fraction(0)] * n
            for (i, j), value in zip(pairs, t[:, k], strict=True):
                exact[i] += Fraction(value)
                exact[j] -= Fraction(value)
            wrong = np.array([float(Fraction(got) - true) for got, true in zip(p[:, k], exact, strict=True)])
            assert np.abs(wrong) @ np.linalg.norm(X, axis=1) <= error[k]
