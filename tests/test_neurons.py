"""Neurons: gradients against differences, values against the formula, merging and Caratheodory without any change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import make_backend

from cvxrelu import neurons
from cvxrelu.losses import Squared
from cvxrelu.neurons import Neurons, Terms
from cvxrelu.problem import free_directions

seeds = st.integers(0, 10**6)
NUMPY = make_backend("numpy")


def draw(seed, n=9, d=3, c=1, free=None):
    """A problem with weights, some of them zero; `free` is None, "bias" or "linear"."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, c))
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=(n, 1), p=[0.2, 0.2, 0.4, 0.2])
    weight[0] = 1.0
    return Terms(X, Squared(y, weight, free_directions(X, weight, False, free)), np.asarray(0.3))


def some(seed, d=3, c=1, m=5):
    rng = np.random.default_rng(seed)
    u, a = rng.standard_normal((d, m)), rng.standard_normal((c, m))
    return Neurons(u / np.linalg.norm(u, axis=0), a / np.linalg.norm(a, axis=0), rng.uniform(0.1, 2, m))


def prediction(X, given):
    return np.maximum(X @ given.u, 0) @ (given.s * given.a).T


def free_loss(data, f):
    """min over the free part of sum weight / 2 (f + free - y)^2, by weighted least squares on its raw columns."""
    X, (y, weight, basis), _ = data
    r = np.sqrt(weight) * (y - f)
    if basis is not None:
        columns = np.sqrt(weight) * (
            np.ones((len(X), 1)) if basis.shape[1] == 1 else np.hstack([X, np.ones((len(X), 1))])
        )
        r = r - columns @ np.linalg.lstsq(columns, r)[0]
    return 0.5 * float(np.sum(r * r))


# -- on the device ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("free", [None, "bias", "linear"])
@pytest.mark.parametrize("c", [1, 3])
def test_balanced_objective_and_gradient(c, free):
    data = draw(c, c=c, free=free)
    given = some(c, c=c)
    x = neurons.to_weights(given) * np.random.default_rng(0).uniform(0.5, 2, given.width)
    value, gradient = neurons.balanced(data, x)
    W, A = x[:3], x[3:]
    f = np.maximum(data.X @ W, 0) @ A.T
    assert value == pytest.approx(free_loss(data, f) + 0.15 * np.sum(x * x), rel=1e-12)
    h = 1e-6
    for index in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[index] = h
        slope = (neurons.balanced(data, x + step)[0] - neurons.balanced(data, x - step)[0]) / (2 * h)
        assert gradient[index] == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rows", [9, 3000])
@pytest.mark.parametrize("c", [1, 2])
def test_blocks_of_rows_change_nothing(c, rows, monkeypatch):
    """The objective goes through the rows in blocks that fit a cache."""
    data = draw(0, n=rows, c=c)
    x = neurons.to_weights(some(0, c=c))
    value, gradient = neurons.balanced(data, x)
    monkeypatch.setattr(neurons, "row_blocks", lambda X, width: [slice(0, rows)])
    whole, of_whole = neurons.balanced(data, x)
    assert value == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(gradient, of_whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("free", [None, "linear"])
@pytest.mark.parametrize("c", [1, 2])
def test_state_and_moments(c, free):
    data, given = draw(5, c=c, free=free), some(5, c=c)
    objective, dual = neurons.state(NUMPY, data, *given)
    f = prediction(data.X, given)
    assert objective == pytest.approx(free_loss(data, f) + 0.3 * given.s.sum(), rel=1e-12)
    if free is not None:  # what a free part could still explain is not in the dual variable
        assert np.abs(np.hstack([data.X, np.ones((9, 1))]).T @ dual).max() <= 1e-12
    gram, slope = neurons.moments(NUMPY, data, *given)
    loss = lambda s: free_loss(data, prediction(data.X, given._replace(s=s)))  # noqa: E731
    e, h = np.eye(given.width), 1e-4
    for j in range(given.width):
        up, down = loss(given.s + h * e[j]), loss(given.s - h * e[j])
        assert slope[j] == pytest.approx(-(up - down) / (2 * h), rel=1e-6, abs=1e-7)
        for k in range(given.width):
            mixed = loss(given.s + e[j] + e[k]) - loss(given.s + e[j]) - loss(given.s + e[k]) + loss(given.s)
            assert gram[j, k] == pytest.approx(mixed, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("free", [None, "bias"])
def test_on_every_backend(backend_name, free):
    data, given = draw(6, c=2, free=free), some(6, c=2)
    backend = make_backend(backend_name)
    random = np.random.default_rng(0).standard_normal(9)
    with backend.scope():
        there, arrays = backend.put(data), backend.put(tuple(given))
        for fn in (neurons.state, neurons.moments):
            for got, expected in zip(
                backend.get(backend.compile(fn)(backend, there, *arrays)), fn(NUMPY, data, *given), strict=True
            ):
                np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
        keys = backend.get(backend.compile(neurons.keys)(backend, there, arrays[0], backend.put(random)))
        value, gradient = backend.get(neurons.balanced(there, backend.put(neurons.to_weights(given))))
    np.testing.assert_allclose(keys, neurons.keys(NUMPY, data, given.u, random), rtol=1e-12, atol=1e-14)
    expected = neurons.balanced(data, neurons.to_weights(given))
    np.testing.assert_allclose(value, expected[0], rtol=1e-12)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-10, atol=1e-12)


# -- on the host -----------------------------------------------------------------------------------------------------
@given(seeds, st.integers(1, 3), st.integers(1, 6))
def test_weights_there_and_back(seed, c, m):
    given = some(seed, c=c, m=m)
    x = neurons.to_weights(given)
    np.testing.assert_allclose(np.linalg.norm(x[:3], axis=0), np.linalg.norm(x[3:], axis=0), rtol=1e-12)
    again = neurons.from_weights(x, 3)
    for one, other in zip(again, given, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    unbalanced = x * np.concatenate([np.full((3, m), 4.0), np.full((c, m), 0.25)])
    np.testing.assert_allclose(neurons.from_weights(unbalanced, 3).s, given.s, rtol=1e-12)


def test_dead_neurons_are_dropped():
    given = some(1, m=4).padded(7)
    x = neurons.to_weights(given)
    assert given.width == 7 and not x[:, 4:].any()
    assert neurons.from_weights(x, 3).width == 4
    assert neurons.from_weights(0 * x, 3).width == 0
    assert neurons.from_weights(np.zeros((4, 0)), 3).width == 0
    one_sided = x.copy()
    one_sided[3:, 0] = 0.0
    assert neurons.from_weights(one_sided, 3).width == 3


@settings(max_examples=40)
@given(seeds, st.integers(1, 2))
def test_merging_keeps_the_function_and_does_not_raise_the_penalty(seed, c):
    """Few rows, hence many neurons of one pattern; second layers from a small set, so that some are parallel."""
    rng = np.random.default_rng(seed)
    data, given = draw(seed, n=3, d=2, c=c), some(seed, d=2, c=c, m=12)
    directions = rng.standard_normal((c, 2))
    directions = np.concatenate([directions, -directions], axis=1)
    directions /= np.linalg.norm(directions, axis=0)
    given = given._replace(a=directions[:, rng.integers(4, size=12)])
    key = neurons.keys(NUMPY, data, given.u, rng.standard_normal(3))
    merged = neurons.merge(given, key)
    np.testing.assert_allclose(prediction(data.X, merged), prediction(data.X, given), atol=1e-10)
    assert merged.s.sum() <= given.s.sum() * (1 + 1e-12)
    np.testing.assert_allclose(np.linalg.norm(merged.u, axis=0), 1.0, rtol=1e-12)
    patterns = data.X @ given.u > 0
    groups = {(*patterns[:, j], *given.a[:, j].round(9)) for j in range(12)}
    assert merged.width == len(groups)
    assert neurons.merge(merged, neurons.keys(NUMPY, data, merged.u, rng.standard_normal(3))) is merged


def test_opposite_signs_are_not_merged():
    given = Neurons(np.ones((1, 2)), np.array([[1.0, -1.0]]), np.ones(2))
    assert neurons.merge(given, np.zeros(2)).width == 2


@settings(max_examples=40)
@given(seeds, st.integers(1, 4), st.integers(1, 3), st.sampled_from([1e-20, 1.0, 1e20]))
def test_caratheodory_keeps_predictions_and_penalty(seed, n, c, scale):
    data, given = draw(seed, n=n, c=c), some(seed, c=c, m=30)
    X = scale * data.X
    reduced = neurons.reduce_count(given, X)
    assert reduced.width <= n * c + 1
    size = scale * max(1.0, np.abs(data.X).max()) * given.s.sum()
    np.testing.assert_allclose(prediction(X, reduced), prediction(X, given), atol=1e-11 * size)
    assert reduced.s.sum() == pytest.approx(given.s.sum(), rel=1e-11)
    assert np.all(reduced.s > 0)
    again = neurons.reduce_count(reduced, X)
    assert again is reduced


def test_caratheodory_with_zero_rows_and_equal_neurons():
    given = some(3, m=8)
    given = given.join(given)
    reduced = neurons.reduce_count(given, np.zeros((2, 3)))
    assert reduced.width <= 3 and reduced.s.sum() == pytest.approx(given.s.sum(), rel=1e-12)
