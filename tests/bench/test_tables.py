"""The messy files of bench.tables are read by the command line, and its tables say what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from bench.tables import run
from bench.tables.files import FILES, write
from cvxrelu.command_line.data import load_data


@pytest.mark.parametrize("name", FILES)
def test_the_command_line_reads_every_file(name, tmp_path):
    """Rows and target arrive whole, without an option."""
    kind = FILES[name]
    train, new, truth = write(name, 0, tmp_path, 200)
    data = load_data(str(train), kind.target)
    X = data.planned(np.arange(200)).X
    assert X.shape[0] == 200 and np.isfinite(X).all() and len(truth) == 200
    assert len(new.read_text(encoding=kind.encoding).strip().splitlines()) == 200 + kind.header
    assert (truth.dtype.kind == "f") == (kind.task == "regression")


def test_files_come_from_their_seed(tmp_path):
    for name in FILES:
        first, other = (write(name, seed, tmp_path, 30)[0].read_bytes() for seed in (0, 1))
        assert first == write(name, 0, tmp_path, 30)[0].read_bytes() != other


def test_scores():
    assert run.score(np.array([1.0, 3.0]), ["1", "3.0"], "missing") == 1.0
    assert run.score(np.array([1.0, 3.0]), ["2", "2"], "missing") == 0.0
    assert run.score(np.array(["Y", "N", "N", "N"]), ["N", "N", "N", "N"], "letters") == 0.75
    assert run.score(np.array(["sold", "open", "open"]), ["open", "open", "open"], "rare") == 0.5


def test_one_cell_through_the_command_line():
    cell = run.once("pipes", "cvxrelu", 0, 80)
    assert "error" not in cell and cell["score"] > 0.3 and cell["processor"] > 0


def test_an_error_is_kept(monkeypatch):
    monkeypatch.setattr(run, "call", lambda command, folder: "ValueError: no | such")
    cell = run.once("money", "trees", 0, 20)
    assert cell["error"] and "score" not in cell
    text = run.tables([cell, {"file": "money", "way": "cvxrelu", "seed": 0, "processor": 2.0, "score": 0.5}])
    assert "| 0.50 (0.50 to 0.50) |  | error |" in text and "money, scikit-learn" in text


def test_the_pipeline_reads_what_is_mended(tmp_path):
    pytest.importorskip("pandas", reason="needs pandas: pip install 'cvxrelu[bench]'")
    for name in ("money", "decimal commas", "pipes", "no header"):
        assert run.once(name, "trees, mended", 0, 80)["score"] > 0.2, name
