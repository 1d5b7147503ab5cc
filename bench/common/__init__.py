"""What benchmarks share: problems, data sets, tables and files of results."""
