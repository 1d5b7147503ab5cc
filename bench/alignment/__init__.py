"""`python -m bench.alignment`: preference heads on real pairs."""
