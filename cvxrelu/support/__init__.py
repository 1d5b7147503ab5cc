"""Argument checks, host arrays, blocks of rows, files and errors, shared with `cvxrelu_llm`."""
