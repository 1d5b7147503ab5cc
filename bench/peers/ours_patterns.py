"""cvxrelu on the sampled program, given the bare patterns: it has to find points inside their cones itself."""

from __future__ import annotations

from functools import partial

from bench.peers import ours
from bench.peers.common import main

if __name__ == "__main__":
    main(partial(ours.solve, given="patterns"), "jax")
