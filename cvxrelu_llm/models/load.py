"""A model by name: of `transformers`, GGUF, sentence-transformers, or KerasHub in JAX."""

from __future__ import annotations

from typing import Any

from cvxrelu_llm.models.protocol import FeatureModel

__all__ = ["load_model"]


def load_model(
    name_or_path: Any,
    *,
    gguf_file: Any = None,
    dtype: Any = None,
    device: Any = None,
    revision: Any = None,
    backend: Any = "torch",
) -> FeatureModel:
    """Load a model of `transformers`, of sentence-transformers, a GGUF file, or a GPT-2 in JAX.

    Parameters
    ----------
    name_or_path : a folder, the path of a .gguf file, or the name of a model on the hub (the only use of the network).
    gguf_file : name of the file in that folder or repository.
    dtype : "float32" or "bfloat16"; None is bfloat16 where the processor computes in it, else float32.
    device : "cpu", "cuda", "cuda:1", ...; None is the first GPU if there is one.
    revision : branch, tag or commit of a hub model.
    backend : "torch", or "jax" for a GPT-2 through KerasHub.

    Returns
    -------
    FeatureModel

    Raises
    ------
    InputError where the model, or a package it needs, is missing; ValueError for bad arguments.
    """
    if dtype not in (None, "float32", "bfloat16"):
        raise ValueError(f"dtype must be None, 'float32' or 'bfloat16', got {dtype!r}")
    if backend == "torch":
        from cvxrelu_llm.models.torch_models import load_torch_model

        return load_torch_model(str(name_or_path), gguf_file, dtype, device, revision)
    if backend == "jax":
        from cvxrelu_llm.models.keras_models import load_keras_model

        if gguf_file is not None or device is not None or revision is not None or dtype == "bfloat16":
            raise ValueError("backend='jax' takes no gguf_file, device or revision, and float32 only")
        return load_keras_model(str(name_or_path))
    raise ValueError(f"backend must be 'torch' or 'jax', got {backend!r}")
