"""The sampled program of every loss by Newton and by ADMM: process seconds to a certified gap.

`python -m bench.sampled_methods [--sizes n,d,P ...] [--betas ...] [--losses ...] [--tol TOL] [--cap SECONDS]
[--write-docs]`

Planted problems: X Gaussian, targets, labels or preferences between random rows from the outputs of ten neurons with
noise; beta a fraction of `beta_max` of the patterns. Seconds are those of the process, of one call of
`solve(refine=False)` up to the certified end of (S); set OMP_NUM_THREADS=1 and its like. A run that did not reach the
gap within the cap, in seconds on the clock, is given as more than what it took. Cells that
bench/results/sampled-methods.json has are replaced, the others kept.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

import cvxrelu
from bench.common.report import RESULTS, markdown_table, put_between_markers, save_json

__all__ = ["main"]

SIZES = ["200,10,50", "1000,20,100"]
LOSSES = ["squared", "logistic", "pairs", "multinomial"]
METHODS = {"newton": {}, "admm": {"linear_solver": "auto", "max_iter": 20_000}}


def problem(loss: str, n: int, d: int) -> dict[str, Any]:
    """Arguments of `solve`."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    outputs = np.maximum(X @ rng.standard_normal((d, 10)) / np.sqrt(d), 0) @ rng.standard_normal((10, 3))
    outputs = (outputs - outputs.mean(axis=0)) / outputs.std(axis=0)
    first = outputs[:, 0]
    if loss == "squared":
        return {"X": X, "y": first + 0.3 * rng.standard_normal(n)}
    if loss == "logistic":
        return {"X": X, "y": np.where(first + 0.3 * rng.logistic(size=n) > 0, 1.0, -1.0), "loss": "logistic"}
    if loss == "multinomial":
        return {"X": X, "y": (outputs + 0.5 * rng.gumbel(size=outputs.shape)).argmax(axis=1), "loss": "multinomial"}
    pairs = np.stack([rng.choice(n, 2, replace=False) for _ in range(n)])
    wrong = first[pairs[:, 0]] - first[pairs[:, 1]] + 0.3 * rng.logistic(size=n) < 0
    pairs[wrong] = pairs[wrong, ::-1]
    return {"X": X, "loss": "logistic", "pairs": pairs}


def measure(loss: str, size: tuple[int, int, int], fraction: float, tol: float, cap: float) -> dict[str, Any]:
    n, d, P = size
    data = problem(loss, n, d)
    patterns, gates = cvxrelu.sample_patterns(data["X"], P, 0)
    beta = fraction * cvxrelu.beta_max(**data, patterns=patterns)
    cell: dict[str, Any] = {"loss": loss, "size": size, "fraction": fraction, "tol": tol}
    for method, options in METHODS.items():
        seen: list[float] = []

        def note(_: Any, seen: list[float] = seen) -> None:
            seen.append(time.process_time())

        started = time.process_time()
        solution = cvxrelu.solve(
            **data, beta=beta, patterns=gates, refine=False, tol=tol, backend="numpy", time_limit=cap, callback=note,
            **options,
        )  # fmt: skip
        cell[method] = {
            "seconds": seen[-1] - started, "gap": solution.sampled.gap, "iterations": solution.n_iter,
            "objective": solution.sampled.objective, "solver": solution.settings["linear_solver"],
        }  # fmt: skip
    print(cell, flush=True)
    return cell


def table(cells: list[dict[str, Any]]) -> str:
    rows = []
    for cell in cells:
        taken = []
        for method in METHODS:
            run = cell[method]
            more = "" if run["gap"] <= cell["tol"] else "more than "
            taken.append(f"{more}{run['seconds']:.3g} ({run['iterations']})")
        ratio = cell["admm"]["seconds"] / cell["newton"]["seconds"]
        rows.append(
            [
                cell["loss"],
                str(tuple(cell["size"])),
                f"{cell['fraction']:g}",
                f"{cell['tol']:g}",
                *taken,
                f"{ratio:.1f}",
            ]
        )
    names = ["loss", "n, d, P", "beta / beta_max", "gap", "s, Newton (steps)", "s, ADMM (iterations)", "ratio"]
    return markdown_table(names, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--betas", nargs="+", type=float, default=[0.1, 0.01])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--tol", type=float, default=1e-3)
    parser.add_argument("--cap", type=float, default=300.0)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/theory.md")
    options = parser.parse_args()
    place = RESULTS / "sampled-methods.json"
    cells = json.loads(place.read_text())["cells"] if place.exists() else []
    measure("logistic", (60, 5, 10), 0.1, 1e-2, options.cap)  # the first call of a process loads what it needs
    for text in options.sizes:
        size = tuple(map(int, text.split(",")))
        for loss in options.losses:
            for fraction in options.betas:
                new = measure(loss, size, fraction, options.tol, options.cap)  # type: ignore[arg-type]
                key = (loss, list(size), fraction, options.tol)
                cells = [c for c in cells if (c["loss"], list(c["size"]), c["fraction"], c["tol"]) != key] + [new]
                save_json("sampled-methods", {"cells": cells})
    order = {name: k for k, name in enumerate(LOSSES)}
    cells.sort(key=lambda c: (list(c["size"]), order[c["loss"]], -c["fraction"], -c["tol"]))
    save_json("sampled-methods", {"cells": cells})
    print(table(cells))
    if options.write_docs:
        put_between_markers("docs/theory.md", "sampled-methods", table(cells))


if __name__ == "__main__":
    main()
