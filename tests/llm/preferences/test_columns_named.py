"""A file with other columns is told which there are."""

from __future__ import annotations

import pytest

from cvxrelu.support.errors import InputError
from cvxrelu_llm.preferences.triples import load_triples


def test_other_columns_are_named() -> None:
    rows = [{"question": "Hi?", "good": "yes", "bad": "no"}]
    with pytest.raises(InputError, match=r"'chosen': missing; there are 'question', 'good', 'bad'.*--columns chosen"):
        load_triples(rows)
    names = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    assert load_triples(rows, columns=names)[0].chosen == "yes"


def test_an_empty_field_is_not_another_name() -> None:
    with pytest.raises(InputError, match=r"'chosen': missing$"):
        load_triples([{"prompt": "Hi?", "chosen": None, "rejected": "no"}])
