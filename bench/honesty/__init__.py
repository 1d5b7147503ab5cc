"""`python -m bench.honesty`: a random audit of every bound."""
