"""Projections in rounds on a backend: those of one after the other, whatever the library, and whatever was before."""

import time

import numpy as np
import pytest
from oracles import cones, make_backend, project

from cvxrelu.sampled.cone_memory import ConeMemory
from cvxrelu.sampled.on_device import cones as device_cones
from cvxrelu.sampled.on_device.cones import DeviceCones
from cvxrelu.support.errors import OutOfTime


@pytest.fixture
def backend(backend_name):
    backend = make_backend(backend_name)
    with backend.scope():
        yield backend


@pytest.mark.parametrize(("n", "d"), [(30, 4), (8, 5), (1, 3), (60, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_projections_near_and_far(backend, seed, n, d):
    """Against non-negative least squares over all rows at once, from the faces of near moves and of far ones."""
    rng, X, patterns, gates = cones(seed, n, d, 3)
    memory, both = DeviceCones(backend, X, patterns, gates), np.hstack([patterns, patterns])
    w = X.T @ np.hstack([patterns, -1.0 * patterns]) + 1e-3 * rng.standard_normal((d, 6))
    w[:, 2] = 0.0
    for step in (0.0, 1e-6, 0.1, 10.0):
        w = w + step * rng.standard_normal(w.shape)
        size = np.linalg.norm(w, axis=0).max()
        points = memory.project(np.arange(6), w, 0.0)
        expected = np.stack([project(X, M, q) for M, q in zip(both.T, w.T, strict=True)], axis=1)
        np.testing.assert_allclose(points, expected, atol=1e-8 * size)
        bounds, _ = memory.bounds(w)
        np.testing.assert_allclose(bounds, np.linalg.norm(points, axis=0), atol=1e-7 * size)


def test_slivers(backend):
    """Many rows per dimension: in the cones, and the points of the memory that goes block by block."""
    rng, X, patterns, gates = cones(0, 400, 25, 4)
    memory, plain = DeviceCones(backend, X, patterns, gates), ConeMemory(X, patterns, gates)
    both = np.hstack([patterns, patterns])
    w = X.T @ (rng.standard_normal((400, 8)) * both)
    for step in (0.0, 0.5, 5.0):
        w = w + step * rng.standard_normal(w.shape)
        points = memory.project(np.arange(8), w, 0.0)
        np.testing.assert_allclose(points, plain.project(np.arange(8), w, 0.0), atol=1e-10 * np.linalg.norm(w))
        assert (np.where(both, 1.0, -1.0) * (X @ points)).min() >= -1e-10 * np.linalg.norm(w)


def test_a_limit_ends_early_with_a_bound(backend):
    rng, X, patterns, gates = cones(0, 60, 6, 5)
    w = X.T @ (rng.standard_normal((60, 10)) * np.hstack([patterns, patterns]))
    exact = np.linalg.norm(ConeMemory(X, patterns, gates).project(np.arange(10), w, 0.0), axis=0)
    limit = float(np.median(exact))
    memory = DeviceCones(backend, X, patterns, gates)
    points = np.linalg.norm(memory.project(np.arange(10), w, limit), axis=0)
    above = exact > limit
    assert 0 < above.sum() < 10
    np.testing.assert_allclose(points[above], exact[above], rtol=1e-10)
    assert np.all(points[~above] <= limit) and np.all(memory.bounds(w)[0][~above] <= limit * (1 + 1e-12))


def test_rows_of_zeros_alone_leave_every_point_where_it_is(backend):
    memory = DeviceCones(backend, np.zeros((4, 3)), np.ones((4, 2), dtype=bool), np.ones((3, 2)))
    w = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(memory.project(np.arange(4), w, 0.0), w)
    np.testing.assert_array_equal(memory.bounds(w)[0], np.linalg.norm(w, axis=0))


def test_a_deadline_raises():
    rng, X, patterns, gates = cones(0, 60, 6, 5)
    memory = DeviceCones(make_backend("numpy"), X, patterns, gates)
    with pytest.raises(OutOfTime):
        memory.project(np.arange(10), rng.standard_normal((6, 10)), 0.0, time.perf_counter() - 1.0)


def test_a_round_that_makes_no_progress_ends_in_the_plain_algorithm(monkeypatch):
    """As rounding can do it: the minimiser that does not move."""
    rng, X, patterns, gates = cones(0, 60, 6, 5)
    memory = DeviceCones(make_backend("numpy"), X, patterns, gates)
    monkeypatch.setattr(memory, "_minimise", lambda pattern, face, rows, w, scale: (face, np.zeros(0), w))
    w = X.T @ (rng.standard_normal((60, 10)) * np.hstack([patterns, patterns]))
    points = memory.project(np.arange(10), w, 0.0)
    plain = ConeMemory(X, patterns, gates).project(np.arange(10), w, 0.0)
    np.testing.assert_allclose(points, plain, atol=1e-10 * np.linalg.norm(w))


@pytest.mark.parametrize(("n", "count"), [(10, 3), (10, 10), (7, 5), (100, 9)])
def test_small_values_are_found_with_the_smallest_among_them(backend, n, count):
    values = np.random.default_rng(0).standard_normal((n, 6))
    values[: n // 2, 5] = np.inf
    rows = backend.get(device_cones._smallest(backend, backend.put(values), count))
    assert rows.shape == (count, 6) and rows.min() >= 0 and rows.max() < n
    for column, found in zip(values.T, rows.T, strict=True):
        assert np.argmin(column) in found
        assert np.mean(column[found] <= np.median(column)) >= 0.5 or count == n
