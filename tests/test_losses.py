"""The squared loss: its derivative, its conjugate (Fenchel-Young), the best multiples of a dual or of a prediction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import make_backend
from scipy.optimize import minimize_scalar

from cvxrelu.losses import Squared

seeds = st.integers(0, 10**6)


def draw(seed, n=5):
    """A loss with weights that may vanish, a prediction a, and a t that vanishes with the weights."""
    rng = np.random.default_rng(seed)
    c = int(rng.integers(1, 4))
    weight = rng.choice([0.0, 0.3, 1.0, 4.0], size=(n, 1))
    y, a, t = rng.standard_normal((3, n, c)) * 10.0 ** rng.integers(-2, 3)
    return Squared(y, weight), a, np.where(weight > 0, t, 0.0)


@given(seeds)
def test_dual_is_minus_the_derivative(seed):
    loss, a, _ = draw(seed)
    t, step = loss.dual(a), 1e-4 * (1 + np.abs(a).max())
    for index in np.ndindex(a.shape):
        shift = np.zeros_like(a)
        shift[index] = step
        slope = (loss.value(a + shift) - loss.value(a - shift)) / (2 * step)  # exact for a quadratic
        np.testing.assert_allclose(t[index], -slope, rtol=1e-6, atol=1e-6 * (1 + np.abs(t).max()))
        bend = (loss.value(a + shift) + loss.value(a - shift) - 2 * loss.value(a)) / step**2
        scale = 1e-7 * (1 + loss.value(a) / step**2)
        np.testing.assert_allclose(np.broadcast_to(loss.curvature, a.shape)[index], bend, rtol=1e-5, atol=scale)
    np.testing.assert_array_equal(loss.dual(loss.target), 0.0)


@given(seeds)
def test_fenchel_young(seed):
    """value(a) + conjugate(-t) >= -<a, t>, with equality exactly at t = dual(a); conjugate(-t) = -D(t)."""
    loss, a, t = draw(seed)
    for dual, equal in ((t, False), (loss.dual(a), True)):
        bound, magnitude = loss.dual_value(dual)
        excess = loss.value(a) - bound + np.sum(a * dual)
        rounding = 1e-12 * (loss.value(a) + magnitude + np.sum(np.abs(a * dual)))
        assert excess >= -rounding
        assert magnitude >= abs(bound)
        if equal:
            assert excess <= rounding
    terms = loss.dual_terms(t)
    np.testing.assert_allclose(np.sum(terms[0]) - np.sum(terms[1]) / 2, loss.dual_value(t)[0], rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(seeds, st.sampled_from([0.0, 0.1, 1.0, 30.0]))
def test_best_dual_scale(seed, limit):
    loss, _, t = draw(seed)
    value = lambda kappa: loss.dual_value(kappa * t)[0]  # noqa: E731
    common = loss.best_dual_scale(t, np.asarray(limit))
    assert common.shape == () and 0 <= common <= limit
    if limit > 0:
        found = minimize_scalar(lambda kappa: -value(kappa), bounds=(0, limit), method="bounded")
        assert value(common) >= -found.fun - 1e-9 * (1 + abs(found.fun))

    limits = limit * np.linspace(0.5, 1.0, t.shape[1])
    each = loss.best_dual_scale(t, limits)
    assert each.shape == limits.shape and np.all((each >= 0) & (each <= limits))
    for k in range(t.shape[1]):
        alone = Squared(loss.y[:, [k]], loss.weight)
        np.testing.assert_allclose(each[k], alone.best_dual_scale(t[:, [k]], limits[k]), rtol=1e-12)
    assert loss.best_dual_scale(0 * t, np.asarray(np.inf)) == 0


@settings(max_examples=30)
@given(seeds, st.sampled_from([0.0, 0.5, 20.0, 1e6]))
def test_best_scale(seed, penalty):
    loss, a, _ = draw(seed)
    value = lambda s: loss.value(s * a) + s * penalty  # noqa: E731
    s = float(loss.best_scale(a, penalty))
    assert s >= 0
    top = 2 * s + 1
    found = minimize_scalar(value, bounds=(0, top), method="bounded")
    assert value(s) <= found.fun + 1e-9 * (1 + abs(found.fun))
    assert loss.best_scale(0 * a, penalty) == 0


def test_zero_weights_leave_a_row_out():
    loss, a, t = draw(3)
    weight = np.array([[0.0], [1.0], [0.0], [2.0], [1.0]])
    some, rows = Squared(loss.y, weight), weight[:, 0] > 0
    fewer = Squared(loss.y[rows], weight[rows])
    t = np.where(weight > 0, t, 0.0)
    assert not some.dual(a)[~rows].any()
    np.testing.assert_allclose(some.value(a), fewer.value(a[rows]))
    np.testing.assert_allclose(some.dual_value(t), fewer.dual_value(t[rows]))
    np.testing.assert_allclose(some.best_scale(a, 0.1), fewer.best_scale(a[rows], 0.1))
    nothing = Squared(loss.y, 0 * weight)
    assert nothing.value(a) == 0 and nothing.best_scale(a, 0.1) == 0 and not nothing.dual(a).any()
    assert nothing.best_dual_scale(nothing.dual(a), np.asarray(1.0)) == 0


def everything(backend, loss, a, t, limits, limit):
    """All methods, as one function of module level that a backend can compile."""
    scales = (loss.best_dual_scale(t, limits), loss.best_dual_scale(t, limit), loss.best_scale(a, limit))
    return (loss.value(a), loss.dual(a), *loss.dual_value(t), *loss.dual_terms(t), *scales)


@pytest.mark.parametrize("name", ["jax", "strict"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_backend(name, dtype):
    backend, (loss, a, t) = make_backend(name), draw(5)
    limits, limit = np.ones(t.shape[1]), np.asarray(0.5)
    with backend.scope():
        got = backend.get(backend.compile(everything)(backend, *backend.put((loss, a, t, limits, limit), dtype)))
    for value, expected in zip(got, everything(None, loss, a, t, limits, limit), strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, expected, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=1e-4)
