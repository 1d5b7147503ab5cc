"""Plots of predictions beside the truth: values, and a confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxrelu.reports.svg import (
    BLUE,
    ORANGE,
    SOFT,
    Plot,
    legend_above,
    percent,
    svg,
)


def plot_values(truth: np.ndarray, guess: np.ndarray, rows: str, prefix: str) -> Plot:
    ends = [min(truth.min(), guess.min()), max(truth.max(), guess.max())]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(ends, ends, color=SOFT, linewidth=1.3, linestyle=":", label="prediction = truth")
        axes.scatter(truth, guess, s=14, color=BLUE, alpha=0.55, linewidths=0)
        axes.set(xlabel="true value", ylabel="prediction of the network")
        legend_above(axes, 1)

    error = float(np.sqrt(np.mean((truth - guess) ** 2)))
    spread = float(np.std(truth))
    caption = f"Each dot is one of {truth.size} {rows}; the root mean square error is {error:.3g}"
    caption += f", against {spread:.3g} for always guessing their mean."
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
                axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=shade))
                if len(names) <= 20:
                    axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=9)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted class", ylabel="true class")
        step = max(1, len(names) // 20)
        turn = 45 if max(map(len, names), default=0) > 4 else 0
        axes.set_xticks(range(0, len(names), step), names[::step], rotation=turn)
        axes.set_yticks(range(0, len(names), step), names[::step])
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
