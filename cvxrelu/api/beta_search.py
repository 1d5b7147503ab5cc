"""The beta that predicts best: a path from `beta_max` down on every fold, until held-out scores have turned.

On each fold data are prepared once, and every solve starts from the network of the beta before. Of these networks only
the order of their held-out scores is wanted: each is refined until that slows down, and nothing is proven of it. The
path ends where the scores have turned, so that small betas, the dear ones, are only solved where they pay.

In a fold beta and skip_l2 are multiplied by its share of the weight, because the loss is a sum: see `cross_validation`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.api.beta_max import of_network_program
from cvxrelu.api.prepared import Prepared, prepare
from cvxrelu.api.standardised import Scaled, standardise
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status
from cvxrelu.support.checks import as_finite_array, as_fraction, as_positive, short
from cvxrelu.support.status_line import say

__all__ = ["FINAL", "Chosen", "Held", "Part", "Step", "as_betas", "read_betas", "search_beta"]

FINAL = 0.3  # of a time limit, for the fit on all rows


class Part(NamedTuple):
    """Some rows, all of positive weight; weight None for ones."""

    X: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, "n *c"]
    weight: Float[np.ndarray, " n"] | None

    @classmethod
    def of(cls, X: np.ndarray, targets: np.ndarray, weight: np.ndarray | None, rows: Any = slice(None)) -> Part:
        """Those of these rows that count."""
        if weight is None:
            return cls(X[rows], targets[rows], None)
        keep = weight[rows] > 0
        return cls(X[rows][keep], targets[rows][keep], weight[rows][keep])


class Held(NamedTuple):
    """What a fold trains on and what it is scored on; share of all weight that the first carries."""

    train: Part
    test: Part
    share: float


class Chosen(NamedTuple):
    """betas (k,) tried, in falling order and standardised units, scores (k, folds), best the position of the largest
    mean score; the data of all rows, standardised and prepared; whether the search was interrupted before its end."""

    betas: Float[np.ndarray, " k"]
    scores: Float[np.ndarray, "k folds"]
    best: int
    scaled: Scaled
    prepared: Prepared
    interrupted: bool = False

    @property
    def beta(self) -> float:
        return float(self.betas[self.best])


class Step(NamedTuple):
    """How far a search is: which beta, from 0, how many of its folds are done, the beta that it ends with at the
    earliest, and seconds until its time is over."""

    beta: int
    folds: int
    soonest: int
    limit: float


def as_betas(betas: Any) -> tuple[int, Float[np.ndarray, " k"]]:
    """(number of values below beta_max, none) or (0, values in falling order)."""
    if isinstance(betas, (int, np.integer)) and not isinstance(betas, bool):
        if betas < 1:
            raise ValueError(f"betas must be a positive number of values, or the values themselves, got {betas}")
        return int(betas), np.zeros(0)
    if isinstance(betas, (bool, float, str)) or betas is None:
        raise TypeError(f"betas must be an integer or an array of positive values, got {betas!r}")
    values = as_finite_array("betas", betas, ndim=(1,)).astype(np.float64)
    if values.size == 0 or values.min() <= 0:
        raise ValueError(f"betas must hold at least one value, all positive, got {short(betas)}")
    return 0, np.sort(values)[::-1]


def read_betas(betas: Any, smallest: Any) -> Float[np.ndarray, " k"]:
    """Shares of `beta_max` in falling order: so many down to the smallest, or those given."""
    count, given = as_betas(betas)
    return np.geomspace(1.0, as_fraction("smallest", smallest), count) if count else given


def search_beta(
    whole: Part,
    folds: list[Held],
    *,
    shares: Float[np.ndarray, " k"],
    score: Callable[[ReLUNetwork, Part], float],
    options: dict[str, Any],
    path_tol: Any = 3e-2,
    patience: Any = 2,
    n_jobs: int | None = None,
    started: float | None = None,
    verbose: bool = False,
    watch: Callable[[Step], Any] | None = None,
    keep: bool = False,
) -> Chosen:
    """Walk down the betas on all folds; at least one point is made, whatever the time.

    Parameters
    ----------
    shares : of `beta_max` of all rows, in falling order.
    score : of a network for raw features on the test rows of a fold; the larger the better.
    options : loss, intercept, skip, skip_l2, backend and settings, as `prepare` takes them; the time limit is that of
        everything, of which 1 - FINAL is for the search.
    path_tol : a network of the path is refined until a round lowers its objective by less than a tenth of it.
    patience : betas in a row without a better mean score that end the path; None for no end.
    n_jobs : folds at a time, in threads; None for 1, -1 for as many as there are cores.
    watch : is told of every fold that is done.
    keep : whether a KeyboardInterrupt ends the search with what it has, once there are scores of two betas, the first
        of which gives the zero network. Else it leaves the search.
    """
    settings: Settings = options["settings"]
    started = time.perf_counter() if started is None else started
    quick = replace(settings, tol=as_positive("path_tol", path_tol), certificate="priced", rough=True, verbose=False)
    if patience is not None and (isinstance(patience, (bool, str)) or not patience >= 1):
        raise ValueError(f"patience must be None or a positive integer, got {short(patience)}")
    scaled, prepared = _prepared(whole, options)
    betas = (of_network_program(prepared.problem, prepared.space, settings.seed) or 1.0) * shares
    paths = [_FoldPath(fold, options) for fold in folds]
    deadline, scores = started + (1.0 - FINAL) * settings.time_limit, np.zeros((0, len(folds)))
    workers = 1 if n_jobs is None else (os.cpu_count() or 1) if n_jobs < 0 else max(1, n_jobs)
    interrupted = False

    def solved(path: _FoldPath, i: int, counted: count[int]) -> ReLUNetwork | None:
        network = path.solve(betas[i], quick, deadline if i else np.inf)
        tell(i, next(counted))
        return network

    def tell(i: int, folds_done: int) -> None:
        if watch is not None:
            soonest = i if patience is None else int(np.argmax(scores.mean(axis=1))) + int(patience) if i else i
            watch(Step(i, folds_done, soonest, deadline - time.perf_counter()))

    try:
        with ThreadPoolExecutor(workers) as pool:
            side_by_side: Any = map if workers == 1 else pool.map
            for i, beta in enumerate(betas):
                tell(i, 0)
                networks = list(side_by_side(partial(solved, i=i, counted=count(1)), paths))
                if any(network is None for network in networks):
                    break
                found = [score(network, fold.test) for network, fold in zip(networks, folds, strict=True)]
                if not np.isfinite(found).all():
                    raise ValueError(f"scoring must give finite numbers, got {short(found)}")
                scores = np.vstack([scores, found])
                means = scores.mean(axis=1)
                if verbose:
                    widths = [network.n_neurons for network in networks]
                    say(f"beta {beta:.4g}: score {means[-1]:.6g}, {min(widths)} to {max(widths)} neurons")
                if patience is not None and i - int(np.argmax(means)) >= patience:
                    break
    except KeyboardInterrupt:
        if not keep or len(scores) < 2:
            raise
        interrupted = True
    # Of equal scores the largest beta.
    best = int(np.argmax(scores.mean(axis=1)))
    return Chosen(betas[: len(scores)], scores, best, scaled, prepared, interrupted)


def _prepared(part: Part, options: dict[str, Any]) -> tuple[Scaled, Prepared]:
    X, targets, weight = part
    scaled = standardise(X, targets, weight, intercept=options["intercept"], loss=options["loss"])
    return scaled, prepare(scaled.features, scaled.targets, sample_weight=weight, **options)


class _FoldPath:
    """The path of one fold: its training rows, standardised and prepared, and where it has got to."""

    def __init__(self, fold: Held, options: dict[str, Any]) -> None:
        self.share = fold.share
        self.scaled, self.prepared = _prepared(fold.train, {**options, "skip_l2": options["skip_l2"] * fold.share})
        self.last: Solution | None = None

    def solve(self, beta: float, settings: Settings, deadline: float) -> ReLUNetwork | None:
        """The next network, for raw features; None where the time is over."""
        left = deadline - time.perf_counter()
        if left <= 0:
            return None
        quick = replace(settings, time_limit=left)
        found = self.prepared.solve(float(beta) * self.share, quick, warm_start=self.last)
        if found.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        if found.status is Status.TIME_LIMIT:
            return None
        self.last = found
        return self.scaled.raw(found.network)
