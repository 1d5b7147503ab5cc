"""Peers of the sampled program, a module each, run as a program in an environment of its own.

`python -m bench.peers.NAME PROBLEM.npz FOLDER [--cap SECONDS]` reads a problem, records iterates in FOLDER and knows
nothing of the judge: `bench.peer_comparison` makes the problems, watches time and memory, and evaluates the iterates
afterwards. Only NumPy and the peer itself are needed where a peer runs.
"""
