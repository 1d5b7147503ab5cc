"""L-BFGS on the non-convex network of width 200 (`bench.networks.baselines`): the network program, one run."""

from __future__ import annotations

import time

from bench.networks.baselines import lbfgs, thinned
from bench.peers.common import Problem, Recorder, main


def solve(problem: Problem, recorder: Recorder) -> None:
    with recorder.run("width 200"):
        run = lbfgs(problem.X, problem.y, problem.beta, 0, clock=time.perf_counter, max_seconds=recorder.cap)
        recorder.facts(status=run.reason)
        for seconds, objective in thinned(run):
            recorder.network_point(objective, seconds)


if __name__ == "__main__":
    main(solve, "scipy")
