"""A solve on standardised columns, folded back into a network that takes raw features and predicts raw targets.

What the estimators and the command line share: `cvxrelu.solve` itself never rescales anything.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from cvxrelu.api.beta_max import of_network_program, of_sampled_program
from cvxrelu.api.prepared import prepare
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.solution import Solution
from cvxrelu.support.checks import as_bool, as_positive, as_seed, check_scale

__all__ = ["Scaled", "Standardised", "moments", "solve_standardised", "standardise"]


class Standardised(NamedTuple):
    """`solution` and `beta` are in standardised units, `network` is for raw ones, `moments` lie between the two."""

    solution: Solution
    network: ReLUNetwork
    beta: float
    moments: dict[str, Any]


def solve_standardised(
    X: np.ndarray,
    targets: np.ndarray,
    *,
    beta: float,
    relative: bool,
    patterns: Any,
    seed: int,
    loss: str = "squared",
    skip: bool | str = False,
    skip_l2: float = 0.0,
    refine: bool = True,
    intercept: bool = True,
    sample_weight: np.ndarray | None = None,
    **options: Any,
) -> Standardised:
    """Solve on columns of X (n, d), and with the squared loss targets (n,) or (n, c), of mean zero and deviation one.

    Parameters
    ----------
    beta : weight decay; with `relative` a share of `beta_max`: of the network program, or without `refine` of the
        sampled patterns.
    loss, skip, skip_l2 : as in `cvxrelu.solve`; labels stay what they are.
    refine : as in `cvxrelu.solve`: the network program, or the sampled one alone.
    patterns : number of activation patterns to sample; not used with `refine`.
    intercept : append a constant column for the neurons. Without it features are scaled, not centred.
    sample_weight : (n,), positive: weighs the moments too.
    seed, options : as in `cvxrelu.solve`; time_limit counts from this call on.
    """
    started = time.perf_counter()
    if isinstance(patterns, bool) or not isinstance(patterns, (int, np.integer)) or patterns < 1:
        raise ValueError(f"patterns must be a positive integer, got {patterns!r}")
    beta, relative, seed = as_positive("beta", beta), as_bool("relative", relative), as_seed(seed)
    refine = as_bool("refine", refine)
    scaled = standardise(X, targets, sample_weight, intercept=intercept, loss=loss)
    run = {name: options.pop(name) for name in Settings.keywords() if name in options}
    settings = Settings.read(refine=refine, seed=seed, **run)
    prepared = prepare(
        scaled.features, scaled.targets, settings=settings, beta=1.0 if relative else beta, loss=loss,
        sample_weight=sample_weight, intercept=intercept, skip=skip, skip_l2=skip_l2, patterns=int(patterns), **options,
    )  # fmt: skip
    if relative:
        problem, space = prepared.problem, prepared.space
        largest = of_network_program(problem, space, seed) if refine else of_sampled_program(problem)
        # beta_max is zero when the targets are constant; any beta then gives the zero network.
        beta = beta * (largest or 1.0)
    solution = prepared.solve(beta, settings, started=started)
    return Standardised(solution, scaled.raw(solution.network), float(beta), scaled.moments())


class Scaled(NamedTuple):
    """Data of mean zero and deviation one, and how to get back: raw = center + scale * scaled.

    features (n, d), targets (n,) or (n, c). Without an intercept center is zero, and for losses other than the squared
    one targets are what they were.
    """

    features: np.ndarray
    targets: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    target_center: Any
    target_scale: Any

    def raw(self, network: ReLUNetwork) -> ReLUNetwork:
        """The network for raw features and targets."""
        return network.unstandardise(self.center, self.scale, self.target_center, self.target_scale)

    def moments(self) -> dict[str, Any]:
        return {
            "mean": self.center, "scale": self.scale, "target_mean": self.target_center,
            "target_scale": self.target_scale,
        }  # fmt: skip


def standardise(
    X: np.ndarray, targets: np.ndarray, weight: np.ndarray | None = None, *, intercept: bool = True,
    loss: str = "squared",
) -> Scaled:  # fmt: skip
    """Columns, and with the squared loss targets, less their weighted means and over their weighted deviations."""
    for name, array in (("X", X), ("y", targets)):
        check_scale(name, array, np.dtype(np.float64))
    center, scale = moments(X, weight)
    if not intercept:
        center = np.zeros_like(center)
    features = (X - center) / scale
    if loss != "squared":
        return Scaled(features, targets, center, scale, 0.0, 1.0)
    target_center, target_scale = moments(targets, weight)
    return Scaled(features, (targets - target_center) / target_scale, center, scale, target_center, target_scale)


def moments(values: np.ndarray, weight: np.ndarray | None = None) -> tuple[Any, Any]:
    """Weighted mean and standard deviation of every column, 1 where a column is constant."""
    values = values.astype(np.float64)
    mean = np.average(values, axis=0, weights=weight)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    # A column is constant when its deviation is what rounding makes of its mean.
    flat = deviation <= 1e-12 * np.abs(mean) + np.finfo(np.float64).tiny
    return mean, np.where(flat, 1.0, deviation)
