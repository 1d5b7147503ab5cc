"""The command line `cvxrelu-llm`: commands, configurations, exit codes, and its documentation."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxrelu_llm.command_line.main import COMMANDS, build_parser, main, parse
from cvxrelu_llm.features.extract import PairFeatures, extract, load_model
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.preferences.conversations import alternate
from cvxrelu_llm.preferences.triples import Triples, load_triples


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    words = ["area", "width", "length", "Oregon", "rectangle", "pink", "together", "the"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 4)) for _ in range(60)]
    rows = [{"prompt": f"Why {i}?", "chosen": f"{texts[i]}.", "rejected": texts[i + 30]} for i in range(30)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Exit code 2 and exactly one line on stderr; returns it."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


# -- inspect ----------------------------------------------------------------------------------------------------------
def test_inspect_counts(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(pairs, "a") as file:
        file.write('{"prompt": "p", "chosen": "same", "rejected": "same"}\n')
    assert main(["inspect", str(pairs)]) == 0
    text = capsys.readouterr().out
    assert "read 31, equal 1, kept 30" in text and load_triples(pairs).fingerprint in text
    assert "groups          30" in text
    assert "line 31" in fails(capsys, "inspect", pairs, "--strict")


def test_inspect_finds_leaks(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = load_triples(pairs).split(0.3)
    train.save(tmp_path / "train.jsonl"), test.save(tmp_path / "test.jsonl")
    assert main(["inspect", str(tmp_path / "test.jsonl"), "--against", str(tmp_path / "train.jsonl")]) == 0
    assert main(["inspect", str(tmp_path / "test.jsonl"), "--against", str(pairs)]) == 1
    assert f"leakage         {len(test)} of {len(test)}" in capsys.readouterr().out


# -- alternate --------------------------------------------------------------------------------------------------------
def test_training_data_have_the_same_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "test"):
        row = {"prompt": "Why?", "better": f"because {name}", "worse": "no"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    columns = ["--columns", "chosen=better", "rejected=worse"]
    assert main(["inspect", str(tmp_path / "test.jsonl"), "--against", str(tmp_path / "train.jsonl"), *columns]) == 1
    assert "1 of 1 triples share" in capsys.readouterr().out


def test_alternate_writes_what_python_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [{"role": ("pupil", "coach")[i % 2], "content": f"turn {i}"} for i in range(6)]
    data, out = tmp_path / "talks.jsonl", tmp_path / "out.jsonl.gz"
    data.write_text(json.dumps({"id": "a", "messages": messages}) + "\n")
    command = ["alternate", str(data), "--out", str(out), "--student", "pupil", "--tutor", "coach"]
    assert main(command) == 0
    assert load_triples(out).fingerprint == alternate(data, student="pupil", tutor="coach").fingerprint
    assert "exists" in fails(capsys, *command)
    assert main([*command, "--overwrite"]) == 0
    assert "line 1" in fails(capsys, "alternate", data, "--out", tmp_path / "x.jsonl")
    assert "jsonl" in fails(capsys, "alternate", data, "--out", tmp_path / "x.csv")


# -- extract ----------------------------------------------------------------------------------------------------------
def run_extract(pairs: Path, model: Path, out: Path, *more: str) -> int:
    return main(["extract", str(pairs), "--model", str(model), "--out", str(out), "--dtype", "float32", *more])


def test_extract_writes_what_python_makes(
    pairs: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features"
    assert run_extract(pairs, model_folder, out, "--layer", "2", "--pooling", "last", "--test-size", "0.3") == 0
    assert "features        16: layer 2, last, prompt read" in capsys.readouterr().out
    model = load_model(model_folder, dtype="float32")
    for name, part in zip(("train", "test"), load_triples(pairs).split(0.3, 0), strict=True):
        found, expected = PairFeatures.load(out / f"{name}.safetensors"), extract(model, part, layer=2, pooling="last")
        np.testing.assert_array_equal(found.pairs, expected.pairs)
        everything = load_triples(pairs)
        assert [everything[int(k)] for k in found.kept] == [part[int(k)] for k in expected.kept]
        assert found.counts["triples"] == len(everything)
        np.testing.assert_allclose(found.X, expected.X, rtol=1e-6)
    record = json.loads((out / "extraction.json").read_text())
    assert record["settings"]["layer"] == 2 and record["sweep"] is None and record["options"]["test_size"] == 0.3
    assert "holds train.safetensors" in capsys_error(capsys, run_extract(pairs, model_folder, out))


def test_extract_keeps_what_came_meanwhile(
    pairs: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cvxrelu_llm.command_line import extract as command

    out, real = tmp_path / "f", command.extract

    def with_company(*arguments: Any, **settings: Any) -> Any:
        out.mkdir(exist_ok=True)
        (out / "extraction.json").write_text("mine")
        return real(*arguments, **settings)

    more = ("--layer", "1", "--pooling", "last", "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(command, "extract", with_company)
        assert "extraction.json: exists" in capsys_error(capsys, run_extract(pairs, model_folder, out, *more))
    assert [path.name for path in out.iterdir()] == ["extraction.json"]
    assert (out / "extraction.json").read_text() == "mine"
    assert run_extract(pairs, model_folder, out, *more, "--overwrite") == 0
    assert len(list(out.iterdir())) == 3
    assert run_extract(pairs, model_folder, out, *more, "--test-size", "0", "--overwrite") == 0
    assert sorted(path.name for path in out.iterdir()) == ["extraction.json", "train.safetensors"]


def capsys_error(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    return capsys.readouterr().err


def test_extract_sweeps_on_training_pairs_only(
    pairs: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cvxrelu_llm.features import extract as features

    seen: list[Any] = []
    real = features.sweep_with

    def watched(run: Any, triples: Any, *more: Any, **options: Any) -> Any:
        seen.append(triples)
        return real(run, triples, *more, **options)

    monkeypatch.setattr(features, "sweep_with", watched)
    cache = str(tmp_path / "cache")
    assert run_extract(pairs, model_folder, tmp_path / "f", "--layer", "auto", "--cache", cache, "--quiet") == 0
    assert capsys.readouterr().out == ""
    train, _ = load_triples(pairs).split(0.2, 0)
    assert [part.fingerprint for part in seen] == [train.fingerprint]
    record = json.loads((tmp_path / "f" / "extraction.json").read_text())
    assert len(record["sweep"]["table"]) == 7 and record["sweep"]["worth"]["loss"] > 0
    for name in ("train", "test"):
        settings = PairFeatures.load(tmp_path / "f" / f"{name}.safetensors").settings
        assert (settings["layer"], settings["pooling"]) == (
            record["sweep"]["table"][0]["layer"],
            record["sweep"]["table"][0]["pooling"],
        )


def test_extract_complains_in_one_line(
    pairs: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", model_folder, "--out", tmp_path / "f"]
    assert "no such file" in fails(capsys, "extract", tmp_path / "absent.jsonl", *common)
    assert "layer must be" in fails(capsys, "extract", pairs, *common, "--layer", "9")
    assert "--out is missing" in fails(capsys, "extract", pairs, "--model", model_folder)
    assert "DATA is missing" in fails(capsys, "extract", *common)
    assert "'best' is not" in fails(capsys, "extract", pairs, *common, "--layer", "best")
    assert "NAME=COLUMN" in fails(capsys, "extract", pairs, *common, "--columns", "chosen")
    assert not (tmp_path / "f").exists()


# -- configurations ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["json", "yaml", "sections"])
def test_a_configuration_is_the_command_line(pairs: Path, model_folder: Path, tmp_path: Path, kind: str) -> None:
    values = {
        "data": str(pairs),
        "model": str(model_folder),
        "out": str(tmp_path / "a"),
        "layer": -2,
        "pooling": "mean",
        "dtype": "float32",
        "max_length": 64,
        "share_prefix": False,
        "quiet": True,
        "test_size": 0,
        "cache": None,
    }
    path = tmp_path / ("run.json" if kind == "json" else "run.yaml")
    if kind == "json":
        path.write_text(json.dumps(values))
    else:
        yaml = pytest.importorskip("yaml")
        path.write_text(yaml.safe_dump({"extract": values, "inspect": {"data": "x"}} if kind == "sections" else values))
    typed = parse(["extract", str(pairs), "--model", str(model_folder), "--out", str(tmp_path / "a"), "--layer=-2",
                   "--pooling", "mean", "--dtype", "float32", "--max-length", "64", "--no-share-prefix", "--quiet",
                   "--test-size", "0"])  # fmt: skip
    read = parse(["extract", "--config", str(path)])
    assert vars(read) | {"config": None} == vars(typed)
    assert main(["extract", "--config", str(path)]) == 0
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["extraction.json", "train.safetensors"]
    assert PairFeatures.load(tmp_path / "a" / "train.safetensors").settings["layer"] == 2


def test_what_is_typed_has_precedence(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"data": "a.jsonl", "model": "m", "out": "o", "layer": 3, "quiet": True}))
    options = parse(["extract", "b.jsonl", "--layer", "5", "--config", str(path), "--out", "p"])
    assert (options.data, options.layer, options.out, options.model, options.quiet) == ("b.jsonl", 5, "p", "m", True)


def test_a_configuration_holds_lists(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    survey = {"answers": ["a.jsonl", "b.jsonl"], "out": "page.html", "key": "key.json"}
    talks = {"model": "m", "out": "talks.jsonl", "subject": ["verbs", "fractions"]}
    prompts = {"model": "m", "prompts": "p.jsonl", "out": "o.jsonl", "head": "h", "temperatures": [0.1, 0.4]}
    path.write_text(json.dumps({"survey build": survey, "simulate": talks, "generate": prompts, "inspect": {}}))
    config = ["--config", str(path)]
    assert parse(["survey", "build", *config]).answers == ["a.jsonl", "b.jsonl"]
    assert parse(["survey", "build", "--out", "x.html", "c.jsonl", "d.jsonl", *config]).answers == [
        "c.jsonl",
        "d.jsonl",
    ]
    assert parse(["simulate", *config]).subject == ["verbs", "fractions"]
    assert parse(["simulate", "--subject", "rivers", *config]).subject == ["rivers"]
    assert parse(["generate", *config]).temperatures == [0.1, 0.4]
    path.write_text(json.dumps({"data": "a.jsonl", "model": "m", "out": "o", "columns": ["chosen=a", "rejected=b"]}))
    assert parse(["extract", *config]).columns == ["chosen=a", "rejected=b"]
    path.write_text(json.dumps({"data": "a", "model": "m", "out": "o", "layer": [1, -1], "pooling": ["last", "mean"]}))
    assert (parse(["extract", *config]).layer, parse(["extract", *config]).pooling) == ([1, -1], ["last", "mean"])
    assert parse(["extract", "--layer", "2,3", *config]).layer == [2, 3]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '{"layr": 3}', "unknown option 'layr'"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "expected option names"),
        ("a.json", '{"layer": [[1]]}', "option 'layer'"),
        ("a.json", '{"layer": ["last"]}', "is not 'auto'"),
        ("a.json", '{"pooling": ["last", "best"]}', "'best' is not 'auto'"),
        ("a.json", '{"quiet": "yes"}', "option 'quiet'"),
        ("a.json", '{"extract": {}, "layer": 3}', "'layer' is no command"),
        ("a.json", '{"extract": 3}', "section 'extract'"),
        ("a.json", '{"max_length": 0}', "whole number from 1"),
        ("a.toml", "layer = 3", ".yaml"),
        ("absent.json", None, "no such file"),
        ("a.yaml", "a: [", "not YAML"),
    ],
)
def test_bad_configurations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, words: str
) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    if content is not None:
        (tmp_path / name).write_text(content)
    assert words in fails(capsys, "extract", "--config", tmp_path / name)


# -- the program ------------------------------------------------------------------------------------------------------
def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2 and "commands" in capsys.readouterr().out
    assert main(["--version"]) == 0 and "cvxrelu-llm" in capsys.readouterr().out
    for name in COMMANDS:
        assert main([*name.split(), "--help"]) == 0
        assert f"cvxrelu-llm {name}" in capsys.readouterr().out
    assert "invalid choice" in fails(capsys, "nonsense")


def test_runs_as_a_program(pairs: Path, root: Path) -> None:
    """And reads data without importing PyTorch."""
    code = "import sys; from cvxrelu_llm.command_line.main import main; code = main(sys.argv[1:])"
    code += "; assert 'torch' not in sys.modules"
    code += "; sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(pairs)], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "kept 30" in done.stdout


def test_errors_of_ours_are_tracebacks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_arguments: object, **_more: object) -> Triples:
        raise ZeroDivisionError

    monkeypatch.setattr("cvxrelu_llm.command_line.common.load_triples", broken)
    assert main(["inspect", "x.jsonl"]) == 4
    assert "Traceback" in capsys.readouterr().err

    def interrupted(*_arguments: object, **_more: object) -> Triples:
        raise KeyboardInterrupt

    monkeypatch.setattr("cvxrelu_llm.command_line.common.load_triples", interrupted)
    assert main(["inspect", "x.jsonl"]) == 130


def test_every_command_and_option_is_documented(root: Path) -> None:
    text = "".join((root / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in ("alignment", "reward"))
    elsewhere = {"generate", "simulate", "survey build", "survey score"}  # docs/generation.md, docs/survey.md
    for name in set(COMMANDS) - elsewhere:
        sub = build_parser()[1][name]
        assert f"`cvxrelu-llm {name}`" in text
        for action in sub._actions:
            for flag in action.option_strings:
                if flag.startswith("--") and action.help != argparse.SUPPRESS and flag != "--help":
                    assert f"`{flag}" in text, (name, flag)
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["cvxrelu-llm"] and "--config" not in words:
                parse(words[1:])


def test_options_have_the_names_of_python(model: FeatureModel) -> None:
    import inspect as introspection

    names = {action.dest for action in build_parser()[1]["extract"]._actions}
    parameters = set(introspection.signature(extract).parameters) - {"model", "triples", "progress", "padding_side"}
    parameters |= set(introspection.signature(load_model).parameters) - {"name_or_path"}
    assert parameters <= names, parameters - names
