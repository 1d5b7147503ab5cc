"""One HTML file about a reward head: scores, certificate, margins, path, calibration, layers, texts side by side.

It needs nothing but a browser. All texts are escaped; drawings are SVG inside the page.
"""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from cvxrelu.support.files import atomic_write
from cvxrelu_llm.evaluation.metrics import Evaluation
from cvxrelu_llm.heads.head import ConvexRewardHead

__all__ = ["write_report"]

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#00805c"
STYLE = """
:root { --page: #fdfdfb; --ink: #1c2024; --soft: #5a626a; --line: #dcdfe2; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --page: #15181b; --ink: #e6e8ea; --soft: #a3abb3; --line: #3b4249; } }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
h2 { margin-top: 2.2rem; border-top: 2px solid; padding-top: .8rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); } .wide { overflow-x: auto; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; } figure svg text { fill: currentColor; }
figcaption { color: var(--soft); font-size: .9rem; }
.samples table { width: 100%; table-layout: fixed; min-width: 40rem; } .samples td { white-space: pre-wrap; }
.samples th:first-child { width: 20%; }
"""


def write_report(
    path: str | os.PathLike[str],
    head: ConvexRewardHead,
    evaluation: Evaluation | None = None,
    *,
    title: str = "Reward head",
    intro: str = "",
    sweep: Any = None,
    samples: Sequence[Mapping[str, Any]] = (),
    comparison: Sequence[Mapping[str, Any]] = (),
    frontier: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page.

    Parameters
    ----------
    path : the file; an existing one is replaced, as a whole.
    evaluation : of held-out pairs; None leaves out what needs it.
    sweep : of layers and poolings, `PairFeatures.sweep`; None leaves its plot out.
    samples : mappings with `prompt` and, under any other names, one text each: shown side by side.
    comparison : rows of a table of models, mappings from column to value.
    frontier : ways of writing, mappings with `way`, `nats`, `share` (judged good) and `error` of that share: drawn, and
        as a table.

    Raises
    ------
    ImportError : matplotlib is missing.
    """
    _matplotlib()
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(intro)}</p>" if intro else ""]
    if frontier:
        shown = [{"way": row["way"], "judged good": f"{row['share']:.0%} ± {row['error']:.0%}",
                  "divergence from plain sampling": f"{row['nats']:.1f} nats a text"} for row in frontier]  # fmt: skip
        parts += ["<h2>Guided texts, judged</h2>", _table(shown)]
    if evaluation is not None:
        parts += ["<h2>Held-out pairs</h2>", _metrics(evaluation)]
        if evaluation.abstention:
            parts += ["<h3>With abstention</h3>", _table(evaluation.abstention)]
    if comparison:
        parts += ["<h2>Beside other models</h2>", _table(comparison)]
    parts += ["<h2>Fit and certificate</h2>", _summary(head)]
    nature = "is proven" if head.certificate["rigorous"] else "is an estimate: an ascent may have missed a neuron"
    parts.append(
        f"<p>The lower bound {nature}. It speaks of the training objective of the "
        f"{head.certificate['program']}, not of how well preferences are predicted.</p>"
    )
    plots = [*_frontier(frontier), *_plots(head, evaluation, sweep)]
    if plots:
        figures = "".join(
            f'<figure role="img" aria-label="{html.escape(words)}">{svg}<figcaption>{html.escape(words)}</figcaption>'
            "</figure>"
            for svg, words in plots
        )
        parts += ["<h2>Plots</h2>", f'<div class="plots">{figures}</div>']
    if samples:
        parts += ["<h2>Texts side by side</h2>", '<div class="samples">', _table(samples), "</div>"]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>\n'
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )
    return atomic_write(path, page.encode())


def _summary(head: ConvexRewardHead) -> str:
    """The lines of `head.summary()`, which begin with what each is about, as a table."""
    lines = [re.split(r"\s{2,}", line, maxsplit=1) for line in head.summary().splitlines()]
    body = "".join(f"<tr><th>{html.escape(line[0])}</th><td>{html.escape(line[-1])}</td></tr>" for line in lines)
    return f'<div class="wide"><table><tbody>{body}</tbody></table></div>'


def _frontier(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What the judge says against what it costs; a drawing where there is anything to draw."""
    if not rows:
        return []

    def draw(axes: Any) -> None:
        for i, row in enumerate(rows):
            axes.errorbar(row["nats"], row["share"], row["error"], fmt="osD^v<>p"[i % 8], capsize=2, label=row["way"],
                          color=(BLUE, ORANGE, GREEN)[i % 3])  # fmt: skip
        axes.set(xlabel="divergence from plain sampling, nats a text", ylabel="share judged good", ylim=(-0.02, 1.05))
        axes.legend(frameon=False)

    return [
        (_svg(draw, "f"), "What the judge says of texts, and how far they are from the model's own; 95 % intervals.")
    ]


def _metrics(evaluation: Evaluation) -> str:
    rows: list[Mapping[str, Any]] = [
        {"metric": name, "value": metric.value, f"{evaluation.level:.0%} interval": _interval(metric)}
        for name, metric in [
            *evaluation.metrics.items(),
            *((f"accuracy, {k}", v) for k, v in evaluation.subsets.items()),
        ]
    ]
    words = f"{evaluation.n_pairs} pairs in {evaluation.n_groups} groups; intervals draw whole groups."
    return f"<p>{words}</p>" + _table(rows)


def _interval(metric: Any) -> str:
    return f"{metric.low:.4f} to {metric.high:.4f}" if np.isfinite(metric.low) else ""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(row.get(name, '')))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _plots(head: ConvexRewardHead, evaluation: Evaluation | None, sweep: Any) -> list[tuple[str, str]]:
    """(SVG, words) of every drawing there are data for."""
    plots = []
    if evaluation is not None:
        margins = evaluation.margins
        wrong = float(np.mean(margins <= 0))

        def histogram(axes: Any) -> None:
            edges = np.histogram_bin_edges(margins, bins=min(30, 4 + len(margins) // 4))
            axes.hist(margins[margins > 0], bins=edges, color=BLUE, label="right")
            axes.hist(margins[margins <= 0], bins=edges, color=ORANGE, label="wrong")
            axes.set(xlabel="reward of chosen minus rejected", ylabel="pairs")
            axes.yaxis.get_major_locator().set_params(integer=True)
            axes.legend(frameon=False)

        plots.append((_svg(histogram, "m"), f"Margins of held-out pairs; {wrong:.1%} are not positive."))
        words = f"Accuracy by confidence, at temperature {head.temperature:.3g}; on the line is calibrated."
        plots.append((_svg(lambda axes: _reliability(axes, margins / head.temperature), "c"), words))
    network = [point for point in head.choice.points if point.kind == "network"]
    linear = [point for point in head.choice.points if point.kind != "network"]
    if linear:

        def ridge(axes: Any) -> None:
            axes.errorbar([p.skip_l2 for p in linear], [p.loss for p in linear], [p.error for p in linear],
                          color=GREEN, marker="o", markersize=4)  # fmt: skip
            axes.axvline(head.choice.skip_l2, color="#888", linewidth=1)
            axes.set(xscale="log", xlabel="ridge", ylabel="held-out log-loss")

        plots.append((_svg(ridge, "r"), "The ridge of the linear end, by grouped folds of the training pairs."))
    if network:

        def path(axes: Any) -> None:
            axes.errorbar([p.beta for p in network], [p.difference for p in network],
                          [p.difference_error for p in network], color=BLUE, marker="o", markersize=4)  # fmt: skip
            for p in network:
                axes.annotate(f"{p.n_neurons:.0f}", (p.beta, p.difference), xytext=(3, 5), textcoords="offset points")
            axes.axhline(0.0, color=ORANGE, linewidth=1)
            if head.choice.beta is not None:
                axes.axvline(head.choice.beta, color="#888", linewidth=1)
            axes.set(xscale="log", xlabel="beta (falling to the right)", ylabel="log-loss minus linear model's")
            axes.invert_xaxis()

        plots.append((_svg(path, "p"), "The path: held-out log-loss against the linear model's, one standard error of "
                      "the paired difference, and the mean number of neurons."))  # fmt: skip
    if sweep is not None:

        def maps(axes: Any) -> None:
            rows = sweep.table[:10][::-1]
            names = [f"{_joined(r.layer)}, {_joined(r.pooling)}, {r.prompt}" for r in rows]
            axes.plot([r.loss for r in rows], range(len(rows)), "o", color=BLUE)
            axes.set_yticks(range(len(rows)), names)
            axes.set(xlabel="held-out log-loss", title="layers, pooling, prompt")

        words = f"Layers, poolings and what of the prompt enters, by a linear head on {sweep.n_pairs} training pairs."
        if sweep.worth is not None:
            words += f" By folds without a say in the choice, it is worth {sweep.worth.loss:.4f}."
        plots.append((_svg(maps, "l", 7.5), words))
    return plots


def _joined(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _reliability(axes: Any, margins: np.ndarray) -> None:
    """Every pair counts with its mirror image, so the picture is over confidences from 1/2 to 1."""
    confidence, right = expit(np.abs(margins)), 0.5 * (1 + np.sign(margins))
    which = np.minimum((20 * (confidence - 0.5)).astype(int), 9)
    filled = [b for b in range(10) if (which == b).any()]
    axes.plot([0.5, 1], [0.5, 1], color="#888", linewidth=1)
    sizes = [8 + 120 * float(np.mean(which == b)) for b in filled]
    axes.scatter([confidence[which == b].mean() for b in filled], [right[which == b].mean() for b in filled],
                 s=sizes, color=BLUE)  # fmt: skip
    axes.set(xlabel="confidence", ylabel="accuracy", ylim=(-0.02, 1.02))


def _matplotlib() -> tuple[Any, Any]:
    """`rc_context` and `Figure`, or an ImportError that names the extra to install."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"a report needs matplotlib ({error}); install it with: pip install 'cvxrelu[report]'"
        ) from error
    return rc_context, Figure


def _svg(draw: Any, prefix: str, width: float = 5.2) -> str:
    """The SVG element that `draw(axes)` makes, with ids of its own."""
    rc_context, new_figure = _matplotlib()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cvxrelu", "font.size": 10}):
        figure = new_figure(figsize=(width, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace("#000000", "currentColor")  # ink, light or dark
    return re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
