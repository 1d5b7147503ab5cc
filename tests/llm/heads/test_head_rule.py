"""When neurons are taken: against SciPy's test, on noise, on a real nonlinearity, and what the head says about it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from preference_data import preferences

from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.heads.rule import Point, accuracy_of, paired_difference, taken

FAST: dict[str, Any] = {"betas": (0.6, 0.35), "folds": 2, "path_tol": 3e-2, "tol": 1e-2}


def point(differences: np.ndarray, accuracy: float = 1.0) -> Point:
    """A point whose losses exceed the linear model's by `differences`; every pair is a group."""
    m = len(differences)
    found = paired_difference(differences, np.zeros(m), np.ones(m), np.arange(m))
    return Point("network", 1.0, 1.0, 0.5, 1.0 + found[0], 0.1, *found, n_neurons=3.0, accuracy=accuracy)


# -- the decision -----------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), m=st.integers(3, 60), k=st.integers(1, 6), mean=st.floats(-1.0, 0.2))
def test_significant_is_a_corrected_t_test(seed: int, m: int, k: int, mean: float) -> None:
    differences = mean + np.random.default_rng(seed).standard_normal((k, m))
    points = [point(row) for row in differences]
    best = int(np.argmin(differences.mean(axis=1)))
    p = scipy.stats.ttest_1samp(differences[best], 0.0, alternative="less").pvalue
    expected = p < 0.05 / k and points[best].difference < -0.002
    assert taken(points, 0.9, m, "significant") == (best if expected else None)
    assert taken(points, 0.9, m, "lowest") == (best if points[best].difference < 0 else None)


def test_accuracy_must_not_fall() -> None:
    differences = -1.0 + 0.1 * np.random.default_rng(0).standard_normal(30)
    assert taken([point(differences, 0.7)], 0.7, 30, "significant") == 0
    assert taken([point(differences, 0.7)], 0.7 + 1e-15, 30, "significant") == 0
    assert taken([point(differences, 0.7)], 0.71, 30, "significant") is None
    assert taken([point(differences, 0.7)], 0.71, 30, "lowest") == 0
    worse_but_right = point(differences + 0.1, 0.8)  # the best point decides alone
    assert taken([worse_but_right, point(differences, 0.7)], 0.71, 30, "significant") is None


def test_the_best_of_several_chance_points_is_seldom_taken() -> None:
    """400 paths of five points that are nothing but chance: one standard error would take most of them."""
    rng = np.random.default_rng(0)
    paths = [[point(row) for row in rng.standard_normal((5, 40))] for _ in range(400)]
    share = np.mean([taken(points, 0.0, 40, "significant") is not None for points in paths])
    one_error = np.mean([min(p.difference / p.difference_error for p in points) < -1 for points in paths])
    assert share < 0.07 and one_error > 0.5


def test_accuracy_is_weighted_and_ties_are_half() -> None:
    assert accuracy_of(np.array([2.0, -1.0, 0.0]), np.array([1.0, 2.0, 1.0])) == 0.375


# -- heads ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(4))
def test_noise_makes_no_neurons(seed: int) -> None:
    head = ConvexRewardHead(**FAST).fit(preferences(m=60, d=3, sharp=0.0, seed=seed))
    assert head.n_neurons == 0 and head.choice.beta is None
    assert any(point.kind == "network" for point in head.choice.points)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit by the rule that takes neurons most easily."""
    folder = tmp_path_factory.mktemp("fits") / "work"
    ConvexRewardHead(**FAST, select="lowest").fit(preferences(), folder=folder)
    return folder


def test_a_work_folder_serves_both_rules(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on the path is solved again; the rule is the only difference."""
    assert "select" not in json.loads((work / "fit.json").read_text())["options"]
    stamps = {file: file.stat().st_mtime_ns for file in work.glob("point-*")}
    head = ConvexRewardHead(**FAST, select="significant").fit(preferences(), folder=work)
    assert stamps and stamps == {file: file.stat().st_mtime_ns for file in work.glob("point-*")}
    fresh = ConvexRewardHead(**FAST, select="significant").fit(preferences())
    assert head.choice.points == fresh.choice.points and head.choice.beta == fresh.choice.beta


def test_points_and_summary_say_how_sure(work: Path, tmp_path: Path) -> None:
    """Figures of the summary against out-of-fold margins; a loaded head says the same."""
    features = preferences()
    head = ConvexRewardHead(**FAST).fit(features, folder=work)
    chosen = min((p for p in head.choice.points if p.kind == "network"), key=lambda p: p.loss)
    linear = min((p for p in head.choice.points if p.kind == "linear"), key=lambda p: p.loss)
    assert head.choice.margins is not None and chosen.beta == head.choice.beta
    assert chosen.accuracy == np.mean(head.choice.margins > 0) > linear.accuracy
    assert chosen.difference == pytest.approx(chosen.loss - linear.loss)

    plain = ConvexRewardHead(beta=np.inf, folds=2).fit(features)
    assert plain.choice.margins is not None and linear.accuracy == np.mean(plain.choice.margins > 0)
    losses = [np.logaddexp(0, -one.choice.margins) for one in (head, plain)]
    groups = (losses[0] - losses[1]).reshape(-1, 2).mean(axis=1)  # two pairs a group
    low, high = scipy.stats.ttest_1samp(groups, 0.0).confidence_interval(0.95)
    lines = head.summary().splitlines()
    assert f"log-loss {linear.loss:.4f}, accuracy {linear.accuracy:.3f} of the linear model" in head.summary()
    assert f"neurons        taken: difference in log-loss {groups.mean():+.4f} (95 % interval {low:+.4f} to " \
           f"{high:+.4f})" in lines  # fmt: skip
    again = ConvexRewardHead.load(head.save(tmp_path / "head"))
    assert again.summary() == head.summary() and again.choice.points == head.choice.points
    fewer = head.edit(remove=range(40))  # the comparison remains that of the fit
    assert fewer.summary().splitlines()[-3:-1] == lines[-3:-1]
    assert "neurons  " not in plain.summary()


def test_summary_of_a_linear_choice() -> None:
    features = dataclasses.replace(preferences(m=60, d=3, sharp=0.0), weight=np.linspace(0.5, 2.0, 60))
    head = ConvexRewardHead(**FAST).fit(features)
    lines = [line for line in head.summary().splitlines() if line.startswith("neurons  ")]
    assert len(lines) == 1 and "not taken: difference in log-loss +" in lines[0]


def test_a_gain_that_nobody_would_notice_is_not_taken() -> None:
    """However many pairs tell it: at least 0.002 nats, by the significant rule; the lowest loss takes any."""
    blank = Point("network", 1.0, 1.0, 0.5, 0.6, 0.0, 0.0, 1e-6, 3.0, 0.7)
    for gain, expected in ((0.0019, None), (0.0021, 0)):
        point = blank._replace(difference=-gain)
        assert taken([point], 0.7, 1000, "significant") == expected
        assert taken([point], 0.7, 1000, "lowest") == 0
