"""Objective of any network in the network program (N), and certificates of it from one dual variable."""

from __future__ import annotations

import time
from typing import cast

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.certificates.branching.branch import branch_lower_bound
from cvxrelu.certificates.exact_pricing import exact_price
from cvxrelu.certificates.pricing import Priced, Pricing
from cvxrelu.certificates.relaxation import relaxed_lower_bound
from cvxrelu.certificates.search_space import SearchSpace
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.numerics.rounding import gamma
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.dual import largest_multiple
from cvxrelu.program.losses import Squared
from cvxrelu.program.problem import Problem
from cvxrelu.runs.proving import Branching
from cvxrelu.runs.solution import Certificate
from cvxrelu.runs.status import relative_gap
from cvxrelu.support.errors import OutOfTime

__all__ = ["check_kind", "network_certificate", "network_objective", "not_refuted", "proof_begins"]


FEW, BEST = 32, 8  # starts of every kind, and directions polished, of a first look; polishing 32 changed no fifth digit
STARTS, COPIES = 160, 64  # of every kind, and polished, for a priced certificate of one dual variable
FAR_GAP = 0.1  # a gap that few ascents find to be larger than this needs no more of them


PROOF, BRANCH = 0.2, 0.5  # of a time limit, for a certificate other than the one of the search


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
    space: SearchSpace | None = None,
    branching: Branching | None = None,
) -> Certificate:
    """The certificate of this kind that a dual variable (n, c) proves, or for "priced" suggests.

    known : (D, m) unit directions of neurons, which a pricing starts from too. deadline : of `time.perf_counter`; a
        bound is left looser there, and where it has passed already it is the relaxed one in closed form. space : of
        the X of the problem, None for one of its own. branching : for "branch", when to stop and what to tell.
    """
    X, beta, starts, progress = problem.X, problem.beta, None, None
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
        space = SearchSpace(X) if space is None else space
        at = space.coordinates(beta / size if size > 0 else np.inf)
        pricing = Pricing(backend, space.ground(backend, at), np.random.default_rng([seed, 3]), even=problem.even)
        known = np.zeros((pricing.d, 0)) if known is None else at.inward(known)

        def bounded(priced: Priced) -> float:
            best = at.outward(priced.directions[:, :1])
            return slack + priced.price + problem.noise(p, best) + at.unseen * size

        priced = pricing.price(p, known, FEW, steps=(12, 8), polished=BEST, deadline=deadline)
        price, starts = bounded(priced), priced.starts
        bound = problem.dual_bound(dual, largest_multiple(beta, price))[0]
        if relative_gap(objective, bound, problem.resolution) <= FAR_GAP and priced.complete:
            more = pricing.price(p, known, STARTS, waves=3, steps=(60, 8), copies=COPIES, deadline=deadline)
            price, starts = max(price, bounded(more)), starts + more.starts
    if kind == "branch":
        branching = Branching() if branching is None else branching
        (bound, magnitude, feasible), progress = branch_lower_bound(problem, dual, branching, deadline=deadline)
    elif kind == "relaxed":
        bound, magnitude, feasible = relaxed_lower_bound(problem, dual, deadline=deadline)
    else:
        bound, magnitude, feasible = problem.dual_bound(dual, largest_multiple(beta, price))
    bound = max(0.0, bound - gamma(*dual.shape) * magnitude - _leak(problem, feasible, objective))
    if kind == "priced":
        bound = not_refuted(bound, objective)
    if objective <= problem.resolution:
        bound = min(bound, objective)  # both are rounding
    gap = relative_gap(objective, bound, problem.resolution)
    if problem.scalar_output:
        feasible = feasible[:, 0]
    return Certificate(kind, kind != "priced", bound, gap, feasible, starts, objective, progress)


def not_refuted(bound: float, objective: float) -> float:
    """An estimate that a network lies below is wrong by that much at least, and is taken to be wrong by twice that."""
    return min(bound, max(0.0, 2.0 * objective - bound))


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
    free = cast("Squared", loss).free  # the one loss that a free skip goes with
    assert free is not None
    product = np.linalg.norm(free.T @ t) + gamma(*t.shape) * np.linalg.norm(np.abs(free.T) @ np.abs(t))
    return float(product * reach)


def proof_begins(kind: str, started: float, limit: float) -> float:
    """When a search has to end for the certificate to be done by `started + limit`: the search's own is priced."""
    share = {"priced": 0.0, "branch": BRANCH}.get(kind, PROOF)
    return started + (1.0 - share) * limit


def check_kind(kind: str, problem: Problem) -> None:
    """Refuse "exact" where it cannot be had, before any work."""
    if kind != "exact":
        return
    if problem.n_outputs != 1:
        raise ValueError(f"an exact certificate needs one output, got y with {problem.n_outputs}: use 'relaxed'")
    rank = row_space(problem.X).rows.shape[1]
    if rank > 3:
        raise ValueError(f"an exact certificate needs X of rank at most 3, got rank {rank}: use 'relaxed'")
