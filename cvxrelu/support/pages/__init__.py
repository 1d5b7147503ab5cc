"""What the pages of `cvxrelu` and `cvxrelu_llm` share: one document and its style, and drawings."""
