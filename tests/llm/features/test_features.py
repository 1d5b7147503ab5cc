"""Features equal those of `transformers`' own full passes, however they are batched, padded, shared or interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_model

from cvxrelu.support.errors import InputError
from cvxrelu_llm.features import batches
from cvxrelu_llm.features import extract as features
from cvxrelu_llm.features.cache import FeatureCache
from cvxrelu_llm.features.extract import PairFeatures, embed, extract
from cvxrelu_llm.features.extraction import _key
from cvxrelu_llm.features.held_out import L2
from cvxrelu_llm.features.sweep import sweep
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.models.pooling import POOLINGS
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.models.templates import Text, as_template
from cvxrelu_llm.preferences.messages import Message
from cvxrelu_llm.preferences.triples import Triples, load_triples

WAYS: list[dict[str, Any]] = [
    {},
    {"padding_side": "left"},
    {"padding_side": "right"},
    {"share_prefix": False},
    {"share_prefix": False, "padding_side": "left"},
    {"share_prefix": False, "batch_tokens": 1},
    {"batch_tokens": 60},
]


def plain_passes(model: Any, triples: Triples, layer: int, pooling: str) -> np.ndarray:
    """(m, 2, D) by `transformers`' hidden_states of each text alone, pooled in float64: nothing of ours but tokens."""
    import torch

    tokenizer, rows = model.tokenizer, []
    for triple in triples:
        messages = [{"role": role, "content": content} for role, content in triple.prompt]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        for response in (triple.chosen, triple.rejected):
            tokens = [*prompt, *tokenizer(response, add_special_tokens=False)["input_ids"]]
            with torch.no_grad():
                out = model.network(input_ids=torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
            states = out.hidden_states[layer][0].double().numpy()
            rows.append({"last": states[-1], "mean": states.mean(0), "response_mean": states[len(prompt) :].mean(0)})
    return np.stack([row[pooling] for row in rows]).reshape(len(triples), 2, -1)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


# -- the features -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layer", [1, 3])
def test_features_are_those_of_plain_passes(model: FeatureModel, triples: Triples, layer: int, pooling: str) -> None:
    expected = plain_passes(model, triples, layer, pooling)
    for way in WAYS:
        found = extract(model, triples, layer=layer, pooling=pooling, **way)
        assert found.X.dtype == np.float32
        assert relative(found.X[found.pairs], expected) < 1e-5, way


ARCHITECTURES = {
    "GPT2": {},
    "Mistral": {"sliding_window": 8},
    "Gemma3Text": {"sliding_window": 8, "head_dim": 8},
    "OPT": {},
    "Bloom": {},
    "Mamba": {},
    "Bert": {},
}


@pytest.mark.filterwarnings("ignore")  # of the libraries, about optional kernels and their own use of PyTorch
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures(tmp_path: Path, triples: Triples, architecture: str) -> None:
    """Learned, rotary and slope positions, sliding windows, recurrence, both directions."""
    pytest.importorskip("transformers")
    encoder = architecture == "Bert"
    folder = write_model(tmp_path, architecture, chat=not encoder, **ARCHITECTURES[architecture])
    model = load_model(folder, dtype="float32", device="cpu")
    assert model.causal is not encoder
    assert model.shares_prefix is (architecture not in ("Bert", "Mamba"))
    alone = extract(model, triples, layer=2, pooling="mean", share_prefix=False, batch_tokens=1)
    if not encoder:
        behind_block_2 = 1 if architecture == "Mamba" else 2  # whose hidden_states begin behind the first block
        assert relative(alone.X[alone.pairs], plain_passes(model, triples, behind_block_2, "mean")) < 1e-5
    for way in WAYS:
        if (way.get("padding_side") == "left" and encoder) or (
            way.get("padding_side")
            and way.get("share_prefix", True)
            and "sliding_window" in ARCHITECTURES[architecture]
        ):
            with pytest.raises(ValueError, match="padding_side"):
                extract(model, triples, layer=2, pooling="mean", **way)
        else:
            assert relative(extract(model, triples, layer=2, pooling="mean", **way).X, alone.X) < 1e-5, way


def test_prompts_run_once_and_the_pass_stops_at_the_layer(model: Any, triples: Triples) -> None:
    calls: dict[int, int] = dict.fromkeys(range(model.n_layers), 0)

    def counter(number: int) -> Any:
        def hook(_module: Any, inputs: Any, kwargs: Any, _output: Any) -> None:
            calls[number] += (inputs[0] if inputs else kwargs["hidden_states"]).shape[:2].numel()

        return hook

    handles = [
        block.register_forward_hook(counter(number), with_kwargs=True)
        for number, block in enumerate(model.network.layers)
    ]
    try:
        shared = extract(model, triples, layer=2, pooling="last", batch_tokens=1)
        run, calls = dict(calls), dict.fromkeys(calls, 0)
        apart = extract(model, triples, layer=2, pooling="last", share_prefix=False, batch_tokens=1)
    finally:
        for handle in handles:
            handle.remove()
    assert run[2] == calls[2] == 0
    template = as_template(model, "auto")
    prompts = {t.prompt: len(template.prompt_tokens(t.prompt)) for t in triples}
    responses = {(t.prompt, r): len(template.response_tokens(r)) for t in triples for r in (t.chosen, t.rejected)}
    assert shared.stats["tokens_run"] == sum(prompts.values()) + sum(responses.values())
    assert apart.stats["tokens_run"] == sum(prompts[p] + n for (p, _), n in responses.items()) == calls[0]
    assert shared.stats["tokens"] == apart.stats["tokens"] == apart.stats["tokens_run"]
    assert shared.stats["tokens_run"] <= run[0] <= shared.stats["tokens_padded"]


def test_equal_texts_share_a_row(model: FeatureModel, triples: Triples) -> None:
    found = extract(model, triples, layer=1, pooling="last")
    assert found.X.shape == (7, 16) and found.pairs.shape == (4, 2)
    assert found.pairs[0, 0] == found.pairs[2, 0]
    assert found.weight.tolist() == [1, 1, 1, 2] and found.margin.tolist() == [0, 0, 0, 0.5]
    assert found.group[0] == found.group[2] and len(set(found.group.tolist())) == 3
    np.testing.assert_array_equal(found.differences, found.X[found.pairs[:, 0]] - found.X[found.pairs[:, 1]])


def test_embed_gives_the_rows_of_extract(model: FeatureModel, triples: Triples) -> None:
    found = extract(model, triples, layer=2, pooling="response_mean")
    texts = [(t.prompt, t.rejected) for t in triples]
    assert relative(embed(model, texts, layer=2, pooling="response_mean"), found.X[found.pairs[:, 1]]) < 1e-5
    same = embed(model, [("Why?", "No."), ((Message("user", "Why?"),), "No.")], layer=-2, pooling="response_mean")
    np.testing.assert_array_equal(same[0], same[1])


def test_bfloat16_is_near_and_returned_as_float32(model_folder: Path, model: FeatureModel, triples: Triples) -> None:
    short = load_model(model_folder, dtype="bfloat16", device="cpu")
    assert short.dtype == "bfloat16" and short.fingerprint != model.fingerprint
    found = extract(short, triples, layer=2, pooling="mean")
    assert found.X.dtype == np.float32
    assert 1e-6 < relative(found.X, extract(model, triples, layer=2, pooling="mean").X) < 0.05


# -- templates and truncation -----------------------------------------------------------------------------------------
def test_chat_template_is_the_models(model: Any, triples: Triples) -> None:
    template = as_template(model, "auto")
    text = model.tokenizer.decode(template.prompt_tokens(triples[0].prompt))
    assert text == "<|im_start|>user\nWhat is the area?<|im_end|>\n<|im_start|>assistant\n"
    plain = as_template(model, "plain")
    assert model.tokenizer.decode(plain.prompt_tokens(triples[0].prompt)) == "What is the area?"
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert model.tokenizer.decode(plain.prompt_tokens(turns)) == "user: a\nassistant: b\nuser: c\nassistant: "
    with pytest.raises(ValueError, match="template"):
        as_template(model, "other")


def test_truncation_takes_the_oldest_of_the_prompt(model: FeatureModel) -> None:
    template = as_template(model, "auto")
    prompt, response = tuple(range(100, 120)), tuple(range(200, 210))
    assert template.text(prompt, response, 12, 4) == Text(prompt[-8:], response[:4])
    assert template.text(prompt, response[:1], 12, 4) == Text(prompt[-8:], response[:1])
    assert template.text(prompt, response, 64, 32) == Text(prompt, response)


def test_pairs_that_truncation_makes_equal_are_dropped_and_counted(model: FeatureModel) -> None:
    same = "Multiply the length and the width together, please."
    rows = [
        {"prompt": "Why?", "chosen": f"{same} Yes.", "rejected": f"{same} No."},
        {"prompt": "Why?", "chosen": "Yes.", "rejected": "No."},
    ]
    triples = load_triples(rows)
    found = extract(model, triples, layer=1, pooling="last", max_length=16)
    assert found.counts["equal_after_truncation"] == 1 and found.counts["responses_truncated"] == 2
    assert found.counts["prompts_truncated"] == 1
    assert found.kept.tolist() == [1] and len(found.pairs) == len(found.weight) == len(found.group) == 1
    assert extract(model, triples, layer=1, pooling="last").counts["pairs"] == 2
    with pytest.raises(InputError, match="max_length=16"):
        extract(model, triples[:1], layer=1, pooling="last", max_length=16)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"layer": 0}, "layer"),
        ({"layer": 4}, "layer"),
        ({"layer": -4}, "layer"),
        ({"layer": 1.5}, "layer"),
        ({"layer": "best"}, "layer"),
        ({"pooling": "pooler"}, "pooling"),
        ({"max_length": 257}, "max_length"),
        ({"max_length": 3}, "max_length"),
        ({"max_length": 16, "max_response_length": 16}, "max_response_length"),
        ({"batch_tokens": 0}, "batch_tokens"),
        ({"padding_side": "middle"}, "padding_side"),
        ({"template": "fancy"}, "template"),
    ],
)
def test_bad_settings_are_named(model: FeatureModel, triples: Triples, settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        extract(model, triples, **({"layer": 1, "pooling": "last"} | settings))


def test_models_that_cannot_be_loaded_are_one_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nonsense")
    for name in ("file.txt", "absent.gguf", "broken.gguf", ""):
        with pytest.raises(InputError, match=r"model|file|gguf"):
            load_model(tmp_path / name)
    with pytest.raises(ValueError, match="dtype"):
        load_model(tmp_path, dtype="int8")
    with pytest.raises(ValueError, match="backend"):
        load_model(tmp_path, backend="tpu")


# -- batches ----------------------------------------------------------------------------------------------------------
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=30), st.integers(1, 80))
def test_plans_cover_every_text_once_within_the_limit(shape: list[tuple[int, int]], limit: int) -> None:
    texts = [Text((7,) * p, (8,) * r) for p, r in shape]
    for share in (True, False):
        plan = batches.plan(texts, range(len(texts)), limit, share)
        assert sorted(i for batch in plan for i in batch.texts) == list(range(len(texts)))
        for batch in plan:
            members = [texts[i] for i in batch.texts]
            if batch.shared:
                prompts = [prompt for prompt in {text.prompt for text in members}]
                cost = max(map(len, prompts)) * len(prompts) + sum(len(text.response) for text in members)
                assert share and (cost <= limit or len(prompts) == 1)
            else:
                assert max(t.n_tokens for t in members) * len(members) <= limit or len(members) == 1


def test_runs_stop_before_they_waste() -> None:
    lengths = [300] * 2 + [10] * 40
    parts = [lengths[part] for part in batches.runs(lengths, 10_000)]
    assert parts[0] == [300, 300] and [n for part in parts for n in part] == lengths


# -- the cache --------------------------------------------------------------------------------------------------------
def test_cache_gives_the_same_answer_without_running(model: Any, triples: Triples, tmp_path: Path) -> None:
    settings = {"layer": 2, "pooling": "mean", "cache": tmp_path}
    first = extract(model, triples, **settings)
    second = extract(model, triples, **settings)
    np.testing.assert_array_equal(first.X, second.X)
    assert (second.stats["cached"], second.stats["tokens_run"]) == (7, 0)
    for change in ({"layer": 1}, {"pooling": "last"}, {"template": "plain"}, {"max_length": 20}):
        assert extract(model, triples, **(settings | change)).stats["cached"] == 0, change


def test_the_same_weights_elsewhere_use_the_cache(
    model: FeatureModel, model_folder: Path, triples: Triples, tmp_path: Path
) -> None:
    moved = load_model(shutil.copytree(model_folder, tmp_path / "moved"), dtype="float32", device="cpu")
    first = extract(model, triples, layer=1, pooling="last", cache=tmp_path / "cache")
    again = extract(moved, triples, layer=1, pooling="last", cache=tmp_path / "cache")
    assert moved.name != model.name and again.stats["cached"] == 7
    np.testing.assert_array_equal(first.X, again.X)


def test_another_model_does_not_use_the_cache(model: FeatureModel, triples: Triples, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "other", "Llama", rms_norm_eps=1e-2)
    other = load_model(folder, dtype="float32", device="cpu")
    other.name = model.name
    extract(model, triples, layer=1, pooling="last", cache=tmp_path / "cache")
    assert extract(other, triples, layer=1, pooling="last", cache=tmp_path / "cache").stats["cached"] == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap"])
def test_damaged_files_are_noticed_and_made_again(
    model: FeatureModel, triples: Triples, tmp_path: Path, damage: str
) -> None:
    settings = {"layer": 2, "pooling": "mean", "cache": tmp_path, "batch_tokens": 40}
    first = extract(model, triples, **settings)
    files = sorted(tmp_path.glob("*/*.safetensors"))
    assert len(files) > 1
    content = bytearray(files[0].read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    files[0].write_bytes({"cut": content[:-4], "empty": b"", "swap": files[1].read_bytes()}.get(damage, content))
    second = extract(model, triples, **settings)
    np.testing.assert_array_equal(first.X, second.X)
    assert second.stats["damaged_cache_files"] == 1 and 0 < second.stats["cached"] < 7
    assert extract(model, triples, **settings).stats["cached"] == 7


def test_cache_keeps_rows_by_key(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {"a": 1}, 3)
    cache.put([b"k" * 16, b"l" * 16], np.arange(6, dtype=np.float32).reshape(2, 3))
    again = FeatureCache(tmp_path, {"a": 1}, 3)
    assert len(again) == 2 and again.get(b"m" * 16) is None
    np.testing.assert_array_equal(again.get(b"l" * 16), [3, 4, 5])
    assert len(FeatureCache(tmp_path, {"a": 2}, 3)) == len(FeatureCache(tmp_path, {"a": 1}, 4)) == 0


def test_keys_tell_where_the_response_begins_and_ends() -> None:
    """Equal tokens pool differently: over the response alone, or without the closing token of an encoder."""
    texts = [Text((1, 2), (3, 4)), Text((1,), (2, 3, 4)), Text((1, 2, 3), (4,)), Text((1, 2), (3,), (4,)),
             Text((1, 2), (3, 5)), Text((1 << 32, 2), (3, 4))]  # fmt: skip
    assert len(set(map(_key, texts))) == len(texts) and _key(Text((1, 2), (3, 4))) == _key(texts[0])


KILLED = """
import os, signal, sys
from cvxrelu_llm.features import cache
from cvxrelu_llm.features.extract import extract
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.preferences.triples import load_triples
model = load_model(sys.argv[1], dtype="float32", device="cpu")
put, n = cache.FeatureCache.put, 0
def kill(self, keys, rows):
    global n
    n += 1
    if n == 3:  # in the middle of the third batch, with a half-written file
        (self.folder / ".half.safetensors.0.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, keys, rows)
cache.FeatureCache.put = kill
extract(model, load_triples(sys.argv[2]), layer=2, pooling="mean", cache=sys.argv[3], batch_tokens=40)
"""


def test_a_killed_extraction_goes_on_where_it_was(
    model: FeatureModel, model_folder: Path, triples: Triples, tmp_path: Path, root: Path
) -> None:
    triples.save(tmp_path / "triples.jsonl")
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(model_folder),
        str(tmp_path / "triples.jsonl"),
        str(tmp_path / "cache"),
    ]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    settings = {"layer": 2, "pooling": "mean", "batch_tokens": 40}
    whole = extract(model, triples, **settings)
    resumed = extract(model, triples, cache=tmp_path / "cache", **settings)
    np.testing.assert_array_equal(whole.X, resumed.X)
    assert 0 < resumed.stats["cached"] < 7


def test_prefixes_are_the_features_of_shorter_answers(model: FeatureModel, triples: Triples) -> None:
    given: dict[str, Any] = {"layer": 2, "pooling": "last"}
    whole, found = extract(model, triples, **given), extract(model, triples, prefixes=3, seed=1, **given)
    m, added = len(whole.pairs), found.counts["prefixes"]
    assert 0 < added <= 3 * m and len(found.pairs) == m + added == found.counts["pairs"]
    np.testing.assert_allclose(found.X[found.pairs[:m]], whole.X[whole.pairs], atol=1e-5)
    np.testing.assert_allclose(np.bincount(found.kept, found.weight), whole.weight)
    np.testing.assert_array_equal(found.group, whole.group[found.kept])
    possible = {}
    for k, triple in enumerate(triples):
        for side, response in enumerate((triple.chosen, triple.rejected)):
            tokens = model.tokenizer(response, add_special_tokens=False)["input_ids"]
            start = as_template(model, "auto").prompt_tokens(triple.prompt)
            ids = np.array([[*start, *tokens]])
            states = np.asarray(model.forward(ids, np.ones(ids.shape, dtype=bool), [2]).hidden[0][0])
            possible[k, side] = states[len(start) :]
    for (a, b), k in zip(found.pairs[m:], found.kept[m:], strict=True):
        shares = []
        for side, row in enumerate((a, b)):
            distance = np.abs(possible[k, side] - found.X[row]).max(axis=1)
            assert distance.min() < 1e-5
            shares.append((1 + int(distance.argmin())) / len(distance))
        # one share, rounded up to whole tokens: the two agree to the longer of both tokens
        assert abs(shares[0] - shares[1]) < 1 / min(len(possible[k, 0]), len(possible[k, 1])) + 1e-9
    with pytest.raises(ValueError, match="prefixes must be a whole number"):
        extract(model, triples, prefixes=-1, **given)


def test_files_of_features(model: FeatureModel, triples: Triples, tmp_path: Path) -> None:
    found = extract(model, triples, layer=2, pooling="mean")
    again = PairFeatures.load(found.save(tmp_path / "f.safetensors"))
    for name in ("X", "pairs", "weight", "margin", "group", "kept"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
        assert getattr(found, name).dtype == getattr(again, name).dtype
    assert again.settings == json.loads(json.dumps(found.settings)) and again.counts == found.counts
    (tmp_path / "g.safetensors").write_bytes(b"nothing")
    for name in ("g.safetensors", "absent.safetensors"):
        with pytest.raises(InputError, match=name):
            PairFeatures.load(tmp_path / name)


# -- the sweep --------------------------------------------------------------------------------------------------------
class Planted:
    """The random model, whose layer 2 is made to tell whether a response begins with a good word."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.good = model.tokenizer("please", add_special_tokens=False)["input_ids"][0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def forward(self, tokens: Any, mask: Any, layers: Any, past: Any = None, keep: bool = False) -> Any:
        import torch

        forward = self.model.forward(tokens, mask, layers, past, keep)
        hidden = [states.clone() for states in forward.hidden]
        if 2 in layers:
            hidden[layers.index(2)][..., 0] += 5.0 * torch.as_tensor(tokens == self.good)
        return forward._replace(hidden=hidden)


def test_sweep_finds_the_layer_and_pooling_that_tell(model: FeatureModel) -> None:
    words = ["area", "width", "length", "Oregon", "rectangle", "pink", "together", "the"]
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        tail = [" ".join(rng.choice(words, 4)) for _ in range(2)]
        rows.append({"prompt": f"What is {i}? please", "chosen": f"please {tail[0]}", "rejected": f"no {tail[1]}"})
    planted: Any = Planted(model)
    found = sweep(planted, load_triples(rows), folds=4, singles=True)
    singles = [row for row in found.table if isinstance(row.layer, int) and isinstance(row.pooling, str)]
    best = min(singles, key=lambda row: row.loss)  # of those within 0.001 of it, a smaller one stands first
    assert best.layer == 2 and best.pooling in ("mean", "response_mean")  # the last token does not see it
    assert found.n_pairs == 40 and len(found.table) == 28  # four layers or all, by three poolings and two, twice
    assert found.table[0].accuracy > 0.95 and found.table[0].loss <= min(row.loss for row in found.table) + 1e-3
    assert max(row.accuracy for row in found.table if row.pooling == "last") < 0.8
    assert found.worth is not None and found.worth.accuracy > 0.9 and found.worth.loss >= found.table[0].loss - 1e-12
    automatic = extract(planted, load_triples(rows))
    assert automatic.settings["layer"] == [1, 2, 3] and automatic.settings["pooling"] in ("mean", "response_mean")
    assert automatic.sweep is not None and "held out" in str(automatic.sweep)
    half = extract(planted, load_triples(rows), pooling="last")
    assert half.settings["pooling"] == "last" and {row.pooling for row in half.sweep.table} == {"last"}
    given = extract(planted, load_triples(rows), layer=[2, 3], prompt="read")
    assert given.settings["layer"] == [2, 3] and {row.layer for row in given.sweep.table} == {(2, 3)}
    assert {row.prompt for row in given.sweep.table} == {"read"}


def test_sweep_scores_are_those_of_a_plain_cross_validation(
    model: FeatureModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against Newton's method in float64 on the full features of each fold, written out."""
    monkeypatch.setattr("cvxrelu_llm.features.held_out.TOL", 1e-12)
    rng = np.random.default_rng(1)
    words = ["area", "width", "length", "Oregon", "rectangle", "pink"]
    rows = [
        {
            "prompt": f"Why {i}?",
            "chosen": " ".join(rng.choice(words, 3)) + ".",
            "rejected": " ".join(rng.choice(words, 3)),
        }
        for i in range(24)
    ]
    triples = load_triples(rows)
    found = sweep(model, triples, layers=[2], poolings=["mean"], prompts=["read"], folds=3)
    assert len(found.table) == 1
    pairs = extract(model, triples, layer=2, pooling="mean")
    X, best = pairs.X.astype(np.float64), np.inf
    index = {t.prompt: k for k, t in enumerate(triples)}
    for l2 in 16.0 * np.array(L2):  # per pair, of features not divided by the root of their number
        loss = np.zeros(len(triples))
        for train, test in triples.kfold(3):
            a, b = ([index[t.prompt] for t in side] for side in (train, test))
            scale = X[np.unique(pairs.pairs)].std(axis=0)
            A, B = (pairs.differences[rows_].astype(np.float64) / scale for rows_ in (a, b))
            theta = np.zeros(A.shape[1])
            for _ in range(50):
                p = 1 / (1 + np.exp(A @ theta))
                hessian = A.T @ (A * (p * (1 - p))[:, None]) + l2 * len(a) * np.eye(A.shape[1])
                theta -= np.linalg.solve(hessian, l2 * len(a) * theta - A.T @ p)
            loss[b] = np.log1p(np.exp(-B @ theta))
        best = min(best, loss.mean())
    assert found.table[0].loss == pytest.approx(best, rel=1e-4)


def test_subset_of_the_sweep_is_drawn_by_groups(model: FeatureModel) -> None:
    rows = [{"prompt": f"Why {i // 2}?", "chosen": f"Because {i}", "rejected": f"No {i}"} for i in range(60)]
    found = sweep(model, load_triples(rows), layers=[1], poolings=["last"], max_pairs=20, folds=3)
    assert abs(found.n_pairs - 20) <= 1
    with pytest.raises(ValueError, match="max_pairs"):
        sweep(model, load_triples(rows), max_pairs=3)
    with pytest.raises(ValueError, match="folds"):
        sweep(model, load_triples(rows), folds=2)


# -- real models ------------------------------------------------------------------------------------------------------
def test_minilm_features_are_its_sentence_embeddings(minilm: Path) -> None:
    """An encoder with trained mean pooling: plain passes of `transformers`, and what is known of meanings."""
    import torch

    model: Any = load_model(minilm, dtype="float32", device="cpu")
    assert (model.causal, model.shares_prefix, model.pooling, model.n_layers) == (False, False, "mean", 6)
    assert model.max_length == 256
    sentences = ["A man is eating food.", "A man eats something.", "The stock market fell sharply today."]
    found = embed(model, [("", text) for text in sentences], layer=-1, pooling="mean")
    for row, text in zip(found, sentences, strict=True):
        with torch.no_grad():
            states = model.network(**model.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert relative(row, states.mean(0).numpy()) < 1e-5
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    similar = unit @ unit.T
    assert similar[0, 1] > 0.6 > 0.3 > abs(similar[0, 2])
    rows = [{"prompt": f"Is {i} even?", "chosen": "It is.", "rejected": "I would not know."} for i in range(3)]
    auto = extract(model, load_triples(rows), layer=-1, pooling="mean", template="auto")
    assert auto.X.shape == (6, 384) and auto.settings["template"] == "plain"


@pytest.mark.slow
def test_smollm2_from_a_gguf_file(smollm2: Path, shared_data: Path) -> None:
    model = load_model(smollm2, dtype="float32", device="cpu")
    assert (model.causal, model.shares_prefix, model.n_layers, model.hidden_size) == (True, True, 30, 576)
    triples = load_triples(shared_data / "hh_rlhf_helpful_base_test.jsonl.gz")[:3]
    settings: dict[str, Any] = {"layer": 4, "pooling": "response_mean", "max_length": 128}
    assert extract(model, triples, **settings).settings["template"] == "chat"
    alone = extract(model, triples, share_prefix=False, batch_tokens=1, **settings)
    assert relative(extract(model, triples, **settings).X, alone.X) < 1e-5


@pytest.mark.filterwarnings("ignore")  # Keras' own
def test_gpt2_in_jax_gives_the_features_of_pytorch(
    tmp_path: Path, triples: Triples, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # Keras reads it when it is imported
    pytest.importorskip("keras")
    pytest.importorskip("keras_hub")
    folder = write_model(tmp_path, "GPT2")
    torch_model, jax_model = load_model(folder, dtype="float32", device="cpu"), load_model(folder, backend="jax")
    assert jax_model.shares_prefix and type(jax_model).__module__ == "cvxrelu_llm.models.keras_models"
    for layer, pooling, way in ((1, "last", {}), (3, "mean", {"padding_side": "right"}), (3, "last", WAYS[4])):
        expected = extract(torch_model, triples, layer=layer, pooling=pooling)
        found = extract(jax_model, triples, layer=layer, pooling=pooling, **way)
        assert relative(found.X, expected.X) < 1e-5, (layer, pooling, way)


def test_public_names() -> None:
    import cvxrelu_llm

    for name in cvxrelu_llm.__all__:
        assert getattr(cvxrelu_llm, name) is not None
    assert {"PairFeatures", "embed", "extract", "load_model", "sweep"} <= set(features.__all__)
