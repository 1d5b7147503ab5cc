"""Blind surveys: a static page to vote on, and win rates out of the votes.

`build_survey` writes a page that shows every prompt with the answers of all models, unlabelled and in random order, and
a key that says which was whose. The page holds texts, an id, and a digest of the key with a secret salt, from which
nothing can be read off; the key stays with whoever made the survey. A rater picks the best answer, or none ("no
difference"), and sends back the file that the page exports.

The same order on every copy of a page: whoever wants several makes several pages, with a key each.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from cvxrelu.support.checks import as_seed
from cvxrelu.support.files import atomic_write, new_files
from cvxrelu.support.stored import parse_json, read_text, short
from cvxrelu.support.values import clean_text, plain

__all__ = ["FORMAT", "build_survey", "order_digest", "read_answers", "read_lines"]

TITLE = "Which answer is best?"
INTRO = "Read each question and the answers below it, and choose the best one. The order is random on every question."
FORMAT = "cvxrelu survey 1"


def build_survey(
    items: Iterable[Mapping[str, Any]],
    page: str | os.PathLike[str],
    key: str | os.PathLike[str],
    *,
    title: str = TITLE,
    intro: str = INTRO,
    seed: int | None = None,
    overwrite: bool = True,
) -> dict[str, Any]:
    """Write the page and its key.

    Parameters
    ----------
    items : one mapping per prompt: "prompt", a text or chat messages, and "answers", {model: text}, the same models
        everywhere, at least two and at most nine. See `read_answers`.
    page, key : the files to write; existing ones are replaced, unless `overwrite` is False. Keep the key from
        the raters.
    title, intro : plain text, above the questions.
    seed : of the order; None draws one that nobody knows. Whoever knows a seed knows the order.

    Returns
    -------
    The key: {"format", "survey", "salt", "digest", "models", "order": {item id: [models in the order shown]},
    "prompts"}.

    Raises
    ------
    ValueError : an item lacks something, or models differ between items.
    """
    checked = [_item(i, item) for i, item in enumerate(items, start=1)]
    if not checked:
        raise ValueError("items must hold at least one prompt, got none")
    models = sorted(checked[0][1])
    if not 2 <= len(models) <= 9:
        raise ValueError(f"items must compare two to nine models, got {len(models)}: {', '.join(models)}")
    for i, (_, answers) in enumerate(checked, start=1):
        if sorted(answers) != models:
            raise ValueError(f"item {i} has answers of {sorted(answers)}, but item 1 of {models}")
    if os.path.abspath(page) == os.path.abspath(key):
        raise ValueError(f"page and key must be two files, got {os.fspath(page)!r} for both")
    rng = np.random.default_rng(None if seed is None else as_seed(seed))
    survey, salt = secrets.token_hex(6), secrets.token_hex(16)
    order, shown = {}, []
    for number, row in enumerate(rng.permutation(len(checked)).tolist(), start=1):
        prompt, answers = checked[row]
        names = [models[k] for k in rng.permutation(len(models))]
        order[f"q{number}"] = names
        shown.append({"id": f"q{number}", "prompt": prompt, "answers": [answers[name] for name in names]})
    prompts = {item["id"]: item["prompt"] for item in shown}
    record = {"format": FORMAT, "survey": survey, "salt": salt, "models": models, "order": order, "prompts": prompts}
    record["digest"] = order_digest(salt, order)
    data = {"format": FORMAT, "survey": survey, "digest": record["digest"], "title": clean_text(title)}
    data["intro"] = clean_text(intro)
    with new_files(page, key, overwrite=overwrite) as (page_file, key_file):
        atomic_write(key_file, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        atomic_write(page_file, _page({**data, "items": shown}))
    return record


def _item(number: int, item: Mapping[str, Any]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The messages and the answers of an item."""
    prompt, answers = item.get("prompt"), item.get("answers")
    if isinstance(prompt, str):
        prompt = [{"role": "", "content": prompt}]
    if not isinstance(prompt, list) or not _are_messages(prompt):
        raise ValueError(f"item {number}: prompt must be a text or a list of messages, got {short(prompt)}")
    if not isinstance(answers, Mapping) or not all(isinstance(text, str) for text in answers.values()):
        raise ValueError(f"item {number}: answers must map models to texts, got {short(answers)}")
    messages = [
        {"role": clean_text(str(message.get("role", ""))), "content": clean_text(str(message["content"]))}
        for message in prompt
    ]
    return messages, {clean_text(str(name)): clean_text(text) for name, text in answers.items()}


def order_digest(salt: str, order: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of salt and order. Without the salt no order can be tried."""
    text = json.dumps(order, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()


def _page(data: Mapping[str, Any]) -> str:
    """The template with the data in it. `<` is escaped, so that no answer can end the script element it stands in."""
    template = files("cvxrelu_llm").joinpath("survey.html").read_text(encoding="utf-8")
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    head, tail = template.split("@@DATA@@")
    return head + text.replace("\u2029", "\\u2029") + tail


def read_answers(*paths: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Items for `build_survey` out of JSON lines, joined by prompt, in the order of the first file.

    Every line is {"prompt": text or messages, "answers": {model: text}} or {"prompt": ..., "model": name, "text":
    answer}, as `generate` writes it, in one file for all models or one for each. Two answers of one model to one prompt
    are an error.
    """
    items: dict[str, dict[str, Any]] = {}
    for path in paths:
        for place, record in read_lines(path):
            if "prompt" not in record:
                raise ValueError(f"{place}: the field 'prompt' is missing")
            prompt, answers = record["prompt"], record.get("answers")
            if answers is None and isinstance(record.get("model"), str) and "text" in record:
                answers = {record["model"]: record["text"]}
            if not isinstance(answers, dict) or not all(isinstance(text, str) for text in answers.values()):
                raise ValueError(f"{place}: expected 'answers' (an object of texts), or 'model' and 'text'")
            if not isinstance(prompt, str) and not _are_messages(prompt):
                raise ValueError(f"{place}, field 'prompt': expected a text or a list of messages, got {short(prompt)}")
            name = json.dumps(record["prompt"], sort_keys=True)
            item = items.setdefault(name, {"prompt": record["prompt"], "answers": {}})
            if twice := item["answers"].keys() & answers.keys():
                raise ValueError(f"{place}: a second answer of {', '.join(sorted(twice))} to the same prompt")
            item["answers"] |= answers
    return list(items.values())


def read_lines(path: str | os.PathLike[str]) -> list[tuple[str, dict[str, Any]]]:
    """(place, object) for every line of a file of JSON objects; blank lines are skipped."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # other breaks may stand inside JSON's texts
        if line.strip():
            rows.append((f"{os.fspath(path)}, line {number}", plain(parse_json(line, os.fspath(path), number))))
    return rows


def _are_messages(prompt: Any) -> bool:
    """Whether this is a list of messages, each with a text as content."""
    return isinstance(prompt, list) and bool(prompt) and all(
        isinstance(message, Mapping) and isinstance(message.get("content"), str)
        and isinstance(message.get("role", ""), str) for message in prompt
    )  # fmt: skip
