"""The docs build as a site without a warning, every page in it; the citation names the version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_citation_is_of_this_version() -> None:
    import cvxrelu

    assert f"\nversion: {cvxrelu.__version__}\n" in (DOCS.parent / "CITATION.cff").read_text()


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in DOCS.glob("*.md")} <= made
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'href="comparison.html"' in index and "toctree-l1" in index
