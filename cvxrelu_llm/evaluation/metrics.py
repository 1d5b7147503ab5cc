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

from cvxrelu.support.bootstrap import bootstrap_sums
from cvxrelu.support.checks import as_fraction, as_groups, as_numbers, as_positive, as_seed, as_whole
from cvxrelu_llm.evaluation.benches import SECTIONS, best_of_k, reward_bench_sections
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.calibration import abstention_curve, expected_calibration_error, log_losses
from cvxrelu_llm.preferences.triple import Triple

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

    def __str__(self) -> str:
        return self.summary()


def length_differences(triples: Sequence[Triple]) -> Float[np.ndarray, " m"]:
    """Characters of the chosen answers minus those of the rejected ones."""
    return np.array([float(len(triple.chosen) - len(triple.rejected)) for triple in triples])


def evaluate(
    head: Any, features: PairFeatures, *, lengths: Any = None, subset: Sequence[str] | None = None,
    question: Sequence[str] | None = None, n_boot: int = 2000, level: float = 0.95, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """Evaluate a `ConvexRewardHead` on pairs, test pairs if the numbers are to mean anything.

    Parameters
    ----------
    head : a fitted head; features of another model, layer, pooling or template raise InputError.
    lengths : (m,) how much longer the chosen answers are, of `length_differences`; None leaves length control out.
    subset : (m,) names; accuracies are given for each, and their unweighted mean; where all are subsets of RewardBench,
        also its sections and their mean.
    question : (m,) which pairs are of one question, of several chosen or rejected answers, such as the `source` of
        triples: best-of-k accuracy, over all and by subset.
    n_boot, level, seed : of the intervals.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxrelu_llm.heads.head import ConvexRewardHead, as_pair_features
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
        temperature=head.temperature, rewards=rewards[features.pairs], lengths=lengths, subset=subset,
        question=question, n_boot=n_boot, level=level, seed=seed,
    )  # fmt: skip


def evaluate_margins(
    margins: Any, group: Any, *, weight: Any = None, temperature: float = 1.0, rewards: Any = None, lengths: Any = None,
    subset: Sequence[str] | None = None, question: Sequence[str] | None = None, n_boot: int = 2000,
    level: float = 0.95, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """The same from margins (m,) of any scorer; `rewards` (m, 2) of chosen and rejected, or None."""
    margins = as_numbers("margins", margins, (None,))
    m = len(margins)
    if m == 0:
        raise ValueError("margins must hold at least one number, got none")
    weight = np.ones(m) if weight is None else as_numbers("weight", weight, (m,), "pair")
    level, temperature = as_fraction("level", level), as_positive("temperature", temperature)
    n_boot, seed = as_whole("n_boot", n_boot, 0), as_seed(seed)
    if not ((weight >= 0).all() and weight.sum() > 0):
        raise ValueError("weight must be nonnegative, and not all zero")
    lengths = None if lengths is None else as_numbers("lengths", lengths, (m,), "pair")
    rewards = None if rewards is None else as_numbers("rewards", rewards, (m, 2), "pair")
    group = as_groups("group", group)
    for name, given in (("group", group), ("subset", subset), ("question", question)):
        if given is not None and len(given) != m:
            raise ValueError(f"{name} must have one entry per pair, {m}, got {len(given)}")
    right, scaled = 0.5 * (1.0 + np.sign(margins)), margins / temperature
    everything = np.ones(m)
    means: dict[str, _Ratios] = {}
    if rewards is not None:
        for j, name in enumerate(("rewards/chosen", "rewards/rejected")):
            means[name] = [(rewards[:, j], everything)]
    means["rewards/margins"] = [(margins, everything)]
    means["rewards/accuracies"] = [(right, everything)]
    means["log_loss"] = [(log_losses(scaled), everything)]
    means["brier"] = [(expit(-scaled) ** 2, everything)]
    n_plain = len(means)
    if lengths is not None:
        longer, shorter = lengths > 0, lengths < 0
        if weight[longer].sum() > 0 and weight[shorter].sum() > 0:
            means["length_controlled_accuracy"] = [
                (right * longer, longer.astype(float)), (right * shorter, shorter.astype(float))
            ]  # fmt: skip
    best = None if question is None else _best_of_k(margins, question, weight)
    if best is not None:
        means["best_of_k_accuracy"] = [best]
    n_whole, shares = len(means), dict[str, list[float]]()
    if subset is not None:
        names = np.asarray(subset)
        parts: _Ratios = []
        for name in dict.fromkeys(subset):
            inside = (names == name).astype(float)
            if weight @ inside > 0:
                parts.append((right * inside, inside))
                means[f"subset {name}"] = [parts[-1]]
                if best is not None and (best[1] * inside).any():
                    means[f"subset best of k, {name}"] = [(best[0] * inside, best[1] * inside)]
        if len(parts) > 1:
            means["subset mean of subsets"] = parts
        there = [name for name in dict.fromkeys(subset) if f"subset {name}" in means]
        for section in reward_bench_sections(dict.fromkeys(there, 1.0)):
            counts = _counts(section, there)
            means[f"subset RewardBench {section}"] = [means[f"subset {name}"][0] for name in counts]
            shares[f"subset RewardBench {section}"] = [*counts.values()]
    found = list(zip(means, _intervals(means, shares, group, weight, n_boot, level, seed), strict=True))
    metrics = dict(found[:n_plain]) | {"ece": Metric(expected_calibration_error(scaled, weight))}
    metrics |= dict(found[n_plain:n_whole])
    subsets = {name.removeprefix("subset "): metric for name, metric in found[n_whole:]}
    return Evaluation(metrics, margins, m, int(group.max()) + 1, level, subsets, abstention_curve(margins))


_Ratios = list[tuple[np.ndarray, np.ndarray]]


def _best_of_k(
    margins: np.ndarray, question: Sequence[str], weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Numerator and denominator of the mean over questions, at the first pair of each; None where each has one pair."""
    scores = best_of_k(margins, question)
    if len(scores) == len(margins):
        return None
    _, first = np.unique(np.asarray(question), return_index=True)
    top, bottom = np.zeros(len(margins)), np.zeros(len(margins))
    bottom[first] = np.divide(1.0, weight[first], out=np.zeros(len(first)), where=weight[first] > 0)  # one each
    top[first] = bottom[first] * [scores[str(question[i])] for i in first]
    return top, bottom


def _counts(section: str, there: Sequence[str]) -> dict[str, float]:
    """The share of each subset in a section of RewardBench, or in the mean of its sections."""
    known = {name: {s: n for s, n in subsets.items() if s in there} for name, subsets in SECTIONS.items()}
    if section in known:
        return {name: count / sum(known[section].values()) for name, count in known[section].items()}
    return {s: n / sum(some.values()) / len(known) for some in known.values() for s, n in some.items()}


def _intervals(
    ratios_of: Mapping[str, _Ratios], shares: Mapping[str, Sequence[float]], classes: np.ndarray, weight: np.ndarray,
    n_boot: int, level: float, seed: int,
) -> list[Metric]:  # fmt: skip
    """Means over ratios (numerator, denominator) of weighted sums, with their intervals, all from the same draws.

    shares : of the ratios in a mean, by its name; those that are not there are equal.
    """
    means = list(ratios_of.values())
    columns = [np.bincount(classes, weight * value) for ratios in means for ratio in ratios for value in ratio]
    sums = np.column_stack(columns)  # a row per group
    totals, drawn = sums.sum(axis=0), np.zeros((0, len(columns)))
    if len(sums) > 1 and n_boot > 0:
        drawn = bootstrap_sums(sums, n_boot, seed)
    found, start = [], 0
    for name, ratios in ratios_of.items():
        share = shares.get(name)
        top, bottom = (slice(start + j, start + 2 * len(ratios), 2) for j in (0, 1))
        start += 2 * len(ratios)
        value = float(np.average(totals[top] / totals[bottom], weights=share))
        if not len(drawn):
            found.append(Metric(value))
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = np.average(drawn[:, top] / drawn[:, bottom], axis=1, weights=share)
        low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
        found.append(Metric(value, float(low), float(high)))
    return found
