"""`cvxrelu-llm doctor`: it says what is there, and notices states that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers")

from cvxrelu_llm.command_line.main import main
from cvxrelu_llm.features import check


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"transformers {check.packages()['transformers']}" in said and "are what transformers computes" in said


def test_wrong_states_are_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = check.embed
    monkeypatch.setattr(check, "embed", lambda *a, **k: np.asarray(right(*a, **k)) * 1.01)
    assert main(["doctor"]) == 3
    assert "differ from those of transformers by" in capsys.readouterr().err
