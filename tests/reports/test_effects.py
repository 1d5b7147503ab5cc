"""Effects of columns are those of the network, and their charts hold what a table can be called."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from html_reading import Page

import cvxrelu
from cvxrelu.reports.effects import Effects, Varied, effects_of
from cvxrelu.reports.page import Section, write_report

pytest.importorskip("matplotlib")


def number(name: str, k: int, X: np.ndarray, unit: str = "") -> Varied:
    values = np.linspace(X[:, k].min(), X[:, k].max(), 5)
    return Varied(name, "number", [k], values.tolist(), values[:, None], unit, X[:, k])


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((80, 3))


def test_averages_are_partial_dependence(rows: np.ndarray) -> None:
    def predict(X: np.ndarray) -> np.ndarray:
        return (2.0 * X[:, 0] + np.maximum(X[:, 1], 0.0))[:, None]

    columns = [number("still", 2, rows), number("bent", 1, rows), number("straight", 0, rows)]
    found = effects_of(predict, rows, columns, outputs=[""], predicted="y")
    assert list(found.changes) == ["straight", "bent", "still"] and found.changes["still"] == 0.0
    assert [each.column.name for each in found.drawn] == ["straight", "bent"], "what does nothing has no chart"
    straight, bent = (each.averages[:, 0] for each in found.drawn)
    at = np.array(found.drawn[0].column.values)
    np.testing.assert_allclose(straight, 2.0 * at + np.maximum(rows[:, 1], 0).mean())
    np.testing.assert_allclose(bent, np.maximum(found.drawn[1].column.values, 0) + 2.0 * rows[:, 0].mean())
    np.testing.assert_allclose(found.base, predict(rows).mean(axis=0))


def test_a_category_changes_all_its_features_at_once(rows: np.ndarray) -> None:
    seen = np.eye(3)[np.random.default_rng(1).integers(3, size=80)]

    def predict(X: np.ndarray) -> np.ndarray:
        assert np.all(X.sum(axis=1) == 1.0), "no row may have two values of one category"
        return X @ np.array([[1.0], [5.0], [7.0]])

    towns = Varied("town", "category", [0, 1, 2], ["a", "b", "c"], np.eye(3), missing=np.array([0.0, 1.0, 0.0]))
    [drawn] = effects_of(predict, seen, [towns], outputs=[""], predicted="y").drawn
    np.testing.assert_allclose(drawn.averages[:, 0], [1.0, 5.0, 7.0])
    assert drawn.missing == pytest.approx(5.0)


def test_of_a_wide_table_few_rows_are_looked_at() -> None:
    X = np.random.default_rng(0).standard_normal((400, 5000))
    found = effects_of(lambda rows: rows[:, :1], X, [number("a", 0, X)], outputs=[""], predicted="y")
    assert found.rows == 50


NAMES = ["<u>bold</u> & 'quoted'", "$x$ in $", "_hidden", "価格", "x" * 300]


def page(folder: Path, rows: np.ndarray, effects: Effects | None, **settings: object) -> tuple[Page, str]:
    y = np.maximum(rows[:, 0], 0.0)
    solution = cvxrelu.solve(rows, y, beta=0.5, tol=1e-2, backend="numpy")
    section = Section(
        name="odd", solution=solution, truth=y, predictions=solution.network.predict(rows), effects=effects, **settings
    )  # fmt: skip
    text = write_report(folder / "report.html", [section], title="A report").read_text(encoding="utf-8")
    return Page(text), text


def test_names_of_every_kind_are_drawn(rows: np.ndarray, tmp_path: Path) -> None:
    """Mark-up, what matplotlib would take for a formula, for hidden, or has no glyphs for, and what has no end."""
    levels = Varied("town", "category", [2], NAMES, np.arange(5.0)[:, None])
    columns = [*(number(name, 0, rows, "<m>") for name in NAMES), levels]
    outputs = NAMES

    def predict(X: np.ndarray) -> np.ndarray:
        return X[:, [0]] * np.arange(1.0, 6.0) + X[:, [2]]

    found, text = page(
        tmp_path, rows, effects_of(predict, rows, columns, outputs=outputs, predicted="$y$"), target=NAMES[0]
    )
    assert not {"u", "m", "script"} & {tag for tag, _ in found.tags}
    for name in NAMES:
        assert name in found.text, "the heading has the whole name"
    assert "mathdefault" not in text and "$x$ in $" in found.text
    assert f"\u200b{NAMES[2]}" in text, "matplotlib leaves out of legends what begins with an underscore"
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    without_titles = [re.sub(r"<title>.*?</title>", "", drawing) for drawing in drawings]
    assert not any("x" * 100 in re.sub(r'aria-label="[^"]*"', "", drawing) for drawing in without_titles)


def test_scores_and_predictions_come_before_the_certificate(rows: np.ndarray, tmp_path: Path) -> None:
    columns = [number("a", 0, rows, "m"), number("b", 1, rows)]
    effects = effects_of(lambda X: X[:, :1], rows, columns, outputs=[""], predicted="y")
    found, _ = page(tmp_path, rows, effects, scores=[{"Model": "ours", "R2": 0.5}])
    order = ["ours", "Predictions", "What the prediction rests on", "What each column does", "How well the problem",
             "Objective and bounds"]  # fmt: skip
    places = [found.text.index(words) for words in order]
    assert all(a < b for a, b in pairwise(places))
    assert "a, m" in found.text, "the unit stands on the axis"


def test_a_single_column_is_not_compared(rows: np.ndarray, tmp_path: Path) -> None:
    effects = effects_of(lambda X: X[:, :1], rows, [number("a", 0, rows)], outputs=[""], predicted="y")
    found, _ = page(tmp_path, rows, effects)
    assert "What the prediction rests on" not in found.text and "What each column does" in found.text


def test_nothing_to_show(rows: np.ndarray, tmp_path: Path) -> None:
    effects = effects_of(lambda X: np.ones((len(X), 1)), rows, [number("a", 0, rows)], outputs=[""], predicted="y")
    found, _ = page(tmp_path, rows, effects)
    assert "No column changes the prediction" in found.text and "What each column does" not in found.text
    assert "No column" not in page(tmp_path, rows, None)[0].text
