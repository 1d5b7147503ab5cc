"""How an estimator chooses beta itself: a path from `beta_max` down on every fold, and one fit on all rows.

On each fold data are prepared once, and every solve starts from the network of the beta before. Of these networks only
the order of their held-out scores is wanted: each is refined until that slows down, and nothing is proven of it. The
path ends where the scores have turned, so that small betas, the dear ones, are only solved where they pay.

Source: as LassoCV of scikit-learn; the multiplication of beta by the share of a fold's weight as in `cross_validation`.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_sample_weight

from cvxrelu.api.beta_max import of_network_program
from cvxrelu.api.prepared import Prepared, prepare
from cvxrelu.api.standardised import Scaled, standardise
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status
from cvxrelu.support.checks import as_finite_array, as_fraction, as_positive, as_seed, short

__all__ = ["ChoosesBeta"]

FINAL = 0.3  # of a time limit, for the fit on all rows


class _Fold:
    """The training rows of a fold, standardised and prepared; the test rows; where its path has got to."""

    def __init__(self, train: tuple[Any, ...], test: tuple[Any, ...], share: float, options: dict[str, Any]) -> None:
        X, targets, weight = train
        self.test, self.share = test, share
        self.scaled = standardise(X, targets, weight, intercept=options["intercept"], loss=options["loss"])
        part = {**options, "skip_l2": options["skip_l2"] * share}
        self.prepared = prepare(self.scaled.features, self.scaled.targets, sample_weight=weight, **part)
        self.last: Solution | None = None

    def solve(self, beta: float, settings: Settings, deadline: float) -> ReLUNetwork | None:
        """The next network of the path, for raw features; None where the time is over."""
        left = deadline - time.perf_counter()
        if left <= 0:
            return None
        found = self.prepared.solve(beta * self.share, replace(settings, time_limit=left), warm_start=self.last)
        if found.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        if found.status is Status.TIME_LIMIT:
            return None
        self.last = found
        return self.scaled.raw(found.network)


class ChoosesBeta:
    """What the two estimators share: the path, its scores, and the fit on all rows."""

    _default_scoring = "neg_mean_squared_error"

    def _fit(self: Any, X: np.ndarray, targets: np.ndarray, sample_weight: Any, loss: str = "squared") -> ReLUNetwork:
        started = time.perf_counter()
        seed = as_seed(0 if self.random_state is None else self.random_state)
        settings = Settings.read(
            refine=True, certificate=self.certificate, tol=self.tol, time_limit=self.time_limit, dtype=self.dtype,
            seed=seed,
        )  # fmt: skip
        path_tol = as_positive("path_tol", self.path_tol)
        loose = replace(settings, tol=path_tol, certificate="priced", rough=True)
        count, given = self._read_betas()
        if self.patience is not None and (isinstance(self.patience, bool) or not self.patience >= 1):
            raise ValueError(f"patience must be None or a positive integer, got {short(self.patience)}")
        scorer = get_scorer(self.scoring or self._scoring(loss)) if not callable(self.scoring) else self.scoring
        options = {
            "settings": settings, "loss": loss, "intercept": self.intercept, "skip": self.skip,
            "skip_l2": self.skip_l2, "backend": self.backend,
        }  # fmt: skip
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        whole = (X, targets, weight)
        scaled, prepared = self._all_rows(whole, options)
        largest = of_network_program(prepared.problem, prepared.space, seed)
        self.betas_ = (largest or 1.0) * (np.geomspace(1.0, given[-1], count) if count else given)
        folds = [_Fold(train, test, share, options) for train, test, share in self._folds(whole, seed)]
        deadline = started + (1.0 - FINAL) * settings.time_limit
        self._walk(folds, scorer, loose, deadline)
        self.best_index_ = int(np.argmax(self.score_path_.mean(axis=1)))  # of equal ones the largest beta
        self.beta_ = float(self.betas_[self.best_index_])
        self.best_score_ = float(self.score_path_[self.best_index_].mean())
        self.solution_ = prepared.solve(self.beta_, settings, started=started)
        if self.solution_.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        self.n_iter_ = max(1, self.solution_.n_rounds)
        self.network_ = scaled.raw(self.solution_.network)
        return self.network_

    def _walk(self: Any, folds: list[_Fold], scorer: Any, settings: Settings, deadline: float) -> None:
        """Down the betas until the scores have turned, the betas end or the time does; at least one point."""
        scores: list[list[float]] = []
        with Parallel(n_jobs=self.n_jobs, prefer="threads") as parallel:
            for i, beta in enumerate(self.betas_):
                until = deadline if scores else np.inf
                networks = parallel(delayed(fold.solve)(float(beta), settings, until) for fold in folds)
                if any(network is None for network in networks):
                    break
                scores.append([self._score(scorer, *pair) for pair in zip(folds, networks, strict=True)])
                means = np.mean(scores, axis=1)
                if self.verbose:
                    widths = [network.n_neurons for network in networks]
                    print(f"beta {beta:.4g}: score {means[-1]:.6g}, {min(widths)} to {max(widths)} neurons", flush=True)
                if self.patience is not None and i - int(np.argmax(means)) >= self.patience:
                    break
        self.betas_ = self.betas_[: len(scores)]
        self.score_path_ = np.array(scores)

    def _score(self: Any, scorer: Any, fold: _Fold, network: ReLUNetwork) -> float:
        """That of this estimator with a network on the test rows of a fold."""
        model = copy.copy(self)
        model.network_ = network
        X, targets, weight = fold.test
        labels = self._labels(targets)
        value = scorer(model, X, labels) if weight is None else scorer(model, X, labels, sample_weight=weight)
        if not np.isfinite(value):
            raise ValueError(f"scoring must give finite numbers, got {short(value)}")
        return float(value)

    def _all_rows(self: Any, whole: tuple[Any, ...], options: dict[str, Any]) -> tuple[Scaled, Prepared]:
        X, targets, weight = _counting(*whole)
        scaled = standardise(X, targets, weight, intercept=options["intercept"], loss=options["loss"])
        return scaled, prepare(scaled.features, scaled.targets, sample_weight=weight, **options)

    def _folds(self: Any, whole: tuple[Any, ...], seed: int) -> list[tuple[Any, Any, float]]:
        """(training rows, test rows, share of the weight that is on the training rows) of every fold."""
        X, targets, weight = whole
        labels, classifier, cv = self._labels(targets), is_classifier(self), self.cv
        if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
            if not 2 <= cv <= len(X):
                raise ValueError(f"cv must be at least 2 and at most n_samples = {len(X)}, got {cv}")
            cv = (StratifiedKFold if classifier else KFold)(int(cv), shuffle=True, random_state=seed)
        found = []
        mass = np.ones(len(X)) if weight is None else weight
        for i, (train, test) in enumerate(check_cv(cv, labels, classifier=classifier).split(X, labels)):
            if not (mass[train].any() and mass[test].any()):
                raise ValueError(f"cv: fold {i} has no training or no test row of positive sample_weight")
            if classifier and (missing := np.setdiff1d(labels, labels[train])).size:
                raise ValueError(f"cv: fold {i} has no training row of class {str(missing[0])!r}; give fewer folds")
            parts = [
                _counting(X[rows], targets[rows], None if weight is None else weight[rows]) for rows in (train, test)
            ]
            found.append((parts[0], parts[1], float(mass[train].sum() / mass.sum())))
        return found

    def _read_betas(self: Any) -> tuple[int, np.ndarray]:
        """(number of values, [the smallest]) or (0, values in falling order), as shares of `beta_max`."""
        betas = self.betas
        if isinstance(betas, (int, np.integer)) and not isinstance(betas, bool):
            if betas < 1:
                raise ValueError(f"betas must be a positive number of values, or the values themselves, got {betas}")
            return int(betas), np.array([as_fraction("smallest", self.smallest)])
        if isinstance(betas, (bool, float, str)) or betas is None:
            raise TypeError(f"betas must be an integer or an array of positive shares of beta_max, got {short(betas)}")
        values = as_finite_array("betas", betas, ndim=(1,)).astype(np.float64)
        if values.size == 0 or values.min() <= 0:
            raise ValueError(f"betas must hold at least one value, all positive, got {short(betas)}")
        return 0, np.sort(values)[::-1]

    def _scoring(self, loss: str) -> str:
        return self._default_scoring

    def _labels(self, targets: np.ndarray) -> np.ndarray:
        return targets


def _counting(X: np.ndarray, targets: np.ndarray, weight: np.ndarray | None) -> tuple[Any, Any, Any]:
    """The rows of positive weight."""
    if weight is None:
        return X, targets, None
    keep = weight > 0
    return X[keep], targets[keep], weight[keep]
