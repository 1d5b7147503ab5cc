"""Rigorous bounds on the price, by a convex relaxation, and on the optimum of the network program.

    price(P) = max over |u|_2 <= 1 of |P^T (X u)_+|_2                                (2-norm over the c outputs)

For one output p and one sign, phi(u) = p^T (X u)_+ = 1/2 p^T X u + 1/2 sum_i p_i |x_i u|, and for every w_i > 0 and all
shares (a_i, b_i, c_i) >= 0 with a_i + b_i + c_i = 1, on the unit ball

    p_i > 0:      p_i |x_i u| <= 1/2 (p_i^2 / w_i + w_i (x_i u)^2),
    p_i < 0:   -|p_i| |x_i u| <= -|p_i| ((a_i - b_i) x_i u + c_i (x_i u)^2 / |x_i|),

the last one because |x_i u| <= |x_i|. So phi is at most quadratic, and on the sphere, for lambda > lambda_max(Q),

    phi(u) <= 1/4 sum_+ p_i^2 / w_i + 1/2 lambda + 1/2 b^T (lambda I - Q)^{-1} b,
    b = 1/2 X^T p - 1/2 X_-^T (|p| (a - b)),     Q = 1/2 X_+^T diag(w) X_+ - X_-^T diag(|p| c / |x|) X_-,

jointly convex in all parameters. It is the dual of a semidefinite relaxation, where a moment matrix U >= u u^T of trace
one stands for u u^T, and h_i between max(|x_i u|, x_i U x_i / |x_i|) and sqrt(x_i U x_i) for |x_i u|. It is minimised
by L-BFGS in log w and the logits of the shares, with the barrier -eps log det(lambda I - Q) and the entropy of the
shares, lambda eliminated, and the value is evaluated without them: whatever the minimiser did, that is a bound. The
closed form is w proportional to p, c = 0, a = b.

Outputs combine by the root of the sum of squares. In few dimensions `subdivision` closes the bound, for all outputs
together. A lower bound on the optimum is D(kappa t) with kappa = beta / price(t), for any t: the one given, and the one
that is best for the relaxation (`relaxed_network`).

Source: the relaxation is Shor's, with the absolute values lifted; Boyd & Vandenberghe, "Convex optimization", 2004,
appendix B, for quadratic functions on the sphere. Pilanci & Ergen 2020 for the dual of the network program.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from cvxrelu.certificates.closed_form import closed_form_price
from cvxrelu.certificates.relaxed_network import relaxed_network_dual
from cvxrelu.certificates.subdivision import subdivided_price
from cvxrelu.numerics.rounding import EPS, UNDERFLOW, gamma, power_of_two
from cvxrelu.numerics.row_space import row_space
from cvxrelu.program.dual import largest_multiple
from cvxrelu.program.problem import Problem

__all__ = ["ALMOST_NONE", "level_of", "relaxed_lower_bound", "relaxed_price"]

SUBDIVIDED = 5  # largest rank at which directions are subdivided
BARRIERS = (0.1, 0.02, 0.004)  # eps r over the closed form, one after the other
LOG_RANGE = 20.0  # w stays within e^20 of its start
CLOSE = 1e-2  # nearer than this to the price, a bound needs no other
ALMOST_NONE = 1e-9  # a barrier for the final evaluation, relative to the closed form: keeps lambda off the eigenvalues
TINY = 1e-300
HALVINGS = 50


def relaxed_price(
    X: Float[np.ndarray, "n d"],
    P: Float[np.ndarray, "n *c"],
    *,
    rounds: int = 120,
    cones: int = 20_000,
    target: float = 0.0,
    deadline: float = np.inf,
) -> float:
    """A rigorous upper bound on `max over |u|_2 <= 1 of |P^T (X u)_+|_2`, at most the closed form.

    Parameters
    ----------
    X : (n, d) float64. P : (n,) or (n, c) float64; with a readout R, P = R^T t.
    rounds : L-BFGS iterations for each output and sign, O(n d^2 + d^3) each; 0 leaves the closed form.
    cones : most cones of directions to evaluate where rank(X) <= 5, O(n rank c) each; 0 for none.
    target : a bound at or below this is good enough.
    deadline : time of `time.perf_counter` after which the bound is returned as it is.

    Returns
    -------
    float, in the units of |X^T P|. On duals of trained networks it is the price up to 1e-6 at rank 2 to 4 (n = 300),
    1.02 to 1.2 times the price at rank 5, 1.2 to 1.5 times at d = 6 to 50 for beta a tenth of its maximum and 2.7 for a
    hundredth, where the closed form is 2.2 to 2.4 and 3.8 to 4.6 times the price.

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
        sides = [[_side_price(space.rows, s * p, rounds, deadline) for s in (1.0, -1.0)] for p in P.T]
        relaxed = float(np.linalg.norm(np.max(sides, axis=1))) * (1.0 + gamma(*P.shape))
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
    improve : look for a better t, which takes about as long again, where the relaxation has one: without a skip, a
        readout, or a loss that couples outputs.
    rounds, cones, deadline : as for `relaxed_price`.

    Returns
    -------
    As `Problem.dual_bound`: (bound, sum of the magnitudes it was computed from, feasible multiple of t). What rounding
    of D may do is for the caller to allow, by the magnitudes. At least the closed form's bound at the given t.
    """
    candidates: list[Callable[[], np.ndarray]] = [lambda: t]
    if improve and problem.skip is None and problem.readout is None and problem.loss_name != "multinomial":
        loss, X, beta = problem.loss, problem.X, problem.beta
        candidates.append(lambda: relaxed_network_dual(loss, X, problem.n_outputs, beta, deadline=deadline))
    found: list[tuple[float, float, np.ndarray]] = []
    for candidate in candidates:
        if found and time.perf_counter() > deadline:
            break
        dual = candidate()
        p, slack = problem.pull_back(dual)
        price = relaxed_price(problem.X, p, rounds=rounds, cones=cones, deadline=deadline) + slack
        found.append(problem.dual_bound(dual, largest_multiple(problem.beta, price)))
    return max(found, key=lambda bound: bound[0])


def _side_price(X: np.ndarray, p: np.ndarray, rounds: int, deadline: float) -> float:
    """An upper bound on max over |u| <= 1 of p^T (X u)_+, for one sign; X in full column rank."""
    from scipy.optimize import minimize

    size = closed_form_price(X, p[:, None])
    if size == 0:
        return 0.0
    side = _Majorant(X, p / size)
    z = side.start()
    best = side.bound(z)

    def on_time(_: np.ndarray) -> None:
        if time.perf_counter() > deadline:
            raise StopIteration

    for barrier in BARRIERS:
        if time.perf_counter() > deadline:
            break
        options = {"maxiter": max(1, rounds // len(BARRIERS)), "maxcor": 20}
        eps = barrier / X.shape[1]
        z = minimize(side.smoothed, z, (eps,), method="L-BFGS-B", jac=True, options=options, callback=on_time).x
        best = min(best, side.bound(z))
    return max(best, 0.0) * size


class _Majorant:
    """Quadratic functions above p^T (X u)_+ on the unit sphere; z = (log w of the positive, logits of the others)."""

    def __init__(self, X: np.ndarray, p: np.ndarray) -> None:
        self.up, self.down = X[p > 0], X[p < 0]
        self.p, self.q = p[p > 0], -p[p < 0]
        self.linear = 0.5 * (X.T @ p)
        self.rounding = 4.0 * gamma(*X.shape)
        self.up_lengths = np.linalg.norm(self.up, axis=1)
        self.lengths = np.linalg.norm(self.down, axis=1) * (1.0 + self.rounding)  # safely above |x_i|
        mass = self.q * self.lengths
        self.entropy = 0.5 * X.shape[1] * mass / max(float(mass.sum()), TINY)

    def start(self) -> np.ndarray:
        """The closed form's w; equal shares."""
        top = np.linalg.eigvalsh(self.up.T @ (self.p[:, None] * self.up))[-1] if len(self.p) else 1.0
        self.middle = np.log(self.p) + 0.5 * np.log(self.p.sum() / max(top, TINY)) if len(self.p) else self.p
        return np.concatenate([self.middle, np.zeros(2 * len(self.q))])

    def quadratic(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(w, shares (3, .), b, Q) at z."""
        count = len(self.p)
        w = np.exp(np.clip(z[:count], self.middle - LOG_RANGE, self.middle + LOG_RANGE))
        logits = np.concatenate([z[count:].reshape(2, -1), np.zeros((1, len(self.q)))])
        shares = np.exp(logits - logits.max(axis=0))
        shares /= shares.sum(axis=0)
        b = self.linear - 0.5 * (self.down.T @ (self.q * (shares[0] - shares[1])))
        Q = 0.5 * (self.up.T @ (w[:, None] * self.up))
        Q -= self.down.T @ ((self.q * shares[2] / self.lengths)[:, None] * self.down)
        return w, shares, b, Q

    def smoothed(self, z: np.ndarray, eps: float) -> tuple[float, np.ndarray]:
        """The bound with the barrier, at its best lambda, and its gradient in z.

        U = u u^T + 2 eps S^{-1} with S = lambda I - Q and u = S^{-1} b is twice the derivative in Q; its trace is one.
        """
        w, shares, b, Q = self.quadratic(z)
        values, vectors = np.linalg.eigh(Q)
        b = vectors.T @ b
        level = level_of(values, b, eps)
        inverse = 1.0 / (level - values)
        u = vectors @ (inverse * b)
        total = 0.25 * np.sum(self.p * self.p / w) + 0.5 * level + 0.5 * np.sum(b * b * inverse)
        U = np.outer(u, u) + 2.0 * eps * (vectors * inverse) @ vectors.T
        up, down = (np.einsum("ij,ij->i", rows @ U, rows) for rows in (self.up, self.down))
        along = self.down @ u
        of_w = 0.25 * (w * up - self.p * self.p / w)
        of_shares = 0.5 * self.q * np.stack([-along, along, -down / self.lengths])
        # The entropy of the shares, of the same size as the barrier, keeps their logits from where slopes vanish.
        logs = np.log(np.maximum(shares, TINY))
        total += eps * np.sum(np.log(inverse)) + eps * np.sum(self.entropy * shares * logs)
        of_shares += eps * self.entropy * logs
        of_logits = shares * (of_shares - np.sum(shares * of_shares, axis=0))
        return total, np.concatenate([of_w, of_logits[:2].ravel()])

    def bound(self, z: np.ndarray) -> float:
        """The value at z without barrier, rounded upwards."""
        w, shares, b, Q = self.quadratic(z)
        # An eigenvalue decomposition is that of a matrix at most a small multiple of eps |Q| away, and so is what the
        # product of its vectors does to lengths; the sums of magnitudes bound the norms of Q and b.
        of_Q = 0.5 * np.sum(w * self.up_lengths**2) + np.sum(self.q * shares[2] * self.lengths)
        of_b = np.sum(self.p * self.up_lengths) + np.sum(self.q * self.lengths)
        values, vectors = np.linalg.eigh(Q)
        b = vectors.T @ b
        level = level_of(values, b, ALMOST_NONE)
        constant = 0.25 * np.sum(self.p * self.p / w)
        value = constant + 0.5 * level + 0.5 * np.sum(b * b / (level - values))
        return float(value + self.rounding * (of_Q + of_b + constant + abs(level)))


def level_of(values: np.ndarray, b: np.ndarray, eps: float) -> float:
    """The lambda above all values with sum b^2 / (lambda - values)^2 + 2 eps sum 1 / (lambda - values) = 1."""
    apart = max(eps, 8.0 * EPS * float(np.abs(values).max()))
    low = values[-1] + apart
    high = low + 2.0 * eps * len(values) + 2.0 * float(np.linalg.norm(b))
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        inverse = 1.0 / (middle - values)
        if np.sum(b * b * inverse * inverse) + 2.0 * eps * np.sum(inverse) > 1.0:
            low = middle
        else:
            high = middle
    return high
