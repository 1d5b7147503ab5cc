"""Clarabel, an interior-point method in Rust (Goulart & Chen 2024), through CVXPY."""

from __future__ import annotations

from bench.peers.common import Problem, Recorder, main
from bench.peers.cvxpy_program import solve_ladder

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8)  # absolute and relative gap and feasibility; 1e-8 is the default


def solve(problem: Problem, recorder: Recorder) -> None:
    names = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
    limits = {"time_limit": recorder.cap, "max_iter": 1000, "max_threads": 1}
    settings = {f"tol {tol:g}": {**dict.fromkeys(names, tol), **limits} for tol in TOLERANCES}
    solve_ladder(problem, recorder, "CLARABEL", settings)


if __name__ == "__main__":
    main(solve, "clarabel", "cvxpy")
