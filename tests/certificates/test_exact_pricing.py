"""Exact prices against all projections, the circle, grids and ascents; never below a value that some u attains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import constraint_at, max_in_cells, max_on_circle, odd_rows

from cvxrelu.certificates.cells import arrange
from cvxrelu.certificates.exact_pricing import exact_price, price_on

seeds = st.integers(0, 10**6)
KINDS = ["plain", "integer", "repeated", "row scales", "column scales", "nearly parallel", "float32"]


def draw(rng, n, rank, kind, d=None):
    """X of the given rank, perhaps inside d columns, and p, perhaps of one sign or with zeros."""
    X = odd_rows(rng, n, rank, kind, column_decades=4, least_apart=1e-13)
    if d is not None:
        X = X @ np.linalg.qr(rng.standard_normal((d, rank)))[0].T
    p = rng.standard_normal(n) * 10.0 ** rng.uniform(-8, 8)
    p = rng.choice([1.0, -1.0]) * np.abs(p) if rng.random() < 0.3 else p
    return X, np.where(rng.random(n) < 0.2, 0.0, p)


def attained(X, p, directions):
    """|p^T (X u)_+| in extended precision, at points just inside the unit ball."""
    u = directions.astype(np.longdouble)
    u = u / np.sqrt(np.sum(u * u, axis=0)) * (1 - np.longdouble(2) ** -60)
    return np.abs(p.astype(np.longdouble) @ np.maximum(X.astype(np.longdouble) @ u, 0))


def near(rng, u):
    """u, and points around it at distances down to rounding."""
    noise = rng.standard_normal((len(u), 120)) * 10.0 ** rng.uniform(-12, 0, size=120)
    return np.concatenate([u[:, None], u[:, None] + noise], axis=1)


@settings(max_examples=100)
@given(st.integers(1, 12), st.integers(1, 3), seeds, st.sampled_from(KINDS), st.booleans())
def test_bounds_what_is_attained(n, rank, seed, kind, embedded):
    rng = np.random.default_rng(seed)
    X, p = draw(rng, n, rank, kind, 6 if embedded else None)
    try:
        price = exact_price(X, p)
    except ValueError as error:
        assert "float64 cannot tell" in str(error) and kind in ("nearly parallel", "row scales", "column scales")
        return
    mass = np.abs(p) @ np.linalg.norm(X, axis=1)
    found = np.concatenate([attained(X, p, rng.standard_normal((X.shape[1], 300))), attained(X, p, X[np.any(X, 1)].T)])
    assert np.longdouble(price.value) >= max(found.max(), attained(X, p, near(rng, price.direction)).max())
    assert price.value - attained(X, p, price.direction[:, None])[0] <= 1e-9 * mass
    np.testing.assert_allclose(np.linalg.norm(price.direction), 1.0, rtol=1e-12)
    np.testing.assert_allclose(attained(X, p, price.directions).astype(float), price.values, rtol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "integer", "repeated"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_equals_the_largest_projection(rank, kind):
    rng = np.random.default_rng(rank)
    for n in (1, 2, 7):
        X, p = draw(rng, n, rank, kind)
        np.testing.assert_allclose(exact_price(X, p).value, max_in_cells(X, p[:, None]), rtol=1e-10)


def test_equals_the_circle():
    rng = np.random.default_rng(0)
    X, p = rng.standard_normal((300, 2)), rng.standard_normal(300)
    np.testing.assert_allclose(exact_price(X, p).value, max_on_circle(X, p[:, None]), rtol=1e-10)
    inside = X @ np.linalg.qr(rng.standard_normal((50, 2)))[0].T
    price = exact_price(inside, p)
    np.testing.assert_allclose(price.value, max_on_circle(X, p[:, None]), rtol=1e-10)
    assert price.direction.shape == (50,)


def test_grid_on_the_sphere():
    rng = np.random.default_rng(1)
    X, p = rng.standard_normal((40, 3)), rng.standard_normal(40)
    height, angle = np.meshgrid(np.linspace(-1, 1, 400), np.linspace(0, 2 * np.pi, 800))
    width = np.sqrt(1 - height**2)
    grid = np.stack([width * np.cos(angle), width * np.sin(angle), height]).reshape(3, -1)
    largest = constraint_at(X, p[:, None], grid).max()
    assert largest <= exact_price(X, p).value <= 1.001 * largest


def ascend(X, p, u, steps=3000):
    """Small steps along the gradient, shrinking: ends near a local maximum of |p^T (X u)_+| on the sphere."""
    u = u / np.linalg.norm(u, axis=0)
    value = constraint_at(X, p[:, None], u)
    length = np.full(u.shape[1], 0.1)
    for _ in range(steps):
        hidden = X @ u
        slope = X.T @ ((hidden > 0) * p[:, None]) * np.sign(p @ np.maximum(hidden, 0))
        slope -= u * np.sum(u * slope, axis=0)
        new = u + length * slope / np.linalg.norm(slope, axis=0)
        new /= np.linalg.norm(new, axis=0)
        found = constraint_at(X, p[:, None], new)
        better = found > value
        u, value = np.where(better, new, u), np.where(better, found, value)
        length = np.where(better, 1.5 * length, 0.7 * length)
    return u, value


@pytest.mark.parametrize("seed", range(4))
def test_directions_are_the_local_maxima(seed):
    rng = np.random.default_rng(seed)
    X, p = rng.standard_normal((15, 3)), rng.standard_normal(15)
    price = exact_price(X, p)
    assert np.all(np.diff(price.values) <= 0) and price.values[0] <= price.value
    np.testing.assert_allclose(price.directions[:, 0], price.direction, atol=1e-9)
    for k, u in enumerate(price.directions.T):
        around = u[:, None] + 1e-5 * rng.standard_normal((3, 500))
        around /= np.linalg.norm(around, axis=0)
        assert constraint_at(X, p[:, None], around).max() < price.values[k]
    # An ascent may stall on a ridge, so those that are still improved on nearby do not count.
    ends, values = ascend(X, p, rng.standard_normal((3, 200)))
    known = np.max(price.directions.T @ ends, axis=0) > 1 - 1e-6
    for u, value in zip(ends[:, ~known].T, values[~known], strict=True):
        around = u[:, None] + 10.0 ** rng.uniform(-9, -1, size=5000) * rng.standard_normal((3, 5000))
        around /= np.linalg.norm(around, axis=0)
        assert constraint_at(X, p[:, None], around).max() > value * (1 - 1e-12)
    assert known.sum() > 20


def test_above_chooses_directions_and_not_the_value():
    rng = np.random.default_rng(2)
    cells = arrange(rng.standard_normal((60, 3)))
    p = rng.standard_normal(60)
    everything, nothing = price_on(cells, p), price_on(cells, p, above=np.inf)
    np.testing.assert_allclose(nothing.value, everything.value, rtol=1e-14)
    assert everything.directions.shape[1] > 3 and nothing.directions.shape == (3, 0)
    middle = price_on(cells, p, above=float(everything.values[2]))
    np.testing.assert_allclose(middle.values, everything.values[:2], rtol=1e-12)
    np.testing.assert_allclose(middle.directions, everything.directions[:, :2], atol=1e-9)


def test_one_arrangement_prices_many():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((30, 3))
    cells = arrange(X)
    for p in rng.standard_normal((3, 30)):
        assert price_on(cells, p).value == exact_price(X, p).value


def test_nothing_to_price():
    assert exact_price(np.zeros((3, 2)), np.ones(3)).value == 0.0
    price = exact_price(np.eye(2), np.zeros(2))
    assert price.value == 0.0 and price.directions.shape == (2, 0) and np.linalg.norm(price.direction) == 1.0
    np.testing.assert_allclose(exact_price(np.array([[0.0, 3.0]]), np.array([-2.0])).value, 6.0, rtol=1e-12)


def test_scales():
    rng = np.random.default_rng(4)
    X, p = rng.standard_normal((20, 3)), rng.standard_normal(20)
    value = exact_price(X, p).value
    for scale in (1e-60, 1e-8, 1e8, 1e60):
        np.testing.assert_allclose(exact_price(scale * X, p).value, scale * value, rtol=1e-12)
        np.testing.assert_allclose(exact_price(X, scale * p).value, scale * value, rtol=1e-12)


def test_bad_input():
    rng = np.random.default_rng(5)
    with pytest.raises(ValueError, match=r"rank at most 3 .* got rank 4"):
        exact_price(rng.standard_normal((9, 4)), np.ones(9))
    with pytest.raises(ValueError, match="more than limit = 100 patterns"):
        exact_price(rng.standard_normal((50, 3)), np.ones(50), limit=100)
    with pytest.raises(ValueError, match=r"p must have shape \(9,\).* got \(8,\)"):
        price_on(arrange(rng.standard_normal((9, 2))), np.ones(8))
    plane = rng.standard_normal((6, 2)) @ rng.standard_normal((2, 3)) + 1e-7 * rng.standard_normal((6, 3))
    with pytest.raises(ValueError, match="float64 cannot tell"):
        exact_price(np.concatenate([plane, plane[:2] + plane[2:4]]), np.ones(8))
