"""Features of preference pairs: one vector per response, out of hidden states of a language model.

    x_r = pool over tokens t of h_t^(layer)(prompt, response),      several layers and poolings joined, and what of the
                                                                    prompt enters: see `models.feature_map`

A pair is (i, j): row i was preferred to row j. Equal texts share one row, and equal prompts one pass through the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.support.checks import as_seed, as_whole
from cvxrelu.support.errors import InputError
from cvxrelu_llm.features.candidates import candidates
from cvxrelu_llm.features.extraction import Extraction
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.features.sweep import Sweep, prompts_of, sweep, sweep_with
from cvxrelu_llm.models.feature_map import FeatureMap, as_feature_map, as_prompt
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.models.pooling import POOLINGS
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.models.templates import Text
from cvxrelu_llm.preferences import splits
from cvxrelu_llm.preferences.messages import Message, as_messages
from cvxrelu_llm.preferences.triple import Triple

__all__ = ["PairFeatures", "Sweep", "embed", "extract", "load_model", "sweep"]

BYTES = 2**31  # of features that are chosen; more columns than that are more than most machines and pairs can bear


def extract(
    model: FeatureModel,
    triples: Sequence[Triple],
    *,
    layer: Any = "auto",
    pooling: Any = "auto",
    prompt: Any = None,
    template: Any = "auto",
    max_length: Any = None,
    max_response_length: Any = None,
    batch_tokens: Any = 4096,
    share_prefix: Any = True,
    padding_side: Any = None,
    cache: Any = None,
    progress: Any = False,
    prefixes: Any = 0,
    seed: Any = 0,
) -> PairFeatures:
    """Features of triples.

    Parameters
    ----------
    model : of `load_model`.
    triples : of `load_triples` or `alternate`.
    layer : 1 to model.n_layers, negative from the end, or a list of such, which are joined; "auto" chooses, and the
        pooling and the prompt with it, by `sweep` on a subset of these triples. Pass training triples only then, and
        give the choice (in `settings`) for all others.
    pooling : "last", "mean", "response_mean", a list of such, which are joined, or "auto".
    prompt : what of the prompt enters: "read", "ignore" (encoders), "product" or "both" (encoders), see
        `models.feature_map`; "auto" chooses. None is "auto" beside another "auto", else "read".
    template : "chat", the model's chat template; "plain"; "auto" is chat where the model has one.
    max_length : tokens per text, prompt and response; None is the model's limit, at most 1024. Prompts lose their
        oldest tokens.
    max_response_length : tokens of a response, of which later ones are dropped; None is half of `max_length`.
    batch_tokens : padded tokens per batch.
    share_prefix : run a prompt once for all of its responses, in models where that was seen to change nothing.
    padding_side : "left" or "right"; None is the safest.
    cache : a folder to keep rows in; a killed extraction goes on from there.
    progress : show a bar with tokens per second and time to go.
    prefixes : beginnings of every pair to add, both answers cut at the same random share: for heads that are to score
        texts in the making. A pair and its beginnings share its weight. For training only.
    seed : of the sweep and of the shares.

    Returns
    -------
    PairFeatures

    Examples
    --------
    A model without weights worth mentioning, but it shows the shapes; see docs/alignment.md for real ones.

    >>> features = extract(model, triples, layer=2, pooling="response_mean")  # doctest: +SKIP
    >>> features.X.shape, features.pairs.shape  # doctest: +SKIP
    ((8, 16), (4, 2))
    """
    prefixes, seed = as_whole("prefixes", prefixes, 0), as_seed(seed)
    run = Extraction(
        model, template, max_length=max_length, max_response_length=max_response_length, batch_tokens=batch_tokens,
        share_prefix=share_prefix, padding_side=padding_side, cache=cache, progress=progress,
    )  # fmt: skip
    swept: Sweep | None = None
    known: dict[Text, Any] = {}
    if prompt is None:
        prompt = "auto" if _is_auto(layer) or _is_auto(pooling) else "read"
    if _is_auto(layer) or _is_auto(pooling) or _is_auto(prompt):
        n_texts = 2 * len(triples) * (1 + prefixes)
        swept, known = sweep_with(run, triples, _tried(model, layer, pooling, prompt, n_texts), seed=seed)
        chosen = swept.chosen
    else:
        chosen = as_feature_map(model, layer, pooling, prompt)
    texts = run.tokenise([(t.prompt, r) for t in triples for r in (t.chosen, t.rejected)])
    left_out = np.array([a == b for a, b in zip(texts[::2], texts[1::2], strict=True)], dtype=bool)
    kept = np.flatnonzero(~left_out)
    if not len(kept):
        raise InputError(f"no pairs: truncation to max_length={run.max_length} makes all {len(triples)} of them equal")
    whole = [(texts[2 * k], texts[2 * k + 1]) for k in kept]
    both, source, weight = _with_prefixes(whole, prefixes, seed)
    needed, kept = [text for pair in both for text in pair], kept[source]
    row = {text: i for i, text in enumerate(dict.fromkeys(needed))}
    X, stats = run.features(list(row), chosen, known)
    counts = {"triples": len(triples), "pairs": len(kept), "rows": len(row), "prefixes": len(both) - len(whole)}
    counts |= {"equal_after_truncation": int(left_out.sum()), **run.truncated}
    return PairFeatures(
        X=X,
        pairs=np.array([row[text] for text in needed]).reshape(-1, 2),
        weight=weight * np.array([triples[int(k)].weight for k in kept], dtype=np.float64),
        margin=np.array([triples[int(k)].margin for k in kept], dtype=np.float64),
        group=splits.components(triples)[kept],
        kept=kept,
        settings=run.settings(chosen.layers, chosen.poolings) | chosen.settings,
        counts=counts,
        stats=stats,
        sweep=swept,
    )


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _tried(model: FeatureModel, layer: Any, pooling: Any, prompt: Any, n_texts: int) -> list[FeatureMap]:
    """What a sweep chooses from, beside what is given: features of so many texts that take at most `BYTES`."""
    every = FeatureMap(tuple(range(1, model.n_layers + 1)), POOLINGS)
    given = as_feature_map(
        model, every.layers if _is_auto(layer) else layer, every.poolings if _is_auto(pooling) else pooling
    )
    prompts = prompts_of(model) if _is_auto(prompt) else [as_prompt(model, prompt)]
    found = candidates(model, given.layers, given.poolings, prompts,
                       join_layers=_is_auto(layer), join_poolings=_is_auto(pooling))  # fmt: skip
    within = [one for one in found if 4 * n_texts * one.n_features(model.hidden_size) <= BYTES]
    return within or [
        one for one in found if one.n_features(1) == found[0].n_features(1)
    ]  # they begin with the smallest


def _with_prefixes(
    whole: Sequence[tuple[Text, Text]], prefixes: int, seed: int
) -> tuple[list[tuple[Text, Text]], Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Pairs and their beginnings, which pair each is of, and shares of its weight; equal beginnings are left out."""
    rng = np.random.default_rng([seed, 13])
    both, source = list(whole), list(range(len(whole)))
    for k, pair in enumerate(whole):
        for share in rng.random(prefixes):
            a, b = (text._replace(response=text.response[: int(np.ceil(share * len(text.response)))]) for text in pair)
            if a != b and (a, b) != pair and a.response and b.response:
                both.append((a, b))
                source.append(k)
    found = np.array(source)
    return both, found, 1.0 / np.bincount(found)[found]


def embed(
    model: FeatureModel,
    texts: Sequence[tuple[str | Sequence[Message], str]],
    *,
    layer: Any,
    pooling: Any,
    prompt: Any = "read",
    template: Any = "auto",
    max_length: Any = None,
    max_response_length: Any = None,
    batch_tokens: Any = 4096,
    share_prefix: Any = True,
    padding_side: Any = None,
    cache: Any = None,
    progress: Any = False,
) -> Float[np.ndarray, "n F"]:
    """(n, F) float32 features of n (prompt, response) texts, as `extract` makes them; see there for the arguments."""
    run = Extraction(
        model, template, max_length=max_length, max_response_length=max_response_length, batch_tokens=batch_tokens,
        share_prefix=share_prefix, padding_side=padding_side, cache=cache, progress=progress,
    )  # fmt: skip
    chosen = as_feature_map(model, layer, pooling, prompt)
    tokenised = run.tokenise([(as_messages(p, f"texts[{i}]"), r) for i, (p, r) in enumerate(texts)])
    row = {text: i for i, text in enumerate(dict.fromkeys(tokenised))}
    X, _ = run.features(list(row), chosen)
    return X[[row[text] for text in tokenised]]
