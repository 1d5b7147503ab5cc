"""The scikit-learn estimators: its own checks, prediction from raw features, accuracy on real data, weights, beta."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data, parametrize_with_checks

import cvxrelu
from cvxrelu import ConvexReLUClassifier, ConvexReLURegressor

APPROXIMATE = {
    f"check_sample_weight_equivalence_on_{kind}_data": "asks for 1e-7 of solves that are certified to tol"
    for kind in ("dense", "sparse")
}


@parametrize_with_checks(
    [ConvexReLURegressor(tol=3e-2), ConvexReLUClassifier(tol=3e-2)], expected_failed_checks=lambda _: APPROXIMATE
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [ConvexReLUClassifier(loss="logistic", tol=3e-2)], expected_failed_checks=lambda _: APPROXIMATE
)
def test_scikit_learns_own_checks_of_the_logistic_loss(estimator, check):
    check(estimator)


def test_weights_are_repetitions_to_the_digit_when_solved_to_the_digit():
    precise = ConvexReLURegressor(refine=False, patterns=16, tol=1e-10)
    check_sample_weight_equivalence_on_dense_data("ConvexReLURegressor", precise)


RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 3)) * [1.0, 100.0, 0.01] + [5.0, -300.0, 0.0]
Z = (X - X.mean(axis=0)) / X.std(axis=0)
Y = 7.0 + 20.0 * np.maximum(Z @ [1.0, -1.0, 0.5], 0) + RNG.standard_normal(80)
LABELS = np.array(["low", "middle", "high"])[np.digitize(Z @ [1.0, 1.0, 0.0], [-0.5, 0.5])]
SAMPLED = {"refine": False, "patterns": 12}


def test_regression_on_diabetes():
    train, test, y, y_test = train_test_split(*load_diabetes(return_X_y=True), random_state=1)
    model = ConvexReLURegressor(beta=0.1).fit(train, y)
    assert model.score(test, y_test) > 0.4
    assert model.score(train, y) > 0.5
    assert model.solution_.status == "optimal" and model.solution_.gap <= 1e-3
    assert model.n_iter_ == model.solution_.n_rounds >= 1


def test_classification_of_digits():
    train, test, y, y_test = train_test_split(*load_digits(return_X_y=True), train_size=700, random_state=0)
    model = ConvexReLUClassifier(beta=0.05, tol=3e-2).fit(train, y)
    assert model.score(test, y_test) > 0.95
    probabilities = model.predict_proba(test)
    assert probabilities.shape == (len(test), 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert probabilities.min() >= 0
    assert np.mean(model.classes_[probabilities.argmax(axis=1)] == model.predict(test)) > 0.99


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("outputs", [0, 1, 2])
def test_the_network_takes_raw_features(intercept, outputs, tmp_path):
    y = np.stack([Y, -3 * Y + X[:, 0]], axis=1)[:, :outputs] if outputs else Y
    model = ConvexReLURegressor(intercept=intercept).fit(X, y)
    assert model.predict(X).shape == y.shape
    np.testing.assert_allclose(model.network_.predict(X), model.predict(X), rtol=1e-9)
    model.network_.save(tmp_path / "network.safetensors")
    again = cvxrelu.ReLUNetwork.load(tmp_path / "network.safetensors")
    assert np.array_equal(again.predict(X), model.network_.predict(X))
    # the standardised problem's solution says the same in its own units
    center = X.mean(axis=0) if intercept else 0.0
    standardised = model.solution_.network.predict((X - center) / X.std(axis=0))
    np.testing.assert_allclose(standardised * y.std(axis=0) + y.mean(axis=0), model.predict(X), rtol=1e-6)
    assert model.solution_.status == "optimal"
    assert model.score(X, y) > (0.5 if intercept else 0.0)  # far from the origin there is little to be had without


def test_units_of_features_and_targets_do_not_matter():
    first = ConvexReLURegressor(**SAMPLED).fit(X, Y)
    second = ConvexReLURegressor(**SAMPLED).fit(X * [1e3, 1e-3, 1.0] + 4.0, 1e4 * Y - 5.0)
    np.testing.assert_allclose(
        second.predict(X * [1e3, 1e-3, 1.0] + 4.0), 1e4 * first.predict(X) - 5.0, rtol=1e-5, atol=1e-2
    )
    assert second.beta_ == pytest.approx(first.beta_, rel=1e-6)


@pytest.mark.parametrize("estimator", [ConvexReLURegressor, ConvexReLUClassifier])
def test_weights(estimator):
    y = Y if estimator is ConvexReLURegressor else LABELS
    weight = np.arange(80) % 3
    model = estimator().fit(X, y, sample_weight=weight)
    removed = estimator().fit(X[weight > 0], y[weight > 0], sample_weight=weight[weight > 0])
    assert np.array_equal(model.predict(X), removed.predict(X))
    repeated = estimator().fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert model.beta_ == pytest.approx(repeated.beta_, rel=1e-3)  # priced by ascents from other starts
    assert model.solution_.objective == pytest.approx(repeated.solution_.objective, rel=2e-3)
    uniform = estimator().fit(X, y, sample_weight=np.ones(80))
    assert np.array_equal(uniform.predict(X), estimator().fit(X, y).predict(X))
    with pytest.raises(ValueError, match=r"(?i)negative"):
        estimator().fit(X, y, sample_weight=-np.ones(80))


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["refined", "sampled"])
def test_beta_is_relative_to_beta_max(options):
    gone = ConvexReLURegressor(beta=1.001, **options).fit(X, Y)
    solution = gone.solution_
    assert not (solution.network.n_neurons if solution.sampled is None else solution.sampled.blocks.any())
    relative = ConvexReLURegressor(beta=0.1, **options).fit(X, Y)
    assert relative.beta_ == pytest.approx(0.1 / 1.001 * gone.beta_)
    absolute = ConvexReLURegressor(beta=relative.beta_, relative=False, **options).fit(X, Y)
    assert absolute.beta_ == relative.beta_ == absolute.solution_.settings["beta"]
    assert np.array_equal(absolute.predict(X), relative.predict(X))
    data = np.hstack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones((80, 1))])
    target = (Y - Y.mean()) / Y.std()
    patterns = cvxrelu.sample_patterns(data, 12) if options else None
    assert gone.beta_ == pytest.approx(1.001 * cvxrelu.beta_max(data, target, patterns=patterns), rel=1e-6)


def test_labels_and_probabilities():
    model = ConvexReLUClassifier().fit(X, LABELS)
    assert model.classes_.tolist() == ["high", "low", "middle"]
    assert model.decision_function(X).shape == (80, 3)
    assert model.score(X, LABELS) > 0.8
    two = ConvexReLUClassifier().fit(X, LABELS == "high")
    assert two.decision_function(X).shape == (80,)
    assert two.predict_proba(X).shape == (80, 2)
    assert np.array_equal(two.predict(X), two.decision_function(X) > 0)
    np.testing.assert_allclose(two.predict_proba(X).sum(axis=1), 1.0)
    with pytest.raises(ValueError, match="1 class"):
        ConvexReLUClassifier().fit(X, np.ones(80))


def test_constant_targets_and_columns():
    model = ConvexReLURegressor().fit(np.hstack([X, np.full((80, 1), 3.7)]), np.full(80, 2.5))
    np.testing.assert_allclose(model.predict(np.hstack([X, np.full((80, 1), 3.7)])), 2.5)
    shifted = ConvexReLURegressor().fit(np.hstack([X, np.full((80, 1), 3.7)]), Y)
    np.testing.assert_allclose(
        shifted.predict(np.hstack([X, np.full((80, 1), 3.7)])),
        shifted.network_.predict(np.hstack([X, np.full((80, 1), 3.7)])),
    )
    assert shifted.score(np.hstack([X, np.full((80, 1), 3.7)]), Y) > 0.5


def test_search_over_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), ConvexReLURegressor())
    search = GridSearchCV(pipeline, {"convexreluregressor__beta": [0.05, 0.9]}, cv=2).fit(X, Y)
    assert search.best_params_ == {"convexreluregressor__beta": 0.05}
    assert search.best_score_ > 0.5


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_options_reach_the_solver(capsys):
    model = ConvexReLURegressor(
        refine=False,
        patterns=7,
        tol=1e-12,
        max_iter=3,
        backend="numpy",
        dtype="float32",
        linear_solver="cg",
        verbose=True,
        random_state=9,
    ).fit(X, Y)
    assert model.n_iter_ == model.solution_.n_iter == 3
    settings = model.solution_.settings
    assert (settings["linear_solver"], settings["seed"]) == ("cg", 9)
    assert settings["patterns"] <= 7
    assert (model.solution_.dtype, model.solution_.backend) == ("float32", "numpy")
    assert "iter" in capsys.readouterr().out


def test_options_reach_the_refinement(capsys):
    plane = ConvexReLURegressor(certificate="exact", intercept=False, dtype="float64", random_state=9, verbose=True)
    solution = plane.fit(Z, Y).solution_
    assert (solution.certificate.kind, solution.dtype, solution.settings["seed"]) == ("exact", "float64", 9)
    assert solution.sampled is None and plane.n_iter_ == solution.n_rounds
    assert "neurons" in capsys.readouterr().out
    relaxed = ConvexReLURegressor(certificate="relaxed", time_limit=20.0).fit(X, Y).solution_.certificate
    assert (relaxed.kind, relaxed.rigorous) == ("relaxed", True)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"beta": "a"}, "beta"),
        ({"refine": 1}, "refine"),
        ({"certificate": "proof"}, "certificate"),
        ({"random_state": -1}, "seed"),
        ({"patterns": "x"}, "patterns"),
        ({"patterns": 2.0}, "patterns"),
        ({"relative": "no"}, "relative"),
        ({"verbose": "no"}, "verbose"),
    ],
)
def test_bad_options_are_named(options, name):
    X, y = np.eye(4), np.arange(4.0)
    with pytest.raises((TypeError, ValueError), match=name):
        cvxrelu.ConvexReLURegressor(**options).fit(X, y)


def test_scales_that_overflow_are_refused():
    with pytest.raises(ValueError, match="X has largest entry"):
        cvxrelu.ConvexReLURegressor().fit(np.eye(4) * 1e160, np.arange(4.0))


# -- logistic loss ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("skip", [{}, {"skip": "linear", "skip_l2": 1.0}], ids=["plain", "skip"])
def test_logistic_probabilities_are_those_of_the_decision_function(skip):
    from scipy.special import expit, softmax

    model = ConvexReLUClassifier(loss="logistic", tol=1e-2, **skip).fit(X, LABELS == "high")
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(probabilities[:, 1], expit(model.decision_function(X)), rtol=1e-12)
    assert np.array_equal(model.predict(X), model.decision_function(X) > 0)
    np.testing.assert_allclose(model.network_.predict(X), model.decision_function(X), rtol=1e-9)
    assert model.score(X, LABELS == "high") > 0.9

    many = ConvexReLUClassifier(loss="logistic", tol=1e-2, **skip).fit(X, LABELS)
    probabilities = many.predict_proba(X)
    np.testing.assert_allclose(probabilities, softmax(many.decision_function(X), axis=1), rtol=1e-12)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
    assert np.array_equal(many.predict(X), many.classes_[probabilities.argmax(axis=1)])
    assert many.solution_.settings["loss"] == "multinomial" and many.score(X, LABELS) > 0.85


def test_logistic_weights_and_refusals():
    weight = np.arange(80) % 3
    options = {"loss": "logistic", "tol": 1e-3}
    model = ConvexReLUClassifier(**options).fit(X, LABELS == "high", sample_weight=weight)
    repeated = ConvexReLUClassifier(**options).fit(np.repeat(X, weight, axis=0), np.repeat(LABELS == "high", weight))
    assert model.solution_.objective == pytest.approx(repeated.solution_.objective, rel=5e-3)
    with pytest.raises(ValueError, match="loss must be 'squared' or 'logistic', got 'hinge'"):
        ConvexReLUClassifier(loss="hinge").fit(X, LABELS)
    with pytest.raises(ValueError, match="skip_l2 must be positive"):
        ConvexReLUClassifier(loss="logistic", skip="bias").fit(X, LABELS)


class Table:
    """What an estimator sees of a data frame, without pandas."""

    def __init__(self, **columns):
        self.columns, self.dtypes, self.named = list(columns), None, columns
        self.shape = (30, len(columns))

    def __getitem__(self, name):
        return self.named[name]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (Table(a=np.arange(30.0), city=np.array(["x", "y", "z"] * 10, dtype=object)), "'x' in column 'city'"),
        (Table(a=np.arange(30.0), city=np.array(["x"] * 30)), "'x') in column 'city'"),
        (Table(day=np.full(30, np.datetime64("2020-01-01"))), "in column 'day'"),
        (np.array([[1.0, "x"]] * 30, dtype=object), "'x' in column 1"),
        (np.array([["1", "x"]] * 30), "'x') in column 1"),
        ([[1.0, "x"]] * 30, "'x' in column 1"),
    ],
)
def test_text_is_named_with_its_column(table, words):
    for model, y in ((ConvexReLURegressor(), np.arange(30.0)), (ConvexReLUClassifier(), np.arange(30) % 2)):
        with pytest.raises(ValueError, match="expected numbers: encode it") as caught:
            model.fit(table, y)
        assert words in str(caught.value)


def test_numbers_among_objects_are_taken():
    X = np.array([[1.0, "2", None]] * 30, dtype=object)
    X[:, 2] = np.arange(30)
    assert ConvexReLURegressor(beta=0.5).fit(X, np.arange(30.0)).n_features_in_ == 3
    model = ConvexReLURegressor(beta=0.5).fit(np.arange(30.0)[:, None], np.arange(30.0))
    with pytest.raises(ValueError, match="expected numbers"):
        model.predict(np.array([["x"]] * 3, dtype=object))
    with pytest.raises(ValueError, match="2 features"):
        model.predict(np.array([[1.0, 2.0]] * 3))
