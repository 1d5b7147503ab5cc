"""What `cvxrelu fit` does between a table and a model folder: task, split, solve, scores."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvxrelu.api.beta_search import Chosen, Held, Part, read_betas, search_beta
from cvxrelu.api.cross_validation import as_folds, neg_log_loss, neg_mean_squared_error
from cvxrelu.api.standardised import Standardised, solve_standardised
from cvxrelu.command_line.cells import UserError, is_number
from cvxrelu.command_line.columns import number_column
from cvxrelu.command_line.data import Data
from cvxrelu.command_line.watch import fit_watch, search_watch
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.numerics.ridge import ridge
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status
from cvxrelu.support.status_line import say

__all__ = ["Task", "Trained", "decide_task", "labels", "train"]

FOLDS, BETAS, SMALLEST = 5, 13, 1e-3  # of the search for beta, as of the estimators
OVERFITTED, BEHIND = 0.25, 0.02  # differences in R2 or accuracy that are said
RARE = 0.5  # of an equal share: classes below make balanced accuracy the score


@dataclasses.dataclass(frozen=True)
class Task:
    """A target read for its kind, and its rows split.

    Attributes
    ----------
    kind : "regression" or "classification".
    target : (n,) values, or positions among the classes.
    classes : the labels, for a classification; empty for a regression.
    train_rows, test_rows : row numbers; together all rows.
    """

    data: Data
    kind: str
    target: np.ndarray
    classes: list[Any]
    train_rows: np.ndarray
    test_rows: np.ndarray

    @property
    def facts(self) -> dict[str, Any]:
        """What the network file and solution.json both say of the data."""
        return {
            "task": self.kind,
            "feature_names": self.data.feature_names,
            "n_features": self.data.X.shape[1],
            "target": self.data.target_name,
            "classes": self.classes or None,
        }

    @property
    def layout(self) -> dict[str, Any] | None:
        """Of a table without header: how many columns it has beside the target, and which of them are features."""
        data = self.data
        if data.plan is None or data.target.names is not None:
            return None
        beside = [k for k in range(data.target.n_columns) if k != data.target_index]
        place = {data.target.name(k): i for i, k in enumerate(beside)}
        return {"columns": len(beside), "features": [place[column.name] for column in data.plan.columns]}

    @property
    def columns(self) -> list[dict[str, Any]] | None:
        """How the columns of the table became features, for solution.json; None for arrays."""
        return None if self.data.plan is None else [column.record() for column in self.data.plan.columns]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A solved task: `network` takes raw features; `truth` and `guess` are on the scored `rows`, named by `where`.

    `baseline` holds the same scores for a guess that ignores the features, `baseline_name` says which; `linear` for a
    ridge regression (of class indicators) on the same rows. `on_training` and its like are of the training rows.
    `choice` is how beta was chosen, where it was.
    """

    solution: Solution
    network: ReLUNetwork
    standardisation: dict[str, Any]
    where: str
    truth: np.ndarray
    guess: np.ndarray
    scores: dict[str, float]
    baseline: dict[str, float]
    baseline_name: str
    linear: dict[str, float]
    on_training: dict[str, float]
    linear_on_training: dict[str, float]
    baseline_on_training: dict[str, float]
    choice: Chosen | None = None

    @property
    def doubts(self) -> list[str]:
        """What someone should know before they use the network, in words."""
        if self.network.n_neurons == 0:
            if self.choice is not None:
                until = " by the time of the interrupt" if self.choice.interrupted else ""
                return [f"no network predicted held-out rows better than a constant does{until}, and so does this one"]
            return ["the network has no neuron and predicts a constant: lower --beta"]
        name = next(iter(self.scores))
        here, there, linear = self.scores[name], self.on_training[name], self.linear[name]
        if self.where != "test rows":
            return []
        own = f"{name} {here:.3g}, and {there:.3g} on the rows it was trained on"
        cure = (
            "raise --beta, or have it chosen with --beta auto" if self.choice is None else "there may be too few rows"
        )
        if here <= self.baseline[name]:
            return [
                f"on the test rows the network is no better than the {self.baseline_name} ({own}): {cure}, "
                "or there is nothing to learn"
            ]
        if there - here > OVERFITTED:
            return [f"the network fits the rows it was trained on far better than others ({own}): {cure}"]
        if here < linear - BEHIND:
            return [
                f"on the test rows a ridge regression is better ({name} {linear:.3g}, the network's {here:.3g}): {cure}"
            ]
        return []


def decide_task(data: Data, kind: str, test_size: float, seed: int) -> Task:
    """Read the target as `kind` says ("auto": see `cvxrelu fit --help`) and hold out a share `test_size` of rows."""
    kind, target, classes = _read_target(data, kind)
    train_rows, test_rows = _split(target, test_size, bool(classes), seed)
    if len(train_rows) < 2 or (test_size and not len(test_rows)):
        raise UserError(f"{data.target.path}: {len(target)} rows cannot be split with --test-size {test_size}")
    return Task(data.planned(train_rows), kind, target, classes, train_rows, test_rows)


def train(
    task: Task, *, beta: float | None, relative: bool, patterns: int, seed: int, loss: str | None = None, **options: Any
) -> Trained:
    """Solve on the training rows and score on the test rows, or on the training rows where none were held out.

    loss : "squared", of class indicators in a classification; or "logistic", for classes only, multinomial if they are
    more than two; None: logistic with classes. beta : None for the one that predicts best on held-out parts of the
    training rows. Other parameters are those of `solve_standardised`; `options` are further ones of `cvxrelu.solve`.
    """
    rows, target, classes = task.train_rows, task.target, task.classes
    goal = target[rows]
    if classes:  # an indicator per class; of two classes, that of the second is enough
        goal = (goal[:, None] == np.arange(len(classes))).astype(np.float64)
        goal = goal[:, 1] if len(classes) == 2 else goal
    loss = loss or ("logistic" if classes else "squared")
    if loss == "logistic":
        if not classes:
            raise UserError("--loss logistic is for classes, and the target is taken for numbers: see --task")
        loss, goal = ("logistic", 2.0 * goal - 1.0) if len(classes) == 2 else ("multinomial", goal)
    if np.all(goal == goal[0]):
        raise UserError(
            f"{task.data.target.path}: the target is constant on the training rows; there is nothing to fit"
        )
    started, choice = time.perf_counter(), None
    try:
        if beta is None:
            choice = _choose_beta(task.data.X[rows], goal, loss, seed, options, started)
            beta, relative = choice.beta, False
            if choice.interrupted:
                print(f"cvxrelu: interrupted: beta {beta:.4g} is taken, the best of the {len(choice.betas)} tried; "
                      "Ctrl-C again ends the last fit too, and keeps its network", file=sys.stderr)  # fmt: skip
            if options.get("time_limit") is not None:
                options["time_limit"] = max(1e-3, options["time_limit"] - (time.perf_counter() - started))
        solved = solve_standardised(
            task.data.X[rows], goal, beta=beta, relative=relative, patterns=patterns, seed=seed, loss=loss,
            callback=fit_watch(options["tol"]), **options,
        )  # fmt: skip
    except ValueError as error:  # about an option: the data were checked before
        raise UserError(str(error)) from error
    if choice is not None and choice.interrupted:
        solved = _cut_short(solved, len(choice.betas), options["verbose"])
    network = dataclasses.replace(solved.network, metadata={**solved.network.metadata, **task.facts})

    scored, where = (task.test_rows, "test rows") if len(task.test_rows) else (rows, "training rows")
    if classes:
        constant, name = classes[np.bincount(target[rows]).argmax()], "most frequent class"
    else:
        constant, name = target[rows].mean(), "training mean"

    share = np.bincount(target[rows], minlength=len(classes)) / len(rows) if classes else np.ones(1)
    rare = bool(classes and share.min() < RARE / len(classes))

    def judged(which: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
        """Truth, the network's guess, and the scores of network, constant and ridge regression."""
        truth, guess = target[which], network.predict(task.data.X[which])
        if classes:
            truth, guess = np.array(classes)[truth], np.array(labels(classes, guess, network))
        guesses = (guess, np.full(len(truth), constant), _linear(task, which))
        return truth, guess, [_scores(truth, values, bool(classes), rare) for values in guesses]

    truth, guess, (scores, baseline, linear) = judged(scored)
    _, _, (own, own_baseline, own_linear) = judged(rows)
    return Trained(
        solved.solution, network, solved.moments, where, truth, guess, scores, baseline, name, linear, own,
        own_linear, own_baseline, choice,
    )  # fmt: skip


def _cut_short(solved: Standardised, tried: int, verbose: bool) -> Standardised:
    """As the user's doing: that the last fit was solved says nothing of the betas that were not tried."""
    solution, status = solved.solution, Status.INTERRUPTED
    words = f"stopped by the user while beta was chosen, of which the best of {tried} was taken; the last fit: "
    message = f"{words}{solution.status.value}: {solution.message}"
    if verbose:
        say(f"{status.value}: {message}")
    network = dataclasses.replace(solved.network, metadata={**solved.network.metadata, "status": status.value})
    return solved._replace(
        solution=dataclasses.replace(solution, status=status, message=message), network=network
    )  # fmt: skip


def _linear(task: Task, rows: np.ndarray) -> np.ndarray:
    """What a ridge regression, fitted to the training rows, says of these: values, or labels of the largest output."""
    X, known = task.data.X, task.target[task.train_rows]
    goal = (known[:, None] == np.arange(len(task.classes))).astype(np.float64) if task.classes else known[:, None]
    slopes, constants = ridge(np.asarray(X[task.train_rows], dtype=np.float64), goal)
    output = X[rows] @ slopes + constants
    return np.array(task.classes)[output.argmax(axis=1)] if task.classes else output[:, 0]


def _choose_beta(
    X: np.ndarray, goal: np.ndarray, loss: str, seed: int, options: dict[str, Any], started: float
) -> Chosen:
    """By cross-validation on random folds: mean squared error, of indicators too, or log-loss."""
    name, score = ("squared error", neg_mean_squared_error) if loss == "squared" else ("log-loss", neg_log_loss)

    def scored(network: ReLUNetwork, test: Part) -> float:
        return score(network.predict(test.X), test.targets, np.ones(len(test.X)))

    folds = [
        Held(Part.of(X, goal, None, fold.train), Part.of(X, goal, None, fold.test), fold.share)
        for fold in as_folds(min(FOLDS, len(X)), np.ones(len(X)), seed)
    ]
    settings = Settings.read(
        time_limit=options.get("time_limit"), tol=options["tol"], seed=seed, dtype=options["dtype"]
    )
    program = {
        "settings": settings, "loss": loss, "intercept": True, "skip": False, "skip_l2": 0.0,
        "backend": options["backend"], "memory_limit": options.get("memory_limit"),
    }  # fmt: skip
    if options["verbose"]:
        say(f"beta by {len(folds)}-fold cross-validation, minus the mean {name}:")
    return search_beta(
        Part.of(X, goal, None), folds, shares=read_betas(BETAS, SMALLEST), score=scored, options=program,
        started=started, verbose=options["verbose"], watch=search_watch(BETAS, len(folds)), keep=True,
    )  # fmt: skip


def labels(classes: Sequence[object], output: np.ndarray, network: ReLUNetwork) -> list[object]:
    """The class of each row: a single output estimates the share of the second, or its log-odds; several each class."""
    threshold = 0.0 if network.metadata.get("settings", {}).get("loss") == "logistic" else 0.5
    codes = (output > threshold).astype(int) if output.ndim == 1 else output.argmax(axis=1)
    return [classes[code] for code in codes]


def _read_target(data: Data, kind: str) -> tuple[str, np.ndarray, list[Any]]:
    """The kind, the target (values, or positions among the classes), and the classes (none for a regression)."""
    cells = data.target.text(data.target_index)
    numeric = [is_number(cell) for cell in cells]
    if kind != "classification" and data.columns and not all(numeric):
        # Numbers as people write them, $1,234.50 say; a slip among them is named.
        column = number_column(data.target, data.target_index, data.decimal)
        if column is not None:
            values, unit = column.values(cells), column.style[1:]
            if kind == "regression" or not (unit and _few(values)):
                return "regression", values, []
            kind = "classification"  # few whole numbers are classes with a unit behind them, too: 2bhk and 3bhk
    if kind == "auto":
        # Text alone is a class. Text among numbers is more likely a slip, which reading the numbers then names.
        kind = "regression" if any(numeric) else "classification"
        if all(numeric) and _few(np.array(cells, float)):
            kind = "classification"
    if kind == "regression":
        return kind, data.target.numbers([data.target_index])[:, 0], []
    if all(numeric):
        distinct, codes = np.unique(data.target.numbers([data.target_index])[:, 0], return_inverse=True)
        classes: list[Any] = [int(value) if value == round(value) else float(value) for value in distinct]
    else:
        labels, codes = np.unique(np.array(cells), return_inverse=True)
        classes = [str(label) for label in labels]
    if len(classes) < 2:
        raise UserError(f"{data.target.path}: the target has a single class, {classes[0]}")
    return kind, codes.ravel(), classes


def _few(values: np.ndarray) -> bool:
    """Whether these are whole numbers of few kinds, which are classes rather than amounts."""
    return np.array_equal(values, np.round(values)) and np.unique(values).size <= min(20, len(values) / 5)


def _split(codes: np.ndarray, share: float, stratify: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and testing; with `stratify`, the same share of each class is held out."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(codes == code) for code in np.unique(codes)] if stratify else [np.arange(len(codes))]
    # Rounded down, so that no class is left without training rows.
    test = np.concatenate([rng.permutation(rows)[: int(share * len(rows))] for rows in groups])
    train = np.setdiff1d(np.arange(len(codes)), test)
    return train, np.sort(test).astype(int)


def _scores(truth: np.ndarray, guess: np.ndarray, classes: bool, rare: bool) -> dict[str, float]:
    """R2 and RMSE; or accuracy, and before it the mean over classes where some are rare."""
    if classes:
        found = {"accuracy": float(np.mean(truth == guess))}
        balanced = float(np.mean([np.mean(guess[truth == label] == label) for label in np.unique(truth)]))
        return {"balanced accuracy": balanced} | found if rare else found
    residual, spread = float(np.sum((truth - guess) ** 2)), float(np.sum((truth - truth.mean()) ** 2))
    return {"R2": 1 - residual / spread if spread else float("nan"), "RMSE": float(np.sqrt(residual / len(truth)))}
