"""What the drawings of all pages share: matplotlib figures as SVG text in the page's colours, axes, lines, numbers.

A drawing answers a pointer that rests on it: `hover` and `named` give points and bars words that browsers then show.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
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
    "hover",
    "legend_above",
    "line",
    "load_matplotlib",
    "named",
    "number",
    "percent",
    "power_of_ten",
    "short_ticks",
    "shortened",
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
    "text.parse_math": False,  # a name with two dollars in it is no formula
}


def svg(draw: Callable[[Any], None], prefix: str, height: float = 3.6, width: float = 5.2) -> str:
    """The SVG element that `draw(figure)` makes, with its own ids and the page's colours; sizes in inches."""
    tools = load_matplotlib()
    with tools.rc_context(_STYLE), warnings.catch_warnings():
        # Names in scripts that matplotlib's own font lacks: the browser has the fonts, and does the writing.
        warnings.filterwarnings("ignore", message="Glyph")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure = tools.Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (?:xmlns(?::\w+)?|width|height)="[^"]*"', "", text.split(">", 1)[0]) + ">" + text.split(">", 1)[1]
    text = _NAMED.sub(r'<g class="named"><title>\1</title>', text).replace("</svg>", f"{_discs(figure)}</svg>")
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)  # ids are shared by all drawings of the page
    return re.sub("|".join(_VARIABLES), lambda match: f"var(--{_VARIABLES[match[0]]})", text)


# Words of a bar travel through matplotlib as the id of the group that it makes, and come out escaped.
_MARK = "named:"
_NAMED = re.compile(rf'<g id="{_MARK}([^"]*)">')
MOST_POINTS = 400  # that are given words: a page of megabytes is no help


def named(artist: Any, words: str) -> None:
    """Show these words where the pointer rests on a bar or a cell."""
    artist.set_gid(_MARK + " ".join(words.split()))


def hover(axes: Any, x: Any, y: Any, words: Sequence[str]) -> None:
    """Show words where the pointer rests near a point; what is not finite, and too many points, are left out."""
    x, y = np.ravel(np.asarray(x, float)), np.ravel(np.asarray(y, float))
    if np.count_nonzero(np.isfinite(x) & np.isfinite(y)) <= MOST_POINTS:
        vars(axes.figure).setdefault("cvxrelu_hover", []).append((axes, x, y, words))


def _discs(figure: Any) -> str:
    """What `hover` asked for, once the figure has been drawn: discs that cannot be seen, and are large enough to hit.

    Not by matplotlib, which leaves out what is transparent and writes points in ways of its own.
    """
    found, points = [], 72.0 / figure.dpi
    for axes, x, y, words in vars(figure).get("cvxrelu_hover", ()):
        kept = np.flatnonzero(np.isfinite(x) & np.isfinite(y)).tolist()
        places = axes.transData.transform(np.column_stack([x, y])[kept]) if kept else []
        for i, place in zip(kept, places, strict=True):
            if np.isfinite(place).all() and axes.bbox.padded(1.0).contains(*place):
                title = html.escape(" ".join(words[i].split()))
                across, down = points * place[0], points * (figure.bbox.height - place[1])
                found.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="5"><title>{title}</title></circle>')
    return f'<g class="hover">{"".join(found)}</g>' if found else ""


def short_ticks(*axes: Any, integer: bool = False) -> None:
    """At most five labels on each `Axis`, of which large numbers are short: 120k, 1.5M."""
    for axis in axes:
        axis.set_major_locator(load_matplotlib().ticker.MaxNLocator(nbins=5, integer=integer))
        axis.set_major_formatter(load_matplotlib().ticker.FuncFormatter(_short))


def _short(value: float, _position: int | None = None) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= abs(value) < 1e15:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}".replace("-", "\u2212")
    return f"{value:g}".replace("-", "\u2212")


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
    axes.yaxis.set_major_formatter(load_matplotlib().ticker.FuncFormatter(power_of_ten))
    axes.yaxis.set_minor_formatter(load_matplotlib().ticker.NullFormatter())


def power_of_ten(value: float, _position: int | None = None) -> str:
    """The label of a log axis: 10, 100, 10⁻³."""
    exponent = round(np.log10(value))
    return (
        f"{value:g}"
        if 0 <= exponent <= 2
        else "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def line(axes: Any, x: np.ndarray, y: np.ndarray, label: str, colour: str, dash: str, where: str = "{:.3g} s") -> None:
    """A line with words for its points; `where` says in them what x is."""
    shown = np.isfinite(y)
    marker = "o" if shown.sum() <= 25 else None  # few points, possibly one: a line alone would not show them
    axes.plot(x[shown], y[shown], dash, color=colour, label=label, marker=marker, markersize=3.5)
    words = [f"{label}: {number(v, 4)} at {where.format(u)}" for u, v in zip(x, y, strict=True)]
    hover(axes, x, y, words)


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


def shortened(name: object, length: int = 28) -> str:
    """A name as an axis or a legend has room for it; matplotlib leaves out what begins with an underscore."""
    text = " ".join(str(name).split())
    text = text if len(text) <= length else text[: length - 1].rstrip() + "\u2026"
    return f"\u200b{text}" if text.startswith("_") else text


def number(value: object, digits: int = 6) -> str:
    """A value as pages and captions show it: floats to some digits, n/a where not finite; 12,300 and not 1.23e+04."""
    if not isinstance(value, float | np.floating):
        return str(value)
    if not np.isfinite(value):
        return "n/a"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if 10.0**digits <= abs(rounded) < 1e15 else f"{rounded:.{digits}g}"


def percent(gap: float) -> str:
    """A share in percent, to two or three digits."""
    return number(100 * gap, 2 if gap < 1 else 3) + "\u00a0%"


Plot = tuple[str, str, str, str]  # heading, svg, alternative text, caption
