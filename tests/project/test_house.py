"""The structure of the packages: import contracts hold, no circles, nothing grows beyond what can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import house


@pytest.fixture(scope="module", params=house.PACKAGES)
def figures(request: pytest.FixtureRequest, root: Path) -> house.Figures:
    return house.measure(root, request.param)


def test_import_contracts_hold(root: Path) -> None:
    """`lint-imports` reads them from pyproject.toml; `make lint` runs it too."""
    pytest.importorskip("importlinter", reason="needs import-linter: pip install import-linter")
    code = "import sys; from importlinter.cli import lint_imports_command as main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_circles_and_no_arrow_upward(figures: house.Figures) -> None:
    assert figures.circles == []
    assert figures.upward == []


def test_nothing_is_too_large(figures: house.Figures) -> None:
    limits = house.LIMITS
    assert figures.files_directly <= limits["in a package"]
    assert figures.files_in_largest_room[0] <= limits["in a room"], figures.files_in_largest_room
    assert figures.longest_file[0] <= limits["file"], figures.longest_file
    assert figures.longest_body[0] <= limits["body"], figures.longest_body
    assert figures.most_positional[0] <= limits["positional"], figures.most_positional


def test_a_circle_and_an_arrow_upward_are_seen(tmp_path: Path) -> None:
    """The measure itself, on a package of three rooms with one fault of each kind."""
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.importlinter.contracts]]\ntype = "layers"\ncontainers = ["p"]\nlayers = ["top", "low | side"]\n'
    )
    files = {
        "p/__init__.py": "",
        "p/top/__init__.py": "",
        "p/top/a.py": "from p.low import b\n",
        "p/low/__init__.py": "",
        "p/low/b.py": "from p.low.c import f\n",
        "p/low/c.py": "import p.low.b\nfrom p.side.d import g\n\n\ndef f():\n    return 1\n",
        "p/side/__init__.py": "",
        "p/side/d.py": "class g:\n    def __init__(self, a, b, c):\n        pass\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = house.measure(tmp_path, "p")
    assert found.circles == [["p.low.b", "p.low.c"]]
    assert found.upward == ["p.low.c -> p.side.d"]
    assert found.floors == 3 and found.most_positional == (3, "p.side.d.g")
