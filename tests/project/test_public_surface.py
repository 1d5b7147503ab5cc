"""What others' scripts call is still there: names, parameters, members, commands and options of the version before."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SURFACE = json.loads((Path(__file__).parents[1] / "data" / "surface_0.1.json").read_text())


def parsers() -> dict[str, argparse.ArgumentParser]:
    from cvxrelu.command_line.main import build_parser
    from cvxrelu_llm.command_line.main import build_parser as build_llm_parser

    found: dict[str, argparse.ArgumentParser] = {}

    def walk(parser: argparse.ArgumentParser, name: str) -> None:
        found[name] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, sub in action.choices.items():
                    walk(sub, f"{name} {word}")

    built: Any = build_parser()
    walk(built[0] if isinstance(built, tuple) else built, "cvxrelu")
    built = build_llm_parser()
    walk(built[0] if isinstance(built, tuple) else built, "cvxrelu-llm")
    return found


@pytest.mark.parametrize("name", SURFACE["python"])
def test_public_names(name: str) -> None:
    package, _, short = name.partition(".")
    found, before = getattr(importlib.import_module(package), short), SURFACE["python"][name]
    if before["parameters"] is not None:
        now = inspect.signature(found).parameters
        assert {*before["parameters"]} <= {*now}, set(before["parameters"]) - set(now)
    if "members" in before:
        members = {*dir(found), *getattr(found, "__dataclass_fields__", {}), *getattr(found, "_fields", ())}
        assert {*before["members"]} <= members, set(before["members"]) - members


def test_commands_and_options() -> None:
    now = parsers()
    for command, options in SURFACE["commands"].items():
        assert command in now
        found = {flag for action in now[command]._actions for flag in action.option_strings}
        assert {*options} <= found, f"{command}: {set(options) - found}"


@pytest.mark.parametrize("package", ["cvxrelu", "cvxrelu_llm"])
def test_dir_shows_the_public_names_and_nothing_else(package: str) -> None:
    code = f"import {package} as p; print(*[n for n in dir(p) if not n.startswith('__')], sep='\\n')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(shown) == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", ["cvxrelu", "cvxrelu_llm"])
def test_no_module_bears_the_name_of_a_public_function(package: str) -> None:
    """`import cvxrelu.solve` must not be ambiguous."""
    names = importlib.import_module(package).__all__
    assert [name for name in names if importlib.util.find_spec(f"{package}.{name}") is not None] == []
