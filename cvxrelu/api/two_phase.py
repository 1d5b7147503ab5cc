"""The two-phase recipe of CVX-DPO and COALA: a squared-loss classifier, its first layer frozen, a logistic last layer.

    I    minimise  1/2 sum_k weight_k (f(x_k) - y_k)^2 + beta sum_j |w_j| |a_j|      (S) over sampled patterns, or (N)
    II   minimise over theta  sum_i weight_i log(1 + exp(margin_i - scale y_i theta @ phi_i)) + l2/2 |theta|^2

with phi(x) = (x W)_+ the hidden layer of the balanced network of phase I; with pairs phase I labels the first row of
each pair +1 and the second -1, and phase II sees phi_i = phi(first) - phi(second). Both programs are convex and both
are certified, but nothing certifies the composition: `solve(loss="logistic", pairs=...)` is the single program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cvxrelu.api.guards import warn_of_columns
from cvxrelu.api.prepared import prepare
from cvxrelu.backends.choose import the_arrays_own
from cvxrelu.last_layer.solution import LogisticSolution
from cvxrelu.last_layer.solve import solve_logistic
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.program.targets import read_pairs, read_weight
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.solution import Solution
from cvxrelu.support.checks import as_bool, as_finite_array, as_positive

__all__ = ["TwoPhase", "two_phase"]


class TwoPhase(NamedTuple):
    """`network` predicts `theta @ phi(x)`, without the factor `scale`; the solutions of both phases beside it."""

    network: ReLUNetwork
    classifier: Solution
    last_layer: LogisticSolution


def two_phase(
    X: Any,
    y: Any = None,
    *,
    pairs: Any = None,
    beta: float,
    l2: float,
    scale: float = 1.0,
    margin: Any = 0.0,
    sample_weight: Any = None,
    intercept: bool = False,
    patterns: Any = 128,
    refine: bool = False,
    certificate: str | None = None,
    tol: float = 1e-3,
    last_layer_tol: float = 1e-8,
    time_limit: float | None = None,
    backend: str = "auto",
    seed: int = 0,
) -> TwoPhase:
    """Fit a network to labels or preferences in two convex phases, as CVX-DPO and COALA do.

        I    1/2 sum_k weight_k (f(x_k) - y_k)^2 + beta sum_j |w_j| |a_j|
        II   sum_i weight_i log(1 + exp(margin_i - scale y_i theta @ phi_i)) + l2/2 |theta|^2,   phi(x) = (x W)_+

    Parameters
    ----------
    X : (n, d) real features of rows. y : (n,) of -1 and +1; not with pairs.
    pairs : (m, 2) rows of X, the preferred one first. Phase I then is on 2 m rows, one for each occurrence.
    beta, patterns, intercept, tol : of phase I, as in `solve`. refine : False solves the sampled program, as the papers
        do; True the network program.
    certificate : kind of bound on phase I's network program, as in `solve`; None takes "priced" with refine, else
        "relaxed", which costs more than phase I itself where there are hundreds of features.
    l2, scale, margin, last_layer_tol : of phase II, as in `solve_logistic`; margin a number or one per row or pair.
    sample_weight : (n,), with pairs (m,), of both phases.
    time_limit : seconds for each phase. backend, seed : as in `solve`.

    Returns
    -------
    TwoPhase : (network, classifier, last_layer).

    Raises
    ------
    ValueError, TypeError
        For bad input; also where phase I leaves no neuron, because beta is too large.

    Warns
    -----
    UserWarning
        Where columns of X differ in scale by a factor of a thousand or more.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 5)); score = np.maximum(X[:, 0], 0) - X[:, 1]
    >>> pairs = rng.permutation(200).reshape(-1, 2)
    >>> pairs = np.where((score[pairs[:, 0]] > score[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    >>> found = cvxrelu.two_phase(X, pairs=pairs, beta=1.0, l2=0.1)
    >>> f = found.network.predict(X)
    >>> bool(np.mean(f[pairs[:, 0]] > f[pairs[:, 1]]) > 0.8)
    True
    """
    backend = the_arrays_own(backend, X, y)
    host_X = as_finite_array("X", X, ndim=(2,))
    rows = read_pairs(pairs, len(host_X), "logistic")
    if (y is None) == (rows is None):
        raise ValueError("give either y, labels of the rows of X, or pairs of rows, the preferred one first")
    as_positive("l2", l2), as_positive("scale", scale), as_positive("last_layer_tol", last_layer_tol)
    intercept, refine = as_bool("intercept", intercept), as_bool("refine", refine)
    weight = read_weight(sample_weight, len(host_X) if rows is None else len(rows))[:, 0]
    if rows is None:
        data = host_X
        labels = as_finite_array("y", y, ndim=(1,)).astype(np.float64)
        if labels.shape != (len(host_X),) or not np.isin(labels, (-1.0, 1.0)).all():
            raise ValueError(f"y must have shape ({len(host_X)},) and hold -1 and +1 only, got {labels.shape}")
        weights = weight
    else:
        data = np.concatenate([host_X[rows[:, 0]], host_X[rows[:, 1]]])
        labels = np.repeat([1.0, -1.0], len(rows))
        weights = np.tile(weight, 2)
    kind = certificate if certificate is not None else "priced" if refine else "relaxed"
    settings = Settings.read(refine=refine, tol=tol, certificate=kind, time_limit=time_limit, seed=seed)
    prepared = prepare(
        data, labels, settings=settings, beta=beta, sample_weight=weights, intercept=intercept, patterns=patterns,
        backend=backend,
    )  # fmt: skip
    warn_of_columns(host_X)  # not of the mean of labels, which no skip could carry here
    classifier = prepared.solve(prepared.problem.beta, settings)
    frozen = classifier.network
    if frozen.n_neurons == 0:
        raise ValueError(f"beta={beta!r} leaves no neuron in phase I; choose it below beta_max")
    hidden = host_X @ frozen.first_layer + (0.0 if frozen.hidden_bias is None else frozen.hidden_bias)
    phi = np.maximum(hidden, 0.0)
    A, signs = (phi, labels) if rows is None else (phi[rows[:, 0]] - phi[rows[:, 1]], None)
    last = solve_logistic(
        A, signs, l2=l2, scale=scale, margin=margin, sample_weight=weight, tol=last_layer_tol, time_limit=time_limit,
        backend=backend, seed=seed,
    )  # fmt: skip
    network = ReLUNetwork(frozen.first_layer, last.theta, frozen.hidden_bias, metadata={"recipe": "two_phase"})
    return TwoPhase(network, classifier, last)
