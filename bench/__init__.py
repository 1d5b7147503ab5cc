"""Benchmarks of cvxrelu. Each module runs by itself: `python -m bench.rates`, `python -m bench.speed`."""
