"""Is one head better than another? Paired over pairs, clustered over groups, corrected over subsets.

    d_k      loss of the first head on pair k minus that of the second, or the difference of being right
    t        mean of d, weighted, over its standard error, groups being what is independent
    p        two-sided, of Student's distribution with (groups - 1) degrees of freedom; of S subsets by Holm's step-down

The groups' sums give the standard error (cluster-robust). A small p says that a difference like this is rare among
equal heads; the interval says how large it is. Source: S. Holm, *A simple sequentially rejective multiple test
procedure*, Scandinavian Journal of Statistics 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from cvxrelu.support.checks import as_fraction
from cvxrelu.support.errors import InputError
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.calibration import log_losses
from cvxrelu_llm.heads.rule import paired_difference

__all__ = ["Difference", "HeadComparison", "compare_heads"]


@dataclass(frozen=True)
class Difference:
    """First minus second: mean, interval, p-value, and how many pairs and groups they rest on."""

    value: float
    low: float
    high: float
    p: float
    n_pairs: int
    n_groups: int

    def __str__(self) -> str:
        return f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f}), p {self.p:.3g}"


@dataclass(frozen=True)
class HeadComparison:
    """What `compare_heads` returns: the first head is better where log_loss is below zero, accuracy above.

    log_loss, accuracy : over all pairs. subsets : of log-loss by name, p-values corrected. level : of the intervals.
    """

    log_loss: Difference
    accuracy: Difference
    level: float
    subsets: dict[str, Difference] = field(default_factory=dict)

    def summary(self) -> str:
        """A line each."""
        head = f"first minus second, {self.log_loss.n_pairs} pairs in {self.log_loss.n_groups} groups, {self.level:.0%}"
        lines = [head, f"log-loss        {self.log_loss}", f"accuracy        {self.accuracy}"]
        return "\n".join(lines + [f"log-loss, {name:14} {found}" for name, found in self.subsets.items()])

    def __str__(self) -> str:
        return self.summary()


def compare_heads(
    first: Any, second: Any, features: PairFeatures, second_features: PairFeatures | None = None, *,
    subset: Sequence[str] | None = None, level: Any = 0.95,
) -> HeadComparison:  # fmt: skip
    """Compare two fitted heads on pairs that neither was fitted to.

    Parameters
    ----------
    first, second : `ConvexRewardHead`, calibrated by their own temperatures; or (m,) margins of any scorer.
    features : held-out pairs. second_features : the same pairs, as the second head sees them, where it reads another
        model, layer or pooling; their `kept`, weights and groups must agree.
    subset : (m,) names; the log-loss is compared within each, and p-values are corrected for their number.
    level : of the intervals, one at a time.

    Raises
    ------
    InputError : features of another kind than a head was fitted on, or that do not belong to the same pairs.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxrelu_llm.heads.data import as_pair_features
    >>> features = as_pair_features(np.eye(6), [[0, 1], [2, 3], [4, 5]])
    >>> found = compare_heads([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], features)
    >>> found.log_loss.value < 0, found.accuracy.value
    (True, 0.0)
    """
    level = as_fraction("level", level)
    other = features if second_features is None else second_features
    for name in ("kept", "weight", "group"):
        if not np.array_equal(getattr(features, name), getattr(other, name)):
            raise InputError(f"second_features must be of the same pairs as features, and their {name} differ")
    m = len(features.pairs)
    a, b = (_margins(*given, m) for given in (("first", first, features), ("second", second, other)))
    losses, right = log_losses(a) - log_losses(b), 0.5 * (np.sign(a) - np.sign(b))
    weight, group = features.weight, features.group
    if subset is not None and len(subset) != m:
        raise InputError(f"subset must have one entry per pair, {m}, got {len(subset)}")
    names = np.asarray([] if subset is None else subset)
    found = {}
    for name in dict.fromkeys(names.tolist()):
        inside = names == name
        found[str(name)] = _difference(losses[inside], weight[inside], group[inside], level)
    return HeadComparison(
        _difference(losses, weight, group, level), _difference(right, weight, group, level), level, _holm(found)
    )


def _margins(name: str, head: Any, features: PairFeatures, m: int) -> Float[np.ndarray, " m"]:
    if hasattr(head, "margins"):
        head.check_features(features.settings)
        return head.margins(features.X, features.pairs) / head.temperature
    margins = np.asarray(head, dtype=np.float64)
    if margins.shape != (m,) or not np.isfinite(margins).all():
        raise InputError(f"{name} must be a head, or {m} finite margins, got shape {margins.shape}")
    return margins


def _difference(values: np.ndarray, weight: np.ndarray, group: np.ndarray, level: float) -> Difference:
    groups = len(np.unique(group))
    if groups < 2 or not weight.sum() > 0:
        mean = float(np.average(values, weights=weight)) if weight.sum() > 0 else np.nan
        return Difference(mean, np.nan, np.nan, np.nan, len(values), groups)
    mean, error = paired_difference(values, np.zeros(len(values)), weight, group)
    if error == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0, len(values), groups)
    half = float(scipy.stats.t.ppf(0.5 + 0.5 * level, groups - 1)) * error
    p = 2.0 * float(scipy.stats.t.sf(abs(mean) / error, groups - 1))
    return Difference(mean, mean - half, mean + half, p, len(values), groups)


def _holm(found: dict[str, Difference]) -> dict[str, Difference]:
    """The same with p-values corrected for how many there are; those that are unknown are left out of the count."""
    known = sorted((d.p, name) for name, d in found.items() if np.isfinite(d.p))
    corrected, largest = {}, 0.0
    for i, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - i) * p))
        corrected[name] = largest
    return {name: Difference(**{**vars(d), "p": corrected.get(name, d.p)}) for name, d in found.items()}
