"""The file of a network: safetensors, its header naming the format, its version, cvxrelu's version, the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cvxrelu.conversion import OPTIONAL, REQUIRED
from cvxrelu.files import atomic_write

__all__ = ["package_version", "read_network", "write_network"]

Network = TypeVar("Network")

_FORMAT = "cvxrelu.ReLUNetwork"
_FORMAT_VERSION = 1
_STORED_DTYPES = ("F32", "F64")


def write_network(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write the fields that are present; a file already at `path` is replaced as a whole, or not at all."""
    from safetensors.numpy import save

    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
    header = {
        "format": _FORMAT,
        "format_version": str(_FORMAT_VERSION),
        "cvxrelu_version": package_version(),
        "metadata": json.dumps(metadata),
    }
    atomic_write(path, save(dict(tensors), header))


def read_network(path: Path, build: Callable[..., Network]) -> Network:
    """`build(**tensors, metadata=...)` of a file that `write_network` wrote; errors as in `ReLUNetwork.load`."""
    from safetensors import SafetensorError, safe_open

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
            if missing := [name for name in REQUIRED if name not in names]:
                raise ValueError(f"the tensor {missing[0]} is missing")
            if unexpected := sorted(names.difference(REQUIRED, OPTIONAL)):
                raise ValueError(f"unexpected tensor {unexpected[0]!r}")
            for name in sorted(names):
                if (dtype := file.get_slice(name).get_dtype()) not in _STORED_DTYPES:
                    raise ValueError(f"the tensor {name} has dtype {dtype}; expected F32 or F64")
            return build(**{name: file.get_tensor(name) for name in names}, metadata=metadata)
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated, or not a safetensors file ({error})") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def package_version() -> str:
    """That of the installed cvxrelu."""
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
