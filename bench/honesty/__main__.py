"""`python -m bench.honesty`: a random audit of every bound."""

from bench.honesty.audit import main

if __name__ == "__main__":
    main()
