"""The file of a network: safetensors, its header naming the format, its version, cvxrelu's version, the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cvxrelu.network.fields import OPTIONAL, REQUIRED
from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write
from cvxrelu.support.stored import damage, parse_json, read_tensors, short

__all__ = ["PICKLES", "package_version", "read_network", "write_network"]

Network = TypeVar("Network")

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".joblib")
_FORMAT = "cvxrelu.ReLUNetwork"
_FORMAT_VERSION = 1
_STORED_DTYPES = ("F32", "F64")


def write_network(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write the fields that are present; a file already at `path` is replaced as a whole, or not at all."""
    from safetensors.numpy import save

    if path.suffix in PICKLES:
        raise InputError(
            f"path: a {path.suffix} file is a pickle, which can run code where it is loaded, and this is a safetensors "
            f"file: name it {path.with_suffix('.safetensors').name}, and load it with ReLUNetwork.load"
        )
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
    dtypes = dict.fromkeys(REQUIRED, _STORED_DTYPES), dict.fromkeys(OPTIONAL, _STORED_DTYPES)
    tensors, header = read_tensors(path, _FORMAT, *dtypes)
    with damage(path):
        return build(**tensors, metadata=_metadata(header))


def package_version() -> str:
    """That of the installed cvxrelu."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cvxrelu")
    except PackageNotFoundError:
        return "unknown"


def _metadata(header: dict[str, str]) -> dict[str, Any]:
    """The metadata of a file's header, once its version is found right."""
    version = header.get("format_version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10 and int(version) >= 1):
        raise ValueError(f"the format version is {short(version)}; expected a number from 1")
    if int(version) > _FORMAT_VERSION:
        raise ValueError(
            f"format version {version}, written by cvxrelu {short(header.get('cvxrelu_version', 'unknown'))}; "
            f"this cvxrelu reads up to {_FORMAT_VERSION}: update it"
        )
    return parse_json(header.get("metadata", "{}"), "its metadata")
