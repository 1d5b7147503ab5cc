"""The two-layer ReLU network a solve returns: arrays on the host, prediction on any array library, one file on disk."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np

from cvxrelu.files import atomic_write

__all__ = ["ReLUNetwork"]

_FORMAT = "cvxrelu.ReLUNetwork"
_FORMAT_VERSION = 1
_REQUIRED = ("first_layer", "second_layer")
_OPTIONAL = ("hidden_bias", "skip", "bias")
_STORED_DTYPES = ("F32", "F64")


@dataclass(frozen=True, eq=False, repr=False)
class ReLUNetwork:
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
        for name in _REQUIRED:
            object.__setattr__(self, name, _host(name, getattr(self, name)))
        for name in _OPTIONAL:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _host(name, getattr(self, name)))
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
        object.__setattr__(self, "metadata", _plain(self.metadata))

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
        return float(_norms(inner) @ _norms(outer.T))

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
        if isinstance(X, np.ndarray) or not array_api_compat.is_array_api_obj(X):
            X = np.asarray(X)
        xp = array_api_compat.array_namespace(X)
        if not xp.isdtype(X.dtype, ("bool", "integral", "real floating")):
            raise TypeError(f"X has dtype {X.dtype}; expected real numbers")
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"X has shape {tuple(X.shape)}; expected (n, {self.n_features})")
        with _scope(X):
            if not xp.isdtype(X.dtype, "real floating"):
                X = xp.astype(X, xp.zeros(()).dtype)
            device = _device(X)
            copy = True if array_api_compat.is_torch_array(X) else None  # PyTorch warns about sharing read-only memory

            def put(w: np.ndarray) -> Any:
                return xp.asarray(w, dtype=X.dtype, device=device, copy=copy)

            hidden = X @ put(self.first_layer)
            if self.hidden_bias is not None:
                hidden = hidden + put(self.hidden_bias)
            output = xp.maximum(hidden, put(np.zeros(()))) @ put(self.second_layer)
            if self.skip is not None:
                output = output + X @ put(self.skip)
            if self.bias is not None:
                output = output + put(self.bias)
            return output

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
        V, Z = _host("V", V).astype(np.float64), _host("Z", Z).astype(np.float64)
        if V.ndim != 3 or V.shape != Z.shape or V.shape[2] == 0:
            raise ValueError(f"V and Z have shapes {V.shape} and {Z.shape}; expected the same (D, P, c), c >= 1")
        rows, _, c = V.shape
        if intercept and rows == 0:
            raise ValueError("V and Z have no row for the intercept; expected (d + 1, P, c)")
        blocks = np.stack([V, Z], axis=1)  # (D, 2, P, c)
        sizes = _norms(blocks)
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
        return ReLUNetwork(inner, second, hidden_bias, metadata={} if metadata is None else metadata)

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
        first = self.first_layer / np.asarray(x_scale)[:, None]
        shift = x_center @ first
        hidden = None
        if self.hidden_bias is not None or np.any(x_center):
            hidden = (0.0 if self.hidden_bias is None else self.hidden_bias) - shift
        skip, bias = None, self.bias
        offset = np.zeros(self.second_layer.shape[1:])
        if self.skip is not None:
            skip = (self.skip.T / np.asarray(x_scale)).T
            offset = offset - x_center @ skip
            skip = skip * y_scale
        if bias is not None or np.any(y_center) or np.any(offset):
            bias = y_center + y_scale * (offset + (0.0 if bias is None else bias))
        return ReLUNetwork(first, self.second_layer * y_scale, hidden, skip, bias, metadata=self.metadata)

    def allclose(self, other: ReLUNetwork, rtol: float = 0.0, atol: float = 0.0) -> bool:
        """Whether both networks have the same fields, with `|x - y| <= atol + rtol |y|` everywhere; ignores metadata.

        With the default tolerances the values must be equal. Networks compare by identity under `==`.
        """
        for name in _REQUIRED + _OPTIONAL:
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
        from safetensors.numpy import save

        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
        fields = {name: getattr(self, name) for name in _REQUIRED + _OPTIONAL}
        header = {
            "format": _FORMAT,
            "format_version": str(_FORMAT_VERSION),
            "cvxrelu_version": _version(),
            "metadata": json.dumps(self.metadata),
        }
        atomic_write(path, save({name: value for name, value in fields.items() if value is not None}, header))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ReLUNetwork:
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError : there is no such file.
        ValueError : it is not a whole, readable network of this format; names the file and what is wrong with it.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        if not path.is_file():
            raise ValueError(f"{path}: not a file")
        if path.stat().st_size == 0:
            raise ValueError(f"{path}: the file is empty")
        try:
            with safe_open(path, framework="np") as file:
                metadata = _check_header(file.metadata() or {})
                names = set(file.keys())
                if missing := [name for name in _REQUIRED if name not in names]:
                    raise ValueError(f"the tensor {missing[0]} is missing")
                if unexpected := sorted(names.difference(_REQUIRED, _OPTIONAL)):
                    raise ValueError(f"unexpected tensor {unexpected[0]!r}")
                for name in sorted(names):
                    if (dtype := file.get_slice(name).get_dtype()) not in _STORED_DTYPES:
                        raise ValueError(f"the tensor {name} has dtype {dtype}; expected F32 or F64")
                return cls(**{name: file.get_tensor(name) for name in names}, metadata=metadata)
        except SafetensorError as error:
            raise ValueError(f"{path}: truncated, or not a safetensors file ({error})") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    def __repr__(self) -> str:
        present = "".join(f", {name}" for name in _OPTIONAL if getattr(self, name) is not None)
        d, m, c = self.n_features, self.n_neurons, self.n_outputs
        return f"ReLUNetwork(n_features={d}, n_neurons={m}, n_outputs={c}{present})"


def _host(name: str, value: Any) -> np.ndarray:
    """A read-only, C-contiguous, finite float32 or float64 copy of `value`."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} is a {type(value).__name__} that NumPy cannot read ({error}); expected an array"
        ) from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
    array = np.array(array, dtype=np.float32 if array.dtype == np.float32 else np.float64, order="C", subok=False)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity; expected finite numbers")
    array.flags.writeable = False
    return array


def _plain(metadata: Any) -> dict[str, Any]:
    """A deep copy of `metadata`, as JSON gives it back."""
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata is a {type(metadata).__name__}; expected a dict")
    try:
        return json.loads(json.dumps(metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata cannot be written as JSON ({error})") from error


def _norms(blocks: np.ndarray) -> np.ndarray:
    """2-norms along the first axis, free of overflow and underflow: zero only where every entry is zero."""
    largest = np.max(np.abs(blocks), axis=0, initial=0.0)
    scale = np.where(largest > 0, largest, 1.0)
    return scale * np.linalg.norm(blocks / scale, axis=0)


def _device(X: Any) -> Any:
    """The device the weights go to; None for JAX arrays that are traced, sharded or uncommitted: JAX then follows X."""
    if not array_api_compat.is_jax_array(X):
        return array_api_compat.device(X)
    import jax

    if isinstance(X, jax.core.Tracer) or not X.committed or not isinstance(X.device, jax.Device):
        return None
    return X.device


@contextlib.contextmanager
def _scope(X: Any) -> Iterator[None]:
    """For JAX arrays: full-precision products, and float64 allowed where X has it. Nothing for other libraries."""
    if not array_api_compat.is_jax_array(X):
        yield
        return
    import jax

    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_matmul_precision("highest"))
        if X.dtype == np.float64:
            stack.enter_context(jax.enable_x64(True))
        yield


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cvxrelu")
    except PackageNotFoundError:
        return "unknown"


def _check_header(header: dict[str, str]) -> dict[str, Any]:
    """The metadata of a file's header, once its format and version are found right."""
    if header.get("format") != _FORMAT:
        raise ValueError(f"a safetensors file, but not a {_FORMAT}: its format is {header.get('format')!r}")
    version = header.get("format_version", "")
    if not (version.isascii() and version.isdigit() and int(version) >= 1):
        raise ValueError(f"the format version is {version!r}; expected a number from 1")
    if int(version) > _FORMAT_VERSION:
        raise ValueError(
            f"format version {version}, written by cvxrelu {header.get('cvxrelu_version', 'unknown')}; "
            f"this cvxrelu reads up to {_FORMAT_VERSION}: update it"
        )
    try:
        metadata = json.loads(header.get("metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its metadata is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"its metadata is a JSON {type(metadata).__name__}; expected an object")
    return metadata
