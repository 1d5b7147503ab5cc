"""What users of scikit-learn expect: class weights, log-probabilities, sparse rows, warnings, seeds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("sklearn")

from sklearn.exceptions import ConvergenceWarning

from cvxrelu import ConvexReLUClassifier, ConvexReLUClassifierCV, ConvexReLURegressor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 3)) * (RNG.random((80, 3)) < 0.7)
LABELS = np.where(X[:, 0] + 0.7 * RNG.standard_normal(80) > 0.9, "rare", "common")


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_class_weights_are_sample_weights(loss):
    count = {label: np.sum(label == LABELS) for label in ("rare", "common")}
    factor = np.array([80 / (2 * count[label]) for label in LABELS])
    given = RNG.uniform(0.5, 2, 80)
    balanced = ConvexReLUClassifier(loss=loss, class_weight="balanced").fit(X, LABELS, given)
    weighed = ConvexReLUClassifier(loss=loss).fit(X, LABELS, factor * given)
    np.testing.assert_allclose(balanced.decision_function(X), weighed.decision_function(X), rtol=1e-10)
    named = ConvexReLUClassifier(loss=loss, class_weight={"rare": 3.0, "common": 1.0}).fit(X, LABELS)
    weighed = ConvexReLUClassifier(loss=loss).fit(X, LABELS, np.where(LABELS == "rare", 3.0, 1.0))
    np.testing.assert_allclose(named.decision_function(X), weighed.decision_function(X), rtol=1e-10)
    plain = ConvexReLUClassifier(loss=loss).fit(X, LABELS)
    assert np.sum(balanced.predict(X) == "rare") > np.sum(plain.predict(X) == "rare")


def test_class_weights_reach_the_search_for_beta():
    options = {"betas": 3, "cv": 2, "smallest": 0.1}
    found = ConvexReLUClassifierCV(**options, class_weight="balanced").fit(X, LABELS)
    plain = ConvexReLUClassifierCV(**options).fit(X, LABELS)
    assert found.betas_[0] != pytest.approx(plain.betas_[0])


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_log_probabilities(loss):
    model = ConvexReLUClassifier(loss=loss).fit(X, LABELS)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X), rtol=1e-12)


def test_sparse_rows_are_made_dense():
    y = X[:, 0] - np.abs(X[:, 1])
    sparse = scipy.sparse.csr_array(X)
    model, dense = ConvexReLURegressor().fit(sparse, y), ConvexReLURegressor().fit(X, y)
    np.testing.assert_array_equal(model.predict(sparse), dense.predict(X))


def test_what_did_not_converge_is_said():
    y = RNG.standard_normal(80)
    with pytest.warns(ConvergenceWarning, match="time_limit: .* the network is kept"):
        model = ConvexReLURegressor(beta=1e-4, tol=1e-9, time_limit=0.05).fit(X, y)
    assert model.predict(X).shape == (80,)
    ConvexReLURegressor(certificate="relaxed").fit(X, y)  # unproven, which is no failure of the search


def test_seeds():
    y = RNG.standard_normal(80)
    state = np.random.RandomState(3)
    one, two = (ConvexReLURegressor(beta=0.01, random_state=np.random.RandomState(3)).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    assert ConvexReLURegressor(random_state=state).fit(X, y).get_params()["random_state"] is state
