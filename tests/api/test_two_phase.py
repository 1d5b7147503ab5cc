"""The recipe in two phases is its two parts, and refuses what either would."""

from __future__ import annotations

import numpy as np
import pytest

import cvxrelu


def preferences(seed=0, n=120, d=4):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    score = np.maximum(X[:, 0], 0) - X[:, 1]
    pairs = rng.permutation(n).reshape(-1, 2)
    return X, np.where((score[pairs[:, 0]] > score[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])


@pytest.mark.parametrize("intercept", [False, True])
def test_pairs_by_hand(intercept):
    X, pairs = preferences()
    weight = np.linspace(0.5, 1.5, len(pairs))
    found = cvxrelu.two_phase(
        X, pairs=pairs, beta=1.0, l2=0.3, scale=2.0, margin=0.4, sample_weight=weight, intercept=intercept, patterns=20
    )
    rows = np.concatenate([X[pairs[:, 0]], X[pairs[:, 1]]])
    classifier = cvxrelu.solve(
        rows, np.repeat([1.0, -1.0], len(pairs)), beta=1.0, sample_weight=np.tile(weight, 2), intercept=intercept,
        patterns=20, refine=False, certificate="relaxed",
    )  # fmt: skip
    assert found.classifier.objective == pytest.approx(classifier.objective, rel=1e-12)
    network = classifier.network
    phi = np.maximum(X @ network.first_layer + (network.hidden_bias if intercept else 0.0), 0)
    last = cvxrelu.solve_logistic(
        phi[pairs[:, 0]] - phi[pairs[:, 1]], l2=0.3, scale=2.0, margin=0.4, sample_weight=weight
    )
    assert found.last_layer.objective == pytest.approx(last.objective, rel=1e-10) and found.last_layer.gap <= 1e-8
    np.testing.assert_allclose(found.network.predict(X), phi @ last.theta, rtol=1e-6, atol=1e-9)


def test_labels():
    X, _ = preferences()
    y = np.sign(X[:, 0] - 0.2)
    found = cvxrelu.two_phase(X, y, beta=1.0, l2=0.1, refine=True)
    assert np.mean(np.sign(found.network.predict(X)) == y) > 0.9
    assert found.classifier.sampled is None and found.classifier.certificate.kind == "priced"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": None}, "give either y"),
        ({"y": np.ones(120)}, "give either y"),
        ({"l2": 0.0}, "l2"),
        ({"scale": -1.0}, "scale"),
        ({"beta": 1e9}, "leaves no neuron"),
        ({"pairs": [[0, 500]]}, "pairs must hold rows"),
        ({"pairs": None, "y": np.zeros(120)}, "y must have shape"),
    ],
)
def test_bad_input(change, message):
    X, pairs = preferences()
    with pytest.raises(ValueError, match=message):
        cvxrelu.two_phase(X, **{"pairs": pairs, "beta": 1.0, "l2": 0.1, "patterns": 8, **change})
