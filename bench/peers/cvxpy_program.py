"""The sampled program in CVXPY, for solvers that take a cone program and give back a point when they are done.

Canonicalisation is a run of its own, "compile"; each tolerance is then a run of the solver alone on the same data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers.common import Problem, Recorder

__all__ = ["build", "solve_ladder"]


def build(problem: Problem) -> tuple[Any, Any, Any]:
    """The CVXPY problem and its variables V, Z (d, P)."""
    import cvxpy as cp

    V, Z = cp.Variable(problem.gates.shape), cp.Variable(problem.gates.shape)
    XV, XZ = problem.X @ V, problem.X @ Z
    prediction = cp.sum(cp.multiply(problem.patterns.astype(float), XV - XZ), axis=1)
    norms = cp.sum(cp.norm(V, 2, axis=0)) + cp.sum(cp.norm(Z, 2, axis=0))
    objective = cp.Minimize(0.5 * cp.sum_squares(prediction - problem.y) + problem.beta * norms)
    return cp.Problem(objective, [cp.multiply(problem.signs, XV) >= 0, cp.multiply(problem.signs, XZ) >= 0]), V, Z


def solve_ladder(problem: Problem, recorder: Recorder, solver: str, settings: dict[str, dict[str, Any]]) -> None:
    """One run per entry of `settings`, name: options of the solver, until one takes longer than the cap."""
    import cvxpy as cp

    program, V, Z = build(problem)
    with recorder.run("compile"):
        data, chain, inverse = program.get_problem_data(solver, solver_opts={})
    for name, options in settings.items():
        with recorder.run(name):
            raw = chain.solve_via_data(program, data, warm_start=False, verbose=False, solver_opts=dict(options))
            seconds = recorder.seconds
            try:
                program.unpack_results(raw, chain, inverse)
            except cp.SolverError as error:
                recorder.facts(status=str(error)[:100])
                continue
            recorder.facts(status=program.status)
            if V.value is not None:
                recorder.point(np.stack([V.value, Z.value]), seconds)
        if recorder.expired:
            break
