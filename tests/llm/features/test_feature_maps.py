"""Feature maps: joined layers and poolings, products with the prompt; the same numbers wherever they are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import write_model

import cvxrelu
from cvxrelu.support.errors import InputError
from cvxrelu_llm.features import held_out as module
from cvxrelu_llm.features.candidates import candidates, spread
from cvxrelu_llm.features.extract import PairFeatures, embed, extract
from cvxrelu_llm.features.extraction import Extraction
from cvxrelu_llm.features.held_out import L2, HeldOut, held_out, kernel_logistic, nested
from cvxrelu_llm.features.pair_features import center_and_scale
from cvxrelu_llm.features.sweep import SweepStates, sweep
from cvxrelu_llm.heads.data import data_hash
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.models.feature_map import PROMPTS, FeatureMap, as_feature_map
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.preferences.triples import Triples, load_triples

MAPS: list[dict[str, Any]] = [
    {"layer": [1, 3], "pooling": "response_mean"},
    {"layer": 2, "pooling": ["last", "mean"], "prompt": "read"},
    {"layer": [1, 2], "pooling": ["last", "response_mean"], "prompt": "product"},
    {"layer": -1, "pooling": "mean", "prompt": "product"},
]


def states_of(model: Any, tokens: list[int]) -> list[np.ndarray]:
    """Hidden states of all layers by `transformers` itself, (n, D) float64 each."""
    import torch

    with torch.no_grad():
        out = model.network(input_ids=torch.tensor([tokens]), output_hidden_states=True)
    return [states[0].double().numpy() for states in out.hidden_states]


def by_hand(model: Any, prompt: list[int], answer: list[int], layer: Any, pooling: Any, way: str) -> np.ndarray:
    """The features of one text of a causal model, written out."""
    hidden, parts, products = states_of(model, [*prompt, *answer]), [], []
    for k in layer if isinstance(layer, list) else [layer]:
        states = hidden[k if k > 0 else model.n_layers]
        for name in pooling if isinstance(pooling, list) else [pooling]:
            row = {"last": states[-1], "mean": states.mean(0), "response_mean": states[len(prompt) :].mean(0)}[name]
            parts.append(row)
            products.append(row * states[len(prompt) - 1])
    return np.concatenate([*parts, *(products if way == "product" else [])])


def tokens_of(model: Any, triple: Any, response: str) -> tuple[list[int], list[int]]:
    messages = [{"role": role, "content": content} for role, content in triple.prompt]
    text = model.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tuple(model.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, response))  # type: ignore[return-value]


@pytest.mark.parametrize("settings", MAPS)
@pytest.mark.parametrize("way", [{}, {"share_prefix": False}, {"padding_side": "right"}, {"batch_tokens": 60}])
def test_features_are_those_written_out(
    model: Any, triples: Triples, settings: dict[str, Any], way: dict[str, Any]
) -> None:
    found = extract(model, triples, **settings, **way)
    for k, triple in enumerate(triples):
        for side, response in enumerate((triple.chosen, triple.rejected)):
            prompt = settings.get("prompt", "read")
            right = by_hand(model, *tokens_of(model, triple, response), settings["layer"], settings["pooling"], prompt)
            np.testing.assert_allclose(found.X[found.pairs[k, side]], right, atol=2e-5 * np.abs(right).max())


@pytest.mark.parametrize("settings", MAPS)
def test_head_texts_guidance_cache_and_files_agree(
    model: Any, model_folder: Path, triples: Triples, settings: dict[str, Any], tmp_path: Path
) -> None:
    """One number per text, to 1e-4, by features, texts, the state of a generation, the cache and a saved head."""
    import torch
    from transformers import AutoModelForCausalLM

    from cvxrelu_llm.generation.scorers import score_tokens

    features = extract(model, triples, **settings, cache=tmp_path / "cache")
    again = extract(model, triples, **settings, cache=tmp_path / "cache")
    assert again.stats["cached"] == again.stats["texts"]
    np.testing.assert_array_equal(features.X, again.X)
    ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(features).save(tmp_path / "head")
    head = ConvexRewardHead.load(tmp_path / "head")
    assert FeatureMap.of(head.feature_settings) == FeatureMap.of(features.settings)
    rewards = head.score(features.X)
    size = np.abs(rewards).max()
    texts = [(t.prompt, r) for t in triples for r in (t.chosen, t.rejected)]
    np.testing.assert_allclose(head.score_texts(model, texts), rewards[features.pairs.ravel()], atol=1e-4 * size)
    torch.manual_seed(0)
    lm: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    scorer = head.scorer(lm, model.tokenizer)
    for k, triple in enumerate(triples):
        prompt, answer = tokens_of(model, triple, triple.chosen)
        found = score_tokens(lm, scorer, [*prompt, *answer], prompt_length=len(prompt))
        assert found[0] == pytest.approx(rewards[features.pairs[k, 0]], abs=1e-4 * size)
    card = (tmp_path / "head" / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace("this-folder", str(tmp_path / "head"))
    assert "score_texts" in code and "guide" in code
    if settings == MAPS[0]:
        exec(code.replace("scale=4.0", "max_new_tokens=3, scale=4.0"), {})
    text = head.guide(lm, model.tokenizer, "Why?", max_new_tokens=6, top_k=None, top_p=None, scale=2.0)
    prompt, _ = tokens_of(model, load_triples([{"prompt": "Why?", "chosen": "a", "rejected": "b"}])[0], "a")
    kept = [*text.tokens[: -1 if text.finished else None]]
    again_scored = score_tokens(lm, scorer, [*prompt, *kept], prompt_length=len(prompt))
    assert text.score == pytest.approx(again_scored[0], abs=1e-4 * size)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_model(tmp_path_factory.mktemp("bert"), "Bert", chat=False)
    return load_model(folder, dtype="float32", device="cpu")


def test_encoders_see_prompt_and_answer_apart(encoder: Any, triples: Triples) -> None:
    given: dict[str, Any] = {"layer": [2, 3], "pooling": "mean", "template": "plain"}
    ignored, product = (extract(encoder, triples, **given, prompt=way) for way in ("ignore", "product"))
    assert product.X.shape[1] == 2 * ignored.X.shape[1] == 64
    cls, sep = encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id

    def means(text: str) -> np.ndarray:
        tokens = [cls, *encoder.tokenizer(text, add_special_tokens=False)["input_ids"], sep]
        return np.concatenate([states_of(encoder, tokens)[layer].mean(0) for layer in (2, 3)])

    for k, triple in enumerate(triples):
        text = triple.prompt[0].content if len(triple.prompt) == 1 else None
        for side, response in enumerate((triple.chosen, triple.rejected)):
            r = means(response)
            np.testing.assert_allclose(ignored.X[ignored.pairs[k, side]], r, atol=1e-5)
            if text is not None:
                right = np.concatenate([r, r * means(text)])
                np.testing.assert_allclose(product.X[product.pairs[k, side]], right, atol=1e-5)
    texts = [(t.prompt, t.chosen) for t in triples]
    np.testing.assert_allclose(
        embed(encoder, texts, **given, prompt="product"), product.X[product.pairs[:, 0]], atol=1e-5
    )
    joint = given | {"pooling": ["last", "response_mean"]}  # of the pass that reads the prompt
    read, both = (extract(encoder, triples, **joint, prompt=way) for way in ("read", "both"))
    assert both.X.shape[1] == FeatureMap((2, 3), ("last", "response_mean"), "both").n_features(16) == 128
    right = np.concatenate([read.X[read.pairs], product.X[product.pairs]], axis=2)
    np.testing.assert_allclose(both.X[both.pairs], right, atol=1e-5)
    assert both.stats["tokens"] == read.stats["tokens"] + product.stats["tokens"]
    swept = sweep(encoder, many(), template="plain", folds=3)
    assert {row.prompt for row in swept.table} == {"read", "ignore", "product", "both"}
    chosen = extract(encoder, many(), template="plain")
    assert chosen.stats["tokens_run"] == 0  # the sweep has run all of them


def many(m: int = 18) -> Triples:
    rows = [{"prompt": f"What is {i}?", "chosen": f"area {i}", "rejected": f"width no {i}"} for i in range(m)]
    return load_triples(rows)


def test_what_cannot_be_is_named(model: Any, encoder: Any, triples: Triples, tmp_path: Path) -> None:
    for settings, words in (
        ({"layer": [], "pooling": "last"}, "layer must hold at least one"),
        ({"layer": [2, -2], "pooling": "last"}, "layer must hold different ones, got 2 twice"),
        ({"layer": [0], "pooling": "last"}, "layer must be from 1 to 3"),
        ({"layer": 1, "pooling": ["last", "best"]}, "pooling must be"),
        ({"layer": 1, "pooling": "last", "prompt": "skip"}, "prompt must be"),
        ({"layer": 1, "pooling": "last", "prompt": "ignore"}, "prompt='ignore' is for encoders"),
        ({"layer": 1, "pooling": "last", "prompt": "both"}, "prompt='both' is for encoders"),
    ):
        with pytest.raises(ValueError, match=words):
            extract(model, triples, **settings)
    one, joined = (extract(model, triples, layer=k, pooling="last") for k in (2, [2, 3]))
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(joined)
    with pytest.raises(InputError, match="layer is 2, but the head was fitted on"):
        head.check_features(one.settings)
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(one)
    with pytest.raises(InputError, match="prompt is 'product'"):
        head.check_features(one.settings | {"prompt": "product"})
    head.check_features({name: value for name, value in one.settings.items() if name != "prompt"})  # of an older file
    head.save(tmp_path / "head")
    record = json.loads((tmp_path / "head" / "head.json").read_text())
    for name, value in (("layer", [1, "2"]), ("layer", []), ("pooling", [3]), ("prompt", 1)):
        damaged = record | {"features": record["features"] | {name: value}}
        (tmp_path / "head" / "head.json").write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=name):
            ConvexRewardHead.load(tmp_path / "head")


def test_features_from_before_have_the_hash_they_had(model: Any, triples: Triples) -> None:
    found = extract(model, triples, layer=2, pooling="last")
    settings = {name: value for name, value in found.settings.items() if name != "prompt"}
    old = PairFeatures(found.X, found.pairs, found.weight, found.margin, found.group, found.kept, settings)
    assert data_hash(found, found.margin) == data_hash(old, old.margin)
    product = PairFeatures(*(getattr(old, n) for n in ("X", "pairs", "weight", "margin", "group", "kept")),
                           settings | {"prompt": "product"})  # fmt: skip
    assert data_hash(product, product.margin) != data_hash(old, old.margin)


def test_a_generation_has_a_prompt_that_was_read(model: Any) -> None:
    from cvxrelu_llm.generation.scorers import HiddenStateScorer

    with pytest.raises(ValueError, match="prompt must be 'read' or 'product'"):
        HiddenStateScorer(len, prompt="ignore")
    with pytest.raises(ValueError, match="pooling must be one of"):
        HiddenStateScorer(len, pooling=())


# -- the choice -------------------------------------------------------------------------------------------------------
def test_spread() -> None:
    assert spread(range(1, 31), 6) == (6, 11, 15, 20, 25, 30)
    assert spread([1, 2, 3], 6) == (1, 2, 3) and spread(range(1, 13), 4) == (4, 7, 9, 12)


def test_candidates(model: Any, encoder: Any) -> None:
    layers, poolings = [1, 2, 3], ["last", "mean", "response_mean"]
    causal = candidates(model, layers, poolings, ["read", "product"])
    assert len(causal) == len(set(causal)) == 4 + 3 and all(c.layers == (1, 2, 3) for c in causal)
    apart = candidates(encoder, layers, poolings, ["read", "ignore", "product", "both"])
    assert [c.poolings for c in apart if c.prompt != "read"] == [("mean",), ("mean",), ("response_mean",)]
    assert apart[-1].prompt == "both" and apart[-1].parts == (
        FeatureMap((1, 2, 3), ("response_mean",), "read"), FeatureMap((1, 2, 3), ("mean",), "product")
    )  # fmt: skip
    fixed = candidates(model, [2], ["last", "mean"], ["product"], join_layers=False, join_poolings=False)
    assert fixed == [FeatureMap((2,), ("last", "mean"), "product")]
    deep = candidates(model, list(range(1, 31)), ["mean"], ["read"], singles=True)
    assert len(deep) == 30 + 2 and as_feature_map(model, 2, "last").n_features(16) == 16


def test_inner_products_are_those_of_the_features(encoder: Any) -> None:
    run = Extraction(encoder, "plain")
    texts = run.tokenise([(t.prompt, r) for t in many() for r in (t.chosen, t.rejected)])
    unique = list(dict.fromkeys(texts))
    pairs = np.array([unique.index(text) for text in texts]).reshape(-1, 2)
    tried = candidates(encoder, [1, 2, 3], ["last", "mean", "response_mean"], PROMPTS)
    states, known = SweepStates(run, unique, tried), dict[Any, np.ndarray]()
    for one in tried:
        Z = run.features(unique, one)[0].astype(np.float64)
        np.testing.assert_allclose(states.features(one), Z, atol=1e-6)
        A = (Z - Z[np.unique(pairs)].mean(0)) / Z[np.unique(pairs)].std(0)
        D = A[pairs[:, 0]] - A[pairs[:, 1]]
        np.testing.assert_allclose(states.gram(one, pairs, known), D @ D.T / D.shape[1], rtol=1e-3, atol=1e-3)
    assert len(known) == 3 * (3 + 2)  # each layer's three poolings, the answer's mean alone, and its product


@pytest.mark.parametrize("seed", range(4))
def test_kernel_logistic_against_solve_logistic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, d = (30, 8) if seed % 2 else (12, 40)
    A, weight, margin = rng.standard_normal((m, d)) * 10.0 ** (seed - 2), rng.random(m), rng.standard_normal(m)
    weight[0], c = 0.0, None
    for l2 in (100.0, 1.0, 1e-2, 1e-4):  # each from the one before, as along the grid
        c = kernel_logistic(A @ A.T, l2, weight, margin, c)
        right = cvxrelu.solve_logistic(A, l2=l2, sample_weight=weight, margin=margin, tol=1e-12)
        theta = A.T @ c
        value = weight @ np.logaddexp(0.0, margin - A @ theta) + 0.5 * l2 * theta @ theta
        assert value <= right.objective * (1 + 1e-6) + 1e-9


def test_nested_folds_against_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "L2", (1e-1, 1e-3))
    rng = np.random.default_rng(0)
    tests = [np.arange(0, 8), np.arange(8, 14), np.arange(14, 20)]
    weight, margin = rng.random(20) + 0.1, 0.1 * rng.standard_normal(20)
    grams = [A @ A.T for A in (rng.standard_normal((20, 5)), rng.standard_normal((20, 3)) + 0.5)]

    def margins(K: np.ndarray, l2: float, without: np.ndarray, at: np.ndarray) -> np.ndarray:
        kept = np.setdiff1d(np.arange(20), without)
        c = kernel_logistic(K[np.ix_(kept, kept)], l2 * len(kept), weight[kept], margin[kept])
        return K[np.ix_(at, kept)] @ c

    right = np.zeros(20)
    for test in tests:
        best = (np.inf, grams[0], 0.0)
        for K in grams:
            for l2 in module.L2:
                loss = 0.0
                for other in tests:
                    if other is not test:
                        f = margins(K, l2, np.concatenate([test, other]), other)
                        loss += float(weight[other] @ np.logaddexp(0.0, margin[other] - f))
                best = min(best, (loss, K, l2), key=lambda found: found[0])
        right[test] = margins(best[1], best[2], test, test)
    models: list[HeldOut] = [held_out(K, weight, margin, tests) for K in grams]
    np.testing.assert_allclose(nested(models, weight, margin, tests), right, atol=1e-4)


def test_the_worth_of_a_choice_from_noise_is_not_better_than_nothing() -> None:
    """The best of forty noise matrices looks better than a coin; what the choice is worth does not."""
    rng = np.random.default_rng(1)
    m, tests = 80, np.array_split(np.arange(80), 5)
    ones, zeros, looked, worth = np.ones(m), np.zeros(m), [], []
    for _ in range(3):
        A = [rng.standard_normal((m, 20)) / np.sqrt(20) for _ in range(40)]
        models = [held_out(a @ a.T, ones, zeros, tests) for a in A]
        looked.append(min(np.logaddexp(0.0, -model.margins).mean(axis=1).min() for model in models))
        worth.append(np.logaddexp(0.0, -nested(models, ones, zeros, tests)).mean())
    assert np.mean(looked) < np.log(2) - 0.005 < np.log(2) - 0.001 < np.mean(worth)
    assert len(L2) > 2


def test_dead_columns_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3)).astype(np.float32)
    X[:, 1] *= 1e-32
    center, scale = center_and_scale(X)
    assert scale[1] == 1.0 and abs(center[1]) < 1e-30 and (scale[[0, 2]] > 0.5).all()
    wide = X.astype(np.float64) * [1.0, 1e26, 1e6]  # of different units, and alive
    np.testing.assert_allclose(center_and_scale(wide)[1], wide.std(axis=0))


def test_columns_that_pairs_can_bear(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the largest maps would not fit, smaller ones are chosen from; where none does, the smallest."""
    from cvxrelu_llm.features import extract as module

    rows = 2 * 18 * 4
    for limit, sizes in ((rows * 96, {48, 96}), (rows * 48, {48}), (1, {48})):
        monkeypatch.setattr(module, "BYTES", limit)
        table = extract(model, many(), template="chat").sweep.table
        found = {FeatureMap.of(row._asdict()).n_features(16) for row in table}
        assert found == sizes, limit


def test_a_product_needs_a_prompt(model: Any, model_folder: Path) -> None:
    """The state of the last token of no prompt would be that of padding, or of the answer."""
    import torch
    from transformers import AutoModelForCausalLM

    from cvxrelu_llm.generation.states import prefill

    with pytest.raises(InputError, match="prompts of at least one token"):
        embed(model, [("", "area")], layer=2, pooling="last", prompt="product", template="plain")
    assert embed(model, [("", "area")], layer=2, pooling="last", template="plain").shape == (1, 16)
    state = prefill(AutoModelForCausalLM.from_pretrained(model_folder), torch.tensor([[5, 6]]), prompt_length=0)
    with pytest.raises(ValueError, match="a prompt of at least one token"):
        state.features("last", "product")
