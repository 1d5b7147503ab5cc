"""How far below the objective the rigorous bounds of the network program are: python -m bench.certificates [--quick]

With --branch: real and planted data, the relaxed bound beside the one that branch and bound proves in so many seconds,
and how it rose, as a table and a figure; rows of other data stay as they were. Otherwise planted problems are solved
to a priced gap of 1e-3; then, for the dual variable of that network, the closed form, the relaxed certificate and, at
rank 2 and 3, the exact one are computed. Ratios of bound to objective, and seconds of the relaxed certificate; run both
with OMP_NUM_THREADS=1, as the published tables were.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

import cvxrelu
from bench.common.datasets import PROBLEMS as DATASETS
from bench.common.datasets import available
from bench.common.problems import planted
from bench.common.report import FIGURES, RESULTS, markdown_table, put_between_markers, save_json
from cvxrelu.certificates.closed_form import closed_form_price
from cvxrelu.program.losses import Squared

PROBLEMS = [(100, 2), (200, 3), (300, 4), (300, 5), (300, 8), (500, 10), (1000, 20), (2000, 50)]
FRACTIONS = [0.1, 0.01]
BRANCHED = [
    "yacht", "airfoil", "housing", "wine", "breastcancer", "planted-500-10", "planted-1000-20", "planted-2000-50",
]  # fmt: skip
CURVE = (0.1, 0.25, 0.5)  # of the time, at which the bound is shown


def row(n: int, d: int, fraction: float) -> dict[str, Any]:
    """Bounds over the objective for one problem; `fraction` is beta / beta_max."""
    X, y, *_ = planted(n, d, 1)
    beta = fraction * cvxrelu.beta_max(X, y)
    sol = cvxrelu.solve(X, y, beta=beta)
    t = y - sol.network.predict(X)
    loss = Squared(y[:, None], np.ones((n, 1)))
    largest = np.float64(beta / closed_form_price(X, t[:, None]))
    closed = float(loss.dual_value(loss.best_dual_scale(t[:, None], largest) * t[:, None])[0])
    started = time.perf_counter()
    relaxed = cvxrelu.certify(sol, X, y, beta=beta, kind="relaxed")
    seconds = time.perf_counter() - started
    exact = cvxrelu.certify(sol, X, y, beta=beta, kind="exact").lower_bound / sol.objective if d <= 3 else None
    return {
        "n": n, "d": d, "fraction": fraction, "priced_gap": sol.gap, "closed_form": closed / sol.objective,
        "relaxed": relaxed.lower_bound / sol.objective, "exact": exact, "seconds": seconds,
    }  # fmt: skip


def branch_row(name: str, fraction: float, seconds: float) -> dict[str, Any]:
    """Shares of the objective that are proved, for one problem of `bench.common.datasets`."""
    X, y = DATASETS[name]()
    beta = fraction * cvxrelu.beta_max(X, y)
    sol = cvxrelu.solve(X, y, beta=beta)
    relaxed = cvxrelu.certify(sol, X, y, beta=beta, kind="relaxed")
    started = time.process_time()
    found = cvxrelu.certify(sol, X, y, beta=beta, kind="branch", time_limit=seconds)
    cpu, progress = time.process_time() - started, found.progress
    when = {f"{at:g}": _by(progress, at * seconds) / sol.objective for at in CURVE}
    moments = np.geomspace(seconds / 300, seconds, 40)
    return {
        "name": name, "n": len(X), "rank": int(np.linalg.matrix_rank(X)), "fraction": fraction, "priced_gap": sol.gap,
        "penalty": beta * sol.network.path_norm / sol.objective, "relaxed": relaxed.lower_bound / sol.objective,
        "branch": found.lower_bound / sol.objective, "curve": when,
        "rise": [[round(float(at), 1), round(_by(progress, at) / sol.objective, 4)] for at in moments],
        "cones": int(progress["cones"].max()),
        "price": float(np.nanmin(progress["price"])) if np.isfinite(progress["price"]).any() else None,
        "seconds": seconds, "cpu_seconds": cpu,
    }  # fmt: skip


def _by(progress: cvxrelu.History, second: float) -> float:
    """The bound proved by then."""
    return float(np.max(progress["lower_bound"][progress["time"] <= second], initial=0.0))


def branch_table(rows: list[dict[str, Any]]) -> str:
    header = ["data", "n, rank", "beta / beta_max", "penalty", "relaxed", *(f"{at:.0%} of the time" for at in CURVE)]
    header += ["branch", "cones or boxes", "CPU seconds"]
    return markdown_table(
        header,
        [
            [r["name"], f"{r['n']}, {r['rank']}", r["fraction"], f"{r['penalty']:.2f}", f"{r['relaxed']:.3f}",
             *(f"{share:.3f}" for share in r["curve"].values()), f"{r['branch']:.3f}", r["cones"],
             f"{r['cpu_seconds']:.0f}"]
            for r in rows
        ],
    )  # fmt: skip


def of_branch(seconds: float, names: list[str]) -> None:
    path = RESULTS / "certificates-branch.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {(row["name"], row["fraction"]): row for row in kept if row["name"] in BRANCHED}
    for name in names:
        for fraction in FRACTIONS:
            rows[name, fraction] = branch_row(name, fraction, seconds)
            print(branch_table([rows[name, fraction]]), flush=True)
            order = sorted(rows.values(), key=lambda row: (BRANCHED.index(row["name"]), -row["fraction"]))
            save_json("certificates-branch", {"rows": order})
    put_between_markers("docs/benchmarks.md", "certificates-branch", branch_table(order))
    draw_rise(order)


def draw_rise(rows: list[dict[str, Any]]) -> None:
    """The share that is proved against seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(FRACTIONS), figsize=(9.5, 3.8), sharey=True, layout="constrained")
    for place, fraction in zip(axes, FRACTIONS, strict=True):
        for k, row in enumerate(row for row in rows if row["fraction"] == fraction):
            style = ["-", "--"][k % 2]
            place.plot(*zip(*row["rise"], strict=True), style, label=f"{row['name']}, rank {row['rank']}")
        place.set(title=f"beta = {fraction:g} beta_max", xlabel="seconds", xscale="log", ylim=(0.25, 1.01))
        place.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of the objective that is proved")
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    FIGURES.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "cvxrelu"
    figure.savefig(FIGURES / "certificates-branch.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the four smallest problems; writes nothing")
    parser.add_argument("--branch", type=float, metavar="SECONDS", help="branch and bound, so long for each row")
    parser.add_argument("--only", nargs="*", default=BRANCHED, choices=BRANCHED, help="with --branch: these data")
    arguments = parser.parse_args()
    quick = arguments.quick
    if arguments.branch:
        return of_branch(arguments.branch, [name for name in arguments.only if available(name)])
    rows = [row(n, d, fraction) for n, d in (PROBLEMS[:4] if quick else PROBLEMS) for fraction in FRACTIONS]
    header = ["n, d", "beta / beta_max", "priced gap", "closed form", "relaxed", "exact", "seconds of relaxed"]
    table = markdown_table(
        header,
        [
            [f"{r['n']}, {r['d']}", r["fraction"], f"{r['priced_gap']:.1e}", f"{r['closed_form']:.3f}",
             f"{r['relaxed']:.4f}", "" if r["exact"] is None else f"{r['exact']:.6f}", f"{r['seconds']:.1f}"]
            for r in rows
        ],
    )  # fmt: skip
    print(table)
    if not quick:
        save_json("certificates", {"rows": rows})
        put_between_markers("docs/benchmarks.md", "certificates", table)


if __name__ == "__main__":
    main()
