"""SCS, ADMM on the homogeneous self-dual embedding, in C (O'Donoghue 2021), through CVXPY."""

from __future__ import annotations

from bench.peers.common import Problem, Recorder, main
from bench.peers.cvxpy_program import solve_ladder

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # absolute and relative; 1e-4 is the default of SCS, 1e-5 of CVXPY


def solve(problem: Problem, recorder: Recorder) -> None:
    limits = {"time_limit_secs": recorder.cap, "max_iters": 10**8}
    settings = {f"eps {eps:g}": {"eps_abs": eps, "eps_rel": eps, **limits} for eps in TOLERANCES}
    solve_ladder(problem, recorder, "SCS", settings)


if __name__ == "__main__":
    main(solve, "scs", "cvxpy")
