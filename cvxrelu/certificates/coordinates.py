"""Coordinates in which all columns of X count: for the ascents, the descent and the comparison of directions.

A neuron of the network program has a unit direction u in the coordinates of X, and nothing may change that. But where
columns differ much in size, or all rows lie far from the origin beside their spread, the directions whose kinks fall
among the rows are a sliver of the sphere, as thin as the ratio of the singular values of X. Let

    X V = Q diag(sizes),    V orthonormal (d, r), Q with unit columns that are nearly orthogonal,

c = V^T u and z = sizes * c. Then |c| = |u|, so that the program is the same in c; X u = (X V) c is a sum without
cancellation; and in z, where X u = Q z, no sliver is left: pricing there maximises |p^T (Q z)_+| / |z / sizes|.

Where the singular values are alike, none of that is needed and the given columns are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack

__all__ = [
    "LARGEST", "Coordinates", "Ranked", "alike", "distinct", "features", "kinks", "merged", "new_maxima",
    "right_singular_vectors", "snapped",
]  # fmt: skip

Ranked = tuple[np.ndarray, np.ndarray]  # directions and their values in falling order
TINY = float(np.finfo(np.float64).tiny)
LIMIT = 30.0  # ratio of singular values up to which the given columns are kept
FEW, LIMIT_OF_FEW = 5, 5.0  # the same up to this rank, where ascents cost little
MILD = 100.0  # ratio up to which float32 will do: ascents find the same as in float64, sooner
LARGEST = 1500  # columns up to which a basis is computed: d^3 beside n d for every ascent
MOST_SNAPPED = 200  # rank up to which directions are moved onto kinks exactly
TOP, SAME = 0.99, 0.99  # of the largest value, and the cosine: see `new_maxima`
CORNERS = 12  # rank up to which starts are put on as many kinks as there are dimensions, less one


class Coordinates(NamedTuple):
    """`X = rows @ basis.T` up to what float64 cannot see of it.

    basis : (d, r) orthonormal, or None where the given columns are kept. rows : (n, r) = X @ basis. sizes : (r,)
    lengths of the columns of rows, where they are far from alike, else None. unseen : |X u| for unit u orthogonal to
    the basis is at most that.
    """

    basis: Float[np.ndarray, "d r"] | None
    rows: Float[np.ndarray, "n r"]
    sizes: Float[np.ndarray, " r"] | None
    unseen: float

    @property
    def mild(self) -> bool:
        """Whether the columns are near enough of one size for single precision."""
        return self.sizes is None or float(self.sizes.max()) <= MILD * float(self.sizes.min())

    def inward(self, u: Float[np.ndarray, "d k"]) -> Float[np.ndarray, "r k"]:
        """c of u."""
        return u if self.basis is None else self.basis.T @ u

    def outward(self, c: Float[np.ndarray, "r k"]) -> Float[np.ndarray, "d k"]:
        """u of c."""
        return c if self.basis is None else self.basis @ c


def right_singular_vectors(X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d r"]:
    """By Jacobi rotations where n >= d: small singular values are then right however much columns differ in size.

    Source: Drmac & Veselic, "New fast and accurate Jacobi SVD algorithm I", SIAM J. Matrix Analysis 29, 2008 (LAPACK's
    dgejsv).
    """
    if X.shape[0] >= X.shape[1]:
        *_, right, _, _, info = lapack.dgejsv(X, joba=1, jobu=3, jobv=0, jobr=0)
        if info == 0:
            return right
    return np.linalg.svd(X, full_matrices=False)[2].T


def alike(sizes: Float[np.ndarray, " r"], negligible: float) -> bool:
    """Whether the given columns are to be kept: the sizes differ by less than the limit, where they matter."""
    limit = LIMIT if len(sizes) > FEW else LIMIT_OF_FEW
    return bool(max(float(sizes.min()), negligible) * limit >= float(sizes.max()))


def features(c: Float[np.ndarray, "r k"], sizes: Float[np.ndarray, " r"] | None) -> Float[np.ndarray, "f k"]:
    """Unit columns whose inner products say how alike directions are: as vectors, and as functions of the rows."""
    if sizes is None:
        return c
    z = sizes[:, None] * c
    both = [a / np.maximum(np.linalg.norm(a, axis=0), TINY) for a in (c, z)]
    return np.concatenate(both) * np.sqrt(0.5)


def kinks(Q: Float[np.ndarray, "n r"], count: int, rng: np.random.Generator) -> Float[np.ndarray, "r count"]:
    """z with `x @ z` zero on r - 1 rows of Q each, half of them near one another; all rows in turn where r = 2."""
    n, r = Q.shape
    if r < 2 or r > CORNERS or n < r:
        return np.zeros((r, 0))
    if r == 2:
        chosen = rng.permutation(n)[: max(count, min(n, 8 * count))][:, None]
    else:
        among = rng.choice(n, size=min(n, 50 * r), replace=False)
        pool = among[np.argsort(rng.uniform(size=(count, len(among))), axis=1)[:, : 4 * r]]
        unit = Q / np.maximum(np.linalg.norm(Q, axis=1, keepdims=True), TINY)
        apart = 1.0 - np.abs(np.einsum("kir,kr->ki", unit[pool], unit[pool[:, 0]]))
        apart[:, 0] = -1.0  # by rounding it is not quite zero
        apart[::2, 1:] = rng.uniform(size=apart[::2, 1:].shape)  # every other one: any rows
        chosen = np.take_along_axis(pool, np.argsort(apart, axis=1)[:, : r - 1], axis=1)
    return _through(Q, chosen)


def snapped(
    Q: Float[np.ndarray, "n r"],
    sizes: Float[np.ndarray, " r"],
    p: Float[np.ndarray, "n c"],
    c: Float[np.ndarray, "r k"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "r m"]:
    """Directions that are maxima if the kinks they lie on are those of some of the nearest rows; unit columns.

    With w = p s as in `polish`, the rows of a set A on their kinks and all others on the side that c has them on,
    p^T (X u)_+ is at least g @ u near c, g the sum of w_i x_i over the active rows outside A. Its maximiser on the unit
    sphere, orthogonal to the rows of A, is the projection of g. For every c sets of several sizes are tried, of rows
    with w_i < 0, of which ridges are made: the nearest ones, and random ones among the nearest.
    """
    n, r = Q.shape
    most = min(r - 1, n)
    if c.shape[1] == 0 or most < 1 or r > MOST_SNAPPED:
        return c[:, :0]
    lengths = np.maximum(np.linalg.norm(Q, axis=1), TINY)
    products = Q @ (sizes[:, None] * c)
    outputs = p.T @ np.maximum(products, 0.0)
    w = p @ (outputs / np.maximum(np.linalg.norm(outputs, axis=0), TINY))
    # A zero row has no kink.
    distance = np.where((w < 0) & (lengths[:, None] > TINY), np.abs(products) / lengths[:, None], np.inf)
    nearest = np.argsort(distance, axis=0)[: min(n, 2 * r)].T  # (k, .)
    active = np.where(products > 0, w, 0.0)
    total = (sizes[:, None] * (Q.T @ active)).T
    found = [total]
    for j in sorted({*range(1, min(most, 4) + 1), *(most // k for k in (1, 2, 4)), min(8, most)} - {0}):
        within = nearest[:, : min(nearest.shape[1], 2 * j + 2)]
        mixed = np.take_along_axis(within, np.argsort(rng.uniform(size=within.shape), axis=1), axis=1)
        for chosen in (nearest[:, :j], mixed[:, :j]):
            weights = np.take_along_axis(active.T, chosen, axis=1)
            rows = Q[chosen] * sizes
            g = total - np.einsum("kj,kjr->kr", weights, rows)
            basis = np.linalg.qr(
                np.swapaxes(rows / np.maximum(np.linalg.norm(rows, axis=2, keepdims=True), TINY), 1, 2)
            )[0]
            for _ in range(2):  # what is left is short beside g
                g = g - np.einsum("krj,kj->kr", basis, np.einsum("krj,kr->kj", basis, g))
                g = g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), TINY)
            found.append(g)
    columns = np.concatenate(found).T
    return columns / np.maximum(np.linalg.norm(columns, axis=0), TINY)


def _through(Q: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(r, k) unit vectors orthogonal to the chosen rows (k, r - 1)."""
    rows = Q[chosen]
    lengths = np.linalg.norm(rows, axis=2, keepdims=True)
    return np.linalg.svd(rows / np.where(lengths > 0, lengths, 1.0))[2][:, -1].T


def distinct(directions: Float[np.ndarray, "d k"], cosine: float, most: int) -> Int[np.ndarray, " j"]:
    """Indices of at most `most` columns, first come first, no two of which are closer than `cosine`."""
    chosen: list[int] = []
    free = np.ones(directions.shape[1], dtype=bool)
    while len(chosen) < most and free.any():
        j = int(free.argmax())
        chosen.append(j)
        free &= directions.T @ directions[:, j] <= cosine
        free[j] = False
    return np.array(chosen, dtype=np.intp)


def merged(one: Ranked, other: Ranked) -> Ranked:
    """Both in one, in falling order."""
    values = np.concatenate([one[1], other[1]])
    order = np.argsort(-values, kind="stable")
    return np.concatenate([one[0], other[0]], axis=1)[:, order], values[order]


def new_maxima(known: Ranked, found: Ranked, sizes: Float[np.ndarray, " r"] | None) -> int:
    """How many distinct directions within a hundredth of the largest value were found and are like none known."""
    level = TOP * max(found[1].max(initial=0.0), known[1].max(initial=0.0))
    u = features(found[0][:, found[1] >= level], sizes)
    old = features(known[0][:, known[1] >= level * TOP], sizes)
    if u.shape[1] and old.shape[1]:
        u = u[:, (old.T @ u).max(axis=0) < SAME]
    return len(distinct(u, SAME, u.shape[1]))
