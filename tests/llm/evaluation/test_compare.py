"""Comparisons of heads against SciPy and brute force, and the scores of RewardBench by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.stats

from cvxrelu.support.errors import InputError
from cvxrelu_llm.evaluation.benches import SECTIONS, best_of_k, reward_bench_sections, ties_score
from cvxrelu_llm.evaluation.compare import compare_heads
from cvxrelu_llm.evaluation.metrics import evaluate_margins
from cvxrelu_llm.heads.head import ConvexRewardHead, as_pair_features


def features_of(m: int, group: Any = None, **settings: Any) -> Any:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2 * m, 3))
    return as_pair_features(X, np.arange(2 * m).reshape(-1, 2), group=group, settings=settings or None)


def test_without_groups_it_is_the_paired_t_test() -> None:
    rng, m = np.random.default_rng(1), 60
    a, b = rng.standard_normal((2, m))
    found = compare_heads(a, b, features_of(m))
    losses = np.logaddexp(0, -a), np.logaddexp(0, -b)
    right = scipy.stats.ttest_rel(*losses)
    assert found.log_loss.p == pytest.approx(right.pvalue) and found.log_loss.value == pytest.approx(
        np.mean(losses[0] - losses[1])
    )
    interval = right.confidence_interval(0.95)
    np.testing.assert_allclose([found.log_loss.low, found.log_loss.high], interval)
    wins = 0.5 * (np.sign(a) - np.sign(b))
    assert found.accuracy.value == pytest.approx(wins.mean()) and "p " in found.summary() == str(found)
    turned = compare_heads(b, a, features_of(m))
    assert turned.log_loss.value == pytest.approx(-found.log_loss.value) and turned.log_loss.p == pytest.approx(
        found.log_loss.p
    )


def test_groups_are_what_is_independent() -> None:
    """Every pair twice, in one group, changes neither value nor p."""
    rng, m = np.random.default_rng(2), 30
    a, b = rng.standard_normal((2, m))
    once = compare_heads(a, b, features_of(m)).log_loss
    twice = compare_heads(np.repeat(a, 2), np.repeat(b, 2), features_of(2 * m, np.repeat(np.arange(m), 2))).log_loss
    assert (twice.value, twice.p, twice.n_groups) == (pytest.approx(once.value), pytest.approx(once.p), m)


def test_subsets_are_corrected() -> None:
    rng, m = np.random.default_rng(3), 90
    a, b = rng.standard_normal((2, m)) + np.array([[0.6], [0.0]])
    names = np.repeat(["x", "y", "z"], 30)
    found = compare_heads(a, b, features_of(m), subset=names.tolist())
    plain = [
        scipy.stats.ttest_rel(np.logaddexp(0, -a[names == n]), np.logaddexp(0, -b[names == n])).pvalue for n in "xyz"
    ]
    holm = scipy.stats.false_discovery_control  # another correction: at most Holm's
    order, largest, right = np.argsort(plain), 0.0, {}
    for i, j in enumerate(order):
        largest = max(largest, min(1.0, (3 - i) * plain[j]))
        right["xyz"[j]] = largest
    assert {n: d.p for n, d in found.subsets.items()} == pytest.approx(right)
    assert all(found.subsets["xyz"[i]].p >= p - 1e-12 for i, p in enumerate(holm(plain)))


def test_heads_on_features_of_their_own() -> None:
    one, two = features_of(40, layer=1), features_of(40, layer=2)
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(one)
    other = ConvexRewardHead(beta=np.inf, skip_l2=50.0).fit(two)
    found = compare_heads(head, other, one, two)
    a, b = (h.margins(f.X, f.pairs) / h.temperature for h, f in ((head, one), (other, two)))
    assert found.log_loss.value == pytest.approx(np.mean(np.logaddexp(0, -a) - np.logaddexp(0, -b)))
    assert compare_heads(head, head, one).log_loss.p == 1.0
    with pytest.raises(InputError, match="layer is 1"):
        compare_heads(head, other, one)
    with pytest.raises(InputError, match="their weight differ"):
        compare_heads(
            head, other, one, as_pair_features(two.X, two.pairs, weight=np.full(40, 2.0), settings={"layer": 2})
        )
    with pytest.raises(InputError, match="second must be a head, or 40 finite margins"):
        compare_heads(head, np.zeros(3), one)
    with pytest.raises(InputError, match="subset must have one entry per pair"):
        compare_heads(head, head, one, subset=["a"])
    alone = compare_heads(np.ones(4), np.zeros(4), features_of(4, [0] * 4))
    assert np.isnan(alone.log_loss.p) and alone.log_loss.value < 0


# -- where several answers compete ------------------------------------------------------------------------------------
def test_best_of_k() -> None:
    question = ["a", "a", "a", "b", "b", "c", "d", "d"]
    margins = np.array([1.0, 2.0, 0.5, 1.0, -0.1, 0.3, 0.0, 2.0])
    assert best_of_k(margins, question) == {"a": 1.0, "b": 0.0, "c": 1.0, "d": 0.5}
    found = evaluate_margins(margins, question, weight=[1 / 3] * 3 + [0.5] * 2 + [1.0] + [0.5] * 2, question=question)
    assert found.metrics["best_of_k_accuracy"].value == pytest.approx(2.5 / 4)
    low, high = found.metrics["best_of_k_accuracy"].low, found.metrics["best_of_k_accuracy"].high
    assert 0 <= low < 0.625 < high <= 1
    alone = evaluate_margins(margins, range(8), question=[str(i) for i in range(8)])
    assert "best_of_k_accuracy" not in alone.metrics  # that is the accuracy
    by_name = evaluate_margins(margins, question, question=question, subset=["x"] * 5 + ["y"] * 3).subsets
    assert (by_name["best of k, x"].value, by_name["best of k, y"].value) == (0.5, 0.75)


def test_sections_of_reward_bench() -> None:
    rng = np.random.default_rng(0)
    names = [name for subsets in SECTIONS.values() for name in subsets]
    accuracy = dict(zip(names, rng.random(len(names)), strict=True))
    found = reward_bench_sections(accuracy)
    chat = {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    }
    assert found["Chat"] == pytest.approx(sum(accuracy[n] * c for n, c in chat.items()) / 358)
    assert found["mean of sections"] == pytest.approx(np.mean([found[s] for s in SECTIONS]))
    assert reward_bench_sections({**accuracy, "mine": 1.0}) == {} == reward_bench_sections({})
    assert "mean of sections" not in reward_bench_sections({"math-prm": 0.5})
    subset = [name for name in names for _ in range(4)]
    margins = rng.standard_normal(len(subset))
    evaluated = evaluate_margins(margins, range(len(subset)), subset=subset, n_boot=50)
    right = reward_bench_sections(
        {n: float(np.mean([m > 0 for m, s in zip(margins, subset, strict=True) if s == n])) for n in names}
    )
    for section, value in right.items():
        assert evaluated.subsets[f"RewardBench {section}"].value == pytest.approx(value)


def test_ties_of_reward_bench_two_by_hand() -> None:
    rewards = {  # correct, wrong
        "tied:1": ([3.0, 2.5], [1.0, 0.0]),  # accurate by 1.5, apart by 0.5
        "ref:1": ([2.0], [1.8]),  # accurate by 0.2
        "tied:2": ([4.0, 1.0], [2.0]),  # not accurate
        "ref:2": ([1.0], [0.0]),
    }
    rows, names = [], []
    for name, (right, wrong) in rewards.items():
        for a, b in itertools.product(right, wrong):
            rows.append((a, b))
            names.append(name)
    margin = np.mean([np.tanh(0.2 / 0.5 - 1), np.tanh(-1.0 / 3.0 - 1)])
    right = 0.3 * 0.5 + 0.3 * 1.0 + 0.2 * 0.5 + 0.2 * 0.0 + 0.01 * margin
    assert ties_score(np.array(rows), names) == pytest.approx(right)
    assert ties_score(np.array([[1.0, 0.0]]), ["ref:9"]) == pytest.approx(0.3)
