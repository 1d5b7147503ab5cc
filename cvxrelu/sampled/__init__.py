"""The sampled convex program (S): solved, until proved."""
