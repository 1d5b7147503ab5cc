"""Euclidean projections onto the same activation cones again and again, each started from the last one's active rows.

    Proj_K(w) = w + A mu,   mu = argmin over mu >= 0 of |w + A mu|,   columns of A: E_j x_j / |x_j|

(`cones` has the background.) Between the steps of a Newton method w moves little and so do the active rows F, those
with mu > 0. Three things make a projection cheap:

1. While F stays, mu_F = -pinv(A_F) w: two small products for every block, and one product of X with all blocks to see
   that no other row is violated.
2. Rows S that are violated enter together. With F free in sign, mu_S minimises |N^T (w + A_S mu_S)| over mu_S >= 0, N
   an orthonormal basis of the complement of span(A_F): non-negative least squares in the few dimensions that F leaves.
   Where a multiplier of F comes out negative, its row joins S and the step is repeated with the smaller F. What comes
   out is the minimiser over F and S, so that |w + A mu| falls from round to round, and the loop ends.
3. Any mu >= 0 bounds the support value, `|Proj_K(w)| <= |w + A mu|`. Who only needs to know that the projection is no
   longer than a limit stops as soon as it is.

Random cones are slivers around their gate g once n is much larger than d: all but a few d of their rows are redundant.
The first S is therefore the rows nearest to g, and of the rows violated at u those enter that cut the segment from g to
u first: the first of these is never redundant.

Host NumPy in float64.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg.lapack import dgeqrf, dorgqr, dposv, dtrtrs

from cvxrelu.runs.checkpoint import State
from cvxrelu.sampled.cones import TOLERANCE, project_onto_cones
from cvxrelu.support.errors import OutOfTime

__all__ = ["ConeMemory"]

NEAR = 3  # rows of the first working set, in units of d; 2 to 4 were tried, and differ by a fifth in time
SMALL = 16  # up to this d, non-negative least squares over all rows near the gate is cheaper than a warm start
MAX_ROUNDS = 100
DEPENDENT = 1e-10  # a row whose distance from the span of the others is below this is one of them


class _Face(NamedTuple):
    """Active rows with mu > 0, their signed unit normals (d, k), pinv(normals) (k, d), and N (d, d - k)."""

    rows: Int[np.ndarray, " k"]
    normals: Float[np.ndarray, "d k"]
    inverse: Float[np.ndarray, "k d"]
    basis: Float[np.ndarray, "d f"]


class ConeMemory:
    """Cones of P patterns, each `copies` times: blocks i, P + i, 2 P + i... have the same cone and their own memory.

    Attributes
    ----------
    pull : (d, B), A mu of the last projection of every block, mu >= 0; zero before the first. B = copies P.
    mass : (B,), sum of mu, each in units of the row's length, for rounding allowances.
    """

    def __init__(
        self,
        X: Float[np.ndarray, "n d"],
        patterns: Bool[np.ndarray, "n P"],
        gates: Float[np.ndarray, "d P"] | None,
        copies: int = 2,
    ) -> None:
        lengths = np.linalg.norm(X, axis=1)
        rows = lengths > 0
        self.X, self.patterns = X[rows], patterns[rows]
        self.unit = self.X / lengths[rows, None]
        self.signs = np.where(self.patterns.T, 1.0, -1.0)  # of a pattern in one piece, as the margin
        self.m, self.d = self.unit.shape
        blocks = copies * patterns.shape[1]
        self.pull, self.mass = np.zeros((self.d, blocks)), np.zeros(blocks)
        self.whole = _Face(np.zeros(0, dtype=np.intp), np.zeros((self.d, 0)), np.zeros((0, self.d)), np.eye(self.d))
        self.faces = [self.whole] * blocks
        self.margin: np.ndarray | None = None  # of every row at its gate
        if gates is not None:
            lengths = np.linalg.norm(gates, axis=0)
            self.margin = self.signs * ((gates / np.where(lengths > 0, lengths, 1.0)).T @ self.unit.T)
        self.near: list[np.ndarray | None] = [None] * patterns.shape[1]
        # Normals and inverses of all faces, padded with zeros: pages that are never touched take no memory.
        self.normals, self.inverses = np.zeros((blocks, self.d, self.d)), np.zeros((blocks, self.d, self.d))

    def state(self) -> State:
        """What the next projection depends on, beside data and gates."""
        return {"pull": self.pull, "mass": self.mass, "faces": self.faces, "near": self.near}

    def restore(self, state: State) -> None:
        """The inverse of `state`."""
        self.pull, self.mass, self.near = state["pull"], state["mass"], state["near"]
        self.faces = [_Face(*face) for face in state["faces"]]
        for block, face in enumerate(self.faces):
            k = face.rows.size
            self.normals[block, :, :k], self.inverses[block, :k] = face.normals, face.inverse

    def basis(self, block: int) -> Float[np.ndarray, "d f"]:
        """Orthonormal basis of the span of the face that the last projection of a block lies on."""
        return self.faces[block].basis

    def bounds(self, q: Float[np.ndarray, "d B"]) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
        """Upper bounds on |Proj_K(q)| of all blocks, from the best multiple of their last multipliers; and its mass."""
        square = np.sum(self.pull * self.pull, axis=0)
        scale = np.maximum(-np.sum(q * self.pull, axis=0), 0.0) / np.where(square > 0, square, 1.0)
        return np.linalg.norm(q + scale * self.pull, axis=0), scale * self.mass

    def project(
        self, blocks: Int[np.ndarray, " b"], w: Float[np.ndarray, "d b"], limit: float, deadline: float = np.inf
    ) -> Float[np.ndarray, "d b"]:
        """Projections of the columns of w; where |Proj_K(w)| <= limit, some w + A mu no longer than that instead.

        Raises `OutOfTime` at the deadline (of `time.perf_counter`).
        """
        patterns = blocks % self.patterns.shape[1]
        size = max((self.faces[b].rows.size for b in blocks), default=0)
        normals, inverses = self.normals[blocks, :, :size], self.inverses[blocks, :size]
        columns = w.T[:, :, None]
        multipliers = -inverses @ columns
        u = columns + normals @ multipliers
        u -= normals @ (inverses @ u)  # what rounding left outside of the face
        u, multipliers = u[:, :, 0].T.copy(), multipliers[:, :, 0]
        same = np.all(multipliers >= 0, axis=1)
        slack = (u.T @ self.unit.T) * self.signs[patterns]
        done = np.linalg.norm(u, axis=0) <= limit
        done |= slack.min(axis=1, initial=0.0) >= -TOLERANCE * np.linalg.norm(w, axis=0)
        done &= same
        self.mass[blocks[done]] = np.sum(multipliers[done], axis=1)
        self.pull[:, blocks[done]] = (normals[done] @ multipliers[done, :, None])[:, :, 0].T
        for j in np.flatnonzero(~done):
            if time.perf_counter() > deadline:
                raise OutOfTime
            u[:, j] = self._one(int(blocks[j]), w[:, j], slack[j] if same[j] else None, limit)
        return u

    def _one(self, block: int, w: np.ndarray, slack: np.ndarray | None, limit: float) -> np.ndarray:
        """One projection; `slack` is that at the point which the remembered face gives, if that is admissible."""
        pattern = block % self.patterns.shape[1]
        face, length = self.faces[block], math.sqrt(w @ w)
        tolerance = TOLERANCE * length
        if length == 0:
            return w
        if face.rows.size == 0 or self.d <= SMALL:
            face, entering = self._start(pattern, face, w)
        else:
            entering = np.zeros(0, dtype=np.intp)
            if slack is not None:
                entering = self._violated(pattern, slack, face.rows, tolerance, length)
        shortest = np.inf
        for _ in range(MAX_ROUNDS):
            try:
                face, multipliers, u = self._minimise(pattern, face, entering, w, length)
            except np.linalg.LinAlgError:
                break
            size = math.sqrt(u @ u)
            if not math.isfinite(size) or size >= shortest:
                break  # rounding: no progress
            shortest = size
            self._remember(block, face, multipliers)
            if size <= limit:
                return u
            slack = (self.unit @ u) * self.signs[pattern]
            entering = self._violated(pattern, slack, face.rows, tolerance, size)
            if entering.size == 0:
                return u
        return self._from_scratch(block, w)

    def _start(self, pattern: int, face: _Face, w: np.ndarray) -> tuple[_Face, np.ndarray]:
        """No face, and rows to begin with: near the gate, or else the most violated; and those of the last face."""
        rows = self.near[pattern]
        if rows is None:
            key = (self.unit @ w) * self.signs[pattern] if self.margin is None else self.margin[pattern]
            rows = _smallest(key, NEAR * self.d)
        if face.rows.size:
            rows = np.union1d(rows, face.rows)
        self.near[pattern] = rows
        return self.whole, rows

    def _violated(
        self, pattern: int, slack: np.ndarray, known: np.ndarray, tolerance: float, size: float
    ) -> Int[np.ndarray, " k"]:
        """Rows to enter: violated at u, of length `size`, beyond tolerance, and first on the way from the gate to u."""
        slack[known] = 0.0
        rows = np.flatnonzero(slack < -tolerance)
        if rows.size <= self.d:
            return rows
        key = slack[rows]
        if self.margin is not None:
            margin = np.maximum(size * self.margin[pattern, rows], 0.0)
            key = margin / (margin - key)
        return rows[_smallest(key, self.d)]

    def _minimise(
        self, pattern: int, face: _Face, entering: np.ndarray, w: np.ndarray, scale: float
    ) -> tuple[_Face, np.ndarray, np.ndarray]:
        """The minimiser of |w + A mu| over mu >= 0 on the rows of the face and the entering ones: face, mu, point.

        scale : the length of w.
        """
        from scipy.optimize import nnls  # half of the package's import time otherwise

        if face is self.whole:
            normals = (self.unit[entering] * self.signs[pattern, entering][:, None]).T
            mu = np.zeros(entering.size)
            with contextlib.suppress(RuntimeError):  # SciPy gives up: the caller sees no progress
                mu = nnls(normals, -w / scale, maxiter=10 * sum(normals.shape))[0] * scale
            positive = mu > 0
            return _on_face(entering[positive], normals[:, positive], mu[positive], w)
        rows, normals, inverse = face.rows, face.normals, face.inverse
        while True:
            image = inverse @ w
            rest = w - normals @ image
            new = (self.unit[entering] * self.signs[pattern, entering][:, None]).T
            mu = np.zeros(entering.size)
            if entering.size:
                along = inverse @ new
                across = new - normals @ along
                across[:, np.einsum("ij,ij->j", across, across) < DEPENDENT**2] = 0.0
                with contextlib.suppress(RuntimeError):  # SciPy gives up: the caller sees no progress
                    mu = nnls(across, -rest / scale, maxiter=10 * sum(across.shape))[0] * scale
                image = image + along @ mu
            keep = image <= 0
            if np.count_nonzero(keep) == keep.size:
                break
            entering = np.concatenate([entering, rows[~keep]])
            rows, normals, inverse = rows[keep], normals[:, keep], _without(inverse, keep)
        positive = mu > 0
        rows, normals = np.concatenate([rows, entering[positive]]), np.concatenate([normals, new[:, positive]], axis=1)
        return _on_face(rows, normals, np.concatenate([-image, mu[positive]]), w)

    def _remember(self, block: int, face: _Face, multipliers: np.ndarray) -> None:
        k, before = face.rows.size, self.faces[block].rows.size
        self.faces[block], self.mass[block] = face, multipliers.sum()
        self.pull[:, block] = face.normals @ multipliers
        self.normals[block, :, k:before], self.inverses[block, k:before] = 0.0, 0.0
        self.normals[block, :, :k], self.inverses[block, :k] = face.normals, face.inverse

    def _from_scratch(self, block: int, w: np.ndarray) -> np.ndarray:
        """Where rounding stops the way above, the plain algorithm; the face is then the direction of the point."""
        pattern = block % self.patterns.shape[1]
        found = project_onto_cones(self.unit, self.patterns[:, pattern, None], w[:, None])
        u = found.points[:, 0]
        length = float(np.linalg.norm(u))
        whole = _Face(np.zeros(0, dtype=np.intp), np.zeros((self.d, 0)), np.zeros((0, self.d)), u[:, None] / length)
        self._remember(block, whole if length > 0 else whole._replace(basis=np.zeros((self.d, 0))), np.zeros(0))
        self.mass[block], self.pull[:, block] = found.multiplier_mass[0] + np.linalg.norm(w), u - w
        return u


def _face(rows: np.ndarray, normals: np.ndarray) -> _Face:
    """Pseudo-inverse and complement by a QR factorisation; not finite where the normals are dependent."""
    d, k = normals.shape
    if k == 0:
        return _Face(rows, normals, np.zeros((0, d)), np.eye(d))
    if k > d:
        return _Face(rows, normals, np.full((k, d), np.nan), np.zeros((d, 0)))
    packed, tau, _, _ = dgeqrf(normals)
    Q = np.zeros((d, d), order="F")
    Q[:, :k] = packed
    Q, _, _ = dorgqr(Q, np.concatenate([tau, np.zeros(d - k)]), overwrite_a=1)
    inverse, singular = dtrtrs(packed[:k], np.asfortranarray(Q[:, :k].T))
    return _Face(rows, normals, inverse if singular == 0 else np.full((k, d), np.nan), Q[:, k:])


def _on_face(
    rows: np.ndarray, normals: np.ndarray, multipliers: np.ndarray, w: np.ndarray
) -> tuple[_Face, np.ndarray, np.ndarray]:
    """The face of these rows, their multipliers, and the point that they give, on the face but for rounding."""
    face = _face(rows, normals)
    u = w + normals @ multipliers
    return face, multipliers, u - normals @ (face.inverse @ u)


def _without(inverse: np.ndarray, keep: np.ndarray) -> Float[np.ndarray, "j d"]:
    """The pseudo-inverse of some of the columns, from that of all."""
    kept, dropped = inverse[keep], inverse[~keep]
    _, solved, failed = dposv(dropped @ dropped.T, dropped)
    if failed:
        raise np.linalg.LinAlgError
    return kept - (kept @ dropped.T) @ solved


def _smallest(values: np.ndarray, count: int) -> Int[np.ndarray, " k"]:
    """Positions of the smallest `count` values, in no order."""
    return np.argpartition(values, count)[:count] if count < values.size else np.arange(values.size)
