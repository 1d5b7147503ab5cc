"""Rigorous bounds on the price, by a convex relaxation, and on the optimum of the network program.

    price(P) = max over |u|_2 <= 1 of |P^T (X u)_+|_2                                (2-norm over the c outputs)

For one output p and one sign, phi(u) = p^T (X u)_+ = 1/2 p^T X u + 1/2 sum_i p_i |x_i u|, and for every w_i > 0 and all
shares (a_i, b_i, c_i) >= 0 with a_i + b_i + c_i = 1, on the unit ball

    p_i > 0:      p_i |x_i u| <= 1/2 (p_i^2 / w_i + w_i (x_i u)^2),
    p_i < 0:   -|p_i| |x_i u| <= -|p_i| ((a_i - b_i) x_i u + c_i (x_i u) (g_i u)),

the last one for vectors |g_i| <= 1. So phi is at most quadratic, and on the sphere, for lambda > lambda_max(Q),

    phi(u) <= 1/4 sum_+ p_i^2 / w_i + 1/2 lambda + 1/2 b^T (lambda I - Q)^{-1} b,
    b = 1/2 X^T p - 1/2 X_-^T (|p| (a - b)),
    Q = 1/2 X_+^T diag(w) X_+ - 1/2 sum_- |p_i| c_i (x_i g_i^T + g_i x_i^T).

It is the dual of a semidefinite relaxation, where a moment matrix U >= u u^T of trace one stands for u u^T, and h_i
between max(|x_i u|, |U x_i|) and sqrt(x_i U x_i) for |x_i u|. It is minimised by L-BFGS in log w, the logits of the
shares and g, with a barrier, and the value is evaluated without it: whatever the minimiser did, that is a bound
(`coupling`, without its pairs). The closed form is w proportional to p, c = 0, a = b.

Outputs combine by the root of the sum of squares. In few dimensions `subdivision` closes the bound, for all outputs
together. A lower bound on the optimum is D(kappa t) with kappa = beta / price(t), for any t: the one given, and the one
that is best for the relaxation (`relaxed_network`).

Source: the relaxation is Shor's, with the absolute values lifted; Boyd & Vandenberghe, "Convex optimization", 2004,
appendix B, for quadratic functions on the sphere. Pilanci & Ergen 2020 for the dual of the network program.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
from jaxtyping import Float

from cvxrelu.certificates.closed_form import closed_form_price
from cvxrelu.certificates.coupling import Coupling
from cvxrelu.certificates.relaxed_network import relaxed_network
from cvxrelu.certificates.subdivision import subdivided_price
from cvxrelu.numerics.rounding import UNDERFLOW, gamma, power_of_two
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.dual import largest_multiple
from cvxrelu.program.problem import Problem

__all__ = ["relaxed_lower_bound", "relaxed_price"]

SUBDIVIDED = 5  # largest rank at which directions are subdivided
BARRIERS = (0.1, 0.02, 0.004)  # eps r over the closed form, one after the other, a third of the rounds each
CLOSE_BARRIERS = (0.01, 0.003)  # from the moments of the relaxed network, a sixth of the rounds each
MISSED = 1.1  # of beta: a price of the t of the relaxed network that is not the least that its relaxation has
TINY = 1e-300
CLOSE = 1e-2  # nearer than this to the price, a bound needs no other


def relaxed_price(
    X: Float[np.ndarray, "n d"],
    P: Float[np.ndarray, "n *c"],
    *,
    factors: Float[np.ndarray, "d+1 2 *c k"] | None = None,
    rounds: int = 120,
    cones: int = 20_000,
    target: float = 0.0,
    deadline: float = np.inf,
) -> float:
    """A rigorous upper bound on `max over |u|_2 <= 1 of |P^T (X u)_+|_2`, at most the closed form.

    Parameters
    ----------
    X : (n, d) float64. P : (n,) or (n, c) float64; with a readout R, P = R^T t.
    factors : of the moment matrices of directions to begin with, as `relaxed_network` returns them with P.
    rounds : L-BFGS iterations for each output and sign, O(n d^2 + d^3) each; 0 leaves the closed form. With `factors`
        a third of them.
    cones : most cones of directions to evaluate where rank(X) <= 5, O(n rank c) each; 0 for none.
    target : a bound at or below this is good enough.
    deadline : time of `time.perf_counter` after which the bound is returned as it is.

    Returns
    -------
    float, in the units of |X^T P|. On duals of trained networks it is the price up to 1e-6 at rank 2 to 4 (n = 300),
    1.003 and 1.08 times the price at rank 5, 1.1 to 1.3 times at d = 6 to 50 for beta a tenth of its maximum and 1.8 to
    2.4 for a hundredth, where the closed form is 1.7 to 2.3 and 3.5 to 4.9 times the price.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, P = rng.standard_normal((40, 3)), rng.standard_normal((40, 1))
    >>> bool(relaxed_price(X, P) < closed_form_price(X, P))
    True
    """
    P = P.reshape(len(P), -1)
    closed = closed_form_price(X, P)
    used = np.any(X != 0, axis=1) & np.any(P != 0, axis=1)
    if closed <= target or not used.any():
        return closed
    unit_X, unit_P = power_of_two(X), power_of_two(P)
    X, P, unit = X[used] / unit_X, P[used] / unit_P, unit_X * unit_P
    space = row_space(X)
    # What the move into row space, and the length of a unit vector there, can change.
    moved = float(np.linalg.norm(P, axis=1) @ space.moved)
    outward = 1.0 + gamma(*space.basis.shape)
    bound = np.inf
    if space.rows.shape[1] <= SUBDIVIDED and cones > 0:
        found = subdivided_price(space.rows, P, cones=cones, target=target / unit, deadline=deadline)
        bound = outward * found.bound + moved + UNDERFLOW
        if bound <= max(target / unit, (1.0 + CLOSE) * found.attained):
            return min(closed, bound * unit)
    if rounds > 0 and time.perf_counter() <= deadline:
        sides = []
        for k, s in itertools.product(range(P.shape[1]), (0, 1)):
            near = None if factors is None else _moments(space.basis, factors[:, s, k])
            sides.append(_side_price(space.rows, (1 - 2 * s) * P[:, k], near, rounds, deadline))
        relaxed = float(np.linalg.norm(np.max(np.reshape(sides, (-1, 2)), axis=1))) * (1.0 + gamma(*P.shape))
        bound = min(bound, outward * relaxed + moved + UNDERFLOW)  # where squares vanish in these units
    return min(closed, bound * unit)


def relaxed_lower_bound(
    problem: Problem,
    t: Float[np.ndarray, "m c"],
    *,
    improve: bool = True,
    rounds: int = 120,
    cones: int = 20_000,
    deadline: float = np.inf,
) -> tuple[float, float, Float[np.ndarray, "m c"]]:
    """A lower bound on the optimum of the network program that a dual variable proves, rigorous up to its evaluation.

        D(kappa t),   kappa the best in [0, beta / price(t)],   the better of the given t and the relaxation's own

    Parameters
    ----------
    problem : of which the patterns are not looked at.
    t : (m, c) float64; t minus the derivative of the loss at a good prediction.
    improve : look for a better t where the relaxation has one: without a skip, a readout, or a loss that couples
        outputs.
    rounds, cones, deadline : as for `relaxed_price`.

    Returns
    -------
    As `Problem.dual_bound`: (bound, sum of the magnitudes it was computed from, feasible multiple of t). What rounding
    of D may do is for the caller to allow, by the magnitudes. At least the closed form's bound at the given t.
    """
    improve = improve and problem.skip is None and problem.readout is None and problem.loss_name != "multinomial"
    high = problem.X.shape[1] > SUBDIVIDED and row_space(problem.X).rows.shape[1] > SUBDIVIDED

    def proved(dual: np.ndarray, factors: np.ndarray | None, rounds: int) -> tuple[float, float, np.ndarray]:
        p, slack = problem.pull_back(dual)
        price = relaxed_price(problem.X, p, factors=factors, rounds=rounds, cones=cones, deadline=deadline)
        if factors is not None and price > MISSED * problem.beta and time.perf_counter() < deadline:
            price = min(price, relaxed_price(problem.X, p, rounds=rounds, cones=0, deadline=deadline))
        return problem.dual_bound(dual, largest_multiple(problem.beta, price + slack))

    # Where directions are not subdivided no t proves more than that of the relaxed network, of which the price is beta.
    found = proved(t, None, 0 if improve and high else rounds)
    if not improve or time.perf_counter() > deadline:
        return found
    best = relaxed_network(problem.loss, problem.X, problem.n_outputs, problem.beta, deadline=deadline)
    return max(found, proved(best.t, best.factors, rounds), key=lambda bound: bound[0])


def _moments(basis: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """U of trace one and u, in a basis, of the factors (g; h) of one sign; None where they vanish."""
    g, h = basis.T @ factors[:-1], factors[-1]
    trace, theta = float(np.sum(g * g)), float(h @ h)
    return (g @ g.T / trace, g @ h / np.sqrt(trace * theta)) if min(trace, theta) > TINY else None


def _side_price(
    X: np.ndarray, p: np.ndarray, near: tuple[np.ndarray, np.ndarray] | None, rounds: int, deadline: float
) -> float:
    """An upper bound on max over |u| <= 1 of p^T (X u)_+, for one sign, from moments near; X in full column rank."""
    from scipy.optimize import minimize

    size = closed_form_price(X, p[:, None])
    if size == 0:
        return 0.0
    p = p / size
    side = Coupling(X, near=0, turns=near is None)  # g of the moments is as good as the best
    barriers, each = (BARRIERS, rounds // 3) if near is None else (CLOSE_BARRIERS, rounds // 6)
    z = side.start(p) if near is None else side.start_at(p, *near, barriers[0] / X.shape[1])
    best = side.bound(z, p)

    def on_time(_: np.ndarray) -> None:
        if time.perf_counter() > deadline:
            raise StopIteration

    def smoothed(z: np.ndarray, eps: float) -> tuple[float, np.ndarray]:
        return side.smoothed(z, p, eps)[:2]

    for barrier in barriers:
        if time.perf_counter() > deadline:
            break
        options = {"maxiter": max(1, each), "maxcor": 20}
        eps = barrier / X.shape[1]
        z = minimize(smoothed, z, (eps,), method="L-BFGS-B", jac=True, options=options, callback=on_time).x
        best = min(best, side.bound(z, p))
    return max(best, 0.0) * size
