"""The problem as the solver sees it: validated once, on the host, in float64."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.numerics.rounding import EPS, UNDERFLOW, gamma
from cvxrelu.program.loss import Loss
from cvxrelu.program.patterns import Patterns, as_patterns
from cvxrelu.program.readout import Pairs, adjoint, make_pairs, read
from cvxrelu.program.skip import Skip, Whitened, as_skip, free_directions, make_skip, whiten
from cvxrelu.program.streamed import in_file, read_rows_in_blocks, streamed_patterns
from cvxrelu.program.targets import as_loss, read_pairs, read_targets, read_weight
from cvxrelu.support.checks import (
    BETAS,
    as_bool,
    as_finite_array,
    as_nonnegative,
    as_positive,
    as_seed,
    check_scale,
    working_dtype,
)  # fmt: skip

__all__ = ["Problem", "build_problem", "fits"]


@dataclass(frozen=True)
class Problem:
    """Validated input. X (n, D) float64 with the constant column if asked for; y as (m, c) inside the losses.

    The loss sees `a = R f(X)` for the readout R, without one m = n. `loss` is what remains after the skip: with a
    penalised one that of `R neurons(X) + skip.columns z`, with a free one its minimum over the skip; `plain` is that of
    the whole prediction.
    """

    X: np.ndarray
    loss: Loss
    beta: float
    patterns: Patterns
    n_requested: int
    intercept: bool
    scalar_output: bool
    dtype: np.dtype
    plain: Loss
    loss_name: str = "squared"
    skip: Skip | None = None
    readout: Pairs | None = None

    def at(self, beta: float) -> Problem:
        """The same problem with another beta, > 0; the arrays, and what follows from them, are shared.

        Raises ValueError where the precision cannot work with this beta.
        """
        check_beta(beta, self.dtype)
        other = replace(self, beta=beta)
        other.__dict__["whitened_skip"] = self.whitened_skip
        return other

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, D, P, c)."""
        return (*self.X.shape, self.patterns.patterns.shape[1], self.n_outputs)

    @property
    def n_features(self) -> int:
        """Columns of X without the constant one."""
        return self.X.shape[1] - self.intercept

    @property
    def n_outputs(self) -> int:
        return self.loss.y.shape[1]

    @property
    def penalised_skip(self) -> Skip | None:
        """The skip if it has a penalty, hence coefficients of its own in the program."""
        return self.skip if self.skip is not None and self.skip.l2 > 0 else None

    @functools.cached_property
    def whitened_skip(self) -> Whitened | None:
        """The penalised skip in coordinates in which steps are well scaled."""
        skip = self.penalised_skip
        return None if skip is None else whiten(skip, self.loss.curvature)

    @property
    def skip_kind(self) -> str | bool:
        """As the user says it: False, "bias" or "linear"."""
        return False if self.skip is None else "linear" if self.skip.linear else "bias"

    @property
    def even(self) -> bool:
        """Whether a free skip takes all that is linear: then p is orthogonal to X, and u and -u price alike."""
        skip = self.skip
        if skip is None or skip.l2 > 0 or not skip.linear or skip.basis.shape[0] != skip.basis.shape[1]:
            return False
        return skip.bias or self.readout is not None or not self.intercept

    @functools.cached_property
    def resolution(self) -> float:
        """An objective of at most that is zero but for the rounding of predictions; 0 where losses have no zero."""
        if not self.plain.is_quadratic:
            return 0.0
        return (64.0 * EPS) ** 2 * float(self.plain.value(np.zeros_like(self.plain.y)))

    @property
    def flops(self) -> float:
        """Useful flops of one ADMM iteration, 12 n D P c."""
        return 12.0 * math.prod(self.shape)

    def read(self, values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "m k"]:
        """R values."""
        return read(self.readout, values)

    def pull_back(self, t: Float[np.ndarray, "m c"]) -> tuple[Float[np.ndarray, "n c"], float]:
        """p = R^T t, and what its rounding can change `|p^T (X u)_+|` by for a unit vector u."""
        if self.readout is None:
            return t, 0.0
        size = np.linalg.norm(t, axis=1, keepdims=True)
        first, second = (np.bincount(rows, size[:, 0], len(self.X)) for rows in self.readout[:2])
        degree = np.diff(self.readout.ends, prepend=0)
        slack = EPS * float(np.sum((degree + 4) * (first + second) * np.linalg.norm(self.X, axis=1)))
        return adjoint(self.readout, t), slack

    def noise(self, p: Float[np.ndarray, "n c"], u: Float[np.ndarray, "D k"]) -> float:
        """What rounding of data and directions can change `|p^T (X u)_+|` by, for the worst of the columns of u."""
        terms = np.linalg.norm(p, axis=1) @ (np.abs(self.X) @ np.abs(u))
        return 4.0 * EPS * float(terms.max(initial=0.0))

    def dual_bound(self, t: Float[np.ndarray, "m c"], kappa_max: Any) -> tuple[float, float, Float[np.ndarray, "m c"]]:
        """`D(kappa t) - |columns^T kappa t|^2 / (2 skip_l2)` at the best kappa in [0, kappa_max].

        Returns (bound on the optimum, sum of the magnitudes it was computed from, kappa t). The second term is rounded
        upwards; for the first the caller allows, by the magnitudes.
        """
        skip, quadratic, constant = self.penalised_skip, 0.0, 0.0
        if skip is not None:
            rounding = gamma(*skip.columns.shape)
            pull = (
                UNDERFLOW
                + np.linalg.norm(skip.columns.T @ t)
                + rounding * np.linalg.norm(np.abs(skip.columns.T) @ np.abs(t))
            )
            quadratic, constant = float(pull) ** 2 / skip.l2, skip.constant
        kappa = float(self.loss.best_dual_scale(t, np.asarray(kappa_max, dtype=np.float64), quadratic))
        value, magnitude = self.loss.dual_value(kappa * t)
        ridge = 0.5 * (kappa * quadratic**0.5) ** 2  # the square of kappa alone may overflow
        return float(value) - ridge + constant, float(magnitude) + ridge + constant, kappa * t


def build_problem(
    X: Any,
    y: Any,
    *,
    beta: Any,
    loss: Any = "squared",
    pairs: Any = None,
    sample_weight: Any = None,
    margin: Any = 0.0,
    intercept: Any = False,
    skip: Any = False,
    skip_l2: Any = 0.0,
    equality: Any = None,
    patterns: Any = 1,
    check_patterns: Any = False,
    dtype: Any = None,
    seed: Any = 0,
    sampled: bool = True,
    streamed: bool = False,
) -> Problem:
    """Check every argument and put the problem together, or raise one error that names the argument.

    sampled : False when the sampled program will not be solved: then no patterns are drawn, P = 0.
    streamed : keep X (where it is not a memory map of float64 already) and the patterns in scratch files.
    """
    loss = as_loss(loss)
    host_X = read_rows_in_blocks(X) if streamed else as_finite_array("X", X, ndim=(2,))
    n = host_X.shape[0]
    if 0 in host_X.shape:
        raise ValueError(f"X must have at least one row and one column, got shape {host_X.shape}")
    rows = read_pairs(pairs, n, loss)
    weight = read_weight(sample_weight, n if rows is None else len(rows))
    plain, scalar_output = read_targets(loss, y, weight, margin, rows is not None, host_X.shape)
    working = working_dtype(dtype, host_X.dtype)
    seed = as_seed(seed)
    intercept, check_patterns = as_bool("intercept", intercept), as_bool("check_patterns", check_patterns)
    beta = as_positive("beta", beta)
    check_beta(beta, working)
    kind = as_skip(skip)
    l2 = _read_skip_l2(skip_l2, kind, loss, working)
    if equality is not None and kind != "linear":
        raise ValueError(f"equality needs skip='linear', got skip={skip!r}")

    if streamed:
        data = in_file(host_X, intercept)
    else:
        data = host_X.astype(np.float64)
        if intercept:
            data = np.concatenate([data, np.ones((n, 1))], axis=1)
    if sampled and streamed:
        chosen, n_requested = streamed_patterns(patterns, data, seed, check_patterns)
    elif sampled:
        chosen, n_requested = as_patterns(patterns, data, seed, check_patterns)
    else:
        chosen, n_requested = Patterns(np.zeros((n, 0), dtype=bool), None), patterns
    if sampled and chosen.patterns.shape[1] == 0:
        # All were empty, as one row allows: keep one, whose blocks do nothing.
        chosen = Patterns(np.zeros((n, 1), dtype=bool), None)
    for name, array in (("X", data), ("y", plain.y), ("sample_weight", weight), ("margin", _shift(plain))):
        check_scale(name, array, working)
    readout = None if rows is None else make_pairs(rows, n)
    found, shift = make_skip(data, intercept, kind, l2, equality, readout, plain.y.shape[1])
    remaining = plain if shift is None else plain.shifted(shift)
    if found is not None and l2 == 0:
        remaining = remaining._replace(free=free_directions(found.columns, weight, found.bias))
    return Problem(
        data, remaining, beta, chosen, n_requested, intercept, scalar_output, working, plain, loss, found, readout
    )


def check_beta(beta: float, working: np.dtype) -> None:
    """Refuse a beta beside which this precision would see nothing else, or which it would not see."""
    smallest, largest = BETAS[working.name]
    if not smallest <= beta <= largest:
        raise ValueError(f"beta must lie between {smallest:.0e} and {largest:.0e} for {working.name}, got {beta!r}")


def _read_skip_l2(skip_l2: Any, skip: str | None, loss: str, working: np.dtype) -> float:
    l2, (smallest, largest) = as_nonnegative("skip_l2", skip_l2), BETAS[working.name]
    if l2 > 0 and not smallest <= l2 <= largest:
        raise ValueError(
            f"skip_l2 must be zero or lie between {smallest:.0e} and {largest:.0e} for {working.name}, got {skip_l2!r}"
        )
    if l2 > 0 and skip is None:
        raise ValueError(f"skip_l2={l2!r} needs skip='bias' or 'linear'")
    if l2 == 0 and skip is not None and loss != "squared":
        raise ValueError(
            f"skip_l2 must be positive with skip={skip!r} and loss={loss!r}, got {skip_l2!r}: separable data would "
            "have no minimiser, and no bound would hold"
        )
    return l2


def _shift(loss: Loss) -> np.ndarray:
    """What a loss adds to predictions, margin or offset, and at least 1: a small one does no harm."""
    return np.maximum(np.abs(loss.added), 1.0)


def fits(problem: Problem, working: np.dtype) -> bool:
    """Whether the data are of a size that this precision can work with."""
    smallest, largest = BETAS[working.name]
    loss = problem.loss
    try:
        for array in (problem.X, loss.y, loss.weight, _shift(loss)):
            check_scale("", array, working)
    except ValueError:
        return False
    return smallest <= problem.beta <= largest
