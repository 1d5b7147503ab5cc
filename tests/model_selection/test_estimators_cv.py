"""Estimators that choose beta: scikit-learn's checks, scores against fits by hand, stopping, splitters, refusals."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from cvxrelu import ConvexReLUClassifier, ConvexReLUClassifierCV, ConvexReLURegressor, ConvexReLURegressorCV

QUICK = {"betas": 3, "smallest": 0.1, "cv": 2, "path_tol": 0.3, "tol": 3e-2}
APPROXIMATE = {
    f"check_sample_weight_equivalence_on_{kind}_data": "folds of repeated rows are other folds"
    for kind in ("dense", "sparse")
}


@parametrize_with_checks(
    [ConvexReLURegressorCV(**QUICK), ConvexReLUClassifierCV(**QUICK)], expected_failed_checks=lambda _: APPROXIMATE
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def regression(seed, n=120, noise=0.5):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)) * [1.0, 50.0, 0.1] + [3.0, 0.0, -1.0]
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    return X, 4.0 + 3.0 * np.maximum(Z @ [1.0, -1.0, 0.5], 0.0) + noise * rng.standard_normal(n)


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_those_of_fits_by_hand(weighted):
    """Each fold's network is that of the plain estimator on its training rows, at beta times their share of weight."""
    X, y = regression(0)
    weight = np.random.default_rng(1).choice([0.0, 1.0, 3.0], len(X)) if weighted else None
    folds = list(KFold(3).split(X))
    betas = [0.3, 0.05]
    model = ConvexReLURegressorCV(betas, cv=folds, path_tol=1e-4, tol=1e-4, patience=None)
    model.fit(X, y, sample_weight=weight)
    assert model.score_path_.shape == (2, 3) and np.all(np.diff(model.betas_) < 0)
    w = np.ones(len(X)) if weight is None else weight
    for i, beta in enumerate(model.betas_):
        for k, (train, test) in enumerate(folds):
            share = w[train].sum() / w.sum()
            fit = ConvexReLURegressor(beta * share, relative=False, tol=1e-4)
            fit.fit(X[train], y[train], sample_weight=None if weight is None else weight[train])
            error = np.average((fit.predict(X[test]) - y[test]) ** 2, weights=w[test])
            assert model.mse_path_[i, k] == pytest.approx(error, rel=0.05)
    best = int(np.argmin(model.mse_path_.mean(axis=1)))
    assert (model.best_index_, model.beta_) == (best, model.betas_[best])
    again = ConvexReLURegressor(model.beta_, relative=False, tol=1e-4).fit(X, y, sample_weight=weight)
    assert model.solution_.objective == pytest.approx(again.solution_.objective, rel=2e-4)


def test_betas_are_shares_of_beta_max_and_the_first_network_is_zero():
    X, y = regression(1)
    model = ConvexReLURegressorCV(4, smallest=0.01, cv=3, patience=None).fit(X, y)
    plain = ConvexReLURegressor(1.0).fit(X, y)
    np.testing.assert_allclose(model.betas_, plain.beta_ * np.geomspace(1.0, 0.01, 4))
    # no neurons: each fold predicts its training mean
    assert model.score_path_[0].mean() == pytest.approx(-np.var(y), rel=0.1)
    assert model.best_index_ > 0 and model.solution_.gap <= model.tol


def test_the_path_ends_where_scores_have_turned():
    """Pure noise: the zero network is the best, and `patience` more betas are tried."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), rng.standard_normal(60)
    for patience in (1, 3):
        model = ConvexReLURegressorCV(12, cv=4, patience=patience).fit(X, y)
        means = model.score_path_.mean(axis=1)
        assert len(means) == len(model.betas_) == 1 + model.best_index_ + patience < 12
    assert ConvexReLURegressorCV(5, smallest=0.1, cv=4, patience=None).fit(X, y).score_path_.shape == (5, 4)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_chosen_and_predicted(loss, classes):
    rng = np.random.default_rng(classes)
    X = rng.standard_normal((150, 2))
    codes = np.digitize(np.linalg.norm(X, axis=1), [1.1] if classes == 2 else [0.8, 1.5])
    y = np.array(["in", "mid", "out"])[codes]
    model = ConvexReLUClassifierCV(6, loss=loss, smallest=0.003, cv=3).fit(X, y)
    assert model.score(X, y) > 0.9 and model.best_index_ > 0
    assert model.predict_proba(X).shape == (150, classes)
    worst = ConvexReLUClassifier(1.0, loss=loss).fit(X, y).score(X, y)
    assert model.score(X, y) > worst + 0.2


def test_splitters_groups_scores_and_threads():
    X, y = regression(2)
    groups = np.arange(len(X)) // 10
    options = {"betas": 4, "smallest": 0.02, "cv": list(GroupKFold(3).split(X, y, groups))}
    one = ConvexReLURegressorCV(**options).fit(X, y)
    two = ConvexReLURegressorCV(**options, n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(one.score_path_, two.score_path_)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    named = ConvexReLURegressorCV(**options, scoring="r2").fit(X, y)
    assert named.best_score_ == named.score_path_.mean(axis=1).max() <= 1.0
    own = ConvexReLURegressorCV(**options, scoring=lambda model, A, b: -float(np.abs(model.predict(A) - b).mean()))
    assert own.fit(X, y).best_score_ < 0
    with pytest.raises(AttributeError, match="mse_path_"):
        _ = named.mse_path_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # or not: the machine decides
def test_a_time_limit_leaves_a_fit(capsys):
    X, y = regression(3, n=400)
    model = ConvexReLURegressorCV(12, cv=5, time_limit=0.3, patience=None, verbose=True).fit(X, y)
    assert 1 <= len(model.betas_) <= 12 and np.isfinite(model.predict(X)).all()
    assert capsys.readouterr().out.count("beta ") == len(model.betas_)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"betas": 0}, "betas must be a positive number"),
        ({"betas": "many"}, "betas must be an integer or an array"),
        ({"betas": [0.1, -1.0]}, "betas must hold at least one value, all positive"),
        ({"smallest": 1.5}, "smallest"),
        ({"cv": 1}, "cv must be at least 2 and at most n_samples = 120"),
        ({"patience": 0}, "patience must be None or a positive integer"),
        ({"path_tol": -1.0}, "path_tol"),
        ({"tol": 0.0}, "tol"),
        ({"scoring": "no such"}, "no such"),
        ({"scoring": lambda *_: np.nan}, "scoring must give finite numbers"),
    ],
)
def test_bad_options_are_named(options, words):
    X, y = regression(4)
    with pytest.raises((ValueError, TypeError), match=words):
        ConvexReLURegressorCV(**options).fit(X, y)


def test_a_fold_without_a_class_is_refused():
    X, y = np.random.default_rng(0).standard_normal((12, 2)), np.repeat([0, 1, 2], 4)
    with pytest.raises(ValueError, match="no training row of class '0'"):
        ConvexReLUClassifierCV(cv=[(np.arange(4, 12), np.arange(4))]).fit(X, y)
    with pytest.raises(ValueError, match="sample_weight"):
        weight = np.repeat([0.0, 1.0, 1.0], 4)
        ConvexReLURegressorCV(cv=[(np.arange(4), np.arange(4, 12))]).fit(X, y, sample_weight=weight)
