"""The structure of the packages in figures: `python -m bench.house [--against REVISION] [--write]`.

Files per folder, floors, circles, arrows upward, the longest file and function body, the most positional arguments of a
constructor, and lines that stand twice; of the checkout, and beside it of another revision. Everything is read from the
code as text: nothing of it is run. The floors that arrows are judged by are those of the import contracts in
`pyproject.toml`, which `make lint` checks too.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import tarfile
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cvxrelu", "cvxrelu_llm", "bench")
RUN = 6  # lines in a row that make a repetition
LIMITS = {"in a package": 8, "in a room": 16, "file": 320, "body": 80, "positional": 5}


class Figures(NamedTuple):
    """Of one package. What is the longest or the most comes with where it is."""

    files_directly: int
    files_in_largest_room: tuple[int, str]
    rooms: int
    floors: int
    circles: list[list[str]]
    upward: list[str]
    longest_file: tuple[int, str]
    longest_body: tuple[int, str]
    most_positional: tuple[int, str]
    repeated_lines: int
    lines: int


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_package(root: Path, package: str) -> dict[str, tuple[Path, str, ast.Module]]:
    """Path, text and syntax tree of every module, by name."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found[module_name(path, root)] = (path, text, ast.parse(text))
    return found


def imported(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """The modules among `known` that a module imports when it runs, not for type checkers alone."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def circles(arrows: set[tuple[str, str]]) -> list[list[str]]:
    """The strongly connected components of more than one module."""
    names = sorted({name for arrow in arrows for name in arrow})
    index = {name: k for k, name in enumerate(names)}
    if not names:
        return []
    ends = np.array([[index[a], index[b]] for a, b in arrows])
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    _, labels = connected_components(graph, connection="strong")
    members = defaultdict(list)
    for name, label in zip(names, labels, strict=True):
        members[label].append(name)
    return [group for group in members.values() if len(group) > 1]


def height(arrows: set[tuple[str, str]], group: dict[str, str]) -> int:
    """Floors that rooms need when each stands above all that it imports; those of a circle share one."""
    above: dict[str, set[str]] = defaultdict(set)
    for a, b in arrows:
        if group[a] != group[b]:
            above[group[a]].add(group[b])
    level: dict[str, int] = {}

    def floor(room: str, path: tuple[str, ...] = ()) -> int:
        if room in path:
            return 0
        if room not in level:
            level[room] = 1 + max((floor(other, (*path, room)) for other in above[room]), default=0)
        return level[room]

    return max((floor(room) for room in sorted({*group.values()})), default=0)


def declared_floors(root: Path) -> dict[str, dict[str, int]]:
    """Floor of every room, by package, as the import contracts have them; empty where there are none."""
    with open(root / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file).get("tool", {}).get("importlinter", {}).get("contracts", [])
    floors = {}
    for contract in contracts:
        if contract["type"] == "layers":
            rows = [row.replace(":", "|").split("|") for row in reversed(contract["layers"])]
            floors[contract["containers"][0]] = {room.strip(): k + 1 for k, row in enumerate(rows) for room in row}
    return floors


def body_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
    return node.end_lineno - body[0].lineno + 1  # type: ignore[operator]


def positional(node: ast.ClassDef) -> int:
    """Positional arguments of the constructor that a class defines, without self; fields of records have names."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return len(item.args.posonlyargs) + len(item.args.args) - 1
    return 0


def repeated(texts: dict[str, str]) -> int:
    """Lines that belong to a run of six or more that stands twice; blank lines, comments and imports do not count."""
    rows = []
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines()):
            code = line.strip()
            if len(code) > 3 and not code.startswith(("#", "import ", "from ", '"""')):
                rows.append((name, number, code))
    places = defaultdict(list)
    for k in range(len(rows) - RUN + 1):
        run = rows[k : k + RUN]
        if run[0][0] == run[-1][0]:
            places[tuple(code for _, _, code in run)].append(k)
    twice = {j for starts in places.values() if len(starts) > 1 for k in starts for j in range(k, k + RUN)}
    return len(twice)


def measure(root: Path, package: str) -> Figures:
    """The figures of one package below a checkout."""
    modules = read_package(root, package)
    arrows = {
        (name, other) for name, (_, _, tree) in modules.items() for other in imported(tree, {*modules}) if other != name
    }
    faces = {name for name, (path, _, _) in modules.items() if path.name == "__init__.py"}
    inner = {(a, b) for a, b in arrows if not {a, b} & faces}
    room = {name: parts[1] if len(parts := name.split(".")) > 2 else name for name in modules}
    floors = declared_floors(root).get(package, {})
    upward = sorted(
        f"{a} -> {b}" for a, b in inner
        if room[a] != room[b] and room[a] in floors and room[b] in floors and floors[room[b]] >= floors[room[a]]
    )  # fmt: skip
    folders = Counter(path.parent for path, _, _ in modules.values() if path.name != "__init__.py")
    top = root / package
    largest = max(((n, str(f.relative_to(root))) for f, n in folders.items() if f != top), default=(0, "-"))
    longest = max((text.count("\n"), str(path.relative_to(root))) for path, text, _ in modules.values())
    bodies, constructors = [(0, "-")], [(0, "-")]
    for name, (_, _, tree) in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                bodies.append((body_length(node), f"{name}.{node.name}"))
            elif isinstance(node, ast.ClassDef):
                constructors.append((positional(node), f"{name}.{node.name}"))
    return Figures(
        folders[top], largest, len([f for f in folders if f != top]), height(inner, room), circles(inner), upward,
        longest, max(bodies), max(constructors), repeated({name: text for name, (_, text, _) in modules.items()}),
        sum(text.count("\n") for _, text, _ in modules.values()),
    )  # fmt: skip


def checkout(revision: str, folder: Path) -> Path:
    """The tree of a revision, in a folder of its own."""
    archive = folder / "tree.tar"
    subprocess.run(["git", "archive", "-o", str(archive), revision], cwd=ROOT, check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "tree", filter="data")
    return folder / "tree"


def table(columns: dict[str, dict[str, Figures]]) -> str:
    """A Markdown table: a row for every figure, a column for every revision and package."""
    heads = [f"{package}, {when}" for package in PACKAGES for when in columns]
    cells: dict[str, list[Any]] = {name: [] for name in Figures._fields}
    for package in PACKAGES:
        for figures in columns.values():
            for name, value in figures[package]._asdict().items():
                if isinstance(value, tuple):
                    value = f"{value[0]} ({value[1]})"
                cells[name].append(len(value) if isinstance(value, list) else value)
    lines = ["| | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 1)]
    lines += [f"| {name.replace('_', ' ')} | " + " | ".join(map(str, row)) + " |" for name, row in cells.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REVISION", help="measure this revision beside the checkout")
    parser.add_argument("--json", action="store_true", help="everything, circles and arrows by name")
    options = parser.parse_args()
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.against:
            old = checkout(options.against, Path(folder))
            columns[options.against] = {package: measure(old, package) for package in PACKAGES}
        columns["now"] = {package: measure(ROOT, package) for package in PACKAGES}
    if options.json:
        print(json.dumps({w: {p: f._asdict() for p, f in found.items()} for w, found in columns.items()}, indent=1))
    else:
        print(table(columns))


if __name__ == "__main__":
    main()
