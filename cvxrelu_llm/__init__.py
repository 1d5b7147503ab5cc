"""Alignment of language models with `cvxrelu`: preference data, features, and what is trained on them.

The names below load on first use: importing the package must stay fast, and PyTorch is an extra.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "ConvexRewardHead": "heads.head",
    "InputError": "errors",
    "Message": "preferences.messages",
    "PairFeatures": "features.extract",
    "Triple": "preferences.triples",
    "Triples": "preferences.triples",
    "alternate": "preferences.conversations",
    "as_pair_features": "heads.head",
    "embed": "features.extract",
    "evaluate": "evaluation.metrics",
    "extract": "features.extract",
    "load_model": "models.load",
    "load_triples": "preferences.triples",
}

__all__ = [
    "ConvexRewardHead",
    "InputError",
    "Message",
    "PairFeatures",
    "Triple",
    "Triples",
    "alternate",
    "as_pair_features",
    "embed",
    "evaluate",
    "extract",
    "load_model",
    "load_triples",
]


def __getattr__(name: str) -> Any:
    """Public names, from their modules, and `__version__`, from the installed metadata."""
    if name in __all__:
        return getattr(importlib.import_module(f"cvxrelu_llm.{_PUBLIC[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("cvxrelu")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
