"""`python -m bench.peer_comparison`: the sampled program beside other solvers."""
