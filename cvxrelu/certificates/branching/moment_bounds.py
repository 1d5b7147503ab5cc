"""Upper bounds on the price over boxes of directions, by moment matrices.

For one output and one sign, phi(y) = p^T (Y y)_+ = 1/2 p^T Y y + 1/2 sum_i p_i |y_i y| on the part of the unit sphere
that lies in a box l <= y <= h. For all tau_i > 0, shares (a_i, b_i, c_i) >= 0 with sum one, and vectors |g_i| <= 1

    p_i > 0:      p_i |y_i y| <= p_i (tau_i + (y_i y)^2 / tau_i) / 2,
    p_i < 0:   -|p_i| |y_i y| <= -|p_i| ((a_i - b_i) y_i y + c_i (y_i y) (g_i y)),

and products of the distances to the sides of the box may be added with multipliers K, N, M >= 0,

    sum_jk K_jk (y_j - l_j) (h_k - y_k) + sum_j<k [N_jk (y_j - l_j) (y_k - l_k) + M_jk (h_j - y_j) (h_k - y_k)].

What is left is quadratic, c0 + b y + 1/2 y^T Q y, and on the sphere, for every lambda > lambda_max(Q), at most

    c0 + 1/2 lambda + 1/2 b^T (lambda I - Q)^{-1} b.

Finding the best multipliers has the dual problem, over moment matrices U >= u u^T of trace one with all those products
nonnegative (and y_i U y_i for (y_i y)^2),

    maximise   1/2 p^T Y u + 1/2 sum_+ p_i sqrt(y_i U y_i) - 1/2 sum_- |p_i| max(|y_i u|, |U y_i|),

which Newton's method solves with the barrier mu (log det [1 u^T; u U] + the sum of the logarithms of the products), the
maximum smoothed by the entropy of the shares. At any of its points tau_i = sqrt(y_i U y_i), g_i along U y_i, the
shares, mu over the products and the best lambda prove a bound, evaluated with an allowance for rounding: whatever the
method did.

Source: the products are Sherali & Adams, "A reformulation-linearization technique", 1999; Anstreicher, "Semidefinite
programming versus the reformulation-linearization technique", J. Global Optimization 43, 2009, for both together.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.certificates.branching.box_products import Products, centres, products_of
from cvxrelu.certificates.branching.triangles import pairs_of, squares_of, weighted_pairs
from cvxrelu.numerics.rounding import EPS, UNDERFLOW, gamma
from cvxrelu.support.errors import OutOfTime

__all__ = ["MomentPrice", "Moments"]

START = 2.0  # first gap, over the size of the function: near the centre
SHRINK = 0.2  # of the gap that the barrier leaves, from one level to the next
STEPS, CENTRED, CLOSE = 12, 0.7, 0.1  # of Newton's method at a level; fewer once the decrement is that small
TO_THE_WALL = 0.7  # longest step, of that to the boundary: longer ones end where it bends away
CUTS = (1.0, 0.65, 0.4, 0.2, 0.08, 0.02)  # of a step, while the barrier function rises
BEFORE = 4.0  # times the last gap: at that level points are kept to start from again
TINY, SHORT, LARGE = 1e-300, 1e-120, 1e100
HALVINGS = 50


class Moments(NamedTuple):
    """Of B boxes: bounds; u and the upper triangle of U, row after row; and those to start from at another p."""

    bounds: Float[np.ndarray, " B"]
    points: Float[np.ndarray, "B d"]
    starts: Float[np.ndarray, "B d"]


class MomentPrice:
    """p^T (Y y)_+ of one output and sign, to be bounded over boxes.

    Y : (n, r) float64, in the coordinates that the boxes are in. p : (n,). Both of a size near one or below.
    """

    def __init__(self, Y: Float[np.ndarray, "n r"], p: Float[np.ndarray, " n"]) -> None:
        n, r = Y.shape
        # Rows so short that their squares may vanish are bounded by their lengths; where p is small besides, norms may
        # vanish too.
        short = np.abs(Y).max(axis=1) < SHORT
        self.rounding = 4.0 * gamma(n, r)
        self.apart = float(np.abs(p[short]) @ np.abs(Y[short]).sum(axis=1)) * (1.0 + self.rounding) + UNDERFLOW
        Y, p = Y[~short], p[~short]
        self.r, self.first, self.second = r, *np.triu_indices(r)
        self.d = r + len(self.first)
        self.up, self.down, self.p, self.q = Y[p > 0], Y[p < 0], p[p > 0], -p[p < 0]
        self.up_pairs = pairs_of(self.up)
        self.single = tuple(a.astype(np.float32) for a in (self.down, self.up_pairs))
        self.up_lengths, lengths = np.linalg.norm(self.up, axis=1), np.linalg.norm(self.down, axis=1)
        self.lengths = lengths * (1.0 + self.rounding)  # safely above |y_i|
        self.mass = max(float(self.q @ self.lengths), TINY)
        self.linear = 0.5 * (Y.T @ p)
        self.size = 0.5 * float(self.p @ self.up_lengths + self.mass)
        self.crude = (float(np.linalg.norm(self.linear)) + 0.5 * float(self.p @ self.up_lengths)) * (
            1.0 + self.rounding
        )
        self.crude += self.rounding * self.size
        # Positions of u and U in [1 u^T; u U].
        self.J = np.concatenate([np.zeros(r, dtype=np.intp), self.first + 1])
        self.K = np.concatenate([np.arange(1, r + 1), self.second + 1])
        self.twice = np.where(self.J == self.K, 1.0, 2.0)
        self.trace = np.concatenate([np.zeros(r), (self.first == self.second).astype(float)])

    def solve(
        self,
        low: Float[np.ndarray, "B r"],
        high: Float[np.ndarray, "B r"],
        last: float,
        starts: Float[np.ndarray, "B d"] | None = None,
        first: float = np.inf,
        *,
        deadline: float = np.inf,
    ) -> Moments:
        """Bounds over boxes: the barrier leaves a gap of some `last`, from `first` on; starts: of another p.

        Raises OutOfTime at the deadline.
        """
        with np.errstate(all="ignore"):  # what is not finite is set aside
            return self._solved(low, high, last, starts, first, deadline)

    def _solved(
        self, low: np.ndarray, high: np.ndarray, last: float, starts: np.ndarray | None, *limits: float
    ) -> Moments:
        first, deadline = limits
        middles = centres(low, high)
        room = self._least(middles)
        v = middles if starts is None else starts.copy()
        products = products_of(low, high)
        bounds, kept = np.full(len(v), self.crude + self.apart), v
        gap = max(last, min(first, START * self.size))
        while True:
            mu = gap / (3.0 * self.r**2)
            left, lost = np.arange(len(v)), np.zeros(0, dtype=np.intp)
            for _ in range(STEPS):
                if time.perf_counter() > deadline:
                    raise OutOfTime
                # Newton's method only doubles what is far too near the boundary: that is moved away at once.
                near = left[self._least(v[left]) < mu / (4.0 * self.size)]
                part = np.minimum(mu / self.size / room[near], 0.3)[:, None]
                v[near] = (1.0 - part) * v[near] + part * middles[near]
                v[left], decrements = self._newton(v[left], products.of(left), mu)
                lost = np.concatenate([lost, left[np.isinf(decrements)]])
                # Where rows change sides, a bound needs more: shares are steep there.
                enough = CLOSE if gap <= BEFORE * last else CENTRED
                left = left[(decrements > enough) & np.isfinite(decrements)]
                if left.size == 0:
                    break
            if gap >= BEFORE * last:
                kept = v.copy()
            if gap <= BEFORE * last:
                bounds = np.fmin(bounds, self.bounds(v, products, mu))
            if gap <= last:
                break
            gap = max(SHRINK * gap, last)
        found = Moments(bounds, np.where(np.isfinite(v), v, middles), np.where(np.isfinite(kept), kept, middles))
        left = np.concatenate([left, lost])
        if left.size and starts is not None:  # not centred: once more, from the beginning
            again = self._solved(low[left], high[left], last, None, np.inf, deadline)
            better = again.bounds < bounds[left]
            for part, new in zip(found, again, strict=True):
                part[left[better]] = new[better]
        return found

    def bounds(self, v: Float[np.ndarray, "B d"], products: Products, mu: float) -> Float[np.ndarray, " B"]:
        """What the multipliers at these points prove, rounded upwards."""
        r, (C, c) = self.r, products
        with np.errstate(all="ignore"):
            taus, shares, g, _, slack = self._state(v, products, mu)
            taus = np.maximum(taus, EPS * self.up_lengths + TINY)
            multipliers = np.where(slack > 0, mu / slack, 0.0)
            constant = 0.25 * taus @ self.p + np.sum(multipliers * c, axis=1)
            added = (multipliers[:, None] @ C)[:, 0]
            b = self.linear - 0.5 * (self.q * (shares[0] - shares[1])) @ self.down + added[:, :r]
            half = 0.25 * (self.p / taus) @ self.up_pairs - 0.5 * weighted_pairs(self.down, self.q * shares[2], g)
            half += added[:, r:]
            of_Q = 0.5 * (1.0 / taus) @ (self.p * self.up_lengths**2) + (self.mass + 8.0 * multipliers.sum(axis=1))
            of_b = 2.0 * self.size + 0.25 * taus @ self.p
        proper = (
            np.isfinite(of_Q + of_b + constant) & np.all(np.isfinite(half), axis=1) & np.all(np.isfinite(b), axis=1)
        )
        Q = np.zeros((len(v), r, r))
        entries = np.where(proper[:, None], half, 0.0) * np.where(self.first == self.second, 2.0, 1.0)
        Q[:, self.first, self.second] = Q[:, self.second, self.first] = entries
        values, vectors = np.linalg.eigh(Q)
        b = (vectors.transpose(0, 2, 1) @ np.where(proper[:, None], b, 0.0)[:, :, None])[:, :, 0]
        level = _levels(values, b)
        value = constant + 0.5 * level + 0.5 * np.sum(b * b / (level[:, None] - values), axis=1)
        # As in `relaxation`: an eigenvalue decomposition is that of a matrix a small multiple of eps |Q| away.
        value += self.rounding * (of_Q + of_b + np.abs(constant) + np.abs(level))
        return np.fmin(np.where(proper, value, np.inf), self.crude) + self.apart

    def features(self, Y: Float[np.ndarray, "n r"], v: Float[np.ndarray, "B d"]) -> tuple[np.ndarray, np.ndarray]:
        """Limits, (B, n) each, of the features at these moments: 1/2 (y_i u + what may stand for |y_i y|)."""
        along, moment = v[:, : self.r] @ Y.T, np.maximum(v[:, self.r :] @ pairs_of(Y).T, 0.0)
        narrowest = np.maximum(np.abs(along), np.linalg.norm(Y @ self.matrices(v)[:, 1:, 1:], axis=2))
        return 0.5 * (along + narrowest), 0.5 * (along + np.maximum(np.sqrt(moment), narrowest))

    def matrices(self, v: Float[np.ndarray, "B d"], corner: float = 1.0) -> Float[np.ndarray, "B rows rows"]:
        """[1 u^T; u U]."""
        M = np.empty((len(v), self.r + 1, self.r + 1))
        M[:, 0, 0] = corner
        M[:, self.J, self.K] = M[:, self.K, self.J] = v
        return M

    def variances(self, v: Float[np.ndarray, "B d"]) -> Float[np.ndarray, "B r"]:
        """U_jj - u_j^2."""
        return v[:, self.r :][:, self.first == self.second] - v[:, : self.r] ** 2

    def _least(self, v: np.ndarray) -> Float[np.ndarray, " B"]:
        return np.linalg.eigvalsh(_finite(self.matrices(v)))[:, 0] if len(v) else np.zeros(0)

    def _spread(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """U y_i of the rows with p_i < 0, and its length."""
        moved = self.down @ self.matrices(v)[:, 1:, 1:]
        return moved, np.linalg.norm(moved, axis=2)

    def _state(self, v: np.ndarray, products: Products, mu: float) -> tuple[np.ndarray, ...]:
        """tau, the shares (3, B, .), g (B, ., r), |U y_i|, and the products."""
        u, U = v[:, : self.r], v[:, self.r :]
        taus = np.sqrt(np.maximum(U @ self.up_pairs.T, TINY))
        along, (moved, spread) = u @ self.down.T, self._spread(v)
        pieces = np.stack([along, -along, spread]) / (self._temperature(mu) * self.lengths)
        shares = np.exp(pieces - pieces.max(axis=0))
        shares /= shares.sum(axis=0)
        return taus, shares, moved / np.maximum(spread, TINY)[:, :, None], spread, products.at(v)

    def _temperature(self, mu: float) -> float:
        """Of the smoothed maxima, over lengths: together they leave as much of a gap as the other terms."""
        return 2.0 * mu * self.r**2 / self.mass

    def _barrier(self, v: np.ndarray, products: Products, mu: float) -> Float[np.ndarray, " B"]:
        """The function that Newton's method maximises, -inf outside."""
        u, U = v[:, : self.r], v[:, self.r :]
        slack = products.at(v)
        along, (_, spread) = u @ self.down.T, self._spread(v)
        scale = self._temperature(mu) * self.lengths
        top = np.maximum(np.abs(along), spread)
        total = np.exp((along - top) / scale) + np.exp((-along - top) / scale) + np.exp((spread - top) / scale)
        sign, log_det = np.linalg.slogdet(self.matrices(v))
        value = u @ self.linear + 0.5 * np.sqrt(np.maximum(U @ self.up_pairs.T, TINY)) @ self.p
        value -= 0.5 * (top + scale * np.log(total)) @ self.q
        value += mu * (log_det + np.sum(np.log(np.maximum(slack, TINY)), axis=1))
        return np.where((sign > 0) & (slack.min(axis=1, initial=1.0) > 0) & np.isfinite(value), value, -np.inf)

    def _newton(self, v: np.ndarray, products: Products, mu: float) -> tuple[np.ndarray, np.ndarray]:
        """One step, and the decrements; where none can be made, the point itself and inf."""
        gradient, hessian, slack, root = self._derivatives(v, products, mu)
        right = np.stack([gradient, np.broadcast_to(self.trace, gradient.shape)], axis=2)
        proper = np.all(np.isfinite(hessian), axis=(1, 2)) & np.all(np.isfinite(right), axis=(1, 2))
        hessian[~proper] = np.eye(self.d)
        try:
            both = np.linalg.solve(hessian, np.where(proper[:, None, None], right, 0.0))
        except np.linalg.LinAlgError:
            return v, np.full(len(v), np.inf)
        along = (both[:, :, 0] @ self.trace) / (both[:, :, 1] @ self.trace)
        step = both[:, :, 0] - along[:, None] * both[:, :, 1]  # keeps the trace
        step = np.where(np.all(np.isfinite(step), axis=1)[:, None], step, 0.0)
        decrements = np.sqrt(np.maximum(np.sum(step * gradient, axis=1), 0.0) / mu)
        moved = (products.C @ step[:, :, None])[:, :, 0]
        wall = np.min(np.where(moved < 0, slack / np.maximum(-moved, TINY), np.inf), axis=1, initial=np.inf)
        least = np.linalg.eigvalsh(_finite(root @ self.matrices(step, 0.0) @ root.transpose(0, 2, 1)))[:, 0]
        wall = np.minimum(wall, np.where(least < 0, 1.0 / np.maximum(-least, TINY), np.inf))
        longest = np.minimum(1.0, TO_THE_WALL * wall)[:, None] * step
        best, length, rising = self._barrier(v, products, mu), np.zeros(len(v)), np.arange(len(v))
        for cut in CUTS:  # shorter ones while they are better, or none is good
            value = self._barrier(v[rising] + cut * longest[rising], products.of(rising), mu)
            better = value > best[rising]
            best[rising[better]], length[rising[better]] = value[better], cut
            rising = rising[better | (length[rising] == 0)]
            if rising.size == 0:
                break
        return v + length[:, None] * longest, np.where((length > 0) | (decrements <= CENTRED), decrements, np.inf)

    def _derivatives(self, v: np.ndarray, products: Products, mu: float) -> tuple[np.ndarray, ...]:
        """Gradient, minus the second derivative, the products, and W with W [1 u^T; u U] W^T = I."""
        r, J, K, (C, _) = self.r, self.J, self.K, products
        taus, shares, g, spread, slack = self._state(v, products, mu)
        values, vectors = np.linalg.eigh(_finite(self.matrices(v)))
        root = vectors.transpose(0, 2, 1) / np.sqrt(np.maximum(values, TINY))[:, :, None]
        G = root.transpose(0, 2, 1) @ root
        with np.errstate(all="ignore"):
            inverse = 1.0 / np.where(slack > 0, slack, np.nan)
        difference, third = shares[0] - shares[1], shares[2]
        gradient = mu * (G[:, J, K] * self.twice + (inverse[:, None] @ C)[:, 0])
        gradient[:, :r] += self.linear - 0.5 * (self.q * difference) @ self.down
        gradient[:, r:] += 0.25 * (self.p / taus) @ self.up_pairs - 0.5 * weighted_pairs(self.down, self.q * third, g)
        weight = 0.5 * self.q / (self._temperature(mu) * self.lengths)
        of_uu = weight * (shares[0] + shares[1] - difference**2)
        of_uU = -weight * difference * third
        bend = 0.5 * self.q * third / np.maximum(spread, TINY)  # of |U y_i|
        of_UU = weight * third * (1.0 - third) - bend
        of_up = 0.125 * self.p / taus**3
        hessian = mu * ((C * (inverse**2)[:, :, None]).transpose(0, 2, 1) @ C)
        # The sums over rows take most of the time; single precision is enough for a direction.
        down, up_pairs = self.single
        g = g.astype(np.float32)
        slopes = pairs_of(down, g)  # of |U y_i| in U
        of_uu, of_uU, of_UU, of_up = (w.astype(np.float32)[:, None] for w in (of_uu, of_uU, of_UU, of_up))
        hessian[:, :r, :r] += (down.T * of_uu) @ down
        cross = (down.T * of_uU) @ slopes
        hessian[:, :r, r:] += cross
        hessian[:, r:, :r] += cross.transpose(0, 2, 1)
        hessian[:, r:, r:] += (slopes.transpose(0, 2, 1) * of_UU) @ slopes + (up_pairs.T * of_up) @ up_pairs
        hessian[:, r:, r:] += squares_of((down.T * bend.astype(np.float32)[:, None]) @ down)
        half = 0.5 * np.outer(self.twice, self.twice)
        mixed = G[:, J][:, :, K]
        hessian += mu * half * (G[:, J][:, :, J] * G[:, K][:, :, K] + mixed * mixed.transpose(0, 2, 1))
        return gradient, hessian, slack, root


def _finite(matrices: np.ndarray) -> np.ndarray:
    return np.where(np.abs(matrices) < LARGE, matrices, 0.0)


def _levels(values: Float[np.ndarray, "B r"], b: Float[np.ndarray, "B r"]) -> Float[np.ndarray, " B"]:
    """The lambda above all values with sum b^2 / (lambda - values)^2 = 1, or what is nearest to it."""
    size = np.abs(values).max(axis=1) + np.linalg.norm(b, axis=1)
    low = values[:, -1] + np.maximum(1e-9 * size, TINY)
    high = low + 2.0 * np.linalg.norm(b, axis=1)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        longer = np.sum((b / (middle[:, None] - values)) ** 2, axis=1) > 1.0
        low, high = np.where(longer, middle, low), np.where(longer, high, middle)
    return high
