"""One preference, why a record is none, and pairs of rated answers."""

from __future__ import annotations

import dataclasses

from cvxrelu_llm.preferences.messages import Message

__all__ = ["Refused", "Triple", "by_rating"]


@dataclasses.dataclass(frozen=True)
class Triple:
    """One preference: `chosen` was preferred to `rejected` as the answer to `prompt`.

    weight >= 0 multiplies its loss, margin is what the difference of rewards has to exceed, `source` tells where it
    stood ("train.jsonl, line 12"), rating by how much the chosen answer was rated higher, 0 where there are no ratings.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    weight: float = 1.0
    margin: float = 0.0
    group: str = ""
    source: str = ""
    rating: float = 0.0


class Refused(Exception):
    """A record that is well-formed but of no use."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason, self.words = reason, words


def by_rating(rated: list[Triple]) -> list[Triple]:
    """Pairs of rated answers to one prompt, the better one first; they share the mean of the answers' weights."""
    found = []
    for a in rated:
        for b in rated:
            if a.rating > b.rating:
                place = a.source if a.source == b.source else f"{a.source} and {b.source}"
                weight, rating = 0.5 * (a.weight + b.weight), a.rating - b.rating
                found.append(dataclasses.replace(a, rejected=b.chosen, source=place, weight=weight, rating=rating))
    return [dataclasses.replace(pair, weight=pair.weight / len(found)) for pair in found]
