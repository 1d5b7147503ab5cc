"""Networks as other libraries run them: the same predictions, and back again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvxrelu import ReLUNetwork
from cvxrelu.support.errors import InputError

CASES = {
    "one output": ReLUNetwork(np.random.default_rng(0).standard_normal((4, 3)), np.array([1.0, -2.0, 0.5])),
    "all terms": ReLUNetwork(
        np.random.default_rng(1).standard_normal((4, 3)), np.random.default_rng(2).standard_normal((3, 2)),
        np.array([0.1, -0.2, 0.3]), np.random.default_rng(3).standard_normal((4, 2)), np.array([5.0, -6.0]),
    ),
    "no neuron": ReLUNetwork(np.zeros((4, 0)), np.zeros(0), bias=2.5),
    "linear": ReLUNetwork(np.zeros((4, 0)), np.zeros((0, 2)), skip=np.arange(8.0).reshape(4, 2)),
}  # fmt: skip
X = 3 * np.random.default_rng(9).standard_normal((50, 4))
every = pytest.mark.parametrize("network", CASES.values(), ids=CASES.keys())


def columns(values: object) -> np.ndarray:
    return np.asarray(values).reshape(len(X), -1)


@every
def test_torch(network: ReLUNetwork) -> None:
    torch = pytest.importorskip("torch")
    module = network.to_torch("float64")
    with torch.no_grad():
        found = module(torch.tensor(X)).numpy()
    np.testing.assert_allclose(found, columns(network.predict(X)), rtol=1e-10, atol=1e-12)
    again = ReLUNetwork.from_(module)
    np.testing.assert_allclose(columns(again.predict(X)), columns(network.predict(X)), rtol=1e-10, atol=1e-12)
    assert network.to_torch()[0].weight.dtype == torch.float32 and not module.training


@every
def test_scikit_learn(network: ReLUNetwork) -> None:
    pytest.importorskip("sklearn")
    model = network.to_sklearn()
    np.testing.assert_allclose(columns(model.predict(X)), columns(network.predict(X)), rtol=1e-10, atol=1e-12)
    again = ReLUNetwork.from_(model)
    np.testing.assert_allclose(columns(again.predict(X)), columns(network.predict(X)), rtol=1e-10, atol=1e-12)


@every
def test_flax(network: ReLUNetwork) -> None:
    """By the formula of flax.linen.Dense, x @ kernel + bias; by Flax itself where it is installed."""
    variables = network.to_flax()
    first, second = variables["params"]["layers_0"], variables["params"]["layers_2"]
    found = np.maximum(X @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"]
    expected = columns(network.predict(X))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    again = ReLUNetwork.from_(variables)
    np.testing.assert_allclose(columns(again.predict(X)), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    linen = pytest.importorskip("flax.linen", reason="needs flax")
    model = linen.Sequential([linen.Dense(first["kernel"].shape[1]), linen.relu, linen.Dense(expected.shape[1])])
    np.testing.assert_allclose(model.apply(variables, X), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_flax_variables_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="layers_0 and layers_2"):
        ReLUNetwork.from_({"params": {"Dense_0": {}}})
    with pytest.raises(ValueError, match="no kernel in layers_2"):
        ReLUNetwork.from_({"params": {"layers_0": {"kernel": np.eye(2)}, "layers_2": {"scale": 1}}})


@every
def test_onnx(network: ReLUNetwork, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    path = network.to_onnx(tmp_path / "network.onnx")
    [found] = ReferenceEvaluator(str(path)).run(None, {"X": X.astype(np.float32)})
    expected = network.predict(X)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(FileExistsError):
        network.to_onnx(path, overwrite=False)
    with pytest.raises(InputError, match=r"a \.pt file is a pickle"):
        network.to_onnx(tmp_path / "network.pt")


def test_a_network_is_not_saved_under_the_name_of_a_pickle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a \.pt file is a pickle.*name it network\.safetensors"):
        CASES["linear"].save(tmp_path / "network.pt")
    assert not list(tmp_path.iterdir())
