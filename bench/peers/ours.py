"""cvxrelu on the sampled program, as `solve` chooses: one run per tolerance, each a whole call with its certificate.

The first call of a process also compiles and loads; it is the run "first", which counts for no time to a gap. `solve`
goes on after (S) is solved and certified: it bounds the network program (N), as no peer does. A point's seconds are
those of the call up to the certified end of (S), the last record of its history; `call_seconds` has all of it.
"""

from __future__ import annotations

from typing import Any

from bench.peers.common import Problem, Recorder, main

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def solve(problem: Problem, recorder: Recorder, given: str = "gates", **options: Any) -> None:
    """A first call at the loosest tolerance, then one run per tolerance, until one takes longer than the cap."""
    import cvxrelu

    def call(tol: float) -> Any:
        return cvxrelu.solve(
            problem.X, problem.y, beta=problem.beta, patterns=getattr(problem, given), refine=False, tol=tol,
            time_limit=recorder.cap, **options,
        )  # fmt: skip

    with recorder.run("first"):
        call(TOLERANCES[0])
    for tol in TOLERANCES:
        with recorder.run(f"tol {tol:g}"):
            solution = call(tol)
            seconds = recorder.seconds
            after = (solution.timings["total"] - solution.history[-1]["time"]) / solution.timings["total"]
            recorder.point(solution.sampled.blocks, seconds * (1.0 - after))
            recorder.facts(
                call_seconds=seconds, status=solution.status.value, certified_gap=solution.sampled.gap,
                lower_bound=solution.sampled.lower_bound,
            )  # fmt: skip
        if recorder.expired or solution.status is not cvxrelu.Status.OPTIMAL:
            break


if __name__ == "__main__":
    main(solve, "jax")
