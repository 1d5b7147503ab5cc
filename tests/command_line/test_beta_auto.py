"""`cvxrelu fit --beta auto`: beta by cross-validation on the training rows, nothing where there is nothing to learn."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cvxrelu.command_line.main import main
from cvxrelu.command_line.training import Trained
from cvxrelu.network.relu_network import ReLUNetwork


def write(path, X, y):
    names = [f"x{k}" for k in range(X.shape[1])]
    rows = [",".join([*(f"{v:.8g}" for v in row), str(target)]) for row, target in zip(X, y, strict=True)]
    path.write_text("\n".join([",".join([*names, "y"]), *rows]) + "\n")
    return path


def fit(tmp_path, X, y, *options):
    data, out = write(tmp_path / "d.csv", X, y), tmp_path / "model"
    code = main(["fit", str(data), "--target", "y", "--out", str(out), "--beta", "auto", "--tol", "1e-2", *options])
    return code, json.loads((out / "solution.json").read_text())


def test_what_is_there_is_learned(tmp_path, capsys):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    y = np.maximum(X @ [1.0, -1.0, 0.5], 0.0) + 0.2 * rng.standard_normal(200)
    code, record = fit(tmp_path, X, y)
    out = capsys.readouterr().out
    assert code == 0 and record["scores"]["R2"] > 0.8
    choice = record["beta_choice"]
    means = np.mean(choice["scores"], axis=1)
    assert choice["best"] == int(np.argmax(means)) > 0 and len(choice["scores"][0]) == 5
    assert len(choice["betas"]) == len(means) and np.all(np.diff(choice["betas"]) < 0)
    assert record["settings"]["beta"] == pytest.approx(choice["betas"][choice["best"]])
    assert out.count("score -") == len(means) and "5-fold cross-validation" in out


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_classes_without_any_signal_get_no_neurons(tmp_path, capsys, loss):
    """With a fixed beta such a table ended in hundreds of neurons."""
    rng = np.random.default_rng(1)
    y = np.array(["a", "b", "c"])[rng.integers(3, size=200)]
    code, record = fit(tmp_path, rng.standard_normal((200, 3)), y, "--loss", loss, "--quiet")
    assert code == 0 and record["n_neurons"] == 0
    assert "no network predicted held-out rows better than a constant" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--absolute-beta", "--no-refine"])
def test_what_it_goes_without_is_said_before_any_work(tmp_path, capsys, option):
    data = write(tmp_path / "d.csv", np.eye(6), range(6))
    assert main(["fit", str(data), "--target", "y", "--out", str(tmp_path / "m"), "--beta", "auto", option]) == 2
    assert option in capsys.readouterr().err and not (tmp_path / "m").exists()


def test_other_words_are_no_beta(tmp_path, capsys):
    assert main(["fit", "d.csv", "--out", str(tmp_path / "m"), "--beta", "best"]) == 2
    assert "--beta" in capsys.readouterr().err


def test_it_is_the_default(tmp_path, capsys):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, 2))
    lines = ["a,b,y", *(f"{a},{b},{abs(a)}" for a, b in X)]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    assert main(["fit", str(tmp_path / "d.csv"), "--target", "y", "--out", str(tmp_path / "m"), "--tol", "1e-2"]) == 0
    record = json.loads((tmp_path / "m" / "solution.json").read_text())
    assert record["beta_choice"]["betas"] and record["linear_scores"]["R2"] < record["scores"]["R2"]
    said = capsys.readouterr().out
    assert f"(ridge {record['linear_scores']['R2']:.4g}, baseline" in said and said.count("optimal:") == 1
    sampled = ["--no-refine", "--patterns", "16", "--out", str(tmp_path / "s"), "--tol", "1e-1"]
    assert main(["fit", str(tmp_path / "d.csv"), "--target", "y", *sampled]) == 0
    assert "beta_choice" not in json.loads((tmp_path / "s" / "solution.json").read_text())
    assert main(["fit", str(tmp_path / "d.csv"), "--target", "y", "--absolute-beta", "--out", str(tmp_path / "t")]) == 2
    assert "pass --beta B" in capsys.readouterr().err


def test_rare_classes_are_scored_alike_and_a_better_line_is_said(tmp_path, capsys):
    """Accuracy of always guessing the frequent class is high; balanced accuracy comes first then."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((200, 3))
    lines = ["a,b,c,kind", *(f"{a},{b},{c},{'rare' if a > 1.6 else 'common'}" for a, b, c in x)]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    fit = ["fit", str(tmp_path / "d.csv"), "--target", "kind", "--tol", "1e-2", "--out"]
    assert main([*fit, str(tmp_path / "m"), "--beta", "0.1"]) == 0
    record = json.loads((tmp_path / "m" / "solution.json").read_text())
    assert list(record["scores"])[2:] == ["balanced accuracy", "accuracy"]
    assert record["scores"]["balanced accuracy"] != record["scores"]["accuracy"]
    rows = [f"{a},{b},{c},{a + b + c + e}" for (a, b, c), e in zip(x, rng.standard_normal(200), strict=True)]
    (tmp_path / "d.csv").write_text("\n".join(["a,b,c,y", *rows]))
    capsys.readouterr()
    assert main(["fit", str(tmp_path / "d.csv"), "--target", "y", "--beta", "0.003", "--out", str(tmp_path / "n")]) == 0
    said = capsys.readouterr().err
    assert "fits the rows it was trained on far better than others (R2" in said
    assert "have it chosen with --beta auto" in said


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ((0.50, 0.60, 0.55), "a ridge regression is better (R2 0.55, the network's 0.5)"),
        ((0.50, 0.80, 0.40), "fits the rows it was trained on far better than others (R2 0.5, and 0.8"),
        ((-0.1, 0.20, 0.40), "no better than the training mean (R2 -0.1, and 0.2"),
        ((0.50, 0.60, 0.51), None),
    ],
)
@pytest.mark.parametrize("chosen", [False, True])
def test_what_is_doubtful_is_said_once(scores, words, chosen):
    here, there, linear = ({"R2": value} for value in scores)
    found = SimpleNamespace(
        network=ReLUNetwork([[1.0]], [1.0]), where="test rows", scores=here, on_training=there, linear=linear,
        baseline={"R2": 0.0}, baseline_name="training mean", choice=object() if chosen else None,
    )  # fmt: skip
    doubts = Trained.doubts.fget(found)
    if words is None:
        assert doubts == []
        return
    [said] = doubts
    assert words in said and ("--beta auto" in said) is not chosen
