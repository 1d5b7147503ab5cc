"""Bounds over cones are above every value in them; halves cover what they were cut from; covers everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import max_in_cells, odd_rows

from cvxrelu.certificates.cones import Norm, OneSide, cut, orthants
from cvxrelu.certificates.subdivision import Cover, prices_of, split_worst, subdivided_price

seeds = st.integers(0, 10**6)
KINDS = ["plain", "integer", "repeated", "nearly parallel", "flat"]


def inside(rng, vertices, count):
    """Unit directions in a cone, many of them near its edges and vertices; in extended precision."""
    a = rng.random((count, len(vertices))) ** rng.choice([1.0, 8.0], size=(count, 1))
    u = a.astype(np.longdouble) @ vertices.astype(np.longdouble)
    return u / np.sqrt(np.sum(u * u, axis=1))[:, None]


def value(X, P, u, signed):
    """p^T (X u)_+, or its norm, in extended precision."""
    out = np.maximum(u @ X.T.astype(np.longdouble), 0) @ P.astype(np.longdouble)
    return out[:, 0] if signed else np.sqrt(np.sum(out * out, axis=1))


def random_cones(rng, price, r, cuts):
    vertices = orthants(r)[rng.integers(2**r, size=3)]
    for _ in range(cuts):
        halves, _ = cut(price, vertices, rng.random(vertices.shape[:2]), np.zeros(vertices.shape[:2]))
        vertices = halves[rng.permutation(len(halves))[:6]]
    return vertices


@settings(max_examples=150)
@given(st.integers(1, 25), st.integers(2, 6), st.integers(1, 3), seeds, st.sampled_from(KINDS), st.integers(0, 25))
def test_bounds_are_above_all_values(n, r, c, seed, kind, cuts):
    rng = np.random.default_rng(seed)
    X, P = odd_rows(rng, n, r, kind), rng.standard_normal((n, c))
    P *= rng.choice([0.0, 1.0, 3.0], size=(n, 1))
    for price in prices_of(X, P):
        vertices = random_cones(rng, price, r, cuts)
        bounds, points, attained = price.bounds(vertices)
        signed = c == 1
        p = price.p[:, None] if signed else P
        for cone, bound, point in zip(vertices, bounds, points, strict=True):
            u = np.concatenate([inside(rng, cone, 60), inside(rng, cone[point > 0], 5) if np.any(point) else cone])
            assert value(X, p, u, signed).max() <= bound + 8.0 * price.allowance
            assert np.all(point >= 0)
        assert attained <= bounds.max() + 8.0 * price.allowance


def test_bounds_are_exact_where_no_row_changes_sign():
    rng = np.random.default_rng(0)
    X, p = np.abs(rng.standard_normal((30, 3))) + 0.1, rng.standard_normal(30)
    q = X.T @ p
    for price, linear in zip(prices_of(X, p[:, None]), (q, -q), strict=True):
        bound = price.bounds(orthants(3)[:1]).bounds[0]
        best = np.linalg.norm(np.maximum(linear, 0.0)) if linear.max() > 0 else linear.max()
        assert bound == pytest.approx(best, rel=1e-6, abs=1e-9) or bound >= best
        assert bound <= max(np.linalg.norm(np.maximum(linear, 0.0)), 0.0) * (1 + 1e-6) + 1e-9


def test_slopes_and_secants_matter():
    """One row with p < 0 or > 0 that changes sign in the cone: the bounds by hand."""
    X = np.array([[1.0, -1.0]])
    up, down = OneSide(X, np.array([1.0])), OneSide(X, np.array([-1.0]))
    quadrant = orthants(2)[:1]
    assert up.bounds(quadrant).bounds[0] == pytest.approx(1.0)  # u_1 - u_2 <= u_1 = the secant
    assert down.bounds(quadrant).bounds[0] == pytest.approx(0.0, abs=0.2)  # the slope 0, nearly
    two = OneSide(np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([-1.0, 1.0]))
    assert two.bounds(quadrant).bounds[0] == pytest.approx(2**0.5, rel=0.05)  # at u_1 = u_2


@given(st.integers(2, 7), seeds)
def test_halves_cover_their_cone_and_carry_its_point(r, seed):
    rng = np.random.default_rng(seed)
    price = OneSide(rng.standard_normal((12, r)), rng.standard_normal(12))
    cones = random_cones(rng, price, r, 8)
    carried = rng.random(cones.shape[:2]) * (rng.random(cones.shape[:2]) < 0.7)
    halves, moved = cut(price, cones, rng.random(carried.shape), carried)
    B = len(cones)
    np.testing.assert_allclose(np.linalg.norm(halves, axis=2), 1.0, rtol=1e-12)
    before = np.einsum("bj,bjr->br", carried, cones)
    after = np.einsum("bj,bjr->br", moved, halves)
    np.testing.assert_allclose(after[:B] + after[B:], before, atol=1e-12)
    assert np.all(moved >= 0) and not np.any(np.any(moved[:B] > 0, axis=1) & np.any(moved[B:] > 0, axis=1))
    for cone, first, second in zip(cones, halves[:B], halves[B:], strict=True):
        u = rng.random((20, r)) @ cone
        least = np.maximum(*(np.linalg.solve(half.T, u.T).min(axis=0) for half in (first, second)))
        assert np.all(least >= -1e-6)


def test_several_outputs_of_one_are_its_absolute_value():
    rng = np.random.default_rng(2)
    X, p = rng.standard_normal((15, 3)), rng.standard_normal((15, 1))
    sides = [price.bounds(orthants(3)).bounds.max() for price in prices_of(X, p)]
    assert max(sides) <= Norm(X, p).bounds(orthants(3)).bounds.max() * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_cover_may_change_its_function(seed):
    rng = np.random.default_rng(seed)
    X, p, other = rng.standard_normal((12, 3)), rng.standard_normal(12), rng.standard_normal(12)
    covers = [Cover(price) for price in prices_of(X, p[:, None])]
    for _ in range(12):
        split_worst(covers, 20)
    assert max(c.bound for c in covers) >= max_in_cells(X, p[:, None]) * (1 - 1e-12)
    for cover, price in zip(covers, prices_of(X, other[:, None]), strict=True):
        some = np.arange(0, len(cover), 2)
        cover.refresh(price, some)
        assert not cover.complete and np.isinf(cover.bound)  # half of the bounds are on another function
        cover.refresh(price, deadline=-np.inf)
        assert np.isinf(cover.bound)
        cover.refresh(price)
    for _ in range(30):
        split_worst(covers, 40)
    true = max_in_cells(X, other[:, None])
    assert true * (1 - 1e-12) <= max(c.bound for c in covers) <= 1.02 * true
    again = [Cover.restored(c.price, c.state()) for c in covers]
    assert [c.bound for c in again] == [c.bound for c in covers]


def test_cutting_for_excess_needs_fewer_cones():
    """At rank 5 halving longest edges left 1.9 times the value after as many cones."""
    rng = np.random.default_rng(0)
    X, p = rng.standard_normal((300, 5)), rng.standard_normal((300, 1))
    found = subdivided_price(X, p, cones=1500)
    assert found.attained <= found.bound <= 1.5 * found.attained  # 1.9 before
