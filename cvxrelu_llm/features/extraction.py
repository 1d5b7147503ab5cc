"""The settings of one extraction, and its two steps: texts to tokens, tokens to pooled states by way of the cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxrelu.support.checks import as_bool, as_whole
from cvxrelu.support.errors import InputError
from cvxrelu_llm.features.batches import plan, pooled_states
from cvxrelu_llm.features.cache import FeatureCache
from cvxrelu_llm.features.progress import TokenProgress
from cvxrelu_llm.models.feature_map import FeatureMap, joined
from cvxrelu_llm.models.pooling import PROMPT_LAST
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.models.templates import Text, as_template
from cvxrelu_llm.preferences.messages import Message

__all__ = ["Extraction", "added"]

DEFAULT_LENGTH = 1024


class Extraction:
    """The settings of one extraction, checked, and what it does: texts to tokens, tokens to pooled states."""

    def __init__(
        self,
        model: FeatureModel,
        template: Any = "auto",
        *,
        max_length: Any = None,
        max_response_length: Any = None,
        batch_tokens: Any = 4096,
        share_prefix: Any = True,
        padding_side: Any = None,
        cache: Any = None,
        progress: Any = False,
    ) -> None:
        self.model, self.template = model, as_template(model, template)
        longest = as_whole("max_length", min(DEFAULT_LENGTH, model.max_length) if max_length is None else max_length, 4)
        if longest > model.max_length:
            raise ValueError(f"max_length must be at most {model.max_length}, the model's limit, got {longest}")
        half = longest // 2 if max_response_length is None else max_response_length
        self.max_length, self.max_response_length = longest, as_whole("max_response_length", half, 1)
        fixed = len(self.template.head) + len(self.template.tail)
        if self.max_response_length + fixed >= longest:
            raise ValueError(f"max_response_length must leave room for the prompt in {longest} tokens, got {half}")
        self.batch_tokens = as_whole("batch_tokens", batch_tokens, 1)
        self.share_prefix = as_bool("share_prefix", share_prefix) and model.shares_prefix
        if padding_side not in (None, "left", "right"):
            raise ValueError(f"padding_side must be None, 'left' or 'right', got {padding_side!r}")
        if padding_side == "left" and not model.causal:
            raise ValueError("padding_side must be None or 'right': an encoder counts positions from the first column")
        if padding_side and self.share_prefix and getattr(model, "sliding_window", None):
            raise ValueError("padding_side must be None where attention slides over a window, or share_prefix False")
        self.padding_side, self.cache, self.progress = padding_side, cache, as_bool("progress", progress)
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
        template = self.template
        prompts = {prompt: template.prompt_tokens(prompt) for prompt in dict.fromkeys(prompt for prompt, _ in items)}
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

    def features(
        self, texts: Sequence[Text], chosen: FeatureMap, known: Mapping[Text, Any] | None = None
    ) -> tuple[Float[np.ndarray, "n F"], dict[str, float]]:
        """Features of texts, and what they took; `known`: rows that need no pass, by text."""
        known = known or {}
        todo = [text for text in texts if text not in known]
        X = np.empty((len(texts), chosen.n_features(self.model.hidden_size)), dtype=np.float32)
        if known:
            X[[i for i, text in enumerate(texts) if text in known]] = [known[t] for t in texts if t in known]
        at, column, costs = [i for i, text in enumerate(texts) if text not in known], 0, []
        for part in chosen.parts:
            rows, cost = self._features(todo, part)
            X[at, column : column + rows.shape[1]] = rows
            column += rows.shape[1]
            costs.append(cost)
        return X, {**added(*costs), "texts": len(texts)}

    def _features(self, texts: Sequence[Text], part: FeatureMap) -> tuple[Float[np.ndarray, "n F"], dict[str, float]]:
        """Those of one part of a map."""
        if part.prompt == "read" or self.model.causal:
            prompt = [PROMPT_LAST] * (part.prompt == "product")
            H, stats = self.states(texts, part.layers, [*part.poolings, *prompt])
            return joined(H[:, :, : len(part.poolings)], H[:, :, -1] if prompt else None), stats
        H, G, stats = self.states_apart(texts, part.layers, part.poolings, part.prompt == "product")
        return joined(H, None if G is None else G[:, :, 0]), stats

    def states_apart(
        self, texts: Sequence[Text], layers: Sequence[int], poolings: Sequence[str], prompts: bool
    ) -> tuple[Float[np.ndarray, "n L K D"], Float[np.ndarray, "n L 1 D"] | None, dict[str, float]]:
        """Pooled states of answers without their prompts, the mean of those of prompts without answers, and the cost.

        A prompt is pooled over all of its tokens, whatever `poolings` says of answers.
        """
        head = self.template.head
        answers = [Text(head, text.response, text.tail) for text in texts]
        H, stats = self._unique_states(answers, layers, poolings)
        if not prompts:
            return H, None, stats
        alone = [Text(head, text.prompt[len(head) :], text.tail) for text in texts]
        G, more = self._unique_states(alone, layers, ["mean"])
        return H, G, added(stats, more)

    def _unique_states(
        self, texts: Sequence[Text], layers: Sequence[int], poolings: Sequence[str]
    ) -> tuple[Float[np.ndarray, "n L K D"], dict[str, float]]:
        """`states`, each different text once."""
        row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        X, stats = self.states(list(row), layers, poolings)
        return X[[row[text] for text in texts]], stats

    def states(
        self, texts: Sequence[Text], layers: Sequence[int], poolings: Sequence[str]
    ) -> tuple[Float[np.ndarray, "n L K D"], dict[str, float]]:
        """Pooled states of texts, those in the cache from there, and what it took."""
        if PROMPT_LAST in poolings and not all(text.prompt for text in texts):
            raise InputError("prompt='product' needs prompts of at least one token, and one has none")
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


def added(*costs: dict[str, float]) -> dict[str, float]:
    """What several passes took together, each as `Extraction.states` counts it."""
    total = {name: sum(cost[name] for cost in costs) for name in costs[0]}
    total["tokens_per_second"] = total["tokens"] / max(total["seconds"], 1e-9) if total["tokens"] else 0.0
    return total


def _key(text: Text) -> bytes:
    """Hash of the tokens and of where the response begins and ends; 16 bytes."""
    parts = [np.asarray(part, dtype="<i8") for part in text]
    lengths = np.array([len(part) for part in parts], dtype="<i8")
    return hashlib.sha256(b"".join(array.tobytes() for array in (lengths, *parts))).digest()[:16]
