"""How thorough a pricing is: at first short, near the end with waves of starts, and at last so that it is believed."""

from __future__ import annotations

from typing import NamedTuple

from cvxrelu.certificates.pricing import DEAR_WAVE

__all__ = ["DEAR_SHARE", "FAR", "NEAR", "SURE", "Effort", "affordable", "is_dear", "starts"]


class Effort(NamedTuple):
    """Of a pricing: most waves, steps of all ascents and of the best, and how many directions are polished."""

    waves: int
    steps: tuple[int, int]
    polished: int


FAR = Effort(0, (12, 4), 0)  # violators abound
NEAR = Effort(8, (24, 4), 32)
SURE = Effort(8, (60, 8), 64)  # with more starts, of which there are
MOST_SURE, SURE_FLOPS = 4, 2e9  # times as many where ascents cost little
FEWEST_STARTS = 16  # of every kind in a pricing; half the number of neurons where that is more
# Where ascents are dear, rounds cost little beside a thorough pricing: others see one set of starts, and the gap that
# they leave has to be this share of tol, since the thorough one has found two to three times that gap.
DEAR_WAVES, DEAR_SHARE = 0, 0.35


def starts(neurons: int) -> int:
    """Of every kind."""
    return max(FEWEST_STARTS, neurons // 2)


def affordable(effort: Effort, size: int, count: int) -> tuple[Effort, int]:
    """NEAR or SURE, and the starts of every kind, on X of so many numbers."""
    if effort is NEAR:
        return (NEAR._replace(waves=DEAR_WAVES) if is_dear(NEAR, size, count) else NEAR), count
    most = count * int(max(1, min(MOST_SURE, SURE_FLOPS / _flops(SURE, size, count))))
    # Where they are dear, more waves of fewer steps found as much in the same time.
    return (SURE._replace(steps=NEAR.steps) if is_dear(SURE, size, count) else SURE), most


def is_dear(effort: Effort, size: int, count: int) -> bool:
    """Whether the ascents of a wave take long."""
    return _flops(effort, size, count) > DEAR_WAVE


def _flops(effort: Effort, size: int, count: int) -> float:
    return 16.0 * size * sum(effort.steps) * count
