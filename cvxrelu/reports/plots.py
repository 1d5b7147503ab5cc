"""The drawings of how a problem was solved, one function each."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxrelu.runs.solution import Certificate, Solution
from cvxrelu.support.pages.svg import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SOFT,
    Plot,
    decades,
    legend_above,
    line,
    load_matplotlib,
    named,
    number,
    percent,
    svg,
)

__all__ = ["draw_plots"]


def draw_plots(solution: Solution, prefix: str, proof: Certificate | None = None) -> list[Plot]:
    """The drawings of how a problem was solved, without those there is nothing to show in.

    `proof` is a rigorous certificate beside that of the solution; `prefix` makes the ids of these drawings differ from
    all others on the page.
    """
    plots: list[Plot] = []
    if len(solution.history):
        plots.append(_plot_progress(solution, proof, f"{prefix}a"))
        if any(np.isfinite(_column(solution, name)).any() for name in ("gap", "sampled_gap")):
            plots.append(_plot_gaps(solution, f"{prefix}b"))
        if "iteration" in solution.history.columns:
            plots.append(_plot_residuals(solution, f"{prefix}c"))
    if solution.sampled is not None:
        plots.append(_plot_patterns(solution, f"{prefix}d"))
    elif solution.network.n_neurons:
        plots.append(_plot_neurons(solution, f"{prefix}d"))
    return plots


def _column(solution: Solution, name: str, positive: bool = True) -> np.ndarray:
    """A column of the history, NaN where it was not recorded, with `positive` also where a log axis cannot show it."""
    history = solution.history
    values = np.asarray(history[name], float) if name in history.columns else np.full(len(history), np.nan)
    return np.where(values > 0, values, np.nan) if positive else values


def _from_to(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    if not values.size:
        return "was not measured"
    if values.size == 1:
        return f"was {percent(values[0])}"
    return f"went from {percent(values[0])} to {percent(values[-1])}"


def _plot_progress(solution: Solution, proof: Certificate | None, prefix: str) -> Plot:
    """Objective of (N) and its bounds above, the number of neurons below."""
    refining = np.isfinite(_column(solution, "round", positive=False))
    seconds, priced = (_column(solution, name, positive=False) for name in ("time", "priced"))
    priced = np.where(refining, priced, seconds)
    objective, bound, count = (
        _column(solution, name, positive=False) for name in ("objective", "lower_bound", "n_neurons")
    )
    certificate = solution.certificate
    guessed = refining if certificate.kind != "exact" else np.zeros_like(refining)
    rigorous = [each for each in (certificate, proof) if each is not None and each.rigorous]
    proven = max((each.lower_bound for each in rigorous), default=np.nan)
    end = np.fmax(seconds, priced)[-1:]  # both stay what they are while the last pricing runs
    held = np.concatenate([seconds, end])
    known = objective[np.isfinite(objective)]
    top = min(1.05 * known.max(), 2.0 * known[-1]) if known.size and known[-1] > 0 else None  # the start is far above
    objective, count = (np.concatenate([values, values[-1:]]) for values in (objective, count))
    handover = seconds[refining][0] if refining.any() and not refining.all() else None

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        line(above, held, objective, "objective", ORANGE, "-")
        if guessed.any():
            line(above, priced[guessed], bound[guessed], "estimated bound", GREEN, "--")
        if not guessed.all():
            line(above, priced[~guessed], bound[~guessed], "proven bound", PURPLE, "-.")
        if np.isfinite(proven) and not proven <= 1.001 * np.nanmax(bound[~guessed], initial=0.0):
            label = "proven bound" if guessed.all() else "proven at the end"
            above.axhline(proven, color=PURPLE, linewidth=1.5, linestyle="-.", label=label)
        above.set(ylabel="objective of (N)", ylim=(0, top))
        line(below, held, count, "neurons", BLUE, "-")
        below.set(xlabel="time, s", ylabel="neurons", xlim=(0, None))
        below.set_ylim(0, max(1.0, below.get_ylim()[1]))
        below.yaxis.set_major_locator(load_matplotlib().ticker.MaxNLocator(nbins=4, integer=True))
        for axes in (above, below):
            if handover is not None:
                axes.axvline(handover, color=SOFT, linewidth=1.3, linestyle=":")
        legend_above(above, 3)

    caption = "The objective of (N) "
    caption += f"falls from {number(known[0], 4)} to " if known.size > 1 else "is "
    caption += (
        f"{number(solution.objective, 5)} with {solution.network.n_neurons} neurons; the optimum lies between it and "
    )
    if certificate.rigorous:
        caption += f"the bound of {number(solution.lower_bound, 5)}, which is proven."
    else:
        caption += f"the bound of {number(solution.lower_bound, 5)}, if the estimate is right"
        caption += f", and above {number(proven, 5)} for sure." if np.isfinite(proven) else "."
    if handover is not None:
        caption += " The dotted line is where the sampled program (S) ends and refinement starts."
    alt = "Two line plots against seconds: objective of the network program (N) with its lower bound, and neurons."
    return "Objective and bound", svg(draw, prefix, 4.2), f"{alt} {caption}", caption


def _plot_gaps(solution: Solution, prefix: str) -> Plot:
    seconds = np.asarray(solution.history["time"], float)
    sampled, network, priced = (_column(solution, name) for name in ("sampled_gap", "gap", "priced"))
    known = np.where(np.isfinite(priced), priced, seconds)  # a gap is known when the pricing is done
    tol = solution.settings.get("tol")
    both = bool(np.isfinite(sampled).any())

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        decades(axes, sampled, network, np.array([tol or np.nan], float))
        if both:
            line(axes, seconds, sampled, "(S) sampled program", BLUE, "-")
        line(axes, known, network, "(N) network program", ORANGE, "--")
        if tol:
            axes.axhline(tol, color=SOFT, linewidth=1.3, linestyle=":", label="tol")
        axes.set(xlabel="time, s", ylabel="gap, share of the objective", xlim=(0, None))
        legend_above(axes, 3)

    certificate, nature = solution.certificate, "with a proven bound"
    if np.isfinite(_column(solution, "round", positive=False)).any() and certificate.kind != "exact":
        nature = "as ascents estimate it"
    caption = (
        f"The gap of (S) {_from_to(sampled)}; that of (N), {nature}, {_from_to(network)}."
        if both
        else (f"The gap of (N), {nature}, {_from_to(network)}.")
    )
    if certificate.rigorous and certificate.gap < 0.99 * np.nanmin(network, initial=np.inf):
        caption = f"{caption[:-1]}, and is {percent(certificate.gap)} by the certificate made at the end."
    programs = "the sampled program (S) and the network program (N)" if both else "the network program (N)"
    alt = f"Line plot of the relative gap of {programs} against seconds, on a log axis."
    return "Gap against time", svg(draw, prefix), f"{alt} {caption}", caption


def _plot_neurons(solution: Solution, prefix: str) -> Plot:
    """The shares that single neurons have in the penalty, largest first."""
    network = solution.network
    first = (
        network.first_layer if network.hidden_bias is None else np.vstack([network.first_layer, network.hidden_bias])
    )
    second = network.second_layer.reshape(network.n_neurons, -1)
    sizes = np.linalg.norm(first, axis=0) * np.linalg.norm(second, axis=1)
    order = np.argsort(-sizes)
    share = 100 * sizes[order] / sizes.sum()
    single = second.shape[1] == 1
    falls = second[order].sum(axis=1) < 0 if single else np.zeros(sizes.size, bool)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        place = np.arange(1, sizes.size + 1)
        width = 0.85 if sizes.size <= 100 else 1.0
        if single:
            bars = [*axes.bar(place[~falls], share[~falls], color=BLUE, width=width, label="adds to the output")]
            bars += [*axes.bar(place[falls], share[falls], color=ORANGE, width=width, label="takes from it")]
            legend_above(axes, 2)
        else:
            bars = [*axes.bar(place, share, color=BLUE, width=width)]
        for bar in bars:
            named(bar, f"neuron {bar.get_center()[0]:.0f}: {bar.get_height():.3g} % of the penalty")
        axes.set(xlabel="neuron, largest first", ylabel="share of the penalty, %", ylim=(0, None))
        axes.set_xlim(0.5 - 0.02 * sizes.size, sizes.size + 0.5 + 0.02 * sizes.size)
        axes.xaxis.set_major_locator(load_matplotlib().ticker.MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")

    half = int(np.searchsorted(np.cumsum(share), 50.0 - 1e-9)) + 1
    caption = f"The network has {sizes.size} neurons; {half} of them hold half of the weight that beta penalises"
    caption += f", the largest {share[0]:.2g}\u00a0%."
    if single:
        caption += f" {int((~falls).sum())} add to the output, {int(falls.sum())} take from it."
    alt = "Bar chart of the share of each neuron in the penalty, largest first."
    return "Neurons", svg(draw, prefix), f"{alt} {caption}", caption


def _plot_residuals(solution: Solution, prefix: str) -> Plot:
    iterations = np.asarray(solution.history["iteration"], float)
    lines = (
        ("primal_copy", "primal, copy", BLUE, "-"),
        ("dual_copy", "dual, copy", BLUE, "--"),
        ("primal_cone", "primal, cone", ORANGE, "-"),
        ("dual_cone", "dual, cone", ORANGE, "--"),
    )
    residuals = [_column(solution, name) for name, *_ in lines]
    penalties = [_column(solution, name) for name in ("rho_copy", "rho_cone")]

    at = "iteration {:.0f}"

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        decades(above, *residuals)
        for (_, label, colour, dash), values in zip(lines, residuals, strict=True):
            line(above, iterations, values, label, colour, dash, at)
        above.set(ylabel="relative residual")
        legend_above(above, 2)
        decades(below, *penalties)
        line(below, iterations, penalties[0], "copy", GREEN, "-", at)
        line(below, iterations, penalties[1], "cone", PURPLE, "--", at)
        below.set(xlabel="iteration", ylabel="penalty rho")
        below.legend(loc="best", ncols=2)

    ends = [values[np.isfinite(values)][-1:] for values in residuals]
    last = np.concatenate(ends) if ends else np.array([])
    caption = "The residuals of (S), scaled by the size of the iterate, and the two penalties that balance them"
    caption += f"; the largest residual ends at {last.max():.1e}." if last.size else "."
    alt = "Two line plots against the iteration, on log axes: four relative residuals above, two penalties below."
    return "Residuals and penalties of (S)", svg(draw, prefix, 4.2), f"{alt} {caption}", caption


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
        for bar in above.bar(place, norms[shown], color=BLUE, width=0.85):
            named(bar, f"pattern {bar.get_center()[0]:.0f}: norm {bar.get_height():.3g}")
        above.set(ylabel="norm of blocks", ylim=(0, None))
        for bar in below.bar(place, active[shown], color=ORANGE, width=0.85):
            named(bar, f"pattern {bar.get_center()[0]:.0f}: on for {bar.get_height():.3g} % of the rows")
        below.axhline(50, color=SOFT, linewidth=1.3, linestyle=":")
        below.set(xlabel="pattern, largest first", ylabel="rows active, %", ylim=(0, 100), yticks=(0, 50, 100))
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
    return "Chosen patterns of (S)", svg(draw, prefix), f"{alt} {caption}", caption
