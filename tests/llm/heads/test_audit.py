"""Edits equal fits from nothing, influence equals refits, and wrong labels are found."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from preference_data import pair_labels_flipped, preferences

from cvxrelu.support.errors import InputError
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads import influence
from cvxrelu_llm.heads.head import ConvexRewardHead

LINEAR: dict[str, Any] = {"beta": np.inf, "skip_l2": 2.0}
NETWORK: dict[str, Any] = {"beta": 3.0, "skip_l2": 2.0, "tol": 1e-4}


def without_standard(head: ConvexRewardHead, features: PairFeatures) -> ConvexRewardHead:
    """A fit of `features` from nothing, on the standardisation of `head`."""
    fresh = ConvexRewardHead(**{**head.options, "betas": tuple(head.options["betas"])})
    fresh.standard, fresh.choice, fresh.feature_settings = head.standard, head.choice, {}
    fresh._remember(features, features.margin)
    from cvxrelu_llm.heads.selection import Rows

    fresh._solve(Rows(head.standard.apply(features.X), features.pairs, features.weight, features.margin), None)
    return fresh


@pytest.mark.parametrize("options", [LINEAR, NETWORK], ids=["linear", "network"])
def test_edits_are_fits_of_the_edited_pairs(options: dict[str, Any]) -> None:
    features, more = preferences(m=60), preferences(m=6, seed=5)
    head = ConvexRewardHead(**options).fit(features)
    edited = head.edit(add=more, remove=[0, 7], flip=[3, 4], weight={9: 2.5, 10: 0.0})
    pairs, weight = features.pairs.copy(), features.weight.copy()
    pairs[[3, 4]], weight[[9, 10]] = pairs[[3, 4]][:, ::-1], [2.5, 0.0]
    keep = np.setdiff1d(np.arange(60), [0, 7])
    expected = dataclasses.replace(
        features,
        X=np.concatenate([features.X, more.X]),
        pairs=np.concatenate([pairs[keep], more.pairs + len(features.X)]),
        weight=np.concatenate([weight[keep], more.weight]),
        margin=np.zeros(64),
        group=np.arange(64),
        kept=np.arange(64),
    )
    fresh = without_standard(head, expected)
    assert edited.certificate["objective"] == pytest.approx(fresh.certificate["objective"], rel=3e-4)
    np.testing.assert_allclose(
        edited.margins(features.X, features.pairs), fresh.margins(features.X, features.pairs), atol=0.05
    )
    assert edited.n_pairs == 64 and head.n_pairs == 60 and head.data is features  # the old head is as it was
    assert edited.data_hash != head.data_hash
    back = edited.edit(flip=[2, 3])  # pairs 3 and 4 are now 2 and 3
    assert (back.data.pairs[[2, 3]] == features.pairs[[3, 4]]).all()  # type: ignore[union-attr]


def test_a_flipped_pair_turns_its_reference_too() -> None:
    """log p(preferred) - log p(other) changes its sign with the order; the margin asked of the pair does not."""
    features, more = preferences(m=40), preferences(m=5, seed=5)
    rng = np.random.default_rng(2)
    reference, added = rng.standard_normal(40), rng.standard_normal(5)
    features = dataclasses.replace(features, margin=rng.random(40))
    head = ConvexRewardHead(gamma=0.25, **LINEAR).fit(features, reference=reference)
    edited = head.edit(flip=[3, 4], remove=[0], add=dataclasses.replace(more, reference=added))
    pairs, signed = features.pairs.copy(), reference.copy()
    pairs[[3, 4]], signed[[3, 4]] = pairs[[3, 4]][:, ::-1], -reference[[3, 4]]
    expected = dataclasses.replace(
        features,
        X=np.concatenate([features.X, more.X]),
        pairs=np.concatenate([pairs[1:], more.pairs + len(features.X)]),
        weight=np.ones(44),
        margin=np.concatenate([features.margin[1:] + 0.25 + signed[1:], 0.25 + added]),
        group=np.arange(44),
        kept=np.arange(44),
    )
    fresh = without_standard(head, expected)
    np.testing.assert_allclose(edited.score(features.X), fresh.score(features.X), atol=1e-6)
    back = edited.edit(flip=[2, 3])
    np.testing.assert_allclose(back.margin[:39], head.margin[1:], atol=1e-12)
    with pytest.raises(InputError, match="add holds none"):
        head.edit(add=more)
    plain = ConvexRewardHead(**LINEAR).fit(features)  # without a reference that of what is added does not count
    edits = [plain.edit(add=part) for part in (more, dataclasses.replace(more, reference=added))]
    np.testing.assert_array_equal(edits[0].margin, edits[1].margin)


def test_two_phase_keeps_its_first_layer() -> None:
    head = ConvexRewardHead("two_phase", beta=2.0, l2=0.5, patterns=6, tol=1e-2).fit(preferences(m=40, d=3))
    edited = head.edit(flip=[0])
    np.testing.assert_array_equal(edited.standardised.first_layer, head.standardised.first_layer)
    assert np.abs(edited.network.second_layer - head.network.second_layer).max() > 1e-6
    assert edited.certificate["gap"] <= 1e-8


def test_bad_edits() -> None:
    head = ConvexRewardHead(**LINEAR).fit(preferences(m=10))
    with pytest.raises(ValueError, match="flip must hold numbers of pairs from 0 to 9"):
        head.edit(flip=[10])
    with pytest.raises(ValueError, match="nonnegative"):
        head.edit(weight={0: -1.0})
    with pytest.raises(InputError, match="nothing would be left"):
        head.edit(remove=range(10))
    with pytest.raises(ValueError, match="7 features"):
        head.edit(add=preferences(m=2, d=7))


@pytest.mark.parametrize("options", [LINEAR, NETWORK], ids=["linear", "network"])
def test_influence_is_that_of_refits(options: dict[str, Any]) -> None:
    """Leaving a pair out for real moves its margin to about where `influence` says."""
    features = preferences(m=60)
    # so precise that two neurons that are nearly one are one: which pair moves which of them is anybody's guess
    head = ConvexRewardHead(**(options if options is LINEAR else options | {"tol": 1e-6})).fit(features)
    found = head.influence()
    assert found.kind == "weights"
    some = [0, 11, 23, 42]
    refits = [head.edit(remove=[k]).margins(features.X, features.pairs)[k] for k in some]
    moved, said = np.array(refits) - found.margin[some], found.margin_without[some] - found.margin[some]
    # a step of Newton's method for the linear model; for a network, patterns do not move in it, but do in a refit, and
    # one of the four pairs may be one by which they move far
    share, rest, least = (0.05, 0.01, 4) if options is LINEAR else (0.6, 0.1, 3)
    assert np.sum(np.abs(moved - said) <= share * np.abs(moved) + rest) >= least
    assert np.corrcoef(refits, found.margin_without[some])[0, 1] > 0.98
    assert (found.margin_without <= found.margin + 1e-6).all()  # a pair argues for itself


def test_large_networks_hold_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    head = ConvexRewardHead(**NETWORK).fit(preferences(m=60))
    all_weights = head.influence()
    monkeypatch.setattr(influence, "MOST_WEIGHTS", 10)
    fixed = head.influence()
    assert (all_weights.kind, fixed.kind) == ("weights", "last layer")
    assert np.corrcoef(all_weights.margin_without, fixed.margin_without)[0, 1] > 0.95


@pytest.mark.parametrize("mode", ["linear", "network"])
def test_flipped_labels_are_found(mode: str) -> None:
    """A tenth of the labels is turned around: most are among the first fifth of the list."""
    options = {"linear": {"beta": np.inf}, "network": {"beta": 6.0, "skip_l2": 3.0, "tol": 1e-3}}[mode]
    spoiled, which = pair_labels_flipped(
        preferences(m=200, sharp=8.0, kinks={"linear": 0.2, "network": 1.0}[mode]), 0.1
    )
    ranked = [suspect.pair for suspect in ConvexRewardHead(**options).fit(spoiled).audit()]
    assert sorted(ranked) == list(range(200))
    assert len(set(ranked[:20]) & set(which)) >= 12
    assert len(set(ranked[:40]) & set(which)) >= 16
    assert [s.pair for s in ConvexRewardHead(**options).fit(spoiled).audit(5)] == ranked[:5]
