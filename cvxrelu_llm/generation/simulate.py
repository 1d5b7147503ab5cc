"""Two instances of a language model play student and tutor, to make conversations that `alternate` turns into triples.

Each speaker sees the conversation from its own side: what it said itself as the assistant, what the other said as the
user, after a persona of its own. The student opens. Replies that were cut off lose their last, unfinished sentence.
Replies that are empty, or repeat an earlier message, are drawn again, a few times; then the conversation ends
there, and is dropped if it has fewer than four messages, since no triple can be made of it. Small models make poor
tutors: what comes out is a form to test with, not a standard of teaching.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.support.checks import as_seed, as_whole
from cvxrelu.support.files import atomic_write

__all__ = ["STUDENT", "SUBJECTS", "TUTOR", "Speaker", "simulate", "write_conversations"]

SUBJECTS = (
    "adding fractions",
    "linear equations",
    "the Pythagorean theorem",
    "percentages",
    "probability with dice",
    "Newton's laws of motion",
    "electric circuits",
    "photosynthesis",
    "the water cycle",
    "chemical bonds",
    "plate tectonics",
    "the causes of the First World War",
    "English grammar",
    "writing an essay",
    "supply and demand",
    "loops in Python",
)
STUDENT = (
    "You are a school student who is learning about {subject}. Talk to your tutor in one or two short sentences: ask a "
    "question, try an answer, or say what you do not understand. You make mistakes. Never speak for the tutor."
)
TUTOR = (
    "You are a patient tutor. The subject is {subject}. Reply in two or three short sentences: say what is right, "
    "correct what is wrong, and ask a question that leads the student to the next step. Never speak for the student."
)
OPENING = "Begin: ask your tutor something about {subject}."
SHORTEST = 4  # messages from which one triple can be made
TRIES = 3
MARK = re.compile(r"(?:^|\n)\s*(?:student|tutor|user|assistant)\s*:", re.IGNORECASE)
SENTENCE = re.compile(r"[.!?][\"')]*(?=\s|$)")


@dataclass(frozen=True)
class Speaker:
    """A model and the persona it takes on; `{subject}` in the persona is replaced."""

    lm: Any
    tokenizer: Any
    persona: str


def simulate(
    tutor: Speaker,
    student: Speaker,
    *,
    subjects: Sequence[str] = SUBJECTS,
    n: int = 1,
    turns: int = 6,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = 0.9,
    max_new_tokens: int = 80,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Conversations, one by one: n on each subject.

    Parameters
    ----------
    tutor, student : may share one model. Its chat template is used; without one, a plain transcript.
    subjects : what the conversations are about.
    turns : messages per conversation, at least four, the student's first.
    temperature, top_k, top_p, max_new_tokens : of every reply, as in `sample`.
    seed : every reply has a seed of its own, made from this one.

    Yields
    ------
    {"id", "subject", "messages": [{"role": "student" or "tutor", "content": text}, ...]}, at least four messages.
    """
    turns, n = as_whole("turns", turns, SHORTEST), as_whole("n", n)
    if isinstance(subjects, str) or len(subjects) == 0:
        raise ValueError(f"subjects must be a list of at least one, got {subjects!r}")
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_new_tokens": max_new_tokens}
    return _conversations(
        tutor, student, [subject for subject in subjects for _ in range(n)], turns, options, as_seed(seed)
    )


def _conversations(
    tutor: Speaker, student: Speaker, subjects: list[str], turns: int, options: dict[str, Any], seed: int
) -> Iterator[dict[str, Any]]:
    for number, subject in enumerate(subjects):
        messages: list[dict[str, str]] = []
        for turn in range(turns):
            role, speaker = ("student", student) if turn % 2 == 0 else ("tutor", tutor)
            said = _reply(speaker, role, subject, messages, options, [seed, number, turn])
            if said is None:
                break
            messages.append({"role": role, "content": said})
        if len(messages) >= SHORTEST:
            yield {"id": f"simulated-{seed}-{number}", "subject": subject, "messages": messages}


def _reply(
    speaker: Speaker, role: str, subject: str, messages: list[dict[str, str]], options: dict[str, Any], seed: list[int]
) -> str | None:
    """The next message of `role`, or None where all tries were empty or repetitions."""
    from cvxrelu_llm.generation.decoding import sample

    prompt = _prompt(speaker, role, subject, messages)
    before = {message["content"] for message in messages}
    for attempt in range(TRIES):
        own_seed = int(np.random.SeedSequence([*seed, attempt]).generate_state(1)[0])
        (drawn,) = sample(speaker.lm, speaker.tokenizer, prompt, seed=own_seed, **options)
        said, *beyond = MARK.split(MARK.sub("", drawn.text, count=1) if MARK.match(drawn.text) else drawn.text)
        if not (drawn.finished or beyond) and (ends := list(SENTENCE.finditer(said))):
            said = said[: ends[-1].end()]
        said = said.strip()
        if said and said not in before:
            return said
    return None


def _prompt(speaker: Speaker, role: str, subject: str, messages: list[dict[str, str]]) -> Any:
    """What the speaker reads: chat messages from its own side, as token ids, or a transcript."""
    persona = speaker.persona.replace("{subject}", subject)
    if not getattr(speaker.tokenizer, "chat_template", None):
        lines = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
        return "\n".join([persona, "", *lines, f"{role.capitalize()}:"])
    chat = [{"role": "assistant" if m["role"] == role else "user", "content": m["content"]} for m in messages]
    if role == "student":
        chat.insert(0, {"role": "user", "content": OPENING.replace("{subject}", subject)})
    template = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    try:
        return speaker.tokenizer.apply_chat_template([{"role": "system", "content": persona}, *chat], **template)
    except Exception as error:  # the template's own; some models know no system role
        if type(error).__name__ != "TemplateError":
            raise
        chat[0] = {"role": "user", "content": f"{persona}\n\n{chat[0]['content']}"}
        return speaker.tokenizer.apply_chat_template(chat, **template)


def write_conversations(
    path: str | os.PathLike[str], conversations: Iterable[dict[str, Any]], *, overwrite: bool = True
) -> Path:
    """One JSON object per line, the file as a whole or not at all; without `overwrite` over nothing that is there."""
    lines = [json.dumps(conversation, ensure_ascii=False) + "\n" for conversation in conversations]
    return atomic_write(path, "".join(lines), overwrite=overwrite)
