"""Convergence rates: how fast ADMM's ergodic errors fall, with the exact and with the inexact u-step.

Run `python -m bench.rates [--quick]`. With fixed penalties, theory gives O(1/k) for the objective and the feasibility
of the averaged iterates (Eckstein & Bertsekas 1992 for summable errors of the u-step; He & Yuan 2012 for the ergodic
rate). For

    U_k average, W_k average, s_k average over iterations 1..k:
    objective error    |loss(F U) + beta sum |W| - optimum| / optimum
    feasibility error  sqrt(|U - W|^2 + |G U - s|^2) / sqrt(|U|^2 + |G U|^2)

a line is fitted by least squares to log error against log k for k >= 10. The signed objective error may cross zero,
where its magnitude says nothing about the rate, so the fit uses the upper envelope, the maximum over j >= k of the
error at j; the largest k times error, which O(1/k) says is finite, is in the table too. The optimum is that of Clarabel
through CVXPY.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from bench.problems import Planted, planted
from bench.report import FIGURES, markdown_table, put_between_markers, save_json
from cvxrelu import admm
from cvxrelu.linear_systems import build_system
from cvxrelu.losses import Squared
from cvxrelu.operators import F, G
from cvxrelu.preparation import initial_penalties, right_singular_basis
from cvxrelu.proximal import block_norms, group_soft_threshold
from cvxrelu.selection import get_backend

SLOPE_REQUIRED = -0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer iterations, nothing written")
    quick = parser.parse_args().quick
    iterations = 1000 if quick else 10_000
    problem = planted(200, 10, 50)
    optimum = clarabel_optimum(problem)
    curves, rows = {}, []
    for method, label in (("gram", "exact"), ("cg", "CG, summable tolerance")):
        curve = ergodic_errors(problem, method, iterations, optimum)
        slopes = {name: slope(curve["k"], curve[name]) for name in ("objective", "feasibility")}
        worst = [float((curve["k"] * curve[name]).max()) for name in slopes]
        last = [float(curve[name][-1]) for name in slopes]
        rows.append([label, iterations, *slopes.values(), *worst, *last])
        curves[label] = curve
        print(f"{label}: slope of objective {slopes['objective']:.3f}, of feasibility {slopes['feasibility']:.3f}")
    header = ["u-step", "iterations", "slope, objective", "slope, feasibility", "max k x objective error",
              "max k x feasibility error", "last objective error", "last feasibility error"]  # fmt: skip
    table = markdown_table(header, rows)
    print(table)
    if not quick:
        save_json("rates", {"optimum": optimum, "rows": rows, "required_slope": SLOPE_REQUIRED})
        plot(curves)
        put_between_markers(
            "docs/benchmarks.md", "rates", table + "\n\n![Ergodic errors of ADMM against iterations](figures/rates.svg)"
        )
    if max(row[2] for row in rows) > SLOPE_REQUIRED or max(row[3] for row in rows) > SLOPE_REQUIRED:
        raise SystemExit(f"a slope is above {SLOPE_REQUIRED}")


def ergodic_errors(problem: Planted, method: str, iterations: int, optimum: float) -> dict[str, np.ndarray]:
    """Errors of the averaged iterates at some sixty iterations spaced geometrically; penalties fixed."""
    backend = get_backend("numpy")
    xp = backend.xp
    basis, eigenvalues = right_singular_basis(problem.X, xp)
    loss = Squared(problem.y[:, None], np.ones((len(problem.y), 1)))
    data = admm.prepare(backend, problem.X @ basis, eigenvalues, problem.patterns, loss, np.asarray(problem.beta))
    rho = admm.Penalties(*(np.asarray(r) for r in initial_penalties(None, eigenvalues, 1.0)))
    landmarks = np.arange(0, len(problem.y), 4)
    system = build_system(
        backend, data.X, data.patterns, eigenvalues, loss.curvature, *rho, landmarks, method
    )  # fmt: skip
    state = admm.initial_state(data)
    sums: list[Any] = [0.0, 0.0, 0.0]
    marks = set(np.unique(np.geomspace(1, iterations, 60).astype(int)))
    found: dict[str, list[float]] = {"k": [], "objective": [], "feasibility": []}
    for k in range(1, iterations + 1):
        W, s = group_soft_threshold(state.x, data.beta / rho.copy), np.maximum(state.t, 0)
        state, U, _ = admm.step(backend, data, system, rho, state)
        # With over-relaxation x_(k+1) - x_k = alpha (U - W) for the W and s the u-step saw: these are the pairs to
        # average.
        sums = [total + part for total, part in zip(sums, (U, W, s), strict=True)]
        if k in marks:
            U_mean, W_mean, s_mean = (total / k for total in sums)
            GU = G(data.X, data.patterns, U_mean)
            objective = float(loss.value(F(data.X, data.patterns, U_mean)) + problem.beta * block_norms(W_mean).sum())
            gap = np.sqrt(((U_mean - W_mean) ** 2).sum() + ((GU - s_mean) ** 2).sum())
            found["k"].append(k)
            found["objective"].append(abs(objective - optimum) / optimum)
            found["feasibility"].append(float(gap / np.sqrt((U_mean**2).sum() + (GU**2).sum())))
    return {name: np.array(values) for name, values in found.items()}


def slope(k: np.ndarray, errors: np.ndarray) -> float:
    """Least-squares slope of the log of the errors' upper envelope against log k, for k >= 10."""
    envelope = np.maximum.accumulate(errors[::-1])[::-1]
    late = k >= 10
    return float(np.polyfit(np.log(k[late]), np.log(envelope[late]), 1)[0])


def clarabel_optimum(problem: Planted) -> float:
    """Optimum of the sampled program by CVXPY + Clarabel."""
    import cvxpy as cp

    V, Z = cp.Variable(problem.gates.shape), cp.Variable(problem.gates.shape)
    XV, XZ, E = problem.X @ V, problem.X @ Z, 2.0 * problem.patterns - 1.0
    prediction = cp.sum(cp.multiply(problem.patterns.astype(float), XV - XZ), axis=1)
    norms = cp.sum(cp.norm(V, 2, axis=0)) + cp.sum(cp.norm(Z, 2, axis=0))
    program = cp.Problem(
        cp.Minimize(0.5 * cp.sum_squares(prediction - problem.y) + problem.beta * norms),
        [cp.multiply(E, XV) >= 0, cp.multiply(E, XZ) >= 0],
    )
    return float(program.solve(solver=cp.CLARABEL))


def plot(curves: dict[str, dict[str, np.ndarray]]) -> None:
    """Both errors for both u-steps on log axes, with the slope -1."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, constrained_layout=True)
    for axis, name in zip(axes, ("objective", "feasibility"), strict=True):
        for (label, curve), style in zip(curves.items(), ("-", "--"), strict=True):
            axis.loglog(curve["k"], curve[name], style, label=label)
        k = curve["k"][len(curve["k"]) // 3 :]
        axis.loglog(k, curve[name][-1] * 3 * k[-1] / k, ":", color="grey", label="slope -1")
        axis.set(xlabel="iteration k", title=f"ergodic {name} error")
        axis.legend(frameon=False)
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "rates.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
