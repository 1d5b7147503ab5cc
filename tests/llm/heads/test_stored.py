"""Stored files that are cut, foreign or damaged: one InputError that names the file, and the entry."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preference_data import preferences

from cvxrelu.support.errors import InputError
from cvxrelu_llm.command_line.config import read_config
from cvxrelu_llm.features.cache import FeatureCache
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.survey.page import read_answers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = (
        ConvexRewardHead(beta=np.inf, skip_l2=2.0).fit(preferences(m=40)).save(tmp_path_factory.mktemp("h") / "head")
    )
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def entry(*path: str, value: Any) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        record = json.loads(content)
        place = record
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        return json.dumps(record).encode()

    return change


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("head.json", lambda content: content[:40], "not JSON"),
        ("head.json", lambda content: b"not json", "not JSON"),
        ("head.json", lambda content: b"[]", "expected an object"),
        ("head.json", lambda content: b"\xff\xfe" + content, "not a text file in UTF-8"),
        ("head.json", lambda content: b'{"a":' * 50_000, "nested too deeply"),
        ("head.json", lambda content: b"", "empty"),
        ("head.json", entry("options", "folds", value="three"), "'folds' must be"),
        ("head.json", entry("options", "betas", value=3), "'betas' must be a list"),
        ("head.json", entry("options", "unheard", value=1), "unheard"),
        ("head.json", entry("options", value=None), "'options' must be an object"),
        ("head.json", entry("certificate", "gap", value=[]), "'gap' must be a number"),
        ("head.json", entry("choice", "points", value=[1]), "point 0"),
        ("head.json", entry("features", value=7), "'features' must be an object"),
        ("head.json", entry("n_features", value=9), "9 features"),
        ("head.json", entry("format_version", value=2), "version 2"),
        ("network.safetensors", lambda content: content[:-5], "truncated"),
        ("standardised.safetensors", lambda content: b"x", "truncated"),
        ("standard.safetensors", lambda content: content[:100], "truncated"),
        ("standard.safetensors", lambda content: content.replace(b"center", b"centre"), "center is missing"),
    ],
)
def test_damaged_heads(
    file: str, change: Callable[[bytes], bytes], words: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(change(content) if name == file else content)
    with pytest.raises(InputError, match="not a folder of a reward head, or a damaged one") as caught:
        ConvexRewardHead.load(tmp_path)
    assert file in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pairs": np.array([[0, 80]])}, "rows 0 to 80 of 80"),
        ({"weight": np.full(40, -1.0)}, "negative"),
        ({"weight": np.full(3, 1.0)}, "weight has shape"),
        ({"margin": np.full(40, np.nan)}, "NaN"),
        ({"X": np.zeros((80, 0, 2), np.float32)}, "X has shape"),
        ({"kept": np.zeros(40)}, "kept has dtype F64"),
    ],
)
def test_features_that_do_not_fit(change: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    features = preferences(m=40)
    for name, value in change.items():
        object.__setattr__(features, name, value)
    if "pairs" in change:
        for name in ("weight", "margin", "group", "kept"):
            object.__setattr__(features, name, getattr(features, name)[:1])
    features.save(tmp_path / "f.safetensors")
    with pytest.raises(InputError, match=r"f\.safetensors: not a file of pair features") as caught:
        PairFeatures.load(tmp_path / "f.safetensors")
    assert words.replace("80 of 80", f"80 of {len(features.X)}") in str(caught.value)


@pytest.mark.parametrize("what", ["folder", "pipe", "link"])
def test_caches_leave_alone_what_is_no_file(what: str, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {"model": "m"}, 2)
    cache.put([b"k"], np.ones((1, 2)))
    odd = cache.folder / "odd.safetensors"
    if what == "folder":
        odd.mkdir()
    elif what == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(tmp_path / "nothing")
    again = FeatureCache(tmp_path, {"model": "m"}, 2)
    assert len(again) == 1 and again.n_damaged == 0 and os.path.lexists(odd)


def test_answers_may_hold_any_line_break_that_json_may(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\x85four"
    row = {"prompt": "p", "model": "m", "text": text}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_answers(tmp_path / "a.jsonl")[0]["answers"] == {"m": text}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2\n", "stands twice"),
        ("tol: " + "[" * 3000, "nested too deeply"),
        ("tol: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("tol: 2001-99-99\n", "not YAML"),
        ("1: 2\n", "expected texts as names"),
    ],
)
def test_yaml_that_is_no_configuration(text: str, words: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=r"run\.yaml") as caught:
        read_config(str(tmp_path / "run.yaml"), "fit", ("fit", "extract"))
    assert words in str(caught.value)


def test_yaml_that_is_one(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    common = "common: &c {seed: 3, tol: 0.1}\n"
    (tmp_path / "run.yaml").write_text(common + "a: {<<: *c, tol: 0.5}\nb: {<<: [*c, {seed: 4, out: x}]}\n")
    found = read_config(str(tmp_path / "run.yaml"), "fit", ())
    assert found["a"] == {"seed": 3, "tol": 0.5} and found["b"] == {"seed": 3, "tol": 0.1, "out": "x"}
    doubling = "a0: &a0 {x: 1}\n" + "".join(f"a{k}: &a{k} {{<<: [*a{k - 1}, *a{k - 1}]}}\n" for k in range(1, 60))
    (tmp_path / "run.yaml").write_text(doubling)
    assert read_config(str(tmp_path / "run.yaml"), "fit", ())["a59"] == {"x": 1}
