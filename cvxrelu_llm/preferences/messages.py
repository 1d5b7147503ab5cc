"""Chat messages: read from fields of a record, from Anthropic's marked texts, and cut into prompt and response."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cvxrelu.support.errors import InputError
from cvxrelu.support.values import plain

__all__ = [
    "Message",
    "common_beginning",
    "is_conversation",
    "joined_prompt",
    "parse_marks",
    "read_messages",
    "same_text",
]

MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


class Message(NamedTuple):
    """One turn: `role` as chat templates name it ("system", "user", "assistant", ...), and its text."""

    role: str
    content: str


def is_conversation(value: Any) -> bool:
    """Whether a plain value is a list of messages, of at least one: what makes a text in a cell a conversation."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(item, Mapping) and {"role", "content"} <= item.keys() for item in value)
    )


def read_messages(value: Any, place: str) -> tuple[Message, ...]:
    """A field of chat messages, [{"role": ..., "content": ...}, ...]; content may also be a list of text parts.

    Lists may be tuples or arrays. {"role": [...], "content": [...]}, as `datasets` gives sequences, is read too.
    """
    value = plain(value)
    if isinstance(value, Mapping) and all(isinstance(value.get(name), list) for name in Message._fields):
        if len(value["role"]) != len(value["content"]):
            raise InputError(f"{place}: {len(value['role'])} roles, but {len(value['content'])} contents")
        value = [
            {"role": role, "content": content} for role, content in zip(value["role"], value["content"], strict=True)
        ]
    if not isinstance(value, list):
        raise InputError(f"{place}: expected text or a list of messages, got {type(value).__name__}")
    messages = []
    for index, item in enumerate(value):
        where = f"{place}[{index}]"
        if not isinstance(item, Mapping):
            raise InputError(f"{where}: expected a message with role and content, got {type(item).__name__}")
        role, content = item.get("role"), item.get("content")
        if not isinstance(role, str) or not role:
            raise InputError(f"{where}.role: expected text, got {role!r}")
        if isinstance(content, list):
            if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
                raise InputError(f"{where}.content: only parts of text are supported")
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str):
            raise InputError(f"{where}.content: expected text, got {content!r}")
        messages.append(Message(role, content))
    return tuple(messages)


def same_text(first: Sequence[Message], second: Sequence[Message]) -> bool:
    """Whether two runs of messages are the same but for blanks."""
    return [(m.role, m.content.split()) for m in first] == [(m.role, m.content.split()) for m in second]


def joined_prompt(prompt: tuple[Message, ...], before: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """The prompt as it is where a response repeats it as `before`, wholly or in part; None where they contradict."""
    if not before or before[0].role == "assistant":  # it goes on where the prompt ends
        return (*prompt, *before)
    if same_text(before[-len(prompt) :], prompt):
        return before
    if same_text(prompt[-len(before) :], before):  # it leaves out a system message, say
        return (*prompt[: -len(before)], *before)
    return None


def parse_marks(text: str) -> tuple[Message, ...] | None:
    r"""The messages of a text in the form "\n\nHuman: ...\n\nAssistant: ...", or None where it has another form.

    A trailing, empty "\n\nAssistant:" is the request to answer, and no message.

    >>> parse_marks("\n\nHuman: Hello!\n\nAssistant:")
    (Message(role='user', content='Hello!'),)
    """
    pieces = MARK.split(text)
    if len(pieces) < 3 or pieces[0].strip() or not text.lstrip("\n").startswith(("Human:", "Assistant:")):
        return None
    turns = [Message(ROLES[role], content.strip()) for role, content in zip(pieces[1::2], pieces[2::2], strict=True)]
    if turns[-1] == Message("assistant", ""):
        turns.pop()
    return tuple(turns)


def common_beginning(first: str, second: str) -> int:
    """Length of the longest shared beginning that cuts no word of either text in two."""
    pairs = zip(first, second, strict=False)
    shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    while shared and any(
        shared < len(text) and text[shared - 1].isalnum() and text[shared].isalnum() for text in (first, second)
    ):
        shared -= 1
    while shared and first[shared - 1].isspace():  # the blank belongs to the word that follows it
        shared -= 1
    return shared
