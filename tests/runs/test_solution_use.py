"""What a solution can do: predict, be saved, be drawn, be shown in a notebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cvxrelu

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3))
SOLUTION = cvxrelu.solve(X, np.abs(X[:, 0]), beta=1.0)


def test_it_predicts_as_its_network() -> None:
    np.testing.assert_array_equal(SOLUTION.predict(X), SOLUTION.network.predict(X))


def test_it_is_saved_with_what_is_known(tmp_path: Path) -> None:
    SOLUTION.save(tmp_path / "a.safetensors")
    again = cvxrelu.ReLUNetwork.load(tmp_path / "a.safetensors")
    assert again.allclose(SOLUTION.network)
    known = again.metadata["solution"]
    assert (known["status"], known["objective"], known["gap"]) == ("optimal", SOLUTION.objective, SOLUTION.gap)
    assert known["certificate"] == "priced" and known["rigorous"] is False and known["settings"]["beta"] == 1.0


def test_it_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    figure = SOLUTION.plot()
    [axes] = figure.axes
    assert axes.get_xlabel() == "seconds" and "estimated" in str(axes.get_legend().get_texts()[2].get_text())
    assert SOLUTION.plot(axes) is figure
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), SOLUTION.history["objective"])


def test_a_notebook_shows_it() -> None:
    page = SOLUTION._repr_html_()
    assert page.count("<tr>") == len(SOLUTION.summary().splitlines()) and "<th" in page
    assert f"{SOLUTION.objective:.8g}" in page
