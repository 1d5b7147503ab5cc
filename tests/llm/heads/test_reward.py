"""Heads against SciPy and scikit-learn, their choice, their files, and fits that are killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from preference_data import preferences
from scipy.optimize import minimize

import cvxrelu
from cvxrelu.support.errors import InputError
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads import fitting
from cvxrelu_llm.heads import selection as head_selection
from cvxrelu_llm.heads.calibration import brier, calibrate, expected_calibration_error, log_losses
from cvxrelu_llm.heads.data import data_hash
from cvxrelu_llm.heads.head import ConvexRewardHead, as_pair_features
from cvxrelu_llm.heads.rule import paired_difference
from cvxrelu_llm.heads.selection import grouped_folds, linear_network, make_folds, select_beta, select_ridge
from cvxrelu_llm.heads.standardise import lipschitz_bound, standardise

FAST: dict[str, Any] = {"betas": (0.6, 0.35), "folds": 2, "path_tol": 3e-2, "tol": 1e-2}


@pytest.fixture(scope="module")
def curved() -> ConvexRewardHead:
    """A fit where neurons pay."""
    return ConvexRewardHead(**FAST).fit(preferences())


# -- the linear end ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("d", [4, 90])
def test_linear_head_is_bradley_terry(d: int) -> None:
    """Against a dense minimisation; with d = 90 there are more features than pairs."""
    features = preferences(m=40, d=d)
    features = dataclasses.replace(features, weight=np.linspace(0.5, 2, 40), margin=np.linspace(-0.2, 0.4, 40))
    head = ConvexRewardHead(beta=np.inf, skip_l2=3.0, gamma=0.1).fit(features)
    X = features.X.astype(float)
    Z = (X - X.mean(0)) / X.std(0)
    D = Z[features.pairs[:, 0]] - Z[features.pairs[:, 1]]

    def objective(theta: np.ndarray) -> float:
        losses = np.logaddexp(0, features.margin + 0.1 - D @ theta)
        return float(features.weight @ losses + 1.5 * theta @ theta)

    found = minimize(objective, np.zeros(d), method="BFGS", options={"gtol": 1e-9})
    assert head.certificate["objective"] == pytest.approx(found.fun, rel=1e-6)
    assert head.certificate["rigorous"] and head.certificate["lower_bound"] <= found.fun * (1 + 1e-12)
    np.testing.assert_allclose(head.margins(X, features.pairs), D @ found.x, atol=1e-3)
    assert abs(head.score(X).mean()) < 1e-9


def test_components_are_principal_components() -> None:
    features = preferences(m=40, d=6)
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0, components=3).fit(features)
    X = features.X.astype(float)
    Z = (X - X.mean(0)) / X.std(0)
    V = np.linalg.svd(Z)[2][:3].T
    D = (Z @ V)[features.pairs[:, 0]] - (Z @ V)[features.pairs[:, 1]]
    theta = cvxrelu.solve_logistic(D, l2=1.0).theta
    np.testing.assert_allclose(head.margins(X, features.pairs), D @ theta, atol=1e-6)
    assert np.linalg.matrix_rank(head.standard.basis) == 3


def test_components_leave_the_linear_candidate_whole() -> None:
    """Linear labels along a direction that one component cannot hold: the head falls back on all features."""
    features = preferences(m=60, kinks=0.0)
    head = ConvexRewardHead(**{**FAST, "betas": (0.5,)}, components=1).fit(features)
    whole = ConvexRewardHead(beta=np.inf, folds=2).fit(features)
    assert head.choice.beta is None and head.standard.basis is None
    np.testing.assert_allclose(head.score(features.X), whole.score(features.X), atol=1e-8)


def test_wide_features_are_reduced_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    features, options = preferences(), {**FAST, "select": "lowest"}
    monkeypatch.setattr(fitting, "WIDE", 4)
    monkeypatch.setattr(fitting, "DIRECTIONS", 4)
    reduced, given, whole = (ConvexRewardHead(**options, components=c).fit(features) for c in ("auto", 4, None))
    assert reduced.n_neurons > 0 and reduced.standard.basis.shape == (5, 4)
    np.testing.assert_array_equal(reduced.score(features.X), given.score(features.X))
    assert whole.standard.basis is None
    monkeypatch.setattr(fitting, "WIDE", 5)
    assert ConvexRewardHead(**options).fit(features).standard.basis is None


def test_components_contain_the_linear_model() -> None:
    """Labels along the direction of least variance, which no principal component but the last shows."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 8))
    X[:, 0] = X[:, 1:].sum(axis=1) + 1e-2 * rng.standard_normal(600)
    residual = X[:, 0] - X[:, 1:].sum(axis=1)
    pairs = np.arange(600).reshape(-1, 2)
    pairs = np.where((residual[pairs[:, 0]] > residual[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    features = as_pair_features(X, pairs)
    options: dict[str, Any] = {**FAST, "betas": (0.9,), "select": "lowest"}
    head, linear = ConvexRewardHead(components=3, **options).fit(features), ConvexRewardHead(beta=np.inf).fit(features)
    network = [point for point in head.choice.points if point.kind == "network"]
    best = min(point.loss for point in head.choice.points if point.kind == "linear")
    assert network[0].loss < best + 0.1 < 0.5  # principal components alone would be at log 2
    assert np.mean(head.margins(X, pairs) > 0) > 0.9
    Z = linear.standard.apply(X)
    direction = linear.standardised.skip
    basis = standardise(X, pairs.ravel(), 3, direction).basis
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(
        Z @ basis @ (basis.T @ direction), Z @ direction, atol=1e-9 * np.abs(Z @ direction).max()
    )


def test_reference_offset_is_a_margin() -> None:
    features, rng = preferences(m=40), np.random.default_rng(1)
    offset = rng.standard_normal(40)
    by_reference = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(features, reference=offset)
    by_margin = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(dataclasses.replace(features, margin=offset))
    plain = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(features)
    np.testing.assert_allclose(by_reference.score(features.X), by_margin.score(features.X), atol=1e-9)
    assert np.abs(by_reference.score(features.X) - plain.score(features.X)).max() > 0.1
    with pytest.raises(ValueError, match="40 finite numbers"):
        plain.fit(features, reference=[1.0])


# -- the network ------------------------------------------------------------------------------------------------------
def test_the_head_solves_the_program(curved: ConvexRewardHead) -> None:
    """`certify` of the standardised network, by its own code, and the folded one is the same function."""
    features, choice = curved.data, curved.choice
    assert features is not None and choice.beta is not None and curved.n_neurons > 0
    Z = curved.standard.apply(features.X)
    proof = cvxrelu.certify(
        curved.standardised, Z, beta=choice.beta, loss="logistic", pairs=features.pairs, skip_l2=choice.skip_l2,
        kind="relaxed",
    )  # fmt: skip
    assert proof.objective == pytest.approx(curved.certificate["objective"], rel=1e-6)
    assert proof.rigorous and proof.lower_bound <= curved.certificate["objective"]
    assert curved.certificate["gap"] <= 1e-2
    inner = curved.standardised.predict(Z)
    np.testing.assert_allclose(curved.score(features.X), inner - inner.mean(), atol=1e-8)


def test_neurons_are_taken_where_they_pay(curved: ConvexRewardHead) -> None:
    """And only there: labels that are linear in the features keep the linear model."""
    fresh = preferences(m=1500, seed=7)
    linear = ConvexRewardHead(beta=np.inf).fit(preferences())
    losses = [log_losses(head.margins(fresh.X, fresh.pairs)).mean() for head in (curved, linear)]
    assert losses[0] < losses[1] - 0.02
    kept = ConvexRewardHead(**{**FAST, "betas": (0.5,)}).fit(preferences(kinks=0.0, sharp=2.0))
    assert kept.choice.beta is None and kept.n_neurons == 0
    linear = [point for point in kept.choice.points if point.kind == "linear"]
    assert len(linear) == 14 and linear[-1].loss > min(point.loss for point in linear)  # one below 1e-4, in vain


def test_lipschitz_bound(curved: ConvexRewardHead) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 500, 5)) * 5
    slopes = np.abs(curved.score(a) - curved.score(b)) / np.linalg.norm(a - b, axis=1)
    assert slopes.max() <= curved.lipschitz
    network = cvxrelu.ReLUNetwork([[3.0], [4.0]], [-2.0], [7.0], [0.0, 1.0])
    assert lipschitz_bound(network) == 11.0


def test_two_phase_is_the_recipe() -> None:
    features = preferences(m=40, d=3)
    options: dict[str, Any] = {"beta": 2.0, "scale": 0.5, "patterns": 8, "intercept": False, "tol": 1e-2}
    head = ConvexRewardHead("two_phase", l2=0.3, gamma=0.2, **options).fit(features)
    Z = standardise(features.X, features.pairs.ravel(), None).apply(features.X)
    found = cvxrelu.two_phase(Z, pairs=features.pairs, l2=0.3, margin=0.2, **options)
    f = 0.5 * found.network.predict(Z)
    np.testing.assert_allclose(head.score(features.X), f - f.mean(), atol=1e-7)
    assert head.certificate["gap"] <= 1e-8 and head.certificate["classifier_gap"] <= 1e-2
    chosen = ConvexRewardHead("two_phase", folds=2, **options).fit(features)
    points = chosen.choice.points
    assert chosen.choice.skip_l2 == min(points, key=lambda point: point.loss).skip_l2


# -- choice -----------------------------------------------------------------------------------------------------------
def test_folds_keep_groups_whole() -> None:
    group = np.random.default_rng(0).integers(0, 11, 60)
    tests = grouped_folds(group, 4, seed=1)
    assert sorted(np.concatenate(tests).tolist()) == list(range(60))
    for a in range(4):
        for b in range(a):
            assert not set(group[tests[a]]) & set(group[tests[b]])
    with pytest.raises(InputError, match="2 groups"):
        grouped_folds(np.zeros(5, dtype=np.int64), 3, 0)


def test_no_fold_sees_its_test_pairs() -> None:
    """Features of a held-out group may be anything: what is fitted without it does not move."""
    features = preferences(m=20)
    tests = grouped_folds(features.group, 3, 0)
    spoiled = features.X.copy()
    spoiled[features.pairs[tests[0]].ravel()] = 1e6
    parts = [
        make_folds(X, features.pairs, features.weight, features.margin, tests, None) for X in (features.X, spoiled)
    ]
    np.testing.assert_array_equal(*(folds[0].made()[0].differences for folds in parts))


def unequal_folds() -> tuple[PairFeatures, list[np.ndarray], list[Any]]:
    """Two folds, of a fifth and of four fifths of the pairs, with weights."""
    rng = np.random.default_rng(4)
    X, pairs = rng.standard_normal((60, 3)), np.arange(60).reshape(-1, 2)
    first = X[pairs[:, 0], 0] > X[pairs[:, 1], 0]  # the first feature decides
    features = as_pair_features(X, np.where(first[:, None], pairs, pairs[:, ::-1]), weight=rng.uniform(0.5, 2.0, 30))
    tests = [np.arange(6), np.arange(6, 30)]
    return features, tests, make_folds(features.X, features.pairs, features.weight, features.margin, tests, None)


def test_the_ridge_of_a_fold_is_that_of_all_pairs_on_its_share() -> None:
    """As if the pairs of a fold weighed as much as all: what is chosen on folds then suits the whole."""
    features, tests, folds = unequal_folds()
    f, total = features, features.weight.sum()
    ridge, margins, points = select_ridge(folds, f.pairs, f.weight, f.group, (0.05,))
    assert ridge == points[0].skip_l2 == pytest.approx(0.05 * total)
    for fold, other in zip(folds, reversed(tests), strict=True):
        (rows, Z), test = fold.made(), fold.test
        weight = f.weight[other] * total / f.weight[other].sum()
        theta = cvxrelu.solve_logistic(rows.differences, l2=0.05 * total, sample_weight=weight).theta
        expected = (Z[f.pairs[test, 0]] - Z[f.pairs[test, 1]]) @ theta
        np.testing.assert_allclose(margins[test], expected, atol=0.02 * np.abs(expected).max())


def test_beta_and_ridge_of_a_fold_are_multiplied_by_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    features, tests, folds = unequal_folds()
    f, asked = features, []

    def solve(Z: np.ndarray, **options: Any) -> SimpleNamespace:
        asked.append(options)
        return SimpleNamespace(network=linear_network(np.zeros(3)), status=cvxrelu.Status.OPTIMAL)

    monkeypatch.setattr(head_selection.cvxrelu, "solve", solve)
    select_beta(folds, f.pairs, f.weight, f.group, np.zeros(30), 8.0, (0.5,), 3.0, {"tol": 0.1}, "significant", None)
    for options, other in zip(asked, reversed(tests), strict=True):
        share = f.weight[other].sum() / f.weight.sum()
        assert (options["beta"], options["skip_l2"]) == pytest.approx((4.0 * share, 3.0 * share))
        np.testing.assert_array_equal(options["sample_weight"], f.weight[other])
        assert options["loss"] == "logistic" and options["tol"] == 0.1


@pytest.mark.parametrize("gain", ["small", "large", "none"])
@pytest.mark.parametrize("rule", ["significant", "lowest"])
def test_the_rule(gain: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On networks that are there already, so that nothing is solved: which point is taken, how far the walk goes."""
    features, _, folds = unequal_folds()
    f, rng = features, np.random.default_rng(0)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a solve")

    monkeypatch.setattr(head_selection.cvxrelu, "solve", refuse)
    noise = rng.standard_normal(30)
    noise -= f.weight @ noise / f.weight.sum()
    truth = {"small": 0.0, "large": 2.0, "none": 0.0}[gain]
    thetas = [truth * np.eye(3)[0], *(scale * np.eye(3)[1] for scale in (-1.0, 1.0, 3.0))]
    for i, theta in enumerate(thetas):
        for j in range(2):
            linear_network(theta).save(tmp_path / f"point-{i:03d}-fold-{j:02d}.safetensors")

    def losses_of(theta: np.ndarray) -> np.ndarray:
        found = np.zeros(30)
        for (_, Z), test in ((fold.made(), fold.test) for fold in folds):
            found[test] = np.log1p(np.exp(-(Z[f.pairs[test, 0]] - Z[f.pairs[test, 1]]) @ theta))
        return found

    table = [losses_of(theta) for theta in thetas]
    size = {"small": 0.05, "large": 3.0, "none": 0.0}[gain]
    linear = size * noise  # worthless margins, whose loss is above that of none at all by little, by much, or not
    base = np.log1p(np.exp(-linear))
    mean = f.weight @ (table[0] - base) / f.weight.sum()
    error = np.sqrt(30 / 29 * np.sum((f.weight * (table[0] - base - mean)) ** 2)) / f.weight.sum()
    count = 2 if gain == "none" else 3  # points that are looked at
    needed = scipy.stats.t.ppf(1 - 0.05 / count, 29) * error
    taken = mean < (-needed if rule == "significant" else 0.0)
    assert taken == {"small": rule == "lowest", "large": True, "none": False}[gain], (mean, error)
    shares = (0.3, 0.6, 0.4, 0.5)  # walked from the largest down, whatever their order
    choice = select_beta(folds, f.pairs, f.weight, f.group, linear, 8.0, shares, 1.5, {}, rule, tmp_path)
    averages = [f.weight @ losses / f.weight.sum() for losses in table]
    assert averages[0] <= min(averages[1:3])  # two points in a row that do not improve: the fourth is not looked at
    assert [point.relative for point in choice.points] == [0.6, 0.5, 0.4][:count]
    np.testing.assert_allclose([point.loss for point in choice.points], averages[:count])
    assert (choice.points[0].difference, choice.points[0].difference_error) == pytest.approx((mean, error))
    assert choice.beta == (pytest.approx(0.6 * 8.0) if taken else None) and choice.skip_l2 == 1.5
    np.testing.assert_allclose(np.log1p(np.exp(-choice.margins)), table[0] if taken else base)


def test_paired_difference_counts_groups() -> None:
    """Every pair twice in one group: the same mean and the same error as once."""
    rng = np.random.default_rng(0)
    a, b, ones = rng.random(50), rng.random(50), np.ones(50)
    once = paired_difference(a, b, ones, np.arange(50))
    assert once == pytest.approx(((a - b).mean(), (a - b).std(ddof=1) / np.sqrt(50)))
    twice = paired_difference(np.tile(a, 2), np.tile(b, 2), np.ones(100), np.tile(np.arange(50), 2))
    assert twice == pytest.approx(once)


# -- calibration ------------------------------------------------------------------------------------------------------
def test_temperature_is_found_again() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal(20000)
    margins = 3.0 * np.where(rng.random(20000) < 1 / (1 + np.exp(-logits)), logits, -logits)
    found = calibrate(margins)
    assert found.temperature == pytest.approx(3.0, rel=0.05)
    assert found.ece < 0.02 < expected_calibration_error(margins)
    for other in (0.9, 1.1):
        assert found.log_loss <= log_losses(margins / (other * found.temperature)).mean()
    assert found.brier == pytest.approx(brier(margins / found.temperature))
    assert calibrate(-np.abs(margins)).temperature > 100  # always wrong: hardly any belief
    assert np.isfinite(calibrate(np.abs(margins)).temperature)


def test_probability_and_abstention(curved: ConvexRewardHead) -> None:
    X, pairs = preferences(m=30, seed=3).X, np.arange(60).reshape(-1, 2)
    margins = curved.margins(X, pairs)
    np.testing.assert_allclose(curved.probability(X, pairs), 1 / (1 + np.exp(-margins / curved.temperature)))
    decided = curved.decide(X, pairs, margin=float(np.median(np.abs(margins))))
    assert np.sum(decided == 0) == 15 and (decided[decided != 0] == np.sign(margins)[decided != 0]).all()


# -- files ------------------------------------------------------------------------------------------------------------
def test_save_and_load(curved: ConvexRewardHead, tmp_path: Path) -> None:
    folder = curved.save(tmp_path / "head", metrics={"rewards/accuracies": 0.75})
    again, X = ConvexRewardHead.load(folder), preferences(seed=4).X
    np.testing.assert_array_equal(again.score(X), curved.score(X))
    assert again.temperature == curved.temperature and again.certificate == curved.certificate
    card = (folder / "README.md").read_text()
    for words in (curved.data_hash, "an estimate", "0.7500", f"{curved.certificate['gap']:.2e}"):
        assert words in card
    assert again.summary() == curved.summary()
    with pytest.raises(InputError, match="exists already"):
        curved.save(folder)
    with pytest.raises(InputError, match="attach"):
        again.audit()
    data = curved.data
    assert data is not None
    with pytest.raises(InputError, match="not the pairs"):
        again.attach(dataclasses.replace(data, pairs=data.pairs[:, ::-1]))
    assert again.attach(data).certificate["gap"] <= 1e-2 and again.audit(1)[0].pair == curved.audit(1)[0].pair
    (folder / "network.safetensors").write_bytes(b"x")
    with pytest.raises((InputError, ValueError), match="network"):
        ConvexRewardHead.load(folder)
    with pytest.raises(InputError, match="not a folder"):
        ConvexRewardHead.load(tmp_path)


SCRIPT = """
import sys
sys.path[:0] = sys.argv[2:]
from preference_data import preferences
from cvxrelu_llm.heads.head import ConvexRewardHead
head = ConvexRewardHead(betas=(0.6, 0.35), folds=2, path_tol=3e-2, tol=1e-2)
head.fit(preferences(), folder=sys.argv[1])
"""


def test_a_killed_fit_goes_on_to_the_same_answer(curved: ConvexRewardHead, tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "work"
    code = [sys.executable, "-c", SCRIPT, str(folder), str(root), str(root / "tests")]
    with subprocess.Popen(code, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        for _ in range(1200):
            if list(folder.glob("point-000-fold-01.safetensors")) or process.poll() is not None:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    kept = sorted(folder.glob("point-*.safetensors"))
    assert kept, "nothing had been saved"
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    head = ConvexRewardHead(**FAST).fit(preferences(), folder=folder)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert head.choice.beta == curved.choice.beta
    np.testing.assert_allclose(head.score(preferences().X), curved.score(preferences().X), atol=1e-9)
    with pytest.raises(InputError, match="other data or with other options"):
        ConvexRewardHead(**FAST).fit(preferences(seed=1), folder=folder)


def test_a_fit_of_an_earlier_way_to_choose_is_not_gone_on_with(tmp_path: Path) -> None:
    head = ConvexRewardHead()
    head.data_hash = "0"
    head._work_folder(tmp_path)
    assert head._work_folder(tmp_path) == tmp_path
    mark = json.loads((tmp_path / "fit.json").read_text())
    (tmp_path / "fit.json").write_text(json.dumps({**mark, "selection": mark["selection"] - 1}))
    with pytest.raises(InputError, match="choose another folder"):
        head._work_folder(tmp_path)


@pytest.mark.parametrize("name", ["X", "pairs", "weight", "margin", "group", "settings"])
def test_the_hash_of_a_fit_is_of_all_that_it_depends_on(name: str) -> None:
    features = dataclasses.replace(preferences(m=6), settings={"layer": 1, "pooling": "last", "model": "a"})
    changed = dict(features.settings, layer=2) if name == "settings" else np.array(getattr(features, name))
    if isinstance(changed, np.ndarray):
        changed[-1] = changed[-1][::-1] if changed.ndim == 2 else changed[-1] + 1
    other = dataclasses.replace(features, **{name: changed})
    assert data_hash(features, features.margin) == data_hash(dataclasses.replace(features), features.margin.copy())
    assert data_hash(other, other.margin) != data_hash(features, features.margin)


def test_a_two_phase_fit_goes_on_to_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after one fold; phase I is solved for what is missing only, and its gap is reported all the same."""
    features, solve, calls = preferences(m=40, d=3), cvxrelu.two_phase, []
    options: dict[str, Any] = {"folds": 2, "scale": 0.5, "patterns": 8, "tol": 1e-2}
    whole = ConvexRewardHead("two_phase", **options).fit(features)

    def counted(X: Any, **given: Any) -> Any:
        calls.append(len(X))
        if len(calls) == 2:
            raise MemoryError
        return solve(X, **given)

    monkeypatch.setattr(cvxrelu, "two_phase", counted)
    with pytest.raises(MemoryError):
        ConvexRewardHead("two_phase", **options).fit(features, folder=tmp_path)
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["classifier-fold-00.safetensors"]
    for expected in (4, 4):  # the other fold and the final fit; then nothing
        head = ConvexRewardHead("two_phase", **options).fit(features, folder=tmp_path)
        assert len(calls) == expected
        np.testing.assert_array_equal(head.score(features.X), whole.score(features.X))
        assert head.certificate == whole.certificate and head.choice.points == whole.choice.points
    assert head.certificate["classifier_gap"] <= 1e-2
    again = ConvexRewardHead.load(head.save(tmp_path / "head")).attach(features)
    assert again.certificate["classifier_gap"] == whole.certificate["classifier_gap"]
    with pytest.raises(InputError, match="other data or with other options"):
        ConvexRewardHead("two_phase", **{**options, "patterns": 9}).fit(features, folder=tmp_path)


def test_an_interrupted_solve_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Solvers answer Ctrl-C with the network that they have so far, which is no answer to go on from."""
    features, solve, two_phase = preferences(m=40, d=3), cvxrelu.solve, cvxrelu.two_phase

    def stopped(solution: Any) -> Any:
        return dataclasses.replace(solution, status=cvxrelu.Status.INTERRUPTED)

    def stopped_phases(*given: Any, **options: Any) -> Any:
        found = two_phase(*given, **options)
        return found._replace(classifier=stopped(found.classifier))

    monkeypatch.setattr(cvxrelu, "solve", lambda *given, **options: stopped(solve(*given, **options)))
    monkeypatch.setattr(cvxrelu, "two_phase", stopped_phases)
    for name, head in (
        ("pairwise", ConvexRewardHead(**FAST)),
        ("two_phase", ConvexRewardHead("two_phase", folds=2, patterns=4, tol=1e-2)),
    ):
        with pytest.raises(KeyboardInterrupt):
            head.fit(features, folder=tmp_path / name)
        assert [file.name for file in (tmp_path / name).iterdir()] == ["fit.json"]


# -- input ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, words",
    [
        ({"mode": "dpo"}, "mode must be"),
        ({"skip_l2": 0.0}, "skip_l2 must be 'auto' or a positive"),
        ({"beta": -1.0}, "beta must be"),
        ({"folds": 1}, "folds must be a whole number from 2"),
        ({"betas": (1.5,)}, "shares of beta_max"),
        ({"skip": False, "beta": np.inf}, "linear model"),
        ({"select": "best"}, "select must be"),
        ({"components": 0}, "components"),
        ({"patterns": 8}, "patterns must be left at its default with mode='pairwise', where it has no effect, got 8"),
        ({"scale": 2.0}, "scale must be left at its default"),
        ({"l2": 0.5}, "l2 must be left at its default"),
        ({"refine": True}, "refine must be left at its default"),
        ({"mode": "two_phase", "skip": False}, "skip must be left at its default with mode='two_phase'"),
        ({"mode": "two_phase", "skip_l2": 1.0}, "skip_l2 must be left at its default"),
        ({"mode": "two_phase", "betas": [0.5]}, "betas must be left at"),
        ({"mode": "two_phase", "select": "lowest"}, "select must be left at its default"),
        ({"beta": np.inf, "select": "lowest"}, "select must be left at its default with beta=inf"),
        ({"beta": 2.0, "betas": (0.5,)}, "betas must be left at its default with beta=2.0"),
        ({"skip": False, "skip_l2": 1.0}, "skip_l2 must be left at its default with skip=False"),
        ({"skip": False, "select": "lowest"}, "select must be left at its default with skip=False"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ConvexRewardHead(**options)


def test_options_at_their_defaults_may_be_named() -> None:
    """Whatever the mode, and whether the path is a tuple or a list."""
    default = ConvexRewardHead().options
    assert ConvexRewardHead(**default).options == default
    for change in ({"mode": "two_phase"}, {"beta": np.inf}, {"beta": 2.0}, {"skip": False}):
        given = {**default, **change}
        assert ConvexRewardHead(**given).options == given


@pytest.mark.parametrize("margin", [-0.1, np.nan, np.inf])
def test_bad_margin(curved: ConvexRewardHead, margin: float) -> None:
    with pytest.raises(ValueError, match="margin must be a finite number from 0"):
        curved.decide(np.zeros((2, 4)), [[0, 1]], margin=margin)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"pairs": np.array([[0, 99]])}, "rows of X"),
        ({"pairs": np.array([[1, 1]])}, "same row"),
        ({"weight": np.array([-1.0])}, "weights"),
        ({"margin": np.array([np.nan])}, "margins"),
        ({"X": np.full((2, 2), np.nan, dtype=np.float32)}, "finite"),
    ],
)
def test_bad_features(change: dict[str, Any], words: str) -> None:
    features = as_pair_features(np.eye(2), [[0, 1]])
    with pytest.raises(InputError, match="no pairs"):
        ConvexRewardHead(beta=np.inf).fit(as_pair_features(np.eye(2), np.zeros((0, 2))))
    with pytest.raises(InputError, match=words):
        ConvexRewardHead(beta=np.inf).fit(dataclasses.replace(features, **change))


def test_the_code_of_a_model_card_runs(tmp_path: Path) -> None:
    """Of features without a model here; with one, in the tests of feature maps."""
    data = preferences(m=30)
    ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(data).save(tmp_path / "head")
    card = (tmp_path / "head" / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace("this-folder", str(tmp_path / "head"))
    exec(code, {"X": data.X})
