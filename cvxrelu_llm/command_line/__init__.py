"""The command cvxrelu-llm."""
