"""Which backend runs: by name, or chosen from the input and the machine; each one checked before it is trusted."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass, field
from typing import Any

import array_api_compat

from cvxrelu.backends import BACKENDS, Backend, BackendError
from cvxrelu.backends.known_answer import known_answer

__all__ = ["BackendReport", "check_backend", "get_backend", "select_backend", "select_devices", "the_arrays_own"]

# Flops of one ADMM iteration (12 n d P c) from which on JAX is taken on CPU: a first solve, compilation included, then
# takes about as long as on NumPy, and every later one of the same shape half as long. Measured by
# `python -m bench.speed --only auto`, see docs/backends.md.
JAX_CPU_FLOPS = 2e7


@dataclass(frozen=True)
class BackendReport:
    """What `cvxrelu doctor` prints for one backend."""

    name: str
    available: bool
    detail: str
    versions: dict[str, str] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    known_answer: str = "not run"


def select_backend(name: Any, inputs: tuple[Any, ...], flops: float) -> Backend:
    """The backend for a solve.

    `"auto"` takes CuPy for CuPy arrays, and JAX for JAX arrays on an accelerator. Otherwise it takes JAX if JAX has an
    accelerator, or for iterations of `JAX_CPU_FLOPS` flops and more, else NumPy: JAX arrays on a CPU too, where
    compilation takes longer than most solves.
    """
    if not isinstance(name, str) or name not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be 'auto', 'numpy', 'jax' or 'cupy', got {name!r}")
    if name != "auto":
        return get_backend(name)
    name = the_arrays_own(name, *inputs)
    if name != "auto":
        return get_backend(name)
    if flops < JAX_CPU_FLOPS and not _may_have_accelerator():
        return get_backend("numpy")
    try:
        jax = get_backend("jax")
    except BackendError:
        return get_backend("numpy")
    return jax if jax.is_accelerator or flops >= JAX_CPU_FLOPS else get_backend("numpy")


def the_arrays_own(name: Any, *inputs: Any) -> Any:
    """The name given, and for "auto" that of the device which these arrays are on, if one is: for whoever passes them
    on as arrays of the host.
    """
    if isinstance(name, str) and name == "auto":
        if any(array_api_compat.is_cupy_array(a) for a in inputs):
            return "cupy"
        if any(array_api_compat.is_jax_array(a) and not _on_cpu(a) for a in inputs):
            return "jax"
    return name


def _on_cpu(array: Any) -> bool:
    """Whether this JAX array is on one device, a CPU."""
    devices = array.devices()
    return len(devices) == 1 and all(device.platform == "cpu" for device in devices)


@functools.cache
def _may_have_accelerator() -> bool:
    """Whether to import JAX, which takes half a second, and ask: false where none of its plugins is installed."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    modules = ("jax_plugins", "libtpu")
    return "jax" in sys.modules or bool(plugins) or any(importlib.util.find_spec(name) for name in modules)


def select_devices(name: Any, devices: Any, time_limit: Any = None) -> Backend:
    """The JAX backend on several devices, for what `solve(devices=...)` takes."""
    if name not in ("auto", "jax"):
        raise ValueError(f"devices needs backend='jax' or 'auto', got backend={name!r}")
    get_backend("jax")
    from cvxrelu.backends.mesh import as_devices

    chosen = as_devices(devices)
    if time_limit is not None and len({device.process_index for row in chosen for device in row}) > 1:
        raise ValueError(
            f"time_limit is {time_limit!r}, and devices belong to several processes, whose clocks would disagree; "
            "use max_iter, or tol"
        )
    return _on_devices(chosen)


@functools.cache
def _on_devices(devices: tuple[tuple[Any, ...], ...]) -> Backend:
    """One instance for these devices, so that nothing is compiled twice, after its known-answer check."""
    from cvxrelu.backends.mesh import MeshBackend

    backend = MeshBackend(devices)
    error = known_answer(backend)
    if error is not None:
        raise BackendError(f"{backend!r} computes wrong numbers and is refused: {error}")
    return backend


@functools.cache
def get_backend(name: str) -> Backend:
    """The one instance of a backend, after it has passed its known-answer check.

    Raises
    ------
    BackendError
        If it is not installed, has no device, or computes wrong numbers.
    """
    backend = _create(name)
    error = known_answer(backend)
    if error is not None:
        raise BackendError(f"backend {name!r} computes wrong numbers and is refused: {error}")
    return backend


def check_backend(name: str) -> BackendReport:
    """Try a backend and report, never raise."""
    packages = {
        "numpy": ["numpy", "scipy"],
        "jax": ["jax", "jaxlib"],
        "cupy": ["cupy-cuda12x", "cupy-cuda13x"],
    }
    versions = {}
    for package in packages.get(name, []):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        backend = _create(name)
    except BackendError as error:
        return BackendReport(name, False, str(error), versions)
    answer = known_answer(backend, everything=True)
    return BackendReport(name, answer is None, repr(backend), versions, [backend.device], answer or "ok")


def _create(name: str) -> Backend:
    if name == "numpy":
        from cvxrelu.backends.numpy import NumpyBackend

        return NumpyBackend()
    if name == "jax":
        from cvxrelu.backends.jax import JaxBackend

        return JaxBackend()
    from cvxrelu.backends.cupy import CupyBackend

    return CupyBackend()
