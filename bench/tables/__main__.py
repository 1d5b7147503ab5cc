"""`python -m bench.tables`: messy CSV files through the command line, beside a pipeline of scikit-learn."""

from bench.tables.run import main

if __name__ == "__main__":
    main()
