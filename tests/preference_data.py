"""Synthetic preferences for the tests of reward heads: a hidden score with kinks, Bradley-Terry choices."""

from __future__ import annotations

import numpy as np

from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.head import as_pair_features


def preferences(
    m: int = 120, d: int = 5, *, kinks: float = 1.5, sharp: float = 3.0, seed: int = 0, groups: int = 2
) -> PairFeatures:
    """m pairs, `groups` to a group; columns of different units and means."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((2 * m, d))
    score = Z[:, 0] + kinks * (np.abs(Z[:, 0]) - np.abs(Z[:, 1]))
    pairs = np.arange(2 * m).reshape(-1, 2)
    won = rng.random(m) < 1 / (1 + np.exp(-sharp * (score[pairs[:, 0]] - score[pairs[:, 1]])))
    X = Z * np.linspace(0.5, 4.0, d) + np.linspace(-2.0, 3.0, d)
    return as_pair_features(X, np.where(won[:, None], pairs, pairs[:, ::-1]), group=np.arange(m) // groups)


def pair_labels_flipped(features: PairFeatures, share: float, seed: int = 0) -> tuple[PairFeatures, np.ndarray]:
    """The same with a share of the pairs turned around, and which."""
    import dataclasses

    which = np.random.default_rng(seed).permutation(len(features.pairs))[: round(share * len(features.pairs))]
    pairs = features.pairs.copy()
    pairs[which] = pairs[which][:, ::-1]
    return dataclasses.replace(features, pairs=pairs), which
