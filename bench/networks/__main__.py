"""`python -m bench.networks`: networks beside L-BFGS and Adam."""

from bench.networks.run import main

if __name__ == "__main__":
    main()
