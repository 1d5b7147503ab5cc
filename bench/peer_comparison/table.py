"""Tables and figure of the peer comparison, from the cells that `bench.peer_comparison` has written."""

from __future__ import annotations

import json
import statistics
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from bench.common.report import FIGURES, markdown_table, put_between_markers

__all__ = ["text", "write"]

GAPS = [1e-2, 1e-3, 1e-4, 1e-6]
NAMES = {
    "ours": "cvxrelu",
    "ours_patterns": "cvxrelu, bare patterns",
    "ours_admm": "cvxrelu, ADMM",
    "adelie": "adelie",
    "scnn": "pyscnn",
    "clarabel": "Clarabel",
    "scs": "SCS",
    "papers_admm": "the papers' ADMM, restated",
    "skglm": "skglm",
    "ours_network": "cvxrelu, refinement (N)",
    "lbfgs": "L-BFGS on the network (N)",
    "adam": "Adam on the network (N)",
}
_NETWORKS = {"ours_network", "lbfgs", "adam"}
_OURS = {"ours", "ours_patterns", "ours_admm", "ours_network"}
SUMMARY = [1e-3, 1e-4]
NOTE = (
    "Seconds to a true relative gap, `median (min-max)` over the seeds; of several runs at falling tolerances the "
    "fastest one that reached the gap. `capped`: not within the cap; `no`: every run ended by itself without reaching "
    "it. Compilation (JIT, or canonicalisation by CVXPY) is apart. Memory is the largest resident set of the process, "
    "and in brackets what it had before the first run; the last column is the worst seed's best gap. (N) marks solvers "
    "of the network program: their objective is held against the bound of the sampled program, and may pass it."
)


def write(cache: Path) -> None:
    """Put the tables and their summary into docs/benchmarks.md, the figure beside it."""
    cells = read(cache)
    if not cells:
        raise SystemExit(f"no cells in {cache}: run python -m bench.peer_comparison first")
    plot(cells)
    figure = "![Seconds to a true gap, per peer](figures/peers.png)"
    put_between_markers("docs/benchmarks.md", "peers", text(cache) + "\n\n" + figure)
    put_between_markers("docs/benchmarks.md", "peers-summary", summary(cells))


def write_whole(cache: Path) -> None:
    """Whole calls to a certified 1e-3, the bound of (N) included, beside the fastest run of adelie that is as good."""
    rows = []
    for (size, fraction), peers in read(cache).items():
        if not ("ours" in peers and "ours_patterns" in peers):
            continue
        calls = [
            statistics.median(
                run["call_seconds"] for cell in peers[name] for run in cell["runs"] if run["name"] == "tol 0.001"
            )
            for name in ("ours", "ours_patterns")
        ]
        found = [_seconds_to(cell, 1e-3) for cell in peers.get("adelie", [])]
        reached = [seconds for seconds in found if seconds is not None]
        adelie = statistics.median(reached) if found and len(reached) == len(found) else None
        ratios = ["-" if adelie is None else f"{seconds / adelie:.2f}" for seconds in calls]
        shown = f"{adelie:.3g}" if adelie is not None else "none" if found else "not run"
        rows.append([f"{size}, {fraction:g}", len(peers["ours"]), *(f"{c:.3g}" for c in calls), shown, *ratios])
    head = ["(n, d, P), beta / beta_max", "seeds", "gates, s", "patterns, s", "adelie, s", "gates / adelie",
            "patterns / adelie"]  # fmt: skip
    put_between_markers("docs/benchmarks.md", "peers-whole", markdown_table(head, rows))


def _seconds_to(cell: dict[str, Any], gap: float) -> float | None:
    """Of the fastest run with a point within the gap, None for none."""
    bound = cell["bound"]
    points = [point for run in cell["runs"] for point in run["points"]]
    within = [p["seconds"] for p in points if (p["objective"] - bound) / p["objective"] <= gap]
    return min(within, default=None)


def read(cache: Path) -> dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]]:
    """(size, fraction) -> peer -> its cells, one per seed; every cell has the best bound of its problem."""
    cells = [json.loads(path.read_text()) for path in sorted(cache.glob("*.json"))]
    bounds: dict[tuple[Any, ...], float] = {}
    for cell in cells:
        bounds[_problem(cell)] = max(cell["lower_bound"], bounds.get(_problem(cell), 0.0))
    found: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for cell in cells:
        cell["bound"] = bounds[_problem(cell)]
        found.setdefault(_problem(cell)[:2], {}).setdefault(cell.get("peer", "reference"), []).append(cell)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], -item[0][1])))


def _problem(cell: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(cell["cell"]["size"]), cell["cell"]["fraction"], cell["cell"]["seed"]


def gap(objective: float, bound: float) -> float:
    """(objective - bound) / objective; negative where a network is better than (S) allows."""
    return (objective - bound) / objective


def seconds_to(cell: dict[str, Any], target: float) -> float | None:
    """Seconds of the first point within the target and the cap over all runs, or None."""
    reached = [
        point["seconds"]
        for run in cell["runs"]
        for point in run["points"]
        if gap(point["objective"], cell["bound"]) <= target and point["seconds"] <= cell["cap"]
    ]
    return min(reached, default=None)


def best_gap(cell: dict[str, Any]) -> float:
    """The smallest true gap of any judged point."""
    points = [point for run in cell["runs"] for point in run["points"]]
    return min((gap(point["objective"], cell["bound"]) for point in points), default=float("inf"))


def compile_seconds(cell: dict[str, Any]) -> float:
    """Canonicalisation, or what the first call took beyond the same call again."""
    seconds = {run["name"]: run.get("seconds", float("nan")) for run in cell["runs"]}
    if "compile" in seconds:
        return seconds["compile"]
    again = [run.get("call_seconds", run.get("seconds", 0.0)) for run in cell["runs"][1:2]]
    return max(0.0, seconds["first"] - again[0]) if "first" in seconds and again else 0.0


def text(cache: Path) -> str:
    """All tables as Markdown."""
    cells = read(cache)
    parts = [_paragraph(size, fraction, peers) for (size, fraction), peers in cells.items()]
    return "\n\n".join([NOTE, _circumstances(cells), *parts])


def _circumstances(cells: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]]) -> str:
    """Machine, load and versions, as the cells of the peers have them."""
    runs = [cell for peers in cells.values() for peer, found in peers.items() if peer != "reference" for cell in found]
    if not runs:
        return "No cell yet."
    versions = sorted(
        {f"{k} {v}" for cell in runs for k, v in {**cell["environment"]["versions"], **cell["versions"]}.items()}
    )
    loads = [load[0] for cell in runs for load in cell["load"]]
    machine = ", ".join(sorted({f"{c['environment']['processor']}, {c['environment']['cores']} cores" for c in runs}))
    dates = sorted({cell["environment"]["date"] for cell in runs})
    caps = sorted({cell["cap"] for cell in runs})
    return (
        f"{machine}; one thread per solver; load of the machine {min(loads):.1f} to {max(loads):.1f}; "
        f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}; cap {', '.join(f'{cap:g}' for cap in caps)} s per run. "
        f"Versions: {', '.join(versions)}."
    )


def _paragraph(size: tuple[int, ...], fraction: float, peers: dict[str, list[dict[str, Any]]]) -> str:
    references = peers.get("reference", [])
    known = []
    for reference in references:
        smallest = [gap(reference["objective"], reference["bound"])]
        for peer in NAMES.keys() - _NETWORKS:
            smallest += [best_gap(cell) for cell in peers.get(peer, []) if cell["bound"] == reference["bound"]]
        known.append(min(smallest))
    header = ["solver", *(f"to {target:g}" for target in GAPS), "compile s", "memory MB", "best gap"]
    rows = [_row(peer, peers[peer]) for peer in NAMES if peer in peers]
    title = f"(n, d, P) = {size}, beta = {fraction:g} beta_max, {len(references)} seeds; "
    title += f"optimum known to {max(known, default=float('nan')):.1e}"
    absent = [name for peer, name in NAMES.items() if peer not in peers]
    note = f"\n\nNot run: {', '.join(absent)}." if absent else ""
    return f"**{title}**\n\n{markdown_table(header, rows)}{note}"


def summary(cells: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]]) -> str:
    """Seconds of ours and of the fastest peer, seed by seed: medians, and how many times the peer's time is ours."""
    rows = []
    for (size, fraction), peers in cells.items():
        ours = {cell["cell"]["seed"]: cell for cell in peers.get("ours", [])}
        row: list[Any] = [f"{size}, {fraction:g}"]
        for target in SUMMARY:
            pairs = [
                (mine, min(theirs, key=lambda item: item[0]))
                for seed, cell in ours.items()
                if (mine := seconds_to(cell, target)) is not None and (theirs := _peers_seconds(peers, seed, target))
            ]
            row += _summary_entry(pairs) if pairs and len(pairs) == len(ours) else ["", "", ""]
        rows.append(row)
    header = ["(n, d, P), beta / beta_max"]
    for target in SUMMARY:
        header += [f"s to {target:g}", "fastest peer", "times ours"]
    return markdown_table(header, rows)


def _peers_seconds(peers: dict[str, list[dict[str, Any]]], seed: int, target: float) -> list[tuple[float, bool, str]]:
    """(seconds, whether it got there, name) of every peer on a seed; for those that were stopped, the cap."""
    found = []
    for peer, cells in peers.items():
        if peer in NAMES.keys() - _OURS - _NETWORKS:
            for cell in cells:
                if cell["cell"]["seed"] == seed and cell["runs"]:
                    seconds = seconds_to(cell, target)
                    found.append((cell["cap"] if seconds is None else seconds, seconds is not None, NAMES[peer]))
    return found


def _summary_entry(pairs: list[tuple[float, tuple[float, bool, str]]]) -> list[str]:
    """Median of ours, that of the fastest peers with a name, median and range of the ratios."""
    fastest = sorted(found for _, found in pairs)
    seconds, arrived, name = fastest[len(fastest) // 2]
    ratios = sorted(theirs / mine for mine, (theirs, _, _) in pairs)
    sign = "" if all(arrived for _, arrived, _ in fastest) else "> "
    who = f"{name} {seconds:.3g}" if arrived else f"none in {seconds:.3g}"
    shown = [f"{value:.2g}" if value < 100 else f"{value:.0f}" for value in (statistics.median(ratios), *ratios)]
    spread = "" if len(ratios) == 1 else f" ({shown[1]}-{shown[-1]})"
    return [
        f"{statistics.median(mine for mine, _ in pairs):.3g}",
        who,
        f"{sign}{shown[0]}{spread}",
    ]


def _row(peer: str, cells: list[dict[str, Any]]) -> list[Any]:
    if all(not cell["runs"] for cell in cells):
        return [NAMES[peer], cells[0]["note"] or cells[0]["outcome"], *[""] * 6]
    entries = [_entry([seconds_to(cell, target) for cell in cells], cells) for target in GAPS]
    memory = statistics.median(cell["memory"] for cell in cells) / 1e6
    before = statistics.median(cell["memory_before"] or 0 for cell in cells) / 1e6
    compiling = statistics.median(compile_seconds(cell) for cell in cells)
    worst = max(best_gap(cell) for cell in cells)
    return [NAMES[peer], *entries, f"{compiling:.2g}", f"{memory:.0f} ({before:.0f})", f"{worst:.1e}"]


def _entry(seconds: list[float | None], cells: list[dict[str, Any]]) -> str:
    """`median (min-max)`; seeds that did not get there count as infinite and are named."""
    reason = next((cell["outcome"] for cell in cells if cell["outcome"] != "ended"), "no").split(":")[0]
    values = sorted(float("inf") if s is None else s for s in seconds)
    shown = [reason if value == float("inf") else f"{value:.3g}" for value in values]
    if len(values) == 1:
        return shown[0]
    if values[0] == float("inf"):
        return reason
    middle = shown[len(shown) // 2] if len(shown) % 2 else f"{statistics.median(values):.3g}".replace("inf", reason)
    return f"{middle} ({shown[0]}-{shown[-1]})"


def plot(cells: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]]) -> None:
    """Median seconds against the gap, a panel per problem, a line per peer; above the cap those that did not get there.

    An open triangle is a solver that was stopped by the cap, a cross one that ended by itself without reaching the gap:
    left out, a solver that fails would look like one that was not tried.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    columns = 2
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(10, 3.6 * rows), squeeze=False, sharey=True,
                                constrained_layout=True)  # fmt: skip
    for axis in axes.flat[len(cells) :]:
        axis.set_visible(False)
    colours = {peer: f"C{k % 10}" for k, peer in enumerate(NAMES)}
    lines: dict[str, Any] = {}
    for axis, ((size, fraction), peers) in zip(axes.flat, cells.items(), strict=False):
        cap = max(cell["cap"] for found in peers.values() for cell in found if "cap" in cell)
        lines["cap"] = axis.axhline(cap, color="0.6", linestyle=":")
        tried = [peer for peer in NAMES.keys() - _NETWORKS if any(cell["runs"] for cell in peers.get(peer, []))]
        tried.sort(key=[*NAMES].index)
        above = dict.fromkeys(GAPS, 0)  # how many markers stand there already
        for peer in tried:
            medians = [_median([seconds_to(cell, target) for cell in peers[peer]]) for target in GAPS]
            [lines[NAMES[peer]]] = axis.loglog(GAPS, medians, "o-", color=colours[peer])
            for target in (target for target, median in zip(GAPS, medians, strict=True) if np.isnan(median)):
                capped = was_capped(peers[peer])
                axis.plot(target, cap * 1.5 * 1.45 ** above[target], "^" if capped else "x", color=colours[peer],
                          markerfacecolor="none", clip_on=False)  # fmt: skip
                above[target] += 1
        axis.set(title=f"n, d, P = {size}, {fraction:g} beta_max")
        axis.set(xlabel="true gap, share of the objective", ylabel="time, s\n(above the cap: not reached)")
        if absent := [name for peer, name in NAMES.items() if peer not in (*tried, *_NETWORKS)]:
            words = textwrap.fill(f"not run: {', '.join(absent)}", 60)
            axis.text(0.02, 0.03, words, transform=axis.transAxes, fontsize=8, color="0.35", va="bottom")
        axis.invert_xaxis()
    axes[0, 0].set_ylim(bottom=axes[0, 0].get_ylim()[0] / 3)  # room for who was not run
    for words, marker in (("stopped by the cap", "^"), ("ended without reaching it", "x")):
        lines[words] = plt.Line2D([], [], marker=marker, color="0.3", markerfacecolor="none", linestyle="none")
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "peers.png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def was_capped(cells: list[dict[str, Any]]) -> bool:
    """Whether seeds were stopped by the cap, or failed, rather than ended by themselves."""
    return any(cell["outcome"] != "ended" for cell in cells)


def _median(seconds: list[float | None]) -> float:
    """Median with missing values as infinite; NaN, which is not drawn, where that is infinite."""
    value = statistics.median(float("inf") if s is None else s for s in seconds)
    return value if np.isfinite(value) else float("nan")
