"""How far below the objective the rigorous bounds of the network program are: python -m bench.certificates [--quick]

Planted problems are solved to a priced gap of 1e-3; then, for the dual variable of that network, the closed form, the
relaxed certificate and, at rank 2 and 3, the exact one are computed. Ratios of bound to objective, and seconds of the
relaxed certificate; run it with OMP_NUM_THREADS=1, as the published table was.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import cvxrelu
from bench.common.problems import planted
from bench.common.report import markdown_table, put_between_markers, save_json
from cvxrelu.certificates.closed_form import closed_form_price
from cvxrelu.program.losses import Squared

PROBLEMS = [(100, 2), (200, 3), (300, 4), (300, 5), (300, 8), (500, 10), (1000, 20), (2000, 50)]
FRACTIONS = [0.1, 0.01]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the four smallest problems; writes nothing")
    quick = parser.parse_args().quick
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
