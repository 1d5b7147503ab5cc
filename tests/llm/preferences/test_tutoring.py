"""The conversations that are installed with the package."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files


def test_shipped_conversations_are_well_formed() -> None:
    text = files("cvxrelu_llm").joinpath("data", "tutoring.jsonl").read_text(encoding="utf-8")
    conversations = [json.loads(line) for line in text.splitlines()]
    assert len(conversations) >= 40 and len({c["id"] for c in conversations}) == len(conversations)
    assert len({c["subject"] for c in conversations}) >= 8
    lengths: Counter[int] = Counter()
    for conversation in conversations:
        assert sorted(conversation) == ["id", "messages", "subject"]
        roles = [message["role"] for message in conversation["messages"]]
        assert roles == (["student", "tutor"] * 4)[: len(roles)] and 4 <= len(roles) <= 8, conversation["id"]
        lengths[len(roles)] += 1
        for message in conversation["messages"]:
            assert sorted(message) == ["content", "role"] and message["content"] == message["content"].strip() != ""
    assert len(lengths) >= 3
    contents = [message["content"] for c in conversations for message in c["messages"]]
    assert len(set(contents)) > 0.98 * len(contents)
