"""From messages to tokens: the model's chat template, or plain text, and truncation.

Prompt and response are tokenised apart and then joined, as when a model answers: it continues the prompt's tokens. So
the first token of the response is known exactly, and chosen and rejected share the prompt's tokens.

The end-of-turn mark that a template puts after an answer is left out: a response in the making then looks like a
finished one, and the last token is the last of the text, not a mark that is the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from cvxrelu.support.errors import InputError
from cvxrelu_llm.models.protocol import FeatureModel
from cvxrelu_llm.preferences.messages import Message

__all__ = ["Template", "Text", "as_template", "turn_end"]


class Text(NamedTuple):
    """Tokens of one text: what stands before the response, the response, and closing tokens of encoders."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    tail: tuple[int, ...] = ()

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + len(self.response) + len(self.tail)


class Template:
    """How messages become tokens.

    kind : "chat", the model's own template; or "plain": a lone message as it stands, several as "role: content" lines.
    """

    def __init__(self, tokenizer: Any, kind: str) -> None:
        self.tokenizer, self.kind = tokenizer, kind
        bare = self._tokens("a")
        marked = list(tokenizer("a")["input_ids"])
        start = next((i for i in range(len(marked)) if marked[i : i + len(bare)] == bare), 0)
        head, tail = marked[:start], marked[start + len(bare) :]
        # an end mark behind a causal model's text would come where a template's end of turn is left out
        encoder = getattr(tokenizer, "cls_token_id", None) is not None
        self.head: tuple[int, ...] = () if kind == "chat" else tuple(head)
        self.tail: tuple[int, ...] = tuple(tail) if encoder and kind == "plain" else ()
        self.bos = getattr(tokenizer, "bos_token_id", None)

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the text; the tokens themselves are part of every cache key anyway."""
        words = f"{self.kind}\n{self.tokenizer.chat_template if self.kind == 'chat' else ''}\n{self.head}\n{self.tail}"
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_tokens(self, prompt: Sequence[Message]) -> tuple[int, ...]:
        """All tokens before the response, the request to answer included.

        Where the last message is the assistant's, the response continues it: its turn stays open, and no other begins.
        """
        begun = bool(prompt) and prompt[-1].role == "assistant"
        if self.kind == "plain":
            if len(prompt) == 1 and prompt[0].role == "user" and not prompt[0].rest:
                text = prompt[0].content
            else:
                text = "".join(f"{m.role}: {' '.join(filter(None, (m.content, m.rest)))}\n" for m in prompt)
                text = text[:-1] if begun else text + "assistant: "
            return (*self.head, *self._tokens(text))
        turn = {"continue_final_message": True} if begun else {"add_generation_prompt": True}

        def shown(without: str) -> str:
            messages = [{k: v for k, v in message._asdict().items() if k != without} for message in prompt]
            tools = {"tools": messages[0].pop("tools")} if prompt and "tools" in messages[0] else {}
            return self.tokenizer.apply_chat_template(messages, tokenize=False, **tools, **turn)

        try:
            text = shown("")
            unseen = [
                name for name in ("tools", "tool_calls")
                if any(name in message._asdict() for message in prompt) and shown(name) == text
            ]  # fmt: skip
        except Exception as error:  # templates raise what they like, e.g. where roles do not alternate
            raise InputError(
                f"the model's chat template refuses a prompt that begins {prompt[0].content[:40]!r} ({error}); "
                "template='plain' does without it"
            ) from error
        if unseen:
            raise InputError(
                f"the model's chat template shows no {unseen[0]}, which the prompt that begins "
                f"{prompt[0].content[:40]!r} has; template='plain' writes them as JSON"
            )
        return tuple(self._tokens(text))

    def response_tokens(self, response: str) -> tuple[int, ...]:
        """The tokens of a response, without end mark."""
        return tuple(self._tokens(response))

    def text(
        self, prompt: tuple[int, ...], response: tuple[int, ...], max_length: int, max_response_length: int
    ) -> Text:
        """At most `max_length` tokens: the response's first `max_response_length`, the prompt's last ones.

        What the prompt gets, `max_length - max_response_length`, does not depend on the response, so that a response
        has the same features whatever it is compared with. A beginning-of-text token stays.
        """
        room = max_length - max_response_length - len(self.tail)
        if len(prompt) > room:
            kept = len(self.head) or int(bool(prompt) and prompt[0] == self.bos and not _repeats(prompt))
            prompt = (*prompt[:kept], *prompt[len(prompt) - (room - kept) :])
        return Text(prompt, response[:max_response_length], self.tail)


def turn_end(tokenizer: Any) -> int | None:
    """The special token with which the chat template closes an answer; None where there is none, or it is plain text.

    In some models it is not the end-of-text token, and their generation settings do not name it.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "ANSWER"}]
    try:
        behind = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("ANSWER")[2].lstrip()
    except Exception:  # templates raise what they like; one that refuses two plain turns closes none
        return None
    tokens = list(tokenizer(behind, add_special_tokens=False)["input_ids"]) if behind else []
    special = {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    return tokens[0] if tokens and tokens[0] in special - {getattr(tokenizer, "unk_token_id", None)} else None


def _repeats(prompt: tuple[int, ...]) -> bool:
    """ChatML models begin every turn with what their tokenizer calls the beginning of text."""
    return prompt.count(prompt[0]) > 1


def as_template(model: FeatureModel, template: Any) -> Template:
    """The template "auto" (chat where the model has one), "chat" or "plain" for this model."""
    has_chat = bool(getattr(model.tokenizer, "chat_template", None))
    if template == "auto":
        template = "chat" if has_chat else "plain"
    if template not in ("chat", "plain"):
        raise ValueError(f"template must be 'auto', 'chat' or 'plain', got {template!r}")
    if template == "chat" and not has_chat:
        raise InputError(f"template='chat': {model.name} has no chat template; use 'plain' or 'auto'")
    return Template(model.tokenizer, template)
