"""Two-layer ReLU networks of other libraries as the fields of a `ReLUNetwork`, and a network as balanced arrays.

The field names are `ReLUNetwork`'s: `f(X) = relu(X @ first_layer + hidden_bias) @ second_layer + X @ skip + bias`.
In the network program a hidden bias b_j is the weight of a constant column, penalised inside |(w_j; b_j)|; the output
bias and the skip are outside the penalty.

PyTorch and scikit-learn are recognised by the names of their classes, so that neither is imported here. The balance
|w_j| = |a_j| is where `beta/2 sum(|w_j|^2 + |a_j|^2)` is smallest among the rescalings `w_j -> t w_j, a_j -> a_j / t`,
which leave the function as it is, and equals `beta sum |w_j| |a_j|` (Neyshabur, Tomioka & Srebro, "In search of the
real inductive bias", 2015, theorem 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxrelu.network.fields import OPTIONAL, REQUIRED
from cvxrelu.support.host import column_norms

if TYPE_CHECKING:
    pass

__all__ = [
    "check_intercept",
    "fields_of_model",
    "neurons_of_blocks",
]


# Modules of PyTorch that do nothing at inference, whatever their parameters.
_INERT = {
    *("torch.nn.modules.linear.Identity", "torch.nn.modules.dropout.AlphaDropout"),
    *(f"torch.nn.modules.dropout.Dropout{axes}" for axes in ("", "1d", "2d", "3d")),
    "torch.nn.modules.dropout.FeatureAlphaDropout",
}


def check_intercept(hidden_bias: np.ndarray | None, intercept: Any) -> None:
    """Refuse a nonzero hidden bias where the network program has no constant column for it."""
    if not isinstance(intercept, (bool, np.bool_)):
        raise TypeError(f"intercept must be True or False, got {intercept!r}")
    if not intercept and hidden_bias is not None and np.any(hidden_bias):
        raise ValueError(
            "the network has a hidden bias, which is the weight of a penalised constant column: pass intercept=True, "
            "or a network without it"
        )


def neurons_of_blocks(V: np.ndarray, Z: np.ndarray, intercept: bool, scalar: bool | None) -> dict[str, Any]:
    """One balanced neuron per nonzero block of V and Z (D, P, c); see `ReLUNetwork.from_blocks`."""
    if V.ndim != 3 or V.shape != Z.shape or V.shape[2] == 0:
        raise ValueError(f"V and Z have shapes {V.shape} and {Z.shape}; expected the same (D, P, c), c >= 1")
    rows, _, c = V.shape
    if intercept and rows == 0:
        raise ValueError("V and Z have no row for the intercept; expected (d + 1, P, c)")
    blocks = np.stack([V, Z], axis=1)  # (D, 2, P, c)
    sizes = column_norms(blocks)
    sign, pattern, output = np.nonzero(sizes)
    root = np.sqrt(sizes[sign, pattern, output])
    first = blocks[:, sign, pattern, output] / root
    signed = np.where(sign == 0, root, -root)
    if scalar is None:
        scalar = c == 1
    if scalar and c != 1:
        raise ValueError(f"V and Z have {c} outputs; the scalar form has 1")
    second = signed if scalar else signed[:, None] * (output[:, None] == np.arange(c))
    inner, hidden_bias = (first[:-1], first[-1]) if intercept else (first, None)
    return {"first_layer": inner, "second_layer": second, "hidden_bias": hidden_bias}


def fields_of_model(model: Any) -> dict[str, Any]:
    """The arrays of `model` under `ReLUNetwork`'s field names, as they are; what is taken: see `ReLUNetwork.from_`."""
    if isinstance(model, Mapping):
        return _of_mapping(model)
    if isinstance(model, (tuple, list)):
        names = REQUIRED + OPTIONAL
        if not len(REQUIRED) <= len(model) <= len(names):
            raise ValueError(
                f"model has {len(model)} arrays; expected first_layer, second_layer and perhaps {', '.join(OPTIONAL)}"
            )
        return dict(zip(names, model, strict=False))
    if _inherits(model, "torch.nn.modules.container.Sequential", "forward"):
        return _of_sequential(model)
    for name in ("MLPRegressor", "MLPClassifier"):
        if _inherits(model, f"sklearn.neural_network._multilayer_perceptron.{name}", "predict"):
            return _of_perceptron(model)
    raise TypeError(
        "model must be a ReLUNetwork, a Solution, torch.nn.Sequential(Linear, ReLU, Linear), scikit-learn's "
        f"MLPRegressor or MLPClassifier, or arrays (first_layer, second_layer); got a {_class_name(type(model))}"
    )


def _of_mapping(model: Mapping[Any, Any]) -> dict[str, Any]:
    if set(model) == {"params"}:
        return _of_flax(model["params"])
    if missing := [name for name in REQUIRED if name not in model]:
        raise ValueError(f"model has no {missing[0]!r}; its keys are {', '.join(map(repr, model)) or 'none'}")
    known = (*REQUIRED, *OPTIONAL, "metadata")
    if unexpected := [key for key in model if key not in known]:
        raise ValueError(f"model has the unexpected key {unexpected[0]!r}; expected some of {', '.join(known)}")
    return dict(model)


def _of_flax(layers: Any) -> dict[str, Any]:
    """Of the variables of `Sequential([Dense, relu, Dense])`: the function between the layers is not among them."""
    if not isinstance(layers, Mapping) or set(layers) != {"layers_0", "layers_2"}:
        found = ", ".join(map(str, layers)) if isinstance(layers, Mapping) else type(layers).__name__
        raise ValueError(f"model has the Flax layers {found}; expected layers_0 and layers_2 of Dense, relu, Dense")
    first, second = layers["layers_0"], layers["layers_2"]
    if missing := [name for name, layer in layers.items() if "kernel" not in layer]:
        raise ValueError(f"model has no kernel in {missing[0]}; expected those of Dense")
    return _one_output_as_scalar(first["kernel"], second["kernel"], first.get("bias"), second.get("bias"))


def _of_sequential(model: Any) -> dict[str, Any]:
    modules = list(_leaves(model))
    names = [_class_name(type(module)) for module in modules]
    layers = [module for module, name in zip(modules, names, strict=True) if not _is_inert(module, name)]
    wanted = ["linear.Linear", "activation.ReLU", "linear.Linear"]
    if [_class_name(type(module)) for module in layers] != [f"torch.nn.modules.{name}" for name in wanted]:
        found = ", ".join(name.removeprefix("torch.nn.modules.").rpartition(".")[2] for name in names)
        raise ValueError(
            f"model is a Sequential of {found or 'nothing'}; expected Linear, ReLU, Linear, and beside them only what "
            "does nothing to rows at inference: Identity, Dropout, Flatten(1)"
        )
    first, _, second = layers
    return _one_output_as_scalar(first.weight.T, second.weight.T, first.bias, second.bias)


def _leaves(module: Any) -> Iterator[Any]:
    """The modules of a Sequential in order, those of a Sequential inside it included."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise ValueError(
            f"model has a forward hook on its {type(module).__name__}, which may change what it computes; remove the "
            "hook (for pruning and weight normalisation: make it permanent) first"
        )
    if not _inherits(module, "torch.nn.modules.container.Sequential", "forward"):
        yield module
        return
    for child in module:
        yield from _leaves(child)


def _is_inert(module: Any, name: str) -> bool:
    """Whether the module returns its input at inference, which has two axes."""
    if name == "torch.nn.modules.flatten.Flatten":
        return {module.start_dim, module.end_dim} <= {1, -1}
    return name in _INERT


def _of_perceptron(model: Any) -> dict[str, Any]:
    name = type(model).__name__
    if not hasattr(model, "coefs_"):
        raise ValueError(f"model is a {name} that is not fitted; call its fit first")
    if len(model.coefs_) != 2:
        raise ValueError(f"model is a {name} with {len(model.coefs_) - 1} hidden layers; expected one")
    if model.activation != "relu":
        raise ValueError(f"model is a {name} with activation={model.activation!r}; expected 'relu'")
    if model.out_activation_ == "exp":  # of loss="poisson"
        raise ValueError(
            f"model is a {name} that predicts the exponential of its network; expected loss='squared_error'"
        )
    return _one_output_as_scalar(*model.coefs_, *model.intercepts_)


def _one_output_as_scalar(first: Any, second: Any, hidden_bias: Any, bias: Any) -> dict[str, Any]:
    """Fields from a second layer (m, c) and biases that may be None; with c = 1 the axis of the outputs goes."""
    if second.shape[1] == 1:
        second, bias = second[:, 0], None if bias is None else bias[0]
    return {"first_layer": first, "second_layer": second, "hidden_bias": hidden_bias, "bias": bias}


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")


def _inherits(model: Any, name: str, method: str) -> bool:
    """Whether `model` is of the class of that name, or of one derived from it that keeps its `method`."""
    cls = type(model)
    return any(_class_name(base) == name and getattr(cls, method) is getattr(base, method) for base in cls.__mro__)
