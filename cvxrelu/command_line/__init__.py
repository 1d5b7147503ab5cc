"""A table in, a model folder out."""
