"""adelie: group lasso with cone constraints by block coordinate descent in C++ (Yang & Hastie 2024).

`adelie.grpnet` minimises 1/(2 n) |A b - y|^2 + lambda sum_g penalty_g |b_g| with l <= C_g b_g <= u per group. With
A = [M_1 X, ..., M_P X, -M_1 X, ..., -M_P X] (`convex_relu`, never formed), penalties of one instead of the default
sqrt(d), C_g = E_g X, l = 0 and u = infinity, lambda = beta / n, that is (S) divided by n. No callback: one run per
tolerance, each from zero and straight at this lambda; the tolerances of the cone solver are lowered along.
"""

from __future__ import annotations

import time

import numpy as np

from bench.peers.common import Problem, Recorder, main

TOLERANCES = (1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12)


def solve(problem: Problem, recorder: Recorder) -> None:
    """One run per tolerance, until one takes longer than the cap."""
    import adelie  # noqa: F401  (not on the clock)

    for tol in TOLERANCES:
        with recorder.run(f"tol {tol:g}"):
            blocks, setup = run(problem, tol)
            recorder.point(blocks)
            recorder.facts(setup_seconds=setup)
        if recorder.expired:
            break


def run(problem: Problem, tol: float) -> tuple[np.ndarray, float]:
    """Blocks (2, d, P), and the seconds until the solver was called."""
    import adelie

    started = time.perf_counter()
    n, d = problem.X.shape
    P = problem.patterns.shape[1]
    configs = {"nnls_tol": min(1e-7, tol), "tol": min(1e-9, tol)}
    none, any_ = np.zeros(n), np.full(n, np.inf)
    cones = []
    for sign in problem.signs.T:
        rows = np.asfortranarray(sign[:, None] * problem.X)
        squares = np.sum(rows**2, axis=1)
        cones.append((rows, squares))
    constraints = [
        adelie.constraint.linear(rows, none, any_, vars=squares, configs=configs)
        for _ in range(2)
        for rows, squares in cones
    ]
    matrix = adelie.matrix.convex_relu(np.asfortranarray(problem.X), problem.patterns)
    setup = time.perf_counter() - started
    state = adelie.grpnet(
        matrix, adelie.glm.gaussian(problem.y), constraints=constraints, groups=d * np.arange(2 * P),
        penalty=np.ones(2 * P), lmda_path=np.array([problem.beta / n]), intercept=False, early_exit=False, tol=tol,
        progress_bar=False,
    )  # fmt: skip
    flat = np.asarray(state.betas.toarray())[-1]
    return flat.reshape(2, P, d).transpose(0, 2, 1), setup


if __name__ == "__main__":
    main(solve, "adelie")
