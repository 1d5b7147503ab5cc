"""Adam on the non-convex network of width 200 (as in `bench.networks`): the network program, one run per time budget.

The schedule of the learning rate ends with the budget, so that a longer run is not a shorter one continued.
"""

from __future__ import annotations

from bench.networks.baselines import adam
from bench.peers.common import Problem, Recorder, main

BUDGETS = (1.0, 4.0, 16.0, 64.0)


def solve(problem: Problem, recorder: Recorder) -> None:
    for budget in BUDGETS:
        if budget > recorder.cap:
            break
        with recorder.run(f"rate 0.01, {budget:g} s"):
            run = adam(problem.X, problem.y, problem.beta, 0, 1e-2, budget, adam_least_steps=100)
            recorder.network_point(run.objective)


if __name__ == "__main__":
    main(solve)
