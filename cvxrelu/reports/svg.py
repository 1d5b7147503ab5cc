"""What the drawings of a report share: matplotlib figures as SVG text with the page's colours, axes, lines, numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = [
    "BLUE",
    "GREEN",
    "INK",
    "ORANGE",
    "PURPLE",
    "SOFT",
    "Plot",
    "decades",
    "legend_above",
    "line",
    "load_matplotlib",
    "number",
    "percent",
    "svg",
]  # fmt: skip

# Each colour of a drawing is a stand-in that the SVG text replaces by a CSS variable: the plot then follows the page's
# light or dark theme. The hues behind them (Okabe and Ito) are told apart by colour-blind readers.
INK, SOFT, BLUE, ORANGE, GREEN, PURPLE = (f"#01020{digit}" for digit in range(3, 9))
_VARIABLES = {INK: "ink", SOFT: "soft", BLUE: "blue", ORANGE: "orange", GREEN: "green", PURPLE: "purple"}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be read out, searched and scaled
    "svg.hashsalt": "cvxrelu",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": SOFT,
    "grid.alpha": 0.25,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "path.simplify": True,
}


def svg(draw: Callable[[Any], None], prefix: str, height: float = 3.6) -> str:
    """The SVG element that `draw(figure)` makes, with its own ids and the page's colours."""
    tools = load_matplotlib()
    with tools.rc_context(_STYLE):
        figure = tools.Figure(figsize=(5.2, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (?:xmlns(?::\w+)?|width|height)="[^"]*"', "", text.split(">", 1)[0]) + ">" + text.split(">", 1)[1]
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)  # ids are shared by all drawings of the page
    return re.sub("|".join(_VARIABLES), lambda match: f"var(--{_VARIABLES[match[0]]})", text)


def decades(axes: Any, *columns: np.ndarray) -> None:
    """A log axis from one power of ten to another, so that it always carries at least two labels."""
    values = np.concatenate([np.ravel(column) for column in columns])
    values = values[np.isfinite(values)]
    low, high = (np.log10(values.min()), np.log10(values.max())) if values.size else (-1.0, 0.0)
    bottom = np.floor(low - 0.02)  # a value on the edge would be drawn over the axis
    top = max(np.ceil(high), bottom + 1)
    axes.set_yscale("log")
    axes.set_ylim(10.0**bottom, 10.0**top)
    step = int(np.ceil((top - bottom) / 6))
    axes.set_yticks(10.0 ** np.arange(bottom, top + 1, step))
    axes.yaxis.set_major_formatter(load_matplotlib().ticker.FuncFormatter(_power_of_ten))
    axes.yaxis.set_minor_formatter(load_matplotlib().ticker.NullFormatter())


def _power_of_ten(value: float, _position: int | None = None) -> str:
    exponent = round(np.log10(value))
    return (
        f"{value:g}"
        if 0 <= exponent <= 2
        else "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def line(axes: Any, x: np.ndarray, y: np.ndarray, label: str, colour: str, dash: str) -> None:
    shown = np.isfinite(y)
    marker = "o" if shown.sum() <= 25 else None  # few points, possibly one: a line alone would not show them
    axes.plot(x[shown], y[shown], dash, color=colour, label=label, marker=marker, markersize=3.5)


def legend_above(axes: Any, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handlelength=2.2)


def load_matplotlib() -> SimpleNamespace:
    """The parts of matplotlib in use, or an ImportError that names the extra to install."""
    try:
        import matplotlib
        from matplotlib import figure, ticker
    except ImportError as error:
        raise ImportError(
            f"a report needs matplotlib ({error}); install it with: pip install 'cvxrelu[report]'"
        ) from error
    return SimpleNamespace(rc_context=matplotlib.rc_context, Figure=figure.Figure, ticker=ticker)


def number(value: object, digits: int = 6) -> str:
    """A value as pages and captions show it: floats to some digits, n/a where not finite."""
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}g}" if np.isfinite(value) else "n/a"
    return str(value)


def percent(gap: float) -> str:
    """A share in percent, to two or three digits."""
    return number(100 * gap, 2 if gap < 1 else 3) + "\u00a0%"


Plot = tuple[str, str, str, str]  # heading, svg, alternative text, caption
