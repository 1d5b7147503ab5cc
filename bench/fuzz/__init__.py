"""`python -m bench.fuzz`: malformed and odd files."""
