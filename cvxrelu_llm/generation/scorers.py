"""What guides a generation: something that scores beginnings of texts.

`HiddenStateScorer` pools hidden states of the pass that generates, and applies a head to them. The number is the one
that the head gives to features of the same tokens extracted on their own, since a causal model's hidden states do not
depend on what follows; `score_tokens` computes that from scratch.

A token that ends a text is never part of what is scored: heads are fitted on answers without it, so that the beginning
of an answer looks like a finished one. As a candidate it gets the score of the text it would end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from cvxrelu_llm.generation.states import POOLINGS, LMState, Tensor, as_layers, prefill, torch
from cvxrelu_llm.models.templates import Template
from cvxrelu_llm.preferences.messages import Message, as_messages

__all__ = ["HiddenStateScorer", "Scorer", "as_tokens", "checked", "score_tokens"]


@runtime_checkable
class Scorer(Protocol):
    """Scores k texts at once. `layer`, an optional attribute, says whose states are pooled: one, or several (-1)."""

    def score_tokens(self, tokens: Int[Tensor, "k n"], state: LMState) -> Float[np.ndarray, "k"]:
        """One finite number per row of `tokens`, prompt included; `state` is the model's after reading them."""
        ...


class HiddenStateScorer:
    """`head(pooled hidden states)`.

    Parameters
    ----------
    head : callable, features (k, F) float32 -> scores (k,), such as `ReLUNetwork.predict`.
    layer : as in `output_hidden_states`: 0 the embedding, -1 the last layer after its norm; or several, joined.
    pooling : "last", "mean" or "response_mean", see `states`; or several, joined.
    prompt : "read", or "product" with the states of the prompt's last token, see `models.feature_map`.
    """

    def __init__(
        self, head: Any, *, layer: int | Sequence[int] = -1, pooling: str | Sequence[str] = "last", prompt: str = "read"
    ) -> None:
        if not callable(head):
            raise TypeError(f"head must be a callable from features (k, F) to scores (k,), got {head!r}")
        poolings = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        if not poolings or not {*poolings} <= {*POOLINGS}:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, or several, got {pooling!r}")
        if prompt not in ("read", "product"):
            raise ValueError(f"prompt must be 'read' or 'product' beside generation, got {prompt!r}")
        self.head, self.layer, self.pooling, self.prompt = head, as_layers(layer), poolings, prompt

    def score_tokens(self, tokens: Int[Tensor, "k n"], state: LMState) -> Float[np.ndarray, "k"]:
        """The head's scores of the k texts of `state`, float64."""
        if state.layers != self.layer:
            raise ValueError(f"state pools layers {state.layers}, but this scorer reads layers {self.layer}")
        return checked(self.head(state.features(self.pooling, self.prompt)), len(tokens))


def score_tokens(lm: Any, scorer: Scorer, tokens: Any, *, prompt_length: int | None = None) -> Float[np.ndarray, "k"]:
    """Scores of k texts of equal length in a forward pass of their own.

    tokens : (k, n) or (n,) token ids, the prompt first; prompt_length of them belong to the prompt (None: all).
    """
    ids = torch.as_tensor(np.atleast_2d(np.asarray(tokens)), dtype=torch.int64, device=lm.device)
    state = prefill(lm, ids, prompt_length=prompt_length, layer=getattr(scorer, "layer", -1))
    return checked(scorer.score_tokens(state.tokens, state), len(ids))


def checked(scores: Any, k: int) -> Float[np.ndarray, "k"]:
    """What a scorer or a head returned, as k finite float64 numbers, or a ValueError."""
    if isinstance(scores, torch.Tensor):
        scores = scores.detach().float().cpu().numpy()
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (k,):
        raise ValueError(f"a scorer must return one score per text, shape ({k},), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"a scorer must return finite scores, got {array.tolist()}")
    return array


def as_tokens(tokenizer: Any, prompt: Any, template: str = "auto") -> Int[Tensor, "n"]:
    """Token ids of a prompt, up to where the answer begins.

    prompt : a text, chat messages (which may call tools, and the first of which may hold `tools`, what there is to
        call), or ids, which are taken as they are.
    template : as for features, with the same tokens: "chat", the tokenizer's chat template, for which a text is one
        message of the user; "plain", a text or a lone message of the user as it stands, several messages as
        "role: content" lines; "auto", chat where the tokenizer has a template.
    """
    if template not in ("auto", "chat", "plain"):
        raise ValueError(f"template must be 'auto', 'chat' or 'plain', got {template!r}")
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if template == "chat" and not has_chat:
        raise ValueError("template is 'chat', but the tokenizer has no chat template; use 'plain' or 'auto'")
    many = isinstance(prompt, (list, tuple)) and prompt and isinstance(prompt[0], (dict, Message))
    if isinstance(prompt, str) or many:
        messages = as_messages(prompt, "prompt")
        kind = "chat" if has_chat and template != "plain" else "plain"
        ids = np.asarray(Template(tokenizer, kind).prompt_tokens(messages))
    else:
        ids = np.asarray(prompt)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise TypeError(f"prompt must be a text, a list of messages or token ids, got {prompt!r}")
    if len(ids) == 0:
        raise ValueError("prompt must have at least one token, got none")
    return torch.as_tensor(np.asarray(ids), dtype=torch.int64)
