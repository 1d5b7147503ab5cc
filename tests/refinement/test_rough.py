"""refine="rough": near the optimum, quicker, and never more sure of itself than its bound allows."""

from __future__ import annotations

import numpy as np
import pytest

import cvxrelu
from cvxrelu import Status
from cvxrelu.certificates.pricing import Pricing


def planted(seed, n=150, d=5):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, np.maximum(X @ rng.standard_normal((d, 4)), 0.0) @ rng.standard_normal(4) + 0.2 * rng.standard_normal(n)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("skip", [False, "linear"])
def test_is_close_and_says_what_it_is(loss, skip):
    X, y = planted(0)
    y = y if loss == "squared" else np.where(y > np.median(y), 1.0, -1.0)
    options = {"loss": loss, "skip": skip, "skip_l2": 0.1 if skip else 0.0, "backend": "numpy"}
    beta = 0.05 * cvxrelu.beta_max(X, y, **{name: options[name] for name in ("loss", "skip", "skip_l2")})
    best = cvxrelu.solve(X, y, beta=beta, **options)
    rough = cvxrelu.solve(X, y, beta=beta, refine="rough", tol=1e-2, **options)
    assert best.lower_bound <= rough.objective <= 1.05 * best.objective
    assert rough.certificate.kind == "relaxed" and rough.certificate.rigorous
    assert rough.lower_bound <= best.objective * (1 + 1e-9)
    assert rough.status is Status.STALLED and "without a search for a bound" in rough.message
    assert rough.n_rounds <= best.n_rounds
    again = cvxrelu.solve(X, y, beta=beta, refine="rough", tol=1e-2, **options)
    assert again.objective == rough.objective


def test_only_short_pricings_are_made(monkeypatch):
    X, y = planted(1)
    price, waves = Pricing.price, []

    def seen(self, *arguments, **options):
        waves.append(options["waves"])
        return price(self, *arguments, **options)

    monkeypatch.setattr(Pricing, "price", seen)
    cvxrelu.solve(X, y, beta=0.5, refine="rough", backend="numpy")
    assert set(waves) == {0}


def test_a_looser_tol_ends_sooner():
    X, y = planted(2)
    beta = 0.02 * cvxrelu.beta_max(X, y)
    rounds = [cvxrelu.solve(X, y, beta=beta, refine="rough", tol=tol, backend="numpy").n_rounds for tol in (0.3, 1e-4)]
    assert rounds[0] < rounds[1]


def test_above_beta_max_the_zero_network_is_proven():
    X, y = planted(3)
    sol = cvxrelu.solve(X, y, beta=20.0 * cvxrelu.beta_max(X, y), refine="rough", backend="numpy")
    assert sol.network.n_neurons == 0 and sol.status is Status.OPTIMAL and sol.certificate.rigorous


def test_other_words_are_refused():
    with pytest.raises(TypeError, match="refine must be True, False or 'rough', got 'quick'"):
        cvxrelu.solve(*planted(0), beta=1.0, refine="quick")


def test_a_warm_start_is_not_made_worse():
    X, y = planted(4)
    good = cvxrelu.solve(X, y, beta=0.5, backend="numpy")
    again = cvxrelu.solve(X, y, beta=0.5, refine="rough", warm_start=good, backend="numpy")
    assert again.objective <= good.objective * (1 + 1e-12)
