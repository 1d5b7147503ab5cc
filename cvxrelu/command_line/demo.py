"""Two small data sets beside scikit-learn's own models: what `cvxrelu demo` runs.

Every model gets the same rows and three values of its regularisation, compared on a quarter of the training rows, then
one fit on all of them. cvxrelu's comparison runs stop at a larger gap, to keep the demo short. No choice of the search
sees the test rows; tol and the grids were set by hand for running time. Where that takes seconds, the gap of cvxrelu's
last fit is proven too.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.api.certify import certify
from cvxrelu.api.standardised import moments
from cvxrelu.reports.page import Section, write_report
from cvxrelu.reports.text_table import text_table
from cvxrelu.runs.solution import Certificate, Solution
from cvxrelu.runs.status import Status
from cvxrelu.support import status_line

__all__ = ["load_extras", "run_demo"]

_INTRO = (
    "Two data sets that come with scikit-learn, each split once: three quarters of the rows to train on, one quarter "
    "to test on. The plots show how each problem was solved, and how far its network can be from the best one."
)
_NOTE = (
    "Each model was given three values of its regularisation, compared on a quarter of the training rows, and was then "
    "fitted to all training rows; the test rows played no part. cvxrelu stops at a larger gap in the comparison. "
    "Features are standardised on the rows of the fit. The last column is the time of the last fit alone, on this "
    "machine, with BLAS on one thread."
)


@dataclass(frozen=True)
class Model:
    """A model of the comparison: `make(value)` is an unfitted estimator, `grid` the values to choose from."""

    name: str
    option: str
    grid: Sequence[float]
    make: Callable[[float], Any]
    search: Mapping[str, Any] = field(default_factory=dict)  # parameters for the comparison runs alone


@dataclass(frozen=True)
class Fitted:
    """A model with its regularisation chosen, fitted to the training rows."""

    model: Model
    value: float
    estimator: Any
    validation: float
    seconds: float


def run_demo(
    out: str | os.PathLike[str] = "demo-output",
    *,
    quick: bool = False,
    verbose: bool = True,
    seed: int = 0,
    command: str | None = None,
) -> list[Solution]:
    """Train on diabetes and digits, print the scores, and write `report.html` and `<name>.safetensors` into `out`.

    Parameters
    ----------
    out : folder, made if need be; files of an earlier demo are replaced.
    quick : larger gaps, fewer steps of the MLPs, and 400 of the 1797 digits.
    verbose : print progress and scores.
    seed : of the splits and of all models.
    command : what was typed, for the foot of the report.

    Returns
    -------
    The solutions, diabetes first.

    Raises
    ------
    ImportError : scikit-learn or matplotlib is missing; the message names the extra.
    """
    load_extras()
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    say: Callable[[str], None] = status_line.say if verbose else _silent
    sections, solutions = [], []
    for problem in (_diabetes(quick, seed), _digits(quick, seed)):
        # Matrices this small gain nothing from several BLAS threads, and lose much where other programs run too.
        with threadpool_limits(1, user_api="blas"), status_line.status_line(None if verbose else False):
            section, estimator = _run(problem, seed, say)
        path = folder / f"{problem.name}.safetensors"
        estimator.network_.save(path)
        say(f"written: {path}\n")
        sections.append(section)
        solutions.append(estimator.solution_)
    report = write_report(
        folder / "report.html", sections, title="cvxrelu: a demonstration", intro=_INTRO, command=command, seed=seed
    )
    say(f"written: {report}  (open it in a browser)")
    return solutions


def load_extras() -> None:
    """Import what the demo needs beyond the base package, or raise an ImportError that names the extra to install."""
    try:
        importlib.import_module("sklearn")
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError(
            f"the demo needs scikit-learn and matplotlib ({error}); install them with: pip install 'cvxrelu[demo]'"
        ) from error


@dataclass(frozen=True)
class Problem:
    """A data set with the models to compare on it, cvxrelu's first."""

    name: str
    description: str
    X: np.ndarray
    y: np.ndarray
    classes: list[int] | None
    models: Sequence[Model]
    proof: bool = False  # seconds with one output, most of a minute with ten
    target: str = "class"

    @property
    def score_name(self) -> str:
        return "R2" if self.classes is None else "accuracy"


def _diabetes(quick: bool, seed: int) -> Problem:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor
    from sklearn.preprocessing import StandardScaler

    from cvxrelu.api.estimators import ConvexReLURegressor

    X, y = load_diabetes(return_X_y=True)
    tol, steps = (1e-2, 200) if quick else (1e-3, 400)

    def ours(beta: float) -> Any:
        return ConvexReLURegressor(beta=beta, tol=tol, random_state=seed)

    def mlp(alpha: float) -> Any:  # its steps suit targets of unit size only
        network = MLPRegressor(hidden_layer_sizes=(100,), alpha=alpha, max_iter=steps, random_state=seed)
        return TransformedTargetRegressor(_scaled(network), transformer=StandardScaler())

    return Problem(
        "diabetes",
        "442 patients, ten measurements each; the target is the progression of the disease a year later.",
        X,
        y,
        None,
        (
            Model("cvxrelu", "beta/beta_max", (0.3, 0.1, 0.03), ours, {"tol": 1e-2}),
            Model("ridge", "alpha", (3.0, 30.0, 300.0), lambda alpha: _scaled(Ridge(alpha=alpha))),
            Model("MLP, 100 neurons", "alpha", (0.1, 1.0, 10.0), mlp),
        ),
        proof=True,
        target="progression after a year",
    )


def _digits(quick: bool, seed: int) -> Problem:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    from cvxrelu.api.estimators import ConvexReLUClassifier

    X, y = load_digits(return_X_y=True)
    if quick:
        chosen = np.random.default_rng(seed).permutation(len(y))[:400]
        X, y = X[chosen], y[chosen]
    tol, steps = (3e-2, 200) if quick else (1e-2, 400)
    return Problem(
        "digits",
        f"{len(y)} handwritten digits of 8 by 8 pixels; ten one-hot outputs, squared loss.",
        X,
        y,
        list(range(10)),
        (
            Model(
                "cvxrelu",
                "beta/beta_max",
                (0.1, 0.05, 0.025),
                lambda beta: ConvexReLUClassifier(beta=beta, tol=tol, random_state=seed),
                {"tol": 5e-2},
            ),
            Model(
                "logistic regression", "C", (0.01, 0.1, 1.0), lambda C: _scaled(LogisticRegression(C=C, max_iter=1000))
            ),
            Model(
                "MLP, 100 neurons",
                "alpha",
                (0.01, 0.1, 1.0),
                lambda alpha: _scaled(
                    MLPClassifier(hidden_layer_sizes=(100,), alpha=alpha, max_iter=steps, random_state=seed)
                ),
            ),
        ),
    )


def _scaled(estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), estimator)


def _run(problem: Problem, seed: int, say: Callable[..., None]) -> tuple[Section, Any]:
    """Choose, fit and score every model of a problem; returns the report's section and the fitted cvxrelu estimator."""
    from sklearn.model_selection import train_test_split

    def split(X: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        stratify = None if problem.classes is None else y
        return train_test_split(X, y, test_size=0.25, random_state=seed, stratify=stratify)

    X_train, X_test, y_train, y_test = split(problem.X, problem.y)
    search = split(X_train, y_train)
    say(f"== {problem.name}: {problem.description}\n{len(y_train)} training rows, {len(y_test)} test rows\n")
    rows, ours = [], None
    for model in problem.models:
        fitted = _fit(model, search, X_train, y_train, say)
        estimator = fitted.estimator
        name = model.name
        if ours is None:
            ours = estimator
            name += f", {estimator.network_.n_neurons} neurons"
        score, own = (float(estimator.score(*some)) for some in ((X_test, y_test), (X_train, y_train)))
        rows.append({
            "Model": name, "Chosen": f"{model.option} = {fitted.value:g}",
            f"Test {problem.score_name}": round(score, 4), f"Training {problem.score_name}": round(own, 4),
            f"Validation {problem.score_name}": round(fitted.validation, 4),
            "Seconds": float(f"{fitted.seconds:.2g}"),
        })  # fmt: skip
    assert ours is not None
    say("\n" + ours.solution_.summary())
    proof = _prove(ours, X_train, y_train, seed) if problem.proof else None
    if proof is not None:
        say(f"proof           {proof}")
    say("\n" + text_table(rows) + "\n")
    section = Section(
        name=problem.name,
        solution=ours.solution_,
        description=f"{problem.description} {len(y_train)} training rows, {len(y_test)} test rows; beta and objectives "
        "are in standardised units.",
        scores=rows,
        score_note=_NOTE,
        truth=y_test,
        predictions=ours.predict(X_test),
        classes=problem.classes,
        proof=proof,
        score_caption="Scores on rows that were held out, on those trained on, and on those that chose",
        target=problem.target,
    )
    return section, ours


def _prove(estimator: Any, X: np.ndarray, y: np.ndarray, seed: int) -> Certificate:
    """A rigorous certificate of the network of a regressor, for the standardised problem that was solved."""
    (center, scale), (target_center, target_scale) = moments(X), moments(y)
    return certify(
        estimator.solution_, (X - center) / scale, (y - target_center) / target_scale, beta=estimator.beta_,
        kind="relaxed", tol=1e-2, backend=estimator.solution_.backend, seed=seed,
    )  # fmt: skip


def _fit(model: Model, search: Sequence[np.ndarray], X: np.ndarray, y: np.ndarray, say: Callable[..., None]) -> Fitted:
    """Choose the regularisation inside the training rows, then fit all of them."""
    X_fit, X_valid, y_fit, y_valid = search
    scores = []
    with warnings.catch_warnings():
        # A model that stops at its iteration limit is judged by its scores like any other.
        warnings.simplefilter("ignore")
        for k, value in enumerate(model.grid):
            status_line.tell(f"{model.name}: choosing {model.option}, fit {k + 1} of {len(model.grid)}, then the last")
            tried = _stop_if_interrupted(model.make(value).set_params(**model.search).fit(X_fit, y_fit))
            scores.append(float(tried.score(X_valid, y_valid)))
        best = int(np.argmax(scores))
        listed = ", ".join(f"{value:g}: {score:.4f}" for value, score in zip(model.grid, scores, strict=True))
        say(f"{model.name}: validation scores by {model.option}: {listed}")
        final = model.make(model.grid[best])
        if model.search:  # cvxrelu's own: the last fit shows its progress
            final.set_params(verbose=say is not _silent)
        status_line.tell(f"{model.name}: the last fit")
        start = time.perf_counter()
        _stop_if_interrupted(final.fit(X, y))
        seconds = time.perf_counter() - start
    return Fitted(model, model.grid[best], final, scores[best], seconds)


def _stop_if_interrupted(estimator: Any) -> Any:
    """A solve answers Ctrl-C with the best network so far, which is right for `fit`; the demo should end."""
    if hasattr(estimator, "solution_") and estimator.solution_.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return estimator


def _silent(_words: str) -> None:
    pass
