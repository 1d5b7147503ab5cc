"""Upper bounds on the price by a relaxation that couples rows in pairs, tight where near rows pull to opposite sides.

For one output and one sign, phi(u) = p^T (X u)_+ = 1/2 p^T X u + 1/2 sum_i p_i |x_i u|. With h_i = x_i / |x_i|, pairs
(i, j) of rows, signs s = +-1, and any numbers d_i, w_ij, alpha_ij > 0, a matrix B and a quadratic form H are

    B = diag(d) + sum_ij w_ij (alpha_ij e_i - e_j / alpha_ij) (alpha_ij e_i - e_j / alpha_ij)^T,
    H = sum_i d_i h_i h_i^T + sum_ij w_ij (alpha_ij h_i - s_ij h_j / alpha_ij) (alpha_ij h_i - s_ij h_j / alpha_ij)^T.

Off the diagonal the entries of B are -w_ij, and |h_i u| |h_j u| >= s_ij (h_i u) (h_j u): so z = (|h_i u|)_i has
z^T B z <= u^T H u, and, whatever r is, r^T z <= 1/2 (r^T B^{-1} r + z^T B z). As in `relaxation`, rows with p_i < 0 are
shared out first, with (a_i, b_i, c_i, e_i) >= 0 of sum one, and vectors g_i of length at most one,

    -|p_i| |x_i u| <= -|p_i| ((a_i - b_i) x_i u + c_i (x_i u) (g_i u) + e_i |x_i u|),

and r_i = p_i |x_i| or -|p_i| e_i |x_i|. On the sphere, for every lambda > lambda_max(Q), therefore

    phi(u) <= 1/4 r^T B^{-1} r + 1/2 lambda + 1/2 b^T (lambda I - Q)^{-1} b,
    b = 1/2 X^T p - 1/2 X_-^T (|p| (a - b)),     Q = 1/2 H - 1/2 sum_- |p_i| c_i (x_i g_i^T + g_i x_i^T).

Without pairs, and with g_i = x_i / |x_i|, that is `relaxation`. There rows of both signs act as if they had nothing to
do with each other, and where t alternates between near rows, as the residual of a small beta does, the bound is the sum
of all positive ones. Here r^T B^{-1} r is that of r averaged over neighbours, at the cost of their differences in H. It
is the dual of a semidefinite relaxation with moment matrices U of u and Z of z, where Z_ij >= |h_i U h_j| for the
pairs, and z_i >= |U h_i| instead of h_i U h_i: where U is spread over k of r dimensions, that is sqrt(r / k) as much.

Source: products of constraints as in Sherali & Adams, "A reformulation-linearization technique", 1999; with the ball,
as g_i stand for: Burer & Anstreicher, "Second-order-cone constraints for extended trust-region subproblems", SIAM
Journal on Optimization 23, 2013; that symmetric matrices with nonpositive entries off the diagonal are such sums, with
two entries in each square: Boman, Chen, Parekh & Toledo, "On factor width and symmetric H-matrices", Linear Algebra and
its Applications 405, 2005.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import linalg
from scipy.sparse import csr_array

from cvxrelu.numerics.conjugate_gradients import conjugate_gradients
from cvxrelu.numerics.rounding import EPS, gamma

__all__ = ["Coupling"]

NEAR = 12  # pairs of a row with those of the least angle to it, or to its opposite
TURNING = 1_000_000  # entries of X up to which every g is a parameter; beyond, they stay where they start
BLOCK = 1000  # rows whose angles to all others are looked at together
LOG_RANGE = 20.0  # d and w stay within e^20 of their start, alpha within e^2 of one
LOG_RATIO = 2.0
BELOW = 2.0  # start: d of rows with p < 0, and w, that far below, in logarithms
LEAST = 1e-3  # of the mean |p|, which every row counts with at the start
SPREAD = 0.02  # of a moment matrix to start at, that is made the same in all directions
FAINT = 12.0  # logits of shares there are at most that far below the largest
SHORT = 1e-120  # rows shorter than this are bounded by their length
DENSE = 512  # rows up to which a Cholesky factor is faster than conjugate gradients
CLOSE, CLOSER, STEPS = 1e-6, 1e-10, 400  # of conjugate gradients: residuals relative to r, and most of them
ALMOST_NONE = 1e-9  # a barrier for the final evaluation, relative to the bound: keeps lambda off the eigenvalues
HALVINGS = 50
TINY = 1e-300


class _Parts(NamedTuple):
    """What z and p make: see the module. `coupled` holds w, `signed` s w, both off the diagonal and positive there."""

    d: np.ndarray
    ends: np.ndarray  # (2, m): w alpha^2 and w / alpha^2
    w: np.ndarray
    shares: np.ndarray  # (4, n)
    q: np.ndarray
    r: np.ndarray
    diagonal: np.ndarray
    coupled: Any
    curve: np.ndarray
    against: np.ndarray  # (n, r): g
    Q: np.ndarray
    b: np.ndarray


class Coupling:
    """Bounds on max over |u| <= 1 of p^T (X u)_+ for any p, of parameters z in logarithms.

    X : (n, r) float64 of entries near one or below. near : rows that each is paired with; 0 for no pairs, where no row
    is left to pay with e. turns : whether g are parameters, of at most `TURNING` entries; otherwise they stay where
    they start. z : (4 n + 2 m + n r,), log d, log w, log alpha, three logits a row and (n, r) vectors along g, if any.
    """

    def __init__(self, X: Float[np.ndarray, "n r"], near: int = NEAR, turns: bool = True) -> None:
        lengths = np.linalg.norm(X, axis=1)
        self.used = np.abs(X).max(axis=1, initial=0.0) >= SHORT
        self.short = np.abs(X[~self.used]).sum(axis=1)
        self.X, self.lengths = X[self.used], lengths[self.used]
        self.unit_rows = self.X / self.lengths[:, None]
        self.n, self.rank = self.X.shape
        self.first, self.second, self.signs = _nearest(self.unit_rows, near)
        m = len(self.first)
        self.turned = self.X.size if turns and self.X.size <= TURNING else 0  # numbers that g takes
        self.fixed = self.unit_rows  # g, where they are no parameters
        self.size = 4 * self.n + 2 * m + self.turned
        self.last = 0.0 if m else -np.inf  # logit of e
        both = np.concatenate([self.first, self.second]), np.concatenate([self.second, self.first])
        pattern = csr_array((np.arange(1.0, 2 * m + 1), both), shape=(self.n, self.n))
        self.pattern, self.order = pattern, pattern.data.astype(np.intp) - 1
        self.degree = np.diff(pattern.indptr)
        self.rounding = 4.0 * gamma(self.n, self.rank, int(self.degree.max(initial=0)))
        self.middle = np.zeros(self.n + m)
        self.solved = np.zeros(self.n)  # B^{-1} r of the last call, to start from

    def start(self, p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " size"]:
        """Rows by themselves as in the closed form, nearly uncoupled; equal shares, every g along its row."""
        p = p[self.used]
        up, least = p > 0, LEAST * (float(np.abs(p).mean()) if np.any(p) else 1.0)
        top = float(np.linalg.eigvalsh(self.X[up].T @ (p[up, None] * self.X[up]))[-1]) if up.any() else 0.0
        middle = np.sqrt(p[up].sum() / top) if top > 0 else 1.0
        d = np.log(np.maximum(np.abs(p), least)) + np.log(middle) + 2.0 * np.log(self.lengths)
        w = np.minimum(d[self.first], d[self.second]) - BELOW
        self.middle = np.concatenate([d, w])
        low = BELOW if len(w) else LOG_RANGE
        return np.concatenate([d - low * ~up, w, np.zeros(len(w) + 3 * self.n), self.unit_rows.ravel()[: self.turned]])

    def start_at(
        self,
        p: Float[np.ndarray, " n"],
        U: Float[np.ndarray, "r r"],
        u: Float[np.ndarray, " r"],
        eps: float,
    ) -> Float[np.ndarray, " size"]:
        """What is best at moments U, of trace one, and u of directions: d, and, with the barrier, shares and g."""
        z, p, n, m = self.start(p), p[self.used], self.n, len(self.first)
        U = (1.0 - SPREAD) * U + SPREAD / self.rank * np.eye(self.rank)
        moved, along = self.unit_rows @ U, self.unit_rows @ u
        over, up = np.linalg.norm(moved, axis=1), p > 0
        root = np.sqrt(np.einsum("ij,ij->i", moved, self.unit_rows))
        z[:n][up] = np.log(p * self.lengths / root, where=up, out=np.zeros(n))[up]
        mass = np.maximum(-p, 0.0) * self.lengths
        logits = np.stack([along, -along, over]) * (float(mass.sum()) / (eps * self.rank))
        z[n + 2 * m : 4 * n + 2 * m] = np.maximum(logits - logits.max(axis=0), -FAINT).ravel()
        self.fixed = moved / over[:, None]
        z[len(z) - self.turned :] = self.fixed.ravel()[: self.turned]
        return z

    def smoothed(
        self, z: Float[np.ndarray, " size"], p: Float[np.ndarray, " n"], eps: float
    ) -> tuple[float, Float[np.ndarray, " size"], Float[np.ndarray, " n"]]:
        """The bound with the barrier -eps log det(lambda I - Q), at its best lambda, and its gradients in z and p.

        The entropy of the shares, of the same size as the barrier, keeps their logits from where slopes vanish; its
        weights count as fixed in the gradient in p.
        """
        everywhere, p = np.zeros(len(p)), p[self.used]
        i, j = self.first, self.second
        parts = self._parts(z, p)
        v, residual = self._solve(parts, CLOSE)
        values, vectors = np.linalg.eigh(parts.Q)
        b = vectors.T @ parts.b
        level = level_of(values, b, eps)
        inverse = 1.0 / (level - values)
        u = vectors @ (inverse * b)
        mass = parts.q * self.lengths
        entropy = 0.5 * self.rank * mass / max(float(mass.sum()), TINY)
        logs = np.log(np.maximum(parts.shares, TINY))
        total = 0.25 * (parts.r @ v + residual @ v) + 0.5 * level + 0.5 * np.sum(b * b * inverse)
        total += eps * np.sum(np.log(inverse)) + eps * np.sum(entropy * parts.shares * logs)
        # The derivative in Q is half the moment matrix of u, that in B minus a quarter of v v^T.
        moved = self.unit_rows @ (np.outer(u, u) + 2.0 * eps * (vectors * inverse) @ vectors.T)
        moment, along = np.einsum("ij,ij->i", moved, self.unit_rows), self.unit_rows @ u
        excess = 0.25 * (moment - v * v)
        across = self.signs * np.einsum("ij,ij->i", moved[i], self.unit_rows[j]) - v[i] * v[j]
        of_ends = parts.ends * np.stack([excess[i], excess[j]])
        of_w = of_ends.sum(axis=0) - 0.5 * parts.w * across
        over = np.einsum("ij,ij->i", moved, parts.against)
        slopes = np.stack([-along, along, -over, -v])
        of_shares = 0.5 * mass * slopes + eps * entropy * logs
        of_logits = parts.shares * (of_shares - np.sum(parts.shares * of_shares, axis=0))
        a, b_share, c, e = parts.shares
        of_negative = along * (1.0 + a - b_share) + c * over + e * v
        everywhere[self.used] = 0.5 * self.lengths * np.where(p > 0, along + v, of_negative)
        of_ratio = 2.0 * (of_ends[0] - of_ends[1])
        gradient = [parts.d * excess, of_w, of_ratio, of_logits[:3].ravel()]
        if self.turned:
            lengths = np.linalg.norm(z[-self.turned :].reshape(self.X.shape), axis=1)
            across_g = moved - over[:, None] * parts.against  # lengths of g change nothing
            gradient.append((-0.5 * (parts.curve / np.maximum(lengths, TINY))[:, None] * across_g).ravel())
        return float(total), np.concatenate(gradient), everywhere

    def bound(self, z: Float[np.ndarray, " size"], p: Float[np.ndarray, " n"]) -> float:
        """The value at z without barrier, rounded upwards."""
        # Squares that vanish need no more: lambda stays `ALMOST_NONE` above the eigenvalues, and so does the bound.
        apart = float(np.abs(p[~self.used]) @ self.short) * (1.0 + self.rounding)
        p = p[self.used]
        parts = self._parts(z, p)
        v, residual = self._solve(parts, CLOSER)
        # r^T B^{-1} r = r v + residual v + residual^T B^{-1} residual, whatever v is, and B is at least diag(d).
        missed = (
            4.0 * (self.degree + 6.0) * EPS * (np.abs(parts.r) + parts.diagonal * np.abs(v) + parts.coupled @ np.abs(v))
        )
        terms = np.concatenate(
            [parts.r * v, residual * v, missed * np.abs(v), (np.abs(residual) + missed) ** 2 / parts.d]
        )
        constant, of_constant = 0.25 * float(np.sum(terms)), 0.25 * float(np.sum(np.abs(terms)))
        # An eigenvalue decomposition is that of a matrix at most a small multiple of eps |Q| away, and so is what the
        # product of its vectors does to lengths; the sums of magnitudes bound the norms of Q, b and r.
        of_Q = float(np.sum(0.5 * parts.diagonal + parts.curve) + np.sum(parts.w))
        of_b = 2.0 * float(np.sum(np.abs(p) * self.lengths))
        values, vectors = np.linalg.eigh(parts.Q)
        b = vectors.T @ parts.b
        level = level_of(values, b, ALMOST_NONE)
        value = constant + 0.5 * level + 0.5 * np.sum(b * b / (level - values))
        return float(value + self.rounding * (of_Q + of_b + of_constant + abs(level)) + apart)

    def _parts(self, z: np.ndarray, p: np.ndarray) -> _Parts:
        n, m = self.n, len(self.first)
        near = np.clip(z[: n + m], self.middle - LOG_RANGE, self.middle + LOG_RANGE)
        d, w = np.exp(near[:n]), np.exp(near[n:])
        ratio = np.exp(2.0 * np.clip(z[n + m : n + 2 * m], -LOG_RATIO, LOG_RATIO))
        logits = np.concatenate([z[n + 2 * m : 4 * n + 2 * m].reshape(3, n), np.full((1, n), self.last)])
        shares = np.exp(logits - logits.max(axis=0))
        shares /= shares.sum(axis=0)
        q, signs = np.maximum(-p, 0.0), self.signs
        ends = np.stack([w * ratio, w / ratio])
        # Rounded so that every square of a pair, and what is left of the diagonal beside them, stays nonnegative.
        w = (1.0 - 16.0 * EPS) * w
        diagonal = d + np.bincount(self.first, ends[0], n) + np.bincount(self.second, ends[1], n)
        diagonal *= 1.0 + 4.0 * (self.degree + 4.0) * EPS
        coupled, signed = (
            csr_array((np.concatenate([a, a])[self.order], self.pattern.indices, self.pattern.indptr), (n, n))
            for a in (w, signs * w)
        )
        rows, against = self.unit_rows, self.fixed
        if self.turned:
            against = z[-self.turned :].reshape(self.X.shape)
            against = against / np.maximum(np.linalg.norm(against, axis=1, keepdims=True), TINY)
        curve = q * shares[2] * self.lengths
        Q = rows.T @ (0.5 * diagonal[:, None] * rows - 0.5 * (signed @ rows) - curve[:, None] * against)
        b = 0.5 * (self.X.T @ (p - q * (shares[0] - shares[1])))
        r = (np.maximum(p, 0.0) - q * shares[3]) * self.lengths
        return _Parts(d, ends, w, shares, q, r, diagonal, coupled, curve, against, 0.5 * (Q + Q.T), b)

    def _solve(self, parts: _Parts, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """(v, r - B v) for v nearly B^{-1} r."""

        def product(v: np.ndarray) -> np.ndarray:
            return parts.diagonal * v - parts.coupled @ v

        if not len(self.first):
            v = parts.r / parts.diagonal
            return v, parts.r - parts.diagonal * v
        if self.n <= DENSE:
            with contextlib.suppress(linalg.LinAlgError):
                factor = linalg.cho_factor(np.diag(parts.diagonal) - parts.coupled.toarray(), check_finite=False)
                v = linalg.cho_solve(factor, parts.r, check_finite=False)
                return v, parts.r - product(v)
        atol = tolerance * float(np.linalg.norm(parts.r))
        v, _ = conjugate_gradients(product, parts.r, self.solved, lambda v: v / parts.diagonal, atol, STEPS)
        self.solved = v if np.all(np.isfinite(v)) else np.zeros(self.n)
        return self.solved, parts.r - product(self.solved)


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


def _nearest(rows: np.ndarray, near: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """i, j and the sign of h_i h_j, of every row with those nearest to its line, each pair once."""
    n = len(rows)
    near = min(near, n - 1)
    if near < 1:
        nothing = np.zeros(0, dtype=np.intp)
        return nothing, nothing, np.zeros(0)
    found = []
    for k in range(0, n, BLOCK):
        cosines = np.abs(rows[k : k + BLOCK] @ rows.T)
        cosines[np.arange(len(cosines)), np.arange(k, k + len(cosines))] = -1.0
        found.append(np.argpartition(-cosines, near - 1, axis=1)[:, :near])
    mine, others = np.repeat(np.arange(n), near), np.concatenate(found).ravel()
    first, second = np.unique(np.sort(np.stack([mine, others], axis=1), axis=1), axis=0).T
    signs = np.where(np.einsum("ij,ij->i", rows[first], rows[second]) < 0, -1.0, 1.0)
    return first, second, signs
