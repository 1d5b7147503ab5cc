"""Losses: derivatives, conjugates (Fenchel-Young), the best multiples of a dual or of a prediction, prox."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import check_best_scale, make_backend
from scipy.optimize import minimize_scalar

from cvxrelu.program.losses import Logistic, Squared

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
    np.testing.assert_array_equal(loss.dual(loss.y), 0.0)


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


# -- logistic ---------------------------------------------------------------------------------------------------------
def draw_logistic(seed, n=6, c=None):
    """A loss with weights that may vanish and margins of both signs, a prediction, and an s in [0, 1] per entry."""
    rng = np.random.default_rng(seed)
    c = int(rng.integers(1, 4)) if c is None else c
    weight = rng.choice([0.0, 0.3, 1.0, 4.0], size=(n, 1))
    weight[0] = 1.0
    scale = 10.0 ** rng.integers(-2, 3)
    y, a = rng.choice([-1.0, 1.0], size=(n, c)), scale * rng.standard_normal((n, c))
    margin = 10.0 ** rng.integers(-1, 3) * rng.standard_normal((n, 1))
    s = rng.choice([0.0, 1e-9, 1.0], size=(n, c), p=[0.1, 0.1, 0.8]) * rng.random((n, c))
    return Logistic(y, weight, margin), a, s


def long_value(loss, a):
    """Value in extended precision, by the textbook's formula."""
    u = (loss.margin - loss.y * a).astype(np.longdouble)
    return np.sum(loss.weight * np.logaddexp(np.longdouble(0), u))


@given(seeds)
def test_logistic_value_and_derivatives(seed):
    loss, a, _ = draw_logistic(seed)
    assert float(loss.value(a)) == pytest.approx(float(long_value(loss, a)), rel=1e-14, abs=1e-300)
    t, h, step = loss.dual(a), loss.hessian(a), np.longdouble(1e-4)
    for index in np.ndindex(a.shape):
        shift = np.zeros(a.shape, np.longdouble)
        shift[index] = step
        above, below = long_value(loss, a + shift), long_value(loss, a - shift)
        rounding = 1e-18 * float(above) / float(step)
        assert t[index] == pytest.approx(float(-(above - below) / (2 * step)), rel=1e-7, abs=1e-12 + rounding)
        near = np.asarray(shift, np.float64)
        bend = (loss.dual(a - near) - loss.dual(a + near))[index] / (2 * step)
        assert h[index] == pytest.approx(float(bend), rel=1e-6, abs=1e-11)
    assert np.all(h <= loss.curvature * (1 + 1e-15)) and np.all(h >= 0)
    flat = Logistic(loss.y, loss.weight, 0 * loss.margin)
    np.testing.assert_allclose(flat.hessian(0 * a), np.broadcast_to(loss.curvature, a.shape))  # and is attained


@given(seeds)
def test_logistic_fenchel_young(seed):
    loss, a, s = draw_logistic(seed)
    for dual, equal in ((loss.weight * loss.y * s, False), (loss.dual(a), True)):
        bound, magnitude = loss.dual_value(dual)
        excess = loss.value(a) - bound + np.sum(a * dual)
        rounding = 1e-14 * (loss.value(a) + magnitude + np.sum(np.abs(a * dual)))
        assert excess >= -rounding
        assert magnitude >= abs(bound) - rounding
        if equal:
            assert excess <= rounding


@given(seeds)
def test_logistic_dual_outside_its_domain_proves_nothing(seed):
    loss, a, _ = draw_logistic(seed)
    inside = loss.dual(a)
    for wrong in (inside + 1.01 * loss.weight * loss.y + (loss.weight == 0), -loss.y * (loss.weight + 1e-3)):
        assert loss.dual_value(wrong)[0] == -np.inf
    assert loss.best_dual_scale(-loss.y * (loss.weight + 1e-3), np.asarray(1.0)) == 0
    assert loss.best_dual_scale(0 * a, np.asarray(np.inf)) == 0
    assert loss.best_dual_scale(inside + (loss.weight == 0), np.asarray(np.inf)) == 0 or (loss.weight > 0).all()


@settings(max_examples=40)
@given(seeds, st.sampled_from([0.0, 1e-3, 1.0, np.inf]), st.sampled_from([0.0, 1e-6, 1.0, 1e12]))
def test_logistic_best_dual_scale(seed, limit, quadratic):
    loss, _, s = draw_logistic(seed)
    t = loss.weight * loss.y * s
    value = lambda kappa: loss.dual_value(kappa * t)[0] - kappa**2 * quadratic / 2  # noqa: E731
    common = float(loss.best_dual_scale(t, np.asarray(limit), quadratic))
    top = min(limit, 1 / s[loss.weight[:, 0] > 0].max(initial=1e-300))
    assert 0 <= common <= top
    if limit == 0 or not t.any():
        assert common == 0
        return
    grid = common * np.concatenate(
        [np.linspace(0, 3, 301), 1 + np.geomspace(1e-6, 1, 20), 1 - np.geomspace(1e-6, 1, 9)]
    )
    best = max(value(kappa) for kappa in [*grid[grid <= top], 1e-3 * top, 0.5 * top])
    assert value(common) >= best - 1e-9 * loss.dual_value(common * t)[1] - 1e-300
    each = loss.best_dual_scale(t, np.full(t.shape[1], limit), quadratic)
    for k in range(t.shape[1]):
        alone = Logistic(loss.y[:, [k]], loss.weight, loss.margin)
        np.testing.assert_allclose(each[k], alone.best_dual_scale(t[:, [k]], np.asarray(limit), quadratic), rtol=1e-9)


@settings(max_examples=40)
@given(seeds, st.sampled_from([0.0, 1e-3, 1.0, 1e6]))
def test_logistic_best_scale(seed, penalty):
    loss, a, _ = draw_logistic(seed)
    check_best_scale(loss, a, penalty)


@settings(max_examples=40)
@given(seeds, st.sampled_from([1e-6, 1e-2, 1.0, 1e3]))
def test_logistic_prox(seed, rho):
    loss, v, _ = draw_logistic(seed)
    a = loss.prox(v, rho)
    scale = np.abs(rho * v) + np.abs(rho * a) + loss.weight + rho * np.abs(loss.margin)
    np.testing.assert_array_less(np.abs(rho * (a - v) - loss.dual(a)), 1e-13 * scale + 1e-300)


def test_logistic_far_out():
    """Arguments up to 1e6 of both signs: nothing overflows (warnings are errors here), and limits are attained."""
    y, weight, margin = np.ones((6, 1)), np.ones((6, 1)), np.zeros((6, 1))
    loss, a = Logistic(y, weight, margin), np.array([[-1e6], [-750.0], [-40.0], [40.0], [750.0], [1e6]])
    assert float(loss.value(a)) == pytest.approx(1e6 + 750 + 40, rel=1e-15)
    np.testing.assert_allclose(loss.dual(a)[:, 0], [1, 1, 1, np.exp(-40), 0, 0], atol=1e-30, rtol=1e-12)
    np.testing.assert_allclose(loss.hessian(a)[:, 0], [0, 0, np.exp(-40), np.exp(-40), 0, 0], atol=1e-30)
    bound, _ = loss.dual_value(loss.dual(a))
    assert float(loss.value(a) - bound + np.sum(a * loss.dual(a))) == pytest.approx(0, abs=1e-9)
    for margins in (1e6, -1e6):
        shifted = Logistic(y, weight, margin + margins)
        far = shifted.prox(a, 1e-6)
        slopes = 1e-6 * (far - a) - shifted.dual(far)
        np.testing.assert_allclose(slopes, 0, atol=1e-9)
        assert np.isfinite([shifted.value(a), shifted.best_scale(a, 1.0), *shifted.dual_value(shifted.dual(a))]).all()


def test_logistic_zero_weights_leave_a_row_out():
    loss, a, _ = draw_logistic(3, c=2)
    weight = np.array([[0.0], [1.0], [0.0], [2.0], [1.0], [1.0]])
    some, rows = loss._replace(weight=weight), weight[:, 0] > 0
    fewer = Logistic(*(array[rows] for array in some))
    t, limit = some.dual(a), np.asarray(np.inf)
    assert not t[~rows].any() and not some.hessian(a)[~rows].any()
    np.testing.assert_allclose(some.value(a), fewer.value(a[rows]))
    np.testing.assert_allclose(some.dual_value(t), fewer.dual_value(t[rows]))
    np.testing.assert_allclose(some.best_scale(a, 0.1), fewer.best_scale(a[rows], 0.1))
    np.testing.assert_allclose(some.best_dual_scale(t, limit, 0.1), fewer.best_dual_scale(t[rows], limit, 0.1))
    np.testing.assert_array_equal(some.prox(a, 1.0)[~rows], a[~rows])


def everything_logistic(backend, loss, a, t, limits, limit):
    scales = (loss.best_dual_scale(t, limits), loss.best_dual_scale(t, limit, 0.5), loss.best_scale(a, limit))
    return (loss.value(a), loss.dual(a), loss.hessian(a), *loss.dual_value(t), *scales, loss.prox(a, limit))


@pytest.mark.parametrize("name", ["jax", "strict"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logistic_on_every_backend(name, dtype):
    backend, (loss, a, s) = make_backend(name), draw_logistic(5, c=2)
    arguments = (loss, a, 0.9 * loss.weight * loss.y * s, np.ones(2), np.asarray(0.5))
    with backend.scope():
        got = backend.get(backend.compile(everything_logistic)(backend, *backend.put(arguments, dtype)))
    for value, expected in zip(got, everything_logistic(None, *arguments), strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, expected, rtol=1e-4 if dtype == np.float32 else 1e-10, atol=1e-4)
