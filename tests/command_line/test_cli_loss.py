"""`cvxrelu fit --loss logistic`: what is written predicts classes as the training did."""

from __future__ import annotations

import numpy as np
import pytest

from cvxrelu.command_line.main import main


@pytest.mark.parametrize("classes", [2, 3])
def test_classes(tmp_path, capsys, classes):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 3))
    names = np.array(["no", "yes", "maybe"])[np.digitize(X[:, 0] + X[:, 1], [0.3, 1.5][: classes - 1])]
    lines = ["a,b,c,label"] + [
        ",".join(f"{v:.6f}" for v in row) + f",{name}" for row, name in zip(X, names, strict=True)
    ]
    data, model, out = tmp_path / "d.csv", tmp_path / "model", tmp_path / "p.csv"
    data.write_text("\n".join(lines) + "\n")
    assert main(["fit", str(data), "--target", "label", "--out", str(model), "--loss", "logistic", "--quiet"]) == 0
    assert main(["predict", str(model), str(data), "--out", str(out)]) == 0
    guesses = np.array(out.read_text().split()[1:])
    assert np.mean(guesses == names) > 0.9


def test_numbers_have_no_logistic_loss(tmp_path, capsys):
    data = tmp_path / "d.csv"
    data.write_text("a,y\n" + "".join(f"{k},{k * 0.37:.3f}\n" for k in range(40)))
    assert main(["fit", str(data), "--target", "y", "--out", str(tmp_path / "m"), "--loss", "logistic"]) != 0
    assert "--loss logistic is for classes" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
