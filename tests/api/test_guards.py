"""One warning, naming the cure, for data that nothing carries or standardises; none for ordinary data."""

import warnings

import numpy as np
import pytest

import cvxrelu
from cvxrelu.api.guards import warn_of_scales
from cvxrelu.api.standardised import solve_standardised
from cvxrelu.program.problem import build_problem

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 4))
Y = np.maximum(X[:, 0], 0) - X[:, 1] + 0.1 * RNG.standard_normal(80)
Y = (Y - Y.mean()) / Y.std()
PAIRS = np.arange(80).reshape(-1, 2)
LABELS = np.where(Y > 0, 1.0, -1.0)
SOLVE = {"backend": "numpy", "tol": 0.1, "time_limit": 20.0}
ONE_LARGE = X * np.array([1.0, 1e6, 1.0, 1.0])


def said(call):
    """The warnings of a call, as text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(warning.category is UserWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def of_problem(X, y, **options):
    return said(lambda: warn_of_scales(build_problem(X, y, beta=1.0, sampled=False, seed=0, **options)))


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("refine", [False, True])
def test_solve_warns_once_of_a_mean_that_nothing_carries(intercept, refine):
    (words,) = said(
        lambda: cvxrelu.solve(X, Y + 400, beta=100.0, intercept=intercept, refine=refine, patterns=5, **SOLVE)
    )
    assert "mean of y is 400 of its deviations" in words and "skip='bias'" in words
    assert ("intercept" in words) == intercept


def test_solve_warns_once_of_columns_and_of_both():
    (words,) = said(lambda: cvxrelu.solve(ONE_LARGE, Y, beta=100.0, **SOLVE))
    assert words.startswith("columns of X differ in scale") and "(column 1)" in words and "standardise" in words
    (words,) = said(lambda: cvxrelu.solve(ONE_LARGE, Y - 50, beta=100.0, **SOLVE))
    assert "mean of y" in words and "columns of X" in words


def test_the_warning_points_at_the_call():
    with pytest.warns(UserWarning, match="mean of y") as caught:
        cvxrelu.solve(X, Y + 400, beta=1e6, **SOLVE)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="mean of y") as caught:
        cvxrelu.path(X, Y + 400, betas=[1e6], backend="numpy")
    assert caught[0].filename == __file__


def test_a_path_warns_once():
    for betas in (3, [200.0, 100.0]):
        (words,) = said(lambda betas=betas: cvxrelu.path(X, Y + 30, betas=betas, smallest=0.5, cv=2, **SOLVE))
        assert "mean of y" in words
    assert said(lambda: cvxrelu.path(X, Y + 30, betas=2, smallest=0.5, skip="bias", **SOLVE)) == []


ORDINARY = {
    "standardised": (X, Y),
    "prices, mean of two deviations": (X, Y + 2),
    "uniform": (RNG.uniform(0, 1, (80, 4)), Y),
    "percent beside shares": (X * [1.0, 100.0, 0.3, 1.0], Y),
    "a zero column": (np.column_stack([X, np.zeros(80)]), Y),
    "a rare indicator": (np.column_stack([1e2 * X, np.eye(80)[0]]), Y),
    "constant targets": (X, np.full(80, 7.0)),
    "one column": (X[:, :1], Y),
    "one row": (X[:1], Y[:1] + 9),
}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("intercept", [False, True])
def test_ordinary_data_get_no_warning(name, intercept):
    assert of_problem(*ORDINARY[name], intercept=intercept) == []


def test_what_carries_the_mean_or_has_none():
    far = Y + 400
    for skip in ("bias", "linear"):
        assert of_problem(X, far, skip=skip) == []
    assert of_problem(X, np.abs(far[:40]), pairs=PAIRS) == []
    assert of_problem(X, np.where(np.arange(80) < 79, 1.0, -1.0), loss="logistic") == []
    assert of_problem(X, np.arange(80) // 79, loss="multinomial") == []
    assert of_problem(1e6 * X, Y, intercept=True) == []  # the constant column is not the user's
    assert len(of_problem(X, far)) == 1


@pytest.mark.parametrize("loss", ["logistic", "multinomial", "pairs"])
def test_columns_count_whatever_the_loss(loss):
    y, options = {
        "logistic": (LABELS, {"loss": "logistic"}),
        "multinomial": ((LABELS > 0).astype(int), {"loss": "multinomial"}),
        "pairs": (None, {"loss": "logistic", "pairs": PAIRS}),
    }[loss]
    (words,) = of_problem(ONE_LARGE, y, **options)
    assert "columns of X" in words


def test_outputs_weights_and_thresholds():
    (words,) = of_problem(X, np.stack([Y, Y - 10], axis=1))
    assert "column 1 of y" in words
    weight = np.where(np.arange(80) < 40, 1.0, 0.0)
    mixed = np.where(weight > 0, Y, Y + 1e3)
    assert of_problem(X, mixed, sample_weight=weight) == [] and len(of_problem(X, Y + 1e3, sample_weight=weight)) == 1
    assert of_problem(X, Y + 2.9) == [] and len(of_problem(X, Y + 3.1)) == 1
    flat = np.sign(RNG.standard_normal((80, 3)))
    assert of_problem(flat * [1, 1, 999], Y) == [] and len(of_problem(flat * [1, 1, 1001], Y)) == 1
    assert len(of_problem(flat * [1, 1e-200, 1], Y)) == 1


def test_who_standardises_is_not_warned():
    options = {"beta": 0.5, "relative": True, "patterns": 5, "seed": 0, **SOLVE}
    for given in ({}, {"intercept": False}, {"refine": False}):
        assert said(lambda given=given: solve_standardised(ONE_LARGE, Y + 1e4, **options, **given)) == []
    constant = np.column_stack([X, np.full(80, 1e7)])  # keeps its scale without a centre
    assert said(lambda: solve_standardised(constant, Y + 1e4, intercept=False, **options)) == []


def test_the_two_phases_speak_of_columns_alone():
    uneven = np.where(np.arange(80) < 78, 1.0, -1.0)
    options = {"beta": 1.0, "l2": 1.0, "patterns": 20, "certificate": "priced", "tol": 0.1, "backend": "numpy"}
    assert said(lambda: cvxrelu.two_phase(X, uneven, **options)) == []
    (words,) = said(lambda: cvxrelu.two_phase(ONE_LARGE, uneven, **options))
    assert words.startswith("columns of X")


def test_a_network_given_is_certified_without_a_word():
    network = (np.eye(4), np.ones(4))
    assert said(lambda: cvxrelu.certify(network, ONE_LARGE, Y + 400, beta=1e6, tol=0.1, backend="numpy")) == []
    assert said(lambda: cvxrelu.beta_max(ONE_LARGE, Y + 400)) == []


def test_every_call_warns_even_after_one_that_failed():
    with pytest.raises(ValueError):
        cvxrelu.path(X, Y + 400, betas=2, tol=0.1, dtype="float16")
    for _ in range(2):
        assert len(said(lambda: cvxrelu.solve(X, Y + 400, beta=1e6, **SOLVE))) == 1
