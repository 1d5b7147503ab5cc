"""The two-layer ReLU network a solve returns: arrays on the host, prediction on any array library, one file on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np

from cvxrelu.backends.placement import device_of, precise
from cvxrelu.network.exports import Exports
from cvxrelu.network.fields import OPTIONAL, REQUIRED, plain_metadata
from cvxrelu.network.file import read_network, write_network
from cvxrelu.network.foreign import check_intercept, fields_of_model, neurons_of_blocks
from cvxrelu.support.checks import refuse_sparse
from cvxrelu.support.host import column_norms, host_array, to_host

__all__ = ["ReLUNetwork"]


@dataclass(frozen=True, eq=False, repr=False)
class ReLUNetwork(Exports):
    """`f(X) = relu(X @ first_layer + hidden_bias) @ second_layer + X @ skip + bias`, terms that are None left out.

    Parameters
    ----------
    first_layer : (d, m). One column per neuron; m = 0 is legal.
    second_layer : (m,) for one output, predicted as (n,); (m, c) for c outputs, predicted as (n, c).
    hidden_bias : (m,) or None.
    skip : (d,) or (d, c), as `second_layer` says, or None.
    bias : scalar or (c,), as `second_layer` says, or None. The bias of the output.
    metadata : hyper-parameters and the like; anything JSON can hold. Kept as JSON gives it back (tuples become lists).

    The arrays are copied to the host, read-only. float32 stays float32; other real numbers become float64.

    Raises
    ------
    TypeError : a field is not made of real numbers, or `metadata` is not a dict that JSON can hold.
    ValueError : a field has the wrong shape, or is not finite. Both name the field.

    Examples
    --------
    >>> import numpy as np
    >>> network = ReLUNetwork(np.eye(2), np.array([1.0, -2.0]), bias=0.5)
    >>> network.predict(np.array([[3.0, 1.0], [-1.0, 2.0]]))
    array([ 1.5, -3.5])
    >>> network
    ReLUNetwork(n_features=2, n_neurons=2, n_outputs=1, bias)
    """

    first_layer: np.ndarray
    second_layer: np.ndarray
    hidden_bias: np.ndarray | None = None
    skip: np.ndarray | None = None
    bias: np.ndarray | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in REQUIRED:
            object.__setattr__(self, name, host_array(name, getattr(self, name)))
        for name in OPTIONAL:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, host_array(name, getattr(self, name)))
        if self.first_layer.ndim != 2:
            raise ValueError(f"first_layer has shape {self.first_layer.shape}; expected (d, m)")
        d, m = self.first_layer.shape
        second = self.second_layer.shape
        if len(second) not in (1, 2) or second[0] != m or 0 in second[1:]:
            raise ValueError(
                f"second_layer has shape {second}; expected ({m},) or ({m}, c), c >= 1, for m = {m} neurons"
            )
        for name, shape in (("hidden_bias", (m,)), ("skip", (d, *second[1:])), ("bias", second[1:])):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"{name} has shape {value.shape}; expected {shape}: first_layer is {(d, m)}, second_layer {second}"
                )
        object.__setattr__(self, "metadata", plain_metadata(self.metadata))

    @property
    def n_features(self) -> int:
        """d, the number of columns `predict` expects."""
        return self.first_layer.shape[0]

    @property
    def n_neurons(self) -> int:
        """m, the number of hidden neurons."""
        return self.first_layer.shape[1]

    @property
    def n_outputs(self) -> int:
        """c, the number of outputs; 1 for the scalar form."""
        return 1 if self.second_layer.ndim == 1 else self.second_layer.shape[1]

    @property
    def path_norm(self) -> float:
        """`sum_j |(w_j; b_j)|_2 |a_j|_2` in float64: what beta multiplies in the network program.

        The hidden bias b_j is the weight of a penalised constant column, so it counts inside the norm; the skip and the
        output bias do not count.
        """
        inner = self.first_layer.astype(np.float64)
        if self.hidden_bias is not None:
            inner = np.vstack([inner, self.hidden_bias])
        outer = self.second_layer.astype(np.float64).reshape(self.n_neurons, self.n_outputs)
        return float(column_norms(inner) @ column_norms(outer.T))

    def predict(self, X: Any) -> Any:
        """`relu(X @ first_layer + hidden_bias) @ second_layer + X @ skip + bias`, (n,) or (n, c).

        Parameters
        ----------
        X : (n, d) array of any library of the array API (NumPy, JAX, CuPy, PyTorch, ...), or anything `numpy.asarray`
            takes. Real: integers become the library's default float.

        Returns
        -------
        An array of X's library, on X's device and in X's dtype. JAX float64 stays float64 whatever `jax_enable_x64`
        says; JAX products run at full precision. Works under `jax.jit`, and is differentiable with respect to X.

        Raises
        ------
        TypeError : X is not made of real numbers.
        ValueError : X does not have shape (n, d).

        Examples
        --------
        >>> ReLUNetwork([[1.0], [1.0]], [[2.0, -1.0]]).predict([[1, 2], [-3, 1]])
        array([[ 6., -3.],
               [ 0.,  0.]])
        """
        refuse_sparse("X", X)
        if isinstance(X, np.ndarray) or not array_api_compat.is_array_api_obj(X):
            X = np.asarray(X)
        if isinstance(X, np.ndarray) and X.dtype.name == "bfloat16":  # of ml_dtypes, which NumPy's own functions refuse
            return self.predict(X.astype(np.float32)).astype(X.dtype)
        xp = array_api_compat.array_namespace(X)
        if not xp.isdtype(X.dtype, ("bool", "integral", "real floating")):
            raise TypeError(f"X has dtype {X.dtype}; expected real numbers")
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"X has shape {tuple(X.shape)}; expected (n, {self.n_features})")
        with precise(X):
            if not xp.isdtype(X.dtype, "real floating"):
                X = xp.astype(X, xp.zeros(()).dtype)
            device = device_of(X)
            own = array_api_compat.is_torch_array(X)  # PyTorch shares what it is given, and warns if that is read-only

            def put(w: np.ndarray) -> Any:
                return xp.asarray(w.copy() if own else w, dtype=X.dtype, device=device)

            hidden = X @ put(self.first_layer)
            if self.hidden_bias is not None:
                hidden = hidden + put(self.hidden_bias[None, :])
            output = xp.maximum(hidden, put(np.zeros(()))) @ put(self.second_layer)
            if self.skip is not None:
                output = output + X @ put(self.skip)
            if self.bias is not None:
                output = output + put(self.bias[None, :] if self.bias.ndim else self.bias)
            return output

    @staticmethod
    def from_(model: Any, *, intercept: bool = True) -> ReLUNetwork:
        """The same function of X as `model`, a two-layer ReLU network of another library, at inference.

        Parameters
        ----------
        model : one of
            - a ReLUNetwork, returned as it is; a Solution, for its `network`;
            - `torch.nn.Sequential(Linear, ReLU, Linear)` of any device and precision, with or without biases. Beside
              these only what does nothing to rows at inference: Identity, Dropout, Flatten of all axes but the first;
            - scikit-learn's MLPRegressor or MLPClassifier, fitted, one hidden layer, activation "relu". A classifier's
              network is what enters its output activation: logits of `classes_[1]` if there are two classes, else one
              logit a class (softmax) or a label (sigmoid);
            - the variables of Flax's `Sequential([Dense, relu, Dense])`, as `to_flax` gives them;
            - arrays of any library, or lists: (first_layer, second_layer[, hidden_bias[, skip[, bias]]]), some None; or
              a mapping from the names of the constructor. Shapes as in the constructor.
        intercept : whether the network program that the network is meant for has a constant column for the neurons, as
            in `solve`. A hidden bias is its weight, penalised with the others; the output bias is a skip, unpenalised.

        Returns
        -------
        PyTorch and scikit-learn models of one output give `second_layer` (m,), predicted as (n,); arrays keep their
        shape. float32 stays float32; other real numbers become float64, without loss.

        Raises
        ------
        TypeError : `model` is none of these, or holds something other than real numbers.
        ValueError : another architecture, a model that is not fitted, shapes that do not fit, values that are not
            finite, or a nonzero hidden bias with `intercept=False`.

        Examples
        --------
        >>> ReLUNetwork.from_(([[1.0, -1.0]], [1.0, 1.0])).predict([[-2.0], [3.0]])
        array([2., 3.])
        """
        network = getattr(model, "network", model)
        if not isinstance(network, ReLUNetwork):
            network = ReLUNetwork(**fields_of_model(model))
        check_intercept(network.hidden_bias, intercept)
        return network

    @staticmethod
    def from_blocks(
        V: np.ndarray,
        Z: np.ndarray,
        *,
        intercept: bool = False,
        scalar: bool | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> ReLUNetwork:
        """`f(x)_k = sum_i relu(x @ v_ik) - relu(x @ z_ik)`: one neuron per nonzero block, none for a zero block.

        A block v of output k becomes `w = v / sqrt(|v|)`, `a = sqrt(|v|) e_k` for V and `-sqrt(|v|) e_k` for Z, so that
        |w| = |a| (balanced weight decay equals `sum |v|`). Where the blocks are cone-feasible this is the prediction of
        the sampled program.

        Parameters
        ----------
        V, Z : (D, P, c) float64.
        scalar : whether `second_layer` is (m,) instead of (m, c); None means c == 1.
        intercept : the last of the D rows belongs to the constant column and becomes the hidden bias.
        metadata : as in the constructor.

        Examples
        --------
        >>> import numpy as np
        >>> V, Z = np.zeros((2, 3, 1)), np.zeros((2, 3, 1))
        >>> V[:, 0, 0], Z[:, 2, 0] = [3.0, 4.0], [0.0, 9.0]
        >>> network = ReLUNetwork.from_blocks(V, Z)
        >>> network.second_layer, network.path_norm
        (array([ 2.23606798, -3.        ]), 14.0)
        """
        V, Z = host_array("V", V).astype(np.float64), host_array("Z", Z).astype(np.float64)
        fields = neurons_of_blocks(V, Z, intercept, scalar)
        return ReLUNetwork(**fields, metadata={} if metadata is None else metadata)

    def unstandardise(
        self, x_center: np.ndarray, x_scale: np.ndarray, y_center: Any = 0.0, y_scale: Any = 1.0
    ) -> ReLUNetwork:
        """`g(X) = y_center + y_scale * f((X - x_center) / x_scale)` as one network.

        For a network trained on standardised features and targets: the result takes raw features, predicts raw targets.

        Parameters
        ----------
        x_center, x_scale : (d,), x_scale > 0. A nonzero center gives the neurons a bias if they had none.
        y_center, y_scale : scalar or (c,). A zero center adds no output bias where there was none.
        """
        x_center, x_scale, y_center, y_scale = map(to_host, (x_center, x_scale, y_center, y_scale))
        first = self.first_layer / x_scale[:, None]
        shift = x_center @ first
        hidden = None
        if self.hidden_bias is not None or np.any(x_center):
            hidden = (0.0 if self.hidden_bias is None else self.hidden_bias) - shift
        skip, bias = None, self.bias
        offset = np.zeros(self.second_layer.shape[1:])
        if self.skip is not None:
            skip = (self.skip.T / x_scale).T
            offset = offset - x_center @ skip
            skip = skip * y_scale
        if bias is not None or np.any(y_center) or np.any(offset):
            bias = y_center + y_scale * (offset + (0.0 if bias is None else bias))
        return ReLUNetwork(first, self.second_layer * y_scale, hidden, skip, bias, metadata=self.metadata)

    def allclose(self, other: ReLUNetwork, rtol: float = 0.0, atol: float = 0.0) -> bool:
        """Whether both networks have the same fields, with `|x - y| <= atol + rtol |y|` everywhere; ignores metadata.

        With the default tolerances the values must be equal. Networks compare by identity under `==`.
        """
        for name in REQUIRED + OPTIONAL:
            x, y = getattr(self, name), getattr(other, name)
            if x is None or y is None:
                if x is not y:
                    return False
            elif x.shape != y.shape or not np.allclose(x, y, rtol=rtol, atol=atol):
                return False
        return True

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to one safetensors file; a file already at `path` is replaced as a whole, or not at all.

        Dtypes are kept. The header names the format, its version, the version of cvxrelu, and holds `metadata` as JSON.

        Examples
        --------
        >>> import tempfile, os
        >>> network = ReLUNetwork([[1.0], [1.0]], [2.0], metadata={"beta": 0.1})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     network.save(os.path.join(folder, "network.safetensors"))
        ...     again = ReLUNetwork.load(os.path.join(folder, "network.safetensors"))
        >>> again.allclose(network), again.metadata
        (True, {'beta': 0.1})
        """
        fields = {name: getattr(self, name) for name in REQUIRED + OPTIONAL}
        write_network(Path(path), {name: value for name, value in fields.items() if value is not None}, self.metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ReLUNetwork:
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError : there is no such file.
        ValueError : it is not a whole, readable network of this format; names the file and what is wrong with it.
        """
        return read_network(Path(path), cls)

    def __repr__(self) -> str:
        present = "".join(f", {name}" for name in OPTIONAL if getattr(self, name) is not None)
        d, m, c = self.n_features, self.n_neurons, self.n_outputs
        return f"ReLUNetwork(n_features={d}, n_neurons={m}, n_outputs={c}{present})"
