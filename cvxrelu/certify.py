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
from cvxrelu.conversion import to_arrays
from cvxrelu.exact_pricing import exact_price
from cvxrelu.network import ReLUNetwork
from cvxrelu.options import refuse_unfinished
from cvxrelu.pricing import Pricing
from cvxrelu.problem import Problem, build_problem, fits
from cvxrelu.refinement import Refinement
from cvxrelu.relaxation import relaxed_lower_bound
from cvxrelu.selection import select_backend
from cvxrelu.solution import Certificate, relative_gap
from cvxrelu.validation import as_positive

__all__ = ["certify", "network_certificate", "network_objective"]

FLOAT32_TOL = 1e-4  # from this tolerance on, refinement works in float32 unless told otherwise
STARTS = 160  # of every kind, for a priced certificate of one dual variable
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
    margin: float = 0.0,
    skip_l2: float = 0.0,
    kind: str = "priced",
    tol: float = 1e-3,
    time_limit: float | None = None,
    backend: str = "auto",
    seed: int = 0,
) -> Certificate:
    """Objective of any two-layer ReLU network, and a lower bound on the objective of every such network.

        objective = sum_k weight_k / 2 |f(x_k) - y_k|^2 + beta sum_j |w_j| |a_j|  >=  optimum of (N)  >=  lower_bound

    Parameters
    ----------
    network : what `ReLUNetwork.from_` takes: a network or Solution of this package, `torch.nn.Sequential(Linear, ReLU,
        Linear)`, scikit-learn's MLPRegressor or MLPClassifier, or arrays `(first_layer, second_layer)`. A hidden bias
        is the weight of a penalised constant column; an output bias or a skip is unpenalised, and then so in (N).
    X : (n, d). y : (n,) or (n, c), as `network.predict(X)` has it. beta, sample_weight : as in `solve`.
    kind : "priced", an estimate by many ascents; "relaxed", rigorous in any dimension; "exact", rigorous and tight, for
        one output and data of rank at most 3 (the constant column included).
    tol : relative gap at which the search for a better dual variable may stop.
    time_limit : seconds for that search, None for none; the proof has what is left, and a second at least.
    backend, seed : as in `solve`.
    loss, pairs, margin, skip_l2 : parts of the contract that later releases fill; any value but the default raises
        NotImplementedError.

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
    refuse_unfinished(loss=loss, pairs=pairs, margin=margin, skip_l2=skip_l2)
    kind = as_kind("kind", kind)
    given = ReLUNetwork.from_(network)
    intercept = given.hidden_bias is not None
    skip = "linear" if given.skip is not None else "bias" if given.bias is not None else None
    problem = build_problem(
        X, y, beta=beta, sample_weight=sample_weight, intercept=intercept, patterns=1, check_patterns=False,
        dtype=np.float64, seed=seed, skip=skip, sampled=False,
    )  # fmt: skip
    if given.n_features != problem.X.shape[1] - intercept or given.n_outputs != problem.loss.y.shape[1]:
        raise ValueError(
            f"network takes {given.n_features} features and has {given.n_outputs} outputs; expected "
            f"{problem.X.shape[1] - intercept} and {problem.loss.y.shape[1]}, as X and y have"
        )
    tol = as_positive("tol", tol)
    deadline = time.perf_counter() + (np.inf if time_limit is None else as_positive("time_limit", time_limit))
    check_kind(kind, problem)
    chosen = select_backend(backend, (X, y), 0.0)
    objective, dual = network_objective(given, problem)
    single = tol >= FLOAT32_TOL and fits(problem, np.dtype(np.float32))
    with chosen.scope():
        search = Refinement(
            problem.X, problem.loss, problem.beta, chosen, dtype="float32" if single else "float64", tol=tol,
            seed=int(seed), exact=kind == "exact",
        )  # fmt: skip
        W, A, _, _ = to_arrays(given, intercept)
        sizes = np.linalg.norm(W, axis=0)
        search.start_from(W / sizes, A.T / sizes, sizes**2)
        found = search.run(lambda *_: False, deadline)
        # One second at least for the proof itself, which looks at the clock between its own iterations.
        deadline = max(deadline, time.perf_counter() + 1.0)
        best = network_certificate(
            kind, problem, found.raw_dual, objective, chosen, seed=int(seed), known=found.neurons.u, deadline=deadline
        )
        if kind == "priced":  # the larger of two estimates would be the more optimistic one, not the better one
            return best
        own = network_certificate(kind, problem, dual, objective, chosen, seed=int(seed), deadline=deadline)
    return best if best.lower_bound >= own.lower_bound else own


def network_objective(network: ReLUNetwork, problem: Problem) -> tuple[float, np.ndarray]:
    """(objective of (N), dual variable) of a network as it is, by its own predictions; float64 throughout.

    A free bias or skip of the program is not optimised for the objective; it is for the dual variable.
    """
    d = problem.X.shape[1] - problem.intercept
    prediction = network.predict(problem.X[:, :d]).reshape(problem.loss.y.shape)
    loss = problem.loss._replace(free=None)
    return float(loss.value(prediction)) + problem.beta * network.path_norm, problem.loss.dual(prediction)


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

    known : (D, m) unit directions of neurons, which a pricing starts from too.
    """
    X, loss, beta, starts = problem.X, problem.loss, problem.beta, None
    if kind == "relaxed":
        bound, feasible = relaxed_lower_bound(loss, X, dual, beta, improve=loss.free is None, deadline=deadline)
    else:
        if kind == "exact":
            price = exact_price(X, np.ascontiguousarray(dual[:, 0]), above=np.inf).value
        else:
            data = backend.put(X)
            pricing = Pricing(backend, data, data, np.random.default_rng([seed, 3]))
            known = np.zeros((X.shape[1], 0)) if known is None else known
            priced = pricing.price(dual, known, STARTS, waves=3, steps=(20, 30))
            price, starts = priced.price, priced.starts
        kappa_max = np.float64((1.0 - ROUNDING) * beta / price if price > 0 else np.inf)
        feasible = float(loss.best_dual_scale(dual, kappa_max)) * dual
        value, magnitude = loss.dual_value(feasible)
        bound = max(0.0, float(value) - _rounding(X) * float(magnitude))
    bound = max(0.0, float(bound) - _leak(problem, feasible, objective))
    if problem.scalar_output:
        feasible = feasible[:, 0]
    return Certificate(
        kind, kind != "priced", float(bound), relative_gap(objective, float(bound)), feasible, starts, objective
    )


def _leak(problem: Problem, t: np.ndarray, objective: float) -> float:
    """What D(t) may exceed the optimum by because free^T t is zero up to rounding only.

    It is |free^T t| |coefficients| at most, and the coefficients of the best free part beside neurons of penalty at
    most the objective are at most |y| + objective / beta |X|, in the norm of the weights.
    """
    X, loss = problem.X, problem.loss
    if loss.free is None:
        return 0.0
    root = np.sqrt(loss.weight)
    least = min(objective, float(loss.value(0.0 * loss.y)))
    reach = np.linalg.norm(root * loss.y) + least / problem.beta * np.linalg.norm(root * X)
    product = np.linalg.norm(loss.free.T @ t) + _rounding(X) * np.linalg.norm(np.abs(loss.free.T) @ np.abs(t))
    return float(product * reach)


def as_kind(name: str, kind: Any) -> str:
    """One of the three kinds of certificates."""
    if not (isinstance(kind, str) and kind in ("priced", "relaxed", "exact")):
        raise ValueError(f"{name} must be 'priced', 'relaxed' or 'exact', got {kind!r}")
    return kind


def check_kind(kind: str, problem: Problem) -> None:
    """Refuse "exact" where it cannot be had, before any work."""
    if kind != "exact":
        return
    if problem.loss.y.shape[1] != 1:
        raise ValueError(f"an exact certificate needs one output, got y with {problem.loss.y.shape[1]}: use 'relaxed'")
    rank = int(np.linalg.matrix_rank(problem.X))
    if rank > 3:
        raise ValueError(f"an exact certificate needs X of rank at most 3, got rank {rank}: use 'relaxed'")


def _rounding(X: np.ndarray) -> float:
    return float(np.finfo(np.float64).eps) * (2.0 * sum(X.shape) + 10.0)
