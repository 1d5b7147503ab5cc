"""What guidance costs: the bounds against exact divergences, the budget against what is really spent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr, softmax

from cvxrelu_llm.generation.kl import Budget, best_of_n_bound, divergence, largest_scale, min_max, tilt, tilting_bound

SIZE = st.integers(2, 8)
SCALES = st.floats(0, 30)


def laws(k: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, k, elements=st.floats(-20, 5)).map(softmax)


def scores(k: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, k, elements=st.floats(0, 1))


STEP = SIZE.flatmap(lambda k: st.tuples(laws(k), scores(k)))


def exact(q: np.ndarray, p: np.ndarray) -> float:
    return float(rel_entr(q, p).sum())


@given(STEP, SCALES)
def test_a_tilted_law_is_the_gibbs_law_and_costs_at_most_its_bound(step: tuple, scale: float) -> None:
    p, s = step
    q = tilt(p, s, scale)
    assert np.allclose(q, softmax(np.log(p) + scale * s), rtol=1e-9, atol=1e-300)
    assert exact(q, p) <= tilting_bound(scale) + 1e-12
    assert divergence(q, p) == pytest.approx(exact(q, p), rel=1e-9, abs=1e-12)


def test_the_bound_is_nearly_attained() -> None:
    """By a fair coin at small scales: KL / scale^2 -> Var / 2 = 1/8."""
    p, s = np.array([0.5, 0.5]), np.array([0.0, 1.0])
    assert exact(tilt(p, s, 0.01), p) / tilting_bound(0.01) == pytest.approx(1.0, abs=1e-4)


@given(st.integers(3, 8).flatmap(lambda k: st.tuples(laws(k), scores(k), st.integers(1, k - 1))), SCALES)
def test_restriction_costs_the_log_of_the_kept_mass_more(step: tuple, scale: float) -> None:
    p, s, kept = step
    q = np.zeros_like(p)
    restricted = p[:kept] / p[:kept].sum()
    q[:kept] = tilt(restricted, s[:kept], scale)
    truncation = -math.log(p[:kept].sum())
    assert exact(q, p) == pytest.approx(divergence(q[:kept], restricted) + truncation, rel=1e-6, abs=1e-9)
    assert exact(q, p) <= tilting_bound(scale) + truncation + 1e-9


def test_a_law_with_mass_where_the_other_has_none_is_infinitely_far() -> None:
    assert divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == math.inf
    assert divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(math.log(2))


@pytest.mark.parametrize("schedule", ["bound", "exact"])
@pytest.mark.parametrize("normalise", [True, False])
@given(data=st.data())
def test_a_budget_is_never_exceeded(schedule: str, normalise: bool, data: st.DataObject) -> None:
    steps = data.draw(st.lists(STEP, min_size=1, max_size=12))
    total, scale = data.draw(st.floats(1e-4, 5)), data.draw(st.floats(0.01, 1e3))
    budget = Budget(scale, len(steps), total, schedule)
    truth = 0.0
    for p, s in steps:
        s = min_max(s) if normalise else 7.0 * s - 3.0
        used = budget.next_scale(p, s)
        assert 0.0 <= used <= scale
        truth += exact(tilt(p, s, used), p)
        assert truth <= budget.spent + 1e-9
    assert budget.spent <= total
    assert truth <= total + 1e-9


def test_a_budget_that_binds_is_spent() -> None:
    p, s = np.array([0.5, 0.3, 0.2]), np.array([0.0, 0.4, 1.0])
    for schedule in ("bound", "exact"):
        budget = Budget(100.0, 10, 0.6, schedule)
        used = [budget.next_scale(p, s) for _ in range(10)]
        assert budget.spent == pytest.approx(0.6, rel=1e-6)
        assert np.ptp(used) <= 1e-4 * used[0]
    flat = Budget(100.0, 10, 0.6)
    assert flat.next_scale(p, np.zeros(3)) == 0.0 == flat.spent
    assert flat.next_scale(p, s) == pytest.approx(math.sqrt(8 * 0.6 / 9)), "an idle step leaves its share to the others"


def test_without_a_total_the_scale_is_constant_and_its_bound_adds_up() -> None:
    p, s = np.array([0.9, 0.1]), np.array([0.0, 1.0])
    budget = Budget(2.0, 3)
    assert [budget.next_scale(p, s) for _ in range(3)] == [2.0, 2.0, 2.0]
    assert budget.spent == pytest.approx(1.5)


@given(STEP, st.floats(1e-6, 1), st.floats(0.1, 50))
def test_the_exact_schedule_tilts_at_least_as_much(step: tuple, allowance: float, limit: float) -> None:
    p, s = step
    scale, cost = largest_scale(p, s, allowance, limit)
    assert cost <= allowance and cost == pytest.approx(exact(tilt(p, s, scale), p), rel=1e-6, abs=1e-9)
    if np.ptp(s) > 0:
        assert scale >= min(limit, math.sqrt(8 * allowance)) * (1 - 1e-9)


@given(arrays(np.float64, SIZE, elements=st.floats(-1e308, 1e308)))
def test_scores_are_scaled_into_the_unit_interval_in_order(s: np.ndarray) -> None:
    scaled = min_max(s)
    assert scaled.min() == 0.0
    assert scaled.max() == (1.0 if 0.5 * s.max() > 0.5 * s.min() else 0.0)
    assert (np.diff(scaled[np.argsort(s, kind="stable")]) >= 0).all()


@given(st.integers(2, 30).flatmap(laws), st.integers(1, 40))
def test_best_of_n_costs_at_most_its_bound(p: np.ndarray, n: int) -> None:
    """The law of the best of n, outcomes in the order of their scores: `F_i^n - F_(i-1)^n`."""
    cumulative = np.append(0.0, np.cumsum(p / p.sum()))
    cumulative[-1] = 1.0
    q, p = np.diff(cumulative**n), np.diff(cumulative)
    assert float(rel_entr(q[p > 0], p[p > 0]).sum()) <= best_of_n_bound(n) + 1e-9


@pytest.mark.parametrize("n", [1, 2, 16])
def test_best_of_n_bound_is_attained_by_a_fine_law(n: int) -> None:
    p = np.full(20_000, 1 / 20_000)
    q = np.diff(np.linspace(0, 1, 20_001) ** n)
    assert exact(q, p) == pytest.approx(best_of_n_bound(n), abs=1e-3)


def test_best_of_no_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        best_of_n_bound(0)
