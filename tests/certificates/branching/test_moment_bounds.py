"""Bounds over boxes are above every value in them, at any multipliers, and the best that the dual problem has."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import odd_rows

from cvxrelu.certificates.branching.box_products import Products, centres, products_of
from cvxrelu.certificates.branching.boxes import halves
from cvxrelu.certificates.branching.moment_bounds import MomentPrice
from cvxrelu.support.errors import OutOfTime

seeds = st.integers(0, 10**6)
KINDS = ["plain", "integer", "repeated", "row scales", "nearly parallel", "flat"]


def random_boxes(rng, r, cuts):
    """Boxes that the cube has been cut into, at most twelve of them."""
    low, high = -np.ones((1, r)), np.ones((1, r))
    for _ in range(cuts):
        coordinates = rng.integers(r, size=len(low))
        low, high, _ = halves(low, high, coordinates, rng.uniform(-1, 1, size=len(low)))
        kept = rng.permutation(len(low))[:12]
        low, high = low[kept], high[kept]
    return low, high


def inside(rng, low, high, count):
    """Unit directions in a box, in extended precision: of random ones, and of ones pulled into it."""
    y = rng.standard_normal((4 * count, len(low)))
    y[count:] = rng.uniform(low, high, size=(3 * count, len(low)))
    y[2 * count :] = np.where(
        rng.random((2 * count, len(low))) < 0.5, np.where(rng.random(len(low)) < 0.5, low, high), y[2 * count :]
    )
    for _ in range(60):
        y = np.clip(y / np.maximum(np.linalg.norm(y, axis=1), 1e-300)[:, None], low, high)
    y = y.astype(np.longdouble)
    y = y[np.any(y != 0, axis=1)]
    y /= np.sqrt(np.sum(y * y, axis=1))[:, None]
    return y[np.all((y >= low - 1e-14) & (y <= high + 1e-14), axis=1)]


def values(Y, p, y):
    return np.maximum(y @ Y.T.astype(np.longdouble), 0) @ p.astype(np.longdouble)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), seeds, st.sampled_from(KINDS), st.integers(0, 12))
def test_bounds_are_above_all_values(n, r, seed, kind, cuts):
    rng = np.random.default_rng(seed)
    Y, p = odd_rows(rng, n, r, kind), rng.standard_normal(n) * rng.choice([0.0, 1.0, 3.0], size=n)
    price, (low, high) = MomentPrice(Y, p), random_boxes(rng, r, cuts)
    found = price.solve(low, high, 10.0 ** rng.uniform(-4, 0) * max(price.size, 1e-9))
    again = price.solve(low, high, 0.01 * max(price.size, 1e-9), starts=found.starts, first=0.1 * price.size)
    # Rounding moves a point of a box by so much of the size of the function.
    allowed = 1e-13 * float(np.abs(p) @ np.linalg.norm(Y, axis=1))
    for k in range(len(low)):
        y = inside(rng, low[k], high[k], 60)
        if len(y):
            assert values(Y, p, y).max() <= min(found.bounds[k], again.bounds[k]) + allowed


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), seeds, st.integers(0, 8), st.booleans())
def test_any_moments_prove_a_bound(n, r, seed, cuts, with_products):
    """Far from any central path, and outside of the cone of moment matrices too."""
    rng = np.random.default_rng(seed)
    Y, p = odd_rows(rng, n, r, "plain"), rng.standard_normal(n)
    price, (low, high) = MomentPrice(Y, p), random_boxes(rng, r, cuts)
    products = products_of(low, high)
    if not with_products:
        products = Products(products.C[:, :0], products.c[:, :0])
    v = centres(low, high) + rng.choice([0.0, 0.01, 1.0]) * rng.standard_normal((len(low), price.d))
    mu = 10.0 ** rng.uniform(-6, 0)
    for k, bound in enumerate(price.bounds(v, products, mu)):
        y = inside(rng, low[k], high[k], 60)
        if len(y):
            assert values(Y, p, y).max() <= bound + 1e-13 * price.size


@pytest.mark.parametrize("rows, values_of_p", [(1.0, 1e-165), (1.0, 1e-250), (1e-130, 1.0), (1e-130, 1e-150)])
def test_bounds_hold_where_squares_vanish(rows, values_of_p):
    """p is largest where rows are zero, or rows where p is: bounds are above what is left, tiny as it is."""
    rng = np.random.default_rng(0)
    low, high = np.array([[0.0]]), np.array([[1.0]])
    for n in range(1, 40):
        Y, p = rows * rng.random((n, 1)), values_of_p * rng.random(n)
        exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(Y[:, 0], p, strict=True))
        assert Fraction(float(MomentPrice(Y, p).solve(low, high, 1e-3).bounds[0])) >= exact


def test_a_cut_that_is_not_a_number_loses_nothing():
    """Its halves stay, with the bound that holds for every direction."""
    rng = np.random.default_rng(0)
    Y, p = rng.standard_normal((20, 3)), rng.standard_normal(20)
    low, high, parent = halves(-np.full((1, 3), 0.5), np.full((1, 3), 0.9), np.array([1]), np.array([np.nan]))
    assert len(parent) == 2
    u = rng.standard_normal((3, 500))
    most = (p @ np.maximum(Y @ (u / np.linalg.norm(u, axis=0)), 0.0)).max()
    assert np.all(MomentPrice(Y, p).solve(low, high, 1e-3).bounds >= most)


def test_products_are_the_distances_to_the_sides_multiplied():
    rng = np.random.default_rng(0)
    low, high = random_boxes(rng, 4, 9)
    low[0], high[0] = -1.0, 1.0
    products = products_of(low, high)
    for k in range(len(low)):
        y = rng.standard_normal(4)
        v = np.concatenate([y, np.outer(y, y)[np.triu_indices(4)]])
        cut = np.flatnonzero(np.any((low > -1) | (high < 1), axis=0))
        j, i = np.triu_indices(len(cut), 1)
        below, above = (y - low[k])[cut], (high[k] - y)[cut]
        expected = [*np.outer(below, above).ravel(), *np.outer(below, below)[j, i], *np.outer(above, above)[j, i]]
        np.testing.assert_allclose(products.C[k] @ v + products.c[k], expected, atol=1e-12)


def test_derivatives_are_those_of_the_barrier():
    rng = np.random.default_rng(1)
    low = np.array([[-1.0, -1.0, -1.0], [0.0, -1.0, -1.0], [-1.0, -0.5, 0.0]])
    high = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.6, 1.0, 1.0]])
    price = MomentPrice(rng.standard_normal((9, 3)), rng.standard_normal(9))
    products, v, mu = products_of(low, high), centres(low, high), 0.03
    gradient, hessian, _, root = price._derivatives(v, products, mu)
    identity = root @ price.matrices(v) @ root.transpose(0, 2, 1)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(4), identity.shape), atol=1e-10)
    for index in range(price.d):
        e = np.zeros(price.d)
        e[index] = 1e-6
        slope = (price._barrier(v + e, products, mu) - price._barrier(v - e, products, mu)) / 2e-6
        np.testing.assert_allclose(gradient[:, index], slope, rtol=1e-4, atol=1e-6)
        bend = (price._derivatives(v + e, products, mu)[0] - price._derivatives(v - e, products, mu)[0]) / 2e-6
        np.testing.assert_allclose(-hessian[:, index], bend, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_bound_is_that_of_the_dual_problem(seed):
    """The semidefinite program over moment matrices, by Clarabel."""
    cp = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(seed)
    r, n = 3, 7
    Y, p = rng.standard_normal((n, r)), rng.standard_normal(n)
    low, high = (side[:1] for side in random_boxes(rng, r, 4))
    M = cp.Variable((r + 1, r + 1), symmetric=True)
    u, U = M[0, 1:], M[1:, 1:]
    constraints = [M >> 0, M[0, 0] == 1, cp.trace(U) == 1]
    cut = np.flatnonzero((low[0] > -1) | (high[0] < 1))
    for j in cut:
        for k in cut:
            lj, lk, hj, hk = low[0, j], low[0, k], high[0, j], high[0, k]
            constraints.append(hk * u[j] + lj * u[k] - U[j, k] - lj * hk >= 0)
            if j < k:
                constraints.append(U[j, k] - lj * u[k] - lk * u[j] + lj * lk >= 0)
                constraints.append(U[j, k] - hj * u[k] - hk * u[j] + hj * hk >= 0)
    total = 0.5 * (p @ Y) @ u
    for y, weight in zip(Y, p, strict=True):
        moment, along = cp.trace(np.outer(y, y) @ U), y @ u
        if weight > 0:
            total += 0.5 * weight * cp.sqrt(moment)
        else:
            total += 0.5 * weight * cp.maximum(cp.abs(along), cp.norm(U @ y))
    best = cp.Problem(cp.Maximize(total), constraints).solve(solver="CLARABEL")
    for gap in (1e-2, 1e-3, 1e-4, 1e-5):
        assert best - 1e-6 <= MomentPrice(Y, p).solve(low, high, gap).bounds[0] <= best + gap + 1e-5


def test_small_boxes_are_tight():
    rng = np.random.default_rng(2)
    Y, p = rng.standard_normal((30, 4)), rng.standard_normal(30)
    y, gaps = np.full(4, 0.5), []
    for width in (0.2, 0.1, 0.05):
        bound = MomentPrice(Y, p).solve((y - width)[None], (y + width)[None], 1e-3).bounds[0]
        near = inside(rng, y - width, y + width, 2000)
        gaps.append(bound - float(values(Y, p, near).max()))
    assert all(gap >= -1e-9 for gap in gaps) and gaps[2] < 0.5 * gaps[0]


def test_features_are_between_their_limits():
    """Of moments of points in the box, the features of the points."""
    rng = np.random.default_rng(3)
    Y, p = rng.standard_normal((20, 4)), rng.standard_normal(20)
    price = MomentPrice(Y, p)
    low, high = random_boxes(rng, 4, 6)
    v = price.solve(low, high, 0.01).points
    least, most = price.features(Y, v)
    assert np.all(least <= most + 1e-12)
    for k in range(len(low)):
        y = inside(rng, low[k], high[k], 5).astype(float)
        one = np.concatenate([y[0], np.outer(y[0], y[0])[np.triu_indices(4)]])[None]
        below, above = price.features(Y, one)
        feature = np.maximum(Y @ y[0], 0)
        assert np.all(below[0] <= feature + 1e-9) and np.all(above[0] >= feature - 1e-9)


@settings(deadline=None)
@given(st.integers(1, 6), seeds, st.integers(1, 30))
def test_halves_cover_their_box(r, seed, cuts):
    rng = np.random.default_rng(seed)
    low, high = random_boxes(rng, r, cuts)
    at = rng.uniform(-1, 1, size=len(low))
    coordinates = rng.integers(r, size=len(low))
    smaller, larger, parent = halves(low, high, coordinates, at)
    assert np.all(smaller >= low[parent]) and np.all(larger <= high[parent]) and np.all(smaller <= larger)
    for k in range(len(low)):
        y = inside(rng, low[k], high[k], 50)
        y = y[np.all((y >= low[k]) & (y <= high[k]), axis=1)]
        mine = parent == k
        held = np.all((y[:, None] >= smaller[mine]) & (y[:, None] <= larger[mine]), axis=2)
        assert np.all(held.any(axis=1))


def test_a_deadline_ends_it():
    rng = np.random.default_rng(4)
    price = MomentPrice(rng.standard_normal((9, 3)), rng.standard_normal(9))
    with pytest.raises(OutOfTime):
        price.solve(-np.ones((1, 3)), np.ones((1, 3)), 0.01, deadline=0.0)
