"""`certify`: how far any two-layer ReLU network can be from the global optimum of its training objective.

The lower bound is on the optimum of the network program (N), so it does not depend on the network; but a good dual
variable is needed, and t of a network that is far from optimal is a poor one. So the network is first refined, on the
side, and the bound is proved from where that ends. `network_certificate` turns one dual variable into a certificate.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.backends.choose import select_backend
from cvxrelu.certificates.coordinates import search_coordinates
from cvxrelu.certificates.exact_pricing import exact_price
from cvxrelu.certificates.pricing import Pricing
from cvxrelu.certificates.relaxation import relaxed_lower_bound
from cvxrelu.network.balanced import to_arrays
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.problem import Problem, build_problem, fits
from cvxrelu.refinement.search import Refinement
from cvxrelu.runs.limits import FLOAT32_TOL, OutOfTime
from cvxrelu.runs.solution import Certificate
from cvxrelu.runs.status import relative_gap
from cvxrelu.support.checks import as_finite_array, as_positive

__all__ = ["certify", "network_certificate", "network_objective", "proof_begins"]

STARTS = 160  # of every kind, for a priced certificate of one dual variable
PROOF = 0.2  # of a time limit, for a certificate other than the one of the search
ROUNDING = 4 * float(np.finfo(np.float64).eps)


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


def network_objective(network: ReLUNetwork, problem: Problem) -> tuple[float, np.ndarray]:
    """(objective of (N), dual variable) of a network as it is, by its own predictions; float64 throughout.

    A free bias or skip of the program is not optimised for the objective; it is for the dual variable.
    """
    prediction = problem.read(network.predict(problem.X[:, : problem.n_features]).reshape(len(problem.X), -1))
    objective = float(problem.plain.value(prediction)) + problem.beta * network.path_norm
    if problem.skip is not None and problem.skip.l2 == 0:
        shift = problem.plain.y - problem.loss.y
        return objective, problem.loss.dual(prediction - shift)
    if problem.skip is not None:
        parts = [part for part in (network.skip, network.bias if problem.skip.bias else None) if part is not None]
        objective += 0.5 * problem.skip.l2 * sum(float(np.sum(np.square(part))) for part in parts)
    return objective, problem.plain.dual(prediction)


def network_certificate(
    kind: str,
    problem: Problem,
    dual: np.ndarray,
    objective: float,
    backend: Backend,
    *,
    seed: int,
    known: np.ndarray | None = None,
    deadline: float = np.inf,
) -> Certificate:
    """The certificate of this kind that a dual variable (n, c) proves, or for "priced" suggests.

    known : (D, m) unit directions of neurons, which a pricing starts from too. deadline : of `time.perf_counter`; a
        bound is left looser there, and where it has passed already it is the relaxed one in closed form.
    """
    X, beta, starts = problem.X, problem.beta, None
    if time.perf_counter() > deadline:
        kind = "relaxed"
    p, slack = problem.pull_back(dual)
    if kind == "exact":
        try:
            price = slack + exact_price(X, np.ascontiguousarray(p[:, 0]), above=np.inf, deadline=deadline).value
        except OutOfTime:
            kind = "relaxed"
    elif kind == "priced":
        size = float(np.linalg.norm(p))
        at = search_coordinates(X, beta / size if size > 0 else np.inf)
        data = backend.put(at.rows)
        pricing = Pricing(backend, data, data, np.random.default_rng([seed, 3]), at.sizes, problem.even)
        known = np.zeros((data.shape[1], 0)) if known is None else at.inward(known)
        priced = pricing.price(p, known, STARTS, waves=3, steps=(20, 30), deadline=deadline)
        best = at.outward(priced.directions[:, :1])
        price = slack + priced.price + problem.noise(p, best) + at.unseen * size
        starts = priced.starts
    if kind == "relaxed":
        bound, magnitude, feasible = relaxed_lower_bound(problem, dual, deadline=deadline)
    else:
        bound, magnitude, feasible = problem.dual_bound(dual, (1.0 - ROUNDING) * beta / price if price > 0 else np.inf)
    bound = max(0.0, bound - _rounding(dual) * magnitude - _leak(problem, feasible, objective))
    if problem.scalar_output:
        feasible = feasible[:, 0]
    return Certificate(kind, kind != "priced", bound, relative_gap(objective, bound), feasible, starts, objective)


def _leak(problem: Problem, t: np.ndarray, objective: float) -> float:
    """What D(t) may exceed the optimum by because free^T t is zero up to rounding only.

    It is |free^T t| |coefficients| at most, and the coefficients of the best free part beside neurons of penalty at
    most the objective are at most |y| + objective / beta |X|, in the norm of the weights.
    """
    loss = problem.loss
    if problem.skip is None or problem.skip.l2 > 0:
        return 0.0
    root = np.sqrt(loss.weight)
    least = min(objective, float(loss.value(0.0 * loss.y)))
    reach = np.linalg.norm(root * loss.y) + least / problem.beta * np.linalg.norm(root * problem.read(problem.X))
    product = np.linalg.norm(loss.free.T @ t) + _rounding(t) * np.linalg.norm(np.abs(loss.free.T) @ np.abs(t))
    return float(product * reach)


def proof_begins(kind: str, started: float, limit: float) -> float:
    """When a search has to end for the certificate to be done by `started + limit`: the search's own is priced."""
    return started + (1.0 if kind == "priced" else 1.0 - PROOF) * limit


def as_kind(name: str, kind: Any) -> str:
    """One of the three kinds of certificates."""
    if not (isinstance(kind, str) and kind in ("priced", "relaxed", "exact")):
        raise ValueError(f"{name} must be 'priced', 'relaxed' or 'exact', got {kind!r}")
    return kind


def check_kind(kind: str, problem: Problem) -> None:
    """Refuse "exact" where it cannot be had, before any work."""
    if kind != "exact":
        return
    if problem.n_outputs != 1:
        raise ValueError(f"an exact certificate needs one output, got y with {problem.n_outputs}: use 'relaxed'")
    rank = row_space(problem.X).rows.shape[1]
    if rank > 3:
        raise ValueError(f"an exact certificate needs X of rank at most 3, got rank {rank}: use 'relaxed'")


def _as_wide(y: Any, loss: Any, network: ReLUNetwork) -> Any:
    """Class labels as indicators with a column for every output of the network: the last classes may be absent."""
    if loss != "multinomial" or np.ndim(y) != 1:
        return y
    labels = as_finite_array("y", y, ndim=(1,))
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= network.n_outputs:
        return y
    return np.eye(network.n_outputs, dtype=np.int64)[labels]


def _rounding(array: np.ndarray) -> float:
    return float(np.finfo(np.float64).eps) * (2.0 * sum(array.shape) + 10.0)
