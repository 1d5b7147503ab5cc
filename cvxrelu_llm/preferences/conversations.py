"""Triples out of conversations alone: the tutor's next reply is preferred to the one after it.

For every turn of the student: prompt = the history up to and including it, chosen = the tutor's next reply, rejected =
the tutor's reply after that. A reply that comes too early stands for a poor one: it is fluent and on topic, but answers
something that has not been said yet. The last reply of a conversation is never chosen, since none follows it, and
nothing wraps around to its beginning. This is the alternating population of CVX-DPO and COALA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cvxrelu.support.errors import InputError
from cvxrelu.support.values import is_missing, parse_json, plain
from cvxrelu_llm.preferences.messages import Message, answer_text, read_messages
from cvxrelu_llm.preferences.records import read_records
from cvxrelu_llm.preferences.triples import Triple, Triples, as_triples

__all__ = ["alternate", "merge_runs"]


def alternate(conversations: Any, *, student: str = "student", tutor: str = "tutor", split: str = "train") -> Triples:
    """Build triples from conversations.

    Parameters
    ----------
    conversations : what `load_triples` takes as a source; records with `messages`, a list of messages with role and
        content, and perhaps an `id`. Consecutive messages of one role are one turn, joined by line breaks.
    student, tutor : names of the two roles. "system" may occur before them; any other role is an error.
    split : of a hub data set.

    Returns
    -------
    Triples grouped by conversation, with roles "user" and "assistant". In `counts`: "read" conversations, "turns" of
    students, "merged" messages, "short" turns (with fewer than two replies after them: no triple), "equal" and "empty".

    Examples
    --------
    >>> turns = [("student", "2 + 2?"), ("tutor", "4."), ("student", "And 3 + 3?"), ("tutor", "6.")]
    >>> triples = alternate([{"messages": [{"role": role, "content": text} for role, text in turns]}])
    >>> [(t.prompt[-1].content, t.chosen, t.rejected) for t in triples]
    [('2 + 2?', '4.', '6.')]
    """
    for name, value in (("student", student), ("tutor", tutor)):
        if not isinstance(value, str) or value in ("", "system"):
            raise ValueError(f"{name} must be the name of a role other than 'system', got {value!r}")
    if student == tutor:
        raise ValueError(f"student and tutor must be two roles, got {student!r} for both")
    roles = {student: "user", tutor: "assistant", "system": "system"}
    counts: Counter[str] = Counter(turns=0, merged=0, short=0)
    triples: list[Triple] = []
    n = 0
    for record in read_records(conversations, split=split):
        n += 1
        field = f"{record.place}, field 'messages'"
        value, identity = (plain(record.fields.get(name)) for name in ("messages", "id"))
        if is_missing(value):
            raise InputError(f"{field}: missing")
        messages = read_messages(parse_json(value, field) if isinstance(value, str) else value, field)
        for index, message in enumerate(messages):
            if message.role not in roles:
                raise InputError(f"{field}[{index}].role: expected {student!r} or {tutor!r}, got {message.role!r}")
            answer_text(message, f"{field}[{index}]")
        turns = merge_runs([Message(roles[role], content) for role, content in messages])
        counts["merged"] += len(messages) - len(turns)
        group = f"conversation {n}" if is_missing(identity) else str(identity)
        for index, turn in enumerate(turns):
            if turn.role != "user":
                continue
            counts["turns"] += 1
            replies = [later.content for later in turns[index + 1 :] if later.role == "assistant"][:2]
            if len(replies) < 2:
                counts["short"] += 1
                continue
            prompt = tuple(turns[: index + 1])
            chosen, rejected = replies
            triples.append(Triple(prompt, chosen, rejected, group=group, source=f"{record.place}, turn {index}"))
    return as_triples(triples, n, counts, origin=conversations)


def merge_runs(messages: Sequence[Message]) -> list[Message]:
    """Join consecutive messages of one role with line breaks; messages without text vanish.

    >>> merge_runs([Message("user", "Hm."), Message("user", "4?"), Message("assistant", "Yes.")])
    [Message(role='user', content='Hm.\\n4?'), Message(role='assistant', content='Yes.')]
    """
    turns: list[Message] = []
    for message in messages:
        if not message.content.strip():
            continue
        if turns and turns[-1].role == message.role:
            turns[-1] = Message(message.role, f"{turns[-1].content}\n{message.content}")
        else:
            turns.append(message)
    return turns
