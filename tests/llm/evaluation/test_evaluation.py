"""Metrics against hand computation and scikit-learn, intervals against theory, the report, and the trackers."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import tracemalloc
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preference_data import preferences

from cvxrelu.support import bootstrap
from cvxrelu.support.errors import InputError
from cvxrelu_llm.evaluation.metrics import evaluate, evaluate_margins, length_differences
from cvxrelu_llm.evaluation.tracking import log_metrics
from cvxrelu_llm.heads.calibration import abstention_curve
from cvxrelu_llm.heads.head import ConvexRewardHead, as_pair_features
from cvxrelu_llm.preferences.triples import load_triples


@pytest.fixture(scope="module")
def head() -> ConvexRewardHead:
    return ConvexRewardHead(beta=np.inf).fit(preferences())


def test_metrics_are_those_of_hand_computation(head: ConvexRewardHead) -> None:
    features = preferences(m=50, seed=2)
    found = evaluate(head, features, n_boot=50).metrics
    f = head.score(features.X)
    chosen, rejected = f[features.pairs[:, 0]], f[features.pairs[:, 1]]
    values = {name: metric.value for name, metric in found.items()}
    assert values["rewards/chosen"] == pytest.approx(chosen.mean())
    assert values["rewards/rejected"] == pytest.approx(rejected.mean())
    assert values["rewards/margins"] == pytest.approx((chosen - rejected).mean())
    assert values["rewards/accuracies"] == np.mean(chosen > rejected)
    metrics = pytest.importorskip("sklearn.metrics")
    p = 1 / (1 + np.exp(-(chosen - rejected) / head.temperature))
    both, labels = np.concatenate([p, 1 - p]), np.repeat([1, 0], 50)  # every pair with its mirror image
    assert values["log_loss"] == pytest.approx(metrics.log_loss(labels, both))
    assert values["brier"] == pytest.approx(metrics.brier_score_loss(labels, both))


def test_weights_and_ties() -> None:
    found = evaluate_margins([1.0, 0.0, -2.0], [0, 1, 2], weight=[2.0, 1.0, 1.0], n_boot=10)
    assert found.metrics["rewards/accuracies"].value == (2 + 0.5) / 4
    assert found.metrics["rewards/margins"].value == 0.0
    assert found.values("eval/")["eval/rewards/margins"] == 0.0


def test_length_alone_is_worth_one_half() -> None:
    """Whatever the data: the longer answer was preferred in four of five pairs here."""
    rng = np.random.default_rng(0)
    lengths = np.where(rng.random(500) < 0.8, 1.0, -1.0) * rng.integers(1, 50, 500)
    by_length = evaluate_margins(lengths, np.arange(500), lengths=lengths, n_boot=100).metrics
    assert by_length["rewards/accuracies"].value > 0.75
    assert by_length["length_controlled_accuracy"].value == 0.5
    perfect = evaluate_margins(np.ones(500), np.arange(500), lengths=lengths, n_boot=100).metrics
    assert perfect["length_controlled_accuracy"].value == 1.0
    triples = load_triples([{"prompt": "a", "chosen": "bbb", "rejected": "c"}])
    assert length_differences(triples).tolist() == [2.0]
    assert "length_controlled_accuracy" not in evaluate_margins([1.0], [0], lengths=[3.0]).metrics


def test_intervals_are_those_of_theory_and_of_groups() -> None:
    rng = np.random.default_rng(0)
    margins = np.where(rng.random(400) < 0.7, 1.0, -1.0)
    single = evaluate_margins(margins, np.arange(400), n_boot=4000).metrics["rewards/accuracies"]
    p, half = single.value, 1.96 * np.sqrt(single.value * (1 - single.value) / 400)
    assert (single.low, single.high) == pytest.approx((p - half, p + half), abs=0.006)
    # four copies of every pair in one group tell no more than one
    grouped = evaluate_margins(np.repeat(margins, 4), np.repeat(np.arange(400), 4), n_boot=4000)
    wide = grouped.metrics["rewards/accuracies"]
    assert wide.high - wide.low == pytest.approx(single.high - single.low, rel=0.1)
    alone = evaluate_margins(np.repeat(margins, 4), np.arange(1600), n_boot=4000).metrics["rewards/accuracies"]
    assert alone.high - alone.low == pytest.approx((single.high - single.low) / 2, rel=0.1)
    assert evaluate_margins([1.0, 2.0], [0, 0]).metrics["rewards/accuracies"].low != 0  # one group: no interval


def plain_bootstrap(columns: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The definition: all counts at once."""
    n = len(columns)
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) @ columns


@pytest.mark.parametrize("held", [1, 7, 64, 10_000])
def test_bootstrap_in_chunks_is_that_at_once(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    columns = np.random.default_rng(1).standard_normal((7, 3))
    monkeypatch.setattr(bootstrap, "COUNTS", held)
    found = bootstrap.bootstrap_sums(columns, 50, seed=3)
    np.testing.assert_allclose(found, plain_bootstrap(columns, 50, 3), rtol=1e-12, atol=1e-12)


def test_intervals_of_a_seed_stay_what_they_are() -> None:
    rng = np.random.default_rng(0)
    margins, group, weight = rng.standard_normal(60), np.arange(60) // 3, rng.uniform(0.5, 2, 60)
    lengths = rng.integers(-5, 6, 60)
    found = evaluate_margins(margins, group, weight=weight, lengths=lengths, n_boot=200, seed=5).metrics
    right, sides = margins > 0, (lengths > 0, lengths < 0)
    columns = [weight * right, weight] + [weight * right * side for side in sides] + [weight * side for side in sides]
    drawn = plain_bootstrap(np.column_stack([np.bincount(group, column) for column in columns]), 200, 5)
    expected = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    accuracy = found["rewards/accuracies"]
    assert (accuracy.low, accuracy.high) == pytest.approx(tuple(expected), rel=1e-12)
    controlled = np.quantile((drawn[:, 2] / drawn[:, 4] + drawn[:, 3] / drawn[:, 5]) / 2, [0.025, 0.975])
    metric = found["length_controlled_accuracy"]
    assert (metric.low, metric.high) == pytest.approx(tuple(controlled), rel=1e-12)


def test_bootstrap_of_many_groups_needs_little_memory() -> None:
    """200 draws of 20 000 groups are 32 MB of counts, of which 8 are held at once, and 8 MB of floats."""
    values = np.ones((20_000, 2))
    tracemalloc.start()
    try:
        found = bootstrap.bootstrap_sums(values, 200, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found == 20_000).all()
    assert peak < 3 * 8 * bootstrap.COUNTS < 200 * 20_000 * 8


def test_pairs_without_a_group_are_groups_by_themselves() -> None:
    for group in ([np.nan] * 4, [None] * 4, np.full(4, np.nan), ["a", None, float("nan"), "b"]):
        assert evaluate_margins([1.0, 2.0, -1.0, 3.0], group, n_boot=10).n_groups == 4
    assert evaluate_margins([1.0, 2.0, -1.0, 3.0], ["a", "b", "a", None], n_boot=10).n_groups == 3


def test_subsets() -> None:
    names = ["chat", "chat", "code", "code", "code", "code"]
    found = evaluate_margins([1, 1, -1, -1, -1, 1], np.arange(6), subset=names, n_boot=50)
    values = {name: metric.value for name, metric in found.subsets.items()}
    assert values == {"chat": 1.0, "code": 0.25, "mean of subsets": 0.625}
    assert found.values()["accuracy/code"] == 0.25 and "accuracy, code" in found.summary() == str(found)


def test_abstention_keeps_the_sure() -> None:
    margins = np.array([0.1, -0.2, 3.0, 4.0])
    rows = abstention_curve(margins, (1.0, 0.5))
    assert [row["accuracy"] for row in rows] == [0.75, 1.0]
    assert [row["coverage"] for row in rows] == [1.0, 0.5] and rows[1]["margin"] == 3.0


def test_bad_input(head: ConvexRewardHead) -> None:
    with pytest.raises(ValueError, match="lengths must have one entry per pair, 2, got 1"):
        evaluate_margins([1.0, 2.0], [0, 1], lengths=[1.0])
    with pytest.raises(ValueError, match="finite"):
        evaluate_margins([np.nan], [0])
    for options, words in (
        ({"n_boot": -1}, "n_boot must be a whole number from 0"),
        ({"seed": -1}, "seed must be"),
        ({"level": 1.0}, "level must be"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"weight": [1.0, -1.0]}, "weight must be"),
        ({"rewards": [[1.0, 0.0]]}, "rewards must have one entry per pair"),
        ({"rewards": [1.0, 0.0]}, r"rewards must be finite real numbers of shape \(2, 2\), got shape \(2,\)"),
        ({"rewards": [[1.0, 0.0], [1.0, np.nan]]}, r"rewards must be finite .* got nan at \(1, 1\)"),
        ({"lengths": [1.0, np.inf]}, "lengths must be finite real numbers .* got inf at 1"),
        ({"lengths": ["1", "2"]}, "lengths must be finite real numbers"),
        ({"weight": [1.0 + 1j, 1.0]}, "weight must be finite real numbers .* of type complex128"),
        ({"subset": ["a"]}, "subset must have one entry per pair"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate_margins([1.0, 2.0], [0, 1], **options)
    marked = as_pair_features(np.eye(5, dtype=np.float32), [[0, 1]], settings={"fingerprint": "a"})
    with pytest.raises(InputError, match="wrong features"):
        own = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(marked)
        evaluate(own, as_pair_features(np.eye(5), [[0, 1]], settings={"fingerprint": "b"}))


def test_report(head: ConvexRewardHead, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from cvxrelu_llm.evaluation.page import write_report
    from cvxrelu_llm.features.sweep import LayerScore, Sweep

    found = evaluate(head, preferences(m=60, seed=3), n_boot=50)
    table = [LayerScore(k, "mean", 0.6, 0.02, 0.7 - 0.01 * k, 1.0) for k in (1, 2, 3)]
    text = {"prompt": "<b>Why?</b>", "guided": "Because & so", "plain": "So"}
    path = write_report(
        tmp_path / "r.html", head, found, title="A & B", samples=[text], sweep=Sweep(3, "mean", table, 99, {}),
        comparison=[{"model": "linear", "accuracy": 0.61}],
    )  # fmt: skip
    page = path.read_text()
    assert page.count("<svg") == 4 and "&lt;b&gt;Why?&lt;/b&gt;" in page and "<b>Why" not in page
    for words in ("A &amp; B", "rewards/accuracies", "Because &amp; so", "99 training pairs", "0.61", "is proven"):
        assert words in page
    assert "<script" not in page and "://" not in page.replace("http://www.w3.org", "")
    assert "default-src 'none'" in page and page.index("Held-out pairs") < page.index("Fit and certificate")
    assert "prefers-color-scheme: dark" in page and "$" not in page and "margins" in page and "<circle" in page


def test_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    log_metrics({"a": 1}, lambda metrics, step: seen.append((metrics, step)), step=3)
    module: Any = types.ModuleType("wandb")
    module.run, module.init = None, lambda **options: seen.append(options)
    module.log = lambda metrics, step: seen.append((metrics, step))
    monkeypatch.setitem(sys.modules, "wandb", module)
    log_metrics({"b": 2.0}, "wandb", step=4, project="p")
    assert seen == [({"a": 1.0}, 3), {"project": "p"}, ({"b": 2.0}, 4)]
    with pytest.raises(ValueError, match="wandb, tensorboard, trackio"):
        log_metrics({}, "mlflow")
    module = types.ModuleType("trackio")  # like wandb's, but a project has to be named, and a run be open
    module.context_vars = types.SimpleNamespace(current_run=contextvars.ContextVar("run", default=None))
    module.init = lambda project: module.context_vars.current_run.set(project)
    module.log = lambda metrics, step: seen.append((module.context_vars.current_run.get(), metrics, step))
    monkeypatch.setitem(sys.modules, "trackio", module)
    log_metrics({"c": 3.0}, "trackio", step=1)
    log_metrics({"c": 4.0}, "trackio", step=2)
    log_metrics({"c": 5.0}, "trackio", project="own")
    assert seen[-3:] == [("cvxrelu", {"c": 3.0}, 1), ("cvxrelu", {"c": 4.0}, 2), ("own", {"c": 5.0}, 0)]

    class Writer(contextlib.AbstractContextManager):
        def __init__(self, **options: Any) -> None:
            seen.append(options)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def __exit__(self, *_: object) -> None:
            seen.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log_metrics({"d": 6.0}, "tensorboard", step=5, log_dir="runs")
    assert seen[-3:] == [{"log_dir": "runs"}, ("d", 6.0, 5), "closed"]
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ImportError, match="pip install trackio"):
        log_metrics({}, "trackio")
