"""Micro-benchmarks of building blocks, for pytest-benchmark."""
