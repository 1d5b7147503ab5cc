"""`cvxrelu_llm` uses of `cvxrelu` what `cvxrelu` promises to keep: the names in its `__all__`; and its support."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cvxrelu
import cvxrelu_llm

FOLDER = Path(cvxrelu_llm.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))


def uses(tree: ast.AST) -> Iterator[str]:
    """Names of `cvxrelu` that a module takes, `cvxrelu.x.y` counting as "x.y"."""
    aliases = {"cvxrelu"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name == "cvxrelu":
                    aliases.add(name.asname or name.name)
                elif name.name.startswith("cvxrelu."):
                    yield name.name.removeprefix("cvxrelu.")
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            if node.module == "cvxrelu":
                yield from (name.name for name in node.names)
            elif node.module.startswith("cvxrelu."):
                yield node.module.removeprefix("cvxrelu.")
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            yield from (str(w).removeprefix("cvxrelu.") for w in words if str(w).startswith("cvxrelu."))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield node.attr


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_only_public_names(file: Path) -> None:
    taken = set(uses(ast.parse(file.read_text(encoding="utf-8")))) - set(cvxrelu.__all__)
    private = {name for name in taken if name.split(".")[0] != "support"}
    assert not private, f"{file.name} uses {sorted(private)}, which are not in cvxrelu.__all__"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from cvxrelu.reports.plots import draw_plots", {"reports.plots"}),
        ("import cvxrelu.runs.checkpoint", {"runs.checkpoint"}),
        ("import cvxrelu as c\nc.pricing.price()", {"pricing"}),
        ("import importlib\nimportlib.import_module('cvxrelu.api.solve')", {"api.solve"}),
        ("from cvxrelu import losses, solve", {"losses", "solve"}),
        ("from cvxrelu_llm.preferences.triples import Triples\nfrom cvxrelu_llm import triples", set()),
        ("from cvxrelu.support.files import atomic_write", {"support.files"}),
    ],
)
def test_the_check_sees_every_way_to_import(source: str, expected: set[str]) -> None:
    assert set(uses(ast.parse(source))) == expected
    assert "solve" in cvxrelu.__all__ and len(FILES) > 40
