"""The scikit-learn estimators that choose beta by cross-validation, and then fit it on all rows."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils.validation import _check_sample_weight

from cvxrelu.api.beta_search import Held, Part, read_betas, search_beta
from cvxrelu.api.estimators import ConvexReLUClassifier, ConvexReLURegressor, as_seed_of, warn_unless_solved
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.status import Status
from cvxrelu.support.checks import as_seed
from cvxrelu.support.host import to_host

__all__ = ["ConvexReLUClassifierCV", "ConvexReLURegressorCV"]


class _ChoosesBeta:
    """What the two estimators share: folds and scores as scikit-learn has them, and the fit on all rows."""

    def __init__(
        self,
        betas: Any = 13,
        *,
        smallest: float = 1e-3,
        cv: Any = 5,
        scoring: Any = None,
        patience: int | None = 2,
        path_tol: float = 3e-2,
        n_jobs: int | None = None,
        intercept: bool = True,
        skip: bool | str = False,
        skip_l2: float = 0.0,
        certificate: str = "priced",
        tol: float = 1e-2,
        time_limit: float | None = None,
        backend: str = "auto",
        dtype: Any = None,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.betas = betas
        self.smallest = smallest
        self.cv = cv
        self.scoring = scoring
        self.patience = patience
        self.path_tol = path_tol
        self.n_jobs = n_jobs
        self.intercept = intercept
        self.skip = skip
        self.skip_l2 = skip_l2
        self.certificate = certificate
        self.tol = tol
        self.time_limit = time_limit
        self.backend = backend
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def _fit(
        self: Any, X: np.ndarray, targets: np.ndarray, sample_weight: Any, backend: Any, loss: str = "squared"
    ) -> ReLUNetwork:
        started = time.perf_counter()
        seed = as_seed(as_seed_of(self.random_state))
        settings = Settings.read(
            certificate=self.certificate, tol=self.tol, time_limit=self.time_limit, dtype=self.dtype, seed=seed
        )
        shares = read_betas(self.betas, self.smallest)
        scorer = self.scoring if callable(self.scoring) else get_scorer(self.scoring or self._scoring(loss))
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        options = {
            "settings": settings, "loss": loss, "intercept": self.intercept, "skip": self.skip,
            "skip_l2": self.skip_l2, "backend": backend,
        }  # fmt: skip
        found = search_beta(
            Part.of(X, targets, weight), self._folds(X, targets, weight, seed), shares=shares,
            score=lambda network, test: self._score(scorer, network, test), options=options, path_tol=self.path_tol,
            patience=self.patience, n_jobs=self.n_jobs, started=started, verbose=self.verbose,
        )  # fmt: skip
        self.betas_, self.score_path_, self.best_index_, self.beta_ = found.betas, found.scores, found.best, found.beta
        self.best_score_ = float(found.scores[found.best].mean())
        self.solution_ = found.prepared.solve(found.beta, settings, started=started)
        if self.solution_.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        self.n_iter_ = max(1, self.solution_.n_rounds)
        warn_unless_solved(self.solution_)
        self.network_ = found.scaled.raw(self.solution_.network)
        return self.network_

    def _score(self: Any, scorer: Any, network: ReLUNetwork, test: Part) -> float:
        """That of this estimator with another network."""
        model = copy.copy(self)
        model.network_ = network
        weighed = {} if test.weight is None else {"sample_weight": test.weight}
        return float(scorer(model, test.X, self._labels(test.targets), **weighed))

    def _folds(self: Any, X: np.ndarray, targets: np.ndarray, weight: np.ndarray | None, seed: int) -> list[Held]:
        labels, classifier, cv = self._labels(targets), is_classifier(self), self.cv
        if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
            if not 2 <= cv <= len(X):
                raise ValueError(f"cv must be at least 2 and at most n_samples = {len(X)}, got {cv}")
            cv = (StratifiedKFold if classifier else KFold)(int(cv), shuffle=True, random_state=seed)
        mass, found = np.ones(len(X)) if weight is None else weight, []
        for i, (train, test) in enumerate(check_cv(cv, labels, classifier=classifier).split(X, labels)):
            train, test = to_host(train), to_host(test)
            if not (mass[train].any() and mass[test].any()):
                raise ValueError(f"cv: fold {i} has no training or no test row of positive sample_weight")
            if classifier and (missing := np.setdiff1d(labels, labels[train])).size:
                raise ValueError(f"cv: fold {i} has no training row of class {str(missing[0])!r}; give fewer folds")
            parts = [Part.of(X, targets, weight, rows) for rows in (train, test)]
            found.append(Held(parts[0], parts[1], float(mass[train].sum() / mass.sum())))
        return found

    def _scoring(self, loss: str) -> str:
        return "neg_mean_squared_error"

    def _labels(self, targets: np.ndarray) -> np.ndarray:
        return targets


class ConvexReLURegressorCV(_ChoosesBeta, ConvexReLURegressor):
    """`ConvexReLURegressor` with beta by cross-validation.

    Every fold has a path of its own from `beta_max` down, each point warm-started by the one before and refined until
    a round lowers the objective by less than a tenth of path_tol; features and targets are standardised by its training
    rows. In a fold beta and skip_l2 are multiplied by the share of the weight that is on its training rows, because the
    loss is a sum. The best beta is then solved on all rows, and certified.

    Parameters
    ----------
    betas : a number of values, geometric from `beta_max`, where the network is zero, down to `smallest` times that; or
        the values, as shares of `beta_max`, in any order.
    smallest : see betas, in (0, 1).
    cv : a number of folds, of rows in random order by `random_state`; a splitter of scikit-learn; or pairs (train,
        test) of positions, for instance `list(GroupKFold(5).split(X, y, groups))`.
    scoring : None for "neg_mean_squared_error", or a name or a callable as scikit-learn takes it; the larger the
        better. The named ones weigh test rows by sample_weight.
    patience : the path ends after this many betas in a row without a better mean score; None for the whole path.
    path_tol : how far networks along the path are refined, see above. tol : relative gap of the fit on all rows.
    n_jobs : folds solved at a time, in threads; None for 1, -1 for as many as there are cores.
    time_limit : seconds for all; the path takes 0.7 of them at most. At least one beta is tried.
    intercept, skip, skip_l2, certificate, backend, dtype, random_state, verbose : as in `ConvexReLURegressor`;
        verbose prints a line for every beta.

    Attributes
    ----------
    beta_, betas_ : the one chosen, and those tried, in falling order, in the units of the standardised problem.
    score_path_ : (len(betas_), folds) scores. mse_path_ : the mean squared errors, with the default scoring.
    best_index_, best_score_ : of beta_ among betas_, and its mean score.
    solution_, network_, n_iter_, n_features_in_, feature_names_in_ : as in `ConvexReLURegressor`, of the last fit.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from cvxrelu import ConvexReLURegressorCV
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ConvexReLURegressorCV(betas=6, cv=3).fit(X, y)
    >>> model.score(X, y) > 0.4, model.solution_.gap <= 1e-2, model.score_path_.shape[1]
    (True, True, 3)
    """

    @property
    def mse_path_(self) -> np.ndarray:
        """(len(betas_), folds), mean squared errors on the test rows."""
        if self.scoring not in (None, "neg_mean_squared_error"):
            raise AttributeError(f"mse_path_ is there with the default scoring; this path has {self.scoring!r}")
        return -self.score_path_


class ConvexReLUClassifierCV(_ChoosesBeta, ConvexReLUClassifier):
    """`ConvexReLUClassifier` with beta by cross-validation, as `ConvexReLURegressorCV`.

    Parameters and attributes are those, with `loss` as in `ConvexReLUClassifier`. A number of folds is of stratified
    ones; every fold needs training rows of every class. scoring : None for "neg_log_loss" with loss="logistic", else
    "accuracy".

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from cvxrelu import ConvexReLUClassifierCV
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> ConvexReLUClassifierCV(betas=5, smallest=0.02, cv=3).fit(X, y).score(X, y) > 0.95
    True
    """

    def __init__(
        self,
        betas: Any = 13,
        *,
        loss: str = "squared",
        class_weight: Any = None,
        smallest: float = 1e-3,
        cv: Any = 5,
        scoring: Any = None,
        patience: int | None = 2,
        path_tol: float = 3e-2,
        n_jobs: int | None = None,
        intercept: bool = True,
        skip: bool | str = False,
        skip_l2: float = 0.0,
        certificate: str = "priced",
        tol: float = 1e-2,
        time_limit: float | None = None,
        backend: str = "auto",
        dtype: Any = None,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            betas, smallest=smallest, cv=cv, scoring=scoring, patience=patience, path_tol=path_tol, n_jobs=n_jobs,
            intercept=intercept, skip=skip, skip_l2=skip_l2, certificate=certificate, tol=tol, time_limit=time_limit,
            backend=backend, dtype=dtype, random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.loss, self.class_weight = loss, class_weight

    def _scoring(self, loss: str) -> str:
        return "accuracy" if loss == "squared" else "neg_log_loss"

    def _labels(self, targets: np.ndarray) -> np.ndarray:
        """The class of every row, from its signs or indicators."""
        codes = np.argmax(targets, axis=1) if targets.ndim == 2 else (targets > 0).astype(int)
        return self.classes_[codes]
