"""`path`: the network program for falling beta, each point started from the one before and certified.

With f(beta) the optimal value of the network program (N), f is concave and nondecreasing in beta, as a minimum over
networks of functions that are affine in it, and it is constant from `beta_max` on, where the zero network is optimal.
So the path begins there, with no neuron, and every later point has the neurons of the one before to begin with.

Source for the scheme: Friedman, Hastie & Tibshirani, "Regularization paths for generalized linear models via coordinate
descent", Journal of Statistical Software 33, 2010; the rule of one standard error: Breiman et al. 1984.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from cvxrelu.api.beta_max import of_network_program
from cvxrelu.api.beta_search import as_betas
from cvxrelu.api.cross_validation import (
    Fold,
    Samples,
    Scorer,
    as_folds,
    as_scorer,
    check_spread,
    standard_errors,
)
from cvxrelu.api.guards import warn_of_scales
from cvxrelu.api.prepared import Prepared, prepare
from cvxrelu.model_selection.path_solution import Path, path_row
from cvxrelu.program.problem import Problem
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status
from cvxrelu.support.checks import as_finite_array, as_fraction
from cvxrelu.support.host import to_host
from cvxrelu.support.status_line import say

__all__ = ["Path", "path"]


def path(
    X: Any,
    y: Any = None,
    *,
    betas: Any = 50,
    smallest: float = 1e-2,
    cv: Any = None,
    scorer: Any = None,
    loss: str = "squared",
    pairs: Any = None,
    sample_weight: Any = None,
    margin: Any = 0.0,
    intercept: bool = False,
    skip: bool | str = False,
    skip_l2: float = 0.0,
    equality: Any = None,
    tol: float = 1e-3,
    time_limit: float | None = None,
    backend: str = "auto",
    dtype: Any = None,
    certificate: str = "priced",
    seed: int = 0,
    verbose: bool = False,
    callback: Callable[[dict[str, Any]], Any] | None = None,
) -> Path:
    """Solve (N) for falling beta, each point warm-started and certified; choose among them by cross-validation.

        f(beta) = min over networks of  loss(R f(X)) + beta sum_j |w_j| |a_j| + skip_l2/2 |skip|^2

    Parameters
    ----------
    X, y, loss, pairs, sample_weight, margin, intercept, skip, skip_l2, equality, tol, backend, dtype, certificate,
        seed : as in `solve` with `refine=True`. Nothing is rescaled: standardise columns beforehand, or in a pipeline.
    betas : a number k of values, geometric from `beta_max(X, y)`, where the network is zero, down to `smallest` times
        that; or positive values in any order. They are solved and reported in falling order.
    smallest : the last beta as a share of `beta_max`, in (0, 1), when `betas` is a number.
    cv : None; or a number of folds, of samples (rows, or with `pairs` pairs) in random order by `seed`; or pairs
        (train, test) of their positions or masks, as scikit-learn's splitters give. In a fold, beta and skip_l2 are
        multiplied by the share of all weight that is on its training samples, because the loss is a sum. Folds have
        paths of their own, and see nothing of their test samples; pairs that share a row are for the caller to group.
    scorer : for the squared loss "r2" (None, the default) or "neg_mean_squared_error", for the others "neg_log_loss"
        (None) or "accuracy"; or callable as `scorer(network, X, y)`, with pairs `scorer(network, X, y, pairs)`, on test
        samples; the larger the better. The named ones weigh samples by `sample_weight`.
    time_limit : seconds for the whole path, None for no limit. The points complete by then are returned.
    verbose : print one line per point.
    callback : called with a record (dict) after every point: point, beta, objective, lower_bound, gap, n_neurons,
        n_rounds, score, score_error, time; a true result stops the path.

    Returns
    -------
    Path : with k points, or those complete when the time limit, the callback or Ctrl-C ended it.

    Raises
    ------
    ValueError, TypeError
        For bad input, naming argument, value and expectation, before any work; a number of betas where `beta_max` is 0.
    BackendError
        As `solve`.

    Warns
    -----
    UserWarning
        Once, where `solve` would warn of the mean of y or of the scales of columns.

    Notes
    -----
    A point's certificate is of the kind asked for; the folds, which are only scored, are refined until a round lowers
    the objective by less than a tenth of tol, as by `solve(refine="rough")`. Points that do not
    reach tol are kept, with bounds that hold as ever: see `Path.status` and `Solution.status`.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((100, 3)); y = np.maximum(X[:, 0], 0) + 0.1 * rng.standard_normal(100)
    >>> found = path(X, y, betas=5, cv=4)
    >>> int(found.n_neurons[0]), bool(found.gaps.max() <= 1e-3), bool(found.scores[found.best_index] > 0.9)
    (0, True, True)
    """
    started = time.perf_counter()
    settings = Settings.read(
        certificate=certificate, tol=tol, time_limit=time_limit, dtype=dtype, seed=seed, verbose=verbose,
        callback=callback,
    )  # fmt: skip
    smallest = as_fraction("smallest", smallest)
    count, given = as_betas(betas)
    data: dict[str, Any] = {
        "loss": loss, "intercept": intercept, "skip": skip, "skip_l2": skip_l2, "equality": equality,
    }  # fmt: skip
    prepared = prepare(
        X, y, settings=settings, pairs=pairs, sample_weight=sample_weight, margin=margin, backend=backend, **data
    )
    problem = prepared.problem
    samples = _samples(problem, as_finite_array("X", X, ndim=(2,)), pairs, margin)
    name, score = as_scorer(scorer, loss)
    folds = [] if cv is None else as_folds(cv, samples.weight, settings.seed)
    if name == "r2" and (scorer is None or isinstance(scorer, str)):
        check_spread(folds, problem.plain.y, samples.weight)

    if count:
        largest = of_network_program(problem, prepared.space, settings.seed)
        if largest == 0:
            raise ValueError(
                f"betas={count} asks for values from beta_max down, but beta_max is 0: the best network is zero for "
                "every beta. Give y that X can explain, or betas as an array"
            )
        given = largest * np.geomspace(1.0, smallest, count)
    warn_of_scales(problem)
    held_out = [
        _HeldOut(_fold_rows(samples, fold, data, settings, prepared.backend.name), samples.take(fold.test))
        for fold in folds
    ]
    walk = _Walk(given, _Rows(prepared), held_out, score, settings=settings, started=started)
    status = walk.run()
    plain = {
        "n": problem.X.shape[0], "d": problem.n_features, "c": problem.n_outputs,
        "loss": loss, "tol": settings.tol, "certificate": settings.certificate, "intercept": problem.intercept,
        "skip": problem.skip_kind, "seed": settings.seed, "backend": prepared.backend.name, "betas": given.size,
        "cv": len(folds), "scorer": name
    }  # fmt: skip
    return walk.path(status, plain)


def _samples(problem: Problem, X: np.ndarray, pairs: Any, margin: Any) -> Samples:
    """What the loss sums over, as `solve` takes it."""
    m = problem.plain.y.shape[0]
    y = problem.plain.y[:, 0] if problem.scalar_output else problem.plain.y
    margins = np.broadcast_to(to_host(margin).astype(np.float64), (m,))
    rows = None if pairs is None else to_host(pairs)
    return Samples(X, y, problem.plain.weight[:, 0], margins, rows)


class _OutOfTime(Exception):
    """The time limit came before the point was complete."""


@dataclass
class _Rows:
    """The rows that one sequence of solves is on, prepared once, and where it has got to.

    share : of all weight, that beta is multiplied by.
    """

    prepared: Prepared
    share: float = 1.0
    last: Solution | None = None

    def solve(self, beta: float, settings: Settings, deadline: float) -> Solution:
        """The next point, from the network of the last one."""
        left = deadline - time.perf_counter()
        if left <= 0:
            raise _OutOfTime
        found = self.prepared.solve(beta * self.share, replace(settings, time_limit=left), warm_start=self.last)
        if found.status is Status.TIME_LIMIT:
            raise _OutOfTime
        if found.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        self.last = found
        return found


class _HeldOut(NamedTuple):
    """A fold: the rows to train on, and the samples to score on."""

    rows: _Rows
    test: Samples


def _fold_rows(samples: Samples, fold: Fold, data: dict[str, Any], settings: Settings, backend: str) -> _Rows:
    """The training rows of a fold, prepared; beta and skip_l2 are multiplied by their share of the weight."""
    X, y, weight, margin, pairs = samples.take(fold.train)
    part = {**data, "skip_l2": data["skip_l2"] * fold.share}
    prepared = prepare(
        X, y, settings=replace(settings, certificate="priced"), pairs=pairs, sample_weight=weight, margin=margin,
        backend=backend, **part,
    )  # fmt: skip
    return _Rows(prepared, fold.share)


class _Walk:
    """Down the path: at every beta a solve on all rows and one on each fold, so that a path cut short is complete."""

    def __init__(
        self, betas: np.ndarray, rows: _Rows, folds: list[_HeldOut], score: Scorer, *, settings: Settings,
        started: float,
    ) -> None:  # fmt: skip
        self.betas, self.rows, self.folds, self.score = betas, rows, folds, score
        self.settings, self.started = settings, started
        self.quiet = replace(settings, verbose=False, callback=None)  # of one point: what is told is told of the path
        self.solutions: list[Solution] = []
        self.fold_scores: list[list[float]] = []
        self.timings = {"beta_max": time.perf_counter() - started, "solve": 0.0, "cross_validate": 0.0}

    def run(self) -> Status:
        """Solve until the betas, the time or the user's patience end."""
        settings = self.settings
        try:
            for i, beta in enumerate(self.betas):
                self._point(float(beta))
                record = self._record(i, time.perf_counter() - self.started)
                if settings.verbose:
                    score = (record["score"], record["score_error"]) if self.folds else None
                    say(path_row(float(beta), self.solutions[i], score, header=i == 0))
                if settings.callback is not None and settings.callback(record):
                    return Status.INTERRUPTED
        except KeyboardInterrupt:
            return Status.INTERRUPTED
        except _OutOfTime:
            return Status.TIME_LIMIT
        ended = [found.status for found in self.solutions if found.status is not Status.OPTIMAL]
        return next((status for status in ended if not status.success), next(iter(ended), Status.OPTIMAL))

    def _point(self, beta: float) -> None:
        """Solve and score at one beta; nothing is kept of a point that is not complete."""
        begun, deadline = time.perf_counter(), self.started + self.settings.time_limit
        solution = self.rows.solve(beta, self.quiet, deadline)
        solved = time.perf_counter()
        scores = []
        for fold in self.folds:
            found = fold.rows.solve(beta, replace(self.quiet, certificate="priced", rough=True), deadline)
            scores.append(self.score(found.network, fold.test))
        self.timings["solve"] += solved - begun
        self.timings["cross_validate"] += time.perf_counter() - solved
        self.fold_scores.append(scores)
        self.solutions.append(solution)

    def _record(self, i: int, elapsed: float) -> dict[str, Any]:
        """What the callback is told of point i."""
        solution, scores = self.solutions[i], np.array([self.fold_scores[i]])
        return {
            "point": i, "beta": float(self.betas[i]), "objective": solution.objective,
            "lower_bound": solution.lower_bound, "gap": solution.gap, "n_neurons": solution.network.n_neurons,
            "n_rounds": solution.n_rounds, "score": float(scores.mean()) if self.folds else None,
            "score_error": float(standard_errors(scores)[0]) if self.folds else None, "time": elapsed,
        }  # fmt: skip

    def path(self, status: Status, settings: dict[str, Any]) -> Path:
        """The points so far."""
        done = len(self.solutions)
        scores = np.array(self.fold_scores, dtype=np.float64).reshape(done, len(self.folds)) if self.folds else None
        timings = {**self.timings, "total": time.perf_counter() - self.started}
        return Path(self.betas[:done], tuple(self.solutions), scores, status, self._message(status), timings, settings)

    def _message(self, status: Status) -> str:
        done, wanted = len(self.solutions), len(self.betas)
        if done < wanted:
            why = {Status.TIME_LIMIT: "time_limit reached", Status.INTERRUPTED: "stopped by the user"}[status]
            start = f"{why} after {done} of {wanted} points"
        else:
            unproven = sum(found.status is Status.UNPROVEN for found in self.solutions)
            missed = sum(not found.success for found in self.solutions) - unproven
            words = [f"{missed} of {done} points did not reach tol"] if missed else []
            if unproven:
                words.append(f"{unproven} of {done} points reached tol by the search's estimate, and are not proven to")
            start = "; ".join(words) or f"{done} points"
        if done == 0:
            return start
        certificate = max(self.solutions, key=lambda found: found.gap).certificate
        nature = "rigorous" if certificate.rigorous else "an estimate"
        return f"{start}; largest gap {certificate.gap:.1e} by the {certificate.kind} bound, {nature}"
