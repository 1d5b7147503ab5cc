"""What guidance costs: Kullback-Leibler divergences, in nats, of the law sampled from, and a budget for them.

A step of guided decoding replaces the model's law p over candidates by the tilted

    q ~ p exp(scale s),      KL(q || p) <= scale^2 range(s)^2 / 8,

because KL(q || p) is the integral over t in [0, scale] of t Var_t(s), and a variable in an interval of length `range`
has variance at most range^2 / 4 (Popoviciu). That integral gives scale^2 range^2 / 8. With scores scaled to [0, 1] the
range is 1. Here p is what is left *after* temperature, top-k, top-p and the choice of candidates: restricting a law to
a set A costs exactly `-log p(A)` more, for every law on A,

    KL(q || p) = KL(q || p_A) - log p(A),        p_A = p restricted to A.

Along a text costs add up: `KL(Q || P) = E_Q sum_t KL(q_t || p_t)` (chain rule). A sum that stays within a budget on
every path therefore bounds the divergence of whole texts; the sum on one sampled path alone is an unbiased estimate of
it. Taking the largest probability in place of sampling has no such bound: a point mass costs `-log p`, which can be
anything. Best-of-n costs at most `log n - (n - 1) / n` (exact for a continuous score without ties).

Sources: Popoviciu 1935; Hoeffding 1963 (the lemma); Beirami et al., "Theoretical guarantees on the best-of-n alignment
policy", 2024; Cover & Thomas, "Elements of information theory", section 2.5 (the chain rule).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Budget", "KLCost", "best_of_n_bound", "divergence", "largest_scale", "min_max", "tilt", "tilting_bound"]

SAFE = 1.0 - 1e-12  # keeps the rounding of shares of a budget from adding up to more than it
BISECTIONS = 60


class KLCost(NamedTuple):
    """What one text cost, in nats.

    kind : what `nats` is: "bound" (no path of this decoding through these steps costs more), "estimate" (an average or
        a sum over sampled paths), or "none" (nats is None: argmax has no bound).
    nats : the reported number, relative to the model after temperature, top-k, top-p and choice of candidates.
    tilting : `sum_t KL(q_t || p_t)` on this path, what tilting cost exactly; for argmax `-log` of the chosen
        probabilities.
    candidates : `-sum_t log` of the mass that the candidates kept of p after top-k and top-p.
    truncation : `-sum_t log` of the mass that top-k and top-p kept of p after temperature.
    budget : the budget that held, or None.

    `tilting + candidates` is, in the mean over texts, the divergence from plain sampling, and with `truncation` that
    from the model at the same temperature.
    """

    kind: str
    nats: float | None
    tilting: float = 0.0
    candidates: float = 0.0
    truncation: float = 0.0
    budget: float | None = None


def tilt(p: Float[np.ndarray, "k"], scores: Float[np.ndarray, "k"], scale: float) -> Float[np.ndarray, "k"]:
    """`q ~ p exp(scale s)` in float64, p summing to one.

    >>> tilt(np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.log(3.0))
    array([0.25, 0.75])
    """
    with np.errstate(divide="ignore"):  # in logarithms: at a low temperature the best score may belong to a tiny p
        weight = np.log(p) + scale * (scores - scores.max())
    weight = np.exp(weight - weight.max())
    return weight / weight.sum()


def divergence(q: Float[np.ndarray, "k"], p: Float[np.ndarray, "k"]) -> float:
    """`KL(q || p) = sum q log(q / p)`, with 0 log 0 = 0; infinite where q has mass that p lacks."""
    held = q > 0
    if (p[held] == 0).any():
        return math.inf
    # Both sum to one, so `q log(q/p) - q + p` adds up to the same, from nonnegative terms: no cancellation near p.
    terms = q[held] * np.log(q[held] / p[held]) - q[held] + p[held]
    return float(max(terms.sum() + p[~held].sum(), 0.0))


def tilting_bound(scale: float, score_range: float = 1.0) -> float:
    """`scale^2 range^2 / 8`, the most that one tilted step can cost.

    >>> tilting_bound(2.0)
    0.5
    """
    return (scale * score_range) ** 2 / 8.0


def best_of_n_bound(n: int) -> float:
    """`log n - (n - 1) / n`, the most that the best of n independent texts can cost."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return math.log(n) - (n - 1) / n


def min_max(scores: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """Scores shifted and divided into [0, 1]; all equal become all zero.

    >>> min_max(np.array([-1.0, 3.0, 1.0]))
    array([0. , 1. , 0.5])
    """
    # Halves: the difference of two finite numbers need not be finite.
    half = 0.5 * scores - 0.5 * scores.min()
    top = half.max()
    return half / top if top > 0 else np.zeros_like(half)


def largest_scale(
    p: Float[np.ndarray, "k"], scores: Float[np.ndarray, "k"], allowance: float, limit: float
) -> tuple[float, float]:
    """The largest scale up to `limit` with `KL(q || p) <= allowance`, and that divergence: it grows with the scale."""
    cost = divergence(tilt(p, scores, limit), p)
    if cost <= allowance:
        return limit, cost
    low, high, cost = 0.0, limit, 0.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        spent = divergence(tilt(p, scores, middle), p)
        if spent <= allowance:
            low, cost = middle, spent
        else:
            high = middle
    return low, cost


@dataclass
class Budget:
    """Divides a budget of nats over the guided steps of one text; what a step leaves, the later ones share.

    Every step may spend `left / steps left`. With `schedule="bound"` it pays `scale^2 range^2 / 8`, so with scores in
    [0, 1] the scale is `sqrt(8 left / steps left)`, known before any score is. With `schedule="exact"` it pays
    `KL(q || p)` itself, which is computed, and the scale is the largest that fits: larger, often by much.

    Attributes
    ----------
    scale : the largest scale, and the scale of every step where `total` is None.
    steps : guided steps to come, at most.
    total : nats for the whole text, or None for no limit.
    schedule : "bound" or "exact".
    spent : nats paid so far.
    """

    scale: float
    steps: int
    total: float | None = None
    schedule: str = "bound"
    spent: float = 0.0

    def next_scale(self, p: Float[np.ndarray, "k"], scores: Float[np.ndarray, "k"]) -> float:
        """The scale of this step, which is paid for."""
        steps, self.steps = self.steps, self.steps - 1
        score_range = float(scores.max() - scores.min())
        if score_range == 0.0:
            return 0.0
        limit = min(self.scale, 1e300 / score_range)
        allowance = math.inf if self.total is None else SAFE * max(self.total - self.spent, 0.0) / max(steps, 1)
        if self.schedule == "exact":
            scale, cost = largest_scale(p, scores, allowance, limit)
        else:
            scale = min(limit, math.sqrt(8.0 * allowance) / score_range)
            cost = tilting_bound(scale, score_range)
        self.spent += cost
        return scale
