"""ReLUNetwork: the formula on every array library, the blocks it is built from, its fields, and its file."""

import json
import warnings

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from cvxrelu.network.relu_network import ReLUNetwork

FULL = {"hidden_bias", "skip", "bias"}
HEADER = {"format": "cvxrelu.ReLUNetwork", "format_version": "1", "cvxrelu_version": "1.0", "metadata": "{}"}


def build(d=3, m=5, c=None, fields=FULL, dtype=np.float64, seed=0, metadata=None):
    rng = np.random.default_rng(seed)
    tail = () if c is None else (c,)
    shapes = {"hidden_bias": (m,), "skip": (d, *tail), "bias": tail}
    return ReLUNetwork(
        rng.standard_normal((d, m)).astype(dtype),
        rng.standard_normal((m, *tail)).astype(dtype),
        **{name: np.asarray(rng.standard_normal(shapes[name]), dtype=dtype) for name in sorted(fields)},
        metadata={} if metadata is None else metadata,
    )


def formula(network, X):
    """Row by row and neuron by neuron, in float64."""
    X = np.asarray(X, dtype=np.float64)
    rows = []
    for x in X:
        out = np.zeros(network.second_layer.shape[1:])
        for j in range(network.n_neurons):
            b = 0.0 if network.hidden_bias is None else network.hidden_bias[j]
            out = out + max(float(x @ network.first_layer[:, j]) + b, 0.0) * network.second_layer[j]
        if network.skip is not None:
            out = out + x @ network.skip
        rows.append(out if network.bias is None else out + network.bias)
    return np.array(rows).reshape(len(X), *network.second_layer.shape[1:])


cases = st.fixed_dictionaries(
    {
        "d": st.integers(1, 4),
        "m": st.integers(0, 6),
        "c": st.sampled_from([None, 1, 3]),
        "fields": st.sets(st.sampled_from(sorted(FULL))),
        "seed": st.integers(0, 1000),
    }
)


@settings(max_examples=12, deadline=None)
@given(cases, st.integers(0, 5))
def test_predict_is_the_formula_on_every_library(case, n):
    network = build(**case)
    X = np.random.default_rng(case["seed"] + 1).standard_normal((n, case["d"]))
    expected = formula(network, X)
    got = network.predict(X)
    assert type(got) is np.ndarray and got.dtype == np.float64 and got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    strict = network.predict(array_api_strict.asarray(X))
    assert isinstance(strict, array_api_strict._array_object.Array) and strict.dtype == array_api_strict.float64
    np.testing.assert_allclose(np.asarray(strict), expected, rtol=1e-12, atol=1e-12)
    with jax.enable_x64(True):
        wide = network.predict(jnp.asarray(X))
        assert isinstance(wide, jax.Array) and wide.dtype == jnp.float64
        np.testing.assert_allclose(np.asarray(wide), expected, rtol=1e-12, atol=1e-12)
    narrow = network.predict(jnp.asarray(X, dtype=jnp.float32))
    assert narrow.dtype == jnp.float32 and narrow.shape == expected.shape
    np.testing.assert_allclose(np.asarray(narrow), expected, rtol=1e-4, atol=1e-4)


def test_jax_float64_stays_float64_outside_the_x64_scope():
    network, X = build(c=2), np.random.default_rng(1).standard_normal((6, 3))
    with jax.enable_x64(True):
        wide = jnp.asarray(X)
    assert not jax.config.jax_enable_x64
    got = network.predict(wide)
    assert got.dtype == np.float64
    np.testing.assert_allclose(np.asarray(got), formula(network, X), rtol=1e-13, atol=1e-13)


def test_predict_is_jittable_and_differentiable_in_jax():
    network = build(c=2)
    X = jnp.asarray(np.random.default_rng(1).standard_normal((6, 3)), dtype=jnp.float32)
    np.testing.assert_allclose(np.asarray(jax.jit(network.predict)(X)), formula(network, X), rtol=1e-4, atol=1e-5)
    active = (np.asarray(X) @ network.first_layer + network.hidden_bias > 0).astype(float)
    slope = (active * network.second_layer.sum(axis=1)) @ network.first_layer.T + network.skip.sum(axis=1)
    gradient = jax.grad(lambda x: network.predict(x).sum())(X)
    np.testing.assert_allclose(np.asarray(gradient), slope, rtol=1e-4, atol=1e-4)


def test_predict_keeps_the_device():
    device = array_api_strict.Device("device1")
    assert build().predict(array_api_strict.ones((2, 3), device=device)).device == device
    X = jnp.ones((2, 3))
    assert not build().predict(X).committed
    assert build().predict(jax.device_put(X, jax.devices()[0])).committed


def test_predict_keeps_the_dtype_and_gives_integers_the_default_float():
    network = build()
    assert network.predict(np.ones((2, 3), dtype=np.float32)).dtype == np.float32
    assert network.predict(np.ones((2, 3), dtype=np.float16)).dtype == np.float16
    assert network.predict(np.ones((2, 3), dtype=np.int8)).dtype == np.float64
    assert network.predict(np.ones((2, 3), dtype=bool)).dtype == np.float64
    assert network.predict(jnp.ones((2, 3), dtype=jnp.int32)).dtype == jnp.float32
    assert (
        network.predict(array_api_strict.ones((2, 3), dtype=array_api_strict.int64)).dtype == array_api_strict.float64
    )
    X = [[1, 2, 3], [0, -1, 2]]
    np.testing.assert_allclose(network.predict(X), formula(network, X), rtol=1e-12)


def test_predict_on_torch_warns_of_nothing():
    torch = pytest.importorskip("torch")
    network, X = build(c=2), np.random.default_rng(1).standard_normal((6, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = network.predict(torch.asarray(X))
    assert isinstance(got, torch.Tensor) and got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), formula(network, X), rtol=1e-12, atol=1e-12)


def test_predict_passes_nan_on():
    assert np.isnan(build(fields=()).predict([[np.nan, 1.0, 2.0]])).all()


@pytest.mark.parametrize(
    ("X", "error"),
    [
        (np.ones((2, 4)), ValueError),
        (np.ones(3), ValueError),
        (np.ones((1, 2, 3)), ValueError),
        (jnp.ones((2, 4)), ValueError),
        (array_api_strict.ones((2, 4)), ValueError),
        (np.ones((2, 3), dtype=complex), TypeError),
        (jnp.ones((2, 3), dtype=jnp.complex64), TypeError),
        (np.ones((2, 3), dtype=object), TypeError),
        ([["a", "b", "c"]], TypeError),
        (None, TypeError),
    ],
)
def test_predict_refuses(X, error):
    with pytest.raises(error, match=r"^X has "):
        build().predict(X)


@settings(max_examples=25, deadline=None)
@given(cases, st.sampled_from([np.float32, np.float64]))
def test_a_saved_network_comes_back_the_same(tmp_path_factory, case, dtype):
    metadata = {"beta": 0.1, "name": "café", "betas": [1, 2.5], "nested": {"none": None}}
    network = build(**case, dtype=dtype, metadata=metadata)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    network.save(path)
    again = ReLUNetwork.load(str(path))
    assert again.allclose(network) and again.metadata == metadata
    for name in ("first_layer", "second_layer", *FULL):
        value = getattr(again, name)
        assert value is None or value.dtype == dtype
    X = np.random.default_rng(0).standard_normal((4, case["d"]))
    np.testing.assert_array_equal(again.predict(X), network.predict(X))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_file_is_plain_safetensors_with_a_header(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "network"
    build(metadata={"beta": 2}).save(path)
    assert set(load_file(path)) == {"first_layer", "second_layer", *FULL}
    with safe_open(path, framework="np") as file:
        header = file.metadata()
    assert header["format"] == "cvxrelu.ReLUNetwork" and header["format_version"] == "1" and header["cvxrelu_version"]
    assert json.loads(header["metadata"]) == {"beta": 2}


def test_saving_replaces_the_file_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "network.safetensors"
    first, second = build(seed=1), build(seed=2)
    first.save(path)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            second.save(path)
    assert ReLUNetwork.load(path).allclose(first)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    second.save(path)
    assert ReLUNetwork.load(path).allclose(second)
    with pytest.raises(FileNotFoundError, match="absent"):
        first.save(tmp_path / "absent" / "network")


def tensors(**changes):
    given = {"first_layer": np.ones((2, 3)), "second_layer": np.ones(3), **changes}
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "header", "message"),
    [
        (tensors(), None, "not a cvxrelu.ReLUNetwork"),
        (tensors(), {**HEADER, "format": "other"}, "not a cvxrelu.ReLUNetwork.*'other'"),
        (tensors(), {**HEADER, "format_version": "2"}, "format version 2.*update"),
        (tensors(), {**HEADER, "format_version": "one"}, "format version is 'one'"),
        (tensors(), {**HEADER, "metadata": "{"}, "not JSON"),
        (tensors(), {**HEADER, "metadata": "[1]"}, "expected an object"),
        (tensors(second_layer=None), HEADER, "second_layer is missing"),
        (tensors(third_layer=np.ones(2)), HEADER, "unexpected tensor 'third_layer'"),
        (tensors(second_layer=np.ones(4)), HEADER, r"second_layer has shape \(4,\)"),
        (tensors(skip=np.ones(3)), HEADER, r"skip has shape \(3,\)"),
        (tensors(first_layer=np.array([[1.0, np.nan, 1.0]])), HEADER, "first_layer contains NaN"),
        (tensors(second_layer=np.ones(3, dtype=np.int64)), HEADER, "second_layer has dtype I64"),
        (tensors(second_layer=np.ones(3, dtype=np.float16)), HEADER, "second_layer has dtype F16"),
    ],
)
def test_load_refuses_what_is_not_its_own(tmp_path, content, header, message):
    path = tmp_path / "given.safetensors"
    save_file(content, path, header)
    with pytest.raises(ValueError, match=rf"given\.safetensors: .*{message}"):
        ReLUNetwork.load(path)


def test_load_refuses_what_it_cannot_read(tmp_path):
    path = tmp_path / "given.safetensors"
    with pytest.raises(FileNotFoundError, match=r"given\.safetensors"):
        ReLUNetwork.load(path)
    with pytest.raises(ValueError, match="not a file"):
        ReLUNetwork.load(tmp_path)
    path.touch()
    with pytest.raises(ValueError, match=r"given\.safetensors: the file is empty"):
        ReLUNetwork.load(path)
    build().save(path)
    whole = path.read_bytes()
    for content in (whole[:4], whole[:100], whole[:-1], b"\x80\x04N." + bytes(100), b"not a network"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"given\.safetensors: truncated, or not a safetensors file"):
            ReLUNetwork.load(path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"first_layer": np.ones(3)}, ValueError, "first_layer has shape"),
        ({"second_layer": np.ones(2)}, ValueError, "second_layer has shape"),
        ({"second_layer": np.ones((3, 0))}, ValueError, "second_layer has shape"),
        ({"second_layer": np.ones((3, 2, 1))}, ValueError, "second_layer has shape"),
        ({"second_layer": np.array(1.0)}, ValueError, "second_layer has shape"),
        ({"hidden_bias": np.ones(2)}, ValueError, "hidden_bias has shape"),
        ({"skip": np.ones((2, 1))}, ValueError, "skip has shape"),
        ({"second_layer": np.ones((3, 1)), "skip": np.ones(2)}, ValueError, "skip has shape"),
        ({"bias": np.ones(1)}, ValueError, "bias has shape"),
        ({"second_layer": np.ones((3, 2)), "bias": 1.0}, ValueError, "bias has shape"),
        ({"skip": np.array([1.0, np.inf])}, ValueError, "skip contains NaN or infinity"),
        ({"first_layer": np.ones((2, 3), dtype=complex)}, TypeError, "first_layer has dtype complex128"),
        ({"second_layer": np.ones(3, dtype=object)}, TypeError, "second_layer has dtype object"),
        ({"hidden_bias": np.ones(3, dtype=bool)}, TypeError, "hidden_bias has dtype bool"),
        ({"first_layer": [[1.0], [1.0, 2.0]]}, TypeError, "first_layer is a list"),
        ({"first_layer": None}, TypeError, "first_layer has dtype object"),
        ({"metadata": [1]}, TypeError, "metadata is a list"),
        ({"metadata": {"x": np.ones(2)}}, TypeError, "metadata cannot be written as JSON"),
    ],
)
def test_fields_are_refused_by_name(changes, error, message):
    with pytest.raises(error, match=f"^{message}"):
        ReLUNetwork(**{"first_layer": np.ones((2, 3)), "second_layer": np.ones(3), **changes})


def test_fields_are_owned_and_read_only():
    first, metadata = np.ones((2, 3)), {"beta": [1]}
    network = ReLUNetwork(first, np.ones(3, dtype=int), bias=2, metadata=metadata)
    first[0, 0] = 7.0
    metadata["beta"].append(2)
    assert network.first_layer[0, 0] == 1.0 and network.metadata == {"beta": [1]}
    assert network.second_layer.dtype == np.float64 and network.bias.shape == ()
    with pytest.raises(ValueError, match="read-only"):
        network.first_layer[0, 0] = 2.0
    with pytest.raises(AttributeError):
        network.bias = None
    assert (network.n_features, network.n_neurons, network.n_outputs) == (2, 3, 1)
    assert build(c=4).n_outputs == 4


def test_allclose_sees_every_field_and_equality_is_identity():
    network = build()
    assert network == network and network != build() and len({network, build()}) == 2
    assert network.allclose(build()) and not network.allclose(build(c=1))
    for name in ("first_layer", "second_layer", *FULL):
        fields = {key: getattr(network, key) for key in ("first_layer", "second_layer", *FULL)}
        near = ReLUNetwork(**{**fields, name: fields[name] + 1e-6})
        assert not network.allclose(near) and network.allclose(near, atol=2e-6)
        if name in FULL:
            assert not network.allclose(ReLUNetwork(**{**fields, name: None}))


@pytest.mark.parametrize("c", [None, 3])
@pytest.mark.parametrize("fields", [(), FULL])
def test_path_norm_is_the_sum_over_neurons(c, fields):
    network, total = build(c=c, fields=fields), 0.0
    for j in range(network.n_neurons):
        inner = list(network.first_layer[:, j]) + ([] if not fields else [network.hidden_bias[j]])
        total += sum(w * w for w in inner) ** 0.5 * sum(a * a for a in np.atleast_1d(network.second_layer[j])) ** 0.5
    assert network.path_norm == pytest.approx(total, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 5), st.integers(1, 3), st.booleans(), st.integers(0, 1000))
def test_blocks_become_balanced_neurons(D, P, c, intercept, seed):
    rng = np.random.default_rng(seed)
    V, Z = rng.standard_normal((2, D, P, c)) * (rng.random((2, 1, P, c)) < 0.6)
    network = ReLUNetwork.from_blocks(V, Z, intercept=intercept, metadata={"beta": 1.0})
    X = rng.standard_normal((7, D))
    if intercept:
        X[:, -1] = 1.0
    expected = np.zeros((7, c))
    for k in range(c):
        for i in range(P):
            expected[:, k] += np.maximum(X @ V[:, i, k], 0) - np.maximum(X @ Z[:, i, k], 0)
    predicted = network.predict(X[:, :-1] if intercept else X)
    assert predicted.shape == ((7,) if c == 1 else (7, c)) and network.n_outputs == c
    np.testing.assert_allclose(predicted.reshape(7, c), expected, rtol=1e-10, atol=1e-10)
    assert network.n_neurons == np.count_nonzero(np.any(V != 0, axis=0)) + np.count_nonzero(np.any(Z != 0, axis=0))
    norms = np.linalg.norm(V, axis=0).sum() + np.linalg.norm(Z, axis=0).sum()
    assert network.path_norm == pytest.approx(norms, rel=1e-12)
    inner = network.first_layer if not intercept else np.vstack([network.first_layer, network.hidden_bias])
    outer = network.second_layer.reshape(network.n_neurons, c)
    np.testing.assert_allclose(np.linalg.norm(inner, axis=0), np.linalg.norm(outer, axis=1), rtol=1e-12)
    assert network.metadata == {"beta": 1.0} and (network.hidden_bias is not None) == intercept


def test_tiny_and_huge_blocks_are_neurons_too():
    V = np.zeros((2, 3, 1))
    V[:, 0, 0], V[:, 1, 0] = [3e-200, 4e-200], [3e200, 4e200]
    network = ReLUNetwork.from_blocks(V, np.zeros_like(V))
    np.testing.assert_allclose(network.second_layer**2, [5e-200, 5e200], rtol=1e-12)
    assert network.path_norm == pytest.approx(5e200)


def test_an_empty_network_predicts_zeros():
    for c, shape in ((1, (4,)), (3, (4, 3))):
        network = ReLUNetwork.from_blocks(np.zeros((2, 5, c)), np.zeros((2, 5, c)))
        assert network.n_neurons == 0 and network.path_norm == 0.0 and network.n_outputs == c
        np.testing.assert_array_equal(network.predict(np.ones((4, 2))), np.zeros(shape))


@pytest.mark.parametrize(
    ("V", "Z", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), r"expected the same \(D, P, c\)"),
        (np.ones((2, 3, 1)), np.ones((2, 4, 1)), r"expected the same \(D, P, c\)"),
        (np.ones((2, 3, 0)), np.ones((2, 3, 0)), r"expected the same \(D, P, c\)"),
        (np.ones((0, 3, 1)), np.ones((0, 3, 1)), "no row for the intercept"),
        (np.full((2, 3, 1), np.nan), np.ones((2, 3, 1)), "V contains NaN"),
    ],
)
def test_from_blocks_refuses(V, Z, message):
    with pytest.raises(ValueError, match=message):
        ReLUNetwork.from_blocks(V, Z, intercept=True)


def test_one_output_can_keep_its_column():
    V = np.random.default_rng(0).standard_normal((2, 3, 1))
    column, scalar = (ReLUNetwork.from_blocks(V, -V, scalar=flag) for flag in (False, True))
    assert column.second_layer.shape == (6, 1) and scalar.second_layer.shape == (6,)
    np.testing.assert_array_equal(column.predict(V[:, :2, 0])[:, 0], scalar.predict(V[:, :2, 0]))
    with pytest.raises(ValueError, match="the scalar form has 1"):
        ReLUNetwork.from_blocks(np.ones((2, 3, 2)), np.ones((2, 3, 2)), scalar=True)


@settings(max_examples=25, deadline=None)
@given(cases)
def test_unstandardise_folds_the_units_in(case):
    network, rng = build(**case), np.random.default_rng(case["seed"] + 1)
    center, scale = rng.standard_normal(case["d"]), rng.uniform(0.1, 3.0, case["d"])
    y_center, y_scale = rng.standard_normal(case["c"]), rng.uniform(0.1, 3.0, case["c"])
    X = rng.standard_normal((6, case["d"]))
    raw = network.unstandardise(center, scale, y_center, y_scale)
    expected = y_center + y_scale * network.predict((X - center) / scale)
    np.testing.assert_allclose(raw.predict(X), expected, rtol=1e-9, atol=1e-9)
    assert network.unstandardise(np.zeros(case["d"]), np.ones(case["d"])).allclose(network)
