"""Which layers, which poolings, and what of the prompt? Every candidate is scored on held-out training pairs.

Score of a candidate: k-fold cross-validation, grouped by prompt, of the linear Bradley-Terry model

    minimise over theta  sum_k weight_k log(1 + exp(margin_k - theta @ (x_i(k) - x_j(k)))) + l2/2 |theta|^2

on standardised features, for a few values of l2 (`held_out`). The model runs once for all layers. The candidate with
the smallest held-out loss is chosen, or the smallest candidate that comes within 0.001 of it: the loss of a pair tells
more than whether it is right, so it is less at the mercy of chance than the accuracy is. As the best of many, its own
score is optimistic. What the choice is worth, `Sweep.worth`, is therefore found by nested folds: every fold is judged
by the candidate and the l2 that the other folds choose by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.support.checks import as_bool, as_whole
from cvxrelu_llm.features.candidates import candidates
from cvxrelu_llm.features.extraction import Extraction, added
from cvxrelu_llm.features.held_out import L2, HeldOut, first_of_best, held_out, nested
from cvxrelu_llm.features.pair_features import center_and_scale
from cvxrelu_llm.models.feature_map import ENCODERS, PROMPTS, FeatureMap, as_prompt, joined
from cvxrelu_llm.models.pooling import POOLINGS, PROMPT_LAST, as_pooling
from cvxrelu_llm.models.protocol import FeatureModel, as_layer
from cvxrelu_llm.models.templates import Text
from cvxrelu_llm.preferences import splits
from cvxrelu_llm.preferences.triple import Triple

__all__ = ["LayerScore", "Sweep", "SweepStates", "Worth", "choose", "prompts_of", "sweep", "sweep_with"]


class LayerScore(NamedTuple):
    """One row of the table; `standard_error` is that of the accuracy, `l2` the best of those tried, per pair."""

    layer: int | tuple[int, ...]
    pooling: str | tuple[str, ...]
    accuracy: float
    standard_error: float
    loss: float
    l2: float
    prompt: str = "read"


class Worth(NamedTuple):
    """Held-out loss and accuracy of what is chosen, by nested folds."""

    loss: float
    accuracy: float


class Sweep(NamedTuple):
    """The choice, and the table it was made by: the choice first, then by loss.

    layer, pooling : one, or a tuple of those that are joined. n_pairs : pairs that were used. stats : of the passes
    through the model. worth : what the choice is worth on pairs that had no say in it; None of a sweep read from a
    file from before it was kept.
    """

    layer: int | tuple[int, ...]
    pooling: str | tuple[str, ...]
    table: list[LayerScore]
    n_pairs: int
    stats: dict[str, float]
    prompt: str = "read"
    worth: Worth | None = None

    @property
    def chosen(self) -> FeatureMap:
        """The choice as a map."""
        return FeatureMap.of(self._asdict())

    def __str__(self) -> str:
        """The best ten rows as text."""
        head = f"{'layers':18}  {'pooling':20}  {'prompt':7}  accuracy  (s.e.)   loss"
        lines = [f"{head}    of {self.n_pairs} training pairs, held out in turn"]
        for row in self.table[:10]:
            layers, poolings = _words(row.layer), _words(row.pooling)
            lines.append(
                f"{layers:18}  {poolings:20}  {row.prompt:7}  {row.accuracy:8.1%}  {row.standard_error:6.1%}  "
                f"{row.loss:6.4f}"
            )
        if self.worth is not None:
            lines.append(
                f"chosen among {len(self.table)}; by folds that have no say in the choice: accuracy "
                f"{self.worth.accuracy:.1%}, loss {self.worth.loss:.4f}"
            )
        return "\n".join(lines)


def _words(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def sweep(
    model: FeatureModel,
    triples: Sequence[Triple],
    *,
    layers: Any = None,
    poolings: Any = None,
    prompts: Any = None,
    singles: Any = False,
    max_pairs: Any = 400,
    folds: Any = 5,
    seed: Any = 0,
    template: Any = "auto",
    max_length: Any = None,
    max_response_length: Any = None,
    batch_tokens: Any = 4096,
    cache: Any = None,
    progress: Any = False,
) -> Sweep:
    """Score layers, poolings and what of the prompt enters, on training triples.

    Parameters
    ----------
    model, triples : see `features.extract`, also for the arguments not named here. Training triples only.
    layers : numbers to choose from, negative from the end; None is all of them.
    poolings : names to try, one by one and joined; None is all.
    prompts : what of the prompt may enter, some of "read", "ignore" (encoders), "product" and "both" (encoders); None
        is all.
    singles : whether every layer is tried by itself too, and not joined layers only.
    max_pairs : size of the subset, drawn by whole groups.
    folds : of the cross-validation, at least 3: nested ones leave out two.

    Returns
    -------
    Sweep
    """
    run = Extraction(
        model, template, max_length=max_length, max_response_length=max_response_length, batch_tokens=batch_tokens,
        cache=cache, progress=progress,
    )  # fmt: skip
    tried = sorted({as_layer(model, k) for k in (range(1, model.n_layers + 1) if layers is None else layers)})
    names = [as_pooling(pooling) for pooling in (POOLINGS if poolings is None else poolings)]
    words = [as_prompt(model, prompt) for prompt in (prompts_of(model) if prompts is None else prompts)]
    maps = candidates(model, tried, names, words, singles=as_bool("singles", singles))
    return sweep_with(run, triples, maps, max_pairs, folds, seed=seed)[0]


def prompts_of(model: FeatureModel) -> list[str]:
    """What of the prompt may enter, with this model."""
    return [prompt for prompt in PROMPTS if prompt not in ENCODERS or not model.causal]


def sweep_with(
    run: Extraction, triples: Sequence[Triple], tried: Sequence[FeatureMap], max_pairs: Any = 400, folds: Any = 5, *,
    seed: int = 0,
) -> tuple[Sweep, dict[Text, Float[np.ndarray, " F"]]]:  # fmt: skip
    """`sweep` over these maps, and the features of its texts by the chosen one."""
    folds = as_whole("folds", folds, 3)
    if isinstance(max_pairs, bool) or not isinstance(max_pairs, (int, np.integer)) or max_pairs < 2 * folds:
        raise ValueError(f"max_pairs must be a whole number from {2 * folds}, got {max_pairs!r}")
    chosen = list(triples)
    if len(chosen) > max_pairs:
        chosen = [chosen[i] for i in splits.split(chosen, max_pairs / len(chosen), seed)[1]]
    texts = run.tokenise([(t.prompt, r) for t in chosen for r in (t.chosen, t.rejected)])
    differ = [a != b for a, b in zip(texts[::2], texts[1::2], strict=True)]
    chosen = [triple for triple, different in zip(chosen, differ, strict=True) if different]
    texts = [text for k, text in enumerate(texts) if differ[k // 2]]
    run.truncated = dict.fromkeys(run.truncated, 0)  # those of the extraction are counted there
    row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    pairs = np.array([row[text] for text in texts]).reshape(-1, 2)
    states = SweepStates(run, list(row), tried)
    tests = [test for _, test in splits.kfold(chosen, folds, seed)]
    weight = np.array([triple.weight for triple in chosen])
    margin = np.array([triple.margin for triple in chosen])
    swept = choose(states, tried, pairs, weight, margin, tests)
    return swept, dict(zip(row, states.features(swept.chosen), strict=True))


def choose(
    states: SweepStates, tried: Sequence[FeatureMap], pairs: Int[np.ndarray, "m 2"], weight: Float[np.ndarray, " m"],
    margin: Float[np.ndarray, " m"], tests: Sequence[np.ndarray],
) -> Sweep:  # fmt: skip
    """The best of the maps on these pairs of rows of the states, `tests` being the folds."""
    grams: dict[Any, np.ndarray] = {}
    scored = [held_out(states.gram(candidate, pairs, grams), weight, margin, tests) for candidate in tried]
    table = [
        _row(candidate, states.width, found, weight, margin) for candidate, found in zip(tried, scored, strict=True)
    ]
    best = table[first_of_best([row.loss for row in table])]
    table.sort(key=lambda row: (row is not best, row.loss))
    worth = nested(scored, weight, margin, tests)
    losses = np.logaddexp(0.0, margin - worth)
    return Sweep(
        best.layer, best.pooling, table, len(pairs), states.stats, best.prompt,
        Worth(float(np.average(losses, weights=weight)), float(np.average(worth > 0, weights=weight))),
    )  # fmt: skip


class SweepStates:
    """Pooled states of texts, at all layers and poolings that some maps ask for: the model runs once for all."""

    def __init__(self, run: Extraction, texts: Sequence[Text], tried: Sequence[FeatureMap]) -> None:
        self.layers = sorted({layer for candidate in tried for layer in candidate.layers})
        self.causal, self.width = run.model.causal, run.model.hidden_size
        parts = [part for candidate in tried for part in candidate.parts]
        read = [part for part in parts if not self._goes_apart(part)]
        apart = [part for part in parts if self._goes_apart(part)]
        products = any(part.prompt == "product" for part in parts)
        self.poolings = [p for p in POOLINGS if any(p in c.poolings for c in read)]
        self.apart_poolings = [p for p in POOLINGS if any(p in c.poolings for c in apart)]
        self.stats: dict[str, float] = {}
        self.prompt: Any = None
        if read:
            last = [PROMPT_LAST] * (products and self.causal)
            self.read, self.stats = run.states(texts, self.layers, [*self.poolings, *last])
            self.prompt = self.read[:, :, -1] if last else None
        if apart:
            self.apart, G, stats = run.states_apart(texts, self.layers, self.apart_poolings, products)
            self.prompt = None if G is None else G[:, :, 0]
            self.stats = added(self.stats, stats) if self.stats else stats

    def _goes_apart(self, part: FeatureMap) -> bool:
        return part.prompt != "read" and not self.causal

    def features(self, candidate: FeatureMap) -> Float[np.ndarray, "n F"]:
        """Of all texts."""
        return np.concatenate([self._features(part) for part in candidate.parts], axis=1)

    def _features(self, part: FeatureMap) -> Float[np.ndarray, "n F"]:
        H, names = (self.apart, self.apart_poolings) if self._goes_apart(part) else (self.read, self.poolings)
        at = [self.layers.index(layer) for layer in part.layers]
        states = H[:, at][:, :, [names.index(pooling) for pooling in part.poolings]]
        return joined(states, self.prompt[:, at] if part.prompt == "product" else None)

    def gram(
        self, candidate: FeatureMap, pairs: Int[np.ndarray, "m 2"], known: dict[Any, np.ndarray]
    ) -> Float[np.ndarray, "m m"]:
        """Inner products of the pairs' standardised differences, divided by the number of features.

        known : those of one layer and one pooling, which are added up; kept there from map to map.
        """
        total = np.zeros((len(pairs), len(pairs)))
        used = np.unique(pairs)
        for part, layer, pooling in ((p, k, name) for p in candidate.parts for k in p.layers for name in p.poolings):
            single = FeatureMap((layer,), (pooling,), part.prompt)
            if single not in known:
                Z = self._features(single)
                center, scale = center_and_scale(Z[used])
                Z = (Z - center) / scale
                A = Z[pairs[:, 0]] - Z[pairs[:, 1]]
                known[single] = (A @ A.T).astype(np.float32)
            total += known[single]
        return total / candidate.n_features(self.width)


def _row(
    candidate: FeatureMap, width: int, found: HeldOut, weight: Float[np.ndarray, " m"],
    margin: Float[np.ndarray, " m"],
) -> LayerScore:  # fmt: skip
    """The candidate at its best l2."""
    losses = np.logaddexp(0.0, margin - found.margins) @ weight / weight.sum()
    at = int(np.argmin(losses))
    accuracy = float(np.average(found.margins[at] > 0, weights=weight))
    error = float(np.sqrt(accuracy * (1 - accuracy) / len(weight)))
    layers, poolings = candidate.layers, candidate.poolings
    return LayerScore(
        layers[0] if len(layers) == 1 else layers, poolings[0] if len(poolings) == 1 else poolings, accuracy, error,
        float(losses[at]), L2[at] * candidate.n_features(width), candidate.prompt,
    )  # fmt: skip
