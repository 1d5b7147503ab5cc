"""What a machine has for `bench.gpu`: packages, card and driver, and the surroundings of its processes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.common.report import ROOT

__all__ = ["ADVICE", "card", "child_environment", "missing_packages"]

NEEDED = ("numpy", "scipy", "jax", "jaxtyping", "safetensors", "threadpoolctl")
CARRIED = ROOT / ".gpu-packages"
ADVICE = (
    "These are pure Python or come with any image for JAX; where nothing can be installed, "
    "`pip install --target .gpu-packages --no-deps NAME ...` elsewhere and take the folder along: it is looked in last"
)
COPIES = ("scipy/_lib", "scipy/_external", "sklearn/externals")  # of array_api_compat, in packages that carry it


def missing_packages() -> list[str]:
    """What has to be there and is not."""
    missing = [name for name in NEEDED if not _there(name)]
    return missing if _there("array_api_compat") or _copy() is not None else [*missing, "array-api-compat"]


def _there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None or (CARRIED / name).is_dir()


def _copy() -> Path | None:
    """A copy of array_api_compat within SciPy or scikit-learn."""
    for place in COPIES:
        package, _, inner = place.partition("/")
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec is not None else []:
            if (found := Path(folder) / inner / "array_api_compat").is_dir():
                return found
    return None


def child_environment(folder: Path) -> dict[str, str]:
    """The variables of the processes of the stages: where packages are, and no memory taken in advance.

    folder : temporary; where array_api_compat is not there, it gets a copy of the one that SciPy has.
    """
    paths = [str(ROOT), str(ROOT / "tests")]
    if not _there("array_api_compat") and (copy := _copy()) is not None:
        shutil.copytree(copy, folder / "packages" / "array_api_compat")
        paths.append(str(folder / "packages"))
    paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if CARRIED.is_dir():
        paths.append(str(CARRIED))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),  # what one stage has compiled the next ones have
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def card() -> dict[str, Any]:
    """Card and driver as nvidia-smi says them, and the versions of what drives a card."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        said = f"not there: {error}"
    names = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "cupy-cuda12x", "cupy-cuda13x", "torch",
             "nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")  # fmt: skip
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"card": said, "packages": versions}
