"""A convex last layer on given features."""
