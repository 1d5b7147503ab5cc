"""Plots of predictions beside the truth: values, and a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvxrelu.support.pages.svg import (
    BLUE,
    ORANGE,
    SOFT,
    Plot,
    hover,
    legend_above,
    named,
    number,
    percent,
    short_ticks,
    shortened,
    svg,
)


def draw_predictions(
    truth: np.ndarray, guess: np.ndarray, *, classes: Sequence[object] | None, rows: str, target: str, prefix: str
) -> Plot:
    """(n,) values, or labels out of `classes`, on the rows that `rows` names; `target` is what is predicted."""
    truth, guess = np.ravel(truth), np.ravel(guess)
    if classes is None:
        return plot_values(truth.astype(float), guess.astype(float), rows, target, prefix)
    return plot_confusion(truth, guess, [str(label) for label in classes], rows, prefix)


def plot_values(truth: np.ndarray, guess: np.ndarray, rows: str, target: str, prefix: str) -> Plot:
    ends = [min(truth.min(), guess.min()), max(truth.max(), guess.max())]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(ends, ends, color=SOFT, linewidth=1.3, linestyle=":", label="prediction = truth")
        axes.scatter(truth, guess, s=14, color=BLUE, alpha=0.55, linewidths=0)
        words = [f"true {number(t, 4)}, predicted {number(p, 4)}" for t, p in zip(truth, guess, strict=True)]
        hover(axes, truth, guess, words)
        short_ticks(axes.xaxis, axes.yaxis)
        name = shortened(target or "value", 40)
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
        legend_above(axes, 1)

    error = float(np.sqrt(np.mean((truth - guess) ** 2)))
    spread = float(np.std(truth))
    caption = f"Each dot is one of {truth.size} {rows}; the root mean square error is {number(error, 3)}"
    caption += f", against {number(spread, 3)} for always guessing their mean."
    alt = "Scatter plot of predicted against true values with the identity line."
    return "Predictions", svg(draw, prefix, 4.2), f"{alt} {caption}", caption


def plot_confusion(truth: np.ndarray, guess: np.ndarray, names: list[str], rows: str, prefix: str) -> Plot:
    place = {name: position for position, name in enumerate(names)}
    pairs = [(place[str(t)], place[str(p)]) for t, p in zip(truth, guess, strict=True)]
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, tuple(np.array(pairs, int).reshape(-1, 2).T), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(figure: Any) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.subplots()
        for (row, column), share in np.ndenumerate(shares):
            if counts[row, column]:
                # The square root makes a single error visible; blue is right, orange is wrong.
                colour = BLUE if row == column else ORANGE
                shade = 0.12 + 0.5 * np.sqrt(share)
                cell = Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=shade)
                named(axes.add_patch(cell), f"{counts[row, column]} rows of {names[row]}, taken for {names[column]}")
                if len(names) <= 20:
                    axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=9)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted class (cells: rows)", ylabel="true class")
        step = max(1, len(names) // 20)
        turn = 45 if max(map(len, names), default=0) > 4 else 0
        short = [shortened(name, 16) for name in names]
        axes.set_xticks(range(0, len(names), step), short[::step], rotation=turn, ha="right" if turn else "center")
        axes.set_yticks(range(0, len(names), step), short[::step])
        axes.grid(visible=False)
        axes.tick_params(length=0)

    right, total = int(np.trace(counts)), int(counts.sum())
    caption = f"Of {total} {rows}, {right} are classified correctly (blue, {percent(right / max(total, 1))})"
    off = counts - np.diag(np.diag(counts))
    if off.max(initial=0) == 1:
        caption += "; no class is taken for the same other class twice"
    elif off.any():
        row, column = np.unravel_index(np.argmax(off), off.shape)
        caption += f"; the most frequent error takes {names[row]} for {names[column]} ({off[row, column]} times)"
    alt = "Confusion matrix: true classes down, predicted classes across, number of rows in each cell."
    return "Predictions", svg(draw, prefix, 4.6), f"{alt} {caption}.", f"{caption}."
