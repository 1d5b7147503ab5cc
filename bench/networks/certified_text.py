"""Sentence polarity certified to 1e-2 beside one run of L-BFGS: MiniLM's embeddings, squared and logistic loss.

`python -m bench.networks.certified_text [--redo] [--table]`

    minimise  loss(f(X)) + beta sum_j |w_j| |a_j|,   y = +-1,   beta = 0.1 beta_max                               (N)

8530 rows, 382 standardised columns and a constant one. The peer is `bench.networks.baselines.lbfgs` of width 100, until
50 of its iterations bring less than 1e-5 of the objective, for the same loss. Seconds are those of the process, one
thread. The independent gap prices the dual variable of our network by `bench.networks.independent_pricing`.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import time
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import entr

import cvxrelu
from bench.common.datasets import Problem, fingerprint, sentence_polarity
from bench.common.report import RESULTS, markdown_table, put_between_markers
from bench.networks import baselines, independent_pricing
from bench.networks.cells import cached, load, path_of
from bench.networks.embeddings import embeddings

__all__ = ["dual_value", "independent_gap", "main"]

CACHE, NAME = RESULTS / "networks", "sentence-polarity-certified"
SETTINGS: dict[str, Any] = {
    "version": 1, "fraction": 0.1, "solve": {"tol": 1e-2, "seed": 0, "time_limit": 600.0},
    "lbfgs": {"width": 100, "max_seconds": 300.0}, "seeds": [0],
}  # fmt: skip


def dual_value(t: np.ndarray, y: np.ndarray, kind: str) -> float:
    """D(t) = -sum loss*(-t); -inf where a t of the logistic loss leaves its domain."""
    if kind == "squared":
        return float(t @ y - 0.5 * t @ t)
    s = t * y
    return float(np.sum(entr(s) + entr(1.0 - s)))


def independent_gap(problem: Problem, network: cvxrelu.ReLUNetwork, beta: float, kind: str) -> dict[str, float]:
    """Objective, bound and gap of a network by a pricing that shares no code with the package."""
    X, y = problem
    W, a = np.asarray(network.first_layer), np.asarray(network.second_layer)
    t = -baselines.slope_and_value(np.maximum(X @ W, 0) @ a, y, kind)[0]
    objective = baselines.objective(X, y, W, a, beta, kind)
    price = independent_pricing.price(X, t, 1, neurons=W).value
    most = min(beta / price, 1.0 / float(np.max(t * y)) if kind == "logistic" else np.inf)
    best = minimize_scalar(lambda k: -dual_value(k * t, y, kind), bounds=(0.0, most), method="bounded")
    bound = max(-float(best.fun), dual_value(most * t, y, kind))
    return {"objective": objective, "lower_bound": bound, "gap": 1.0 - bound / objective, "price_ratio": price / beta}


def measure(problem: Problem, kind: str) -> dict[str, Any]:
    """One solve, one run of L-BFGS per seed, in this process."""
    X, y = problem
    size = 0.5 if kind == "logistic" else 1.0  # minus the derivative of the loss at zero is y times this
    largest = size * cvxrelu.beta_max(X, y)
    beta = SETTINGS["fraction"] * largest
    started = time.process_time()
    sol = cvxrelu.solve(X, y, beta=beta, loss=kind, **SETTINGS["solve"])
    seconds = time.process_time() - started
    runs = [baselines.lbfgs(X, y, beta, seed, kind=kind, **SETTINGS["lbfgs"]) for seed in SETTINGS["seeds"]]
    return {
        "n": X.shape[0], "d": X.shape[1], "loss": kind, "beta": beta, "seconds": seconds, "gap": sol.gap,
        "status": sol.status.value, "objective": sol.objective, "neurons": sol.network.n_neurons,
        "rounds": sol.n_rounds, "independent": independent_gap(problem, sol.network, beta, kind),
        "lbfgs": [{"objective": r.objective, "seconds": r.seconds, "steps": r.steps} for r in runs],
    }  # fmt: skip


def table() -> str:
    rows = []
    for kind in ("squared", "logistic"):
        if cell := load(path_of(CACHE, NAME, kind)):
            peers = [run["seconds"] for run in cell["lbfgs"]]
            middle, best = float(np.median(peers)), min(run["objective"] for run in cell["lbfgs"])
            rows.append(
                [f"{kind} ({cell['n']} x {cell['d']})", f"{cell['seconds']:.0f}", f"{middle:.0f}",
                 f"{cell['seconds'] / middle:.2f}", f"{cell['objective'] / best:.5f}", f"{cell['gap']:.1e}",
                 f"{cell['independent']['gap']:.1e}", cell["neurons"], cell["rounds"], cell["status"]]
            )  # fmt: skip
    head = ["loss", "solve s", "L-BFGS s", "solve / L-BFGS", "objective / L-BFGS", "priced gap", "independent gap",
            "neurons", "rounds", "status"]  # fmt: skip
    return markdown_table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redo", action="store_true")
    parser.add_argument("--table", action="store_true", help="only write the table of the docs")
    options = parser.parse_args()
    if not options.table:
        split = sentence_polarity(embeddings())
        problem = Problem(split.train.X, 2.0 * split.train.y - 1.0)
        for kind in ("squared", "logistic"):
            path = path_of(CACHE, NAME, kind)
            cached(path, SETTINGS, [fingerprint(problem)], lambda: measure(problem, kind), options.redo)  # noqa: B023
    print(table())
    put_between_markers("docs/benchmarks.md", "networks-certified-text", table())


if __name__ == "__main__":
    main()
