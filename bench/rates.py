"""Convergence rates: ADMM's ergodic errors with the exact and the inexact u-step, and accelerated gradient's error.

Run `python -m bench.rates [--quick] [--only admm last-layer]`.

**ADMM.** With fixed penalties, theory gives O(1/k) for the objective and the feasibility
of the averaged iterates (Eckstein & Bertsekas 1992 for summable errors of the u-step; He & Yuan 2012 for the ergodic
rate). For

    U_k average, W_k average, s_k average over iterations 1..k:
    objective error    |loss(F U) + beta sum |W| - optimum| / optimum
    feasibility error  sqrt(|U - W|^2 + |G U - s|^2) / sqrt(|U|^2 + |G U|^2)

a line is fitted by least squares to log error against log k for k >= 10. The signed objective error may cross zero,
where its magnitude says nothing about the rate, so the fit uses the upper envelope, the maximum over j >= k of the
error at j; the largest k times error, which O(1/k) says is finite, is in the table too. The optimum is that of Clarabel
through CVXPY.

**Last layer.** f(theta) = sum weight_i log(1 + exp(-y_i theta @ a_i)) + l2/2 |theta|^2. A has singular values j^-1.5,
every row comes with both labels, weighted by the probabilities that theta* = (j^-1/2) gives them, so that theta* is the
minimiser for l2 = 0, and l2 = 1e-12 L: linear convergence begins after 1e6 steps. In this spectrum the errors of a
quadratic would fall as slowly as theory allows. Error (f(x_k) - f*) / f*, with f* = f(theta*) for l2 = 0, off by l2/2
|theta*|^2 at most. Lines are fitted to the upper envelope for 30 <= k <= 3000. Accelerated gradient is the plain
method, without restart and Newton; gradient descent takes the same step 1 / L; AdamW has the full gradient.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from bench.common.problems import Planted, planted
from bench.common.report import FIGURES, markdown_table, put_between_markers, save_json
from cvxrelu.backends.choose import get_backend
from cvxrelu.last_layer import first_order as agd
from cvxrelu.last_layer.program import Program, gradient, largest_eigenvalue
from cvxrelu.numerics.proximal import block_norms, group_soft_threshold
from cvxrelu.numerics.row_space import right_singular_basis
from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.operators import F, G
from cvxrelu.sampled import admm
from cvxrelu.sampled.penalties import initial_penalties

SLOPE_REQUIRED = -0.9
AGD_SLOPE_REQUIRED = -1.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer iterations, nothing written")
    parser.add_argument("--only", nargs="*", choices=["admm", "last-layer"], default=["admm", "last-layer"])
    arguments = parser.parse_args()
    if "admm" in arguments.only:
        admm_rates(arguments.quick)
    if "last-layer" in arguments.only:
        last_layer_rates(arguments.quick)


def admm_rates(quick: bool) -> None:
    """Both u-steps on a planted problem; fails where a slope is above what is required."""
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
    system = admm.make_system(backend, data, rho, landmarks, method)
    state = admm.initial_state(data)
    sums: list[Any] = [0.0, 0.0, 0.0]
    marks = set(np.unique(np.geomspace(1, iterations, 60).astype(int)))
    found: dict[str, list[float]] = {"k": [], "objective": [], "feasibility": []}
    for k in range(1, iterations + 1):
        W, s = group_soft_threshold(state.x, data.beta / rho.copy), np.maximum(state.t, 0)
        state, U = admm.step(backend, data, system, rho, state)
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


def last_layer_rates(quick: bool) -> None:
    """Accelerated gradient, gradient descent and AdamW on one ill-conditioned problem."""
    steps = 1000 if quick else 3000
    program, optimum = ill_conditioned()
    rows, curves = [], {}
    for label, errors in last_layer_errors(program, optimum, steps).items():
        k = np.arange(1, steps + 1)
        curves[label] = {"k": k, "error": errors}
        fitted = slope(k, errors, first=30) if np.isfinite(errors).all() else np.nan
        guarantee = {"accelerated gradient": "O(1/k^2)", "gradient descent": "O(1/k)"}.get(label, "none")
        rows.append([label, guarantee, steps, fitted, float(errors[-1])])
        print(f"{label}: slope {fitted:.3f}, last error {errors[-1]:.2e}")
    table = markdown_table(["method", "guarantee", "iterations", "slope", "last error"], rows)
    if not quick:
        save_json("rates-last-layer", {"optimum": optimum, "rows": rows, "required_slope": AGD_SLOPE_REQUIRED})
        put_between_markers("docs/benchmarks.md", "rates-last-layer", table)
    if not rows[0][3] <= AGD_SLOPE_REQUIRED:
        raise SystemExit(f"the slope of accelerated gradient is above {AGD_SLOPE_REQUIRED}")


def ill_conditioned(n: int = 400, d: int = 300, seed: int = 0) -> tuple[Program, float]:
    """The program above with n pairs of rows, and its optimum up to a part in 1e11."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((size, d)))[0] for size in (n, d))
    j = np.arange(1.0, d + 1)
    A = np.sqrt(n) * (left * j**-1.5) @ right.T
    minimiser = right @ (rng.choice([-1.0, 1.0], d) * j**-0.5)[:, None]
    chance = 1.0 / (1.0 + np.exp(-A @ minimiser))
    signs, none = np.concatenate([np.ones((n, 1)), -np.ones((n, 1))]), np.zeros((2 * n, 1))
    A, loss = np.vstack([A, A]), Logistic(signs, np.concatenate([chance, 1.0 - chance]), none)
    program = Program(A, loss, np.asarray(1.0), np.asarray(1e-12 * n / 4))
    return program, float(loss.value(A @ minimiser))


def last_layer_errors(program: Program, optimum: float, steps: int) -> dict[str, np.ndarray]:
    """Relative errors after 1, ..., steps iterations of each method, from theta = 0."""
    n, d = program.A.shape
    L = np.asarray(0.25 * largest_eigenvalue(get_backend("numpy"), program)) + program.l2
    constants = agd.Smoothness(L, program.l2 / L, np.asarray(False))
    start = np.zeros((d, 1))
    accelerated, plain = agd.AGD.init(start), start
    rate = agd.Rate(np.asarray(1e-3), np.asarray(1.0 / n))
    adamw = agd.ADAMW.init(start)
    found: dict[str, list[float]] = {"accelerated gradient": [], "gradient descent": [], "AdamW": []}
    for _ in range(steps):
        accelerated = agd.AGD.step(program, constants, accelerated)
        plain = plain - gradient(program, plain)[0] / L
        adamw = agd.ADAMW.step(program, rate, adamw)
        for errors, theta in zip(found.values(), (accelerated.theta, plain, adamw.theta), strict=True):
            errors.append(float(gradient(program, theta)[1]) / optimum - 1.0)
    return {name: np.array(errors) for name, errors in found.items()}


def slope(k: np.ndarray, errors: np.ndarray, first: int = 10) -> float:
    """Least-squares slope of the log of the errors' upper envelope against log k, for k >= first."""
    envelope = np.maximum.accumulate(errors[::-1])[::-1]
    late = k >= first
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
