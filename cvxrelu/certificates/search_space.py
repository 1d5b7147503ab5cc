"""What all searches on one data matrix share: its coordinates, computed once, and its rows, put on the device once."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.backends import Backend
from cvxrelu.certificates.coordinates import LARGEST, Coordinates, alike, right_singular_vectors
from cvxrelu.numerics.rounding import EPS, power_of_two

__all__ = ["LARGEST_SPECTRUM", "Ground", "SearchSpace", "White", "dtype_name", "ground_of"]

LARGEST_SPECTRUM = 1500  # columns up to which eigenvectors are computed: d^3 beside n d for every ascent


class White(NamedTuple):
    """Coordinates z in which all columns count alike, for orthogonal columns that are far from alike.

    sizes : lengths of the columns. rows, X : with columns of length 1, on the host and, in the working precision, on
    the device. scale, device_scale (d, 1) : scale * z is a direction in the given coordinates.
    """

    sizes: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    rows: Float[np.ndarray, "n d"]
    X: Any
    device_scale: Any


class Ground(NamedTuple):
    """The data of ascents: rows on the device, and what is needed of them whatever p is.

    X, exact_X : the rows in the working precision and in float64; prices are evaluated with the second. lengths : of
    the rows, 1 for zero ones, in the first. whitening : S with X S z alike in all coordinates of a Gaussian z.
    """

    X: Any
    exact_X: Any
    lengths: Any
    whitening: Float[np.ndarray, "d k"]
    white: White | None = None


def ground_of(backend: Backend, X: Any, exact_X: Any, sizes: Float[np.ndarray, " d"] | None = None) -> Ground:
    """The ground of these device arrays."""
    xp, dtype = backend.xp, dtype_name(X.dtype)
    lengths = xp.astype(xp.sqrt(xp.sum(exact_X * exact_X, axis=1)), X.dtype)
    lengths = xp.where(lengths > 0, lengths, xp.ones_like(lengths))
    if sizes is None:
        d = X.shape[1]
        whitening = _whitening(backend.get(exact_X.T @ exact_X)) if d <= LARGEST_SPECTRUM else np.eye(d)
        return Ground(X, exact_X, lengths, whitening)
    scale = sizes.min() / sizes
    rows = backend.get(exact_X) / sizes
    white = White(sizes, scale, rows, backend.put(rows, dtype, rows=0), backend.put(scale[:, None], dtype))
    return Ground(X, exact_X, lengths, np.diag(scale), white)


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def dtype_name(dtype: Any) -> str:
    """ "float32" or "float64" for a dtype of any array library."""
    return "float32" if "32" in str(dtype) else "float64"


def _whitening(scatter: np.ndarray) -> np.ndarray:
    """S with S^T X^T X S = I on the row space of X: directions S z, z Gaussian, have X S z alike in all coordinates."""
    values, vectors = np.linalg.eigh(scatter)
    seen = values > 1e-10 * max(values[-1], np.finfo(np.float64).tiny)
    return vectors * np.where(seen, np.sqrt(values[-1] / np.where(seen, values, 1.0)), 0.0)


class SearchSpace:
    """X as all searches on it use it, at any beta: what follows from X alone is computed, or put on a device, once.

    Nothing is done before it is asked for: X may be a file that does not fit the memory. On a device there are at most
    two arrays in each precision, the given rows and the rotated ones.
    """

    def __init__(self, X: Float[np.ndarray, "n d"]) -> None:
        self.X = X
        self._placed: dict[tuple, Any] = {}
        self._grounds: dict[tuple, Ground] = {}

    def coordinates(self, negligible: float = 0.0) -> Coordinates:
        """The coordinates to search in, of the row space of X where it has fewer dimensions than columns.

        negligible : |X u| below which a unit vector u is of no use to the program, beta / |p|. Singular values below
            that need not be told apart.
        """
        X, (n, d) = self.X, self.X.shape
        kept = Coordinates(None, X, None, 0.0)
        if d <= n and (d > LARGEST or alike(self._singular_values, negligible / self._unit)):
            return kept
        basis, rows, sizes, dropped = self._rotated
        if sizes.size == 0 or (d <= n and alike(sizes, negligible)):
            return kept
        if alike(sizes, negligible):
            return Coordinates(basis, rows, None, dropped)
        return Coordinates(basis, rows, np.maximum(sizes, min(negligible, sizes.max())), dropped)

    def ground(self, backend: Backend, at: Coordinates, dtype: str = "float64") -> Ground:
        """These coordinates on the device, in that precision and in float64."""
        key = (backend, dtype, at.basis is None)
        known = self._grounds.get(key)
        if known is None or not _same(None if known.white is None else known.white.sizes, at.sizes):
            exact = self._on_device(backend, at, "float64")
            known = self._grounds[key] = ground_of(backend, self._on_device(backend, at, dtype), exact, at.sizes)
        return known

    def _on_device(self, backend: Backend, at: Coordinates, dtype: str) -> Any:
        key = (backend, dtype, at.basis is None)
        if key not in self._placed:
            self._placed[key] = backend.put(at.rows, dtype, rows=0)
        return self._placed[key]

    @functools.cached_property
    def _unit(self) -> float:
        return power_of_two(self.X)

    @functools.cached_property
    def _singular_values(self) -> Float[np.ndarray, " d"]:
        """Of X in units in which its largest entry is about 1; by the Gram matrix, so the smallest are inaccurate."""
        values = np.linalg.eigvalsh((self.X / self._unit).T @ (self.X / self._unit))
        return np.sqrt(np.maximum(values, 0.0))

    @functools.cached_property
    def _rotated(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """(basis, rows, sizes, unseen), as in `Coordinates`, of the directions that float64 can see."""
        X, (n, d) = self.X, self.X.shape
        right = right_singular_vectors(X / self._unit)
        rows = X @ right
        sizes = np.linalg.norm(rows, axis=0)
        # What the products x_il V_lj can be wrong by: a mean of any size beside a constant column hides nothing above.
        rounding = 2.0 * max(n, d) ** 0.5 * EPS * np.linalg.norm(np.abs(X) @ np.abs(right), axis=0)
        seen = sizes > rounding
        dropped = float(sizes[~seen].max(initial=0.0))
        return np.ascontiguousarray(right[:, seen]), np.ascontiguousarray(rows[:, seen]), sizes[seen], dropped
