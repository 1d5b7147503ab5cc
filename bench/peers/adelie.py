"""adelie: group lasso with cone constraints by block coordinate descent in C++ (Yang & Hastie 2024).

`adelie.grpnet` minimises 1/(2 n) |A b - y|^2 + lambda sum_g penalty_g |b_g| with l <= C_g b_g <= u per group. With
A = [M_1 X, ..., M_P X, -M_1 X, ..., -M_P X] (`convex_relu`, never formed), penalties of one instead of the default
sqrt(d), C_g = E_g X, l = 0 and u = infinity, lambda = beta / n, that is (S) divided by n. No callback: one run per
setting, each from zero, straight at this lambda or down a short path to it.

What its solution leaves of the cones is decided by the solver of the cone constraint, whose tolerances are lowered
along; where they are too low it gives up, and the run counts for nothing.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.peers.common import Problem, Recorder, main

FINE = {"tol": 1e-9, "nnls_tol": 1e-10, "pinball_tol": 1e-12}
FINEST = {"tol": 1e-14, "nnls_tol": 1e-14, "max_iters": 1000}
# name: tolerance, configurations of the cone solver, points on the path of lambda
SETTINGS: dict[str, tuple[float, dict[str, float], int]] = {
    "tol 1e-5": (1e-5, {}, 1),
    "tol 1e-7 (default)": (1e-7, {}, 1),
    "tol 1e-7, path": (1e-7, {}, 10),
    "tol 1e-10": (1e-10, {}, 1),
    "tol 1e-10, path": (1e-10, {}, 10),
    "tol 1e-10, fine cones": (1e-10, FINE, 1),
    "tol 1e-14": (1e-14, {}, 1),
    "tol 1e-14, fine cones": (1e-14, FINE, 1),
    "tol 1e-14, finest cones": (1e-14, FINEST, 1),
}


def solve(problem: Problem, recorder: Recorder) -> None:
    """One run per setting, until one takes longer than the cap."""
    import adelie  # noqa: F401  (not on the clock)

    for name, (tol, configs, points) in SETTINGS.items():
        with recorder.run(name):
            try:
                blocks, facts = run(problem, tol, configs, points)
            except RuntimeError as error:  # some of its complaints come this way, others in the state
                recorder.facts(status=str(error)[:150])
                continue
            if blocks is not None:
                recorder.point(blocks)
            recorder.facts(**facts)
        if recorder.expired:
            break


def run(
    problem: Problem, tol: float, configs: dict[str, float], points: int
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Blocks (2, d, P), None where the solver gave up; the seconds before it was called, and what it complained of."""
    import adelie

    started = time.perf_counter()
    n, d = problem.X.shape
    P = problem.patterns.shape[1]
    zero, infinite = np.zeros(n), np.full(n, np.inf)
    cones = [np.asfortranarray(sign[:, None] * problem.X) for sign in problem.signs.T]
    squares = np.sum(problem.X**2, axis=1)
    constraints = [
        adelie.constraint.linear(rows, zero, infinite, vars=squares, configs=configs)
        for _ in range(2)
        for rows in cones
    ]
    matrix = adelie.matrix.convex_relu(np.asfortranarray(problem.X), problem.patterns)
    path = problem.beta / n * np.geomspace(8.0, 1.0, points) if points > 1 else np.array([problem.beta / n])
    setup = time.perf_counter() - started
    state = adelie.grpnet(
        matrix, adelie.glm.gaussian(problem.y), constraints=constraints, groups=d * np.arange(2 * P),
        penalty=np.ones(2 * P), lmda_path=path, intercept=False, early_exit=False, tol=tol, progress_bar=False,
    )  # fmt: skip
    facts = {"setup_seconds": setup, "status": str(getattr(state, "error", ""))[:150]}
    if state.betas.shape[0] < len(path):
        return None, facts
    return np.asarray(state.betas.toarray())[-1].reshape(2, P, d).transpose(0, 2, 1), facts


if __name__ == "__main__":
    main(solve, "adelie")
