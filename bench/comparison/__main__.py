"""`python -m bench.comparison`: convex heads beside SFT, DPO, ORPO, SimPO and reward models."""

from bench.comparison.run import main

if __name__ == "__main__":
    main()
