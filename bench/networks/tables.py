"""The tables of `bench.networks`, made from its cells: every cell that is there, misses included."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from bench.common.datasets import PROBLEMS
from bench.common.report import markdown_table, put_between_markers
from bench.networks.cells import FRACTIONS, TARGET, load, path_of

__all__ = ["render", "write"]

PAGE = "docs/benchmarks.md"
Row = dict[str, Any]  # a problem, its beta, and the cells there are


def write(cache: Path) -> None:
    """Put the tables into the page of benchmarks."""
    rows = collect(cache)
    tables = {
        "networks": f"{summary(rows)}\n\n{main_table(rows)}",
        "networks-baselines": baselines_table(rows),
        "networks-sampled": sampled_table(rows),
        "networks-text": text_table(cache),
    }
    for marker, text in tables.items():
        put_between_markers(PAGE, marker, text)
    print(summary(rows))


def render(cache: Path) -> str:
    """All tables as one text."""
    rows = collect(cache)
    parts = [summary(rows), main_table(rows), baselines_table(rows), sampled_table(rows), text_table(cache)]
    return "\n\n".join(parts)


def collect(cache: Path) -> list[Row]:
    rows = []
    for name in PROBLEMS:
        sizes = load(path_of(cache, name, "beta_max"))
        if sizes is None:
            continue
        for fraction in FRACTIONS:
            cells = {stage: load(path_of(cache, name, stage, fraction)) for stage in ("baselines", "sampled", "ours")}
            if any(cells.values()):
                rows.append({"name": name, "n": sizes["n"], "d": sizes["d"], "fraction": fraction, **cells})
    return rows


def met(row: Row) -> dict[str, bool]:
    """The four targets of a cell: objective, time to that objective, time of the whole solve, gap by both pricings."""
    ours, best = row["ours"], row["baselines"]["objective"]
    allowed = 1e-3 if row["fraction"] >= 0.1 else 1e-2
    return {
        "objective": ours["independent"]["objective"] <= TARGET * best,
        "time": ours["target_ratio"] is not None and ours["target_ratio"] <= 0.2,
        "whole": ours["whole_ratio"] <= 1.0,
        "gap": max(ours["gap"], ours["independent"]["gap"]) <= allowed,
    }


def complete(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["ours"] and row["baselines"]]


def summary(rows: list[Row]) -> str:
    """How many cells meet each target, and the medians."""
    done = complete(rows)
    if not done:
        return "No cell of `ours` yet."
    targets = [met(row) for row in done]
    count = {name: f"{sum(target[name] for target in targets)} of {len(done)}" for name in targets[0]}

    def middle(values: list[float]) -> float:
        return statistics.median(values)

    objective = [row["ours"]["independent"]["objective"] / row["baselines"]["objective"] for row in done]
    to_target = [ratio for row in done if (ratio := row["ours"]["target_ratio"]) is not None]
    lines: list[list[Any]] = [
        ["objective at most 1.0005 x the best of six runs", count["objective"], f"{middle(objective):.5f} x"],
        ["that objective in at most 1/5 of one L-BFGS run", count["time"], middle(to_target) if to_target else "-"],
        ["whole solve within one L-BFGS run", count["whole"], middle([row["ours"]["whole_ratio"] for row in done])],
        ["gap at most 1e-3 (beta >= 0.1 beta_max), 1e-2 (below), by both pricings", count["gap"],
         middle([row["ours"]["independent"]["gap"] for row in done])],
    ]  # fmt: skip
    return markdown_table(["target", "met", "median"], lines)


def main_table(rows: list[Row]) -> str:
    """Ours beside the best baseline, one row per problem and beta."""
    table = []
    for row in complete(rows):
        ours, base = row["ours"], row["baselines"]
        target = met(row)
        misses = ", ".join(name for name, good in target.items() if not good)
        own = ours["lbfgs_seconds_to_target"]
        table.append(
            [row["name"], f"{row['n']} x {row['d']}", f"{row['fraction']:g}",
             f"{base['objective']:.6g}", base["best"], f"{ours['independent']['objective'] / base['objective']:.5f}",
             ours["lbfgs_seconds"], "never" if own is None else own / ours["lbfgs_seconds"],
             "never" if ours["target_ratio"] is None else ours["target_ratio"], ours["whole_ratio"],
             f"{ours['gap']:.1e}", f"{ours['independent']['gap']:.1e}",
             ours["neurons"], ours["rounds"], ours["status"], f"no: {misses}" if misses else "yes"]
        )  # fmt: skip
    header = ["problem", "n x d", "beta / beta_max", "best baseline", "which", "ours / best", "L-BFGS s",
              "L-BFGS to 1.0005 best / L-BFGS", "ours to 1.0005 best / L-BFGS", "ours whole / L-BFGS", "priced gap",
              "independent gap", "neurons", "rounds", "status", "met"]  # fmt: skip
    return markdown_table(header, table)


def baselines_table(rows: list[Row]) -> str:
    """All six runs: objective above the best of them, and seconds."""
    table = []
    names: list[str] = []
    for row in rows:
        if row["baselines"]:
            runs, best = row["baselines"]["runs"], row["baselines"]["objective"]
            names = list(runs)
            cells = [f"{run['objective'] / best - 1:.1e} ({run['seconds']:.2g} s)" for run in runs.values()]
            table.append([row["name"], f"{row['fraction']:g}", f"{best:.6g}", *cells])
    return markdown_table(["problem", "beta / beta_max", "best", *names], table)


def sampled_table(rows: list[Row]) -> str:
    """What sampling costs: (S) and its bound, and the network read off from it, against the best network known."""
    table = []
    for row in rows:
        if not row["sampled"]:
            continue
        known = [row[stage]["objective"] for stage in ("baselines", "ours") if row[stage]]
        best = min(known) if known else None
        cells = []
        for cell in row["sampled"]["patterns"].values():
            values = [cell["objective"], cell["lower_bound"], cell["network_objective"]]
            shown = [f"{value / best:.3g}" if best else f"{value:.5g}" for value in values]
            cells.append(f"{shown[0]} (>= {shown[1]}); {shown[2]}; {cell['seconds']:.2g} s")
        table.append([row["name"], f"{row['fraction']:g}", f"{best:.6g}" if best else "-", *cells])
    patterns = next((list(row["sampled"]["patterns"]) for row in rows if row["sampled"]), [])
    header = ["problem", "beta / beta_max", "best network known", *(f"P = {P}" for P in patterns)]
    return markdown_table(header, table)


def text_table(cache: Path) -> str:
    """Sentence polarity: accuracy on the test rows beside logistic regression on the same features."""
    table = []
    for path in sorted((cache / "sentence-polarity").glob("*.json")):
        cell = load(path)
        if cell:
            table.append(
                [cell["features"], f"{cell['n']} x {cell['d']}", f"{cell['fraction']:g}",
                 f"{100 * cell['accuracy']:.1f} %", f"{100 * cell['lbfgs_accuracy']:.1f} %",
                 f"{100 * cell['logistic_accuracy']:.1f} % (C = {cell['C']:g})",
                 f"{cell['objective'] / cell['lbfgs_objective']:.5f}", f"{cell['gap']:.1e}",
                 f"{cell['independent']['gap']:.1e}", cell["neurons"], cell["seconds"], cell["lbfgs_seconds"]]
            )  # fmt: skip
    header = ["features", "n x d", "beta / beta_max", "ours", "L-BFGS network", "logistic regression",
              "ours / L-BFGS objective", "priced gap", "independent gap", "neurons", "seconds", "L-BFGS s"]  # fmt: skip
    return markdown_table(header, table) if table else "No cell yet."
