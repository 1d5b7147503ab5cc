"""README and docs are true: their examples run, their commands parse, their links lead somewhere, nothing is missing.

Fenced blocks in README.md and docs/*.md:

    ```python    runs; the blocks of one file share a namespace, in order, in an empty working folder
    ```output    is what the python block just before it prints, exactly (trailing blanks aside)
    ```sh        each line that starts with `cvxrelu` must be accepted by the command line's parser, and each `make`
                 target must exist; nothing is run, but in docs/tutorial-*.md lines that start with `cvxrelu` or
                 `cvxrelu-llm`, in order with the python blocks and in the same folder, to exit code 0
    ```text      anything else, not looked at
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"python", "output", "sh", "text", "json", "toml"}


class Block(NamedTuple):
    language: str
    body: str
    line: int  # of the first line of the body, from 1


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["info"].strip(), match["body"], text.count("\n", 0, match.start("body")) + 1)
        for match in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The text without fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def stripped(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


# -- examples ---------------------------------------------------------------------------------------------------------
@every_page
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    tutorial = page.name.startswith("tutorial-")
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{named(page)}:{block.line - 1}: fence tagged {block.language!r}"
        if block.language == "python":
            stdout = io.StringIO()
            code = compile("\n" * (block.line - 1) + block.body, str(page), "exec")
            with contextlib.redirect_stdout(stdout):
                exec(code, namespace)
            printed = stdout.getvalue()
        elif block.language == "sh" and tutorial:
            run_commands(block, f"{named(page)}:{block.line}")
        elif block.language == "output":
            assert printed is not None, f"{named(page)}:{block.line}: output without a python block before it"
            assert stripped(printed) == stripped(block.body), f"{named(page)}:{block.line}"
            printed = None


def run_commands(block: Block, place: str) -> None:
    """The lines of a block that are commands of ours; a process each would load PyTorch as often."""
    from cvxrelu.command_line.main import main
    from cvxrelu_llm.command_line.main import main as main_llm

    programs = {"cvxrelu": main, "cvxrelu-llm": main_llm}
    for line in block.body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] in programs:
            stdout, stderr = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                code = programs[words[0]](words[1:])
            assert code == 0, f"{place}: {line}\n{stdout.getvalue()}\n{stderr.getvalue()}"


def modules() -> list[str]:
    package = ROOT / "cvxrelu"
    return [module.name for module in pkgutil.walk_packages([str(package)], "cvxrelu.")]


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith("__main__"):
        pytest.skip("importing it runs it")
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(importlib.import_module(name), optionflags=options).failed == 0


# -- completeness -----------------------------------------------------------------------------------------------------
def code_spans(*names: str) -> str:
    """The text between single backquotes, and the headings, of pages in docs/, one per line."""
    spans = []
    for name in names:
        text = prose(ROOT / "docs" / name)
        spans += re.findall(r"`([^`\n]+)`", text) + re.findall(r"^#+ .*$", text, re.MULTILINE)
    return "\n".join(spans)


def missing(wanted: list[str], spans: str) -> list[str]:
    return [name for name in wanted if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", spans)]


def test_every_public_name_is_documented() -> None:
    import cvxrelu

    assert not missing(list(cvxrelu.__all__), code_spans("api.md"))


def public_objects(kind: Callable[[object], bool]) -> list[tuple[str, Any]]:
    import cvxrelu

    return [(name, value) for name in cvxrelu.__all__ if kind(value := getattr(cvxrelu, name))]


def test_every_keyword_of_a_function_is_documented() -> None:
    spans = code_spans("api.md")
    estimators = [item for item in public_objects(inspect.isclass) if hasattr(item[1], "get_params")]
    for name, function in [*public_objects(inspect.isfunction), *estimators]:
        assert not missing(list(inspect.signature(function).parameters), spans), name


def test_every_field_and_method_of_a_class_is_documented() -> None:
    spans = code_spans("api.md")
    for name, cls in public_objects(inspect.isclass):
        if hasattr(cls, "get_params") or issubclass(cls, Exception):
            continue  # what these have is scikit-learn's and Python's
        public = {key: value for key, value in vars(cls).items() if not key.startswith("_")}
        members = {key for key, value in public.items() if callable(value) or inspect.isdatadescriptor(value)}
        assert not missing(sorted({*getattr(cls, "__dataclass_fields__", ()), *members}), spans), name


def parser() -> argparse.ArgumentParser:
    from cvxrelu.command_line.main import build_parser

    return build_parser()


def subcommands() -> dict[str, argparse.ArgumentParser]:
    return {
        name: sub
        for action in parser()._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, sub in action.choices.items()
    }


def test_every_command_and_option_is_documented() -> None:
    spans = code_spans("cli.md")
    commands = subcommands()
    assert commands
    assert not missing([f"cvxrelu {name}" for name in commands], spans)
    options = {
        option
        for sub in commands.values()
        for action in sub._actions
        for option in action.option_strings
        if option.startswith("--") and action.help != argparse.SUPPRESS
    }
    assert not missing(sorted(options), spans)


@every_page
def test_shell_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for block in blocks(page):
        if block.language != "sh":
            continue
        for line in block.body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            place = f"{named(page)}:{block.line}: {line}"
            if words[:1] == ["make"]:
                wanted = {word for word in words[1:] if "=" not in word}
                assert wanted <= targets, place
            elif words[:1] == ["cvxrelu"]:
                try:
                    parser().parse_args(words[1:])
                except SystemExit as error:
                    assert error.code == 0, place


# -- links ------------------------------------------------------------------------------------------------------------
def anchors(page: Path) -> set[str]:
    """The anchors that the common Markdown renderers give to a page's headings."""
    found: dict[str, int] = {}
    slugs = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        slugs.add(slug if slug not in found else f"{slug}-{found[slug]}")
        found[slug] = found.get(slug, 0) + 1
    return slugs


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{named(page)}: {target}: no such file"
        assert file.is_relative_to(ROOT), f"{named(page)}: {target}: outside the repository"
        if anchor:
            assert anchor in anchors(file), f"{named(page)}: {target}: no such heading"


def test_every_page_is_reachable() -> None:
    """From README.md, by links."""
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        todo += [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if target[0] != "#"]
    assert not set(PAGES) - seen
