"""The command line: every command through `main`, what it writes, what it refuses, and with which exit code."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvxrelu
import cvxrelu.backends.choose
from cvxrelu.command_line.main import build_parser, main
from cvxrelu.network.relu_network import ReLUNetwork

Around = Callable[[Callable[..., Any]], None]  # the fixture of that name
FAST = ("--tol", "1e-2", "--backend", "numpy")
SAMPLED = ("--no-refine", "--patterns", "10")


def make_data(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)) * [1.0, 10.0, 0.1] + [0.0, 50.0, -1.0]
    return X, 3 * np.maximum(X[:, 0], 0) - np.abs(X[:, 1] - 50) / 10 + 7


def write_csv(path: Path, rows: list, header: list[str] | None = None) -> str:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        csv.writer(file).writerows(([header] if header else []) + [list(row) for row in rows])
    return str(path)


def read_predictions(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return [row[0] for row in csv.reader(file)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def houses(here: Path) -> str:
    X, y = make_data()
    return write_csv(here / "houses.csv", np.column_stack([X, y]).tolist(), ["a", "b", "c", "price"])


def fit(data: str, *more: str, out: str = "model") -> int:
    return main(["fit", data, "--out", out, *FAST, "--quiet", *more])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, which must be a single line on stderr."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("\n") and printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err


# -- fit and predict ---------------------------------------------------------------------------------------------------
def test_fit_then_predict(houses: str, here: Path) -> None:
    assert fit(houses, "--target", "price") == 0
    assert sorted(file.name for file in (here / "model").iterdir()) == ["network.safetensors", "solution.json"]
    record = json.loads((here / "model" / "solution.json").read_text())
    assert record["status"] == "optimal" and record["task"] == "regression"
    assert record["feature_names"] == ["a", "b", "c"] and record["target"] == "price" and record["classes"] is None
    assert record["lower_bound"] <= record["objective"] and record["gap"] <= 1e-2 == record["settings"]["tol"]
    assert record["certificate"]["kind"] == "priced" and record["certificate"]["rigorous"] is False
    assert record["certificate"]["starts"] > 0 and record["sampled"] is None
    assert record["n_rounds"] >= 1 and record["n_iter"] == 0
    assert record["scores"]["rows"] == "test rows" and record["scores"]["n"] == 12 and record["scores"]["R2"] > 0.5

    assert main(["predict", "model", houses, "--out", "p.csv"]) == 0
    name, *values = read_predictions(here / "p.csv")
    network = ReLUNetwork.load(here / "model" / "network.safetensors")
    assert name == "price"
    np.testing.assert_array_equal(np.array(values, float), network.predict(make_data()[0]))


def test_the_sampled_program_alone(houses: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(houses, "--target", "price", *SAMPLED, "--report") == 0
    record = json.loads((here / "model" / "solution.json").read_text())
    assert record["sampled"]["gap"] <= 1e-2 and record["sampled"]["patterns"] <= 10
    assert record["n_rounds"] == 0 and record["n_iter"] > 0
    assert "(S) sampled" in (here / "model" / "report.html").read_text()
    for option in ("--patterns", "--max-iter"):
        assert fit(houses, "--target", "price", option, "5", out="other") == 2
        assert f"{option} is about the sampled program" in one_line(capsys)


@pytest.mark.parametrize("refine", [(), SAMPLED], ids=["refined", "sampled"])
def test_a_rigorous_certificate(houses: str, here: Path, refine: tuple[str, ...]) -> None:
    assert fit(houses, "--target", "price", "--certificate", "relaxed", *refine) == 0
    record = json.loads((here / "model" / "solution.json").read_text())
    assert record["certificate"] == {"kind": "relaxed", "rigorous": True, "starts": None}
    assert 0 < record["lower_bound"] <= record["objective"]


def test_an_exact_certificate_needs_a_plane(houses: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(houses, "--target", "price", "--certificate", "exact") == 2
    assert "rank at most 3" in one_line(capsys)
    X, y = make_data()
    np.savez(here / "plane.npz", X=X[:, :2], y=y)
    assert fit("plane.npz", "--certificate", "exact") == 0
    record = json.loads((here / "model" / "solution.json").read_text())
    assert record["certificate"]["kind"] == "exact" and record["gap"] <= 1e-2


def test_the_objective_is_that_of_the_saved_network(houses: str, here: Path) -> None:
    """The standardisation folded into the weights is the one the solve saw."""
    assert fit(houses, "--target", "price", "--test-size", "0") == 0
    record = json.loads((here / "model" / "solution.json").read_text())
    moments = record["standardisation"]
    X, y = make_data()
    assert moments["mean"] == pytest.approx(X.mean(axis=0).tolist())
    network = ReLUNetwork.load(here / "model" / "network.safetensors")
    residual = (network.predict(X) - y) / moments["target_scale"]
    standardised = ReLUNetwork(
        network.first_layer * np.array(moments["scale"])[:, None],
        network.second_layer / moments["target_scale"],
        network.hidden_bias + np.array(moments["mean"]) @ network.first_layer,
    )
    objective = 0.5 * np.sum(residual**2) + record["settings"]["beta"] * standardised.path_norm
    assert objective == pytest.approx(record["objective"], rel=1e-9)
    assert record["scores"]["rows"] == "training rows" and record["scores"]["n"] == 60


def test_units_do_not_matter(here: Path) -> None:
    X, y = make_data()
    for name, columns in (("one", X), ("two", X * [5.0, 1e-4, 300.0] + [1.0, -8.0, 1e3])):
        np.savez(here / f"{name}.npz", X=columns, y=y)
        assert fit(f"{name}.npz", *SAMPLED, out=name) == 0
        assert main(["predict", name, f"{name}.npz", "--out", f"{name}.csv"]) == 0
    one, two = (np.array(read_predictions(here / f"{name}.csv")[1:], float) for name in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_columns_are_found_by_name(houses: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = make_data()
    assert fit(houses, "--target", "price") == 0
    assert main(["predict", "model", houses]) == 0
    expected = capsys.readouterr().out
    turned = write_csv(here / "turned.csv", np.column_stack([X[:, 2], y, X[:, 0], X[:, 1]]), ["c", "price", "a", "b"])
    bare = write_csv(here / "bare.csv", X.tolist())
    np.save(here / "bare.npy", X)
    for data in (turned, bare, "bare.npy"):
        assert main(["predict", "model", data]) == 0
        assert capsys.readouterr().out == expected
    more = write_csv(here / "more.csv", np.column_stack([X, y]).tolist(), ["a", "b", "c", "d"])
    assert main(["predict", "model", more]) == 0
    said = capsys.readouterr()
    assert said.out == expected and "no features of the model are left out: 'd'" in said.err
    for name, rows, header, words in (
        ("less.csv", X[:, :2], ["a", "b"], "'c' is not among"),
        ("bare4.csv", np.column_stack([X, y]), None, "4 columns; the model takes 3"),
    ):
        assert main(["predict", "model", write_csv(here / name, rows.tolist(), header)]) == 2
        assert words in one_line(capsys)


@pytest.mark.parametrize("classes", [["no", "yes"], ["cold", "mild", "warm"], ["3", "7"]])
@pytest.mark.parametrize("header", [True, False])
def test_classes(here: Path, classes: list[str], header: bool) -> None:
    X, y = make_data()
    codes = np.searchsorted(np.quantile(y, np.arange(1, len(classes)) / len(classes)), y)
    labels = [classes[code] for code in codes]
    names = ["a", "b", "c", "kind"] if header else None
    data = write_csv(here / "data.csv", [[*row, label] for row, label in zip(X, labels, strict=True)], names)
    assert fit(data, "--target", "kind" if header else "-1", "--report") == 0
    record = json.loads((here / "model" / "solution.json").read_text())
    assert record["task"] == "classification" and [str(label) for label in record["classes"]] == classes
    assert record["scores"]["accuracy"] > 0.5  # of twelve rows
    bare = write_csv(here / "bare.csv", X.tolist())
    assert main(["predict", "model", bare, "--out", "p.csv"]) == 0
    guesses = read_predictions(here / "p.csv")[1:]
    assert np.mean([guess == label for guess, label in zip(guesses, labels, strict=True)]) > 0.7
    assert "classified correctly" in (here / "model" / "report.html").read_text()


@pytest.mark.parametrize("kind", ["csv.gz", "tsv", "semicolon", "npz", "table.npz", "npy", "bom"])
def test_every_kind_of_file_gives_the_same_network(here: Path, houses: str, kind: str) -> None:
    X, y = make_data()
    table = np.column_stack([X, y])
    text = Path(houses).read_text()
    target: list[str] = ["--target", "price"]
    if kind == "csv.gz":
        data = write_csv(here / "d.csv.gz", table.tolist(), ["a", "b", "c", "price"])
    elif kind == "tsv":
        (here / "d.tsv").write_text(text.replace(",", "\t"))
        data = "d.tsv"
    elif kind == "semicolon":
        (here / "d.csv").write_text(text.replace(",", ";"))
        data = "d.csv"
    elif kind == "bom":
        (here / "d.csv").write_text("\ufeff" + text.replace("\n", "\n\n"), encoding="utf-8")
        data = "d.csv"
    elif kind == "npz":
        data, target = "d.npz", []
        np.savez(here / data, X=X, y=y)
    elif kind == "table.npz":
        data, target = "d.npz", ["--target", "3"]
        np.savez(here / data, table=table)
    else:
        data, target = "d.npy", ["--target", "-1"]
        np.save(here / data, table)
    assert fit(houses, "--target", "price", out="plain") == 0
    assert fit(data, *target) == 0
    networks = [ReLUNetwork.load(here / folder / "network.safetensors") for folder in ("plain", "model")]
    assert networks[0].allclose(networks[1])


def test_a_header_of_numbers_is_told_by_the_target(here: Path) -> None:
    X, y = make_data()
    data = write_csv(here / "d.csv", np.column_stack([X, y]).tolist(), ["0", "1", "2", "price"])
    assert fit(data, "--target", "price") == 0
    assert json.loads((here / "model" / "solution.json").read_text())["feature_names"] == ["0", "1", "2"]


def test_progress_and_report(houses: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", houses, "--target", "price", "--out", "new/model", *FAST, "--report"]) == 0
    printed = capsys.readouterr().out
    assert "60 rows, 3 features, target price; regression" in printed
    assert "round" in printed and "certificate" in printed and "R2" in printed
    assert "report.html" in printed
    report = (here / "new" / "model" / "report.html").read_text()
    assert "cvxrelu fit" in report and "houses.csv" in report
    assert main(["fit", houses, "--target", "price", "--out", "quiet", *FAST, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_absolute_beta_and_seed(houses: str, here: Path) -> None:
    assert fit(houses, "--target", "price", "--beta", "2.5", "--absolute-beta", "--seed", "3") == 0
    settings = json.loads((here / "model" / "solution.json").read_text())["settings"]
    assert settings["beta"] == 2.5 and settings["seed"] == 3


# -- exit codes and what is left behind -------------------------------------------------------------------------------
def test_not_to_tol(houses: str, here: Path) -> None:
    assert fit(houses, "--target", "price", "--tol", "1e-9", *SAMPLED, "--max-iter", "5") == 1
    assert json.loads((here / "model" / "solution.json").read_text())["status"] == "max_iter"
    assert fit(houses, "--target", "price", "--tol", "1e-9", "--time-limit", "0.01", out="hurried") == 1
    assert json.loads((here / "hurried" / "solution.json").read_text())["status"] == "time_limit"


def test_an_interrupt_keeps_the_network(houses: str, here: Path, around_solves: Around) -> None:
    def interrupted(_: Any, run: Any, beta: float, settings: Any, **more: Any) -> object:
        def stop(record: dict) -> None:
            raise KeyboardInterrupt

        return run(beta, dataclasses.replace(settings, callback=stop), **more)

    around_solves(interrupted)
    assert fit(houses, "--target", "price", "--beta", "0.01") == 130
    assert json.loads((here / "model" / "solution.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("tol must be positive"), 2, "tol must be positive"),
        (cvxrelu.BackendError("no device"), 3, "no device"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "memory"),
        (RuntimeError("a bug"), 4, "Traceback"),
    ],
    ids=["value", "backend", "interrupt", "memory", "bug"],
)
def test_a_failing_solve_leaves_nothing(
    houses: str,
    here: Path,
    around_solves: Around,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    def fail(*_arguments: object, **_settings: object) -> None:
        raise error

    around_solves(fail)
    assert fit(houses, "--target", "price") == code
    assert words in capsys.readouterr().err
    assert [file.name for file in here.iterdir()] == ["houses.csv"]


def test_a_failing_write_leaves_the_old_model(houses: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit(houses, "--target", "price") == 0
    before = {file.name: file.read_bytes() for file in (here / "model").iterdir()}

    def full(*_arguments: object, **_settings: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("cvxrelu.command_line.model_folder.atomic_write", full)
        assert fit(houses, "--target", "price", "--overwrite", "--seed", "9") == 2
    assert {file.name: file.read_bytes() for file in (here / "model").iterdir()} == before
    assert sorted(file.name for file in here.iterdir()) == ["houses.csv", "model"]
    assert fit(houses, "--target", "price", "--overwrite", "--seed", "9") == 0
    assert {file.name: file.read_bytes() for file in (here / "model").iterdir()} != before
    assert sorted(file.name for file in here.iterdir()) == ["houses.csv", "model"]


def test_a_failing_report_does_not_lose_the_network(houses: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_settings: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("cvxrelu.reports.page.write_report", fail)
    assert fit(houses, "--target", "price", "--report") == 4
    assert main(["predict", "model", houses, "--out", "p.csv"]) == 0


def test_only_a_model_is_ever_replaced(houses: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(houses, "--target", "price") == 0
    assert fit(houses, "--target", "price") == 2
    assert "--overwrite" in one_line(capsys)
    (here / "model" / "notes.txt").write_text("mine")
    assert fit(houses, "--target", "price", "--overwrite") == 2
    assert "notes.txt" in one_line(capsys)
    assert (here / "model" / "notes.txt").read_text() == "mine"
    assert fit(houses, "--target", "price", out="houses.csv") == 2
    assert "in the way" in one_line(capsys)
    (here / "empty").mkdir()
    assert fit(houses, "--target", "price", out="empty") == 0
    assert main(["predict", "empty", houses, "--out", "houses.csv"]) == 2
    assert "--overwrite" in one_line(capsys)
    assert main(["predict", "empty", houses, "--out", "p.csv"]) == 0
    assert main(["predict", "empty", houses, "--out", "p.csv", "--overwrite"]) == 0


def test_a_network_that_learned_nothing_is_said_to_have(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes without any signal: what is fitted is noise, and exit code 0 must not be all that is heard."""
    rng = np.random.default_rng(0)
    rows = [[*map(float, x), label] for x, label in zip(rng.standard_normal((60, 3)), "abc" * 20, strict=True)]
    data = write_csv(here / "noise.csv", rows, ["x", "y", "z", "kind"])
    assert fit(data, "--target", "kind", "--beta", "0.01", "--quiet") == 0
    said = capsys.readouterr().err
    assert "no better than the most frequent class" in said and "raise --beta" in said
    record = json.loads((here / "model" / "solution.json").read_text())
    assert record["training_scores"]["accuracy"] > record["scores"]["accuracy"]
    assert fit(data, "--target", "kind", "--beta", "1.1", "--overwrite") == 0
    assert "has no neuron and predicts a constant: lower --beta" in capsys.readouterr().err


# -- bad input ---------------------------------------------------------------------------------------------------------
HEAD = "a,b,price\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("d.csv", HEAD + "1,2,3\n4,abc,6\n", ["d.csv, line 3, column 2 (b)", "'abc' is not a number"]),
        ("d.csv", HEAD + "1,2,3\n4,inf,6\n", ["line 3, column 2", "not a finite number"]),
        ("d.csv", HEAD + "1,2,3\n4,5,x\n", ["line 3, column 3 (price)", "'x' is not a number"]),
        ("d.csv", HEAD + "1,2,3\n4,5,\n", ["1 rows cannot be split"]),
        ("d.csv", HEAD + "1,2,3\n4,5\n", ["line 3", "2 columns, but the first line has 3"]),
        ("d.csv", HEAD + '1,2,3\n4,"5,6\n', ["cannot be read"]),
        ("d.csv", HEAD, ["a header, but no rows"]),
        ("d.csv", "", ["is empty"]),
        ("d.csv", "\n \n", ["is empty"]),
        ("d.csv", "a,,price\n0,1,2\n1,2,3\n", ["column 2 has no name"]),
        ("d.csv", "a,a,price\n0,1,2\n1,2,3\n", ["two columns are called 'a'"]),
        ("d.csv", "a,b,cost\n0,1,2\n1,2,3\n", ["'price'", "a, b, cost"]),
        ("d.csv", "1,2,3\n4,5,6\n", ["no header row"]),
        ("d.csv", "price\n1\n2\n", ["a single column"]),
        ("d.csv", HEAD + "1,2,3\n", ["1 rows cannot be split"]),
        ("d.csv", HEAD + "1,2,7\n3,4,7\n" * 5, ["single class"]),
        ("d.csv", b"\x81\xfe\x00\x81", ["not a text file in UTF-8"]),
        ("d.csv.gz", b"1,2,3", ["truncated or damaged"]),
        ("d.csv.gz", gzip.compress(HEAD.encode() * 50, mtime=0)[:-12], ["truncated or damaged"]),
        ("d.npz", b"PK\x03\x04 and then nothing", ["d.npz: the file is truncated or damaged"]),
        ("d.npz", b"PK\x05\x06" + bytes(18), ["d.npz: holds no arrays"]),
        ("d.npy", b"\x93NUMPY", ["d.npy: cannot be read"]),
        ("d.xlsx", b"1", ["unknown kind of file"]),
        ("d", b"1", ["unknown kind of file"]),
    ],
)
def test_bad_files(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes, words: list[str]
) -> None:
    (here / name).write_bytes(content.encode() if isinstance(content, str) else content)
    assert fit(name, "--target", "price") == 2
    said = one_line(capsys)
    for word in words:
        assert word in said
    assert [file.name for file in here.iterdir()] == [name]


@pytest.mark.parametrize(
    ("arrays", "target", "words"),
    [
        ({"X": np.eye(3), "y": np.ones(4)}, None, "y has shape (4,); expected (3,)"),
        ({"X": np.eye(3), "y": np.ones((3, 2))}, None, "one value per row"),
        ({"X": np.ones(3), "y": np.ones(3)}, None, "expected a 2-D array"),
        ({"X": np.eye(3) * np.nan, "y": np.arange(3.0)}, None, "row 0, column 0 (counted from 0): missing value"),
        ({"X": np.eye(3), "y": np.array([0, np.nan, 1])}, None, "row 1, column 0 (counted from 0): missing value"),
        ({"X": np.eye(3), "y": np.array([None, 1, 2])}, None, "cannot be read"),
        ({"X": np.eye(3) * 1j, "y": np.arange(3.0)}, None, "expected numbers"),
        ({"A": np.eye(3), "B": np.eye(3)}, None, "expected arrays X and y"),
        ({"A": np.eye(3)}, "5", "has 3 columns"),
        ({"A": np.eye(3)}, None, "--target is missing"),
    ],
)
def test_bad_arrays(
    here: Path, capsys: pytest.CaptureFixture[str], arrays: dict[str, np.ndarray], target: str | None, words: str
) -> None:
    np.savez(here / "d.npz", **arrays)
    assert fit("d.npz", *(["--target", target] if target else [])) == 2
    assert words in one_line(capsys)


def test_missing_files_and_folders(here: Path, houses: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["fit", "no.csv", "--target", "0", "--out", "m"], "no.csv: no such file"),
        (["fit", ".", "--target", "0", "--out", "m"], "is a folder"),
        (["fit", houses, "--out", "m"], "--target is missing"),
        (["predict", "no-model", houses], "not a folder that `cvxrelu fit` wrote"),
        (["predict", ".", houses], "not a folder that `cvxrelu fit` wrote"),
    ):
        assert main(arguments) == 2
        assert words in one_line(capsys)


def test_foreign_and_damaged_model_folders(here: Path, houses: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(houses, "--target", "price") == 0
    file = here / "model" / "solution.json"
    good = file.read_text()
    for content in ("{}", "[]", "not json", good[:100], good.replace("cvxrelu-model", "other")):
        file.write_text(content)
        assert main(["predict", "model", houses]) == 2
        assert "not a folder that `cvxrelu fit` wrote" in one_line(capsys)
    file.write_text(good)
    weights = here / "model" / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert main(["predict", "model", houses]) == 2
    assert "network.safetensors" in one_line(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["fit"],
        ["fit", "d.csv", "--out", "m", "--beta", "-1"],
        ["fit", "d.csv", "--out", "m", "--beta", "nan"],
        ["fit", "d.csv", "--out", "m", "--patterns", "0"],
        ["fit", "d.csv", "--out", "m", "--patterns", "2.5"],
        ["fit", "d.csv", "--out", "m", "--test-size", "1"],
        ["fit", "d.csv", "--out", "m", "--backend", "torch"],
        ["fit", "d.csv", "--out", "m", "--pattern", "5"],
        ["fit", "d.csv", "--out", "m", "--certificate", "proof"],
    ],
)
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "--help" in one_line(capsys)


# -- help, doctor, demo, and as a program -----------------------------------------------------------------------------
def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(commands()) == ["demo", "fit", "predict", "export", "doctor"]
    for name, command in commands().items():
        assert main([name, "--help"]) == 0
        printed = capsys.readouterr().out
        assert f"  cvxrelu {name}" in printed and "exit codes:" in printed and "130" in printed
        assert all(action.help for action in command._actions), f"an option of {name} says nothing"
    assert main([]) == 2
    assert "first steps" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cvxrelu ")


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in ("numpy", "jax", "cupy", "known answer reproduced", np.__version__, "devices"):
        assert word in printed

    monkeypatch.setattr(cvxrelu.backends.choose, "known_answer", lambda backend, **_: "F is off by 1e-2")
    assert main(["doctor"]) == 3
    printed = capsys.readouterr()
    assert "WRONG" in printed.out and "F is off by 1e-2" in printed.out
    assert "broken: numpy, jax" in printed.err


def test_a_missing_extra_is_named(houses: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["demo"]) == 2
    assert "cvxrelu[demo]" in one_line(capsys)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert fit(houses, "--target", "price", "--report") == 2
    assert "cvxrelu[report]" in one_line(capsys)
    assert fit(houses, "--target", "price") == 0


@pytest.mark.slow
def test_demo(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick"]) == 0
    printed = capsys.readouterr().out
    for word in (
        "diabetes",
        "digits",
        "ridge",
        "logistic regression",
        "MLP",
        "Test accuracy",
        "lower bound",
        "priced (estimate",
        "relaxed (rigorous)",
        "optimal",
    ):
        assert word in printed
    written = sorted(file.name for file in (here / "demo-output").iterdir())
    assert written == ["diabetes.safetensors", "digits.safetensors", "report.html"]
    assert ReLUNetwork.load(here / "demo-output" / "digits.safetensors").predict(np.zeros((2, 64))).shape == (2, 10)


def test_an_interrupt_ends_the_demo(here: Path, around_solves: Around) -> None:
    calls = []

    def interrupted(_: Any, run: Any, beta: float, settings: Any, **more: Any) -> object:
        calls.append(1)
        return run(beta, dataclasses.replace(settings, callback=lambda record: True), **more)

    around_solves(interrupted)
    assert main(["demo", "--quick", "--quiet"]) == 130
    assert len(calls) == 1


def run(arguments: list[str], root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_as_a_program_without_the_extras(houses: str, here: Path, root: Path) -> None:
    """`fit`, `predict` and `doctor` load neither scikit-learn nor matplotlib."""
    code = (
        "import sys; from cvxrelu.command_line.main import main\n"
        "codes = [main(line.split()) for line in sys.argv[1:]]\n"
        "assert not {'sklearn', 'matplotlib', 'pandas', 'torch'} & set(sys.modules); print(codes)"
    )
    lines = [
        f"fit houses.csv --target price --out model --quiet {' '.join(FAST)}",
        "predict model houses.csv",
        "doctor",
    ]
    done = run(["-W", "error", "-c", code, *lines], root, here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 0, 0]"


def test_as_a_program(houses: str, here: Path, root: Path) -> None:
    done = run(["-m", "cvxrelu", "fit", houses, "--target", "nothing", "--out", "m"], root, here)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "no such column" in done.stderr
