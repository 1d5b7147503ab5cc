"""Features of preference pairs: one vector per response, out of a layer of a language model.

    x_r = pool over tokens t of h_t^(layer)(prompt, response)

A pair is (i, j): row i was preferred to row j. Equal texts share one row, and equal prompts one pass through the model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cvxrelu_llm import splits
from cvxrelu_llm.batches import plan, pooled_states
from cvxrelu_llm.cache import FeatureCache
from cvxrelu_llm.errors import InputError
from cvxrelu_llm.files import write_whole
from cvxrelu_llm.messages import Message
from cvxrelu_llm.models import FeatureModel, as_layer, load_model
from cvxrelu_llm.pooling import as_pooling
from cvxrelu_llm.progress import TokenProgress
from cvxrelu_llm.templates import Text, as_template
from cvxrelu_llm.triples import Triple

__all__ = ["Extraction", "PairFeatures", "embed", "extract", "load_model"]

FORMAT = "cvxrelu-pair-features"
DEFAULT_LENGTH = 1024


@dataclasses.dataclass(frozen=True)
class PairFeatures:
    """What a reward is trained on.

    X : (n, D) float32, one row per unique response (with its prompt).
    pairs : (m, 2), rows of X: preferred, rejected.
    weight, margin : (m,) float64.
    group : (m,) which pairs belong to one prompt or conversation; a split must not divide a group.
    kept : (m,) index of each pair among the triples; those whose sides became equal by truncation are missing.
    settings : what X depends on: model, revision, fingerprint, layer, pooling, template, lengths, precision.
    counts : "triples", "pairs", "rows", and what truncation did: "equal_after_truncation" (dropped),
        "prompts_truncated", "responses_truncated" (kept).
    stats : what it took: texts, of these cached, tokens, tokens run, seconds, tokens per second, damaged cache files.
    sweep : the `sweep.Sweep` behind layer="auto" or pooling="auto", else None.
    """

    X: Float[np.ndarray, "n D"]
    pairs: Int[np.ndarray, "m 2"]
    weight: Float[np.ndarray, " m"]
    margin: Float[np.ndarray, " m"]
    group: Int[np.ndarray, " m"]
    kept: Int[np.ndarray, " m"]
    settings: Mapping[str, Any]
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    stats: Mapping[str, float] = dataclasses.field(default_factory=dict)
    sweep: Any = None

    @property
    def differences(self) -> Float[np.ndarray, "m D"]:
        """X[preferred] - X[rejected]."""
        return self.X[self.pairs[:, 0]] - self.X[self.pairs[:, 1]]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything but the sweep to one safetensors file."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        about = {name: json.dumps(dict(getattr(self, name))) for name in ("settings", "counts", "stats")}
        return write_whole(path, save(arrays, {"format": FORMAT, **about}))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> PairFeatures:
        """Read what `save` wrote; InputError names a file that is not of that kind."""
        try:
            with safe_open(path, "numpy") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise InputError(f"{path}: not a file of pair features")
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            words = {name: json.loads(about[name]) for name in ("settings", "counts", "stats")}
        except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
            raise InputError(f"{path}: not a file of pair features, or a damaged one ({error})") from error
        return PairFeatures(**arrays, **words)


_ARRAYS = ("X", "pairs", "weight", "margin", "group", "kept")


def extract(
    model: FeatureModel,
    triples: Sequence[Triple],
    *,
    layer: Any = "auto",
    pooling: Any = "auto",
    template: Any = "auto",
    max_length: Any = None,
    max_response_length: Any = None,
    batch_tokens: Any = 4096,
    share_prefix: Any = True,
    padding_side: Any = None,
    cache: Any = None,
    progress: Any = False,
    seed: Any = 0,
) -> PairFeatures:
    """Features of triples.

    Parameters
    ----------
    model : of `load_model`.
    triples : of `load_triples` or `alternate`.
    layer : 1 to model.n_layers, negative from the end; "auto" chooses it, and the pooling, by `sweep` on a subset of
        these triples. Pass training triples only then, and give the choice (in `settings`) for all others.
    pooling : "last", "mean", "response_mean" or "auto".
    template : "chat", the model's chat template; "plain"; "auto" is chat where the model has one.
    max_length : tokens per text, prompt and response; None is the model's limit, at most 1024. Prompts lose their
        oldest tokens.
    max_response_length : tokens of a response, of which later ones are dropped; None is half of `max_length`.
    batch_tokens : padded tokens per batch.
    share_prefix : run a prompt once for all of its responses, in models where that was seen to change nothing.
    padding_side : "left" or "right"; None is the safest.
    cache : a folder to keep rows in; a killed extraction goes on from there.
    progress : show a bar with tokens per second and time to go.
    seed : of the sweep.

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
    run = Extraction(
        model, template, max_length, max_response_length, batch_tokens, share_prefix, padding_side, cache, progress
    )
    swept = None
    if layer == "auto" or pooling == "auto":
        from cvxrelu_llm.sweep import sweep_with

        swept = sweep_with(
            run,
            triples,
            layers=None if layer == "auto" else [as_layer(model, layer)],
            poolings=None if pooling == "auto" else [as_pooling(pooling)],
            seed=seed,
        )
        layer, pooling = swept.layer, swept.pooling
    layer, pooling = as_layer(model, layer), as_pooling(pooling)
    texts = run.tokenise([(t.prompt, r) for t in triples for r in (t.chosen, t.rejected)])
    left_out = np.array([a == b for a, b in zip(texts[::2], texts[1::2], strict=True)], dtype=bool)
    kept = np.flatnonzero(~left_out)
    if not len(kept):
        raise InputError(f"no pairs: truncation to max_length={run.max_length} makes all {len(triples)} of them equal")
    needed = [text for k in kept for text in (texts[2 * k], texts[2 * k + 1])]
    row = {text: i for i, text in enumerate(dict.fromkeys(needed))}
    X, stats = run.states(list(row), [layer], [pooling])
    counts = {"triples": len(triples), "pairs": len(kept), "rows": len(row)}
    counts |= {"equal_after_truncation": int(left_out.sum()), **run.truncated}
    return PairFeatures(
        X=X[:, 0, 0],
        pairs=np.array([row[text] for text in needed]).reshape(-1, 2),
        weight=np.array([triples[k].weight for k in kept], dtype=np.float64),
        margin=np.array([triples[k].margin for k in kept], dtype=np.float64),
        group=splits.components(triples)[kept],
        kept=kept,
        settings=run.settings([layer], [pooling]) | {"layer": layer, "pooling": pooling},
        counts=counts,
        stats=stats,
        sweep=swept,
    )


def embed(
    model: FeatureModel,
    texts: Sequence[tuple[str | Sequence[Message], str]],
    *,
    layer: Any,
    pooling: Any,
    template: Any = "auto",
    max_length: Any = None,
    max_response_length: Any = None,
    batch_tokens: Any = 4096,
    share_prefix: Any = True,
    padding_side: Any = None,
    cache: Any = None,
    progress: Any = False,
) -> Float[np.ndarray, "n D"]:
    """(n, D) float32 features of n (prompt, response) texts, as `extract` makes them; see there for the arguments."""
    run = Extraction(
        model, template, max_length, max_response_length, batch_tokens, share_prefix, padding_side, cache, progress
    )
    layers, poolings = [as_layer(model, layer)], [as_pooling(pooling)]
    tokenised = run.tokenise([((Message("user", p),) if isinstance(p, str) else tuple(p), r) for p, r in texts])
    row = {text: i for i, text in enumerate(dict.fromkeys(tokenised))}
    X, _ = run.states(list(row), layers, poolings)
    return X[[row[text] for text in tokenised], 0, 0]


class Extraction:
    """The settings of one extraction, checked, and what it does: texts to tokens, tokens to pooled states."""

    def __init__(
        self,
        model: FeatureModel,
        template: Any = "auto",
        max_length: Any = None,
        max_response_length: Any = None,
        batch_tokens: Any = 4096,
        share_prefix: Any = True,
        padding_side: Any = None,
        cache: Any = None,
        progress: Any = False,
    ) -> None:
        self.model, self.template = model, as_template(model, template)
        longest = _whole("max_length", min(DEFAULT_LENGTH, model.max_length) if max_length is None else max_length, 4)
        if longest > model.max_length:
            raise ValueError(f"max_length must be at most {model.max_length}, the model's limit, got {longest}")
        half = longest // 2 if max_response_length is None else max_response_length
        self.max_length, self.max_response_length = longest, _whole("max_response_length", half, 1)
        fixed = len(self.template.head) + len(self.template.tail)
        if self.max_response_length + fixed >= longest:
            raise ValueError(f"max_response_length must leave room for the prompt in {longest} tokens, got {half}")
        self.batch_tokens = _whole("batch_tokens", batch_tokens, 1)
        self.share_prefix = bool(share_prefix) and model.shares_prefix
        if padding_side not in (None, "left", "right"):
            raise ValueError(f"padding_side must be None, 'left' or 'right', got {padding_side!r}")
        if padding_side == "left" and not model.causal:
            raise ValueError("padding_side must be None or 'right': an encoder counts positions from the first column")
        if padding_side and self.share_prefix and getattr(model, "sliding_window", None):
            raise ValueError("padding_side must be None where attention slides over a window, or share_prefix False")
        self.padding_side, self.cache, self.progress = padding_side, cache, bool(progress)
        self.truncated = {"prompts_truncated": 0, "responses_truncated": 0}

    def settings(self, layers: Sequence[int], poolings: Sequence[str]) -> dict[str, Any]:
        """What states depend on beside the tokens."""
        return {
            "model": self.model.name,
            "revision": self.model.revision,
            "fingerprint": self.model.fingerprint,
            "dtype": self.model.dtype,
            "layers": list(layers),
            "poolings": list(poolings),
            "template": self.template.kind,
            "template_fingerprint": self.template.fingerprint,
            "max_length": self.max_length,
            "max_response_length": self.max_response_length,
        }

    def tokenise(self, items: Sequence[tuple[tuple[Message, ...], str]]) -> list[Text]:
        """Tokens of (prompt, response) texts, truncated; `truncated` counts the unique prompts and the responses."""
        template, prompts = self.template, {prompt: () for prompt, _ in items}
        prompts = {prompt: template.prompt_tokens(prompt) for prompt in prompts}
        texts = []
        for prompt, response in items:
            tokens = template.response_tokens(response)
            if not tokens:
                raise InputError(f"a response has no tokens: {response[:40]!r}")
            self.truncated["responses_truncated"] += len(tokens) > self.max_response_length
            texts.append(template.text(prompts[prompt], tokens, self.max_length, self.max_response_length))
        room = self.max_length - self.max_response_length - len(template.tail)
        self.truncated["prompts_truncated"] += sum(len(tokens) > room for tokens in prompts.values())
        return texts

    def states(
        self, texts: Sequence[Text], layers: Sequence[int], poolings: Sequence[str]
    ) -> tuple[Float[np.ndarray, "n L K D"], dict[str, float]]:
        """Pooled states of texts, those in the cache from there, and what it took."""
        shape = (len(layers), len(poolings), self.model.hidden_size)
        X, done = np.empty((len(texts), *shape), dtype=np.float32), np.zeros(len(texts), dtype=bool)
        keys = [_key(text) for text in texts]
        cache = None
        if self.cache is not None:
            cache = FeatureCache(self.cache, self.settings(layers, poolings), int(np.prod(shape)))
            for index, key in enumerate(keys):
                if (row := cache.get(key)) is not None:
                    X[index], done[index] = row.reshape(shape), True
        todo = np.flatnonzero(~done).tolist()
        batches = plan(texts, todo, self.batch_tokens, self.share_prefix)
        n_tokens = n_run = n_padded = 0
        begun = time.perf_counter()
        with TokenProgress(sum(texts[index].n_tokens for index in todo), self.progress) as bar:
            for pooled in pooled_states(self.model, texts, batches, layers, poolings, self.padding_side):
                X[pooled.texts] = pooled.rows
                if cache is not None:
                    cache.put([keys[index] for index in pooled.texts], pooled.rows.reshape(len(pooled.texts), -1))
                n_tokens, n_run = n_tokens + pooled.n_tokens, n_run + int(pooled.n_run)
                n_padded += pooled.n_padded
                bar.update(pooled.n_tokens)
        seconds = time.perf_counter() - begun
        if not np.isfinite(X).all():
            raise InputError(f"{self.model.name}: states are not finite at layer {layers}; try dtype='float32'")
        return X, {
            "texts": len(texts),
            "cached": int(done.sum()),
            "tokens": n_tokens,
            "tokens_run": n_run,
            "tokens_padded": n_padded,
            "seconds": seconds,
            "tokens_per_second": n_tokens / seconds if n_tokens else 0.0,
            "damaged_cache_files": cache.n_damaged if cache is not None else 0,
        }


def _key(text: Text) -> bytes:
    """Hash of the tokens and of where the response begins and ends; 16 bytes."""
    parts = [np.asarray(part, dtype="<i8") for part in text]
    lengths = np.array([len(part) for part in parts], dtype="<i8")
    return hashlib.sha256(b"".join(array.tobytes() for array in (lengths, *parts))).digest()[:16]


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, got {value!r}")
    return int(value)
