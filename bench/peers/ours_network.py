"""cvxrelu with refinement: the network program, not the sampled one. Its objective may be below the optimum of (S)."""

from __future__ import annotations

from bench.peers.common import Problem, Recorder, main


def solve(problem: Problem, recorder: Recorder) -> None:
    """A first call, which compiles, then one with a point per round; tolerance 1e-3."""
    import cvxrelu

    def call() -> cvxrelu.Solution:
        return cvxrelu.solve(problem.X, problem.y, beta=problem.beta, tol=1e-3, time_limit=recorder.cap)

    with recorder.run("first"):
        call()
    with recorder.run("tol 0.001"):
        solution = call()
        recorder.facts(status=solution.status.value)
        for record in solution.history:
            recorder.network_point(record["objective"], record["time"])


if __name__ == "__main__":
    main(solve, "jax")
