"""Projections onto activation cones with all products of n rows on a device, for many blocks in rounds.

What `cone_memory` does block by block is done here for all unfinished blocks at once. The least-squares problems of a
round are small, d rows and few columns, and stay on the host. What costs n d products, looking for the rows that are
violated at the new points and choosing those that enter, is one compiled call a round: points (d, b) go to the device,
at most d row numbers a block come back.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxrelu.backends.base import Backend
from cvxrelu.sampled.cone_memory import MAX_ROUNDS, NEAR, SMALL, ConeMemory
from cvxrelu.sampled.cones import TOLERANCE
from cvxrelu.support.errors import OutOfTime

__all__ = ["DeviceCones"]


class DeviceCones(ConeMemory):
    """The same memory; rows, patterns and the gates' margins on the device, in float64.

    A projection ends where that of `ConeMemory` does, by a way that differs in rounding and in which rows enter first.
    """

    def __init__(
        self,
        backend: Backend,
        X: Float[np.ndarray, "n d"],
        patterns: Bool[np.ndarray, "n P"],
        gates: Float[np.ndarray, "d P"],
        copies: int = 2,
    ) -> None:
        super().__init__(X, patterns, None, copies)
        self.backend = backend
        lengths = np.linalg.norm(gates, axis=0)
        directions = gates / np.where(lengths > 0, lengths, 1.0)
        self.rows, self.masks, placed = backend.put((self.unit, self.patterns, directions))
        self.margins = backend.compile(_margins)(backend, self.rows, self.masks, placed)
        self.nearest: np.ndarray | None = None  # rows (k, P) that are nearest to their gates

    def project(
        self, blocks: Int[np.ndarray, " b"], w: Float[np.ndarray, "d b"], limit: float, deadline: float = np.inf
    ) -> Float[np.ndarray, "d b"]:
        """Projections of the columns of w; where |Proj_K(w)| <= limit, some w + A mu no longer than that instead.

        Raises `OutOfTime` at the deadline (of `time.perf_counter`).
        """
        if blocks.size == 0:
            return w.copy()
        patterns, lengths = blocks % self.patterns.shape[1], np.linalg.norm(w, axis=0)
        u, multipliers, pull = self._on_last_faces(blocks, w)
        same = np.all(multipliers >= 0, axis=1)
        entering = self._entering(u, patterns, lengths)
        satisfied = np.array([rows.size == 0 for rows in entering])
        done = same & (satisfied | (np.linalg.norm(u, axis=0) <= limit))
        self.mass[blocks[done]], self.pull[:, blocks[done]] = multipliers[done].sum(axis=1), pull[:, done]
        u[:, lengths == 0] = 0.0
        todo = np.flatnonzero(~done & (lengths > 0))
        faces, shortest = [self.faces[b] for b in blocks], np.full(blocks.size, np.inf)
        for j in todo:
            if faces[j].rows.size == 0 or self.d <= SMALL:
                faces[j], entering[j] = self._start(int(patterns[j]), faces[j], w[:, j])
            elif not same[j]:
                entering[j] = entering[j][:0]
        for _ in range(MAX_ROUNDS):
            left = []
            for j in todo:
                if time.perf_counter() > deadline:
                    raise OutOfTime
                rows = np.setdiff1d(entering[j], faces[j].rows, assume_unique=True)
                try:
                    face, found, u[:, j] = self._minimise(int(patterns[j]), faces[j], rows, w[:, j], lengths[j])
                    faces[j] = face
                except np.linalg.LinAlgError:
                    u[:, j] = np.nan
                size = float(np.linalg.norm(u[:, j]))
                if not size < shortest[j]:  # rounding: no progress
                    u[:, j] = self._from_scratch(int(blocks[j]), w[:, j])
                    continue
                shortest[j] = size
                self._remember(int(blocks[j]), faces[j], found)
                if size > limit:
                    left.append(j)
            todo = np.array(left, dtype=np.intp)
            if todo.size == 0:
                return u
            for j, rows in zip(todo, self._entering(u[:, todo], patterns[todo], lengths[todo]), strict=True):
                entering[j] = np.setdiff1d(rows, faces[j].rows, assume_unique=True)
            todo = todo[[entering[j].size > 0 for j in todo]]
        for j in todo:
            u[:, j] = self._from_scratch(int(blocks[j]), w[:, j])
        return u

    def _on_last_faces(self, blocks: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the faces of the last projections give: points (d, b), multipliers (b, k), pull (d, b)."""
        size = max(self.faces[b].rows.size for b in blocks)
        normals, inverses = self.normals[blocks, :, :size], self.inverses[blocks, :size]
        columns = w.T[:, :, None]
        multipliers = -inverses @ columns
        pull = normals @ multipliers
        u = columns + pull
        u -= normals @ (inverses @ u)  # what rounding left outside of the face
        return u[:, :, 0].T.copy(), multipliers[:, :, 0], pull[:, :, 0].T

    def _entering(
        self, u: Float[np.ndarray, "d b"], patterns: Int[np.ndarray, " b"], lengths: Float[np.ndarray, " b"]
    ) -> list[Int[np.ndarray, " k"]]:
        """Of every block at most d rows violated at u beyond tolerance, first on the way from the gate to u."""
        b, backend = patterns.size, self.backend
        if b == 0 or self.m == 0:
            return [np.zeros(0, dtype=np.intp)] * b
        missing = backend.padded(b) - b
        tolerance = np.pad(TOLERANCE * lengths, (0, missing), constant_values=np.inf)
        inputs = backend.put((np.pad(u, ((0, 0), (0, missing))), np.pad(patterns, (0, missing)), tolerance))
        search = backend.compile(_violated, static=("count",))
        count = min(self.d, self.m)
        chosen, violated = backend.get(search(backend, self.rows, self.masks, self.margins, *inputs, count=count))
        return [np.unique(rows[which]) for rows, which in zip(chosen.T[:b], violated.T[:b], strict=True)]

    def _start(self, pattern: int, face: Any, w: np.ndarray) -> tuple[Any, np.ndarray]:
        """No face, and rows to begin with: near the gate, and those of the last face."""
        if self.m == 0:
            return self.whole, np.zeros(0, dtype=np.intp)
        if self.nearest is None:
            nearest = self.backend.compile(_nearest, static=("count",))
            count = min(NEAR * self.d, self.m)
            self.nearest = self.backend.get(nearest(self.backend, self.margins, count=count))
        rows = self.near[pattern]
        rows = np.unique(self.nearest[:, pattern]) if rows is None else rows
        self.near[pattern] = rows = np.union1d(rows, face.rows) if face.rows.size else rows
        return self.whole, rows


def _margins(backend: Backend, rows: Any, M: Any, directions: Any) -> Any:
    """E * (unit rows @ unit gates), (n, P)."""
    return (2.0 * backend.xp.astype(M, rows.dtype) - 1.0) * (rows @ directions)


def _nearest(backend: Backend, margins: Any, *, count: int) -> Any:
    """The rows of the smallest margins of every pattern, (count, P), in no order."""
    return _smallest(backend, margins, count)


def _violated(
    backend: Backend, rows: Any, M: Any, margins: Any, u: Any, patterns: Any, tolerance: Any, *, count: int
) -> tuple[Any, Any]:
    """(row numbers, whether they are violated), (count, b) each: of the violated rows those that are met first.

    On the segment from the gate, stretched to the length of u, to u.
    """
    xp = backend.xp
    signs = 2.0 * xp.astype(xp.take(M, patterns, axis=1), rows.dtype) - 1.0
    slack = signs * (rows @ u)
    zero = xp.zeros((), dtype=rows.dtype)
    margin = xp.maximum(xp.sqrt(xp.sum(u * u, axis=0, keepdims=True)) * xp.take(margins, patterns, axis=1), zero)
    outside = slack < -tolerance[None, :]
    key = xp.where(outside, margin / xp.where(outside, margin - slack, zero + 1.0), zero + xp.inf)
    chosen = _smallest(backend, key, count)
    return chosen, xp.take_along_axis(outside, chosen, axis=0)


def _smallest(backend: Backend, values: Any, count: int) -> Any:
    """Row numbers (count, b) of small values of every column, the smallest of all among them.

    The smallest of each of `count` groups of neighbouring rows: two passes where sorting takes many, and it is nearly
    the smallest `count` where small values are spread over the rows.
    """
    xp, (n, b) = backend.xp, values.shape
    size = -(-n // count)
    filled = xp.concat([values, xp.full((count * size - n, b), xp.inf, dtype=values.dtype)])
    within = xp.argmin(xp.reshape(filled, (count, size, b)), axis=1)
    return xp.minimum(within + size * xp.arange(count)[:, None], xp.asarray(n - 1))
