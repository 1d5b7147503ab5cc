"""Bootstrap of whole groups: sums over groups drawn with replacement, in memory that does not grow with the draws."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["bootstrap_sums"]

COUNTS = 1 << 20  # how often each group was drawn, held at once: 8 MB, and as much again as floats


def bootstrap_sums(values: Float[np.ndarray, "n k"], draws: int, seed: int) -> Float[np.ndarray, "draws k"]:
    """Column sums of n groups drawn n times with replacement, `draws` times over.

    A draw is a multinomial vector of counts. They are made and used a few draws at a time: n = 20 000 groups and 2000
    draws would be 320 MB at once. The counts do not depend on how many are made at a time.
    """
    n = len(values)
    rng, share, step = np.random.default_rng(seed), np.full(n, 1 / n), max(1, COUNTS // n)
    sums = np.empty((draws, values.shape[1]))
    for start in range(0, draws, step):
        counts = rng.multinomial(n, share, size=min(step, draws - start))
        sums[start : start + len(counts)] = counts.astype(np.float64) @ values
    return sums
