"""`python -m bench.peer_comparison`: the sampled program beside other solvers."""

from bench.peer_comparison.run import main

if __name__ == "__main__":
    main()
