"""One module per command of `cvxrelu-llm`; see `cvxrelu_llm.command_line.command`."""
