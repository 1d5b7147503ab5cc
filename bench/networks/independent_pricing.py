"""A second opinion on a priced gap: starts, ascent and polish of its own; no code shared with the package.

The bound of the network program needs  price(t) = max over |u| <= 1 of |t^T (X u)_+|,  t = y - f(X) the residual.
Multiples kappa t with kappa price <= beta are dual feasible and give the bound  kappa t^T y - kappa^2 |t|^2 / 2.  A
local search finds a lower estimate of the price, so the gap is an estimate too; more starts can only make it larger.

1. Starts: Gaussian directions in the coordinates where X^T X = I, rows of X and their differences, least-squares fits
   of t on random half-spaces, eigenvectors of X^T diag(t) X, mixtures of the network's neurons.
2. Ascent, all starts at once: Riemannian gradient steps of Barzilai-Borwein length on h with (z)_+ replaced by
   (z + sqrt(z^2 + eps^2)) / 2, eps going to zero (Barzilai & Borwein 1988; Raydan 1997 for the non-monotone use).
3. Polish of the best distinct ones: the convex-concave procedure. With t = p - q, p and q >= 0, the convex part
   p^T (Xu)_+ is replaced by its tangent g^T u, and  max over |u| <= 1 of g^T u - q^T (Xu)_+  equals
   min over 0 <= l <= q of |g - X^T l|, a box-constrained least-squares problem whose residual is the new direction:
   kinks, on which local maxima lie, are met exactly (Yuille & Rangarajan 2003 for the procedure).
4. Waves: mixtures of the best directions so far, and noisy copies of them, are the starts of steps 2 and 3 again. On
   networks trained by L-BFGS the price after one wave differed by up to 0.5 % between seeds; after four it was mostly
   the same to five digits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

__all__ = ["SETTINGS", "Gap", "Price", "beta_max", "gap", "price"]

SETTINGS = {
    "version": 2,
    "repeats": 2,
    "starts": 600,
    "flops": 1e11,  # of the first wave's ascent: the starts of large problems are cut to this
    "steps": 60,
    "waves": 4,
    "parents": 30,
    "polished": 24,
    "polish_rounds": 8,
}


class Price(NamedTuple):
    """The largest |t^T (X u)_+| found, its unit direction, and the number of starts."""

    value: float
    direction: np.ndarray
    starts: int


class Gap(NamedTuple):
    """Objective of the network in float64, the estimated bound and relative gap, price / beta, starts."""

    objective: float
    lower_bound: float
    gap: float
    price_ratio: float
    starts: int


def gap(
    X: np.ndarray, y: np.ndarray, first_layer: np.ndarray, second_layer: np.ndarray, beta: float, seed: int = 1
) -> Gap:
    """Independent estimate of the gap of `f(X) = relu(X first_layer) second_layer` in the network program.

    The best price of `repeats` runs with seeds of their own.
    """
    W, a = first_layer.astype(np.float64), second_layer.astype(np.float64)
    t = y - np.maximum(X @ W, 0) @ a
    objective = 0.5 * float(t @ t) + beta * float(np.linalg.norm(W, axis=0) @ np.abs(a))
    runs = [price(X, t, seed + k, neurons=W) for k in range(int(SETTINGS["repeats"]))]
    found = max(runs, key=lambda run: run.value)
    kappa = np.clip(t @ y / (t @ t), 0.0, beta / found.value) if found.value > 0 else 0.0
    bound = max(0.0, float(kappa * (t @ y) - 0.5 * kappa**2 * (t @ t)))
    return Gap(objective, bound, (objective - bound) / objective, found.value / beta, sum(run.starts for run in runs))


def beta_max(X: np.ndarray, y: np.ndarray, seed: int = 1) -> Price:
    """The price of t = y: the smallest beta whose optimal network is zero."""
    return price(X, y, seed)


def price(X: np.ndarray, t: np.ndarray, seed: int, neurons: np.ndarray | None = None) -> Price:
    """Best value of |t^T (X u)_+| over the unit ball from many starts. Large problems get fewer: see `SETTINGS`."""
    rng = np.random.default_rng(seed)
    n, d = X.shape
    count = int(np.clip(SETTINGS["flops"] / (8.0 * n * d * SETTINGS["steps"]), 200, SETTINGS["starts"]))
    first = unit(make_starts(X, t, rng, count, neurons))
    best, direction, tried = 0.0, first[:, 0], 0
    for sign in (1.0, -1.0):
        starts = first
        found: list[tuple[np.ndarray, float]] = []
        for _ in range(int(SETTINGS["waves"])):
            tried += starts.shape[1]
            ends = ascend(X, sign * t, starts)
            values = (sign * t) @ np.maximum(X @ ends, 0)
            found += [polish(X, sign * t, ends[:, j]) for j in distinct(ends, values, int(SETTINGS["polished"]))]
            if not found:
                break
            found = sorted(found, key=lambda pair: -pair[1])
            starts = recombine(np.column_stack([u for u, _ in found[: int(SETTINGS["parents"])]]), count, rng)
        if found and found[0][1] > best:
            direction, best = found[0]
    return Price(best, direction, tried)


def recombine(parents: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Mixtures of pairs of good directions, and good directions with noise: half of each."""
    half, m = count // 2, parents.shape[1]
    first, second, third = rng.integers(m, size=(3, half))
    weight = rng.uniform(-0.3, 1.0, half)
    mixed = parents[:, first] * weight + parents[:, second] * (1 - np.abs(weight))
    noise = unit(rng.standard_normal((parents.shape[0], half)))
    return unit(np.hstack([mixed, parents[:, third] + rng.choice([0.3, 0.6, 1.0], half) * noise]))


def unit(U: np.ndarray) -> np.ndarray:
    """Columns of length one; zero columns stay zero."""
    length = np.linalg.norm(U, axis=0)
    return U / np.where(length > 0, length, 1.0)


def make_starts(
    X: np.ndarray, t: np.ndarray, rng: np.random.Generator, count: int, neurons: np.ndarray | None
) -> np.ndarray:
    """About `count` directions (d, count) of the kinds named above."""
    n = len(X)
    share = count // 6
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    kept = s > 1e-10 * s[0]
    whiten = Vt[kept].T / s[kept]
    gaussian = whiten @ rng.standard_normal((int(kept.sum()), 2 * share))
    rows = X[rng.integers(n, size=share)].T * rng.choice([-1.0, 1.0], share)
    differences = (X[rng.integers(n, size=share)] - X[rng.integers(n, size=share)]).T
    halves = X @ gaussian[:, : share // 2] > 0
    fits = [np.linalg.lstsq(X[half], t[half], rcond=1e-8)[0] for half in halves.T[: share // 2]]
    vectors = np.linalg.eigh(X.T @ (t[:, None] * X))[1]
    ends = np.hstack([vectors[:, :10], vectors[:, -10:]])
    spectral = np.hstack([ends, -ends, ends @ rng.standard_normal((ends.shape[1], share))])
    parts = [gaussian, rows, differences, np.column_stack(fits), -np.column_stack(fits), spectral]
    if neurons is not None and neurons.shape[1] > 0:
        base = unit(neurons[:, np.any(neurons != 0, axis=0)])
        pairs = rng.integers(base.shape[1], size=(2, share))
        weight = rng.uniform(-0.3, 1.0, share)
        parts += [base, base[:, pairs[0]] * weight + base[:, pairs[1]] * (1 - np.abs(weight))]
    return np.hstack(parts)


def ascend(X: np.ndarray, t: np.ndarray, U: np.ndarray) -> np.ndarray:
    """Barzilai-Borwein steps on the sphere for every column of U (d, S); returns the best point each met."""
    steps = int(SETTINGS["steps"])
    X, t, U = (array.astype(np.float32) for array in (X, t, U))  # twice as fast; the polish is float64
    best, best_value = U, np.full(U.shape[1], -np.inf, np.float32)
    scale = np.sqrt(np.mean((X @ U) ** 2, axis=0))
    previous, old_tangent, length = U, np.zeros_like(U), np.zeros(U.shape[1], np.float32)
    for k in range(steps):
        Z = X @ U
        value = t @ np.maximum(Z, 0)
        better = value > best_value
        best, best_value = np.where(better, U, best), np.where(better, value, best_value)
        eps = scale * np.float32(0.3 * 0.85**k)
        G = X.T @ (t[:, None] * (0.5 + 0.5 * Z / np.sqrt(Z * Z + eps * eps + np.float32(1e-30))))
        tangent = G - U * np.sum(U * G, axis=0)
        size = np.linalg.norm(tangent, axis=0) + np.float32(1e-30)
        move, change = U - previous, tangent - old_tangent
        curvature = np.abs(np.sum(move * change, axis=0))
        length = np.sum(move * move, axis=0) / np.where(curvature > 0, curvature, np.inf) if k else 0.3 / size
        # Never more than 0.7 radian at once, shrinking: h is not smooth, and old curvature may mislead.
        length = np.clip(length, np.float32(1e-4) / size, np.float32(0.7 * 0.97**k) / size)
        previous, old_tangent = U, tangent
        U = unit(U + length * tangent)
    return unit(best.astype(np.float64))


def distinct(U: np.ndarray, values: np.ndarray, count: int) -> list[int]:
    """Indices of the `count` largest positive values whose directions differ pairwise (cosine below 0.9999)."""
    chosen: list[int] = []
    for j in np.argsort(-values):
        if values[j] <= 0 or len(chosen) == count:
            break
        if not chosen or np.max(U[:, chosen].T @ U[:, j]) < 0.9999:
            chosen.append(int(j))
    return chosen


def polish(X: np.ndarray, t: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, float]:
    """The convex-concave procedure from u; t^T (X u)_+ never falls."""
    p, q = np.maximum(t, 0), np.maximum(-t, 0)
    value = float(t @ np.maximum(X @ u, 0))
    for _ in range(int(SETTINGS["polish_rounds"])):
        new = best_against_concave(X, X.T @ (p * (X @ u > 0)), q, u)
        new_value = float(t @ np.maximum(X @ new, 0))
        if new_value <= value * (1 + 1e-9):
            break
        u, value = new, new_value
    return u, value


def best_against_concave(X: np.ndarray, g: np.ndarray, q: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Unit u maximising g^T u - q^T (X u)_+, by its dual: multipliers of rows far from their kink are taken as known.

    Rows near the kink enter the box-constrained problem; rows found on the wrong side join them, a few times over.
    """
    relevant = np.flatnonzero(q > 0)
    Z = X[relevant] @ u
    if relevant.size == 0:
        return unit(g[:, None])[:, 0]
    near = np.zeros(relevant.size, bool)
    near[np.argsort(np.abs(Z))[: 2 * X.shape[1]]] = True
    for _ in range(6):
        fixed = relevant[~near & (Z > 0)]
        target = g - X[fixed].T @ q[fixed]
        rows = relevant[near]
        residual = box_residual(X[rows], target, q[rows])
        if not np.any(residual):
            return u
        u = residual / np.linalg.norm(residual)
        new = X[relevant] @ u
        wrong = ~near & ((new > 0) != (Z > 0))
        if not wrong.any():
            break
        near |= wrong
    return u


def box_residual(rows: np.ndarray, target: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """`target - rows^T l` for the l in [0, upper] that makes it shortest, by SciPy's L-BFGS-B on columns of length one.

    For d = 100 an order of magnitude faster than an exact active-set method (BVLS), prices equal to four digits.
    """
    length = np.linalg.norm(rows, axis=1) + 1e-300
    A = rows.T / length

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        residual = A @ x - target
        return 0.5 * float(residual @ residual), A.T @ residual

    solution = minimize(
        value_and_gradient,
        np.zeros(len(upper)),
        jac=True,
        method="L-BFGS-B",
        bounds=np.column_stack([np.zeros(len(upper)), upper * length]),
        options={"maxcor": 30, "maxiter": 500, "ftol": 1e-15, "gtol": 1e-10 * float(np.linalg.norm(target))},
    )
    return target - A @ solution.x
