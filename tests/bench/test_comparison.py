"""The comparison with DPO on a model of a few thousand weights: what is counted, and every kind of cell."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from tiny_models import write_model

from bench.common.report import RESULTS
from bench.comparison import archive, cells, heads, measure, page, paper, run, sensitivity, summary, tasks, trained
from bench.comparison.cost import Cost, measured, multiplication_rate
from cvxrelu_llm.heads.data import as_pair_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    import transformers

    base = write_model(tmp_path_factory.mktemp("base"), "Llama", tie_word_embeddings=True)
    path = tmp_path_factory.mktemp("causal")
    transformers.AutoModelForCausalLM.from_pretrained(base).save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(path)
    return str(path)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cells and results go there."""
    for module in (tasks, cells, measure):
        monkeypatch.setattr(module, "CACHE", tmp_path)
    monkeypatch.setattr(archive, "RESULTS", tmp_path)
    monkeypatch.setattr(
        summary, "save_json", lambda name, found: (tmp_path / f"{name}.json").write_text(json.dumps(found))
    )
    monkeypatch.setattr(heads, "multiplication_rate", lambda: 1e9)
    return tmp_path


def test_operations_are_counted() -> None:
    layer, x = torch.nn.Linear(30, 40), torch.zeros(20, 30, requires_grad=True)
    cost: Cost = {}
    with measured(cost):
        layer(x).sum().backward()
    assert cost["flop"] == 3 * 2 * 20 * 30 * 40  # forward, and backward for weights and for x
    q = torch.zeros(1, 4, 50, 8)
    with measured(cost):
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert cost["flop"] == 3 * 2 * 20 * 30 * 40 + 2 * 2 * 4 * 50 * 50 * 8  # added to what there was
    assert cost["peak_bytes"] >= cost["bytes_before"] > 0 and cost["cpu_seconds"] >= 0


def test_rate_bounds_what_can_be_computed() -> None:
    assert 1e8 < multiplication_rate(1) < 1e14


def test_operations_on_paper() -> None:
    """A forward pass of a tiny Llama, with and without its output layer, to the last operation but attention's."""
    from tiny_lm import make_lm

    lm, ids = make_lm("llama"), torch.zeros(1, 24, dtype=torch.long)
    inner = sum(p.numel() for name, p in lm.model.named_parameters() if p.ndim == 2 and "embed" not in name)
    shape = paper.Shape(2, 16, 60, inner)
    for words, called in ((True, lm), (False, lm.model)):
        cost: Cost = {}
        with measured(cost), torch.no_grad():
            called(input_ids=ids, use_cache=False)
        assert cost["flop"] == pytest.approx(paper.forward(shape, 24, 24, words), rel=0.02)


def test_formulas_agree_with_what_was_measured() -> None:
    """SmolLM2: DPO's counted operations, which padding only adds to, and its memory, to which activations are added."""
    path = RESULTS / "comparison-sentiment.json"
    result = json.loads(path.read_text())
    dpo = page.named(result, "DPO")
    assert dpo is not None
    cost, shape = dpo["cost"], paper.MODELS["SmolLM2-135M"]
    length = cost["tokens"] / (3 * 2 * result["pairs"])
    computed = paper.dpo_flop(shape, 2 * result["pairs"] * length, length)
    assert 1.0 <= cost["flop"] / computed < 1.35
    assert 2.5 * 4 * shape.parameters < cost["peak_bytes"] - cost["bytes_before"]


@pytest.mark.filterwarnings("ignore")  # TRL's own
@pytest.mark.parametrize("method", [*trained.METHODS])
def test_every_method_trains(method: str, folder: str, workplace: Path) -> None:
    pytest.importorskip("trl", reason="needs TRL, in an environment of its own: pip install -e '.[comparison]'")
    pytest.importorskip("peft")
    task = tasks.task_of("tiny", 8)
    found = measure.trained_cell(method, folder, task, 0, 0.25)
    assert found["cost"]["flop"] > 0 and np.isfinite(found["margins"]).all() and len(found["margins"]) == 16
    assert found["log"] and not found["texts"]


@pytest.mark.filterwarnings("ignore")
def test_policies_write_at_no_divergence_where_nothing_was_learned(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="needs TRL, in an environment of its own: pip install -e '.[comparison]'")
    monkeypatch.setitem(trained.METHODS, "DPO", {"trainer": "DPO", "learning_rate": 1e-12})
    found = measure.trained_cell("DPO", folder, tasks.task_of("tiny", 8), 0, 0.0)
    np.testing.assert_allclose([text["nats"] for text in found["texts"]], 0.0, atol=1e-4)
    np.testing.assert_allclose(found["margins"], 0.0, atol=1e-4)


def test_which_cells_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[cells.Cell] = []
    monkeypatch.setattr(run, "missing", lambda: [])
    monkeypatch.setattr(run, "unpack", lambda model: None)
    monkeypatch.setattr(archive.Archive, "save", lambda kept: None)
    monkeypatch.setattr(cells.Cell, "run_apart", lambda cell: made.append(cell))  # list.append does not bind
    monkeypatch.setattr(summary, "summarise", lambda *where: None)
    monkeypatch.setattr("sys.argv", ["bench.comparison"])
    run.main()
    short = set(made)
    assert {cell.method for cell in short} == {"heads", *trained.METHODS} - {*run.LONG}
    assert [cell.method for cell in made if cell.task == "tutoring"] == ["heads", "DPO, rate 3e-5", "reward model"]
    assert {cell.method for cell in short if cell.pairs < cells.PAIRS} == {"heads", "DPO, rate 3e-5"}
    made.clear()
    monkeypatch.setattr("sys.argv", ["bench.comparison", "--full"])
    run.main()
    assert short < set(made)
    assert {cell.method for cell in made} == {"heads", "sensitivity", *trained.METHODS, *trained.ABLATION}
    assert {cell.noise for cell in made if cell.method == "heads"} == {0.0, *cells.NOISE}
    assert {cell.pairs for cell in made if cell.method == "DPO-Convex"} == {*cells.CURVE, cells.PAIRS}
    assert len({cell.file for cell in made}) == len(made)
    made.clear()
    known = min(short, key=str)
    monkeypatch.setattr(archive.Archive, "record", lambda kept, cell: {} if cell == known else None)
    monkeypatch.setattr("sys.argv", ["bench.comparison", "--missing"])
    run.main()
    assert {*made} == short - {known}
    made.clear()
    monkeypatch.setattr(
        "sys.argv", ["bench.comparison", "--methods", "SFT", "--pairs", "7", "--seed", "2", "--jobs", "2"]
    )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    run.main()
    assert sorted((cell.task, cell.method, cell.pairs, cell.seed) for cell in made) == [
        (task, "SFT", 7, 2) for task in ("sentiment", "tutoring")
    ]
    assert os.environ["OMP_NUM_THREADS"] == "1"  # what the cells' processes get


@pytest.mark.filterwarnings("ignore")
def test_heads_from_cell_to_page(folder: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEADS", ("ours", "linear"))
    cell = cells.Cell(folder, "tiny", 8, "heads")
    record = cell.run()
    assert cell.file.exists() and cell.run() == record  # not measured again
    cost = record["cost"]
    assert cost["flop"] == pytest.approx(cost["flop_extraction"] + cost["flop_solver_at_most"])
    assert cost["flop_solver_at_most"] > 0 and set(record["texts"]) > {"base model", "best of 5", "guided, scale 8"}
    summary.summarise(folder, "tiny", 8, 0)
    result = json.loads((workplace / "comparison-tiny.json").read_text())
    assert set(result["missing"]) == set(trained.METHODS)
    assert "| ours |" in page.preference(result) and "| guided, scale 8 |" in page.generation(result)
    assert "- tiny: " in page.setup(result) and torch.__version__ in page.setup(result)
    cell.file.unlink()  # the archive has it, to six digits
    summary.summarise(folder, "tiny", 8, 0)
    again = json.loads((workplace / "comparison-tiny.json").read_text())
    assert list(again["cells"]) == [cell.file.stem]
    ways, before = again["generation"]["rows"], result["generation"]["rows"]
    assert [row["good"] for row in ways] == [row["good"] for row in before]
    assert again["rows"][0]["log_loss"]["value"] == pytest.approx(result["rows"][0]["log_loss"]["value"], rel=1e-4)
    summary.survey(workplace / "blind.html", folder, "tiny", 8, 0)
    assert (workplace / "blind.key.json").exists()


def test_cells_of_the_cache_come_before_those_of_the_archive(workplace: Path) -> None:
    cell, where = cells.Cell("some/model", "tiny", 8, "DPO"), {"date": "2026-01-01"}
    cell.file.parent.mkdir(parents=True)
    for value in (1 / 3, 2.0):
        cell.file.write_text(json.dumps({"texts": [], "margins": [value, 10 * value], "environment": where}))
        kept = archive.Archive("tiny")
        assert kept.record(cells.Cell("some/model", "tiny", 8, "SFT")) is None
        kept.record(cell)
        kept.save()
        assert kept.met == {cell.file.stem: where}
    cell.file.unlink()
    found = archive.Archive("tiny").record(cell)
    assert found is not None and found["margins"] == [2.0, 20.0]
    assert [*found] == ["texts", "margins", "environment"]
    cell.file.write_text(json.dumps({"margins": [3.0]}))  # of a cache of before
    before = archive.Archive("tiny")
    assert before.record(cell) == {"margins": [3.0]} and not before.met
    assert archive.rounded({"a": [1 / 3, "b", 7, None]}) == {"a": [0.333333, "b", 7, None]}


def test_what_was_measured_is_archived_when_a_run_breaks_off(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [cells.Cell("some/model", "tiny", 8, method) for method in ("SFT", "DPO")]

    def measure_one(cell: cells.Cell) -> None:
        if cell.method == "DPO":
            raise SystemExit("killed")
        cell.file.parent.mkdir(parents=True, exist_ok=True)
        cell.file.write_text(json.dumps({"environment": {}, "margins": [1.0]}))

    monkeypatch.setattr(cells.Cell, "run_apart", measure_one)
    with pytest.raises(SystemExit, match="killed"):
        run.run(asked, argparse.Namespace(task=["tiny"], missing=True, jobs=1))
    asked[0].file.unlink()
    assert [archive.Archive("tiny").record(cell) is None for cell in asked] == [False, True]


def test_measurements_of_another_day_are_named() -> None:
    where = {"date": "2026-01-02", "processor": "P", "python": "3.11.1", "versions": {"trl": "1.2", "torch": "2.1"}}
    rows = [{"cost": {"arithmetic": "float32"}}, {"cost": {}}]
    known = {"heads": where, "DPO": where, "SFT": where | {"date": "2026-01-01"}}
    lines = page.setup({"task": "t", "rows": rows, "cells": known}).splitlines()
    of = "Python 3.11.1, trl 1.2, torch 2.1"
    assert lines == [f"- t: P, 2026-01-02, {of}; trained in float32.", f"- t, SFT: P, 2026-01-01, {of}."]


def fraction(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def test_what_is_behind_is_said() -> None:
    ours: dict[str, Any] = {"model": "ours"}
    clear = {"model": "DPO", "accuracy minus ours": fraction(0.1, 0.02, 0.18),
             "calibrated minus ours": fraction(-0.05, -0.1, 0.01)}  # fmt: skip
    below = {"model": "SFT", "accuracy minus ours": fraction(-0.1, -0.2, 0.1),
             "calibrated minus ours": fraction(0.05, 0.0, 0.1)}  # fmt: skip
    texts = [{"way": "base model", "good": 0.5, "nats": 0.0, "gain": 0.0},
             {"way": "guided, scale 4", "good": 0.8, "nats": 3.0, "gain": 0.3},
             {"way": "best of 5", "good": 0.8, "nats": 0.8, "gain": 0.3},
             {"way": "DPO", "good": 0.7, "nats": 5.0, "gain": 0.2}]  # fmt: skip
    found = page.behind([{"task": "t", "rows": [ours, clear, below], "generation": {"rows": texts}}])
    assert "DPO: accuracy +0.100 (+0.020 to +0.180) over ours beyond the interval" in found
    assert "DPO: calibrated log-loss -0.050 (-0.100 to +0.010) below ours." in found
    assert (
        "SFT" not in found
        and "best of 5 with the same head: judged good 0.80 at 0.80 nats" in found
        and "by DPO" not in found
    )


def test_calibration_is_fitted_to_other_pairs() -> None:
    rng = np.random.default_rng(0)
    margins = 50 * (rng.standard_normal(2000) + 1)
    losses = summary.calibrated(margins)
    np.testing.assert_allclose(losses, summary.calibrated(margins * 7), rtol=1e-4)  # the scale of margins is no matter
    assert losses.mean() < np.log(2)
    wrong = margins.copy()
    wrong[::2] *= -1  # each half is scored with what the other one says
    assert summary.calibrated(wrong).mean() > np.log(2) - 0.01


def test_margins_along_training_are_means_of_thirds() -> None:
    log = [{"rewards/margins": float(k)} for k in (0, 1, 2, 3, 2, 4)] + [{"train_loss": 1.0}]
    found = page.along_training({"task": "t", "rows": [{"model": "DPO", "log": log}, {"model": "ours"}]})
    assert "| DPO | 0.5 | 2.5 | 3 | 0.80 |" in found and "ours" not in found


def test_ablation_names_what_was_changed() -> None:
    margins = np.linspace(-1, 3, 40).tolist()
    run_so_far = {"DPO-Convex": {"margins": margins}, "DPO, rate 3e-5, batch 4": {"margins": margins}}
    found = summary.ablation(lambda method, pairs: run_so_far.get(method) if pairs == 50 else None, np.zeros(40))
    said = [(row["model"], row["change"], row["pairs"]) for row in found]
    assert said == [("DPO-Convex", "as above", 50), ("DPO, rate 3e-5", "batch 4", 50)]


def test_options_of_the_papers_are_shown() -> None:
    one = {"pairs": 50, "accuracy": fraction(0.8, 0.7, 0.9), "calibrated": fraction(0.4, 0.3, 0.5)}
    ablation = [
        {"model": "DPO-Convex", "change": "as above", **one},
        {"model": "DPO-Convex", "change": "batch 4", **one},
    ]
    rho = {"option": "rho", "value": None, "iterations": 10, "gap": 1e-3, "accuracy": 0.5, "seconds": 1.0}
    found = page.options({"task": "t", "ablation": ablation, "sensitivity": [rho, rho | {"value": 1e-3}]})
    assert "| DPO-Convex | 0.800 / 0.400 | 0.800 / 0.400 |" in found
    assert "| by default | 10 | 1.0e-03 | 0.500 | 1 |" in found and "| 0.001 | 10 |" in found
    assert page.options({"task": "t", "ablation": [], "sensitivity": []}) == ""


def test_sensitivity_to_the_options_of_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "RHO", (None, 1e2))
    monkeypatch.setattr(sensitivity, "PATTERNS", (4,))
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((80, 6))
    rows[::2, 0] += 5.0  # the chosen answers
    features = [as_pair_features(part, np.arange(40).reshape(-1, 2)) for part in (rows[:40], rows[40:])]
    found = sensitivity.sensitivity(*features)
    assert [row["option"] for row in found] == ["rho", "rho", "patterns"]
    assert all(row["accuracy"] >= 0.8 for row in found)
    assert all(row["gap"] <= sensitivity.TOL and row["iterations"] > 0 for row in found[:2])
    assert found[0]["value"] is None and found[1]["value"] == 1e2
    assert found[0]["iterations"] != found[1]["iterations"]  # it is what ADMM started from
