"""Neurons: gradients against differences, values against the formula, merging and Caratheodory without any change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import make_backend

from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.multinomial import Multinomial
from cvxrelu.program.readout import make_pairs, read
from cvxrelu.program.skip import free_directions, skip_columns
from cvxrelu.refinement import neurons
from cvxrelu.refinement.neurons import Neurons, Terms

seeds = st.integers(0, 10**6)
NUMPY = make_backend("numpy")
PAIRS = np.array([[0, 1], [1, 2], [4, 0], [8, 3], [8, 3], [3, 8]])
LOSSES = ("squared", "logistic", "multinomial")


def draw(seed, n=9, d=3, c=1, free=None):
    """A squared problem with weights, some of them zero; `free` is None, "bias" or "linear"."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, c))
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=(n, 1), p=[0.2, 0.2, 0.4, 0.2])
    weight[0] = 1.0
    span = None if free is None else free_directions(skip_columns(X, False, free), weight)
    return Terms(X, Squared(y, weight, span), np.asarray(0.3))


def draw_any(name, paired, skip, c):
    """Any loss, with a readout and a penalised skip or without."""
    rng = np.random.default_rng(c)
    X = rng.standard_normal((9, 3))
    readout = make_pairs(PAIRS, 9) if paired else None
    m = len(PAIRS) if paired else 9
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=(m, 1))
    weight[0] = 1.0
    loss = {
        "squared": Squared(rng.standard_normal((m, c)), weight),
        "logistic": Logistic(rng.choice([-1.0, 1.0], (m, c)), weight, rng.standard_normal((m, 1))),
        "multinomial": Multinomial(
            np.eye(max(2, c))[rng.integers(max(2, c), size=m)], weight, np.zeros((m, max(2, c)))
        ),
    }[name]
    columns = read(readout, skip_columns(X, False, "linear", not paired)) if skip else None
    ridge = rng.uniform(0.0, 1.0, columns.shape[1]) if columns is not None else None
    return Terms(X, loss, np.asarray(0.3), readout, columns, ridge, np.asarray(1.7) if skip else None)


def some(seed, d=3, c=1, m=5):
    rng = np.random.default_rng(seed)
    u, a = rng.standard_normal((d, m)), rng.standard_normal((c, m))
    return Neurons(u / np.linalg.norm(u, axis=0), a / np.linalg.norm(a, axis=0), rng.uniform(0.1, 2, m))


def none(data):
    """The coefficients of no skip."""
    return np.zeros((0, data.loss.y.shape[1]))


def weights_of(given, c=1):
    return neurons.to_weights(given, np.zeros((0, c)))


def prediction(X, given):
    return np.maximum(X @ given.u, 0) @ (given.s * given.a).T


def free_loss(data, f):
    """min over the free part of sum weight / 2 (f + free - y)^2, by weighted least squares on its raw columns."""
    X, (y, weight, basis) = data.X, data.loss
    r = np.sqrt(weight) * (y - f)
    if basis is not None:
        columns = np.sqrt(weight) * (
            np.ones((len(X), 1)) if basis.shape[1] == 1 else np.hstack([X, np.ones((len(X), 1))])
        )
        r = r - columns @ np.linalg.lstsq(columns, r)[0]
    return 0.5 * float(np.sum(r * r))


def smooth_part(data, W, A, z):
    """Loss and ridge, by their formulas and without a routine of the module."""
    f = np.maximum(data.X @ W, 0) @ A.T
    f = f if data.readout is None else f[PAIRS[:, 0]] - f[PAIRS[:, 1]]
    ridge = 0.0
    if data.columns is not None:
        f, ridge = f + data.columns @ z, 0.5 * np.sum(data.ridge[:, None] * z * z)
    y, weight = data.loss.y, data.loss.weight
    if isinstance(data.loss, Squared):
        each = 0.5 * (f - y) ** 2
    elif isinstance(data.loss, Logistic):
        each = np.logaddexp(0, data.loss.margin - y * f)
    else:
        each = np.log(np.sum(np.exp(f), axis=1, keepdims=True)) - np.sum(y * f, axis=1, keepdims=True)
    return float(np.sum(weight * each) + ridge)


# -- on the device ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_and_moments_by_differences(name, c, paired, skip):
    if name == "multinomial" and c == 1:
        c = 2
    data, given = draw_any(name, paired, skip, c), some(c, c=c)
    z = np.random.default_rng(1).standard_normal((0 if data.columns is None else data.columns.shape[1], c))
    x = neurons.to_weights(given, z) * np.random.default_rng(0).uniform(0.5, 2, 5 * (3 + c) + z.size)
    value, gradient = neurons.balanced(data, x)
    layers, last = x[: 5 * (3 + c)].reshape(3 + c, 5), x[5 * (3 + c) :].reshape(z.shape)
    expected = smooth_part(data, layers[:3], layers[3:], 1.7 * last) + 0.15 * np.sum(layers**2)
    assert value == pytest.approx(expected, rel=1e-12)
    h = 1e-6
    for i, step in enumerate(h * np.eye(x.size)):
        slope = (neurons.balanced(data, x + step)[0] - neurons.balanced(data, x - step)[0]) / (2 * h)
        assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-6)

    gram, slopes = neurons.moments(NUMPY, data, *given, z)
    at = np.concatenate([given.s, z.ravel()])

    def smooth(at):
        return smooth_part(data, at[:5] * given.u, given.a, at[5:].reshape(z.shape))

    h = 1e-4
    for i, e in enumerate(h * np.eye(at.size)):
        up, down = (neurons.moments(NUMPY, data, *given._replace(s=v[:5]), v[5:].reshape(z.shape))[1]
                    for v in (at + e, at - e))  # fmt: skip
        assert slopes[i] == pytest.approx(-(smooth(at + e) - smooth(at - e)) / (2 * h), rel=1e-6, abs=1e-6)
        np.testing.assert_allclose(gram[:, i], -(up - down) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("free", [None, "bias", "linear"])
@pytest.mark.parametrize("c", [1, 3])
def test_balanced_objective_and_gradient(c, free):
    data = draw(c, c=c, free=free)
    given = some(c, c=c)
    x = weights_of(given, c).reshape(3 + c, -1) * np.random.default_rng(0).uniform(0.5, 2, given.width)
    value, gradient = neurons.balanced(data, x.ravel())
    f = np.maximum(data.X @ x[:3], 0) @ x[3:].T
    assert value == pytest.approx(free_loss(data, f) + 0.15 * np.sum(x * x), rel=1e-12)
    h = 1e-6
    for i, step in enumerate(h * np.eye(x.size)):
        slope = (neurons.balanced(data, x.ravel() + step)[0] - neurons.balanced(data, x.ravel() - step)[0]) / (2 * h)
        assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rows", [9, 3000])
@pytest.mark.parametrize("c", [1, 2])
def test_blocks_of_rows_change_nothing(c, rows, monkeypatch):
    """The objective goes through the rows in blocks that fit a cache."""
    data = draw(0, n=rows, c=c)
    x = weights_of(some(0, c=c), c)
    value, gradient = neurons.balanced(data, x)
    monkeypatch.setattr(neurons, "row_blocks", lambda X, width: [slice(0, rows)])
    whole, of_whole = neurons.balanced(data, x)
    assert value == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(gradient, of_whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("free", [None, "linear"])
@pytest.mark.parametrize("c", [1, 2])
def test_predictions_and_moments(c, free):
    data, given = draw(5, c=c, free=free), some(5, c=c)
    f = neurons.predict(NUMPY, data, *given)
    np.testing.assert_allclose(f, prediction(data.X, given), rtol=1e-12, atol=1e-12)
    if free is not None:  # what a free part could still explain is not in the dual variable
        assert np.abs(np.hstack([data.X, np.ones((9, 1))]).T @ data.loss.dual(f)).max() <= 1e-12
    gram, slope = neurons.moments(NUMPY, data, *given, none(data))
    loss = lambda s: free_loss(data, prediction(data.X, given._replace(s=s)))  # noqa: E731
    e, h = np.eye(given.width), 1e-4
    for j in range(given.width):
        up, down = loss(given.s + h * e[j]), loss(given.s - h * e[j])
        assert slope[j] == pytest.approx(-(up - down) / (2 * h), rel=1e-6, abs=1e-7)
        for k in range(given.width):
            mixed = loss(given.s + e[j] + e[k]) - loss(given.s + e[j]) - loss(given.s + e[k]) + loss(given.s)
            assert gram[j, k] == pytest.approx(mixed, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("name", ["squared", "squared with a bias", "logistic", "multinomial"])
def test_on_every_backend(backend_name, name):
    data = draw(6, c=2, free="bias") if "bias" in name else draw_any(name, True, True, 2)
    given, rows = some(6, c=2), 0 if data.columns is None else data.columns.shape[1]
    backend = make_backend(backend_name)
    random, z = np.random.default_rng(0).standard_normal(9), np.random.default_rng(1).standard_normal((rows, 2))
    with backend.scope():
        there, arrays, of_z = backend.put(data), backend.put(tuple(given)), backend.put(z)
        f = backend.get(backend.compile(neurons.predict)(backend, there, *arrays))
        both = backend.get(backend.compile(neurons.moments)(backend, there, *arrays, of_z))
        keys = backend.get(backend.compile(neurons.keys)(backend, there, arrays[0], backend.put(random)))
        value, gradient = backend.get(neurons.balanced(there, backend.put(neurons.to_weights(given, z))))
    np.testing.assert_allclose(f, neurons.predict(NUMPY, data, *given), rtol=1e-11, atol=1e-12)
    for got, expected in zip(both, neurons.moments(NUMPY, data, *given, z), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(keys, neurons.keys(NUMPY, data, given.u, random), rtol=1e-12, atol=1e-14)
    expected = neurons.balanced(data, neurons.to_weights(given, z))
    np.testing.assert_allclose(value, expected[0], rtol=1e-12)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-10, atol=1e-12)


# -- on the host -----------------------------------------------------------------------------------------------------
@given(seeds, st.integers(1, 3), st.integers(1, 6), st.integers(0, 2))
def test_weights_there_and_back(seed, c, m, k):
    given, z = some(seed, c=c, m=m), np.random.default_rng(seed).standard_normal((k, c))
    x = neurons.to_weights(given, z)
    layers = x[: x.size - z.size].reshape(3 + c, m)
    np.testing.assert_allclose(np.linalg.norm(layers[:3], axis=0), np.linalg.norm(layers[3:], axis=0), rtol=1e-12)
    again, of_z = neurons.from_weights(x, 3, c, k)
    for one, other in zip((*again, of_z), (*given, z), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    unbalanced = layers * np.concatenate([np.full((3, m), 4.0), np.full((c, m), 0.25)])
    np.testing.assert_allclose(neurons.from_weights(unbalanced.ravel(), 3, c, 0)[0].s, given.s, rtol=1e-12)


def test_dead_neurons_are_dropped():
    def width(layers):
        return neurons.from_weights(layers.ravel(), 3, 1, 0)[0].width

    given = some(1, m=4).padded(7)
    x = weights_of(given).reshape(4, 7)
    assert given.width == 7 and not x[:, 4:].any()
    assert width(x) == 4
    assert width(0 * x) == 0
    assert width(np.zeros((4, 0))) == 0
    one_sided = x.copy()
    one_sided[3:, 0] = 0.0
    assert width(one_sided) == 3


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


def test_caratheodory_of_columns_that_depend_on_one_another():
    """Repeated, opposite and zero columns among many more than a decomposition takes."""
    given = some(4, m=12).join(some(4, m=12))
    given = given.join(given).join(Neurons(-given.u, given.a, given.s))
    X = np.random.default_rng(4).standard_normal((3, 3))
    reduced = neurons.reduce_count(given, X)
    assert reduced.width <= 4 and np.all(reduced.s > 0)
    np.testing.assert_allclose(prediction(X, reduced), prediction(X, given), atol=1e-11 * given.s.sum())
    assert reduced.s.sum() == pytest.approx(given.s.sum(), rel=1e-12)


def test_caratheodory_decomposes_once(monkeypatch):
    """Not once for every surplus neuron."""
    calls = []
    whole = np.linalg.qr
    monkeypatch.setattr(np.linalg, "qr", lambda *args, **options: calls.append(1) or whole(*args, **options))
    monkeypatch.setattr(np.linalg, "svd", lambda *args, **options: pytest.fail("a decomposition for one neuron"))
    X = np.random.default_rng(5).standard_normal((20, 3))
    assert neurons.reduce_count(some(5, m=42), X).width == 21
    assert len(calls) == 1
