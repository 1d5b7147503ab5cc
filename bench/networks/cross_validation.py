"""Choosing beta by cross-validation beside the grids of others.

`python -m bench.networks.cross_validation [--only NAME ...] [--splits N] [--one-core] [--redo] [--write-docs]`

Tables of `../shared/data/uci`, a quarter of the rows held out, three folds on the others. Timed is one call of `fit`,
as a user makes it, everything included, one job at a time on the cores there are:

    ours     ConvexReLURegressorCV(cv=3), its defaults: 13 betas, the fit on all rows certified to a gap of 1e-2
    MLP      GridSearchCV of MLPRegressor, 100 hidden units, on standardised features and targets, five alphas
    ridge    RidgeCV on standardised features, 20 alphas
    HGB      GridSearchCV of HistGradientBoostingRegressor, two learning rates, two sizes of trees

With `--one-core` seconds are those of the process, which other work on the machine does not lengthen; set
OMP_NUM_THREADS=1 and its like beside it.

Splits that bench/results/cross-validation.json has already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.common.datasets import DATA, UCI
from bench.common.report import RESULTS, markdown_table, put_between_markers, save_json

__all__ = ["main"]

FOLDS = 3
NAMES = ("ours", "MLP", "ridge", "HGB")


def models(seed: int) -> dict[str, Callable[[], Any]]:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from cvxrelu import ConvexReLURegressorCV

    def mlp() -> Any:
        network = MLPRegressor(hidden_layer_sizes=(100,), max_iter=500, random_state=seed)
        scaled = TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler())
        grid = {"regressor__mlpregressor__alpha": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}
        return GridSearchCV(scaled, grid, cv=FOLDS)

    def trees() -> Any:
        grid = {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [7, 31]}
        return GridSearchCV(HistGradientBoostingRegressor(random_state=seed), grid, cv=FOLDS)

    return {
        "ours": lambda: ConvexReLURegressorCV(cv=FOLDS, random_state=seed),
        "MLP": mlp,
        "ridge": lambda: make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 20))),
        "HGB": trees,
    }


def measure(name: str, seed: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of `fit`, by this clock, and R2 on the held-out rows, of every model in turn."""
    from sklearn.model_selection import train_test_split

    table = np.loadtxt(DATA / "uci" / f"{name}.csv.gz", delimiter=",", ndmin=2)
    train, test, y, y_test = train_test_split(table[:, :-1], table[:, -1], test_size=0.25, random_state=seed)
    found: dict[str, Any] = {"name": name, "seed": seed, "n": len(train), "d": train.shape[1], "clock": clock.__name__}
    for label, make in models(seed).items():
        started = clock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the MLPs of scikit-learn say that 500 epochs were not enough
            model = make().fit(train, y)
        found[label] = {"seconds": clock() - started, "r2": float(model.score(test, y_test))}
        if label == "ours":
            solution = model.solution_
            found[label] |= {
                "betas": len(model.betas_), "best": model.best_index_, "neurons": model.network_.n_neurons,
                "gap": solution.gap, "status": solution.status.value, "last_fit": solution.timings["refine"],
            }  # fmt: skip
        print(f"{name} {seed} {label}: {found[label]['seconds']:.1f} s, R2 {found[label]['r2']:.4f}", flush=True)
    return found


def tables(cells: list[dict[str, Any]]) -> str:
    rows = []
    for name in [name for name in UCI if any(cell["name"] == name for cell in cells)]:
        mine = [cell for cell in cells if cell["name"] == name]
        scores = [f"{np.median([cell[label]['r2'] for cell in mine]):.4f}" for label in NAMES]
        against = [cell["ours"]["r2"] - cell["MLP"]["r2"] for cell in mine]
        seconds = [f"{np.median([cell[label]['seconds'] for cell in mine]):.1f}" for label in NAMES]
        ratios = [cell["ours"]["seconds"] / cell["MLP"]["seconds"] for cell in mine]
        walls = [cell["ours"] for cell in mine if cell.get("clock", "perf_counter") == "perf_counter"]
        share = np.median([ours["last_fit"] / ours["seconds"] for ours in walls]) if walls else np.nan
        rows.append(
            [f"{name} ({mine[0]['n']} x {mine[0]['d']})", len(mine), *scores, f"{min(against):+.4f}", *seconds,
             f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", f"{share:.0%}" if walls else "-"]
        )  # fmt: skip
    names = [
        "training rows", "splits", *(f"R2, {n}" for n in NAMES), "ours less MLP, worst", *(f"s, {n}" for n in NAMES),
        "time, ours over MLP", "of ours, the certified fit",
    ]  # fmt: skip
    return markdown_table(names, rows)


def scores(cells: list[dict[str, Any]]) -> str:
    """The table of the README: test scores, and the time of the two that search a grid of networks."""
    rows = []
    for name in [name for name in UCI if any(cell["name"] == name for cell in cells)]:
        mine = [cell for cell in cells if cell["name"] == name]
        r2 = [f"{np.median([cell[label]['r2'] for cell in mine]):.3f}" for label in NAMES]
        seconds = [f"{np.median([cell[label]['seconds'] for cell in mine]):.1f}" for label in ("ours", "MLP")]
        rows.append([f"{name}, {mine[0]['n']} x {mine[0]['d']}", *r2, " / ".join(seconds)])
    head = ["training rows x columns", "cvxrelu", "MLP", "ridge", "gradient boosting", "seconds, cvxrelu / MLP"]
    return markdown_table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=UCI, default=UCI)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--one-core", action="store_true", help="seconds of the process")
    parser.add_argument("--redo", action="store_true")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/path.md and README.md")
    options = parser.parse_args()
    place = RESULTS / "cross-validation.json"
    cells = [] if options.redo or not place.exists() else json.loads(place.read_text())["cells"]
    clock = time.process_time if options.one_core else time.perf_counter
    for name in options.only:
        for seed in range(options.splits):
            if not any((cell["name"], cell["seed"]) == (name, seed) for cell in cells):
                cells.append(measure(name, seed, clock))
                save_json("cross-validation", {"cells": cells})
    print(tables(cells))
    if options.write_docs:
        put_between_markers("docs/path.md", "cross-validation", tables(cells))
        put_between_markers("README.md", "scores", scores(cells))


if __name__ == "__main__":
    main()
