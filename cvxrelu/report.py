"""One HTML file about solved problems: facts, scores, plots. It needs nothing but a browser: no script, no network.

The sampled program (S) and the network program (N) are labelled wherever a number belongs to one of them.
"""

from __future__ import annotations

import contextlib
import datetime
import html
import importlib.metadata
import io
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cvxrelu.solution import Solution

__all__ = ["Section", "atomic_write", "machine", "versions", "write_report"]


@dataclass(frozen=True)
class Section:
    """One solved problem as a report shows it.

    Attributes
    ----------
    name : heading, such as "diabetes".
    solution : what `cvxrelu.solve` returned.
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
    parts = [_section(section, number) for number, section in enumerate(sections, start=1)]
    foot = {"Made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"), "Machine": machine()}
    foot["Versions"] = ", ".join(f"{name} {version}" for name, version in versions().items())
    foot |= {} if seed is None else {"Seed": str(seed)}
    foot |= {} if command is None else {"Command": command}
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{html.escape(title)}</h1>\n" + (f"<p>{html.escape(intro)}</p>\n" if intro else "") + f"{_PROGRAMS}\n"
        f"{''.join(parts)}</main>\n<footer>{_facts(foot)}</footer>\n</body>\n</html>\n"
    )
    return atomic_write(path, page)


def atomic_write(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` (UTF-8) to a temporary neighbour of `path`, then rename it, so that no reader sees half a file."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes the file private; a result is an ordinary file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return path


def versions() -> dict[str, str]:
    """Versions of Python, of cvxrelu and of the installed packages that a solve or a report can use."""
    found = {"Python": platform.python_version()}
    for name in ("cvxrelu", "numpy", "scipy", "jax", "lineax", "cupy", "scikit-learn", "matplotlib", "safetensors"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> str:
    """Operating system, processor and number of cores in a line; no host name and no user name."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        processor = names[0] if names else processor
    return f"{platform.system()} {platform.machine()}, {processor}, {os.cpu_count()} cores"


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- text and tables -------------------------------------------------------------------------------------------------

_PROGRAMS = """<details class="programs" open><summary>Two programs, two gaps</summary>
<p><b class="n">(N)</b> The <b>network program</b> is the one to be solved: any two-layer ReLU network, loss plus weight
decay. <b class="s">(S)</b> The <b>sampled program</b> is convex: each neuron keeps to the cone of one of the sampled
activation patterns. Every solution of (S) is a network, so its objective is an upper bound for (N); a small gap of (S)
says that (S) is solved, and nothing on how far its network is from the best of all networks. The gap of (N) says
that.</p></details>"""


def _number(value: object, digits: int = 6) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}g}" if np.isfinite(value) else "n/a"
    return str(value)


def _percent(gap: float) -> str:
    return _number(100 * gap, 2 if gap < 1 else 3) + "\u00a0%"


def _table(rows: Sequence[Mapping[str, object]], caption: str) -> str:
    """An HTML table; every name and every cell is escaped, numbers are aligned on the right."""
    columns = list(rows[0])
    right = {name: ' class="number"' if isinstance(rows[0][name], int | float | np.number) else "" for name in columns}
    head = "".join(f'<th scope="col"{right[name]}>{html.escape(name)}</th>' for name in columns)
    body = ""
    for row in rows:
        first, *rest = (html.escape(_number(row.get(name, ""))) for name in columns)
        cells = "".join(f"<td{right[name]}>{text}</td>" for name, text in zip(columns[1:], rest, strict=True))
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return (
        f'<div class="scroll"><table><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items()) + "</dl>"


def certificate_words(solution: Solution) -> str:
    """The kind of the bound on (N), with "rigorous" or "estimate" spelled out."""
    certificate = solution.certificate
    if certificate.rigorous:
        # The closed form is loose: without a word on that, a gap of 90 % reads like a poor network.
        loose = "; loose, so a large gap need not mean a poor network" if certificate.kind == "relaxed" else ""
        return f"{certificate.kind}: rigorous, it holds whatever was computed{loose}"
    starts = "" if certificate.starts is None else f" from {certificate.starts} starts"
    return f"{certificate.kind}: an estimate{starts}, not a proof"


def _section(section: Section, number: int) -> str:
    solution, sampled = section.solution, section.solution.sampled
    bounds = [
        {
            "Program": "(N) network",
            "Objective": solution.objective,
            "Lower bound": solution.lower_bound,
            "Gap": _percent(solution.gap),
            "Bound is": "rigorous" if solution.certificate.rigorous else "an estimate",
        }
    ]
    if sampled is not None:
        bounds.append(
            {
                "Program": "(S) sampled",
                "Objective": sampled.objective,
                "Lower bound": sampled.lower_bound,
                "Gap": _percent(sampled.gap),
                "Bound is": "rigorous",
            }
        )
    settings = solution.settings
    facts = {
        f"Status of {'(N)' if settings.get('refine') else '(S)'}": f"{solution.status.value}: {solution.message}",
        "Problem": f"{settings.get('n')} rows, {settings.get('d')} features, outputs: {settings.get('c')}, "
        f"{settings.get('loss', 'squared')} loss, beta {_number(settings.get('beta', '?'), 4)}",
        "Bound on (N)": certificate_words(solution),
        "Network": f"{solution.network.n_neurons} neurons",
        "Run": f"{solution.n_iter} iterations in {_seconds(solution)} on {solution.backend}, {solution.device}, "
        f"{solution.dtype}",
    }
    plots = "".join(
        f"<figure><h3>{html.escape(name)}</h3>{svg.replace('<svg ', f'<svg {_label(alt)} ', 1)}"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, svg, alt, caption in _plots(section, f"s{number}")
    )
    description = f"<p>{html.escape(section.description)}</p>" if section.description else ""
    scores = _table(section.scores, f"Scores on the {section.rows}") if section.scores else ""
    note = f'<p class="note">{html.escape(section.score_note)}</p>' if section.score_note else ""
    good = "good" if solution.success else "bad"
    return (
        f'<section class="{good}"><h2>{html.escape(section.name)}</h2>{description}{_facts(facts)}'
        f"{_table(bounds, 'Objective and bound of each program')}{scores}{note}"
        f'<div class="plots">{plots}</div></section>\n'
    )


def _label(alt: str) -> str:
    return f'role="img" aria-label="{html.escape(alt)}"'


def _seconds(solution: Solution) -> str:
    total = solution.timings.get("total", float(np.sum(list(solution.timings.values()))))
    return f"{total:.3g} s"


# --- plots -----------------------------------------------------------------------------------------------------------

# Each colour of a drawing is a stand-in that the SVG text replaces by a CSS variable: the plot then follows the page's
# light or dark theme. The hues behind them (Okabe and Ito) are told apart by colour-blind readers.
_INK, _SOFT, _BLUE, _ORANGE, _GREEN, _PURPLE = (f"#01020{digit}" for digit in range(3, 9))
_VARIABLES = {_INK: "ink", _SOFT: "soft", _BLUE: "blue", _ORANGE: "orange", _GREEN: "green", _PURPLE: "purple"}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be read out, searched and scaled
    "svg.hashsalt": "cvxrelu",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _SOFT,
    "grid.alpha": 0.25,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "path.simplify": True,
}

Plot = tuple[str, str, str, str]  # heading, svg, alternative text, caption


def _plots(section: Section, prefix: str) -> list[Plot]:
    solution = section.solution
    plots: list[Plot] = []
    if len(solution.history):
        plots += [_plot_gaps(solution, f"{prefix}a"), _plot_residuals(solution, f"{prefix}b")]
    if solution.sampled is not None:
        plots.append(_plot_patterns(solution, f"{prefix}c"))
    if section.truth is not None and section.predictions is not None:
        draw = _plot_values if section.classes is None else _plot_confusion
        plots.append(draw(section, f"{prefix}d"))
    return plots


def _svg(draw: Callable[[Any], None], prefix: str, height: float = 3.6) -> str:
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


def _column(solution: Solution, name: str) -> np.ndarray:
    """A column of the history, NaN where it was not recorded, and without values a log axis cannot show."""
    history = solution.history
    values = np.asarray(history[name], float) if name in history.columns else np.full(len(history), np.nan)
    return np.where(values > 0, values, np.nan)


def _decades(axes: Any, *columns: np.ndarray) -> None:
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


def _line(axes: Any, x: np.ndarray, y: np.ndarray, label: str, colour: str, dash: str) -> None:
    shown = np.isfinite(y)
    marker = "o" if shown.sum() <= 25 else None  # few points, possibly one: a line alone would not show them
    axes.plot(x[shown], y[shown], dash, color=colour, label=label, marker=marker, markersize=3.5)


def _legend_above(axes: Any, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handlelength=2.2)


def _from_to(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    if not values.size:
        return "was not measured"
    if values.size == 1:
        return f"was {_percent(values[0])}"
    return f"went from {_percent(values[0])} to {_percent(values[-1])}"


def _plot_gaps(solution: Solution, prefix: str) -> Plot:
    seconds = np.asarray(solution.history["time"], float)
    sampled, network = _column(solution, "sampled_gap"), _column(solution, "gap")
    tol = solution.settings.get("tol")

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        _decades(axes, sampled, network, np.array([tol or np.nan], float))
        _line(axes, seconds, sampled, "(S) sampled program", _BLUE, "-")
        _line(axes, seconds, network, "(N) network program", _ORANGE, "--")
        if tol:
            axes.axhline(tol, color=_SOFT, linewidth=1.3, linestyle=":", label="tol")
        axes.set(xlabel="seconds", ylabel="relative gap", xlim=(0, None))
        _legend_above(axes, 3)

    nature = "a rigorous bound" if solution.certificate.rigorous else "an estimate"
    caption = f"The gap of (S) {_from_to(sampled)}; that of (N), measured with {nature}, {_from_to(network)}."
    alt = "Line plot of the relative gaps of the sampled program (S) and the network program (N) against seconds."
    return "Gap against time", _svg(draw, prefix), f"{alt} {caption}", caption


def _plot_residuals(solution: Solution, prefix: str) -> Plot:
    iterations = np.asarray(solution.history["iteration"], float)
    lines = (
        ("primal_copy", "primal, copy", _BLUE, "-"),
        ("dual_copy", "dual, copy", _BLUE, "--"),
        ("primal_cone", "primal, cone", _ORANGE, "-"),
        ("dual_cone", "dual, cone", _ORANGE, "--"),
    )
    residuals = [_column(solution, name) for name, *_ in lines]
    penalties = [_column(solution, name) for name in ("rho_copy", "rho_cone")]

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        _decades(above, *residuals)
        for (_, label, colour, dash), values in zip(lines, residuals, strict=True):
            _line(above, iterations, values, label, colour, dash)
        above.set(ylabel="relative residual")
        _legend_above(above, 2)
        _decades(below, *penalties)
        _line(below, iterations, penalties[0], "copy", _GREEN, "-")
        _line(below, iterations, penalties[1], "cone", _PURPLE, "--")
        below.set(xlabel="iteration", ylabel="penalty rho")
        below.legend(loc="best", ncols=2)

    ends = [values[np.isfinite(values)][-1:] for values in residuals]
    last = np.concatenate(ends) if ends else np.array([])
    caption = "The residuals of (S), scaled by the size of the iterate, and the two penalties that balance them"
    caption += f"; the largest residual ends at {last.max():.1e}." if last.size else "."
    alt = "Two line plots against the iteration, on log axes: four relative residuals above, two penalties below."
    return "Residuals and penalties of (S)", _svg(draw, prefix, 4.2), f"{alt} {caption}", caption


def _plot_patterns(solution: Solution, prefix: str) -> Plot:
    sampled = solution.sampled
    assert sampled is not None
    blocks = sampled.blocks if sampled.blocks.ndim == 4 else sampled.blocks[..., None]
    norms = np.linalg.norm(blocks, axis=1).sum(axis=(0, 2))
    order = np.argsort(-norms)
    used = int(np.count_nonzero(norms > 1e-3 * max(norms.max(initial=0.0), np.finfo(float).tiny)))
    shown = order[: max(used, 1)]
    active = 100 * sampled.patterns.mean(axis=0)

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        place = np.arange(1, shown.size + 1)
        above.bar(place, norms[shown], color=_BLUE, width=0.85)
        above.set(ylabel="norm of blocks", ylim=(0, None))
        below.bar(place, active[shown], color=_ORANGE, width=0.85)
        below.axhline(50, color=_SOFT, linewidth=1.3, linestyle=":")
        below.set(xlabel="pattern, largest first", ylabel="% rows active", ylim=(0, 100), yticks=(0, 50, 100))
        below.xaxis.set_major_locator(load_matplotlib().ticker.MaxNLocator(integer=True))
        for axes in (above, below):
            axes.grid(visible=False, axis="x")

    half = int(np.searchsorted(np.cumsum(norms[order]), norms.sum() / 2)) + 1 if used else 0
    caption = f"Of {norms.size} sampled patterns of (S), {used} carry more than 0.1\u00a0% of the largest weight"
    if used:
        low, high = active[shown].min(), active[shown].max()
        caption += f", {half} of them half of it; each is active on {low:.0f} to {high:.0f} % of the rows."
    else:
        caption += ": the solution is zero."
    alt = "Two bar charts of the patterns that carry weight: sum of their block norms, and share of rows they are on."
    return "Chosen patterns of (S)", _svg(draw, prefix), f"{alt} {caption}", caption


def _plot_values(section: Section, prefix: str) -> Plot:
    truth, guess = np.ravel(np.asarray(section.truth, float)), np.ravel(np.asarray(section.predictions, float))
    ends = [min(truth.min(), guess.min()), max(truth.max(), guess.max())]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(ends, ends, color=_SOFT, linewidth=1.3, linestyle=":", label="prediction = truth")
        axes.scatter(truth, guess, s=14, color=_BLUE, alpha=0.55, linewidths=0)
        axes.set(xlabel="true value", ylabel="prediction of the network")
        _legend_above(axes, 1)

    error = float(np.sqrt(np.mean((truth - guess) ** 2)))
    spread = float(np.std(truth))
    caption = f"Each dot is one of {truth.size} {section.rows}; the root mean square error is {error:.3g}"
    caption += f", against {spread:.3g} for always guessing their mean."
    alt = "Scatter plot of predicted against true values with the identity line."
    return "Predictions", _svg(draw, prefix, 4.2), f"{alt} {caption}", caption


def _plot_confusion(section: Section, prefix: str) -> Plot:
    names = [str(label) for label in section.classes or ()]
    truth, guess = np.ravel(np.asarray(section.truth)), np.ravel(np.asarray(section.predictions))
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
                colour = _BLUE if row == column else _ORANGE
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
    caption = f"Of {total} {section.rows}, {right} are classified correctly (blue, {_percent(right / max(total, 1))})"
    off = counts - np.diag(np.diag(counts))
    if off.max(initial=0) == 1:
        caption += "; no class is taken for the same other class twice"
    elif off.any():
        row, column = np.unravel_index(np.argmax(off), off.shape)
        caption += f"; the most frequent error takes {names[row]} for {names[column]} ({off[row, column]} times)"
    alt = "Confusion matrix: true classes down, predicted classes across, number of rows in each cell."
    return "Predictions", _svg(draw, prefix, 4.6), f"{alt} {caption}.", f"{caption}."


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
