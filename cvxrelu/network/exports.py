"""A network as what other libraries run: PyTorch, ONNX, scikit-learn and Flax, with one hidden layer each.

A skip becomes hidden units, for what it gives to one output is relu(x @ s) - relu(-x @ s):

    relu(x @ first_layer + hidden_bias) @ second_layer + x @ skip + bias  =  relu(x @ W + b) @ A + c

`ReLUNetwork.from_` reads all of these again but ONNX, to the same function.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.network.file import PICKLES
from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write

__all__ = ["Dense", "Exports"]

OPSET, IR_VERSION = 17, 8  # of ONNX: old enough for the runtimes there are


class Dense(NamedTuple):
    """x -> relu(x @ W + b) @ A + c, in float64."""

    W: Float[np.ndarray, "d h"]
    b: Float[np.ndarray, " h"]
    A: Float[np.ndarray, "h c"]
    c: Float[np.ndarray, " c"]


class Exports:
    """What a `ReLUNetwork` can be made into; its fields are that class's."""

    first_layer: np.ndarray
    second_layer: np.ndarray
    hidden_bias: np.ndarray | None
    skip: np.ndarray | None
    bias: np.ndarray | None

    def dense(self) -> Dense:
        """(W, b, A, c) of the formula above: m hidden units, and two more for every output of a skip.

        Examples
        --------
        >>> from cvxrelu import ReLUNetwork
        >>> dense = ReLUNetwork([[1.0]], [2.0], skip=[3.0]).dense()
        >>> dense.W, dense.A.ravel()
        (array([[ 1.,  3., -3.]]), array([ 2.,  1., -1.]))
        """
        d, m = self.first_layer.shape
        outputs = 1 if self.second_layer.ndim == 1 else self.second_layer.shape[1]
        W, A = self.first_layer.astype(np.float64), self.second_layer.reshape(m, outputs).astype(np.float64)
        b = np.zeros(m) if self.hidden_bias is None else self.hidden_bias.astype(np.float64)
        c = np.zeros(outputs) if self.bias is None else self.bias.reshape(outputs).astype(np.float64)
        if self.skip is not None:
            skip = self.skip.reshape(d, outputs).astype(np.float64)
            W = np.concatenate([W, skip, -skip], axis=1)
            A = np.concatenate([A, np.eye(outputs), -np.eye(outputs)])
            b = np.concatenate([b, np.zeros(2 * outputs)])
        if W.shape[1] == 0:  # a constant: other libraries want a hidden unit
            W, b, A = np.zeros((d, 1)), np.zeros(1), np.zeros((1, outputs))
        return Dense(W, b, A, c)

    def to_torch(self, dtype: str = "float32") -> Any:
        """`torch.nn.Sequential(Linear, ReLU, Linear)` from (n, d) to (n, c), in evaluation mode; needs PyTorch.

        dtype : the name of a PyTorch dtype. Gradients reach its weights, so that it can be trained further.
        """
        import torch

        W, b, A, c = self.dense()
        module = torch.nn.Sequential(torch.nn.Linear(*W.shape), torch.nn.ReLU(), torch.nn.Linear(*A.shape))
        module = module.to(getattr(torch, dtype))
        weights = {"0.weight": W.T, "0.bias": b, "2.weight": A.T, "2.bias": c}
        module.load_state_dict({name: torch.tensor(np.ascontiguousarray(w)) for name, w in weights.items()})
        return module.eval()

    def to_sklearn(self) -> Any:
        """A fitted scikit-learn `MLPRegressor` with the same predictions, in float64; needs scikit-learn.

        It predicts numbers, of classes too: the outputs of the network, not labels.
        """
        from sklearn.neural_network import MLPRegressor

        W, b, A, c = self.dense()
        model = MLPRegressor(hidden_layer_sizes=(W.shape[1],), activation="relu")
        model.coefs_, model.intercepts_, model.n_layers_ = [W, A], [b, c], 3
        model.n_features_in_, model.n_outputs_, model.out_activation_ = W.shape[0], A.shape[1], "identity"
        return model

    def to_flax(self) -> dict[str, Any]:
        """Variables of `flax.linen.Sequential([Dense(h), relu, Dense(c)])`, as float32 arrays of NumPy.

        `nn.Sequential([nn.Dense(h), nn.relu, nn.Dense(c)]).apply(network.to_flax(), X)` predicts; h is the width of
        `dense().W`. Flax itself is not needed.
        """
        W, b, A, c = (w.astype(np.float32) for w in self.dense())
        return {"params": {"layers_0": {"kernel": W, "bias": b}, "layers_2": {"kernel": A, "bias": c}}}

    def to_onnx(
        self, path: str | os.PathLike[str], *, names: tuple[str, str] = ("X", "prediction"), overwrite: bool = True
    ) -> Path:
        """Write an ONNX graph, opset 17, float32, from (n, d) to what `predict` gives, (n,) or (n, c); needs `onnx`.

        names : of input and output. FileExistsError where the file is there and `overwrite` is False.
        """
        if Path(path).suffix in PICKLES:
            raise InputError(f"path: a {Path(path).suffix} file is a pickle; name an ONNX graph .onnx, got {path}")
        try:
            onnx = importlib.import_module("onnx")
        except ImportError as error:
            raise ImportError(f"exporting to ONNX needs: pip install onnx ({error})") from error
        make, float32 = onnx.helper, onnx.TensorProto.FLOAT
        given, made = names
        scalar = self.second_layer.ndim == 1
        constants = {key: w.astype(np.float32) for key, w in zip("WbAc", self.dense(), strict=True)}
        nodes = [
            make.make_node("Gemm", [given, "W", "b"], ["hidden"]),
            make.make_node("Relu", ["hidden"], ["active"]),
            make.make_node("Gemm", ["active", "A", "c"], ["columns" if scalar else made]),
        ]
        if scalar:
            constants["axis"] = np.array([1], dtype=np.int64)
            nodes.append(make.make_node("Squeeze", ["columns", "axis"], [made]))
        d, outputs = self.first_layer.shape[0], constants["c"].size
        graph = make.make_graph(
            nodes, "cvxrelu", [make.make_tensor_value_info(given, float32, ["n", d])],
            [make.make_tensor_value_info(made, float32, ["n"] if scalar else ["n", outputs])],
            [onnx.numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in constants.items()],
        )  # fmt: skip
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], producer_name="cvxrelu")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return atomic_write(path, model.SerializeToString(), overwrite=overwrite)
