"""The page of `cvxrelu fit --report`: both scores, and effects in the units and by the names of the table."""

from __future__ import annotations

import datetime
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from cvxrelu.command_line.data import load_data
from cvxrelu.command_line.effects import column_effects, target_words
from cvxrelu.command_line.main import main
from cvxrelu.command_line.training import decide_task, train

pytest.importorskip("matplotlib")

DAY = datetime.date(2021, 1, 1)


@pytest.fixture
def houses(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["area,town,garden,sold,rooms,price"]
    for i in range(120):
        area, town, garden = rng.uniform(30, 200), ("Ulm", "<b>Köln</b>", "Bonn")[i % 3], ("yes", "no")[i % 2]
        price = 2000 * area + 90_000 * (town == "Bonn") + 20_000 * (garden == "yes") + rng.normal(0, 5000)
        cell = "" if i % 10 == 3 else f"{area:.1f} m²"
        sold = DAY + datetime.timedelta(days=5 * i)
        lines.append(f"{cell},{town},{garden},{sold},{i % 4 + 1},{price:.0f} EUR")
    path = tmp_path / "houses.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def effects(path: Path, target: str, **settings: object):
    task = decide_task(load_data(str(path), target), "auto", 0.2, 0)
    options = {"beta": 0.05, "relative": True, "patterns": 16, "seed": 0, "verbose": False, "tol": 1e-2, "dtype": None}
    trained = train(task, **{**options, "backend": "numpy", **settings})
    return task, trained, column_effects(task, trained, 0)


def test_columns_have_their_own_units_and_names(houses: Path) -> None:
    task, trained, found = effects(houses, "price")
    assert target_words(task) == "price, EUR" and found.predicted == "predicted price, EUR"
    columns = {each.column.name: each for each in found.drawn}
    assert next(iter(found.changes)) == "area" and {*found.changes} == {"area", "town", "garden", "sold", "rooms"}
    area, town, garden = columns["area"], columns["town"], columns["garden"]
    assert area.column.unit == "m²" and min(area.column.values) > 20 and area.missing is not None
    slope = np.polyfit(area.column.values, area.averages[:, 0], 1)[0]
    assert slope == pytest.approx(2000, rel=0.15), "in EUR per m², not in standardised units"
    at = dict(zip(town.column.values, town.averages[:, 0], strict=True))
    assert {*at} == {"Ulm", "<b>Köln</b>", "Bonn"} and at["Bonn"] - at["Ulm"] == pytest.approx(90_000, rel=0.25)
    assert garden.column.values == ["no", "yes"] and garden.averages[1, 0] > garden.averages[0, 0]
    if "sold" in columns:
        assert columns["sold"].column.kind == "date" and len(columns["sold"].column.features) == 3
    # What a chart says of a value is what the network says of rows that have it.
    rows = task.data.X[task.train_rows].copy()
    rows[:, area.column.features] = area.column.grid[3]
    assert area.averages[3, 0] == pytest.approx(trained.network.predict(rows).mean(), rel=1e-6)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_of_classes_it_is_the_share_of_each(houses: Path, loss: str) -> None:
    _, _, found = effects(houses, "town", loss=loss)
    assert found.outputs == ["<b>Köln</b>", "Bonn", "Ulm"] and found.base.shape == (3,)
    assert found.base.sum() == pytest.approx(1.0, abs=0.05)
    if loss == "logistic":
        assert found.predicted == "probability of a class"
        assert all(np.all((each.averages >= 0) & (each.averages <= 1)) for each in found.drawn)
    _, _, found = effects(houses, "garden", loss=loss)
    assert found.outputs == [""] and found.predicted.endswith(" of yes")


@pytest.mark.parametrize(
    ("target", "words"),
    [("price", ["R2, test rows", "RMSE, training rows", "area, m²", "predicted price, EUR"]),
     ("town", ["accuracy, test rows", "probability of a class"])],
)  # fmt: skip
def test_the_page(houses: Path, tmp_path: Path, target: str, words: list[str]) -> None:
    out = tmp_path / "model"
    fit = ["fit", str(houses), "--target", target, "--beta", "0.05", "--tol", "1e-2", "--out", str(out), "--report"]
    assert main([*fit, "--quiet"]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for word in [*words, "What each column does to the prediction", "Köln"]:
        assert html.escape(word) in page, word
    assert "<b>Köln" not in page and "<script" not in page
    assert page.index("training rows") < page.index("What each column") < page.index("Lower bound")
    titles = [html.unescape(found) for found in re.findall(r"<title>([^<]*)</title>", page)]
    assert any(found.startswith("sold 20") or ", sold 20" in found for found in titles) or target == "price"
    record = json.loads((out / "solution.json").read_text())
    shown = next(iter(record["training_scores"].values()))
    assert f"{round(shown, 4):.6g}" in page


def test_without_test_rows_the_page_says_so(houses: Path, tmp_path: Path) -> None:
    fit = ["fit", str(houses), "--target", "price", "--beta", "0.1", "--tol", "1e-1", "--out", str(tmp_path / "m")]
    assert main([*fit, "--test-size", "0", "--report", "--quiet"]) == 0
    page = (tmp_path / "m" / "report.html").read_text(encoding="utf-8")
    assert "they say nothing about new rows" in page and "R2, test rows" not in page


def test_arrays_have_columns_by_position(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((60, 2)), np.ones(60)])
    np.savez(tmp_path / "d.npz", X=X, y=np.abs(X[:, 0]))
    task = decide_task(load_data(str(tmp_path / "d.npz"), None), "auto", 0.0, 0)
    trained = train(task, beta=0.05, relative=True, patterns=8, seed=0, verbose=False, tol=1e-2, dtype=None,
                    backend="numpy")  # fmt: skip
    found = column_effects(task, trained, 0)
    assert next(iter(found.changes)) == "column 1" and found.changes["column 3"] == 0.0
    assert found.predicted == "predicted value"
