"""scikit-learn estimators: a regressor and a classifier whose fit is one certified solve.

Both standardise the features inside (weighted mean and standard deviation of the training rows) and fold that into
`network_`, which therefore takes raw features; `solution_` speaks of the standardised problem.
"""

from __future__ import annotations

import warnings
from typing import Any

import array_api_compat
import numpy as np
from scipy.sparse import issparse
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from cvxrelu.api.guards import refuse_text
from cvxrelu.api.standardised import solve_standardised
from cvxrelu.backends.choose import the_arrays_own
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.runs.status import Status
from cvxrelu.support.checks import refuse_sparse
from cvxrelu.support.host import to_host

__all__ = ["ConvexReLUClassifier", "ConvexReLURegressor"]


class _ConvexReLU(BaseEstimator):
    """Parameters and the fit that the two estimators share."""

    def __init__(
        self,
        beta: float = 0.1,
        *,
        relative: bool = True,
        intercept: bool = True,
        skip: bool | str = False,
        skip_l2: float = 0.0,
        refine: bool = True,
        certificate: str = "priced",
        patterns: int = 128,
        tol: float = 1e-3,
        max_iter: int | None = None,
        time_limit: float | None = None,
        backend: str = "auto",
        dtype: Any = None,
        linear_solver: str = "auto",
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.beta = beta
        self.relative = relative
        self.intercept = intercept
        self.skip = skip
        self.skip_l2 = skip_l2
        self.refine = refine
        self.certificate = certificate
        self.patterns = patterns
        self.tol = tol
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.backend = backend
        self.dtype = dtype
        self.linear_solver = linear_solver
        self.random_state = random_state
        self.verbose = verbose

    def _fit(
        self, X: np.ndarray, targets: np.ndarray, sample_weight: Any, backend: Any, loss: str = "squared"
    ) -> ReLUNetwork:
        """Solve on standardised data; returns the network for raw features and targets."""
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            keep = weight > 0  # a row of weight zero would still have a say in activation patterns
            X, targets, weight = X[keep], targets[keep], weight[keep]
        solved = solve_standardised(
            X, targets, beta=self.beta, relative=self.relative, intercept=self.intercept, sample_weight=weight,
            loss=loss, skip=self.skip, skip_l2=self.skip_l2, refine=self.refine, certificate=self.certificate,
            patterns=self.patterns, tol=self.tol,
            seed=as_seed_of(self.random_state), max_iter=self.max_iter,
            time_limit=self.time_limit, backend=backend, dtype=self.dtype, linear_solver=self.linear_solver,
            verbose=self.verbose,
        )  # fmt: skip
        self.solution_, self.network_, self.beta_ = solved.solution, solved.network, solved.beta
        self.n_iter_ = max(1, self.solution_.n_rounds if self.refine else self.solution_.n_iter)
        warn_unless_solved(self.solution_)
        return self.network_

    def _predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = _host(X)
        if getattr(X, "shape", ())[1:] == (self.n_features_in_,):  # else that is what is wrong
            refuse_text(X)
        return np.asarray(self.network_.predict(validate_data(self, X, reset=False, dtype=[np.float64, np.float32])))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True  # made dense
        return tags


class ConvexReLURegressor(RegressorMixin, _ConvexReLU):
    """Two-layer ReLU regression to a certified gap from the global optimum.

        minimise  sum_k weight_k / 2 |f(x_k) - y_k|^2 + beta sum_j |w_j| |a_j|      on standardised features and targets

    Parameters
    ----------
    beta : regularisation; with `relative=True` a fraction of `beta_max`, from which on the network is zero, else
        absolute.
    relative : see beta.
    intercept : append a constant column for the neurons, penalised with them. Without it features are scaled, not
        centred.
    skip, skip_l2 : an output bias or linear function beside the neurons, and its ridge, as in `cvxrelu.solve`.
    refine : True solves the network program above; False the sampled program alone, of which `beta_max` then is.
    certificate : "priced" (an estimate), "relaxed", "branch" or "exact" (rigorous): kind of the bound in `solution_`.
    patterns, max_iter, linear_solver : of the sampled program: used with `refine=False` only.
    tol, time_limit, backend, dtype, verbose : as in `cvxrelu.solve`.
    random_state : nonnegative integer seed of the search, or a RandomState that draws one; None means 0.

    X may be a sparse matrix of SciPy, which is made dense. A fit whose gap is above tol is kept, with scikit-learn's
    ConvergenceWarning.

    Attributes
    ----------
    solution_ : the `Solution` in standardised units, with its certificate.
    network_ : `ReLUNetwork` for raw features and targets.
    beta_ : the beta that was solved for, in standardised units.
    n_iter_ : rounds of refinement, or ADMM iterations with `refine=False`; at least 1.
    n_features_in_, feature_names_in_ : as scikit-learn has them.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from cvxrelu import ConvexReLURegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ConvexReLURegressor(beta=0.1).fit(X, y)
    >>> model.score(X, y) > 0.5, model.solution_.gap <= 1e-3
    (True, True)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ConvexReLURegressor:
        """Fit to X (n, d) and y (n,) or (n, c)."""
        backend = the_arrays_own(self.backend, X, y)
        X, y, sample_weight = map(_host, (X, y, sample_weight))
        refuse_text(X)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True)
        self._fit(X, np.asarray(y, dtype=np.float64), sample_weight, backend)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """f(X): (n,), or (n, c) for vector targets."""
        return self._predict(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2, as scikit-learn has it, of arrays of any library."""
        return super().score(X, _host(y), _host(sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class ConvexReLUClassifier(ClassifierMixin, _ConvexReLU):
    """Two-layer ReLU classification to a certified gap from the global optimum.

        loss="squared"    least squares on class indicators: one column for two classes, c for c > 2
        loss="logistic"   the logistic loss for two classes, the multinomial one for c > 2

    One network serves all classes. With "squared" a prediction estimates the class probability, and `predict_proba`
    clips and normalises it; with "logistic" it is the log-odds, or the logits. class_weight multiplies the weights of
    rows: a mapping from class to factor, or "balanced", n / (number of classes * rows of the class). Parameters and
    attributes otherwise as in `ConvexReLURegressor`, and `classes_`. With "logistic" a skip needs `skip_l2` > 0.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from cvxrelu import ConvexReLUClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> ConvexReLUClassifier(loss="logistic").fit(X, y).score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        beta: float = 0.1,
        *,
        loss: str = "squared",
        class_weight: Any = None,
        relative: bool = True,
        intercept: bool = True,
        skip: bool | str = False,
        skip_l2: float = 0.0,
        refine: bool = True,
        certificate: str = "priced",
        patterns: int = 128,
        tol: float = 1e-3,
        max_iter: int | None = None,
        time_limit: float | None = None,
        backend: str = "auto",
        dtype: Any = None,
        linear_solver: str = "auto",
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            beta, relative=relative, intercept=intercept, skip=skip, skip_l2=skip_l2, refine=refine,
            certificate=certificate, patterns=patterns, tol=tol, max_iter=max_iter, time_limit=time_limit,
            backend=backend, dtype=dtype, linear_solver=linear_solver, random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.loss, self.class_weight = loss, class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ConvexReLUClassifier:
        """Fit to X (n, d) and class labels y (n,)."""
        if self.loss not in ("squared", "logistic"):
            raise ValueError(f"loss must be 'squared' or 'logistic', got {self.loss!r}")
        backend = the_arrays_own(self.backend, X, y)
        X, y, sample_weight = map(_host, (X, y, sample_weight))
        refuse_text(X)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if self.classes_.size < 2:
            raise ValueError(
                f"ConvexReLUClassifier needs samples of at least 2 classes, got 1 class: {self.classes_[0]!r}"
            )
        if self.class_weight is not None:
            factor = compute_sample_weight(self.class_weight, y)
            sample_weight = factor if sample_weight is None else factor * _check_sample_weight(sample_weight, X)
        two = self.classes_.size == 2
        if self.loss == "logistic":
            self._fit(X, 2.0 * codes - 1.0 if two else np.eye(self.classes_.size)[codes], sample_weight,
                      backend, "logistic" if two else "multinomial")  # fmt: skip
            return self
        indicators = codes[:, None] == np.arange(self.classes_.size)
        self._fit(X, (indicators[:, 1] if two else indicators).astype(np.float64), sample_weight, backend)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Two classes: log-odds or probability minus 1/2 of the second, (n,). More: logits or estimates, (n, c)."""
        scores = self._predict(X)
        return scores - 0.5 if self.classes_.size == 2 and self.loss == "squared" else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, c) probabilities of the classes; with the squared loss estimates, clipped to [0, 1] and normalised."""
        scores = self._predict(X)
        two = self.classes_.size == 2
        if self.loss == "logistic":
            return np.stack([expit(-scores), expit(scores)], axis=1) if two else softmax(scores, axis=1)
        if two:
            second = np.clip(scores, 0.0, 1.0)
            return np.stack([1.0 - second, second], axis=1)
        clipped = np.clip(scores, 0.0, 1.0)
        total = clipped.sum(axis=1, keepdims=True)
        # All scores at or below zero say nothing about the class but their order: fall back to the largest.
        none = total[:, 0] <= 0
        clipped[none, np.argmax(scores[none], axis=1)] = 1.0
        return clipped / clipped.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """(n, c) logarithms of `predict_proba`; minus infinity where that is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest estimate, (n,)."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if self.classes_.size == 2 else np.argmax(scores, axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of labels that are right, as scikit-learn has it, of arrays of any library."""
        return super().score(X, _host(y), _host(sample_weight))


def as_seed_of(random_state: Any) -> Any:
    """A seed as it is, 0 for None, and one that a RandomState draws."""
    if isinstance(random_state, np.random.RandomState):
        return int(check_random_state(random_state).randint(2**31 - 1))
    return 0 if random_state is None else random_state


def warn_unless_solved(solution: Any) -> None:
    """ConvergenceWarning where the search did not reach tol; a proof that did not is in `solution_.status`."""
    if not solution.success and solution.status not in (Status.INTERRUPTED, Status.UNPROVEN):
        words = f"{solution.status.value}: {solution.message}; the network is kept"
        warnings.warn(words, ConvergenceWarning, stacklevel=4)


def _host(array: Any) -> Any:
    """Arrays of PyTorch, JAX and CuPy as NumPy's, whatever their precision, and sparse ones of SciPy as dense ones."""
    if issparse(array):
        return array.toarray()
    if array_api_compat.is_array_api_obj(array) and not isinstance(array, np.ndarray | np.generic):
        refuse_sparse("X", array)
        return to_host(array)
    return array
