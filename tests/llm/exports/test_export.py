"""Every way out gives the number that the head gives: PyTorch, ONNX, transformers, and the guided scorer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import write_model

from cvxrelu import ReLUNetwork
from cvxrelu.support.errors import InputError
from cvxrelu_llm.exports.write import (
    export_onnx,
    export_qwen2_reward_model,
    export_reward_model,
    export_sequence_classifier,
    linear_relu_linear,
    to_torch,
)  # fmt: skip
from cvxrelu_llm.features.extract import extract
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.preferences.triples import Triples, load_triples

WORDS = ["area", "of", "the", "rectangle", "length", "width", "together", "butterflies", "Oregon", "please"]


@pytest.fixture(scope="module")
def many() -> Triples:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(2, 7))) for _ in range(72)]
    rows = zip(texts[:24], texts[24:48], texts[48:], strict=True)
    return load_triples([{"prompt": f"{a}?", "chosen": f"{b} a", "rejected": f"{c} b"} for a, b, c in rows])


def network(seed: int = 0, d: int = 6, m: int = 4) -> ReLUNetwork:
    rng = np.random.default_rng(seed)
    return ReLUNetwork(
        rng.standard_normal((d, m)), rng.standard_normal(m), rng.standard_normal(m), rng.standard_normal(d), bias=0.3
    )


def fitted(model: FeatureModel, triples: Triples, pooling: str, layer: int = -1) -> ConvexRewardHead:
    """Few pairs and one beta: what is asked here is whether numbers agree, not whether they are good."""
    features = extract(model, triples, layer=layer, pooling=pooling)
    head = ConvexRewardHead(skip_l2=2.0, beta=0.3, tol=1e-2).fit(features)
    assert head.n_neurons > 0
    return head


def causal(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)  # of the output layer, which some folders lack
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return lm, AutoTokenizer.from_pretrained(folder)


# -- without a language model ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("parts", ["all", "no skip", "no hidden bias", "linear"])
def test_linear_relu_linear_is_the_network(parts: str) -> None:
    full, X = network(), np.random.default_rng(1).standard_normal((20, 6))
    given = {
        "all": full,
        "no skip": ReLUNetwork(full.first_layer, full.second_layer, full.hidden_bias, bias=full.bias),
        "no hidden bias": ReLUNetwork(full.first_layer, full.second_layer, skip=full.skip),
        "linear": ReLUNetwork(np.zeros((6, 0)), np.zeros(0), skip=full.skip, bias=full.bias),
    }[parts]
    for width in (None, 9):
        W, b, a, c = linear_relu_linear(given, width)
        np.testing.assert_allclose(np.maximum(X @ W.T + b, 0) @ a + c, given.predict(X), atol=1e-12)
        assert width is None or len(a) == width
    with pytest.raises(InputError, match="only 1 fit"):
        linear_relu_linear(given, 1)


def test_torch_module() -> None:
    torch = pytest.importorskip("torch")
    X = np.random.default_rng(1).standard_normal((20, 6))
    for dtype, allowed in (("float64", 1e-12), ("float32", 1e-4)):
        out = to_torch(network(), dtype)(torch.tensor(X, dtype=getattr(torch, dtype))).detach().numpy()
        assert out.shape == (20, 1)
        np.testing.assert_allclose(out[:, 0], network().predict(X), atol=allowed)
    again = ReLUNetwork.from_(to_torch(network(), "float64"))  # the solver reads it as its own
    np.testing.assert_allclose(again.predict(X), network().predict(X), atol=1e-12)


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs onnx")
    from onnx.reference import ReferenceEvaluator

    X = np.random.default_rng(1).standard_normal((20, 6)).astype(np.float32)
    path = export_onnx(network(), tmp_path / "head.onnx")
    (out,) = ReferenceEvaluator(str(path)).run(None, {"features": X})
    assert out.shape == (20,)
    np.testing.assert_allclose(out, network().predict(X.astype(np.float64)), atol=1e-4)


# -- with one ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "settings",
    [
        {"layer": [1, 3], "pooling": "last"},
        {"layer": [2, -1], "pooling": ["last", "response_mean"]},
        {"layer": [1, 2], "pooling": ["mean", "response_mean"], "prompt": "product"},
    ],
)
def test_joined_layers_and_products_are_exported(
    model: FeatureModel, model_folder: Path, many: Triples, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The exported model finds the answer by the template's mark, padded on either side, ended or not."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    head = ConvexRewardHead(skip_l2=2.0, beta=0.3, tol=1e-2).fit(extract(model, many, **settings))
    texts = [(triple.prompt, triple.chosen) for triple in many][:6]
    scores = head.score_texts(model, texts)
    _, tokenizer = causal(model_folder)
    export_reward_model(head, model_folder, tmp_path / "reward")
    served = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", trust_remote_code=True).eval()
    turns = [[*(m._asdict() for m in prompt), {"role": "assistant", "content": text}] for prompt, text in texts]
    words = [tokenizer.apply_chat_template(turn, tokenize=False) for turn in turns]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        for given in (words, [word.removesuffix("<|im_end|>\n") for word in words]):
            batch = tokenizer(given, return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.no_grad():
                found = served(**{k: batch[k] for k in ("input_ids", "attention_mask")}).logits[:, 0].numpy()
            np.testing.assert_allclose(found, scores, atol=1e-4 * max(1.0, np.abs(scores).max()))
    if served.config.reward_answer_mark:
        with pytest.raises(ValueError, match="text 0 has no answer"):
            served(input_ids=torch.tensor([tokenizer("area of the", add_special_tokens=False)["input_ids"]]))


def test_where_an_answer_begins_must_be_known(
    model: FeatureModel, model_folder: Path, many: Triples, tmp_path: Path
) -> None:
    features = extract(model, many, layer=2, pooling="response_mean", template="plain")
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(features)
    with pytest.raises(InputError, match="only a chat template says where an answer begins"):
        export_reward_model(head, model_folder, tmp_path / "reward")
    assert not (tmp_path / "reward").exists()


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_texts_score_alike_everywhere(
    model: FeatureModel, model_folder: Path, many: Triples, tmp_path: Path, pooling: str
) -> None:
    """`score_texts`, the scorer that guides, and the exported sequence classifier: the same to 1e-4."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    from cvxrelu_llm.generation.scorers import as_tokens, score_tokens

    layer = 2 if pooling == "mean" else 3
    head = fitted(model, many, pooling, layer)
    texts = [(triple.prompt, triple.chosen) for triple in many][:6]
    scores = head.score_texts(model, texts)
    assert np.ptp(scores) > 0.01

    lm, tokenizer = causal(model_folder)
    scorer = head.scorer(lm, tokenizer)
    ids, guided = [], []
    for prompt, response in texts:
        start = as_tokens(tokenizer, [message._asdict() for message in prompt]).tolist()
        ids.append([*start, *tokenizer(response, add_special_tokens=False)["input_ids"]])
        guided += score_tokens(lm, scorer, ids[-1], prompt_length=len(start)).tolist()
    np.testing.assert_allclose(guided, scores, atol=1e-4)

    export_reward_model(head, model_folder, tmp_path / "reward")
    served = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", trust_remote_code=True).eval()
    width = max(map(len, ids))
    batch = torch.tensor([[*row, *[2] * (width - len(row))] for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    with torch.no_grad():
        np.testing.assert_allclose(served(batch, attention_mask=mask).logits[:, 0].numpy(), scores, atol=1e-4)
        turns = [[*(m._asdict() for m in prompt), {"role": "assistant", "content": text}] for prompt, text in texts]
        ended = tokenizer([tokenizer.apply_chat_template(turn, tokenize=False) for turn in turns],
                          return_tensors="pt", padding=True, add_special_tokens=False)  # fmt: skip
        assert ended["input_ids"].shape[1] > width  # as TRL writes texts: with the mark that ends a turn
        marked = {name: ended[name] for name in ("input_ids", "attention_mask")}
        np.testing.assert_allclose(served(**marked).logits[:, 0].numpy(), scores, atol=1e-4)
        if pooling == "last":  # padding is recognised by its token too
            np.testing.assert_allclose(served(batch).logits[:, 0].numpy(), scores, atol=1e-4)
            stop = torch.tensor([[*row, tokenizer.eos_token_id] for row in ids[:1]])
            np.testing.assert_allclose(served(stop).logits[:, 0].numpy(), scores[:1], atol=1e-4)
    with pytest.raises(InputError, match="exists already"):
        export_reward_model(head, model_folder, tmp_path / "reward")


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_on_either_side_changes_no_reward(many: Triples, tmp_path: Path, pooling: str) -> None:
    """GPT-2 has learned positions, which padding on the left would move."""
    torch = pytest.importorskip("torch")
    from tiny_models import write_model
    from transformers import AutoModelForSequenceClassification

    from cvxrelu_llm.models.load import load_model
    from cvxrelu_llm.models.templates import as_template

    folder = write_model(tmp_path / "gpt2", "GPT2")
    model = load_model(folder, dtype="float32", device="cpu")
    head = fitted(model, many, pooling)
    texts = [(triple.prompt, triple.chosen) for triple in many][:5]
    scores = head.score_texts(model, texts)
    assert np.ptp(scores) > 0.01
    export_reward_model(head, folder, tmp_path / "reward")
    served = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", trust_remote_code=True).eval()
    template = as_template(model, "auto")
    ids = [[*template.prompt_tokens(prompt), *template.response_tokens(text)] for prompt, text in texts]
    width = max(map(len, ids)) + 3
    for side in ("left", "right"):
        rows = [(row, [2] * (width - len(row))) for row in ids]
        batch = torch.tensor([[*pad, *row] if side == "left" else [*row, *pad] for row, pad in rows])
        ones = [([1] * len(row), [0] * len(pad)) for row, pad in rows]
        mask = torch.tensor([[*zero, *one] if side == "left" else [*one, *zero] for one, zero in ones])
        with torch.no_grad():
            found = served(batch, attention_mask=mask).logits[:, 0].numpy()
        np.testing.assert_allclose(found, scores, atol=1e-4, err_msg=side)
    with torch.no_grad():
        alone = [float(served(torch.tensor([row])).logits[0, 0]) for row in ids]
    np.testing.assert_allclose(alone, scores, atol=1e-4)


def test_linear_heads_are_stock_classifiers(
    model: FeatureModel, model_folder: Path, many: Triples, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    from cvxrelu_llm.generation.scorers import as_tokens

    features = extract(model, many, layer=-1, pooling="last")
    head = ConvexRewardHead(skip_l2=2.0, beta=np.inf).fit(features)
    export_sequence_classifier(head, model_folder, tmp_path / "c")
    served = AutoModelForSequenceClassification.from_pretrained(tmp_path / "c", dtype=torch.float32).eval()
    triple = many[0]
    start = as_tokens(model.tokenizer, [message._asdict() for message in triple.prompt]).tolist()
    ids = [*start, *model.tokenizer(triple.chosen, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        reward = float(served(torch.tensor([ids])).logits[0, 0]) + served.config.reward_bias
    assert reward == pytest.approx(head.score_texts(model, [(triple.prompt, triple.chosen)])[0], abs=1e-4)
    with pytest.raises(InputError, match="linear"):
        export_sequence_classifier(fitted(model, many, "last"), model_folder, tmp_path / "d")


def test_log_probabilities_are_the_models_own_loss(model_folder: Path, many: Triples) -> None:
    import torch

    from cvxrelu_llm.features.reference import reference_log_ratios
    from cvxrelu_llm.generation.scorers import as_tokens
    from cvxrelu_llm.models.log_probabilities import response_log_probabilities

    lm, tokenizer = causal(model_folder)
    triple, sides = many[0], []
    for response in (triple.chosen, triple.rejected):
        start = as_tokens(tokenizer, [message._asdict() for message in triple.prompt]).tolist()
        answer = tokenizer(response, add_special_tokens=False)["input_ids"]
        labels = torch.tensor([[-100] * len(start) + answer])
        with torch.no_grad():
            loss = lm(torch.tensor([[*start, *answer]]), labels=labels).loss
        ((total, n),) = response_log_probabilities(lm, tokenizer, triple.prompt, [response])
        assert n == len(answer) and total == pytest.approx(-float(loss) * n, rel=1e-4)
        sides.append((total, n))
    (ratio,) = reference_log_ratios(lm, tokenizer, many.select(np.array([0])))
    assert ratio == pytest.approx(sides[0][0] - sides[1][0], abs=1e-5)
    (mean,) = reference_log_ratios(lm, tokenizer, many.select(np.array([0])), per_token=True)
    assert mean == pytest.approx(sides[0][0] / sides[0][1] - sides[1][0] / sides[1][1], abs=1e-5)


@pytest.mark.parametrize("max_length", [1024, 12])
def test_log_probabilities_do_not_depend_on_sharing_the_prompt(
    model_folder: Path, many: Triples, max_length: int
) -> None:
    from cvxrelu_llm.features.reference import reference_log_ratios
    from cvxrelu_llm.models.log_probabilities import response_log_probabilities

    lm, tokenizer = causal(model_folder)
    answers = ["Yes.", "No, and here is why it is not so.", "Yes", *(f"It is {i}, I think." for i in range(9))]
    given = {"max_length": max_length}
    shared = response_log_probabilities(lm, tokenizer, many[0].prompt, answers, **given)
    apart = response_log_probabilities(lm, tokenizer, many[0].prompt, answers, share_prefix=False, **given)
    assert [n for _, n in shared] == [n for _, n in apart] and len(shared) == len(answers)
    np.testing.assert_allclose([p for p, _ in shared], [p for p, _ in apart], rtol=1e-5)
    some = many.select(np.arange(8))
    one_by_one = [reference_log_ratios(lm, tokenizer, some.select(np.array([i])), **given)[0] for i in range(8)]
    np.testing.assert_allclose(reference_log_ratios(lm, tokenizer, some, **given), one_by_one, rtol=1e-4, atol=1e-5)


def test_a_guided_text_has_the_score_of_its_features(model: FeatureModel, model_folder: Path, many: Triples) -> None:
    head = fitted(model, many, "mean")
    lm, tokenizer = causal(model_folder)
    found = head.guide(lm, tokenizer, "What is the area?", max_new_tokens=4, scale=2.0, seed=0)
    tokens = list(found.tokens[:-1] if found.finished else found.tokens)
    start = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the area?"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    mask = np.ones((1, len(start) + len(tokens)), dtype=bool)
    hidden = model.forward(np.array([[*start, *tokens]]), mask, [3]).hidden[0][0].numpy()
    assert abs(head.score(hidden.mean(axis=0)[None])[0] - found.score) < 1e-4


def test_another_model_is_refused(
    model: FeatureModel, many: Triples, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head = fitted(model, many, "last")
    folder = write_model(tmp_path_factory.mktemp("other"), "Llama", intermediate_size=48)
    other = load_model(folder, dtype="float32", device="cpu")
    with pytest.raises(InputError, match="wrong model"):
        head.score_texts(other, [("Why?", "Because")])
    with pytest.raises(InputError, match="wrong model"):
        head.scorer(*causal(folder))
    with pytest.raises(InputError, match="wrong model"):
        export_reward_model(head, folder, tmp_path / "x")
    with pytest.raises(InputError, match="layer"):
        head.check_features(extract(model, many, layer=1, pooling="last").settings)
    assert not (tmp_path / "x").exists()


def test_qwen2_reward_model(tmp_path: Path, many: Triples) -> None:
    """The arithmetic of `Qwen2ForRewardModel`: its own Linear, ReLU, Linear on the last hidden state."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file
    from transformers import AutoModel

    folder = write_model(tmp_path / "qwen", "Qwen2", tie_word_embeddings=False)
    model = load_model(folder, dtype="float32", device="cpu")
    features = extract(model, many, layer=3, pooling="last")
    head = ConvexRewardHead(skip_l2=2.0, beta=1.0, tol=1e-2).fit(features)
    assert 0 < head.n_neurons <= 14
    out = export_qwen2_reward_model(head, folder, tmp_path / "reward")
    config, weights = json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")
    assert config["architectures"] == ["Qwen2ForRewardModel"] and config["num_labels"] == 1
    assert {name: tuple(weights[name].shape) for name in weights if name.startswith("score.")} == {
        "score.0.weight": (16, 16), "score.0.bias": (16,), "score.2.weight": (1, 16), "score.2.bias": (1,),
    }  # fmt: skip
    base = AutoModel.from_pretrained(out, dtype=torch.float32)
    for name, tensor in base.state_dict().items():  # what is served is the model that the head was fitted on
        assert torch.equal(tensor, weights[f"model.{name}"])
    texts = [(triple.prompt, triple.rejected) for triple in many][:3]
    hidden = torch.tensor(features.X[features.pairs[:3, 1]])
    inner = torch.relu(hidden @ weights["score.0.weight"].T + weights["score.0.bias"])
    rewards = inner @ weights["score.2.weight"].T + weights["score.2.bias"]
    np.testing.assert_allclose(rewards[:, 0].numpy(), head.score_texts(model, texts), atol=1e-4)
    with pytest.raises(InputError, match="last token of the last layer"):
        other = ConvexRewardHead(skip_l2=2.0, beta=np.inf).fit(extract(model, many, layer=1, pooling="last"))
        export_qwen2_reward_model(other, folder, tmp_path / "y")


def test_weights_of_a_quantised_file_are_exported_as_plain_ones(
    model_folder: Path, many: Triples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL refuses to go on with what calls itself quantised; GGUF files are read into plain weights."""
    head = fitted(load_model(model_folder, dtype="float32", device="cpu"), many, "last")

    def of_a_file(*names: Any, **options: Any) -> Any:
        loaded: Any = load_model(*names, **options)
        loaded.network.config.quantization_config = {"quant_method": "gguf"}
        return loaded

    monkeypatch.setattr("cvxrelu_llm.models.load.load_model", of_a_file)
    export_reward_model(head, model_folder, tmp_path / "reward")
    assert "quantization_config" not in json.loads((tmp_path / "reward" / "config.json").read_text())
