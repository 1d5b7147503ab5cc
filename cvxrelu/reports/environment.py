"""Machine, versions and state of the backends: where a result comes from, and whether to trust what computes it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform

from cvxrelu.backends import BACKENDS
from cvxrelu.backends.choose import check_backend

__all__ = ["machine", "print_checkup", "versions"]


def versions() -> dict[str, str]:
    """Versions of Python, of cvxrelu and of the installed packages that a solve or a report can use."""
    found = {"Python": platform.python_version()}
    for name in ("cvxrelu", "numpy", "scipy", "jax", "cupy", "scikit-learn", "matplotlib", "safetensors"):
        if (version := _version(name)) is not None:
            found[name] = version
    return found


def machine() -> str:
    """Operating system, processor and number of cores in a line; no host name and no user name."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        processor = names[0] if names else processor
    return f"{platform.system()} {platform.machine()}, {processor}, {os.cpu_count()} cores"


def print_checkup() -> list[str]:
    """Print what is installed and whether each backend computes what it should; returns the names of broken ones."""
    print("cvxrelu doctor: what is installed, and does each backend compute what it should?\n")
    print(f"machine   {machine()}")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    broken = []
    for name in BACKENDS:
        found = check_backend(name)
        wrong = found.known_answer not in ("ok", "not run")
        if wrong or (not found.available and name != "cupy"):  # NumPy and JAX come with the package
            broken.append(name)
        state = "WRONG ANSWERS" if wrong else "works" if found.available else "not available"
        print(f"\n{name:9} {state}")
        facts = {
            "versions": ", ".join(f"{package} {version}" for package, version in found.versions.items()),
            "devices": ", ".join(found.devices),
            "detail": "" if found.available else found.detail,
            "test": "known answer reproduced" if found.known_answer == "ok" else found.known_answer,
        }
        for key, value in facts.items():
            if value:
                print(f"  {key:9} {value}")
    models = {name: _version(name) for name in ("torch", "transformers")}
    print(f"\nlanguage models (cvxrelu_llm)  {'installed' if all(models.values()) else 'not available'}")
    shown = ", ".join(f"{name} {version}" for name, version in models.items() if version)
    print(f"  versions  {shown}\n  test      cvxrelu-llm doctor" if all(models.values()) else
          "  detail    pip install 'cvxrelu[llm]'")  # fmt: skip
    return broken


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
