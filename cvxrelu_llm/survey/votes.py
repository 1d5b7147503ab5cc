"""The votes of a blind survey: win rates, ties and their intervals.

With votes `b` for the best answer and `t` ties out of `v`, a model's win rate is

    (b + t / m) / v            m models; for two, a tie is half a win,

and between models i and j, over votes for one of the two or ties, `(b_i + t/2) / (b_i + b_j + t)`. Votes on one prompt
are not independent, so intervals come from a bootstrap of whole prompts: prompts are drawn with replacement, each with
all its votes, and the percentiles of the rate are taken. Of few votes, or where all agree, these are too short: three
votes for one model would give 1 to 1. The interval therefore also covers that of Korn and Graubard, Clopper and
Pearson's of the effective number of votes,

    n* = min(v, p (1 - p) / var(p)) (t_{v-1} / t_{c-1})^2,      c prompts; where all agree, c in place of the minimum

with var(p) the variance of p by prompts, and t the quantiles of Student's distribution.

Sources: Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
estimated from survey data", Survey Methodology 1998; Cameron, Gelbach & Miller, "Bootstrap-based improvements for
inference with clustered errors", Review of Economics and Statistics 2008; Efron & Tibshirani, "An introduction to the
bootstrap", 1993, chapter 13 (percentile intervals).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from cvxrelu.support.bootstrap import bootstrap_sums
from cvxrelu.support.checks import as_fraction, as_seed, as_whole
from cvxrelu.support.stored import read_json, short
from cvxrelu.support.values import plain
from cvxrelu_llm.survey.page import FORMAT, order_digest

__all__ = ["TIE", "Rate", "SurveyResult", "score_survey"]

TIE = "tie"


@dataclass(frozen=True)
class Rate:
    """A rate, what it was counted from, and its interval: None without votes, or with votes on a single prompt."""

    rate: float | None
    wins: int
    losses: int
    ties: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SurveyResult:
    """What a survey says.

    Attributes
    ----------
    models : rate of each model against all others together.
    pairs : rate of the first model against the second, over votes for one of the two and ties.
    n_votes, n_raters, n_prompts : votes counted, by how many raters, and on how many prompts.
    n_ties : votes for no answer.
    level, draws : of the intervals.
    """

    models: dict[str, Rate]
    pairs: dict[tuple[str, str], Rate]
    n_votes: int
    n_raters: int
    n_prompts: int
    n_ties: int
    level: float
    draws: int

    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        pairs = [{"first": a, "second": b, **vars(rate)} for (a, b), rate in self.pairs.items()]
        return {**vars(self), "models": {name: vars(rate) for name, rate in self.models.items()}, "pairs": pairs}

    def summary(self) -> str:
        """The result as text, one rate per line."""
        width = max(len(" against ".join(pair)) for pair in self.pairs)
        lines = [
            f"{self.n_votes} votes of {self.n_raters} raters on {self.n_prompts} prompts, {self.n_ties} of them ties; "
            f"intervals: {100 * self.level:g} %, bootstrap of prompts"
        ]
        named = [*self.models.items(), *((" against ".join(pair), rate) for pair, rate in self.pairs.items())]
        for name, rate in named:
            value = "  -  " if rate.rate is None else f"{rate.rate:.3f}"
            interval = "no interval" if rate.low is None else f"{rate.low:.3f} to {rate.high:.3f}"
            lines.append(
                f"{name:{width}}  {value}  ({interval})  {rate.wins} won, {rate.losses} lost, {rate.ties} tied"
            )
        return "\n".join(lines)


def score_survey(
    key: str | os.PathLike[str] | Mapping[str, Any],
    votes: Iterable[str | os.PathLike[str] | Mapping[str, Any]],
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> SurveyResult:
    """Win rates, ties and intervals out of the files that raters sent back.

    Parameters
    ----------
    key : the key of `build_survey`, or its file.
    votes : what the page exported, or its files. Of two by the same rater the later one counts, by its time.
    level : of the intervals. draws : bootstrap samples. seed : of the bootstrap.

    Raises
    ------
    ValueError : a file is no export, belongs to another survey, or the key does not fit its own digest.
    """
    level, draws, record = as_fraction("level", level), as_whole("draws", draws), _read_key(key)
    order, models = record["order"], record["models"]
    ballots: dict[str, Mapping[str, Any]] = {}
    for number, given in enumerate(votes, start=1):
        ballot = _read_ballot(number, given, record)
        held = ballots.get(ballot["rater"])
        if held is None or str(ballot.get("saved", "")) >= str(held.get("saved", "")):
            ballots[ballot["rater"]] = ballot
    if not ballots:
        raise ValueError("votes must hold at least one file, got none")
    # counts[i, k]: votes on prompt i for model k; the last column counts ties
    rows = {item: i for i, item in enumerate(order)}
    counts = np.zeros((len(rows), len(models) + 1))
    for ballot in ballots.values():
        for item, choice in ballot["votes"].items():
            counts[rows[item], len(models) if choice == TIE else models.index(order[item][choice])] += 1
    counts = counts[counts.sum(axis=1) > 0]
    if len(counts) == 0:
        raise ValueError("votes must hold at least one vote, got none")
    seed = as_seed(seed)
    drawn = bootstrap_sums(counts, draws, seed) if len(counts) > 1 else None
    m = len(models)
    everyone = list(range(m))
    rates = {
        name: _rate(counts, drawn, k, [j for j in everyone if j != k], 1 / m, level) for k, name in enumerate(models)
    }
    pairs = {
        (models[i], models[j]): _rate(counts, drawn, i, [j], 0.5, level) for i in everyone for j in everyone[i + 1 :]
    }
    return SurveyResult(
        models=rates,
        pairs=pairs,
        n_votes=int(counts.sum()),
        n_raters=len(ballots),
        n_prompts=len(counts),
        n_ties=int(counts[:, m].sum()),
        level=level,
        draws=draws,
    )


def _rate(
    counts: Float[np.ndarray, "n columns"],
    drawn: Float[np.ndarray, "draws columns"] | None,
    winner: int,
    losers: Sequence[int],
    tie_worth: float,
    level: float,
) -> Rate:
    """Ratio of sums over prompts, and the interval that covers both of the module's."""

    def ratio(sums: np.ndarray) -> np.ndarray:
        ties = sums[:, -1]
        total = sums[:, winner] + sums[:, list(losers)].sum(axis=1) + ties
        return (sums[:, winner] + tie_worth * ties)[total > 0] / total[total > 0]

    sums = counts.sum(axis=0)
    wins, losses, ties = int(sums[winner]), int(sums[list(losers)].sum()), int(sums[-1])
    if wins + losses + ties == 0:
        return Rate(None, 0, 0, 0, None, None)
    low = high = None
    if drawn is not None:
        exact = _few_votes(counts, winner, losers, tie_worth, level)
        edges = np.quantile(ratio(drawn), [0.5 - level / 2, 0.5 + level / 2])
        low, high = float(min(edges[0], exact[0])), float(max(edges[1], exact[1]))
    return Rate(float(ratio(sums[None])[0]), wins, losses, ties, low, high)


def _few_votes(
    counts: Float[np.ndarray, "n columns"], winner: int, losers: Sequence[int], tie_worth: float, level: float
) -> tuple[float, float]:
    """Korn and Graubard's interval; see the module."""
    votes = counts[:, winner] + counts[:, list(losers)].sum(axis=1) + counts[:, -1]
    won, votes = (counts[:, winner] + tie_worth * counts[:, -1])[votes > 0], votes[votes > 0]
    total, prompts = float(votes.sum()), len(votes)
    if prompts < 2:
        return 0.0, 1.0
    p, half = float(won.sum()) / total, 0.5 + level / 2
    variance = prompts / (prompts - 1) * float(np.sum((won - p * votes) ** 2)) / total**2
    n = min(total, p * (1 - p) / variance) if variance > 0 else float(prompts)
    if total > 1:
        n *= float(scipy.stats.t.ppf(half, total - 1) / scipy.stats.t.ppf(half, prompts - 1)) ** 2
    x = p * n
    low = float(scipy.stats.beta.ppf(1 - half, x, n - x + 1)) if x > 0 else 0.0
    high = float(scipy.stats.beta.ppf(half, x + 1, n - x)) if x < n else 1.0
    return low, high


def _read_key(key: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    record, name = (key, "key") if isinstance(key, Mapping) else (plain(read_json(key)), os.fspath(key))
    missing = {"format", "survey", "salt", "digest", "models", "order"} - record.keys()
    if missing or record["format"] != FORMAT:
        wrong = ", ".join(sorted(missing)) or short(record.get("format"))
        raise ValueError(f"{name} is not the key of a survey: {wrong} is wrong")
    models, order = record["models"], record["order"]
    if not _are_names(models) or len(models) < 2:
        raise ValueError(f"{name} is not the key of a survey: models must be a list of two or more names")
    texts = all(isinstance(record[entry], str) for entry in ("survey", "salt", "digest"))
    orders = isinstance(order, Mapping) and all(
        _are_names(names) and sorted(names) == sorted(models) for names in order.values()
    )
    if not texts or not orders:
        raise ValueError(f"{name} is not the key of a survey: survey, salt, digest or order is wrong")
    if record["digest"] != order_digest(record["salt"], order):
        raise ValueError(f"{name} does not fit its digest: the order in it was changed after the page was made")
    return record


def _are_names(value: Any) -> bool:
    """Whether this is a list of different texts."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _read_ballot(number: int, given: Any, key: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of an exported file, if it belongs to this key and holds nothing impossible."""
    name = f"votes {number}" if isinstance(given, Mapping) else os.fspath(given)
    ballot = given if isinstance(given, Mapping) else plain(read_json(given))
    if not isinstance(ballot.get("votes"), Mapping) or not isinstance(ballot.get("rater"), str):
        raise ValueError(f"{name}: not a file exported by a survey page")
    if (ballot.get("survey"), ballot.get("digest")) != (key["survey"], key["digest"]):
        raise ValueError(
            f"{name}: belongs to survey {short(ballot.get('survey'))}, but the key to {short(key['survey'])}"
        )
    for item, choice in ballot["votes"].items():
        shown = len(key["order"].get(item, ()))
        allowed = choice == TIE or (isinstance(choice, int) and not isinstance(choice, bool) and 0 <= choice < shown)
        if not shown or not allowed:
            raise ValueError(f"{name}: vote {short(choice)} on {short(item)} is not possible")
    return ballot
