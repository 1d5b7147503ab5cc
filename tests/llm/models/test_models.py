"""A caller's model stays as it was, is hashed once, and its cache is passed under the name that it has."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cvxrelu.support.errors import InputError
from cvxrelu_llm import ConvexRewardHead, as_pair_features
from cvxrelu_llm.models import torch_models
from cvxrelu_llm.models.kv_cache import cache_keyword, cache_of
from cvxrelu_llm.models.torch_models import TorchModel, fingerprint

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def base(folder: Path, **options: Any) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, **options)


def test_the_network_is_left_as_it_was(model_folder: Path, model: Any) -> None:
    network = base(model_folder, dtype=torch.float32)
    network.train()
    network.layers[0].eval()  # frozen by its owner, say
    modes = [module.training for module in network.modules()]
    network.norm.weight.requires_grad_(False)
    trainable = [p.requires_grad for p in network.parameters()]
    wrapped = TorchModel(network, model.tokenizer, name="mine")
    hidden = wrapped.forward(np.array([[5, 6, 7]]), np.ones((1, 3), dtype=bool), [2]).hidden[0]
    expected = model.forward(np.array([[5, 6, 7]]), np.ones((1, 3), dtype=bool), [2]).hidden[0]
    torch.testing.assert_close(hidden, expected)
    assert [module.training for module in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == trainable
    network(input_ids=torch.tensor([[5, 6]])).last_hidden_state.sum().backward()


def test_weights_are_hashed_once_and_again_when_they_change(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, hashes = base(model_folder, dtype=torch.float32), []
    whole = torch_models._hash
    monkeypatch.setattr(torch_models, "_hash", lambda given: hashes.append(1) or whole(given))
    first = fingerprint(network)
    assert fingerprint(network) == first and len(hashes) == 1
    with torch.no_grad():
        network.norm.weight.mul_(2.0)
    assert fingerprint(network) != first and len(hashes) == 2
    with torch.no_grad():
        network.norm.weight.div_(2.0)
    assert fingerprint(network) == first
    network.norm.weight.data.mul_(3.0)  # which PyTorch does not count as a write
    assert fingerprint(network) != first
    network.norm.weight.data.div_(3.0)
    network.config.rms_norm_eps *= 2
    assert fingerprint(network) != first


def test_a_model_in_training_is_read_without_dropout(model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    from cvxrelu_llm.generation.states import prefill

    lm = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attention_dropout=0.5).train()
    tokens = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(prefill(lm, tokens).logits, prefill(lm, tokens).logits)
    assert lm.training and all(module.training for module in lm.modules())


def test_another_precision_is_said_to_be_that(model: Any) -> None:
    settings = {"fingerprint": "f", "dtype": "bfloat16", "model": "lm", "layer": 1, "pooling": "last"}
    features = np.random.default_rng(0).standard_normal((12, 3))
    data = as_pair_features(features, [[i, i + 1] for i in range(0, 12, 2)], settings=settings)
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(data)
    with pytest.raises(InputError, match=r"wrong precision .* computes in float32, .* bfloat16; .*dtype='bfloat16'"):
        head.check_model(model)
    with pytest.raises(InputError, match="wrong model for this head"):
        head.check_model(SimpleNamespace(fingerprint="g", dtype="bfloat16", name="other"))


def test_the_cache_goes_by_the_name_that_the_model_has(model_folder: Path) -> None:
    new = SimpleNamespace(forward=lambda input_ids, cache=None: None)
    old = SimpleNamespace(forward=lambda input_ids, past_key_values=None: None)
    none = SimpleNamespace(forward=lambda input_ids: None)
    assert [cache_keyword(lm) for lm in (new, old, none)] == ["cache", "past_key_values", None]
    assert cache_of({"cache": 1}) == 1 and cache_of({"past_key_values": 2}) == 2
    network = base(model_folder, dtype=torch.float32).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = network(input_ids=torch.tensor([[5, 6]]), use_cache=True)
        more = {str(cache_keyword(network)): cache_of(out), "use_cache": True}
        after = network(input_ids=torch.tensor([[7]]), **more).last_hidden_state
        whole = network(input_ids=torch.tensor([[5, 6, 7]])).last_hidden_state
    torch.testing.assert_close(after[:, -1], whole[:, -1], rtol=1e-4, atol=1e-5)
