"""Lower bounds on the network program (N)."""
