"""skglm (Bertrand et al. 2022) has the group lasso, and positive coefficients, but no constraint on rows of X.

Without E_i * X u >= 0 it solves a relaxation of (S), the gated ReLU network: other solutions, a smaller optimum. Hence
no run; the table says why.
"""

from __future__ import annotations

from bench.peers.common import Problem, Recorder, main

REASON = "does not apply: its group penalties have no cone constraints, without which it is another problem"


def solve(problem: Problem, recorder: Recorder) -> None:
    recorder.note(REASON)


if __name__ == "__main__":
    main(solve)
