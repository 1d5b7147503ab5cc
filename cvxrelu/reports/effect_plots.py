"""Plots of effects: how much each column changes the prediction, and a small chart for each of the first."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvxrelu.reports.effects import Effect, Effects
from cvxrelu.support.pages.svg import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SOFT,
    Plot,
    hover,
    load_matplotlib,
    named,
    number,
    short_ticks,
    shortened,
    svg,
)

__all__ = ["draw_effects", "plot_changes"]

BARS, LEVELS = 20, 10  # columns with a bar, categories with a dot
LINES = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"))
FEW = 12  # values of a number that are shown as such


def plot_changes(effects: Effects, prefix: str) -> Plot:
    """A bar for each of the columns that count most."""
    names, sizes = list(effects.changes)[:BARS], list(effects.changes.values())[:BARS]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        bars = axes.barh(range(len(names)), sizes, color=BLUE, height=0.7)
        for bar, name, size in zip(bars, names, sizes, strict=True):
            named(bar, f"{name}: {number(size, 3)}")
        axes.set_yticks(range(len(names)), [shortened(name) for name in names])
        axes.invert_yaxis()
        short_ticks(axes.xaxis)
        axes.set(xlabel=f"change of the {effects.predicted}", ylabel="column", xlim=(0, None))
        axes.grid(visible=False, axis="y")

    left = len(effects.changes) - len(names)
    caption = "How much the prediction changes, on average, when a row gets the column's value of another row."
    if left:
        caption += f" The other {left} columns change it by at most {number(list(effects.changes.values())[BARS], 2)}."
    alt = f"Bar chart of {len(names)} columns by how much they change the prediction, the largest first: "
    alt += ", ".join(f"{name} {number(size, 2)}" for name, size in zip(names[:5], sizes, strict=False))
    return "What the prediction rests on", svg(draw, prefix, 1.3 + 0.26 * len(names)), f"{alt}.", caption


def draw_effects(effects: Effects, prefix: str) -> list[Plot]:
    """A small chart for each column of `effects.drawn`, all with the same scale of the prediction."""
    if not effects.drawn:
        return []
    chosen = _outputs(effects)
    every = np.concatenate([np.vstack([each.averages, effects.base])[:, chosen].ravel() for each in effects.drawn])
    every = np.append(every, [each.missing[chosen] for each in effects.drawn if each.missing is not None])
    room = 0.06 * max(np.ptp(every), 1e-9)
    limits = (float(every.min() - room), float(every.max() + room))
    plots = []
    for k, effect in enumerate(effects.drawn):
        one = _plot_level if effect.column.kind == "category" else _plot_number
        plots.append(one(effect, effects, chosen, limits, f"{prefix}{k}"))
    return plots


def _outputs(effects: Effects) -> list[int]:
    """The outputs that are drawn: those that move most, in their own order."""
    moves = np.max([np.ptp(each.averages, axis=0) for each in effects.drawn], axis=0)
    return sorted(np.argsort(-moves, kind="stable")[: len(LINES)].tolist())


def _plot_number(
    effect: Effect, effects: Effects, chosen: Sequence[int], limits: tuple[float, float], prefix: str
) -> Plot:
    column, date = effect.column, effect.column.kind == "date"
    at = np.asarray(column.values, float)
    said = [_day(value) if date else number(value, 4) for value in at]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for (colour, dash, _), k in zip(LINES, chosen, strict=False):
            name, values = effects.outputs[k], effect.averages[:, k]
            marker = "o" if at.size <= FEW else None
            axes.plot(at, values, dash, color=colour, marker=marker, markersize=3.5, label=shortened(name, 14))
            before = f"{name}, " if name else ""
            words = [f"{before}{column.name} {v}: {number(p, 4)}" for v, p in zip(said, values, strict=True)]
            hover(axes, at, values, words)
        if column.seen is not None and column.seen.size:
            tenths = np.quantile(column.seen, np.linspace(0.1, 0.9, 9))
            axes.plot(tenths, np.zeros(9), "|", color=SOFT, markersize=7, transform=axes.get_xaxis_transform(),
                      clip_on=False)  # fmt: skip
        _finish(axes, effects, chosen)
        short_ticks(axes.yaxis)
        short_ticks(axes.xaxis, integer=bool(np.all(at == np.round(at))))
        label = shortened(column.name, 30) + (f", {column.unit}" if column.unit else "")
        axes.set(xlabel=label, ylabel=shortened(effects.predicted, 34), ylim=limits)
        if date:
            tools = load_matplotlib().ticker
            axes.xaxis.set_major_locator(tools.MaxNLocator(nbins=3))
            axes.xaxis.set_major_formatter(tools.FuncFormatter(lambda value, _place: _day(value)))

    caption = _range_words(effect, effects, chosen, said)
    return column.name, svg(draw, prefix, 2.6, 3.6), f"Line plot of the effect of {column.name}. {caption}", caption


def _plot_level(
    effect: Effect, effects: Effects, chosen: Sequence[int], limits: tuple[float, float], prefix: str
) -> Plot:
    column = effect.column
    names = [str(value) for value in column.values]
    place = list(range(len(names)))
    if len(names) > LEVELS:  # those that are furthest from the average
        far = np.abs(effect.averages - effects.base)[:, chosen].max(axis=1)
        place = sorted(np.argsort(-far, kind="stable")[:LEVELS].tolist())

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for (colour, _, marker), k in zip(LINES, chosen, strict=False):
            name, values = effects.outputs[k], effect.averages[place, k]
            axes.axvline(effects.base[k], color=SOFT, linewidth=1, linestyle=":")
            axes.plot(values, range(len(place)), marker, color=colour, markersize=5.5, label=shortened(name, 14))
            before = f"{name}, " if name else ""
            words = [f"{before}{column.name} {names[i]}: {number(effect.averages[i, k], 4)}" for i in place]
            hover(axes, values, range(len(place)), words)
        axes.set_yticks(range(len(place)), [shortened(names[i], 14) for i in place])
        axes.set_ylim(len(place) - 0.5, -0.5)
        _finish(axes, effects, chosen)
        short_ticks(axes.xaxis)
        axes.set(xlabel=shortened(effects.predicted, 34), ylabel=shortened(column.name, 20), xlim=limits)

    caption = _range_words(effect, effects, chosen, names)
    if len(place) < len(names):
        caption += f" Drawn are the {LEVELS} of {len(names)} values that differ most from the average."
    return column.name, svg(draw, prefix, 2.6, 3.6), f"Dot plot of the effect of {column.name}. {caption}", caption


def _finish(axes: Any, effects: Effects, chosen: Sequence[int]) -> None:
    if len(effects.outputs) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(2, len(chosen)), borderaxespad=0.2, fontsize=8)


def _range_words(effect: Effect, effects: Effects, chosen: Sequence[int], said: Sequence[str]) -> str:
    """Lowest and highest average, and at which values; of several outputs, of the one that moves most."""
    k = max(chosen, key=lambda j: float(np.ptp(effect.averages[:, j])))
    values = effect.averages[:, k]
    low, high, unit = int(values.argmin()), int(values.argmax()), effect.column.unit
    of = f"{effects.outputs[k]}: from" if effects.outputs[k] else "From"
    unit = f" {unit}" if unit else ""
    words = f"{of} {number(values[low], 3)} at {said[low]}{unit} to {number(values[high], 3)} at {said[high]}{unit}"
    if effect.missing is not None:
        words += f"; {number(effect.missing[k], 3)} where the value is missing"
    return f"{words}."


def _day(value: float) -> str:
    """A number of days since 1970 as a date."""
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=round(float(value)))).isoformat()
