"""What all pages share: one HTML document that needs nothing but a browser, its style, tables, facts and figures.

No script and no network: the policy in its head forbids both. Light or dark as the reader's system is; on a narrow
screen the page fits, and a wide table scrolls in its own box. All texts are plain, and escaped here.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from cvxrelu.support.pages.svg import Plot, number

__all__ = ["document", "facts", "figures", "table"]


def document(title: str, body: str, foot: str = "") -> str:
    """The page: `title` is plain text, `body` and `foot` are HTML."""
    below = f"<footer>{foot}</footer>\n" if foot else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}</main>\n{below}</body>\n</html>\n"
    )


def table(rows: Sequence[Mapping[str, object]], caption: str = "", digits: int = 6) -> str:
    """An HTML table; every name and every cell is escaped, numbers are aligned on the right.

    rows : from column to value; the columns are those of all rows, in the order in which they first come.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numbers = {name for name in columns if isinstance(rows[0].get(name), int | float | np.number)}
    right = {name: ' class="number"' if name in numbers else "" for name in columns}
    head = "".join(f'<th scope="col"{right[name]}>{html.escape(name)}</th>' for name in columns)
    body = ""
    for row in rows:
        first, *rest = (html.escape(number(row.get(name, ""), digits)) for name in columns)
        cells = "".join(f"<td{right[name]}>{text}</td>" for name, text in zip(columns[1:], rest, strict=True))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    words, label = "", ""
    if caption:  # not a <caption>, which would scroll with the table and be cut off where it is longer than the box
        words, label = (
            f'<p class="caption">{html.escape(caption)}</p>',
            f' role="region" aria-label="{html.escape(caption)}"',
        )
    # A box that scrolls must be reached from the keyboard.
    return (
        f'{words}<div class="scroll" tabindex="0"{label}><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(found: Mapping[str, str], kind: str = "") -> str:
    """Names and words as a list; `kind` "status" shows the first of them as what counts."""
    words = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in found.items())
    return f'<dl class="{kind}">{words}</dl>' if kind else f"<dl>{words}</dl>"


def figures(plots: Sequence[Plot], kind: str = "") -> str:
    """Drawings side by side, each with its heading and caption; `kind` "small" puts more into a row."""
    shown = ""
    for name, svg, alt, caption in plots:
        label = f'role="img" aria-label="{html.escape(alt)}"'
        heading = f'<h3 title="{html.escape(name)}">{html.escape(name)}</h3>' if name else ""  # a long one is cut
        below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        shown += f"<figure>{heading}{svg.replace('<svg ', f'<svg {label} ', 1)}{below}</figure>"
    return f'<div class="{f"plots {kind}".strip()}">{shown}</div>' if shown else ""


_CSS = """
:root { color-scheme: light dark; --page: #fdfdfb; --ink: #1c2024; --soft: #6b737b; --line: #dcdfe2; --card: #f4f5f3;
  --blue: #0072b2; --orange: #d55e00; --green: #00805c; --purple: #a9467f; }
@media (prefers-color-scheme: dark) { :root { --page: #15181b; --ink: #e6e8ea; --soft: #98a1a9; --line: #343a40;
  --card: #1d2125; --blue: #56b4e9; --orange: #f0a33c; --green: #2cc295; --purple: #dc95bd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
main, footer { max-width: 66rem; margin: 0 auto; padding: 1rem 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.2rem 0 .6rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .4rem; padding-top: 1rem; border-top: 2px solid var(--ink); }
h3 { font-size: 1rem; margin: 0 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
section > h3 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
.programs { margin-top: 2.4rem; background: var(--card); border-radius: .4rem; padding: .6rem 1rem; }
.programs summary { font-weight: 600; cursor: pointer; }
.n { color: var(--orange); } .s { color: var(--blue); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .8rem 0; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; }
dl.status > dd:first-of-type { font-weight: 600; }
.good dl.status > dd:first-of-type::before { content: "\\2713\\00a0"; color: var(--green); }
.bad dl.status > dd:first-of-type::before { content: "!\\00a0"; color: var(--orange); }
.scroll { overflow-x: auto; margin: 1.1rem 0 .4rem; }
table { border-collapse: collapse; font-size: .94rem; }
.caption { font-weight: 600; margin: 1.1rem 0 -.8rem; }
th, td { text-align: left; padding: .32rem 1.1rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { white-space: nowrap; } thead th { color: var(--soft); font-weight: 500; } tbody th { font-weight: 600; }
.number { text-align: right; white-space: nowrap; } td:not(.number) { min-width: 7rem; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 1.8rem 2.2rem;
  margin-top: 1.6rem; }
figure { margin: 0; min-width: 0; } figure svg { width: 100%; height: auto; display: block; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.small h3 { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
.texts table { width: 100%; table-layout: fixed; min-width: 40rem; } .texts td { white-space: pre-wrap; }
.texts th { white-space: normal; } .texts tbody th { font-weight: 400; } .texts th:first-child { width: 20%; }
svg .hover circle { fill: transparent; } svg .hover circle:hover { fill: var(--ink); fill-opacity: .3; }
svg .named:hover { opacity: .7; }
svg text { font-family: inherit !important; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; }
@media (max-width: 34rem) { table { font-size: .84rem; } th, td { padding-right: .7rem; }
  thead th, thead th.number { white-space: normal; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { section { break-inside: auto; } figure { break-inside: avoid; } }
"""
