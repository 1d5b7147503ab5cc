"""Splits that never put one prompt, or one conversation, on both sides.

Two triples belong together when their groups are equal or their prompts are, up to case and spacing. The classes of
that relation's transitive closure, found by union-find, are what is drawn; a class always stays whole. A prompt that
all triples have says nothing, where their groups differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from cvxrelu.support.checks import as_seed
from cvxrelu_llm.preferences.triple import Triple

__all__ = ["components", "kfold", "leakage", "prompt_key", "split"]


def prompt_key(triple: Triple) -> str:
    """The prompt without regard to case and spacing."""
    return "\n".join(
        f"{message.role}\t{' '.join(message.content.casefold().split())}{message.rest}" for message in triple.prompt
    )


def components(triples: Sequence[Triple]) -> Int[np.ndarray, " m"]:
    """(m,) number of the class each triple belongs to, 0, 1, ... in order of first appearance."""
    parent = list(range(len(triples)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    prompts, groups = [prompt_key(triple) for triple in triples], {triple.group for triple in triples if triple.group}
    told = len({*prompts}) > 1 or len(groups) <= 1
    for i, (triple, prompt) in enumerate(zip(triples, prompts, strict=True)):
        keys = [("prompt", prompt)] if told else []
        for key in [*keys, *([("group", triple.group)] if triple.group else [])]:  # no group is no group of its own
            a, b = sorted((root(i), root(first.setdefault(key, i))))
            parent[b] = a
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(root(i), len(numbers)) for i in range(len(triples))], dtype=np.int64)


def split(triples: Sequence[Triple], fraction: Any, seed: Any) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Indices of both sides, ascending; whole classes are drawn until the second side holds `fraction` of the triples.

    Raises ValueError where a side would stay empty.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ValueError(f"fraction must be a number strictly between 0 and 1, got {fraction!r}")
    classes = components(triples)
    sizes = np.bincount(classes)
    wanted, taken, held_out = fraction * len(triples), 0, np.zeros(len(sizes), dtype=bool)
    for number in np.random.default_rng(as_seed(seed)).permutation(len(sizes)):
        # a class goes over where that brings the share closer to what is wanted; large ones may be passed over
        if abs(taken + sizes[number] - wanted) < abs(taken - wanted):
            held_out[number] = True
            taken += int(sizes[number])
    outside = held_out[classes] if len(triples) else np.zeros(0, dtype=bool)
    if not 0 < outside.sum() < len(triples):
        raise ValueError(
            f"fraction={fraction:g} of {len(triples)} triples in {len(sizes)} groups leaves one side empty: "
            "groups are never divided; use more data or another fraction"
        )
    return np.flatnonzero(~outside), np.flatnonzero(outside)


def kfold(triples: Sequence[Triple], k: Any, seed: Any) -> list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]]:
    """k splits (train, test) whose test sides partition the triples; each class goes to the smallest fold so far."""
    classes = components(triples)
    sizes = np.bincount(classes)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 2 <= k <= len(sizes):
        raise ValueError(f"k must be a whole number from 2 to the number of groups ({len(sizes)}), got {k!r}")
    shuffled = np.random.default_rng(as_seed(seed)).permutation(len(sizes))
    load, fold = np.zeros(k, dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
    for number in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold[number] = int(np.argmin(load))
        load[fold[number]] += sizes[number]
    return [(np.flatnonzero(fold[classes] != j), np.flatnonzero(fold[classes] == j)) for j in range(k)]


def leakage(train: Sequence[Triple], test: Sequence[Triple]) -> int:
    """How many triples of `test` share their prompt or their group with `train`; 0 is what a fair score needs."""
    classes = components([*train, *test])
    return int(np.isin(classes[len(train) :], classes[: len(train)]).sum())
