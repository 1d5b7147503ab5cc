"""`python -m bench.alignment`: preference heads on real pairs."""

from bench.alignment.run import main

if __name__ == "__main__":
    main()
