"""Alignment of language models with `cvxrelu`: preference data, features, and what is trained on them.

The names below load on first use: importing the package must stay fast, and PyTorch is an extra.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "ConvexRewardHead": "cvxrelu_llm.heads.head",
    "InputError": "cvxrelu.support.errors",
    "Message": "cvxrelu_llm.preferences.messages",
    "PairFeatures": "cvxrelu_llm.features.extract",
    "Triple": "cvxrelu_llm.preferences.triples",
    "Triples": "cvxrelu_llm.preferences.triples",
    "alternate": "cvxrelu_llm.preferences.conversations",
    "as_pair_features": "cvxrelu_llm.heads.head",
    "compare_heads": "cvxrelu_llm.evaluation.compare",
    "embed": "cvxrelu_llm.features.extract",
    "evaluate": "cvxrelu_llm.evaluation.metrics",
    "extract": "cvxrelu_llm.features.extract",
    "load_model": "cvxrelu_llm.models.load",
    "load_triples": "cvxrelu_llm.preferences.triples",
    "suggest": "cvxrelu_llm.heads.suggest",
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
    "compare_heads",
    "embed",
    "evaluate",
    "extract",
    "load_model",
    "load_triples",
    "suggest",
]


def __getattr__(name: str) -> Any:
    """Public names, from their modules, and `__version__`, from the installed metadata."""
    if name in __all__:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("cvxrelu")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, and nothing else."""
    return [*__all__, *(name for name in globals() if name.startswith("__")), "__version__"]
