"""The docs as a site: `make docs`, or `sphinx-build -W docs site`, of the pages as they are in the repository."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

project, author = "cvxrelu", "The cvxrelu authors"
release = version = version_of("cvxrelu")
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme, html_title = "furo", f"cvxrelu {version}"
html_show_copyright = False  # there is nothing behind the sign but the licence, which is in the repository
html_theme_options = {"top_of_page_buttons": []}
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
suppress_warnings = ["misc.highlighting_failure"]

PAGE = re.compile(r"\]\(([\w-]+)\.md\)")  # of the tables in index.md, whose order is that of the site
SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.MULTILINE)
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")  # of the repository, which the site is no part of


def as_site(app: Any, name: str, source: list[str]) -> None:
    """The index gets a table of contents for each section; links to files of the repository become plain words."""
    source[0] = OUTSIDE.sub(r"\1", source[0])
    if name == "index":
        trees = [(title, list(dict.fromkeys(PAGE.findall(text)))) for title, text in SECTION.findall(source[0])]
        there = {path.stem for path in Path(app.srcdir).glob("*.md")} - {"index"}
        if missing := sorted(there - {page for _, pages in trees for page in pages}):
            raise ValueError(f"docs/index.md names no {', '.join(missing)}")
        for title, pages in trees:
            if title != "Terms":
                source[0] += "\n".join(["\n\n```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```", ""])


def setup(app: Any) -> None:
    app.connect("source-read", as_site)
