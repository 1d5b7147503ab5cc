"""How thorough a pricing is: at first short, near the end with waves of starts, and at last so that it is believed."""

from __future__ import annotations

from typing import NamedTuple

from cvxrelu.certificates.pricing import DEAR_WAVE, QUIET

__all__ = ["DEAR_SHARE", "FAR", "NEAR", "SURE", "Effort", "affordable", "is_dear", "starts"]


class Effort(NamedTuple):
    """Of a pricing: most waves, steps of all ascents and of the best, how many directions are polished, and copies;
    waves that find nothing, after so many of which there are no more."""

    waves: int
    steps: tuple[int, int]
    polished: int
    copies: int = 0
    quiet: int = QUIET


FAR = Effort(0, (12, 4), 0)  # violators abound
NEAR = Effort(8, (24, 4), 32, 32)
# Copies that are polished find as much as four times the starts, in less time. On wine at 0.01 of beta_max eight
# pricings in twelve found the largest value before three waves had found nothing, all twelve before five had.
SURE = Effort(8, (60, 8), 64, 128, 5)
FEWEST_STARTS = 16  # of every kind in a pricing; half the number of neurons where that is more
# Where ascents are dear, rounds cost little beside a thorough pricing: others see one set of starts, and the gap that
# they leave has to be this share of tol, since the thorough one has found two to three times that gap.
DEAR_WAVES, DEAR_SHARE = 0, 0.35


def starts(neurons: int) -> int:
    """Of every kind."""
    return max(FEWEST_STARTS, neurons // 2)


def affordable(effort: Effort, size: int, count: int) -> Effort:
    """NEAR or SURE with so many starts of every kind, on X of so many numbers."""
    if not is_dear(effort, size, count):
        return effort
    if effort is NEAR:
        return NEAR._replace(waves=DEAR_WAVES, copies=0)
    # More waves of fewer steps found as much in the same time.
    return SURE._replace(steps=NEAR.steps, copies=0, quiet=QUIET)


def is_dear(effort: Effort, size: int, count: int) -> bool:
    """Whether the ascents of a wave take long."""
    return _flops(effort, size, count) > DEAR_WAVE


def _flops(effort: Effort, size: int, count: int) -> float:
    return 16.0 * size * sum(effort.steps) * count
