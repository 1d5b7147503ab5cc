"""One HTML file about a reward head: scores, margins, calibration; certificate, path, layers; texts side by side.

It needs nothing but a browser. All texts are escaped; drawings are SVG inside the page.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from cvxrelu.support.files import atomic_write
from cvxrelu.support.pages.html_page import document, figures, table
from cvxrelu.support.pages.svg import (
    BLUE,
    GREEN,
    ORANGE,
    SOFT,
    Plot,
    hover,
    legend_above,
    load_matplotlib,
    named,
    number,
    power_of_ten,
    shortened,
    svg,
)
from cvxrelu_llm.evaluation.metrics import Evaluation
from cvxrelu_llm.heads.head import ConvexRewardHead

__all__ = ["write_report"]


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
    load_matplotlib()
    parts = [f"<p>{html.escape(intro)}</p>" if intro else ""]
    if frontier:
        shown = [{"way": row["way"], "judged good": f"{row['share']:.0%} ± {row['error']:.0%}",
                  "divergence from plain sampling": f"{row['nats']:.1f} nats a text"} for row in frontier]  # fmt: skip
        parts += ["<h2>Guided texts, judged</h2>", table(shown), figures(_frontier(frontier))]
    if evaluation is not None:
        parts += ["<h2>Held-out pairs</h2>", _metrics(evaluation)]
        if evaluation.abstention:
            caption = "With abstention: accuracy where only the clearest pairs are answered"
            parts.append(table(evaluation.abstention, caption, 4))
    if comparison:
        parts += ["<h2>Beside other models</h2>", table(comparison, digits=4)]
    if evaluation is not None:
        parts.append(figures(_score_plots(head, evaluation)))
    parts += ["<h2>Fit and certificate</h2>", _summary(head)]
    nature = "is proven" if head.certificate["rigorous"] else "is an estimate: an ascent may have missed a neuron"
    parts.append(
        f"<p>The lower bound {nature}. It speaks of the training objective of the "
        f"{head.certificate['program']}, not of how well preferences are predicted.</p>"
    )
    parts.append(figures(_fit_plots(head, sweep)))
    if samples:
        parts += ["<h2>Texts side by side</h2>", f'<div class="texts">{table(samples)}</div>']
    return atomic_write(path, document(title, "\n".join(part for part in parts if part)))


def _summary(head: ConvexRewardHead) -> str:
    """The lines of `head.summary()`, which begin with what each is about, as a table."""
    lines = [re.split(r"\s{2,}", line, maxsplit=1) for line in head.summary().splitlines()]
    return table([{"what": line[0], "found": line[-1]} for line in lines])


def _one(draw: Any, prefix: str, height: float = 3.4, width: float = 5.2) -> str:
    """The SVG element that `draw(axes)` makes."""
    return svg(lambda figure: draw(figure.subplots()), prefix, height, width)


def _frontier(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """What the judge says against what it costs."""

    def draw(axes: Any) -> None:
        for i, row in enumerate(rows):
            axes.errorbar(row["nats"], row["share"], row["error"], fmt="osD^v<>p"[i % 8], capsize=2,
                          label=shortened(row["way"]), color=(BLUE, ORANGE, GREEN)[i % 3])  # fmt: skip
        said = [f"{r['way']}: {r['share']:.0%} judged good, at {r['nats']:.1f} nats a text" for r in rows]
        hover(axes, [row["nats"] for row in rows], [row["share"] for row in rows], said)
        axes.set(xlabel="divergence from plain sampling, nats a text", ylabel="texts judged good, share")
        axes.set_ylim(-0.02, 1.05)
        legend_above(axes, 2)

    words = "What the judge says of texts, and how far they are from the model's own; 95 % intervals."
    return [("", _one(draw, "f"), words, words)]


def _metrics(evaluation: Evaluation) -> str:
    rows: list[Mapping[str, Any]] = [
        {"metric": name, "value": metric.value, f"{evaluation.level:.0%} interval": _interval(metric)}
        for name, metric in [
            *evaluation.metrics.items(),
            *((f"accuracy, {k}", v) for k, v in evaluation.subsets.items()),
        ]
    ]
    words = f"{evaluation.n_pairs} pairs in {evaluation.n_groups} groups; intervals draw whole groups."
    return f"<p>{words}</p>" + table(rows, digits=4)


def _interval(metric: Any) -> str:
    return f"{metric.low:.4f} to {metric.high:.4f}" if np.isfinite(metric.low) else ""


def _score_plots(head: ConvexRewardHead, evaluation: Evaluation) -> list[Plot]:
    """Margins, and whether confidence is earned."""
    margins = evaluation.margins
    wrong = float(np.mean(margins <= 0))

    def histogram(axes: Any) -> None:
        edges = np.histogram_bin_edges(margins, bins=min(30, 4 + len(margins) // 4))
        for kind, colour in (("right", BLUE), ("wrong", ORANGE)):
            some = margins[margins > 0] if kind == "right" else margins[margins <= 0]
            counts, _, bars = axes.hist(some, bins=edges, color=colour, label=kind)
            for count, bar, low, high in zip(counts, bars, edges, edges[1:], strict=False):
                named(bar, f"{count:.0f} {kind}, margins {number(low, 3)} to {number(high, 3)}")
        axes.set(xlabel="reward of chosen minus rejected, log-odds", ylabel="pairs, number")
        axes.yaxis.get_major_locator().set_params(integer=True)
        legend_above(axes, 2)

    words = f"Margins of held-out pairs; {wrong:.1%} are not positive."
    plots = [("Margins", _one(histogram, "m"), f"Histogram. {words}", words)]
    words = f"Accuracy by confidence, at temperature {head.temperature:.3g}; on the line is calibrated. "
    words += "Larger dots are of more pairs."
    drawn = _one(lambda axes: _reliability(axes, margins / head.temperature), "c")
    return [*plots, ("Calibration", drawn, f"Scatter plot. {words}", words)]


def _fit_plots(head: ConvexRewardHead, sweep: Any) -> list[Plot]:
    """How ridge, beta, and layers were chosen; those there are data for."""
    plots = []
    network = [point for point in head.choice.points if point.kind == "network"]
    linear = [point for point in head.choice.points if point.kind != "network"]
    if linear:

        def ridge(axes: Any) -> None:
            axes.errorbar([p.skip_l2 for p in linear], [p.loss for p in linear], [p.error for p in linear],
                          color=GREEN, marker="o", markersize=4)  # fmt: skip
            axes.axvline(head.choice.skip_l2, color=SOFT, linewidth=1)
            said = [f"ridge {number(p.skip_l2, 3)}: {p.loss:.4f} ± {p.error:.4f}" for p in linear]
            hover(axes, [p.skip_l2 for p in linear], [p.loss for p in linear], said)
            axes.set(xscale="log", xlabel="ridge, weight of the penalty", ylabel="held-out log-loss, nats a pair")
            axes.xaxis.set_major_formatter(power_of_ten)

        words = "The ridge of the linear end, by grouped folds of the training pairs."
        plots.append(("Ridge", _one(ridge, "r"), f"Line plot. {words}", words))
    if network:

        def path(axes: Any) -> None:
            axes.errorbar([p.beta for p in network], [p.difference for p in network],
                          [p.difference_error for p in network], color=BLUE, marker="o", markersize=4)  # fmt: skip
            said = [f"beta {number(p.beta, 3)}: {p.difference:+.4f} ± {p.difference_error:.4f}, "
                    f"{p.n_neurons:.0f} neurons" for p in network]  # fmt: skip
            hover(axes, [p.beta for p in network], [p.difference for p in network], said)
            for p in network:
                axes.annotate(f"{p.n_neurons:.0f}", (p.beta, p.difference), xytext=(3, 5), textcoords="offset points")
            axes.axhline(0.0, color=ORANGE, linewidth=1)
            if head.choice.beta is not None:
                axes.axvline(head.choice.beta, color=SOFT, linewidth=1)
            axes.set(xscale="log", xlabel="beta, weight of the penalty (falling to the right)")
            axes.set_ylabel("log-loss minus linear model's, nats a pair")
            betas = sorted(p.beta for p in network)
            axes.set_xticks(betas[:: max(1, len(betas) // 5)])  # powers of ten would be one or none
            axes.xaxis.set_major_formatter(lambda value, _place: number(float(value), 2))
            axes.xaxis.set_minor_locator(load_matplotlib().ticker.NullLocator())
            axes.invert_xaxis()

        words = "The path: held-out log-loss against the linear model's, one standard error of the paired difference, "
        words += "and the mean number of neurons."
        plots.append(("Weight decay", _one(path, "p"), f"Line plot. {words}", words))
    if sweep is not None:

        def maps(axes: Any) -> None:
            rows = sweep.table[:10][::-1]
            names = [f"{_joined(r.layer)}, {_joined(r.pooling)}, {r.prompt}" for r in rows]
            axes.plot([r.loss for r in rows], range(len(rows)), "o", color=BLUE)
            hover(axes, [r.loss for r in rows], range(len(rows)),
                  [f"{name}: {r.loss:.4f}" for name, r in zip(names, rows, strict=True)])  # fmt: skip
            axes.set_yticks(range(len(rows)), [shortened(name, 40) for name in names])
            axes.set(xlabel="held-out log-loss, nats a pair", ylabel="layers, pooling, prompt")

        words = f"Layers, poolings and what of the prompt enters, by a linear head on {sweep.n_pairs} training pairs."
        if sweep.worth is not None:
            words += f" By folds without a say in the choice, it is worth {sweep.worth.loss:.4f}."
        plots.append(("Layers", _one(maps, "l", width=6.4), f"Dot plot. {words}", words))
    return plots


def _joined(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _reliability(axes: Any, margins: np.ndarray) -> None:
    """Every pair counts with its mirror image, so the picture is over confidences from 1/2 to 1."""
    confidence, right = expit(np.abs(margins)), 0.5 * (1 + np.sign(margins))
    which = np.minimum((20 * (confidence - 0.5)).astype(int), 9)
    filled = [b for b in range(10) if (which == b).any()]
    axes.plot([0.5, 1], [0.5, 1], color=SOFT, linewidth=1)
    sizes = [8 + 120 * float(np.mean(which == b)) for b in filled]
    x, y = ([float(values[which == b].mean()) for b in filled] for values in (confidence, right))
    axes.scatter(x, y, s=sizes, color=BLUE)
    said = [f"{np.sum(which == b)} pairs: confidence {u:.2f}, accuracy {v:.2f}"
            for b, u, v in zip(filled, x, y, strict=True)]  # fmt: skip
    hover(axes, x, y, said)
    axes.set(xlabel="confidence, probability", ylabel="accuracy, share of pairs", ylim=(-0.02, 1.02))
