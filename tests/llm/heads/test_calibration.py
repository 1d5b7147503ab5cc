"""The temperature against SciPy, where every pair is right, and where there are many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from cvxrelu_llm.heads.calibration import calibrate, log_losses


def best_inverse(margins: np.ndarray, weight: np.ndarray, target: float) -> float:
    """1/T by golden section over its logarithm."""

    def loss(exponent: float) -> float:
        z = np.exp(exponent) * margins
        return float(weight @ (target * np.logaddexp(0, -z) + (1 - target) * np.logaddexp(0, z)))

    return float(np.exp(minimize_scalar(loss, bracket=(-2.0, 1.0), tol=1e-10).x))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), m=st.integers(2, 80), scale=st.floats(1e-3, 1e3), bias=st.floats(0.1, 5.0))
def test_the_temperature_is_the_minimiser(seed: int, m: int, scale: float, bias: float) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.random(m) + 0.01
    margins = bias + rng.standard_normal(m)
    margins += max(0.0, 0.05 - float(np.average(margins, weights=weight)))  # worth something
    effective = weight.sum() ** 2 / np.sum(weight**2)
    expected = best_inverse(margins, weight, (effective + 1) / (effective + 2))
    found = calibrate(scale * margins, weight)
    assert found.temperature == pytest.approx(scale / expected, rel=1e-5)
    assert found.log_loss == pytest.approx(np.average(log_losses(scale * margins / found.temperature), weights=weight))
    assert calibrate(scale * margins, 7.0 * weight).temperature == pytest.approx(found.temperature)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), m=st.integers(1, 200))
def test_where_every_pair_is_right(seed: int, m: int) -> None:
    """sigma(z / T) is (m + 1) / (m + 2) somewhere between the smallest margin and the largest."""
    margins = np.random.default_rng(seed).random(m) + 1e-3
    found = calibrate(margins).temperature
    slack = 1e-9
    assert margins.min() / np.log(m + 1) * (1 - slack) <= found <= margins.max() / np.log(m + 1) * (1 + slack)
    alike = calibrate(np.full(m, 3.0))
    assert alike.temperature == pytest.approx(3.0 / np.log(m + 1))
    assert log_losses(np.array([-3.0 / alike.temperature]))[0] == pytest.approx(np.log(m + 2))  # one later error


def test_many_pairs_give_maximum_likelihood() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal(60)
    margins = np.where(rng.random(60) < 1 / (1 + np.exp(-logits)), logits, -logits)
    likely = best_inverse(margins, np.ones(60), 1.0)
    away = [abs(1 / calibrate(np.tile(margins, k)).temperature / likely - 1) for k in (1, 10, 100, 1000)]
    assert away[0] > away[1] > away[2] > away[3] and away[3] < 1e-4 < 1e-3 < away[0]


def test_margins_without_worth() -> None:
    assert calibrate(np.array([-1.0, 0.5])).temperature == pytest.approx(1000 * np.sqrt(0.625))
    assert np.isfinite(calibrate(np.zeros(3)).temperature)
