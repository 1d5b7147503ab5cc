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

from cvxrelu.reports.effect_plots import draw_effects, plot_changes
from cvxrelu.reports.effects import Effects
from cvxrelu.reports.environment import machine, versions
from cvxrelu.reports.plots import draw_plots
from cvxrelu.reports.prediction_plots import draw_predictions
from cvxrelu.runs.solution import Certificate, Solution
from cvxrelu.runs.status import relative_gap
from cvxrelu.support.files import atomic_write
from cvxrelu.support.pages.html_page import document, facts, figures, table
from cvxrelu.support.pages.svg import load_matplotlib, number, percent

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
    score_caption : of the score table; by default it names `rows`.
    target : what is predicted, with its unit, for the axes.
    effects : of the columns on the prediction; None leaves them out.
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
    score_caption: str = ""
    target: str = ""
    effects: Effects | None = None


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
    first = f"<p>{html.escape(intro)}</p>\n" if intro else ""
    return atomic_write(path, document(title, f"{first}{''.join(parts)}{_reading(sections)}", facts(foot)))


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
    told = {
        f"Status of {'(N)' if settings.get('refine') else '(S)'}": f"{solution.status.value}: {solution.message}",
        "Problem": f"{settings.get('n')} rows, {settings.get('d')} features, outputs: {settings.get('c')}, "
        f"{settings.get('loss', 'squared')} loss, beta {number(settings.get('beta', '?'), 4)}",
        "Bound on (N)": _certificate_words(solution.certificate),
        "Proof beside it": "" if section.proof is None else _certificate_words(section.proof),
        "Network": f"{solution.network.n_neurons} neurons",
        "Run": _run_words(solution),
    }
    told = {name: words for name, words in told.items() if words}
    description = f"<p>{html.escape(section.description)}</p>" if section.description else ""
    scores = table(section.scores, section.score_caption or f"Scores on the {section.rows}") if section.scores else ""
    note = f'<p class="note">{html.escape(section.score_note)}</p>' if section.score_note else ""
    good = "good" if solution.success else "bad"
    solved = figures(draw_plots(solution, f"s{position}", section.proof))
    return (
        f'<section class="{good}"><h2>{html.escape(section.name)}</h2>{description}{scores}{note}'
        f"{_predictions(section, position)}<h3>How well the problem was solved</h3>"
        f"{facts(told, 'status')}{table(_bounds(section), 'Objective and bounds')}{solved}</section>\n"
    )


def _predictions(section: Section, position: int) -> str:
    """The predictions beside the truth, and what each column does to them."""
    plots, effects, prefix = [], section.effects, f"s{position}"
    if section.truth is not None and section.predictions is not None:
        plots.append(draw_predictions(
            section.truth, section.predictions, classes=section.classes, rows=section.rows, target=section.target,
            prefix=f"{prefix}p",
        ))  # fmt: skip
    if effects is None or not effects.changes:
        return figures(plots)
    if not effects.drawn:
        words = "No column changes the prediction: it is the same for every row."
        return f"{figures(plots)}<p>{words}</p>"
    if len(effects.changes) > 1:
        plots.append(plot_changes(effects, f"{prefix}w"))
    small = draw_effects(effects, f"{prefix}x")
    words = (
        f"The average prediction over {effects.rows} training rows, were the value of this column the same in all of "
        "them and the others as they are. All charts have the same scale of the prediction"
        + ("; ticks on the axis of a number are the tenths of the rows. " if _has_numbers(effects) else ". ")
        + "They say what the network does, not what causes what."
    )
    return (
        f'{figures(plots)}<h3>What each column does to the prediction</h3><p class="note">{words}</p>'
        f"{figures(small, 'small')}"
    )


def _has_numbers(effects: Effects) -> bool:
    return any(each.column.kind != "category" for each in effects.drawn)


def _seconds(solution: Solution) -> str:
    total = solution.timings.get("total", float(np.sum(list(solution.timings.values()))))
    return f"{total:.3g} s"
