"""One HTML file about solved problems: facts, scores, plots. It needs nothing but a browser: no script, no network.

The network program (N) and the sampled program (S) are labelled wherever a number belongs to one of them, and a bound
is called proven or an estimate wherever it stands.
"""

from __future__ import annotations

import datetime
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvxrelu.reports.environment import machine, versions
from cvxrelu.reports.plots import draw_plots
from cvxrelu.reports.svg import load_matplotlib, number, percent
from cvxrelu.runs.solution import Certificate, Solution
from cvxrelu.runs.status import relative_gap
from cvxrelu.support.files import atomic_write

__all__ = ["Section", "write_report"]


@dataclass(frozen=True)
class Section:
    """One solved problem as a report shows it.

    Attributes
    ----------
    name : heading, such as "diabetes".
    solution : what `cvxrelu.solve` returned.
    proof : a rigorous certificate of the same network, shown beside that of the solution; None for none.
    description : a sentence or two on the data and the split.
    scores : rows of the score table, one mapping per model; the columns are the keys of the first row.
    score_note : a sentence under the table (what was tuned, on which rows the scores were taken).
    truth, predictions : (n,) values, or labels out of `classes`, on the rows the last plot shows; None leaves it out.
    classes : the labels, for a classification; None for a regression.
    rows : what those rows are, as the caption names them.
    """

    name: str
    solution: Solution
    description: str = ""
    scores: Sequence[Mapping[str, object]] = ()
    score_note: str = ""
    truth: np.ndarray | None = None
    predictions: np.ndarray | None = None
    classes: Sequence[object] | None = None
    rows: str = "test rows"
    proof: Certificate | None = None


def write_report(
    path: str | os.PathLike[str],
    sections: Iterable[Section],
    *,
    title: str,
    intro: str = "",
    command: str | None = None,
    seed: int | None = None,
) -> Path:
    """Write one self-contained HTML file about the solved problems in `sections`.

    Parameters
    ----------
    path : the file to write; an existing one is replaced, and never left half-written.
    sections : the problems, in the order of the page.
    title, intro : heading and first paragraph. All texts are plain; the report escapes them.
    command, seed : what reproduces the page, for its foot.

    Returns
    -------
    Path of the file.

    Raises
    ------
    ImportError : matplotlib is missing.
    """
    load_matplotlib()  # a missing extra is reported before any drawing starts
    sections = list(sections)
    parts = [_section(section, position) for position, section in enumerate(sections, start=1)]
    foot = {"Made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"), "Machine": machine()}
    foot["Versions"] = ", ".join(f"{name} {version}" for name, version in versions().items())
    foot |= {} if seed is None else {"Seed": str(seed)}
    foot |= {} if command is None else {"Command": command}
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{html.escape(title)}</h1>\n"
        + (f"<p>{html.escape(intro)}</p>\n" if intro else "")
        + f"{''.join(parts)}{_reading(sections)}</main>\n<footer>{_facts(foot)}</footer>\n</body>\n</html>\n"
    )
    return atomic_write(path, page)


# --- text and tables -------------------------------------------------------------------------------------------------

_NETWORK = """<p><b class="n">(N)</b> The <b>network program</b> is the one to be solved: over all two-layer ReLU
networks of any width, loss plus weight decay. Its gap says how far a network can be from the best of them all, as a
share of its own objective.</p>"""
_BOUNDS = """<p>A lower bound is an <b>estimate</b> when it rests on many ascents that look for a neuron with which the
network would improve: had all of them missed one, the true bound would be lower. It is <b>proven</b> when it holds
whatever was computed; a proof that is cheap in any dimension is loose, so a large proven gap need not mean a poor
network.</p>"""
_SAMPLED = """<p><b class="s">(S)</b> The <b>sampled program</b> is convex: each neuron keeps to the cone of one of the
sampled activation patterns. Every solution of (S) is a network, so its objective is an upper bound for (N); a small gap
of (S) says that (S) is solved, and nothing on how far its network is from the best of all networks. The gap of (N) says
that.</p>"""


def _reading(sections: Sequence[Section]) -> str:
    """How to read the page: the programs it speaks of, and the two kinds of bounds."""
    sampled = any(section.solution.sampled is not None for section in sections)
    heading = "Two programs, two gaps" if sampled else "What the gap says"
    words = _NETWORK + (_SAMPLED if sampled else "") + _BOUNDS
    return f'<details class="programs" open><summary>{heading}</summary>\n{words}</details>'


def _table(rows: Sequence[Mapping[str, object]], caption: str) -> str:
    """An HTML table; every name and every cell is escaped, numbers are aligned on the right."""
    columns = list(rows[0])
    right = {name: ' class="number"' if isinstance(rows[0][name], int | float | np.number) else "" for name in columns}
    head = "".join(f'<th scope="col"{right[name]}>{html.escape(name)}</th>' for name in columns)
    body = ""
    for row in rows:
        first, *rest = (html.escape(number(row.get(name, ""))) for name in columns)
        cells = "".join(f"<td{right[name]}>{text}</td>" for name, text in zip(columns[1:], rest, strict=True))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return (
        f'<div class="scroll"><table><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items()) + "</dl>"


def _certificate_words(certificate: Certificate) -> str:
    """The kind of a bound on (N), with "proven" or "estimate" spelled out."""
    if certificate.rigorous:
        # The relaxation is loose: without a word on that, a gap of 90 % reads like a poor network.
        loose = "; loose, so a large gap need not mean a poor network" if certificate.kind == "relaxed" else ""
        return f"{certificate.kind}: proven, it holds whatever was computed{loose}"
    return f"{certificate.kind}: {_estimate(certificate)}, not a proof"


def _estimate(certificate: Certificate) -> str:
    return "an estimate" + ("" if certificate.starts is None else f" from {certificate.starts} ascents")


def _bounds(section: Section) -> list[dict[str, object]]:
    """A row per program and bound."""
    solution, sampled = section.solution, section.solution.sampled
    rows = [
        ("(N) network", solution.objective, each.lower_bound, gap, "proven" if each.rigorous else _estimate(each))
        for each, gap in [
            (solution.certificate, solution.gap),
            *([(section.proof, relative_gap(solution.objective, section.proof.lower_bound))] if section.proof else []),
        ]
    ]
    if sampled is not None:
        rows.append(("(S) sampled", sampled.objective, sampled.lower_bound, sampled.gap, "proven"))
    names = ("Program", "Objective", "Lower bound", "Gap", "Bound is")
    return [dict(zip(names, (*row[:3], percent(row[3]), row[4]), strict=True)) for row in rows]


def _run_words(solution: Solution) -> str:
    """What ran, for how long, and where."""
    stages = [f"{solution.n_iter} iterations of ADMM"] if solution.sampled is not None else []
    if solution.settings.get("refine"):
        stages.append(f"{solution.n_rounds} {'round' if solution.n_rounds == 1 else 'rounds'} of refinement")
    words = " and ".join(stages) or "nothing"
    return f"{words} in {_seconds(solution)} on {solution.backend}, {solution.device}, {solution.dtype}"


def _section(section: Section, position: int) -> str:
    solution, settings = section.solution, section.solution.settings
    facts = {
        f"Status of {'(N)' if settings.get('refine') else '(S)'}": f"{solution.status.value}: {solution.message}",
        "Problem": f"{settings.get('n')} rows, {settings.get('d')} features, outputs: {settings.get('c')}, "
        f"{settings.get('loss', 'squared')} loss, beta {number(settings.get('beta', '?'), 4)}",
        "Bound on (N)": _certificate_words(solution.certificate),
        "Proof beside it": "" if section.proof is None else _certificate_words(section.proof),
        "Network": f"{solution.network.n_neurons} neurons",
        "Run": _run_words(solution),
    }
    facts = {name: words for name, words in facts.items() if words}
    drawings = draw_plots(
        solution,
        section.truth,
        section.predictions,
        classes=section.classes,
        rows=section.rows,
        prefix=f"s{position}",
        proof=section.proof,
    )
    plots = "".join(
        f"<figure><h3>{html.escape(name)}</h3>{svg.replace('<svg ', f'<svg {_label(alt)} ', 1)}"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, svg, alt, caption in drawings
    )
    description = f"<p>{html.escape(section.description)}</p>" if section.description else ""
    scores = _table(section.scores, f"Scores on the {section.rows}") if section.scores else ""
    note = f'<p class="note">{html.escape(section.score_note)}</p>' if section.score_note else ""
    good = "good" if solution.success else "bad"
    return (
        f'<section class="{good}"><h2>{html.escape(section.name)}</h2>{description}{scores}{note}'
        f"{_facts(facts)}{_table(_bounds(section), 'Objective and bounds')}"
        f'<div class="plots">{plots}</div></section>\n'
    )


def _label(alt: str) -> str:
    return f'role="img" aria-label="{html.escape(alt)}"'


def _seconds(solution: Solution) -> str:
    total = solution.timings.get("total", float(np.sum(list(solution.timings.values()))))
    return f"{total:.3g} s"


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
.programs { background: var(--card); border-radius: .4rem; padding: .6rem 1rem; }
.programs summary { font-weight: 600; cursor: pointer; }
.n { color: var(--orange); } .s { color: var(--blue); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .8rem 0; }
dt { color: var(--soft); } dd { margin: 0; min-width: 0; }
section > dl > dd:first-of-type { font-weight: 600; }
.good > dl > dd:first-of-type::before { content: "\\2713\\00a0"; color: var(--green); }
.bad > dl > dd:first-of-type::before { content: "!\\00a0"; color: var(--orange); }
.scroll { overflow-x: auto; margin: 1.1rem 0 .4rem; }
table { border-collapse: collapse; font-size: .94rem; }
caption { text-align: left; white-space: nowrap; font-weight: 600; padding-bottom: .3rem; }
th, td { text-align: left; padding: .32rem 1.1rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { white-space: nowrap; } thead th { color: var(--soft); font-weight: 500; } tbody th { font-weight: 600; }
.number { text-align: right; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 1.8rem 2.2rem;
  margin-top: 1.6rem; }
figure { margin: 0; min-width: 0; } figure svg { width: 100%; height: auto; display: block; }
svg text { font-family: inherit !important; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; }
@media (max-width: 34rem) { table { font-size: .84rem; } th, td { padding-right: .7rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { section { break-inside: auto; } figure { break-inside: avoid; } }
"""
