"""The path: bounds of all points agree with each other and with an independent optimum, folds see no test row."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import re
import sys
from collections import Counter
from pathlib import Path as FilePath

import numpy as np
import oracles
import pytest

import cvxrelu
from cvxrelu.api import prepared
from cvxrelu.backends.numpy import NumpyBackend
from cvxrelu.certificates import search_space
from cvxrelu.model_selection.path import Path, path
from cvxrelu.runs.status import Status

MODULE = importlib.import_module("cvxrelu.model_selection.path")  # the attribute of that name may be the function


def planted(n=60, d=3, seed=0, noise=0.3, c=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ rng.standard_normal((3, c or 1))
    y = y + noise * rng.standard_normal(y.shape)
    return X, y if c else y[:, 0]


X, Y = planted()
QUICK = {"betas": 4, "smallest": 0.2, "tol": 2e-2}


@pytest.fixture(scope="module")
def found() -> Path:
    """A path of ten points."""
    return path(X, Y, betas=10, smallest=0.04)


@pytest.fixture(scope="module")
def validated() -> Path:
    """A path of five points with three folds."""
    return path(X, Y, betas=5, smallest=0.1, tol=2e-2, cv=3)


def objective(network, X, y, beta, weight=None):
    """Of (N), from the definition."""
    weight = np.ones(len(X)) if weight is None else weight
    W, A = network.first_layer, network.second_layer.reshape(network.n_neurons, network.n_outputs)
    if network.hidden_bias is not None:
        W, X = np.vstack([W, network.hidden_bias]), np.hstack([X, np.ones((len(X), 1))])
    prediction = np.maximum(X @ W, 0) @ A + (0.0 if network.bias is None else network.bias)
    penalty = np.sum(np.linalg.norm(W, axis=0) * np.linalg.norm(A, axis=1))
    return 0.5 * np.sum(weight[:, None] * (prediction - y.reshape(len(y), -1)) ** 2) + beta * penalty


# -- the points ------------------------------------------------------------------------------------------------------
def test_it_goes_from_the_zero_network_down_and_every_point_is_certified(found):
    assert found.status is Status.OPTIMAL
    assert len(found) == len(found.solutions) == 10
    largest = cvxrelu.beta_max(X, Y)
    np.testing.assert_allclose(found.betas, largest * 0.04 ** (np.arange(10) / 9))
    assert found.n_neurons[0] == 0 < found.n_neurons[1]
    assert found.objectives[0] == pytest.approx(0.5 * Y @ Y)
    assert found.gaps.max() <= 1e-3
    for beta, solution, value in zip(found.betas, found.solutions, found.objectives, strict=True):
        assert solution.settings["beta"] == beta
        assert objective(solution.network, X, Y, beta) == pytest.approx(value, rel=1e-9)
    assert found.scores is found.score_errors is found.best_index is found.best is found.best_1se is None


def assert_consistent(betas, upper, lower, slack=1e-12):
    """f is nondecreasing and concave and f(0) >= 0: no lower bound is above what an upper bound elsewhere allows."""
    for i, j in itertools.permutations(range(len(betas)), 2):
        if betas[i] <= betas[j]:
            assert lower[i] <= upper[j] * (1 + slack)
            assert upper[i] >= betas[i] / betas[j] * lower[j] * (1 - slack)
    for i, j, k in itertools.combinations(np.argsort(betas), 3):
        share = (betas[j] - betas[i]) / (betas[k] - betas[i])
        assert upper[j] * (1 + slack) >= (1 - share) * lower[i] + share * lower[k]


def test_bounds_of_all_points_are_consistent(found):
    assert_consistent(found.betas, found.objectives, found.lower_bounds)
    with pytest.raises(AssertionError):  # a bound that claims three times the gap too much is caught
        assert_consistent(found.betas, found.objectives, found.objectives * 1.3)


def test_every_network_is_above_every_lower_bound(found):
    for solution, (beta, bound) in itertools.product(
        found.solutions, zip(found.betas, found.lower_bounds, strict=True)
    ):
        assert objective(solution.network, X, Y, beta) >= bound * (1 - 1e-9)


def test_the_optimum_of_an_interior_point_method_lies_in_every_band():
    plane, y = planted(14, 2, seed=3)
    exact = path(plane, y, betas=4, smallest=0.05, tol=1e-5, certificate="exact")
    assert all(solution.certificate.rigorous for solution in exact.solutions)
    for beta, low, high in zip(exact.betas, exact.lower_bounds, exact.objectives, strict=True):
        problem = oracles.Problem(plane, y[:, None], np.ones((14, 1)), np.zeros((14, 0), bool), float(beta))
        optimum = oracles.solve_network(problem)
        assert low * (1 - 1e-6) <= optimum <= high * (1 + 1e-6)


def test_relaxed_bounds_are_rigorous_and_consistent():
    relaxed = path(X, Y, **QUICK, certificate="relaxed")
    assert all(solution.certificate.kind == "relaxed" for solution in relaxed.solutions)
    assert_consistent(relaxed.betas, relaxed.objectives, relaxed.lower_bounds)
    assert "rigorous" in relaxed.message


def test_warm_starts_save_rounds_and_cost_no_accuracy(found):
    cold = [cvxrelu.solve(X, Y, beta=beta) for beta in found.betas]
    assert found.n_rounds.sum() < 0.8 * sum(solution.n_rounds for solution in cold)
    for warm, other in zip(found.solutions, cold, strict=True):
        assert warm.gap <= 1e-3
        assert warm.objective <= other.objective * (1 + 1.1e-3)
        assert warm.lower_bound <= other.objective * (1 + 1e-12)
        assert other.lower_bound <= warm.objective * (1 + 1e-12)


def test_options_are_those_of_solve():
    targets = planted(c=2)[1] + 3.0
    weight = np.random.default_rng(1).uniform(0.0, 2.0, len(X))
    options = {"sample_weight": weight, "intercept": True, "skip": "bias", "seed": 4}
    given = path(X.astype(np.float32), targets, **QUICK, **options, backend="numpy", dtype="float64")
    assert given.betas[0] == pytest.approx(cvxrelu.beta_max(X.astype(np.float32), targets, **options))
    assert given.n_neurons[0] == 0
    for beta, solution in zip(given.betas, given.solutions, strict=True):
        network = solution.network
        assert (solution.backend, solution.dtype, network.n_outputs) == ("numpy", "float64", 2)
        assert network.hidden_bias is not None and network.bias is not None
        expected = objective(network, X.astype(np.float32).astype(float), targets, beta, weight)
        assert solution.objective == pytest.approx(expected, rel=1e-9)


def test_values_of_beta_are_solved_in_falling_order():
    few = path(X, Y, betas=[1.0, 20.0, 5], tol=1e-2)
    assert few.betas.tolist() == [20.0, 5.0, 1.0]
    assert [solution.settings["beta"] for solution in few.solutions] == [20.0, 5.0, 1.0]
    assert few.objectives[0] > few.objectives[1] > few.objectives[2]


def test_the_same_seed_gives_the_same_path():
    one, other = (path(X, Y, betas=3, smallest=0.3, tol=1e-2, cv=2, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.objectives, other.objectives)
    np.testing.assert_array_equal(one.fold_scores, other.fold_scores)


@pytest.mark.parametrize("apart", [1.0, 50.0])
def test_the_data_are_prepared_once(monkeypatch, apart):
    """Checked, put on the device and whitened once for all points: with columns that are alike, and that are not."""
    data = X * np.geomspace(1.0, apart, X.shape[1])
    counts = Counter()

    def counted(owner, name, of=lambda *_: True):
        plain = getattr(owner, name)

        def call(*args, **given):
            counts[name] += bool(of(*args))
            return plain(*args, **given)

        monkeypatch.setattr(owner, name, call)

    counted(prepared, "build_problem")
    counted(search_space, "ground_of")
    counted(search_space, "White")
    counted(search_space, "right_singular_vectors")
    counted(search_space.np.linalg, "eigvalsh")
    counted(NumpyBackend, "put", lambda _, tree, *more: getattr(tree, "shape", None) == X.shape)
    found = path(data, Y, betas=6, smallest=0.2, tol=1e-2, backend="numpy", dtype="float64")
    assert len(found) == 6
    once = {"build_problem": 1, "eigvalsh": 1}
    if apart == 1.0:  # one precision, the same for beta_max
        assert counts == once | {"ground_of": 1, "put": 1}
    else:  # the given columns while beta is large, then rotated ones, whose scales go with beta
        del counts["ground_of"]
        scaled = counts.pop("White")
        assert 1 <= scaled < 6 and counts == once | {"right_singular_vectors": 1, "put": 2 + scaled}


# -- cross-validation ------------------------------------------------------------------------------------------------
def test_scores_are_those_of_solves_on_the_folds(around_solves):
    rows, weight = np.arange(60), np.random.default_rng(2).uniform(0.5, 2.0, 60)
    pairs = [(rows[:40], rows[40:]), (rows >= 15, rows < 15)]
    solves = []

    def solve(prepared, run, beta, settings, warm_start):
        solution = run(beta, settings, warm_start=warm_start)
        solves.append((prepared.problem, beta, warm_start, solution))
        return solution

    around_solves(solve)
    options = {"betas": [10.0, 3.0], "tol": 1e-2, "cv": pairs, "sample_weight": weight}
    scores = {name: path(X, Y, **options, scorer=name).fold_scores for name in (None, "neg_mean_squared_error")}
    assert len(solves) == 2 * 2 * 3
    for name, call, k in itertools.product(scores, range(2), range(2)):
        train, test = pairs[k]
        i = 6 * list(scores).index(name) + 3 * call + 1 + k
        problem, beta, warm_start, solution = solves[i]
        np.testing.assert_array_equal(problem.X, X[train])
        np.testing.assert_array_equal(problem.plain.y[:, 0], Y[train])
        np.testing.assert_array_equal(problem.plain.weight[:, 0], weight[train])
        assert beta == pytest.approx(options["betas"][call] * weight[train].sum() / weight.sum())
        assert warm_start is (solves[i - 3][3] if call else None)
        y, w = Y[test], weight[test]
        errors = w @ (solution.network.predict(X[test]) - y) ** 2
        r2 = 1 - errors / (w @ (y - np.average(y, weights=w)) ** 2)
        assert scores[name][call, k] == pytest.approx(-errors / w.sum() if name else r2)


def test_scores_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    from scipy.special import expit, softmax

    from cvxrelu.api.cross_validation import accuracy, neg_log_loss, neg_mean_squared_error, r2

    data, targets = planted(30, 4, c=3)
    weight = np.random.default_rng(0).uniform(0, 1, 30)
    a = cvxrelu.ReLUNetwork(np.eye(4), np.ones((4, 3))).predict(data)
    given = {"sample_weight": weight}
    expected = metrics.r2_score(targets, a, multioutput="variance_weighted", **given)
    assert r2(a, targets, weight) == pytest.approx(expected)
    expected = metrics.mean_squared_error(targets, a, **given)
    assert neg_mean_squared_error(a, targets, weight) == pytest.approx(-expected)

    classes = np.argmax(targets, axis=1)
    assert neg_log_loss(targets, np.eye(3)[classes], weight) == pytest.approx(
        -metrics.log_loss(classes, softmax(targets, axis=1), labels=[0, 1, 2], **given)
    )
    wrong = np.where(np.arange(30) % 3, classes, (classes + 1) % 3)
    assert accuracy(targets, np.eye(3)[wrong], weight) == pytest.approx(metrics.accuracy_score(wrong, classes, **given))
    signs, score = np.sign(targets[:, 0]), targets[:, 1]
    assert neg_log_loss(score, signs, weight) == pytest.approx(-metrics.log_loss(signs > 0, expit(score), **given))
    assert accuracy(score, signs, weight) == pytest.approx(metrics.accuracy_score(signs > 0, score > 0, **given))


def test_folds_part_the_rows_and_scikit_learns_splits_are_taken():
    from cvxrelu.api.cross_validation import as_folds

    weight = np.arange(11.0)
    folds = as_folds(4, weight, 0)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(11))
    assert {fold.test.size for fold in folds} == {2, 3}
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == list(range(11))
        assert fold.share == pytest.approx(weight[fold.train].sum() / 55)
    assert any(np.any(a.test != b.test) for a, b in zip(folds, as_folds(4, weight, 1), strict=True))
    splitter = pytest.importorskip("sklearn.model_selection").KFold(3)
    for fold, (train, test) in zip(as_folds(splitter.split(X), np.ones(60), 0), splitter.split(X), strict=True):
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.test, test)


def test_a_fold_knows_nothing_of_its_test_rows():
    rows = np.arange(60)
    pairs = [(rows[20:], rows[:20])]
    spoilt_X, spoilt_y = X.copy(), Y.copy()
    spoilt_X[:20] *= -2.0
    spoilt_y[:20] += 3.0
    betas, seen = [30.0, 10.0], {}
    for name, (data, targets) in {"clean": (X, Y), "spoilt": (spoilt_X, spoilt_y)}.items():

        def remember(network, test_X, test_y, name=name, data=data, targets=targets):
            np.testing.assert_array_equal(test_X, data[:20])
            np.testing.assert_array_equal(test_y, targets[:20])
            seen.setdefault(name, []).append(network)
            return 0.0

        path(data, targets, betas=betas, tol=1e-2, cv=pairs, scorer=remember)
    assert len(seen["clean"]) == 2
    for clean, spoilt in zip(seen["clean"], seen["spoilt"], strict=True):
        assert clean.n_neurons > 0
        assert clean.allclose(spoilt)


def test_means_errors_and_choices(validated):
    table = np.array([[0.0, 0.2], [0.65, 0.85], [0.7, 0.9], [0.7, 0.9], [0.5, 0.5]])
    made = dataclasses.replace(validated, fold_scores=table)
    np.testing.assert_allclose(made.scores, [0.1, 0.75, 0.8, 0.8, 0.5])
    np.testing.assert_allclose(made.score_errors, [0.1, 0.1, 0.1, 0.1, 0.0])
    assert (made.best_index, made.best_1se_index) == (2, 1)  # of equal scores the larger beta
    assert made.best is validated.solutions[2] and made.best_1se is validated.solutions[1]
    single = dataclasses.replace(validated, fold_scores=table[:, :1])
    assert np.isnan(single.score_errors).all()
    assert (single.best_index, single.best_1se_index) == (2, 2)


def test_cross_validation_finds_the_middle_of_the_path(validated):
    assert validated.fold_scores.shape == (5, 3)
    assert validated.scores[0] < 0.3 < validated.scores.max()
    assert validated.best_1se_index <= validated.best_index
    assert validated.best is validated.solutions[validated.best_index]


# -- the end before the end ------------------------------------------------------------------------------------------
def test_the_callback_sees_every_point_and_can_stop():
    records = []
    stopped = path(X, Y, **QUICK, cv=2, callback=lambda record: records.append(record) or record["point"] == 1)
    assert stopped.status is Status.INTERRUPTED
    assert len(stopped) == len(records) == 2
    for i, record in enumerate(records):
        assert record["beta"] == stopped.betas[i] and record["n_neurons"] == stopped.n_neurons[i]
        assert record["score"] == stopped.scores[i] and record["score_error"] == stopped.score_errors[i]
        assert record["gap"] == stopped.gaps[i]
    assert "stopped by the user after 2 of 4 points" in stopped.message


@pytest.mark.parametrize("where", ["between", "inside", "in a fold"])
def test_interrupts_return_the_points_that_are_complete(around_solves, where):
    calls = itertools.count()

    def solve(_, run, *given, **more):
        # Three solves a point: the seventh is the third point's, the eighth its first fold's.
        if (call := next(calls)) == 6 and where == "between":
            raise KeyboardInterrupt
        solution = run(*given, **more)
        ended = call == {"between": -1, "inside": 6, "in a fold": 7}[where]
        return dataclasses.replace(solution, status=Status.INTERRUPTED) if ended else solution

    around_solves(solve)
    stopped = path(X, Y, **QUICK, cv=2)
    assert stopped.status is Status.INTERRUPTED
    assert len(stopped) == 2
    assert stopped.fold_scores.shape == (2, 2)
    assert stopped.betas.shape == stopped.objectives.shape == (2,)


def test_the_time_limit_is_for_the_whole_path(around_solves):
    given = []

    def solve(_, run, beta, settings, **more):
        given.append(settings.time_limit)
        solution = run(beta, settings, **more)
        return dataclasses.replace(solution, status=Status.TIME_LIMIT) if len(given) == 3 else solution

    around_solves(solve)
    stopped = path(X, Y, **QUICK, time_limit=1000.0)
    assert stopped.status is Status.TIME_LIMIT
    assert len(stopped) == 2
    assert 1000.0 > given[0] > given[1] > given[2] > 0
    assert "time_limit reached after 2 of 4 points" in stopped.message


def test_no_time_is_no_point():
    empty = path(X, Y, **QUICK, cv=2, time_limit=1e-9)
    assert empty.status is Status.TIME_LIMIT
    assert len(empty) == 0
    assert empty.betas.shape == empty.objectives.shape == empty.scores.shape == empty.n_neurons.shape == (0,)
    assert empty.best is empty.best_1se is None
    assert "after 0 of 4 points" in empty.summary()
    with pytest.raises(ValueError, match="no point"):
        empty.plot()


def test_points_that_miss_tol_are_kept_and_named(around_solves):
    def solve(_, run, beta, settings, **more):
        solution = run(beta, settings, **more)
        return dataclasses.replace(solution, status=Status.MAX_ITER) if beta < 2 else solution

    around_solves(solve)
    missed = path(X, Y, betas=[9.0, 3.0, 1.0], tol=1e-2)
    assert missed.status is Status.MAX_ITER
    assert "1 of 3 points did not reach tol" in missed.message
    assert missed.summary().splitlines()[-2].endswith("max_iter")


# -- text, plot, files -----------------------------------------------------------------------------------------------
def test_text(validated, capsys):
    lines = validated.summary().splitlines()
    assert len(lines) == 1 + 5 + 1
    assert "best" in lines[1 + validated.best_index]
    assert "best_1se" in lines[1 + validated.best_1se_index]
    assert "an estimate" in lines[-1]
    for line, beta, gap in zip(lines[1:], validated.betas, validated.gaps, strict=False):
        assert float(line.split()[0]) == pytest.approx(beta, rel=1e-4)
        assert float(line.split()[3]) == pytest.approx(gap, rel=0.1)
    assert repr(validated).startswith("Path(5 points, beta ")
    path(X, Y, **QUICK, verbose=True)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 4


def test_plot_into_given_axes(validated):
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure()
    panels = figure.subplots(2, 2)
    assert validated.plot(axes=panels) is figure
    values = (validated.objectives, 100 * validated.gaps, validated.n_neurons, validated.scores)
    for panel, expected in zip(panels.flat, values, strict=True):
        np.testing.assert_allclose(panel.lines[0].get_xdata(), validated.betas)
        np.testing.assert_allclose(panel.lines[0].get_ydata(), expected)
        assert panel.get_xscale() == "log" and panel.xaxis_inverted()
    low, high = panels[0, 0].collections[0].get_datalim(panels[0, 0].transData).intervaly
    assert low == pytest.approx(validated.lower_bounds.min()) and high == pytest.approx(validated.objectives.max())
    assert "priced, an estimate" in panels[0, 0].get_legend().get_texts()[1].get_text()
    with pytest.raises(ValueError, match="axes must be 4"):
        validated.plot(axes=panels.flat[:3])
    assert len(dataclasses.replace(validated, fold_scores=None).plot().axes) == 3


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot_to_a_file(found, tmp_path, ending, magic):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"path.{ending}"
    file.write_text("old")
    found.plot(file)
    written = file.read_bytes()
    assert written.startswith(magic)
    found.plot(str(file))
    assert file.read_bytes() == written  # no date, no random ids
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


def test_plots_that_cannot_be(found, tmp_path, monkeypatch):
    for name in ("path.txt", "path"):
        with pytest.raises(ValueError, match=r"path must end in \.png"):
            found.plot(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.plot(tmp_path / "absent" / "path.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"cvxrelu\[report\]"):
        found.plot(tmp_path / "path.png")
    assert not list(tmp_path.iterdir())


def test_a_path_of_one_point_can_be_drawn():
    pytest.importorskip("matplotlib")
    single = path(X, Y, betas=1, cv=2)
    assert single.n_neurons.tolist() == [0]
    assert len(single.plot().axes) == 4


def test_save(validated, tmp_path):
    folder = tmp_path / "networks"
    validated.save(folder)
    record = json.loads((folder / "path.json").read_text())
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    assert [point["file"] for point in record["points"]] == files
    for i, point in enumerate(record["points"]):
        assert cvxrelu.ReLUNetwork.load(folder / point["file"]).allclose(validated.solutions[i].network)
        assert point["beta"] == validated.betas[i] and point["lower_bound"] == validated.lower_bounds[i]
        assert point["score"] == validated.scores[i] and point["fold_scores"] == validated.fold_scores[i].tolist()
        assert (point["certificate"], point["rigorous"]) == ("priced", False)
    assert record["best_index"] == validated.best_index
    with pytest.raises(FileExistsError, match="exists already"):
        validated.save(folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        validated.save(tmp_path / "file")
    single = dataclasses.replace(validated, fold_scores=validated.fold_scores[:, :1])
    single.save(str(tmp_path / "single"))
    assert json.loads((tmp_path / "single" / "path.json").read_text())["points"][0]["score_error"] is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "networks", "single"]


def test_a_save_that_fails_leaves_nothing(validated, tmp_path, monkeypatch):
    def save(self, file: FilePath) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(cvxrelu.ReLUNetwork, "save", save)
    with pytest.raises(OSError, match="disk full"):
        validated.save(tmp_path / "networks")
    assert not list(tmp_path.iterdir())


# -- bad input -------------------------------------------------------------------------------------------------------
ROWS = np.arange(60)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"betas": 0}, ValueError, "betas must be a positive number of values, or the values themselves, got 0"),
        ({"betas": True}, TypeError, "betas must be an integer or an array of positive values, got True"),
        ({"betas": 3.0}, TypeError, "betas must be an integer or an array of positive values, got 3.0"),
        ({"betas": None}, TypeError, "betas must be an integer or an array"),
        ({"betas": []}, ValueError, "betas must hold at least one value"),
        ({"betas": [1.0, -2.0]}, ValueError, "betas must hold at least one value, all positive, got [1.0, -2.0]"),
        ({"betas": [1.0, np.inf]}, ValueError, "betas must be finite"),
        ({"betas": [[1.0]]}, ValueError, "betas must have 1 dimension"),
        ({"smallest": 1.0}, ValueError, "smallest must be a number strictly between 0 and 1, got 1.0"),
        ({"tol": 0}, ValueError, "tol must be"),
        ({"time_limit": -1}, ValueError, "time_limit must be"),
        ({"certificate": "sure"}, ValueError, "certificate must be"),
        ({"certificate": "exact", "intercept": True}, ValueError, "rank at most 3"),
        ({"loss": "hinge"}, ValueError, "loss must be"),
        ({"verbose": 1}, TypeError, "verbose must be True or False, got 1"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"callback": 3}, TypeError, "callback must be callable or None, got 3"),
        ({"backend": "abacus"}, ValueError, "backend must be"),
        ({"dtype": "int8"}, ValueError, "dtype must be"),
        ({"sample_weight": -np.ones(60)}, ValueError, "sample_weight must be nonnegative"),
        ({"cv": 1}, ValueError, "cv must be at least 2 and at most 60, the number of rows, got 1"),
        ({"cv": 61}, ValueError, "cv must be at least 2 and at most 60"),
        ({"cv": 2.5}, TypeError, "cv must be None, an integer or a list of (train, test) pairs of rows, got 2.5"),
        ({"cv": []}, ValueError, "cv has no (train, test) pair"),
        ({"cv": [ROWS]}, ValueError, "cv[0] must be a pair (train, test)"),
        ({"cv": [(ROWS[:9], ROWS[8:])]}, ValueError, "cv[0] trains and tests on the same row 8 (1 such rows)"),
        ({"cv": [(ROWS[:9], [])]}, ValueError, "cv[0], test, must be integers"),
        ({"cv": [(ROWS[:9], [60])]}, ValueError, "cv[0], test, must be distinct rows from 0 to 59"),
        ({"cv": [([1, 1], [2])]}, ValueError, "cv[0], train, must be distinct rows"),
        ({"cv": [(ROWS < 9, (ROWS > 9)[:50])]}, ValueError, "cv[0], test, must be integers, or a mask of shape (60,)"),
        ({"cv": 60}, ValueError, "cv[0] has test rows whose targets are all the same"),
        (
            {"cv": [(ROWS[:30], ROWS[30:])], "sample_weight": 1.0 * (ROWS < 30)},
            ValueError,
            "cv[0], test, has no row of positive sample_weight",
        ),
        ({"cv": 2, "scorer": "accuracy"}, ValueError, "scorer must be None, one of 'r2', 'neg_mean_squared_error'"),
        ({"cv": 2, "scorer": 3}, ValueError, "scorer must be None"),
        ({"loss": "logistic"}, ValueError, "y must hold -1 and +1 only with loss='logistic'"),
        ({"pairs": [[0, 0]]}, ValueError, "pairs must compare different rows"),
        ({"skip_l2": 1.0}, ValueError, "skip_l2=1.0 needs skip='bias' or 'linear'"),
    ],
)
def test_bad_input_is_refused_before_any_work(monkeypatch, around_solves, options, error, says):
    def no_work(*args, **given):
        pytest.fail("work was done")

    around_solves(no_work)
    monkeypatch.setattr(MODULE, "of_network_program", no_work)
    with pytest.raises(error, match=re.escape(says)):
        path(X, Y, **options)


def test_data_that_cannot_be():
    with pytest.raises(ValueError, match="y is required"):
        path(X)
    with pytest.raises(ValueError, match="y must have shape"):
        path(X, Y[:-1])
    with pytest.raises(ValueError, match="betas=50 asks for values from beta_max down, but beta_max is 0"):
        path(X, np.zeros(60))
    assert path(X, np.zeros(60), betas=[1.0, 0.5]).n_neurons.tolist() == [0, 0]


def test_scores_that_are_no_numbers_are_refused():
    for value in (np.nan, "good", None):
        with pytest.raises(ValueError, match="scorer must return a finite number"):
            path(X, Y, **QUICK, cv=2, scorer=lambda network, X, y, value=value: value)
