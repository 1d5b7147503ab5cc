"""The multinomial loss: its proximal map by its optimality condition and by SciPy, its derivative and conjugate."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from oracles import make_backend

from cvxrelu.numerics.roots import wright_omega
from cvxrelu.program.multinomial import Multinomial


def draw(rng, c, scale=1.0, n=12):
    weight = rng.choice([0.0, 0.5, 1.0, 20.0], size=(n, 1))
    return Multinomial(np.eye(c)[rng.integers(c, size=n)], weight, scale * rng.standard_normal((n, c)))


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(-6, 6), st.floats(-6, 6))
def test_prox_satisfies_its_condition(seed, c, scale, rho):
    """rho (a - v) = minus the derivative at a, up to what rounding of a does to it."""
    rng, rho = np.random.default_rng(seed), 10.0**rho
    loss, v = draw(rng, c), 10.0**scale * rng.standard_normal((12, c))
    a = loss.prox(v, rho)
    size = np.abs(a).max(axis=1, keepdims=True) + np.abs(v).max(axis=1, keepdims=True) + np.abs(loss.offset).max()
    allowance = 1e-13 * (size * (rho + loss.weight) + loss.weight * np.maximum(1.0, loss.weight / rho))
    assert np.all(np.abs(rho * (a - v) - loss.dual(a)) <= allowance)
    np.testing.assert_array_equal(a[loss.weight[:, 0] == 0], v[loss.weight[:, 0] == 0])
    np.testing.assert_allclose(a.sum(axis=1), v.sum(axis=1), atol=1e-12 * c * size.max())


@pytest.mark.parametrize("rho", [0.1, 1.0, 10.0])
def test_prox_is_the_minimiser(rho):
    rng = np.random.default_rng(1)
    loss, v = draw(rng, 3, n=4), rng.standard_normal((4, 3))
    a = loss.prox(v, rho)

    def objective(flat):
        b = flat.reshape(v.shape)
        return loss.value(b) + 0.5 * rho * np.sum((b - v) ** 2)

    found = scipy.optimize.minimize(objective, v.reshape(-1), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(a.reshape(-1), found.x, atol=1e-5)
    assert objective(a.reshape(-1)) <= found.fun + 1e-12


def test_prox_with_a_rho_for_every_row(backend_name):
    backend, rng = make_backend(backend_name), np.random.default_rng(2)
    loss, v, rho = draw(rng, 4), rng.standard_normal((12, 4)), 10.0 ** rng.uniform(-2, 2, (12, 1))
    expected = np.concatenate(
        [Multinomial(*(part[k : k + 1] for part in loss)).prox(v[k : k + 1], rho[k, 0]) for k in range(12)]
    )
    with backend.scope():
        on_device, *rest = backend.put((loss, v, rho))
        got = backend.get(backend.compile(_prox)(backend, on_device, *rest))
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)
    narrow = Multinomial(*(part.astype(np.float32) for part in loss))
    single = narrow.prox(v.astype(np.float32), rho.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-4)


def _prox(backend, loss, v, rho):
    return loss.prox(v, rho)


def test_wright_omega(backend_name):
    backend = make_backend(backend_name)
    x = np.concatenate([np.linspace(-800, 100, 3001), np.linspace(-60, 3, 3001), 10.0 ** np.arange(3, 300, 9.0)])
    with backend.scope():
        got = backend.get(wright_omega(backend.put(x)))
    np.testing.assert_allclose(got, scipy.special.wrightomega(x), rtol=1e-14, atol=1e-300)
    single = x[np.abs(x) < 80].astype(np.float32)
    np.testing.assert_allclose(wright_omega(single), scipy.special.wrightomega(single.astype(float)), rtol=2e-5)


def test_dual_is_minus_the_derivative():
    rng = np.random.default_rng(3)
    loss, a, direction = draw(rng, 4), rng.standard_normal((12, 4)), rng.standard_normal((12, 4))
    h = 1e-6
    slope = (loss.value(a + h * direction) - loss.value(a - h * direction)) / (2 * h)
    assert slope == pytest.approx(-np.sum(loss.dual(a) * direction), rel=1e-7)
    bend = -(loss.dual(a + h * direction) - loss.dual(a - h * direction)) / (2 * h)
    np.testing.assert_allclose(loss.hessian_product(a, direction), bend, atol=1e-7)


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_the_conjugate_bounds_the_value(seed, c):
    """D(t) <= loss(a) + t @ a for every a, with equality where t is the dual of a."""
    rng = np.random.default_rng(seed)
    loss, a, b = draw(rng, c), *(rng.standard_normal((2, 12, c)) * 10.0 ** rng.uniform(-2, 1))
    t = loss.dual(a)
    assert float(loss.dual_value(t)[0]) == pytest.approx(float(loss.value(a)) + np.sum(t * a), rel=1e-9, abs=1e-9)
    assert float(loss.dual_value(t)[0]) <= float(loss.value(b)) + np.sum(t * b) + 1e-9
