"""Projection onto activation cones: against CVXPY, non-negative least squares, brute force, optimality conditions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import project, support
from scipy.optimize import nnls

from cvxrelu.sampled.cones import project_onto_cones


def assert_projection(X, patterns, q, result, tolerance=1e-9):
    """Feasible, and q - point is a nonnegative combination of the -E x_j (the polar cone) orthogonal to the point."""
    assert result.points.shape == q.shape and result.converged.all()
    scale = tolerance * (1e-300 + np.linalg.norm(q, axis=0))
    signed = (2.0 * patterns - 1.0) * (X @ result.points)
    assert np.all(signed >= -scale * np.linalg.norm(X, axis=1)[:, None])
    moved = result.points - q
    assert np.all(np.abs(np.sum(moved * result.points, axis=0)) <= scale * np.linalg.norm(q, axis=0))
    for b in range(q.shape[1]):
        A = ((2.0 * patterns[:, b] - 1.0)[:, None] * X).T
        length = np.linalg.norm(moved[:, b])
        if length > scale[b]:  # in units of its own: the tolerance of `nnls` is an absolute one
            assert nnls(A, moved[:, b] / length)[1] * length <= 1e2 * scale[b]
    assert np.all(result.multiplier_mass >= np.linalg.norm(moved, axis=0) - scale)


def assert_convex_program(X, patterns, q):
    points = project_onto_cones(X, patterns, q).points
    for b, pattern in enumerate(patterns.T):
        np.testing.assert_allclose(np.linalg.norm(points[:, b]), support(X, pattern, q[:, b]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 6), (12, 3), (60, 5)])
def test_support_value_of_clarabel(n, d):
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, d))
    patterns = np.concatenate([X @ rng.standard_normal((d, 3)) >= 0, rng.random((n, 1)) < 0.5], axis=1)
    assert_convex_program(X, patterns, rng.standard_normal((d, 4)))


@settings(max_examples=60)
@given(
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(0, 10**6),
    st.sampled_from(["plain", "repeated", "integer", "flat"]),
)
def test_optimality_and_nnls(n, d, seed, kind):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    if kind == "repeated":
        X = X[rng.integers(n, size=n + 3)] * rng.choice([-1.0, 0.0, 1.0, 1e-3, 1e3], size=(n + 3, 1))
    elif kind == "integer":
        X = rng.integers(-1, 2, size=(n, d)).astype(float)
    elif kind == "flat":
        X[:, d // 2 :] = 0.0
    gates = rng.standard_normal((d, 5))
    patterns = np.concatenate([X @ gates >= 0, rng.random((len(X), 2)) < 0.5], axis=1)
    q = np.concatenate(
        [rng.standard_normal((d, 3)), gates[:, [3]], -gates[:, [4]], rng.standard_normal((d, 2))], axis=1
    )
    result = project_onto_cones(X, patterns, q)
    assert_projection(X, patterns, q, result)
    expected = np.stack([project(X, M, v) for M, v in zip(patterns.T, q.T, strict=True)], axis=1)
    np.testing.assert_allclose(result.points, expected, atol=1e-9)
    np.testing.assert_array_equal(result.points[:, 3], gates[:, 3])  # inside already
    assert result.multiplier_mass[3] == 0


def test_thousands_of_plane_cones_by_brute_force():
    """In the plane the projection is q, zero, or the projection onto an edge: the nearest feasible one of these."""
    rng = np.random.default_rng(0)
    for _ in range(80):
        n = int(rng.integers(1, 7))
        X = rng.integers(-3, 4, size=(n, 2)).astype(float) if rng.random() < 0.5 else rng.standard_normal((n, 2))
        patterns, q = rng.random((n, 50)) < 0.5, rng.standard_normal((2, 50))
        patterns[:, :30] = X @ rng.standard_normal((2, 30)) >= 0
        edges = np.concatenate([X[:, ::-1] * [1.0, -1.0], X[:, ::-1] * [-1.0, 1.0]])
        edges = edges / np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-300)
        candidates = np.concatenate(
            [q[None], np.zeros((1, 2, 50)), edges[:, :, None] * np.maximum(edges @ q, 0)[:, None]]
        )
        slack = (2.0 * patterns - 1.0) * np.einsum("nd,kdb->knb", X, candidates)
        distance = np.where(slack.min(axis=1) >= -1e-12, np.linalg.norm(candidates - q, axis=1), np.inf)
        expected = candidates[distance.argmin(axis=0), :, np.arange(50)].T
        result = project_onto_cones(X, patterns, q)
        assert result.converged.all()
        np.testing.assert_allclose(result.points, expected, atol=1e-10)


def test_one_halfspace_by_hand():
    X, q = np.array([[0.0, 2.0]]), np.array([[1.0, 1.0], [3.0, -3.0]])
    result = project_onto_cones(X, np.array([[True, True]]), q)
    np.testing.assert_allclose(result.points, [[1.0, 1.0], [3.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(result.multiplier_mass, [0.0, 3.0])
    np.testing.assert_allclose(project_onto_cones(X, np.array([[False, False]]), q).points, [[1.0, 1.0], [0.0, -3.0]])


def test_the_polar_cone_goes_to_zero():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((9, 3))
    patterns = X @ rng.standard_normal((3, 40)) >= 0
    q = -np.einsum("nb,nd->db", (2.0 * patterns - 1.0) * rng.random((9, 40)), X)
    result = project_onto_cones(X, patterns, q)
    assert np.abs(result.points).max() <= 1e-12 * np.abs(q).max()
    zero = project_onto_cones(X, patterns, 0 * q)
    assert zero.converged.all() and not zero.points.any() and not zero.multiplier_mass.any()


def test_no_columns_no_rows():
    empty = project_onto_cones(np.ones((4, 2)), np.zeros((4, 0), dtype=bool), np.zeros((2, 0)))
    assert empty.points.shape == (2, 0) and empty.converged.shape == (0,) and empty.multiplier_mass.shape == (0,)
    free = project_onto_cones(np.zeros((3, 2)), np.zeros((3, 1), dtype=bool), np.array([[1.0], [2.0]]))
    assert free.converged.all() and free.points.ravel().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("angle", [1e-3, 1e-6])
def test_nearly_parallel_rows(angle):
    """Two rows, almost each other: the cone on their common side, and the slivers between them.

    Rounding may keep a sliver's projection from converging: then its multipliers still give the support value.
    """
    X = np.array([[0.0, 1.0], [np.sin(angle), np.cos(angle)]])
    patterns = np.array([[True, True, False], [True, False, True]])
    for vector in np.random.default_rng(2).standard_normal((20, 2)):
        q = np.stack([vector] * 3, axis=1)
        result = project_onto_cones(X, patterns, q)
        assert np.all(result.multiplier_mass >= 0) and result.converged[0]
        good = result.converged
        some = type(result)(*(a[..., good] for a in result))
        assert_projection(X, patterns[:, good], q[:, good], some, tolerance=1e-8)
        sectors = [(0.0, np.pi - angle), (np.pi - angle, np.pi), (-angle, 0.0)]
        at = np.arctan2(vector[1], vector[0])
        for (start, end), point in zip(sectors, result.points.T, strict=True):
            inside = (at - start) % (2 * np.pi) <= end - start
            exact = (
                np.linalg.norm(vector) if inside else max(0.0, *(vector @ [np.cos(e), np.sin(e)] for e in (start, end)))
            )
            np.testing.assert_allclose(np.linalg.norm(point), exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_homogeneous(scale):
    rng = np.random.default_rng(4)
    X, q = rng.standard_normal((20, 4)), rng.standard_normal((4, 30))
    patterns = X @ rng.standard_normal((4, 30)) >= 0
    points = project_onto_cones(X, patterns, q).points
    far, long = project_onto_cones(X, patterns, scale * q), project_onto_cones(scale * X, patterns, q)
    assert far.converged.all() and long.converged.all()
    np.testing.assert_allclose(far.points / scale, points, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(long.points, points, rtol=1e-9, atol=1e-9)


def test_many_rows_need_several_working_sets():
    """n >> d: the result is exact although only a few rows are looked at; columns do not influence each other."""
    rng = np.random.default_rng(5)
    X, q = rng.standard_normal((2000, 8)), rng.standard_normal((8, 12))
    patterns = X @ rng.standard_normal((8, 12)) >= 0
    result = project_onto_cones(X, patterns, q)
    assert_projection(X, patterns, q, result)
    alone = project_onto_cones(X, patterns[:, [7]], q[:, [7]])
    np.testing.assert_allclose(alone.points[:, 0], result.points[:, 7], atol=1e-14)


def test_a_deadline_in_the_past_leaves_a_valid_bound():
    """Stopped at once: no column is claimed to be done, and the norms still bound the support values from above."""
    rng = np.random.default_rng(0)
    X, q = rng.standard_normal((60, 6)), rng.standard_normal((6, 20))
    patterns = X @ rng.standard_normal((6, 20)) >= 0
    stopped, full = project_onto_cones(X, patterns, q, deadline=0.0), project_onto_cones(X, patterns, q)
    assert full.converged.all() and not stopped.converged.any()
    assert np.all(np.linalg.norm(stopped.points, axis=0) >= np.linalg.norm(full.points, axis=0) - 1e-12)


@given(st.integers(0, 10**6), st.floats(0.0, 2.0))
def test_columns_below_the_limit_may_be_left_early(seed, limit):
    """Above the limit the projection, as without one; otherwise a point whose length bounds the support value."""
    rng = np.random.default_rng(seed)
    X, q = rng.standard_normal((40, 4)), rng.standard_normal((4, 8))
    patterns = X @ rng.standard_normal((4, 8)) >= 0
    whole, early = project_onto_cones(X, patterns, q), project_onto_cones(X, patterns, q, limit=limit)
    lengths, found = (np.linalg.norm(each.points, axis=0) for each in (whole, early))
    above = lengths > limit
    np.testing.assert_allclose(early.points[:, above], whole.points[:, above], atol=1e-9)
    assert early.converged[above].all()
    np.testing.assert_allclose(early.points[:, early.converged], whole.points[:, early.converged], atol=1e-9)
    assert np.all(found[~above] <= limit + 1e-9) and np.all(found >= lengths - 1e-9)
