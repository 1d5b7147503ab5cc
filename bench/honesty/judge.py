"""What `bench.honesty` compares bounds with: objectives by a plain formula, and networks found without the library.

    objective = sum_k loss_k((R f(X))_k) + beta sum_j |w_j| |a_j| + skip_l2/2 |skip|^2

`Program.objective` is that formula in extended precision: where means are a million deviations, float64 predictions are
not exact, and a bound may be judged by nothing less exact than itself. `search` looks for a network of low objective;
no code of `cvxrelu` is used. It works in coordinates z of the row space in which X has orthonormal columns, found by a
singular value decomposition of X itself (not of X^T X) with columns of length one, so that means of 1e6 deviations and
columns of any scale are seen. A round

    proposes   directions: Gaussians, directions with up to r - 1 rows on their kink, noisy copies and snapped copies
               of the neurons, X^T (M * p) for their patterns; keeps those with the largest |p^T (X u)_+| over beta
    weighs     the magnitudes of all, directions fixed: non-negative least squares for one output and the squared loss,
               L-BFGS on balanced magnitudes else
    descends   by SciPy's L-BFGS on balanced weights, in coordinates z or of columns of length one, in turn

Any network is a valid witness, however it came about: a bound above its objective is false.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, nnls

from bench.honesty.programs import Network, Program

__all__ = ["Found", "search"]


class Found(NamedTuple):
    """The network, and its objective by the plain formula."""

    objective: float
    network: Network


class Coordinates(NamedTuple):
    """X back = rows, with orthonormal columns; columns of `back` have no part that X maps to zero."""

    rows: np.ndarray  # (n, r)
    back: np.ndarray  # (D, r)


def coordinates(X: np.ndarray) -> Coordinates:
    sizes = np.linalg.norm(X, axis=0)
    sizes[sizes == 0] = 1.0
    U, s, Vt = np.linalg.svd(X / sizes, full_matrices=True)
    r = int(np.sum(s > 1e-13 * max(s.max(initial=0.0), 1e-300)))
    if r == 0:
        return Coordinates(np.zeros((len(X), 0)), np.zeros((X.shape[1], 0)))
    back = Vt[:r].T / s[:r] / sizes[:, None]
    if r < X.shape[1]:
        null = np.linalg.qr(Vt[r:].T / sizes[:, None])[0]
        back = back - null @ (null.T @ back)
    return Coordinates(U[:, :r], back)


class _Skip(NamedTuple):
    """theta = origin + back tau; `columns` is what tau adds to predictions, `ridge` its penalty in tau."""

    columns: np.ndarray
    back: np.ndarray
    ridge: np.ndarray
    offset: np.ndarray  # (m, c)


def _skip(program: Program) -> _Skip:
    read = program.read(program.columns @ program.span)
    root = np.sqrt(program.weight)
    offset = program.read(program.columns @ program.origin)
    sizes = np.linalg.norm(root * read, axis=0)
    sizes[sizes == 0] = 1.0
    if program.l2 > 0:
        sizes = np.ones_like(sizes)
    _, s, Vt = np.linalg.svd(root * read / sizes, full_matrices=False)
    kept = s > 1e-13 * max(s.max(initial=0.0), 1e-300)
    scale = np.sqrt(s[kept] ** 2 + program.l2)
    back = Vt[kept].T / scale / sizes[:, None]
    return _Skip(read @ back, program.span @ back, program.l2 / scale**2, offset)


class _Search:
    def __init__(self, program: Program, rng: np.random.Generator) -> None:
        self.program, self.rng = program, rng
        self.at, self.skip = coordinates(program.X), _skip(program)
        # In w the penalty is plain, in z the loss: descents take them in turn. The third is between.
        sizes = np.linalg.norm(program.X, axis=0)
        sizes[sizes == 0] = 1.0
        root = np.sqrt(np.linalg.norm(self.at.back, axis=0))
        self.maps = [self.at.back, np.diag(1.0 / sizes), self.at.back / np.where(root > 0, root, 1.0)]
        self.c, self.k = program.y.shape[1], self.skip.columns.shape[1]
        self.best = self._as_found(np.zeros((program.X.shape[1], 0)), np.zeros((0, self.c)), np.zeros((self.k, self.c)))

    def _as_found(self, W: np.ndarray, A: np.ndarray, tau: np.ndarray) -> Found:
        network = (W, A, self.program.origin + self.skip.back @ tau)
        return Found(self.program.objective(network)[0], network)

    def keep(self, found: Found) -> None:
        if found.objective < self.best.objective:
            self.best = found

    def fit(
        self, inner: np.ndarray, outer: np.ndarray, tau: np.ndarray, to_w: np.ndarray | None, steps: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """L-BFGS on balanced weights; with `to_w` over the first layer too, else with features fixed.

        inner : (q, m) first layers in the coordinates of to_w, or magnitudes (1, m) of `features`.
        """
        program, skip = self.program, self.skip
        shapes, sizes = (inner.shape, outer.shape, tau.shape), (inner.size, outer.size, tau.size)
        X = program.X @ to_w if to_w is not None else None
        metric = None if to_w is None else to_w.T @ to_w
        unit = max(abs(float(program.weight[:, 0] @ program.losses(skip.offset))), 1e-300)

        def split(v: np.ndarray) -> list[np.ndarray]:
            ends = np.cumsum(sizes)[:-1]
            return [part.reshape(shape) for part, shape in zip(np.split(v, ends), shapes, strict=True)]

        def value(v: np.ndarray) -> tuple[float, np.ndarray]:
            B, A, tau = split(v)
            hidden = np.maximum(X @ B, 0) if X is not None else self.features * B
            a = program.read(hidden @ A) + skip.columns @ tau + skip.offset
            t = program.dual(a)
            p = program.pull_back(t)
            metric_B = metric @ B if metric is not None else B
            total = program.weight[:, 0] @ program.losses(a) + 0.5 * np.sum(skip.ridge[:, None] * tau * tau)
            total += 0.5 * program.beta * (np.sum(B * metric_B) + np.sum(A * A))
            back = p @ A.T
            inner = X.T @ (back * (hidden > 0)) if X is not None else np.sum(back * self.features, axis=0)[None]
            parts = (
                program.beta * metric_B - inner,
                program.beta * A - hidden.T @ p,
                skip.ridge[:, None] * tau - skip.columns.T @ t,
            )
            return float(total) / unit, np.concatenate([part.ravel() for part in parts]) / unit

        start = np.concatenate([inner.ravel(), outer.ravel(), tau.ravel()])
        options = {"maxiter": steps, "maxcor": 20, "gtol": 1e-12, "ftol": 1e-13, "maxfun": 2 * steps}
        B, A, tau = split(minimize(value, start, jac=True, method="L-BFGS-B", options=options).x)
        return B, A, tau

    def settle(self, W: np.ndarray, A: np.ndarray, tau: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weighs unit directions W exactly where it can: the magnitudes, signs and skip that are best for them."""
        program, skip = self.program, self.skip
        if program.loss == "squared" and self.c == 1:
            return self._least_squares(W)
        self.features = np.maximum(program.X @ W, 0)
        size = np.sqrt(np.linalg.norm(A, axis=1))
        size = np.where(size > 0, size, 0.05 * max(size.max(initial=0.0), 1e-3))
        t = program.pull_back(program.dual(program.read(self.features @ A) + skip.columns @ tau + skip.offset))
        pull = self.features.T @ t
        lengths = np.linalg.norm(pull, axis=1, keepdims=True)
        fresh = size[:, None] * pull / np.maximum(lengths, 1e-300)
        start = np.where(np.any(A != 0, axis=1)[:, None], A / size[:, None], fresh)
        B, A, tau = self.fit(size[None], start, tau, None, 150)
        return W, B[0][:, None] * A, tau

    def _least_squares(self, W: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """min over x >= 0 of 1/2 |T (Phi x - y)|^2 + beta sum x, T taking the best skip out."""
        program, skip = self.program, self.skip
        root = np.sqrt(program.weight)
        # Columns of sqrt(weight) C back have Gram matrix I - diag(ridge): orthogonal, of length sqrt(1 - ridge).
        lengths = np.sqrt(np.maximum(1.0 - skip.ridge, 0.0))
        Q = root * skip.columns / np.where(lengths > 1e-8, lengths, 1.0)
        kept = 1.0 - np.sqrt(skip.ridge)

        def out(v: np.ndarray) -> np.ndarray:
            return v - Q @ (kept[:, None] * (Q.T @ v))

        features = program.read(np.maximum(program.X @ W, 0))
        A = out(root * np.hstack([features, -features]))
        b = out(root * (program.y - skip.offset))[:, 0]
        sizes = np.linalg.norm(A, axis=0)
        sizes[sizes == 0] = np.inf
        beta = program.beta / sizes
        unit = max(np.linalg.norm(b), 1e-300)
        small = 1e-5
        top = np.linalg.norm(beta) / unit
        extra = small * beta / unit / max(top, 1e-300) if np.isfinite(top) and top > 0 else 0 * beta
        # |Ax - b|^2/2 + (e x + top/small)^2/2 = ... + beta x + (e x)^2/2, and e x is small.
        system, right = np.vstack([A / sizes, extra]), np.append(b / unit, -top / small if top > 0 else 0.0)
        try:
            x = nnls(system, right, maxiter=20 * A.shape[1])[0]
        except (RuntimeError, ValueError):
            x = np.zeros(A.shape[1])
        x = x * unit / sizes
        weights = (x[: W.shape[1]] - x[W.shape[1] :])[:, None]
        r = program.y - skip.offset - features @ weights
        tau = skip.columns.T @ (program.weight * r) if program.columns.shape[1] else np.zeros((0, 1))
        return W, weights, tau

    def propose(self, t: np.ndarray, base: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit directions (D, N) and their prices |p^T (X u)_+|, largest first."""
        rows, back = self.at
        r = rows.shape[1]
        p = self.program.pull_back(t)
        rng = self.rng
        z = [rng.standard_normal((r, count))]
        known = rows.T @ (self.program.X @ base)
        known = known / np.maximum(np.linalg.norm(known, axis=0), 1e-300)
        if known.shape[1]:
            pick = known[:, rng.integers(known.shape[1], size=count)]
            z.append(pick + 10.0 ** rng.uniform(-3, 0, count) * rng.standard_normal(pick.shape))
        z = np.hstack(z)
        for _ in range(2):
            z = np.hstack([z, self._snapped(z)])
            W = back @ z
            hidden = self.program.X @ W > 0
            best = np.argsort(-self._price(p, W)[1])[: count // 2]
            gradient = self.program.X.T @ (hidden[:, best] * p[:, :1])
            z = np.hstack([z[:, best], rows.T @ (self.program.X @ gradient), -rows.T @ (self.program.X @ gradient)])
            z = z / np.maximum(np.linalg.norm(z, axis=0), 1e-300)
            z = np.hstack([z, z[:, : count // 4] + 0.05 * rng.standard_normal((r, min(count // 4, z.shape[1])))])
        W, values = self._price(p, np.hstack([back @ z, base]))
        order = np.argsort(-values)
        return W[:, order], values[order]

    def _price(self, p: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        W = W / np.maximum(np.linalg.norm(W, axis=0), 1e-300)
        return W, np.linalg.norm(p.T @ np.maximum(self.program.X @ W, 0), axis=0)

    def _snapped(self, z: np.ndarray) -> np.ndarray:
        """Each direction with one to r - 1 of its nearest rows, or of any, on its kink."""
        rows = self.at.rows
        r = rows.shape[1]
        if r < 2:
            return -z
        lengths = np.linalg.norm(rows, axis=1)
        distance = np.abs(rows @ z) / np.maximum(lengths, 1e-300)[:, None]
        distance[lengths == 0] = np.inf
        distance[:, ::2] = self.rng.random(distance[:, ::2].shape)
        order = np.argsort(distance, axis=0)
        out = z.copy()
        number = self.rng.integers(1, r, size=z.shape[1])
        number[self.rng.random(z.shape[1]) < 0.5] = r - 1
        for j in range(z.shape[1]):
            near = rows[order[: number[j], j]] / np.maximum(lengths[order[: number[j], j]], 1e-300)[:, None]
            _, s, Vt = np.linalg.svd(near, full_matrices=True)
            null = Vt[int(np.sum(s > 1e-12)) :]
            out[:, j] = null.T @ (null @ z[:, j])
        return out * self.rng.choice([-1.0, 1.0], size=z.shape[1])

    def round(self, k: int, count: int, steps: int) -> None:
        W, A, theta = self.best.network
        tau = np.linalg.lstsq(self.skip.back, theta - self.program.origin, rcond=None)[0] if self.k else theta[:0]
        t = self.program.dual(self.program.predict(self.best.network))
        lengths = np.linalg.norm(W, axis=0)
        used = (lengths > 0) & (np.linalg.norm(A, axis=1) > 0)
        unit, A = W[:, used] / lengths[used], A[used] * lengths[used][:, None]
        new, values = self.propose(t, unit, count)
        new = new[:, values > self.program.beta * (1 + 1e-7)][:, :60]
        joined, start = np.hstack([unit, new]), np.vstack([A, np.zeros((new.shape[1], self.c))])
        if joined.shape[1] == 0:
            return
        self.descend(*self.settle(joined, start, tau), k, steps)

    def descend(self, W: np.ndarray, A: np.ndarray, tau: np.ndarray, k: int, steps: int) -> None:
        """Keeps the given network, what descent makes of it, and that weighed again."""
        self.keep(self._as_found(W, A, tau))
        size = np.linalg.norm(A, axis=1) * np.linalg.norm(W, axis=0)
        used = size > 1e-9 * max(size.max(initial=0.0), 1e-300)
        W, A = W[:, used], A[used]
        if W.shape[1] == 0:
            return
        to_w = self.maps[k % len(self.maps)]
        balance = np.sqrt(np.linalg.norm(W, axis=0) / np.linalg.norm(A, axis=1))
        inner = np.linalg.lstsq(to_w, W / balance, rcond=None)[0]
        B, A, tau = self.fit(inner, A * balance[:, None], tau, to_w, steps)
        W = to_w @ B
        self.keep(self._as_found(W, A, tau))
        lengths = np.linalg.norm(W, axis=0)
        used = lengths > 0
        if used.any():
            W, A = W[:, used] / lengths[used], A[used] * lengths[used][:, None]
            self.keep(self._as_found(*self.settle(W, A, tau)))


def search(
    program: Program, seed: int, *, known: list[Network] = (), rounds: int = 6, runs: int = 2, count: int = 150
) -> Found:
    """The best network of several runs from random ones, and of one from each of `known`; all by the plain formula."""
    rng = np.random.default_rng([7, seed])
    overall = None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        starts: list[Network | None] = [*known, *([None] * runs)]
        for start in starts:
            search = _Search(program, rng)
            if search.k:  # the best skip beside nothing
                empty = search.best.network
                search.features = np.zeros((len(program.X), 0))
                _, _, tau = search.fit(np.zeros((1, 0)), empty[1], np.zeros((search.k, search.c)), None, 300)
                search.keep(search._as_found(empty[0], empty[1], tau))
            if start is not None:
                search.keep(Found(program.objective(start)[0], start))
            for k in range(rounds if search.at.rows.shape[1] else 0):
                before = search.best.objective
                search.round(k, count, 100)
                if k >= 2 and before - search.best.objective <= 1e-9 * abs(before):
                    break
            if overall is None or search.best.objective < overall.objective:
                overall = search.best
    return overall
