"""docs/generation.md and docs/survey.md: blocks that need a language model run on a tiny one, commands parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from tiny_lm import make_lm, make_tokenizer

pytest.importorskip("transformers", reason="needs transformers: pip install 'cvxrelu[llm]'")

from cvxrelu_llm.command_line.main import build_parser, parse

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def test_examples_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = np.random.default_rng(0).standard_normal(16)
    names = {"lm": make_lm(), "tokenizer": make_tokenizer(), "head": lambda features: features @ head}
    code = [text for text in blocks(root / "docs" / "generation.md", "text") if text.startswith(("from ", "import "))]
    assert len(code) >= 5
    for text in code:
        exec(compile(text, "generation.md", "exec"), names)
    assert (tmp_path / "talks.jsonl").exists()


def test_commands_parse_and_options_are_known(root: Path) -> None:
    seen = set()
    for page in ("generation.md", "survey.md"):
        for block in blocks(root / "docs" / page, "sh"):
            for line in block.splitlines():
                program, *words = shlex.split(line)
                assert program == "cvxrelu-llm"
                seen.add(parse(words).command)
    pages = {"generation.md": ("generate", "simulate"), "survey.md": ("survey build", "survey score")}
    parsers = build_parser()[1]
    for page, names in pages.items():
        text = (root / "docs" / page).read_text(encoding="utf-8")
        flags = {flag for name in names for action in parsers[name]._actions for flag in action.option_strings}
        assert not {flag for flag in flags if flag.startswith("--") and f"`{flag}`" not in text} - {"--help"}, page
    assert seen == {name for names in pages.values() for name in names}
