"""What every run has: limits, a clock, a history, an answer."""
