"""The papers' ADMM, restated: one penalty, never balanced, and a u-step by Nystrom-preconditioned CG from zero.

    u <- argmin 1/2 |F u - y|^2 + rho/2 |u - v + a|^2 + rho/2 |G u - s + b|^2
    v <- prox of (beta / rho) sum |.| at u + a,   s <- (G u + b)_+,   a <- a + u - v,   b <- b + G u - s

Bai, Gautam & Sojoudi, "Efficient global optimization of two-layer ReLU networks" (2023), algorithm for the sampled
program, with dual steps equal to rho; the system (F^T F + rho I + rho G^T G) u = F^T y + rho (v - a) + rho G^T (s - b)
as in Feng, Frangella & Pilanci, "CRONOS" (2024): CG preconditioned by a randomised Nystrom approximation of
F^T F + rho G^T G made once, to a residual that is summable over the iterations. None of what `cvxrelu` adds: no
rotation, no elimination of G^T G, no exact solve, no second penalty, no balancing, no over-relaxation, no warm start.
The iterate judged is v. A restatement from the papers' formulas; no code of theirs is in it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.peers.common import Problem, Recorder, main

Operator = Callable[[np.ndarray], np.ndarray]
# One rho per problem, this times n. Best of 0.1, 1, 10, 100 at (200, 10, 50): 10 for 0.1 beta_max, 1 for 0.01; best of
# 3, 30, 100 at (1000, 20, 100) and 0.1 beta_max: 30.
RHO_PER_ROW = 0.02
RANK = 20  # of the Nystrom approximation
DECAY = 1.2  # tolerance of iteration k: |rhs| / k^1.2 times FIRST
FIRST = 0.1
MAX_CG = 500


def solve(problem: Problem, recorder: Recorder) -> None:
    """One run to the cap."""
    run(problem, recorder, RHO_PER_ROW * len(problem.y))


def run(problem: Problem, recorder: Recorder, rho: float) -> None:
    X, y = problem.X, problem.y
    (n, d), P = X.shape, problem.patterns.shape[1]
    M, E = problem.patterns.astype(float), problem.signs

    def F(U: np.ndarray) -> np.ndarray:
        return np.sum(M * (X @ (U[0] - U[1])), axis=1)

    def F_adjoint(r: np.ndarray) -> np.ndarray:
        positive = X.T @ (M * r[:, None])
        return np.stack([positive, -positive])

    def G(U: np.ndarray) -> np.ndarray:
        return E * (X @ U)

    def G_adjoint(S: np.ndarray) -> np.ndarray:
        return X.T @ (E * S)

    def product(U: np.ndarray) -> np.ndarray:
        return F_adjoint(F(U)) + rho * G_adjoint(G(U))

    with recorder.run(f"rho {rho:g}"):
        precondition = nystrom(product, (2, d, P), rho, np.random.default_rng(0))
        constant = F_adjoint(y)
        V = A = np.zeros((2, d, P))
        S = B = np.zeros((2, n, P))
        k = 0
        while not recorder.expired:
            k += 1
            rhs = constant + rho * (V - A) + rho * G_adjoint(S - B)
            tolerance = FIRST * float(np.linalg.norm(rhs)) / k**DECAY
            U = cg(lambda u: product(u) + rho * u, rhs, precondition, tolerance)
            GU = G(U)
            V = shrink(U + A, problem.beta / rho)
            S = np.maximum(GU + B, 0.0)
            A, B = A + U - V, B + GU - S
            if recorder.due:
                recorder.point(V, iteration=k)
        recorder.point(V, iteration=k)


def shrink(U: np.ndarray, threshold: float) -> np.ndarray:
    """Block soft-thresholding."""
    norms = np.linalg.norm(U, axis=1, keepdims=True)
    return U * np.maximum(0.0, 1.0 - threshold / np.maximum(norms, np.finfo(float).tiny))


def cg(product: Operator, rhs: np.ndarray, precondition: Operator, tolerance: float) -> np.ndarray:
    """Preconditioned conjugate gradients from zero, to the residual norm `tolerance`."""
    x, r = np.zeros_like(rhs), rhs
    z = precondition(r)
    p, rz = z, float(np.vdot(r, z))
    for _ in range(MAX_CG):
        if np.linalg.norm(r) <= tolerance:
            break
        q = product(p)
        step = rz / float(np.vdot(p, q))
        x, r = x + step * p, r - step * q
        z = precondition(r)
        rz, old = float(np.vdot(r, z)), rz
        p = z + (rz / old) * p
    return x


def nystrom(product: Operator, shape: tuple[int, ...], mu: float, rng: np.random.Generator) -> Operator:
    """Inverse of the preconditioner for (A + mu I) from a rank-RANK sketch of A (Frangella, Tropp & Udell 2023)."""
    size = int(np.prod(shape))
    test = np.linalg.qr(rng.standard_normal((size, min(RANK, size))))[0]
    sketch = np.stack([product(column.reshape(shape)).ravel() for column in test.T], axis=1)
    shift = np.sqrt(size) * np.finfo(float).eps * np.linalg.norm(sketch)
    sketch += shift * test
    root = np.linalg.cholesky(test.T @ sketch)
    basis, singular, _ = np.linalg.svd(np.linalg.solve(root, sketch.T).T, full_matrices=False)
    eigenvalues = np.maximum(0.0, singular**2 - shift)
    factors = (eigenvalues[-1] + mu) / (eigenvalues + mu) - 1.0

    def apply(R: np.ndarray) -> np.ndarray:
        r = R.ravel()
        return (r + basis @ (factors * (basis.T @ r))).reshape(shape)

    return apply


if __name__ == "__main__":
    main(solve, "scipy")
