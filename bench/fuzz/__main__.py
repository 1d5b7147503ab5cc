"""`python -m bench.fuzz`: malformed and odd files."""

from bench.fuzz.run import main

if __name__ == "__main__":
    main()
