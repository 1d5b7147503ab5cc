"""The commands `generate`, `survey` and `simulate`, on a model saved to disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_lm import make_lm, make_tokenizer

pytest.importorskip("transformers", reason="needs transformers: pip install 'cvxrelu[llm]'")

from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu_llm.command_line.main import command_of, parse
from cvxrelu_llm.generation.decoding import best_of_n, guide, guide_batch, sample
from cvxrelu_llm.generation.scorers import HiddenStateScorer
from cvxrelu_llm.models.causal import load_lm

SHORT = ("--max-new-tokens", "6", "--temperature", "1.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a head and prompts."""
    folder = tmp_path_factory.mktemp("cli")
    make_lm().save_pretrained(folder / "lm")
    make_tokenizer(chat=True).save_pretrained(folder / "lm")
    rng = np.random.default_rng(0)
    ReLUNetwork(rng.standard_normal((16, 5)), rng.standard_normal(5)).save(folder / "head.safetensors")
    prompts = ["ba de", [{"role": "student", "content": "fi"}, {"role": "tutor", "content": "go"}]]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    return folder


def run(*words: Any) -> int:
    options = parse([str(word) for word in words])
    return command_of(options.command).run(options)


def generate(folder: Path, out: Path, *words: Any) -> list[dict[str, Any]]:
    common = ("--model", folder / "lm", "--prompts", folder / "prompts.jsonl", "--quiet", "--out", out)
    assert run("generate", *common, *SHORT, *words) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_generate_writes_what_the_functions_return(folder: Path, tmp_path: Path) -> None:
    lm, tokenizer = load_lm(str(folder / "lm"))
    head = ReLUNetwork.load(folder / "head.safetensors")
    scorer = HiddenStateScorer(head.predict, layer=1, pooling="mean")
    heads = ("--head", folder / "head.safetensors", "--layer", "1", "--pooling", "mean")
    options: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 6}
    prompts = [json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").read_text().splitlines()]

    words = ("--scale", "3", "--every", "2", "--kl-budget", "0.4", "--schedule", "exact", "--seed", "7", "--name", "g")
    rows = generate(folder, tmp_path / "guided.jsonl", *heads, *words)
    settings: dict[str, Any] = {"scale": 3.0, "every": 2, "kl_budget": 0.4, "schedule": "exact"}
    texts = guide_batch(lm, tokenizer, prompts, scorer, seed=7, **options, **settings)
    for i, (row, prompt, text) in enumerate(zip(rows, prompts, texts, strict=True)):
        assert row == {"prompt": prompt, "model": "g", **json.loads(json.dumps(text.record()))}
        alone = guide(lm, tokenizer, prompt, scorer, seed=7 + i, **options, **settings)
        assert row["tokens"] == list(alone.tokens)
    again = generate(folder, tmp_path / "alone.jsonl", *heads, *words, "--batch-size", "1")
    assert [row["tokens"] for row in again] == [row["tokens"] for row in rows]
    rows = generate(folder, tmp_path / "best.jsonl", *heads, "--method", "best-of-n", "--n", "3")
    assert rows[0]["score"] == best_of_n(lm, tokenizer, prompts[0], scorer, n=3, **options).score
    rows = generate(folder, tmp_path / "plain.jsonl", "--method", "plain", "--argmax", "--name", "p")
    assert rows[1]["score"] is None
    assert rows[1]["tokens"] == list(sample(lm, tokenizer, prompts[1], do_sample=False, **options)[0].tokens)
    assert rows[1]["kl"]["kind"] == "none" and rows[1]["kl"]["nats"] is None
    common = ("--model", folder / "lm", "--prompts", folder / "prompts.jsonl", "--quiet", "--max-new-tokens", 6)
    out, sweep = tmp_path / "cmp.jsonl", ("--method", "compare", "--temperatures", "0.4", "1")
    assert run("generate", *common, "--out", out, *heads, *sweep) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["temperature"] for row in rows] == [0.4, 1.0] and rows[0]["plain_read"] >= rows[0]["guided_read"]


def test_a_survey_from_generation_to_score(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        generate(folder, tmp_path / f"{name}.jsonl", "--method", "plain", "--name", name)
    page, key = tmp_path / "page.html", tmp_path / "key.json"
    build = ("survey", "build", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--out", page, "--key", key)
    assert run(*build) == 0
    assert "2 questions on a, b" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"page\.html: the file exists"):
        run(*build)
    record = json.loads(key.read_text())
    votes = {name: record["order"][name].index("b") for name in record["order"]}
    ballot = {"survey": record["survey"], "digest": record["digest"], "rater": "r", "votes": votes}
    (tmp_path / "votes.json").write_text(json.dumps(ballot))
    out = tmp_path / "result.json"
    assert run("survey", "score", tmp_path / "votes.json", "--key", key, "--out", out) == 0
    assert "b" in capsys.readouterr().out
    assert json.loads(out.read_text())["models"]["b"]["rate"] == 1.0


def test_simulate_writes_conversations(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "talk.jsonl"
    words = ("--subject", "ba", "--subject", "de", "--turns", "4", "--quiet", "--out", out)
    assert run("simulate", "--model", folder / "lm", *SHORT, *words) == 0
    talks = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [talk["subject"] for talk in talks] == ["ba", "de"]
    assert [m["role"] for m in talks[0]["messages"]] == ["student", "tutor", "student", "tutor"]


def test_a_fitted_head_knows_its_model_layer_pooling_and_template(folder: Path, tmp_path: Path) -> None:
    from cvxrelu_llm.features.extract import extract, load_model
    from cvxrelu_llm.heads.head import ConvexRewardHead
    from cvxrelu_llm.preferences.triples import load_triples

    rows = [{"prompt": f"{w} ba", "chosen": f"de {w}", "rejected": f"go {w} fi"} for w in ("ba", "de", "fi", "go")]
    model = load_model(folder / "lm", dtype="float32", device="cpu")
    features = extract(model, load_triples(rows), layer=1, pooling="response_mean")
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(features)
    head.save(tmp_path / "head")
    lm, tokenizer = load_lm(str(folder / "lm"))
    given = ("--head", tmp_path / "head", "--seed", 3)
    found = generate(folder, tmp_path / "out.jsonl", *given)
    prompts = [json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").read_text().splitlines()]
    for i, (row, prompt) in enumerate(zip(found, prompts, strict=True)):
        expected = head.guide(lm, tokenizer, prompt, seed=3 + i, temperature=1.0, max_new_tokens=6)
        assert row["tokens"] == list(expected.tokens) and row["score"] == pytest.approx(expected.score, abs=1e-6)
    same = generate(folder, tmp_path / "same.jsonl", *given, "--layer", 1, "--pooling", "response_mean")
    assert same == found

    common = ("--prompts", folder / "prompts.jsonl", "--out", tmp_path / "x.jsonl", *given)
    with pytest.raises(ValueError, match=r"--layer 2: the head in .*head was fitted on layer 1"):
        run("generate", "--model", folder / "lm", *common, "--layer", 2)
    with pytest.raises(ValueError, match=r"--pooling mean: .* was fitted on pooling 'response_mean'"):
        run("generate", "--model", folder / "lm", *common, "--pooling", "mean")
    with pytest.raises(ValueError, match=r"--template plain: .* was fitted on template 'chat'"):
        run("generate", "--model", folder / "lm", *common, "--template", "plain")
    with pytest.raises(ValueError, match=r"--dtype bfloat16: .* was fitted on dtype 'float32'"):
        run("generate", "--model", folder / "lm", *common, "--dtype", "bfloat16")
    make_lm(seed=1).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"wrong model for this head: '.*other' has .* the head was fitted on '.*lm'"):
        run("generate", "--model", tmp_path / "other", *common)
    lm.save_pretrained(tmp_path / "changed")
    tokenizer.chat_template = "# " + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "changed")
    with pytest.raises(ValueError, match=r"wrong template for this head: that of '.*changed' is .* of '.*lm'"):
        run("generate", "--model", tmp_path / "changed", *common)
    assert not (tmp_path / "x.jsonl").exists()


def test_options_of_the_model_arrive(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def recorded(path: str, device: str = "cpu", dtype: str = "auto", **where: Any) -> Any:
        given.append((Path(path).name, device, dtype, where))
        return load_lm(str(folder / "lm"))

    monkeypatch.setattr("cvxrelu_llm.command_line.common.load_lm", recorded)
    monkeypatch.setattr("cvxrelu_llm.command_line.simulate.load_lm", recorded)
    words = ("--model", "hub/lm", "--gguf-file", "lm.gguf", "--revision", "main", "--dtype", "bfloat16", "--quiet")
    expected = ("lm", "cpu", "bfloat16", {"gguf_file": "lm.gguf", "revision": "main"})
    prompts = ("--prompts", folder / "prompts.jsonl", "--out", tmp_path / "a.jsonl")
    assert run("generate", *words, *prompts, "--method", "plain", *SHORT) == 0
    assert given == [expected]
    talk = ("--subject", "ba", "--turns", 4, "--student-model", "hub/other", "--out", tmp_path / "b.jsonl")
    assert run("simulate", *words, *SHORT, *talk) == 0
    assert given[1:] == [expected, ("other", "cpu", "bfloat16", {})]
    with pytest.raises(ValueError, match=r"--gguf-file has no effect with --model lm\.gguf"):
        run("simulate", "--model", "lm.gguf", "--gguf-file", "lm.gguf", *talk, "--overwrite")


def test_bad_input_is_named(folder: Path, tmp_path: Path) -> None:
    def refused(message: str, *words: Any, prompts: Path | None = None) -> None:
        file = prompts or folder / "prompts.jsonl"
        with pytest.raises(ValueError, match=message):
            run("generate", "--model", folder / "lm", "--prompts", file, "--out", tmp_path / "x.jsonl", *words)

    refused("--method guided needs --head")
    refused("--kl-budget has no effect with --method plain", "--method", "plain", "--kl-budget", "3")
    refused("--argmax has no effect with --method best-of-n", "--method", "best-of-n", "--argmax")
    refused("--temperature has no effect with --method compare", "--method", "compare", "--temperature", "1")
    refused("--n has no effect with --method guided", "--n", "3")
    refused("--pooling has no effect without --head", "--method", "plain", "--pooling", "mean")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    refused("no prompts in it", "--method", "plain", prompts=empty)
    empty.write_text('{"text": "a"}\n')
    refused("line 1: the field 'prompt' is missing", "--method", "plain", prompts=empty)
    with pytest.raises(ValueError, match=r"none\.gguf: no such file"):
        load_lm(str(tmp_path / "none.gguf"))
    assert not (tmp_path / "x.jsonl").exists()


def test_wrong_batch_size_is_refused_before_the_model_is_loaded(folder: Path, tmp_path: Path) -> None:
    words = ("--model", tmp_path / "nowhere", "--prompts", folder / "prompts.jsonl", "--out", tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="--batch-size must be"):
        run("generate", *words, "--method", "plain", "--batch-size", 0)
