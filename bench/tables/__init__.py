"""Messy CSV files through the command line, beside a pipeline of scikit-learn: `python -m bench.tables`."""
