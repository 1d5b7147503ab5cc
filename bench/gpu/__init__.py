"""Figures of one accelerator, by one command for the day that a card is at hand: `python -m bench.gpu`."""
