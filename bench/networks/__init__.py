"""`python -m bench.networks`: networks beside L-BFGS and Adam."""
