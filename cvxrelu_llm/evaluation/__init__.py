"""Metrics of a head on held-out pairs, their page, and trackers."""
