"""The scikit-learn estimators that choose beta by cross-validation; how they do it is in `beta_search`."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxrelu.api.estimators import ConvexReLUClassifier, ConvexReLURegressor
from cvxrelu.model_selection.beta_search import ChoosesBeta

__all__ = ["ConvexReLUClassifierCV", "ConvexReLURegressorCV"]


class ConvexReLURegressorCV(ChoosesBeta, ConvexReLURegressor):
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
    >>> model.score(X, y) > 0.4, model.solution_.gap <= 1e-3, model.score_path_.shape[1]
    (True, True, 3)
    """

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

    @property
    def mse_path_(self) -> np.ndarray:
        """(len(betas_), folds), mean squared errors on the test rows."""
        if self.scoring not in (None, "neg_mean_squared_error"):
            raise AttributeError(f"mse_path_ is there with the default scoring; this path has {self.scoring!r}")
        return -self.score_path_


class ConvexReLUClassifierCV(ChoosesBeta, ConvexReLUClassifier):
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
        self.loss = loss
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

    def _scoring(self, loss: str) -> str:
        return "accuracy" if loss == "squared" else "neg_log_loss"

    def _labels(self, targets: np.ndarray) -> np.ndarray:
        """The class of every row, from its signs or indicators."""
        codes = np.argmax(targets, axis=1) if targets.ndim == 2 else (targets > 0).astype(int)
        return self.classes_[codes]
