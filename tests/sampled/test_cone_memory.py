"""Projections with memory: the same points as without, bounds that hold, whatever was projected before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import cones, project
from scipy.linalg import null_space

from cvxrelu.sampled import cone_memory
from cvxrelu.sampled.cone_memory import ConeMemory
from cvxrelu.sampled.cones import project_onto_cones
from cvxrelu.support.errors import OutOfTime


def assert_projects(memory, X, patterns, w):
    """Points against non-negative least squares over all rows at once; the bound is their length."""
    both = np.hstack([patterns, patterns])
    points = memory.project(np.arange(w.shape[1]), w, 0.0)
    expected = np.stack([project(X, M, q) for M, q in zip(both.T, w.T, strict=True)], axis=1)
    np.testing.assert_allclose(points, expected, atol=1e-8 * np.linalg.norm(w, axis=0).max())
    bounds, _ = memory.bounds(w)
    np.testing.assert_allclose(bounds, np.linalg.norm(points, axis=0), atol=1e-7 * np.linalg.norm(w, axis=0).max())
    return points


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 7), st.booleans(), st.booleans())
def test_warm_projections_are_projections(seed, n, d, gated, small):
    """Near moves and far ones, from every start, by both ways to warm-start."""
    rng, X, patterns, gates = cones(seed, n, d, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cone_memory, "SMALL", 16 if small else 0)
        memory = ConeMemory(X, patterns, gates if gated else None)
        w = X.T @ np.hstack([patterns, -1.0 * patterns]) + 1e-3 * rng.standard_normal((d, 6))
        for step in (0.0, 1e-6, 0.1, 10.0):
            w = w + step * rng.standard_normal(w.shape)
            assert_projects(memory, X, patterns, w)


@pytest.mark.parametrize("gated", [True, False])
def test_many_rows_per_dimension(gated):
    """Slivers, in which nearly as many rows are active as there are dimensions; against the plain algorithm."""
    rng, X, patterns, gates = cones(0, 400, 25, 4)
    memory = ConeMemory(X, patterns, gates if gated else None)
    w = X.T @ (rng.standard_normal((400, 8)) * np.hstack([patterns, patterns]))
    for step in (0.0, 0.5, 5.0):
        w = w + step * rng.standard_normal(w.shape)
        points = memory.project(np.arange(8), w, 0.0)
        expected = project_onto_cones(X, np.hstack([patterns, patterns]), w).points
        np.testing.assert_allclose(points, expected, atol=1e-10 * np.linalg.norm(w))
        signed = np.where(np.hstack([patterns, patterns]), 1.0, -1.0) * (X @ points)
        assert signed.min() >= -1e-10 * np.linalg.norm(w)


def test_a_limit_ends_early_with_a_bound_and_nothing_else_changes():
    rng, X, patterns, gates = cones(0, 60, 6, 5)
    w = X.T @ (rng.standard_normal((60, 10)) * np.hstack([patterns, patterns]))
    exact = np.linalg.norm(ConeMemory(X, patterns, gates).project(np.arange(10), w, 0.0), axis=0)
    limit = float(np.median(exact))
    memory = ConeMemory(X, patterns, gates)
    points = np.linalg.norm(memory.project(np.arange(10), w, limit), axis=0)
    above = exact > limit
    assert 0 < above.sum() < 10
    np.testing.assert_allclose(points[above], exact[above], rtol=1e-10)
    assert np.all(points[~above] <= limit) and np.all(memory.bounds(w)[0][~above] <= limit * (1 + 1e-12))


@given(st.integers(0, 10**6))
def test_remembered_multipliers_bound_any_other_vector(seed):
    rng, X, patterns, gates = cones(seed, 30, 4, 3)
    memory = ConeMemory(X, patterns, gates)
    q = rng.standard_normal((4, 6))
    np.testing.assert_array_equal(memory.bounds(q)[0], np.linalg.norm(q, axis=0))  # before the first projection
    memory.project(np.arange(6), q, 0.5)
    for other in (q, 7 * q, -q, q + rng.standard_normal(q.shape)):
        exact = np.linalg.norm(project_onto_cones(X, np.hstack([patterns, patterns]), other).points, axis=0)
        bounds, mass = memory.bounds(other)
        assert np.all(bounds >= exact * (1 - 1e-10) - 1e-10) and np.all(mass >= 0)
        assert np.all(bounds <= np.linalg.norm(other, axis=0) * (1 + 1e-12))


def test_the_basis_spans_the_face():
    _, X, patterns, gates = cones(0, 40, 6, 3)
    memory = ConeMemory(X, patterns, gates)
    w = X.T @ np.hstack([patterns, patterns]) + gates.sum(axis=1, keepdims=True)
    points = memory.project(np.arange(6), w, 0.0)
    for block, u in enumerate(points.T):
        basis, active = memory.basis(block), np.abs(X @ u) <= 1e-9 * np.linalg.norm(w)
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-10)
        np.testing.assert_allclose(basis @ (basis.T @ u), u, atol=1e-9)
        expected = null_space(X[active]) if active.any() else np.eye(6)
        np.testing.assert_allclose(basis @ basis.T, expected @ expected.T, atol=1e-8)


def test_blocks_are_independent_and_zero_stays_zero():
    rng, X, patterns, gates = cones(0, 40, 5, 3)
    w = rng.standard_normal((5, 6))
    memory = ConeMemory(X, patterns, gates)
    alone = np.hstack([memory.project(np.array([b]), w[:, [b]], 0.0) for b in range(6)])
    np.testing.assert_allclose(alone, ConeMemory(X, patterns, gates).project(np.arange(6), w, 0.0), atol=1e-12)
    assert not memory.project(np.arange(6), np.zeros((5, 6)), 0.0).any()
    assert memory.project(np.arange(0), w[:, :0], 0.0).shape == (5, 0)


def test_the_plain_algorithm_helps_out(monkeypatch):
    """Where a factorisation fails the point is still the projection."""

    def fail(*_):
        raise np.linalg.LinAlgError

    rng, X, patterns, gates = cones(0, 40, 5, 3)
    w = rng.standard_normal((5, 6))
    expected = ConeMemory(X, patterns, gates).project(np.arange(6), w, 0.0)
    monkeypatch.setattr(ConeMemory, "_minimise", fail)
    memory = ConeMemory(X, patterns, gates)
    points = memory.project(np.arange(6), w, 0.0)
    np.testing.assert_allclose(points, expected, atol=1e-10)
    for block, u in enumerate(points.T):
        basis = memory.basis(block)
        np.testing.assert_allclose(basis @ (basis.T @ u), u, atol=1e-10)
    np.testing.assert_allclose(memory.bounds(w)[0], np.linalg.norm(points, axis=0), atol=1e-8)


def test_the_deadline():
    _, X, patterns, gates = cones(0, 40, 5, 3)
    with pytest.raises(OutOfTime):
        ConeMemory(X, patterns, gates).project(np.arange(6), X.T @ np.ones((40, 6)), 0.0, deadline=0.0)
