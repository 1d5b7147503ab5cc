"""Chat messages: read from fields of a record, from Anthropic's marked texts, and cut into prompt and response."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cvxrelu.support.errors import InputError
from cvxrelu.support.values import is_missing, parse_json, plain

__all__ = [
    "Message",
    "ToolMessage",
    "answer_text",
    "as_messages",
    "common_beginning",
    "is_conversation",
    "joined_prompt",
    "parse_marks",
    "read_messages",
    "same_text",
    "with_tools",
]

MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):")
BESIDE = ("tool_calls", "tool_call_id", "name", "tools")  # what a chat template shows of a message beside its text
CONTENTS = {"content", "tool_calls"}
ROLES = {"Human": "user", "Assistant": "assistant"}


class Message(NamedTuple):
    """One turn: `role` as chat templates name it ("system", "user", "assistant", ...), and its text."""

    role: str
    content: str

    @property
    def rest(self) -> str:
        """Nothing: messages with more than a text are a `ToolMessage`."""
        return ""


class ToolMessage(Message):
    """A turn with more than its text for the chat template to show: `rest`, JSON of what stands beside it.

    That is `tool_calls`, `tool_call_id` and `name`, and with the first message of a prompt `tools`, the functions that
    the model may call. Passed to the model's template as they are; in plain text the JSON follows the text.
    """

    _rest: str

    def __new__(cls, role: str, content: str, rest: Mapping[str, Any]) -> ToolMessage:
        self = super().__new__(cls, role, content)
        self._rest = json.dumps(rest)
        return self

    @property
    def rest(self) -> str:
        """JSON of what stands beside the text."""
        return self._rest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ToolMessage) and (*self, self.rest) == (*other, other.rest)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((*self, self.rest))

    def __repr__(self) -> str:
        return f"ToolMessage(role={self.role!r}, content={self.content!r}, rest={self.rest})"

    def __reduce__(self) -> Any:
        return ToolMessage, (self.role, self.content, json.loads(self.rest))

    def _asdict(self) -> dict[str, Any]:
        return super()._asdict() | json.loads(self.rest)


def is_conversation(value: Any) -> bool:
    """Whether a plain value is a list of messages, of at least one: what makes a text in a cell a conversation."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(item, Mapping) and "role" in item and item.keys() & CONTENTS for item in value)
    )


def read_messages(value: Any, place: str) -> tuple[Message, ...]:
    """A field of chat messages, [{"role": ..., "content": ...}, ...]; content may also be a list of text parts.

    A message may also hold `tool_calls` (then perhaps no content), `tool_call_id` and `name`; see `ToolMessage`.
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
        rest = {name: item[name] for name in BESIDE if not is_missing(item.get(name)) and item[name] not in ([], "")}
        if rest.get("tool_calls") and is_missing(content):
            content = ""
        if not isinstance(role, str) or not role:
            raise InputError(f"{where}.role: expected text, got {role!r}")
        if isinstance(content, list):
            if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
                raise InputError(f"{where}.content: only parts of text are supported")
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str):
            raise InputError(f"{where}.content: expected text, got {content!r}")
        messages.append(ToolMessage(role, content, rest) if rest else Message(role, content))
    return tuple(messages)


def as_messages(prompt: Any, place: str) -> tuple[Message, ...]:
    """A prompt as messages: a text is one of the user."""
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    if isinstance(prompt, (list, tuple)) and all(isinstance(message, Message) for message in prompt):
        return tuple(prompt)
    return read_messages(prompt, place)


def with_tools(prompt: tuple[Message, ...], tools: Any, place: str) -> tuple[Message, ...]:
    """The prompt with the functions that the model may call: a list of their descriptions, or JSON of one."""
    if is_missing(tools) or tools in ("", []):
        return prompt
    tools = parse_json(tools, place) if isinstance(tools, str) else tools
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise InputError(f"{place}: expected a list of descriptions of functions, got {tools!r}")
    first = prompt[0]
    return (ToolMessage(*first, {**json.loads(first.rest or "{}"), "tools": tools}), *prompt[1:]) if tools else prompt


def answer_text(message: Message, place: str) -> str:
    """What a response says; one that calls tools has no text that all models would write."""
    if "tool_calls" in message._asdict():
        raise InputError(
            f"{place}: a response that calls tools is not supported; give the call as text, as the model writes it"
        )
    return message.content


def same_text(first: Sequence[Message], second: Sequence[Message]) -> bool:
    """Whether two runs of messages are the same but for blanks."""
    both = ([(m.role, m.content.split(), m.rest) for m in messages] for messages in (first, second))
    return next(both) == next(both)


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
