"""The notebooks in examples/notebooks run, cell by cell, and are kept without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples" / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[str]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


@every_notebook
def test_code_cells_run_in_order(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """In one namespace, as a kernel has it; what a cell ends with is shown as a page, as notebooks do."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for k, text in enumerate(cells(path, "code")):
        tree = ast.parse(text)  # no magics: any Python runs these
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{path.name}, code cell {k}", "exec"), namespace)
        if last is not None:
            assert isinstance(last, ast.Expr)
            shown = eval(compile(ast.Expression(last.value), f"{path.name}, code cell {k}", "eval"), namespace)
            if hasattr(shown, "_repr_html_"):
                assert "<table" in shown._repr_html_()
    assert capsys.readouterr().out.strip()


@every_notebook
def test_it_is_a_notebook_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(cell["metadata"] == {} for cell in notebook["cells"])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert cells(path, "markdown")[0].startswith("# ")


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 2
