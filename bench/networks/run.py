"""The network program against networks trained the usual way: objective, time, gap, and what sampling costs.

    minimise  sum_k 1/2 (f(x_k) - y_k)^2 + beta sum_j |w_j| |a_j|,   f(x) = sum_j (x @ w_j)_+ a_j                (N)

`python -m bench.networks [--quick] [--only PROBLEM ...] [--stage STAGE ...] [--redo STAGE ...] [--table]`

Problems: `bench.common.datasets`; beta in {0.3, 0.1, 0.03, 0.01} x beta_max, which `independent_pricing` finds. Every
problem, beta and stage is a cell with a JSON file of its own, written at once when it is done: an interrupted run
goes on where it stopped, and a cell is run again when its settings or its data have changed. Stages:

baselines   three runs of L-BFGS and three of Adam, `bench.networks.baselines`
sampled     the sampled program (S) with P = 64, 256, 1024 patterns, ten seconds each
ours        `cvxrelu.solve(..., refine=True)`, timed in turn with a run of L-BFGS in the same process; needs `baselines`
text        sentence polarity, `bench.networks.text`

Everything runs on one core: BLAS is told so before NumPy is loaded, and the process is bound to a single core.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cvxrelu
from bench.common.datasets import PROBLEMS, Problem, available, fingerprint
from bench.common.report import RESULTS
from bench.networks import baselines, independent_pricing
from bench.networks.cells import FRACTIONS, TARGET, cached, load, path_of

__all__ = ["main"]

CACHE = RESULTS / "networks"
QUICK = (["yacht", "planted-500-10"], [0.1, 0.01])
SETTINGS: dict[str, dict[str, Any]] = {
    "beta_max": {"version": 1},  # once found it stays: every cell of the problem depends on it
    "baselines": baselines.SETTINGS,
    "sampled": {"version": 1, "patterns": [64, 256, 1024], "time_limit": 10.0},
    "ours": {
        "version": 2,
        "solve": {"time_limit": 120.0, "seed": 0},
        "tol": {"0.3": 1e-3, "0.1": 1e-3, "0.03": 2e-3, "0.01": 2e-3},
        "repeats": 3,
        "repeat_below_seconds": 5.0,
    },
}


class Cell(NamedTuple):
    """One problem at one beta, given by its fraction of beta_max."""

    name: str
    fraction: float
    problem: Problem
    beta: float
    folder: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--fractions", nargs="*", type=float, default=FRACTIONS, help="beta / beta_max")
    parser.add_argument("--stage", nargs="*", choices=[*STAGES, "text"], default=[*STAGES, "text"])
    parser.add_argument("--redo", nargs="*", choices=[*STAGES, "text"], default=[], help="run these stages again")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--embeddings", type=Path, help=".npz with MiniLM's `embeddings`, for the stage text")
    parser.add_argument("--quick", action="store_true", help="two small problems, two betas, into a scratch folder")
    parser.add_argument("--table", action="store_true", help="write the tables from the cells there are; run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        from bench.networks import tables as network_tables

        network_tables.write(arguments.cache)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names, fractions, cache = arguments.only, arguments.fractions, arguments.cache
    if arguments.quick:
        (names, fractions), cache = QUICK, Path(tempfile.mkdtemp(prefix="networks-"))
        print(f"quick: results in {cache}")
    for stage in STAGES:
        for name in names if stage in arguments.stage or stage in arguments.redo else []:
            run_problem(name, fractions, stage, cache, stage in arguments.redo)
    if "text" in [*arguments.stage, *arguments.redo] and not arguments.quick:
        from bench.networks import text as network_text

        network_text.run(cache, arguments.embeddings, "text" in arguments.redo)
    if arguments.quick:
        from bench.networks import tables as network_tables

        print(network_tables.render(cache))


def run_problem(name: str, fractions: list[float], stage: str, cache: Path, redo: bool) -> None:
    """One stage of one problem, every beta."""
    if not available(name):
        print(f"{name}: left out, its file is not in shared/data")
        return
    problem = PROBLEMS[name]()
    data = fingerprint(problem)
    path = path_of(cache, name, "beta_max")
    largest = cached(path, SETTINGS["beta_max"], [data], lambda: find_beta_max(problem))["beta_max"]
    for fraction in fractions:
        cell = Cell(name, fraction, problem, fraction * largest, cache)
        path, belongs_to = path_of(cache, name, stage, fraction), [data, float(f"{cell.beta:.10g}")]
        cached(path, SETTINGS[stage], belongs_to, lambda: STAGES[stage](cell), redo)  # noqa: B023


def find_beta_max(problem: Problem) -> dict[str, Any]:
    found = independent_pricing.beta_max(*problem)
    n, d = problem.X.shape
    return {"n": n, "d": d, "beta_max": found.value, "starts": found.starts}


def run_baselines(cell: Cell) -> dict[str, Any]:
    """Three runs of L-BFGS, three of Adam with the mean time of the former each."""
    X, y = cell.problem
    runs = {f"L-BFGS seed {seed}": baselines.lbfgs(X, y, cell.beta, seed) for seed in range(3)}
    best_lbfgs = min(runs.values(), key=lambda run: run.objective)
    budget = statistics.mean(run.seconds for run in runs.values())
    for seed, rate in enumerate(baselines.SETTINGS["learning_rates"]):
        runs[f"Adam {rate:g}"] = baselines.adam(X, y, cell.beta, seed, rate, budget)
    best = min(runs, key=lambda name: runs[name].objective)
    rows = {
        name: {"objective": run.objective, "seconds": round(run.seconds, 4), "steps": run.steps, "reason": run.reason}
        for name, run in runs.items()
    }
    return {
        "beta": cell.beta,
        "best": best,
        "objective": runs[best].objective,
        "runs": rows,
        "trajectory": baselines.thinned(best_lbfgs),
    }


def run_sampled(cell: Cell) -> dict[str, Any]:
    """(S) at a feasible point, its rigorous bound, and the network objective, per P."""
    X, y = cell.problem
    settings, rows = SETTINGS["sampled"], {}
    for P in settings["patterns"]:
        started = time.perf_counter()
        sol = cvxrelu.solve(
            X, y, beta=cell.beta, patterns=P, refine=False, certificate="relaxed", time_limit=settings["time_limit"]
        )
        assert sol.sampled is not None
        rows[str(P)] = {
            "objective": sol.sampled.objective,
            "lower_bound": sol.sampled.lower_bound,
            "network_objective": sol.objective,
            "status": sol.status.value,
            "seconds": round(time.perf_counter() - started, 2),
        }
    return {"beta": cell.beta, "patterns": rows}


def run_ours(cell: Cell) -> dict[str, Any]:
    """Our solve and one run of L-BFGS, in turn; figures of time are medians over the repeats."""
    X, y = cell.problem
    settings = SETTINGS["ours"]
    baseline = load(path_of(cell.folder, cell.name, "baselines", cell.fraction))
    if baseline is None:
        raise SystemExit(f"{cell.name} {cell.fraction:g}: the stage `ours` needs the cell of `baselines`")
    target = TARGET * baseline["objective"]
    warm_up()
    pairs: list[dict[str, Any]] = []
    repeats = 1
    while len(pairs) < repeats:
        run = baselines.lbfgs(X, y, cell.beta, 0, time.perf_counter)
        started = time.perf_counter()
        tol = settings["tol"].get(f"{cell.fraction:g}", 2e-3)
        sol = cvxrelu.solve(X, y, beta=cell.beta, refine=True, tol=tol, **settings["solve"])
        seconds = time.perf_counter() - started
        pairs.append(
            {
                "seconds": seconds,
                "seconds_to_target": reached(((r["time"], r["objective"]) for r in sol.history), target),
                "lbfgs_seconds": run.seconds,
                "lbfgs_seconds_to_target": reached(run.trajectory, target),
            }
        )
        if len(pairs) == 1:
            # The first call of a backend that compiles is not representative; short runs are noisy.
            short = seconds + run.seconds < settings["repeat_below_seconds"]
            repeats = settings["repeats"] if short else 1 + (sol.backend != "numpy")
    timed = pairs if sol.backend == "numpy" else pairs[1:]
    check = independent_pricing.gap(X, y, sol.network.first_layer, sol.network.second_layer, cell.beta)
    return {
        "beta": cell.beta,
        "target": target,
        "objective": sol.objective,
        "lower_bound": sol.lower_bound,
        "gap": sol.gap,
        "certificate": sol.certificate.kind,
        "starts": sol.certificate.starts,
        "independent": check._asdict(),
        "neurons": sol.network.n_neurons,
        "rounds": sol.n_rounds,
        "status": sol.status.value,
        "backend": sol.backend,
        **{name: middle([pair[name] for pair in timed]) for name in timed[0]},
        "whole_ratio": middle([pair["seconds"] / pair["lbfgs_seconds"] for pair in timed]),
        "target_ratio": middle([ratio(pair["seconds_to_target"], pair["lbfgs_seconds"]) for pair in timed]),
        "first_seconds": pairs[0]["seconds"],
        "repeats": len(timed),
        "timings": {name: round(float(value), 4) for name, value in dict(sol.timings).items()},
        "lbfgs_trajectory": baselines.thinned(run),
        "history": [[round(float(r["time"]), 4), float(f"{r['objective']:.8g}")] for r in sol.history],
    }


def warm_up() -> None:
    """Load what either side loads lazily: neither pays for imports."""
    X = np.random.default_rng(0).standard_normal((60, 3))
    baselines.lbfgs(X, X[:, 0], 1.0, 0)
    cvxrelu.solve(X, np.abs(X[:, 0]), beta=5.0, refine=True)


def reached(trajectory: Any, target: float) -> float | None:
    """Seconds at which a trajectory of (seconds, objective) first meets the target; None if never."""
    return next((float(seconds) for seconds, value in trajectory if value <= target), None)


def ratio(numerator: float | None, denominator: float) -> float | None:
    return None if numerator is None else numerator / denominator


def middle(values: list[float | None]) -> float | None:
    """Median; None counts as larger than any number, and a median that falls on it is None."""
    found = statistics.median(np.inf if value is None else value for value in values)
    return float(found) if np.isfinite(found) else None


STAGES: dict[str, Callable[[Cell], dict[str, Any]]] = {
    "baselines": run_baselines,
    "sampled": run_sampled,
    "ours": run_ours,
}

if __name__ == "__main__":
    main()
