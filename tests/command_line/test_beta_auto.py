"""`cvxrelu fit --beta auto`: beta by cross-validation on the training rows, nothing where there is nothing to learn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cvxrelu.command_line.main import main


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
