"""From conversations to a survey: every command takes what the one before has written."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_models import write_model

from cvxrelu_llm.command_line import extract as commands_extract
from cvxrelu_llm.command_line.main import main
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.features.reference import reference_log_ratios
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.models.causal import load_lm
from cvxrelu_llm.models.log_probabilities import response_log_probabilities
from cvxrelu_llm.preferences.triples import load_triples

WORDS = ["area", "width", "length", "Oregon", "rectangle", "pink", "together", "the"]


def run(*words: Any) -> None:
    assert main([str(word) for word in words]) == 0, words


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    talks = []
    for i in range(24):
        turns = [("student" if j % 2 == 0 else "tutor", " ".join(rng.choice(WORDS, 4)) + f" {j}.") for j in range(6)]
        talks.append({"id": i, "messages": [{"role": role, "content": text} for role, text in turns]})
    path = tmp_path_factory.mktemp("lessons") / "lessons.jsonl"
    path.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    return path


def test_from_conversations_to_a_survey(
    lessons: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the report needs matplotlib")
    pairs, features, head = tmp_path / "pairs.jsonl", tmp_path / "features", tmp_path / "head"
    texts = ("--layer", 2, "--pooling", "last", "--dtype", "float32", "--device", "cpu", "--quiet")
    run("alternate", lessons, "--student", "student", "--tutor", "tutor", "--out", pairs)
    run("inspect", pairs)
    run("extract", pairs, "--model", model_folder, "--out", features, "--cache", tmp_path / "cache", *texts)
    train, test = features / "train.safetensors", features / "test.safetensors"
    run("fit", train, "--out", head, "--betas", 0.7, "--quiet")
    run("eval", head, "--features", test, "--n-boot", 50, "--out", tmp_path / "metrics.json",
        "--report", tmp_path / "report.html", "--quiet")  # fmt: skip
    run("eval", head, "--features", test, "--data", pairs, "--n-boot", 50, "--out", tmp_path / "long.json", "--quiet")
    run("audit", head, "--features", train, "--limit", 3, "--out", tmp_path / "suspects.jsonl")

    prompts = tmp_path / "prompts.jsonl"
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    prompts.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows[:3]))
    sampling = ("--max-new-tokens", 4, "--quiet", "--prompts", prompts, "--model", model_folder)
    run("generate", *sampling, "--head", head, "--out", tmp_path / "guided.jsonl", "--name", "guided")
    run("generate", *sampling, "--method", "plain", "--out", tmp_path / "plain.jsonl", "--name", "plain")
    run("export", head, "--to", "torch", "--out", tmp_path / "head.safetensors")
    run("export", head, "--to", "transformers", "--model", model_folder, "--out", tmp_path / "reward-model")
    answers = (tmp_path / "guided.jsonl", tmp_path / "plain.jsonl")
    run("survey", "build", *answers, "--out", tmp_path / "page.html", "--key", tmp_path / "key.json")
    key = json.loads((tmp_path / "key.json").read_text())
    votes = {name: order.index("guided") for name, order in key["order"].items()}
    ballot = {"survey": key["survey"], "digest": key["digest"], "rater": "r", "votes": votes}
    (tmp_path / "votes.json").write_text(json.dumps(ballot))
    run("survey", "score", tmp_path / "votes.json", "--key", tmp_path / "key.json", "--out", tmp_path / "rates.json")

    assert len(PairFeatures.load(train).pairs) + len(PairFeatures.load(test).pairs) == len(rows)
    assert {"rewards/accuracies", "log_loss"} <= set(json.loads((tmp_path / "metrics.json").read_text()))
    assert "length_controlled_accuracy" in json.loads((tmp_path / "long.json").read_text())
    assert len((tmp_path / "suspects.jsonl").read_text().splitlines()) == 3
    scored = [json.loads(line) for line in answers[0].read_text().splitlines()]
    assert len(scored) == 3 and all(np.isfinite(row["score"]) for row in scored)
    assert json.loads((tmp_path / "rates.json").read_text())["models"]["guided"]["rate"] == 1.0
    assert "wrote" not in capsys.readouterr().err


def test_the_reference_offset_of_a_run(
    lessons: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """extract --reference, then fit with it: by one configuration, the same head as in Python."""
    pairs, features = tmp_path / "pairs.jsonl", tmp_path / "features"
    run("alternate", lessons, "--student", "student", "--tutor", "tutor", "--out", pairs)
    shared = {"data": str(pairs), "model": str(model_folder), "layer": 2, "pooling": "last", "dtype": "float32"}
    config = {
        "extract": {**shared, "device": "cpu", "out": str(features), "quiet": True, "max_length": 32,
                    "reference": True},
        "fit": {"features": str(features / "train.safetensors"), "out": str(tmp_path / "head"), "beta": "linear",
                "skip_l2": 1.0, "reference": True, "quiet": True},
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(config))
    run("extract", "--config", tmp_path / "run.json")
    run("fit", "--config", tmp_path / "run.json")
    known = PairFeatures.load(features / "train.safetensors")
    assert known.reference is not None and known.reference.shape == (len(known.pairs),) and known.reference.std() > 0
    with pytest.raises(ValueError, match="not a causal language model"):
        load_lm(str(write_model(tmp_path / "base", "Llama")))  # its output layer would be random, and never the same
    lm, tokenizer = load_lm(str(model_folder), dtype="float32")
    triples = load_triples(pairs).select(known.kept)
    ratios = reference_log_ratios(lm, tokenizer, triples, max_length=32, max_response_length=16)
    np.testing.assert_allclose(known.reference, ratios, atol=1e-4)
    assert np.abs(reference_log_ratios(lm, tokenizer, triples) - ratios).max() > 1e-2  # truncation counts
    head = ConvexRewardHead.load(tmp_path / "head")
    expected = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(known, reference=known.reference)
    np.testing.assert_allclose(head.score(known.X), expected.score(known.X), atol=1e-10)
    without = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(known)
    assert np.abs(without.score(known.X) - head.score(known.X)).max() > 1e-3
    run("audit", tmp_path / "head", "--features", features / "train.safetensors", "--limit", 1)

    run("extract", "--config", tmp_path / "run.json", "--out", tmp_path / "bare", "--no-reference")
    assert PairFeatures.load(tmp_path / "bare" / "train.safetensors").reference is None
    capsys.readouterr()
    bare = str(tmp_path / "bare" / "train.safetensors")
    assert main(["fit", bare, "--out", str(tmp_path / "b"), "--reference"]) == 2
    assert "run extract with --reference" in capsys.readouterr().err and not (tmp_path / "b").exists()


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_reference_that_cannot_be_is_refused_before_work(
    backend: str, lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    encoder = SimpleNamespace(name="encoder", n_layers=2, hidden_size=4, dtype="float32", causal=False)
    monkeypatch.setattr(commands_extract, "load_model", lambda *_, **__: encoder if backend == "torch" else refuse())
    monkeypatch.setattr(commands_extract, "extract", refuse)
    run("alternate", lessons, "--student", "student", "--tutor", "tutor", "--out", tmp_path / "pairs.jsonl")
    words = ["extract", str(tmp_path / "pairs.jsonl"), "--model", "m", "--out", str(tmp_path / "out")]
    assert main([*words, "--backend", backend, "--reference"]) == 2
    assert "--reference: answers have log-probabilities under causal models" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(ValueError, match="template must be 'auto', 'chat' or 'plain', got 'chatty'"):
        response_log_probabilities(None, SimpleNamespace(chat_template="x"), [], [], template="chatty")
