"""The end of a turn in a chat template ends a text, whether or not it is the end-of-text token."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")

import transformers
from tiny_models import write_model

from cvxrelu_llm.generation.decoding import end_tokens
from cvxrelu_llm.models.templates import turn_end

MARKED = "{% for m in messages %}{{ m['content'] }}<|turn_over|>\n{% endfor %}"


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    write_model(tmp_path, "Llama")
    return transformers.AutoTokenizer.from_pretrained(tmp_path)


def test_a_special_mark_that_is_not_the_end_of_text(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn_over|>"]})
    tokenizer.chat_template = MARKED
    mark = tokenizer.convert_tokens_to_ids("<|turn_over|>")
    assert turn_end(tokenizer) == mark != tokenizer.eos_token_id
    lm = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[5]))
    assert end_tokens(lm, tokenizer) == {5, tokenizer.eos_token_id, mark}


@pytest.mark.parametrize("template", [
    MARKED,  # no special token here: it would be cut into pieces that also stand in texts
    "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "{{ raise_exception('a system message is wanted') }}",
    None,
])  # fmt: skip
def test_what_has_no_such_mark(tokenizer: Any, template: str | None) -> None:
    tokenizer.chat_template = template
    assert turn_end(tokenizer) is None
