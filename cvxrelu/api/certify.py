"""`certify`: how far any two-layer ReLU network can be from the global optimum of its training objective.

The lower bound is on the optimum of the network program (N), so it does not depend on the network; but a good dual
variable is needed, and t of a network that is far from optimal is a poor one. So the network is first refined, on the
side, and the bound is proved from where that ends. `network_certificate` turns one dual variable into a certificate.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from cvxrelu.backends.choose import select_backend
from cvxrelu.certificates.network import as_kind, check_kind, network_certificate, network_objective, proof_begins
from cvxrelu.network.balanced import to_arrays
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.program.problem import build_problem, fits
from cvxrelu.refinement.search import Refinement
from cvxrelu.runs.limits import FLOAT32_TOL
from cvxrelu.runs.solution import Certificate
from cvxrelu.support.checks import as_finite_array, as_positive

__all__ = ["certify"]


def certify(
    network: Any,
    X: Any,
    y: Any = None,
    *,
    beta: float,
    loss: str = "squared",
    pairs: Any = None,
    sample_weight: Any = None,
    margin: Any = 0.0,
    skip_l2: float = 0.0,
    kind: str = "priced",
    tol: float = 1e-3,
    time_limit: float | None = None,
    backend: str = "auto",
    seed: int = 0,
) -> Certificate:
    """Objective of any two-layer ReLU network, and a lower bound on the objective of every such network.

        objective = loss(R f(X)) + beta sum_j |w_j| |a_j| + skip_l2/2 |skip|^2  >=  optimum of (N)  >=  lower_bound

    Parameters
    ----------
    network : what `ReLUNetwork.from_` takes: a network or Solution of this package, `torch.nn.Sequential(Linear, ReLU,
        Linear)`, scikit-learn's MLPRegressor or MLPClassifier, or arrays `(first_layer, second_layer)`. A hidden bias
        is the weight of a penalised constant column; an output bias or a skip is penalised by skip_l2, and so in (N).
    X : (n, d). y : (n,) or (n, c), as `network.predict(X)` has it, or class labels with loss="multinomial".
    beta, loss, pairs, sample_weight, margin, skip_l2 : as in `solve`.
    kind : "priced", an estimate by many ascents; "relaxed", rigorous in any dimension; "exact", rigorous and tight, for
        one output and data of rank at most 3 (the constant column included).
    tol : relative gap at which the search for a better dual variable may stop.
    time_limit : seconds for that search and the proof, None for no limit. Kept to within one chunk of either; an exact
        bound for which no time is left is replaced by the relaxed one, in closed form.
    backend, seed : as in `solve`.

    Returns
    -------
    Certificate : with `objective`, `lower_bound`, `gap`, `kind`, `rigorous`, `starts` and the dual variable. A rigorous
        one holds whatever was computed; a priced one is an estimate and says so.

    Raises
    ------
    ValueError, TypeError : bad input; "exact" for data of higher rank or several outputs.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]); y = np.array([1.0, 0.0, 2.0])
    >>> certificate = cvxrelu.certify((np.eye(2), np.array([1.0, 0.5])), X, y, beta=0.1, kind="exact")
    >>> certificate.rigorous, certificate.lower_bound <= certificate.objective
    (True, True)
    """
    kind = as_kind("kind", kind)
    given = ReLUNetwork.from_(network)
    intercept = given.hidden_bias is not None
    skip = "linear" if given.skip is not None else "bias" if given.bias is not None else None
    problem = build_problem(
        X, _as_wide(y, loss, given), beta=beta, loss=loss, pairs=pairs, sample_weight=sample_weight, margin=margin,
        intercept=intercept, skip=skip, skip_l2=skip_l2, dtype=np.float64, seed=seed, sampled=False,
    )  # fmt: skip
    if (given.n_features, given.n_outputs) != (problem.n_features, problem.n_outputs):
        raise ValueError(
            f"network takes {given.n_features} features and has {given.n_outputs} outputs; expected "
            f"{problem.n_features} and {problem.n_outputs}, as X and y have"
        )
    tol = as_positive("tol", tol)
    started, limit = time.perf_counter(), np.inf if time_limit is None else as_positive("time_limit", time_limit)
    deadline = started + limit
    check_kind(kind, problem)
    chosen = select_backend(backend, (X, y), 0.0)
    objective, dual = network_objective(given, problem)
    single = tol >= FLOAT32_TOL and fits(problem, np.dtype(np.float32))
    until = proof_begins(kind, started, limit)
    with chosen.scope():
        search = Refinement(
            problem, chosen, dtype="float32" if single else "float64", tol=tol, seed=int(seed), exact=kind == "exact",
            strict=False, deadline=until,
        )  # fmt: skip
        W, A, _, _ = to_arrays(given, intercept)
        sizes = np.linalg.norm(W, axis=0)
        search.start_from(W / sizes, A.T / sizes, sizes**2)
        found = search.run(lambda *_: False, until)
        best = network_certificate(
            kind, problem, found.raw_dual, objective, chosen, seed=int(seed), known=found.neurons.u, deadline=deadline
        )
        # The larger of two estimates would be the more optimistic one, not the better one.
        if kind == "priced" or time.perf_counter() > deadline:
            return best
        own = network_certificate(kind, problem, dual, objective, chosen, seed=int(seed), deadline=deadline)
    return best if best.lower_bound >= own.lower_bound else own


def _as_wide(y: Any, loss: Any, network: ReLUNetwork) -> Any:
    """Class labels as indicators with a column for every output of the network: the last classes may be absent."""
    if loss != "multinomial" or np.ndim(y) != 1:
        return y
    labels = as_finite_array("y", y, ndim=(1,))
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= network.n_outputs:
        return y
    return np.eye(network.n_outputs, dtype=np.int64)[labels]
