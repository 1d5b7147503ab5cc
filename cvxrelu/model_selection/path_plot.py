"""The plot of a regularisation path: up to four panels over one axis, beta falling to the right."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.support.files import atomic_write
from cvxrelu.support.pages.svg import load_matplotlib

__all__ = ["plot_path"]

_INK, _SOFT, _LINE = "#1c2024", "#6b737b", "#dcdfe2"
_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072b2", "#d55e00", "#00805c", "#a9467f"
_STYLE = {
    "svg.hashsalt": "cvxrelu",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _SOFT,
    "axes.titlecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": True,
    "legend.fancybox": False,
    "legend.edgecolor": "white",
    "legend.framealpha": 0.9,
    "legend.fontsize": 9,
}
_ENDINGS = (".png", ".svg", ".pdf")
_SCORES = {"r2": "R²", "neg_mean_squared_error": "minus mean squared error"}


def plot_path(
    path: str | os.PathLike[str] | None,
    axes: Any,
    *,
    betas: np.ndarray,
    objectives: np.ndarray,
    lower_bounds: np.ndarray,
    gaps: np.ndarray,
    tol: float | None,
    n_neurons: np.ndarray,
    scores: np.ndarray | None,
    errors: np.ndarray | None,
    best: int | None,
    best_1se: int | None,
    score: str | None,
    certificate: str | None,
) -> Any:
    """Draw into new axes or those given, write the figure if a file is named, and return it; see `Path.plot`."""
    if betas.size == 0:
        raise ValueError("the path has no point to draw")
    file = None if path is None else _as_file(path)
    tools, count = load_matplotlib(), 3 if scores is None else 4
    if axes is not None and len(axes := list(np.ravel(np.asarray(axes, dtype=object)))) != count:
        raise ValueError(f"axes must be {count} matplotlib axes, got {len(axes)}")
    with tools.rc_context(_STYLE):
        if axes is None:
            figure = tools.Figure(figsize=(10.5, 3.3) if count == 3 else (9.0, 5.8), layout="constrained")
            grid = figure.subplots(*((1, 3) if count == 3 else (2, 2)), sharex=True)
            axes = list(grid.flat)
            figure.get_layout_engine().set(w_pad=0.1, h_pad=0.09)
        _objectives(axes[0], betas, objectives, lower_bounds, certificate or "")
        _gaps(axes[1], betas, gaps, tol)
        _neurons(axes[2], betas, n_neurons)
        if scores is not None and errors is not None and best is not None and best_1se is not None:
            _scores(axes[3], betas, scores, errors, best, best_1se, _SCORES.get(score or "", "score"))
            for panel in axes[:3]:
                _choices(panel, betas, best, best_1se)
        for panel in axes:
            _falling(panel, betas, bottom=panel in axes[-2:] or count == 3)
        figure = axes[0].figure
        if file is not None:
            buffer = io.BytesIO()
            dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(file.suffix)
            figure.savefig(buffer, format=file.suffix[1:], dpi=150, facecolor="white", metadata=dated)
            atomic_write(file, buffer.getvalue())
    return figure


def _as_file(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.suffix not in _ENDINGS:
        raise ValueError(f"path must end in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}, got {str(file)!r}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file}: the folder {file.parent} does not exist")
    return file


def _falling(axes: Any, betas: np.ndarray, bottom: bool) -> None:
    """A log axis of beta, from large to small, with plain numbers at its ticks."""
    ticker = load_matplotlib().ticker
    low, high = float(betas.min()), float(betas.max())
    margin = max((high / low) ** 0.03, 1.05)
    axes.set_xscale("log")
    axes.set_xlim(high * margin, low / margin)
    few = high / low < 30  # then decades alone would be too few labels
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    if bottom:
        axes.set_xlabel("beta")


def _dots(axes: Any, x: np.ndarray, y: np.ndarray, colour: str, **options: Any) -> None:
    """A line through all points; a dot on each while they can be told apart, whole where it sits on the axis."""
    style = {"linewidth": 1.6, "marker": "o" if x.size <= 60 else None, "markersize": 3.2, "markeredgewidth": 0}
    axes.plot(x, y, color=colour, clip_on=False, **style, **options)


def _objectives(
    axes: Any, betas: np.ndarray, objectives: np.ndarray, lower_bounds: np.ndarray, certificate: str
) -> None:
    nature = {"priced": ": priced, an estimate"}.get(certificate, f": {certificate}, rigorous")
    _dots(axes, betas, objectives, _BLUE, label="network")
    label = f"down to the lower bound{nature if certificate else ''}"
    axes.fill_between(betas, lower_bounds, objectives, color=_BLUE, alpha=0.25, linewidth=0, label=label)
    axes.set_title("Objective")
    axes.set_ylim(0, 1.06 * max(float(objectives.max()), 1e-300))
    axes.legend(loc="lower left")


def _gaps(axes: Any, betas: np.ndarray, gaps: np.ndarray, tol: float | None) -> None:
    percent = 100 * gaps
    axes.fill_between(betas, 0, percent, color=_ORANGE, alpha=0.18, linewidth=0)
    _dots(axes, betas, percent, _ORANGE)
    if tol is not None:
        axes.axhline(100 * tol, color=_SOFT, linewidth=1.2, linestyle=":")
        axes.annotate(
            "tol", (1, 100 * tol), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
            ha="right", color=_SOFT,
        )  # fmt: skip
    axes.set_title("Gap, % of the objective")
    axes.set_ylim(0, 1.15 * max(float(percent.max()), 100 * (tol or 0.0), 1e-12))


def _neurons(axes: Any, betas: np.ndarray, n_neurons: np.ndarray) -> None:
    _dots(axes, betas, n_neurons, _GREEN)
    axes.set_title("Neurons")
    axes.set_ylim(0, max(1.0, 1.08 * float(n_neurons.max())))
    axes.yaxis.set_major_locator(load_matplotlib().ticker.MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def _scores(
    axes: Any, betas: np.ndarray, scores: np.ndarray, errors: np.ndarray, best: int, best_1se: int, name: str
) -> None:
    axes.fill_between(betas, scores - errors, scores + errors, color=_PURPLE, alpha=0.18, linewidth=0)
    _dots(axes, betas, scores, _PURPLE)
    _choices(axes, betas, best, best_1se)
    axes.plot(betas[best], scores[best], "o", color=_PURPLE, markersize=7, label=f"best, beta {betas[best]:.3g}")
    if best_1se != best:
        label = f"within one standard error, beta {betas[best_1se]:.3g}"
        axes.plot(
            betas[best_1se], scores[best_1se], "o", markerfacecolor="white", markeredgecolor=_PURPLE, markersize=7,
            markeredgewidth=1.6, label=label,
        )  # fmt: skip
    axes.set_title(f"Cross-validated {name}, ± standard error")
    axes.legend(loc="lower right")


def _choices(axes: Any, betas: np.ndarray, best: int, best_1se: int) -> None:
    """Thin vertical lines where scores would stop: dashed at the best, dotted at one standard error from it."""
    for index, dash in {best_1se: (0, (1, 2)), best: (0, (4, 2))}.items():
        axes.axvline(betas[index], color=_SOFT, linewidth=1.0, linestyle=dash, zorder=1)
