"""cvxrelu on the sampled program by ADMM with the exact u-step, whatever the size."""

from __future__ import annotations

from functools import partial

from bench.peers import ours
from bench.peers.common import main

if __name__ == "__main__":
    main(partial(ours.solve, linear_solver="direct"), "jax")
