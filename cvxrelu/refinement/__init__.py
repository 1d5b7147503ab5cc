"""The network program (N): neurons added until none is better."""
