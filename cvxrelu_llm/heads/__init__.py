"""Reward heads: fitted, selected, calibrated, kept."""
