"""How good a reward is on pairs it has not seen: TRL's metrics, log-loss, length control, subsets, intervals.

    rewards/chosen, rewards/rejected     mean rewards of the two sides
    rewards/margins                      mean of f(chosen) - f(rejected)
    rewards/accuracies                   share of pairs with a positive margin, ties counting half
    log_loss, brier, ece                 of sigma(margin / temperature)
    length_controlled_accuracy           mean of two accuracies: where the chosen answer is longer, and where it is not

A rule that prefers longer answers, or shorter ones, has a length-controlled accuracy of one half whatever the data.
Intervals are percentiles of a bootstrap that draws whole groups (prompts, conversations), since pairs of one group are
not independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from cvxrelu_llm.calibration import abstention_curve, expected_calibration_error, log_losses
from cvxrelu_llm.checks import as_fraction, as_positive, as_seed, as_whole
from cvxrelu_llm.formats import Triple
from cvxrelu_llm.pair_features import PairFeatures

__all__ = ["Evaluation", "Metric", "evaluate", "evaluate_margins", "length_differences"]


@dataclass(frozen=True)
class Metric:
    """A value and its bootstrap interval; NaN bounds where there is none."""

    value: float
    low: float = np.nan
    high: float = np.nan

    def __str__(self) -> str:
        return f"{self.value:.4f}" + (f" ({self.low:.4f}, {self.high:.4f})" if np.isfinite(self.low) else "")


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returns.

    metrics : by name, see the module. subsets : accuracy by name of subset, and "mean of subsets". margins : of the
    pairs, in order. abstention : accuracy by coverage. n_pairs, n_groups, level : what the intervals rest on.
    """

    metrics: Mapping[str, Metric]
    margins: Float[np.ndarray, " m"]
    n_pairs: int
    n_groups: int
    level: float
    subsets: Mapping[str, Metric] = field(default_factory=dict)
    abstention: Sequence[Mapping[str, float]] = ()

    def values(self, prefix: str = "") -> dict[str, float]:
        """Metrics as plain numbers, for a logger or a model card."""
        flat = {prefix + name: metric.value for name, metric in self.metrics.items()}
        return flat | {f"{prefix}accuracy/{name}": metric.value for name, metric in self.subsets.items()}

    def summary(self) -> str:
        """One metric per line."""
        lines = [f"{self.n_pairs} pairs in {self.n_groups} groups; {self.level:.0%} intervals by groups"]
        lines += [f"{name:27} {metric}" for name, metric in self.metrics.items()]
        return "\n".join(lines + [f"accuracy, {name:17} {metric}" for name, metric in self.subsets.items()])


def length_differences(triples: Sequence[Triple]) -> Float[np.ndarray, " m"]:
    """Characters of the chosen answers minus those of the rejected ones."""
    return np.array([float(len(triple.chosen) - len(triple.rejected)) for triple in triples])


def evaluate(
    head: Any, features: PairFeatures, *, lengths: Any = None, subset: Sequence[str] | None = None,
    n_boot: int = 2000, level: float = 0.95, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """Evaluate a `ConvexRewardHead` on pairs, test pairs if the numbers are to mean anything.

    Parameters
    ----------
    head : a fitted head; features of another model, layer, pooling or template raise InputError.
    lengths : (m,) how much longer the chosen answers are, of `length_differences`; None leaves length control out.
    subset : (m,) names; accuracies are given for each, and their unweighted mean, as RewardBench does.
    n_boot, level, seed : of the intervals.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxrelu_llm.reward import ConvexRewardHead, as_pair_features
    >>> X = np.random.default_rng(0).standard_normal((80, 3)); pairs = np.arange(80).reshape(-1, 2)
    >>> pairs = np.where((X[pairs[:, 0], 0] > X[pairs[:, 1], 0])[:, None], pairs, pairs[:, ::-1])
    >>> head = ConvexRewardHead(beta=np.inf).fit(as_pair_features(X[:40], pairs[:20]))
    >>> found = evaluate(head, as_pair_features(X, pairs[20:]), n_boot=100)
    >>> found.n_pairs, found.metrics["rewards/accuracies"].value > 0.7
    (20, True)
    """
    head.check_features(features.settings)
    rewards = head.score(features.X)
    return evaluate_margins(
        rewards[features.pairs[:, 0]] - rewards[features.pairs[:, 1]], features.group, weight=features.weight,
        temperature=head.temperature, rewards=rewards[features.pairs], lengths=lengths, subset=subset, n_boot=n_boot,
        level=level, seed=seed,
    )  # fmt: skip


def evaluate_margins(
    margins: Any, group: Any, *, weight: Any = None, temperature: float = 1.0, rewards: Any = None, lengths: Any = None,
    subset: Sequence[str] | None = None, n_boot: int = 2000, level: float = 0.95, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """The same from margins (m,) of any scorer; `rewards` (m, 2) of chosen and rejected, or None."""
    margins = np.asarray(margins, dtype=np.float64)
    m = len(margins)
    weight = np.ones(m) if weight is None else np.asarray(weight, dtype=np.float64)
    if m == 0 or not np.isfinite(margins).all():
        raise ValueError(f"margins must be finite numbers, at least one, got {m}")
    level, temperature = as_fraction("level", level), as_positive("temperature", temperature)
    n_boot, seed = as_whole("n_boot", n_boot, 0), as_seed(seed)
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.sum() > 0):
        raise ValueError("weight must be finite and nonnegative, and not all zero")
    for name, given in (
        ("group", group),
        ("weight", weight),
        ("lengths", lengths),
        ("subset", subset),
        ("rewards", rewards),
    ):
        if given is not None and len(given) != m:
            raise ValueError(f"{name} must have one entry per pair, {m}, got {len(given)}")
    right, scaled = 0.5 * (1.0 + np.sign(margins)), margins / temperature
    boot = _Bootstrap(np.asarray(group), weight, n_boot, level, seed)
    everything = np.ones(m)
    metrics: dict[str, Metric] = {}
    if rewards is not None:
        for j, name in enumerate(("rewards/chosen", "rewards/rejected")):
            metrics[name] = boot.mean((np.asarray(rewards)[:, j], everything))
    metrics["rewards/margins"] = boot.mean((margins, everything))
    metrics["rewards/accuracies"] = boot.mean((right, everything))
    metrics["log_loss"] = boot.mean((log_losses(scaled), everything))
    metrics["brier"] = boot.mean((expit(-scaled) ** 2, everything))
    metrics["ece"] = Metric(expected_calibration_error(scaled, weight))
    if lengths is not None:
        longer, shorter = np.asarray(lengths) > 0, np.asarray(lengths) < 0
        if weight[longer].sum() > 0 and weight[shorter].sum() > 0:
            metrics["length_controlled_accuracy"] = boot.mean(
                (right * longer, longer.astype(float)), (right * shorter, shorter.astype(float))
            )
    subsets: dict[str, Metric] = {}
    if subset is not None:
        names = np.asarray(subset)
        parts = []
        for name in dict.fromkeys(subset):
            inside = (names == name).astype(float)
            if weight @ inside > 0:
                parts.append((right * inside, inside))
                subsets[name] = boot.mean(parts[-1])
        if len(parts) > 1:
            subsets["mean of subsets"] = boot.mean(*parts)
    return Evaluation(metrics, margins, m, boot.n_groups, level, subsets, abstention_curve(margins))


class _Bootstrap:
    """Draws of groups with replacement, the same for every metric; a metric is a mean of ratios of sums."""

    def __init__(self, group: np.ndarray, weight: np.ndarray, n_boot: int, level: float, seed: int) -> None:
        _, self.classes = np.unique(group, return_inverse=True)
        self.weight, self.level = weight, level
        self.n_groups = int(self.classes.max()) + 1
        rng = np.random.default_rng(seed)
        self.counts = rng.multinomial(self.n_groups, np.full(self.n_groups, 1 / self.n_groups), size=n_boot)

    def mean(self, *ratios: tuple[np.ndarray, np.ndarray]) -> Metric:
        """Mean over `ratios` (numerator, denominator) of weighted sums, with its interval."""
        value = float(np.mean([self.weight @ top / (self.weight @ bottom) for top, bottom in ratios]))
        if self.n_groups < 2 or len(self.counts) == 0:
            return Metric(value)
        drawn = []
        for top, bottom in ratios:
            sums = [self.counts @ np.bincount(self.classes, self.weight * v) for v in (top, bottom)]
            with np.errstate(invalid="ignore", divide="ignore"):
                drawn.append(sums[0] / sums[1])
        means = np.mean(drawn, axis=0)
        low, high = np.nanquantile(means, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Metric(value, float(low), float(high))
