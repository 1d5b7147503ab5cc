"""Readouts against the dense matrix: values, adjoint, rounding, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import make_backend

from cvxrelu.program.problem import build_problem
from cvxrelu.program.readout import adjoint, make_pairs, read

seeds = st.integers(0, 10**6)


def draw(seed, n=6, m=9, k=2):
    """Pairs with repetitions and contradictions, rows that no pair is about, values and t."""
    rng = np.random.default_rng(seed)
    first = rng.integers(n, size=m)
    pairs = np.stack([first, (first + rng.integers(1, n, size=m)) % n], axis=1)
    pairs[-1] = pairs[0, ::-1]
    return pairs, rng.standard_normal((n, k)), rng.standard_normal((m, k)) * 10.0 ** rng.uniform(-6, 6, (m, 1))


def dense(pairs, n):
    return np.eye(n)[pairs[:, 0]] - np.eye(n)[pairs[:, 1]]


@given(seeds, st.integers(2, 6), st.integers(1, 9), st.integers(0, 3))
def test_read_and_adjoint(seed, n, m, k):
    pairs, values, t = draw(seed, n, m, k)
    readout, R = make_pairs(pairs, n), dense(pairs, n)
    np.testing.assert_allclose(read(readout, values), R @ values, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(adjoint(readout, t), R.T @ t, rtol=1e-12, atol=1e-12 * np.abs(t).max(initial=0.0))


def test_identity():
    _, values, t = draw(0)
    assert read(None, values) is values
    assert adjoint(None, t) is t


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_backend(backend_name, dtype):
    pairs, values, t = draw(1, n=40, m=300)
    backend, readout, R = make_backend(backend_name), make_pairs(pairs, 40), dense(pairs, 40)
    with backend.scope():
        there, v, s = backend.put(readout), backend.put(values, dtype), backend.put(t, dtype)
        got = backend.get((read(there, v), adjoint(there, s)))
    assert got[0].dtype == got[1].dtype == dtype
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(got[0], R @ values, atol=8 * eps * np.abs(values).max())
    np.testing.assert_array_less(
        np.abs(got[1] - R.T @ t), 20 * eps * (np.abs(R.T) @ np.abs(t)) + 2e-13 * np.abs(t).max()
    )


@given(seeds)
def test_pulling_back_allows_for_its_rounding(seed):
    """|p^T (X u)_+| for p computed and p exact differ by less than the slack that comes with p."""
    pairs, _, t = draw(seed, m=40, k=1)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((6, 3)) * 10.0 ** rng.uniform(-3, 3)
    problem = build_problem(X, t[:, 0], pairs=pairs, beta=1.0, sampled=False)
    p, slack = problem.pull_back(t)
    exact = dense(pairs, 6).T.astype(np.longdouble) @ t.astype(np.longdouble)
    moved = float(np.abs(p - exact)[:, 0] @ np.linalg.norm(X, axis=1))
    assert moved <= slack <= 1e-12 * float(np.abs(t).sum() * np.abs(X).max() + 1e-300)
    assert build_problem(X, np.ones(6), beta=1.0, sampled=False).pull_back(t[:6])[1] == 0.0


@given(seeds)
def test_allowance_for_rounding_counts_both_rows_of_a_pair(seed):
    """Turned around, every pair and t give the same p and the same allowance."""
    rng = np.random.default_rng(seed)
    pairs, _, t = draw(seed)
    X = rng.standard_normal((6, 3)) * 10.0 ** rng.uniform(-3, 3, (6, 1))
    given_pairs, turned = (
        build_problem(X, np.ones(9), beta=1.0, pairs=each, loss="logistic", sampled=False)
        for each in (pairs, pairs[:, ::-1])
    )
    (p, slack), (other, same) = given_pairs.pull_back(t), turned.pull_back(-t)
    np.testing.assert_allclose(other, p, rtol=1e-9, atol=1e-9 * np.abs(t).max())
    assert same == pytest.approx(slack, rel=1e-12)
