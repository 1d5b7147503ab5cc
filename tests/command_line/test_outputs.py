"""What comes to be at the place of an output while a command runs is kept, unless --overwrite was given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preference_data import preferences

import cvxrelu_llm.command_line.main
from cvxrelu import ReLUNetwork
from cvxrelu.command_line import fit, predict
from cvxrelu.command_line import main as cli
from cvxrelu.command_line.model_folder import write_model
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.survey import page as survey
from cvxrelu_llm.survey.page import build_survey


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(24, 2))
    np.savetxt("table.csv", np.column_stack([X, X[:, 0] + np.maximum(X[:, 1] - 0.5, 0)]), "%.4f", ",", header="a,b,y",
               comments="")  # fmt: skip
    np.savetxt("new.csv", X, "%.4f", ",", header="a,b", comments="")
    return tmp_path


def occupied(patch: pytest.MonkeyPatch, holder: Any, name: str, path: Path, how: str = "file") -> None:
    """Let something come to be at `path` while `holder.name` runs, after what the command looks at beforehand."""
    before: Callable[..., Any] = getattr(holder, name)

    def with_company(*arguments: Any, **settings: Any) -> Any:
        path.parent.mkdir(exist_ok=True)
        if how == "file":
            path.write_text("mine")
        elif how == "folder":
            path.mkdir()
            (path / "notes.txt").write_text("mine")
        else:
            path.symlink_to("nowhere")
        return before(*arguments, **settings)

    patch.setattr(holder, name, with_company)


def kept(path: Path, how: str = "file") -> bool:
    if how == "link":
        return path.is_symlink() and not path.exists()
    return (path if how == "file" else path / "notes.txt").read_text() == "mine"


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


FIT = ["fit", "table.csv", "--target", "y", "--out", "model", "--tol", "0.5", "--beta", "0.5", "--quiet"]


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize("how", ["file", "folder", "link"])
def test_fit(how: str, more: list[str], here: Path, monkeypatch, capsys) -> None:
    occupied(monkeypatch, fit, "train", here / "model", how)
    assert cli.main([*FIT, *more]) == 2
    assert "model: exists" in capsys.readouterr().err and kept(here / "model", how) and hidden(here) == []


def test_a_model_made_meanwhile_is_replaced_only_if_asked(here: Path, monkeypatch) -> None:
    train = fit.train

    def twice(*arguments: Any, **settings: Any) -> Any:
        if not (here / "model").exists():
            (here / "model").mkdir()
            write_model(here / "model", ReLUNetwork([[1.0], [2.0]], [1.0]), {"made": "meanwhile"})
        return train(*arguments, **settings)

    monkeypatch.setattr(fit, "train", twice)
    assert cli.main(FIT) == 2
    assert json.loads((here / "model" / "solution.json").read_text())["made"] == "meanwhile"
    assert cli.main([*FIT, "--overwrite"]) in (0, 1)
    assert "made" not in json.loads((here / "model" / "solution.json").read_text())


@pytest.mark.parametrize("how", ["file", "folder", "link"])
def test_predict(how: str, here: Path, monkeypatch, capsys) -> None:
    assert cli.main(FIT) in (0, 1)
    with monkeypatch.context() as patch:
        occupied(patch, predict, "read_table", here / "p.csv", how)
        assert cli.main(["predict", "model", "new.csv", "--out", "p.csv"]) == 2
    assert "p.csv" in capsys.readouterr().err and kept(here / "p.csv", how) and hidden(here) == []
    assert cli.main(["predict", "model", "new.csv", "--out", "p.csv"]) == 2  # seen beforehand now, the link too
    assert cli.main(["predict", "model", "new.csv", "--out", "p.csv", "--overwrite"]) == (2 if how == "folder" else 0)
    assert hidden(here) == []


def run(*words: Any) -> int:
    return cvxrelu_llm.command_line.main.main([str(word) for word in words])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("outputs")
    features = preferences(m=40)
    features.save(place / "f.safetensors")
    ConvexRewardHead(beta=np.inf, skip_l2=2.0).fit(features).save(place / "head")
    return place


def test_alternate(here: Path, monkeypatch, capsys) -> None:
    from cvxrelu_llm.command_line import alternate

    messages = [{"role": ("student", "tutor")[i % 2], "content": f"turn {i}"} for i in range(6)]
    Path("talks.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    with monkeypatch.context() as patch:
        occupied(patch, alternate, "alternate", here / "out.jsonl")
        assert run("alternate", "talks.jsonl", "--out", "out.jsonl") == 2
    assert "out.jsonl: exists" in capsys.readouterr().err and kept(here / "out.jsonl") and hidden(here) == []
    assert run("alternate", "talks.jsonl", "--out", "out.jsonl", "--overwrite") == 0
    assert "turn 1" in Path("out.jsonl").read_text()


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_eval(option: str, head: Path, here: Path, monkeypatch, capsys) -> None:
    if option == "--report":
        pytest.importorskip("matplotlib")
    given = ("eval", head / "head", "--features", head / "f.safetensors", "--n-boot", 20, option, "m.out", "--quiet")
    with monkeypatch.context() as patch:
        occupied(patch, ConvexRewardHead, "load", here / "m.out")
        assert run(*given) == 2
    assert "m.out: exists" in capsys.readouterr().err and kept(here / "m.out") and hidden(here) == []
    assert run(*given) == 2 and kept(here / "m.out")
    assert run(*given, "--overwrite") == 0 and Path("m.out").read_text() != "mine"


def test_audit(head: Path, here: Path, monkeypatch, capsys) -> None:
    given = ("audit", head / "head", "--features", head / "f.safetensors", "--out", "list.jsonl")
    with monkeypatch.context() as patch:
        occupied(patch, ConvexRewardHead, "load", here / "list.jsonl")
        assert run(*given) == 2
    assert kept(here / "list.jsonl") and hidden(here) == []
    assert run(*given) == 2 and kept(here / "list.jsonl")
    assert run(*given, "--overwrite") == 0 and Path("list.jsonl").read_text() != "mine"


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_export(kind: str, head: Path, here: Path, monkeypatch, capsys) -> None:
    pytest.importorskip(kind)
    occupied(monkeypatch, ConvexRewardHead, "load", here / "net")
    assert run("export", head / "head", "--to", kind, "--out", "net") == 2
    assert "net: exists" in capsys.readouterr().err and kept(here / "net") and hidden(here) == []


def test_fit_of_a_head(head: Path, here: Path, monkeypatch, capsys) -> None:
    occupied(monkeypatch, ConvexRewardHead, "fit", here / "new")
    assert run("fit", head / "f.safetensors", "--out", "new", "--beta", "linear", "--skip-l2", 2.0) == 2
    assert "new: exists" in capsys.readouterr().err and kept(here / "new") and hidden(here) == []


def test_surveys(here: Path, monkeypatch, capsys) -> None:
    rows = [{"prompt": "p", "answers": {"a": "x", "b": "y"}}]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("survey", "build", "a.jsonl", "--out", "page.html", "--key", "key.json", "--quiet")
    with monkeypatch.context() as patch:
        occupied(patch, survey, "order_digest", here / "key.json")
        assert run(*given) == 2
    assert kept(here / "key.json") and not (here / "page.html").exists() and hidden(here) == []
    assert run(*given, "--overwrite") == 0 and json.loads(Path("key.json").read_text())["models"] == ["a", "b"]
    with pytest.raises(FileExistsError):
        build_survey(rows, here / "page.html", here / "other.json", overwrite=False)
    assert not (here / "other.json").exists()
