"""The multinomial loss: derivatives, conjugate, best multiples, Hessians, on every backend and at any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import check_best_scale, make_backend

from cvxrelu.program.losses import Logistic
from cvxrelu.program.multinomial import Multinomial

seeds = st.integers(0, 10**6)


def draw(seed, n=6, c=None):
    """A loss with weights that may vanish and an offset, a prediction, and a t of the dual domain."""
    rng = np.random.default_rng(seed)
    c = int(rng.integers(2, 5)) if c is None else c
    weight = rng.choice([0.0, 0.3, 1.0, 4.0], size=(n, 1))
    weight[0] = 1.0
    Y = np.eye(c)[rng.integers(c, size=n)]
    offset = rng.standard_normal((n, c)) * rng.choice([0.0, 1.0, 30.0])
    q = rng.random((n, c)) ** rng.choice([0.3, 1.0, 20.0])
    q /= q.sum(axis=1, keepdims=True)
    others = (1.0 - Y) * q
    t = weight * (Y * np.minimum(others.sum(axis=1, keepdims=True), 1.0) - others)
    return Multinomial(Y, weight, offset), rng.standard_normal((n, c)) * 10.0 ** rng.integers(-2, 3), t


def long_value(loss, a):
    """Value in extended precision, by the textbook's formula."""
    b = (a + loss.offset).astype(np.longdouble)
    top = b.max(axis=1, keepdims=True)
    sums = np.log(np.exp(b - top).sum(axis=1, keepdims=True)) - np.sum(loss.y * (b - top), axis=1, keepdims=True)
    return np.sum(loss.weight * sums)


@given(seeds)
def test_value_and_derivatives(seed):
    loss, a, _ = draw(seed)
    assert float(loss.value(a)) == pytest.approx(float(long_value(loss, a)), rel=1e-13, abs=1e-18)
    t, h = loss.dual(a), 1e-4
    hessian = np.zeros((a.size, a.size))
    for i, index in enumerate(np.ndindex(a.shape)):
        e = np.zeros_like(a)
        e[index] = 1.0
        slope = (long_value(loss, a + h * e) - long_value(loss, a - h * e)) / (2 * h)
        assert t[index] == pytest.approx(-float(slope), rel=1e-6, abs=1e-9)
        of_e = loss.hessian_product(a, e)
        np.testing.assert_allclose(of_e, (loss.dual(a - h * e) - loss.dual(a + h * e)) / (2 * h), rtol=1e-6, atol=1e-8)
        hessian[i] = of_e.ravel()
    np.testing.assert_array_less(np.abs(t.sum(axis=1)), 4e-16 * (1 + np.abs(t).max(axis=1)) * a.shape[1])
    assert np.linalg.eigvalsh(hessian).max() <= loss.curvature.max() * (1 + 1e-12)
    assert np.linalg.eigvalsh(hessian).min() >= -1e-12


@given(seeds, st.integers(1, 6))
def test_gram_is_the_hessian_of_columns(seed, m):
    loss, a, _ = draw(seed)
    rng = np.random.default_rng(seed)
    hidden, second = rng.standard_normal((len(a), m)), rng.standard_normal((a.shape[1], m))
    columns = [hidden[:, [j]] * second[:, j] for j in range(m)]
    expected = [[np.sum(u * loss.hessian_product(a, v)) for v in columns] for u in columns]
    np.testing.assert_allclose(loss.gram(a, hidden, second), expected, rtol=1e-9, atol=1e-10)
    shift = rng.standard_normal(a.shape)
    assert float(loss.shifted(shift).value(a)) == pytest.approx(float(loss.value(a + shift)), rel=1e-12)


@given(seeds)
def test_fenchel_young(seed):
    """value(a) - D(t) + <a, t> >= 0, with equality exactly at t = dual(a)."""
    loss, a, t = draw(seed)
    for dual, equal in ((t, False), (loss.dual(a), True)):
        bound, magnitude = loss.dual_value(dual)
        assert np.isfinite(bound)
        excess = loss.value(a) - bound + np.sum(a * dual)
        rounding = 1e-14 * (loss.value(a) + magnitude + np.sum(np.abs(a * dual)) + np.sum(np.abs(loss.offset * dual)))
        assert excess >= -rounding
        assert magnitude >= abs(bound) - rounding
        if equal:
            assert excess <= rounding


def test_small_losses_and_bounds_keep_their_digits():
    """Far on the right side both are about exp(-lead): no rounding of numbers near one is left in them."""
    Y, weight = np.eye(3)[[0, 1]], np.ones((2, 1))
    loss, a = Multinomial(Y, weight, 0 * Y), 40.0 * Y
    assert float(loss.value(a)) == pytest.approx(4 * np.exp(-40.0), rel=1e-12)
    bound, _ = loss.dual_value(loss.dual(a))
    assert float(bound) == pytest.approx(4 * np.exp(-40.0) * 41, rel=1e-12)


@given(seeds)
def test_outside_the_domain_nothing_is_proved(seed):
    loss, _, t = draw(seed)
    one = np.eye(t.shape[1])[0]
    for wrong in (-t - 0.1 * loss.weight * loss.y, t + 0.01 * loss.weight * one, 1.01 * loss.weight * loss.y,
                  t + (loss.weight == 0) * (one - loss.y)):  # fmt: skip
        if np.array_equal(wrong, t):
            continue
        assert loss.dual_value(wrong)[0] == -np.inf
    assert loss.best_dual_scale(-(t + loss.weight * (loss.y - one)), np.asarray(1.0)) == 0 or (loss.y == one).all()
    assert loss.best_dual_scale(0 * t, np.asarray(np.inf)) == 0


@settings(max_examples=40)
@given(seeds, st.sampled_from([0.0, 1e-3, 1.0, np.inf]), st.sampled_from([0.0, 1e-6, 1.0, 1e12]))
def test_best_dual_scale(seed, limit, quadratic):
    loss, _, t = draw(seed)
    value = lambda kappa: loss.dual_value(kappa * t)[0] - kappa**2 * quadratic / 2  # noqa: E731
    found = float(loss.best_dual_scale(t, np.asarray(limit), quadratic))
    share = (t / np.where(loss.weight > 0, loss.weight, 1.0)).max()
    top = min(limit, 1 / max(share, 1e-300))
    assert 0 <= found <= top
    assert np.isfinite(value(found))
    if limit == 0 or not t.any():
        assert found == 0
        return
    grid = np.concatenate([found * (1 + np.linspace(-1, 3, 201)), found * (1 - np.geomspace(1e-6, 0.5, 9)),
                           top * np.geomspace(1e-30, 1, 60) if np.isfinite(top) else [1.0]])  # fmt: skip
    best = max(value(kappa) for kappa in grid[(grid <= top) & (grid >= 0)])
    # the search ends at kappa of 1e-38, where nothing is left to be proved
    allowed = 1e-9 * (loss.dual_value(found * t)[1] + found**2 * quadratic) + 1e-30 * loss.weight.sum()
    assert value(found) >= best - allowed


@settings(max_examples=40)
@given(seeds, st.sampled_from([0.0, 1e-3, 1.0, 1e6]))
def test_best_scale(seed, penalty):
    loss, a, _ = draw(seed)
    check_best_scale(loss, a, penalty)


@given(seeds)
def test_two_classes_are_the_logistic_loss(seed):
    loss, a, t = draw(seed, c=2)
    sign = 2 * loss.y[:, 1:] - 1
    logistic = Logistic(sign, loss.weight, -sign * (loss.offset[:, 1:] - loss.offset[:, :1]))
    difference = a[:, 1:] - a[:, :1]
    assert float(loss.value(a)) == pytest.approx(float(logistic.value(difference)), rel=1e-12)
    np.testing.assert_allclose(loss.dual(a)[:, 1:], logistic.dual(difference), rtol=1e-9, atol=1e-15)
    bound, magnitude = loss.dual_value(t)
    other, _ = logistic.dual_value(t[:, 1:])
    assert float(bound) == pytest.approx(float(other), abs=1e-13 * float(magnitude))


@pytest.mark.parametrize("size", [1e6, 1e40])
def test_far_out(size):
    """Nothing overflows (warnings are errors here), and limits are attained."""
    Y, weight = np.eye(3)[[0, 1, 2, 0]], np.ones((4, 1))
    a = size * np.array([[1.0, 0.0, -1.0], [1.0, 0.0, 0.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 1.0]])
    loss = Multinomial(Y, weight, 0 * Y)
    assert float(loss.value(a)) == pytest.approx(2 * size + np.log(3), rel=1e-15)
    expected = np.array([[0, 0, 0], [-1, 1, 0], [-1 / 3, -1 / 3, 2 / 3], [1, 0, -1.0]])
    np.testing.assert_allclose(loss.dual(a), expected, atol=1e-15)
    bound, _ = loss.dual_value(loss.dual(a))
    assert float(loss.value(a) - bound + np.sum(a * loss.dual(a))) == pytest.approx(0, abs=1e-15 * size)
    assert np.isfinite([loss.best_scale(a, 1.0), loss.best_dual_scale(loss.dual(a), np.asarray(np.inf), 1.0)]).all()
    assert not loss.hessian_product(a, Y)[[0, 1, 3]].any()


def test_a_common_shift_of_the_outputs_changes_nothing():
    loss, a, _ = draw(1)
    for shift in (1.0, 1e6):
        assert float(loss.value(a + shift)) == pytest.approx(float(loss.value(a)), rel=1e-9)


def test_zero_weights_leave_a_row_out():
    loss, a, _ = draw(3, c=3)
    weight = np.array([[0.0], [1.0], [0.0], [2.0], [1.0], [1.0]])
    some, rows = loss._replace(weight=weight), weight[:, 0] > 0
    fewer = Multinomial(*(array[rows] for array in some))
    t, limit = some.dual(a), np.asarray(np.inf)
    assert not t[~rows].any() and not some.hessian_product(a, a)[~rows].any()
    np.testing.assert_allclose(some.value(a), fewer.value(a[rows]))
    np.testing.assert_allclose(some.dual_value(t), fewer.dual_value(t[rows]))
    np.testing.assert_allclose(some.best_scale(a, 0.1), fewer.best_scale(a[rows], 0.1))
    np.testing.assert_allclose(some.best_dual_scale(t, limit, 0.1), fewer.best_dual_scale(t[rows], limit, 0.1))


def everything(backend, loss, a, t, limit):
    """All methods, as one function of module level that a backend can compile."""
    scales = (loss.best_dual_scale(t, limit), loss.best_dual_scale(t, limit, 0.5), loss.best_scale(a, limit))
    hidden = a[:, :2]
    matrices = (loss.hessian_product(a, a), loss.gram(a, hidden, a[:3, :2]))
    return (loss.value(a), loss.dual(a), *loss.dual_value(t), *scales, *matrices, loss.shifted(a).value(a))


@pytest.mark.parametrize("name", ["jax", "strict"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_backend(name, dtype):
    backend, (loss, a, t) = make_backend(name), draw(5, c=3)
    with backend.scope():
        arguments = backend.put((loss, a, 0.9 * t, np.asarray(0.5)), dtype)
        got = backend.get(backend.compile(everything)(backend, *arguments))
    expected = everything(None, loss, a, 0.9 * t, np.asarray(0.5))
    for i, (value, wanted) in enumerate(zip(got, expected, strict=True)):
        assert value.dtype == dtype
        if i == 2 and dtype == np.float32:
            continue  # a float64 t in the simplex need not be one of float32
        np.testing.assert_allclose(value, wanted, rtol=1e-4 if dtype == np.float32 else 1e-10, atol=1e-4)


def test_the_hessian_is_semidefinite_far_out():
    """Where almost all is classified right, it is a difference of nearly equal numbers if taken as one."""
    rng = np.random.default_rng(1)
    for reach in (1.0, 10.0, 30.0):
        a = reach * np.eye(3)[rng.integers(3, size=20)] + 0.1 * rng.standard_normal((20, 3))
        loss = Multinomial(np.eye(3)[a.argmax(axis=1)], np.ones((20, 1)), np.zeros((20, 3)))
        hidden, second = rng.standard_normal((20, 6)), rng.standard_normal((3, 6))
        H = loss.gram(a, hidden, second)
        root = np.sqrt(np.diagonal(H))
        assert np.linalg.eigvalsh(H / root / root[:, None]).min() >= -1e-13
        v = rng.standard_normal(6)
        along = loss.hessian_product(a, (hidden * v) @ second.T)
        np.testing.assert_allclose(H @ v, np.einsum("nm,nc,cm->m", hidden, along, second), rtol=1e-9)
