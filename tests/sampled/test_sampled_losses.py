"""The sampled program for every loss, readout and skip: against CVXPY and Clarabel, and bounds from any dual."""

import functools

import numpy as np
import pytest
from oracles import make_backend, support
from sampled_optimum import sampled_optimum

from cvxrelu.certificates.closed_form import relaxed_bound
from cvxrelu.program.arrangement import enumerate_patterns
from cvxrelu.program.dual import pull_back, sampled_bound
from cvxrelu.program.problem import build_problem
from cvxrelu.program.skip import skip_columns
from cvxrelu.runs.settings import Settings
from cvxrelu.sampled import bounds, newton_stage
from cvxrelu.sampled.incumbent import host_ridge
from cvxrelu.sampled.stage import SampledStage

N, D, P, TOL = 14, 2, 4, 1e-3
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D))
GATES = RNG.standard_normal((D, P))
HIDDEN = np.maximum(X @ RNG.standard_normal((D, 4)), 0) @ RNG.standard_normal((4, 3))
Y = HIDDEN[:, 0] - HIDDEN[:, 0].mean() + 0.1 * RNG.standard_normal(N)
SIGNS = np.where(Y > 0, 1.0, -1.0)
LABELS = (HIDDEN + 0.3 * RNG.standard_normal((N, 3))).argmax(axis=1)
WEIGHT = RNG.choice([0.0, 0.5, 1.0, 3.0], size=N)
PAIRS = np.array([RNG.choice(N, 2, replace=False) for _ in range(20)])
PAIRS = np.concatenate([PAIRS, PAIRS[:2], PAIRS[2:4, ::-1]])  # repeated ones and contradictions
M = len(PAIRS)
PAIR_WEIGHT, MARGINS = RNG.choice([0.0, 0.5, 1.0, 3.0], size=M), RNG.standard_normal(M)
ROWS = np.eye(D + 1)[:D]
EQUALITY = (np.ones((1, D)), np.array([1.5]))

CASES = {
    "logistic": {"y": SIGNS, "loss": "logistic"},
    "logistic weights margin": {
        "y": SIGNS, "loss": "logistic", "sample_weight": WEIGHT, "margin": MARGINS[:N], "intercept": True,
    },
    "logistic outputs": {"y": np.where(HIDDEN[:, :2] > 0, 1.0, -1.0), "loss": "logistic", "beta": 0.2},
    "one class": {"y": np.ones(N), "loss": "logistic"},
    "separable": {"y": np.where(X[:, 0] > 0, 1.0, -1.0), "loss": "logistic", "beta": 0.1},
    "multinomial": {"y": LABELS, "loss": "multinomial"},
    "multinomial weights": {"y": LABELS, "loss": "multinomial", "sample_weight": WEIGHT},
    "pairs": {"y": None, "loss": "logistic", "pairs": PAIRS},
    "pairs weights margin": {
        "y": None, "loss": "logistic", "pairs": PAIRS, "sample_weight": PAIR_WEIGHT, "margin": MARGINS,
    },
    "fewer pairs": {"y": np.ones(6), "loss": "logistic", "pairs": PAIRS[:6], "beta": 0.1},
    "squared pairs": {"y": Y[PAIRS[:, 0]] - Y[PAIRS[:, 1]], "pairs": PAIRS, "sample_weight": PAIR_WEIGHT},
    "squared bias": {"y": Y + 3.0, "skip": "bias", "sample_weight": WEIGHT},
    "squared linear": {"y": HIDDEN[:, :2] + 2.0 * X[:, :1], "skip": "linear"},
    "squared linear l2": {"y": Y + 3.0, "skip": "linear", "skip_l2": 0.5, "sample_weight": WEIGHT, "intercept": True},
    "squared equality": {"y": Y, "skip": "linear", "equality": EQUALITY},
    "squared equality l2": {"y": Y, "skip": "linear", "skip_l2": 0.5, "equality": EQUALITY},
    "squared pairs linear": {"y": Y[PAIRS[:, 0]] - Y[PAIRS[:, 1]], "pairs": PAIRS, "skip": "linear"},
    "logistic bias": {"y": SIGNS, "loss": "logistic", "skip": "bias", "skip_l2": 0.1},
    "logistic linear": {"y": SIGNS, "loss": "logistic", "skip": "linear", "skip_l2": 0.01, "margin": 0.5},
    "logistic equality": {"y": SIGNS, "loss": "logistic", "skip": "linear", "skip_l2": 1.0, "equality": EQUALITY},
    "multinomial linear": {"y": LABELS, "loss": "multinomial", "skip": "linear", "skip_l2": 0.1},
    "multinomial equality": {
        "y": LABELS, "loss": "multinomial", "skip": "linear", "skip_l2": 0.3, "equality": EQUALITY,
        "sample_weight": WEIGHT,
    },
    "pairs linear": {"y": None, "loss": "logistic", "pairs": PAIRS, "skip": "linear", "skip_l2": 0.2},
}  # fmt: skip


def build(case, **changes):
    given = {"beta": 0.3, "patterns": GATES, **CASES[case], **changes}
    if given.get("intercept") and "patterns" not in changes:
        given["patterns"] = np.vstack([GATES, [0.3] * P])
    return build_problem(X, given.pop("y"), **given)


@functools.cache
def optimum(case, every_pattern=False):
    """By CVXPY, from the user's arguments and not from what the problem made of them."""
    problem, given, equality = build(case), CASES[case], None
    skip = problem.skip
    columns = None if skip is None else skip_columns(problem.X, problem.intercept, problem.skip_kind, skip.bias)
    if "equality" in given:
        C, e = given["equality"]
        C = np.hstack([C, np.zeros((1, columns.shape[1] - D))])
        equality = (C, np.broadcast_to(e[:, None], (1, problem.n_outputs)))
    masks = enumerate_patterns(problem.X).patterns if every_pattern else problem.patterns.patterns
    return sampled_optimum(
        problem.X, masks, problem.plain.y, problem.beta, loss=problem.loss_name, weight=problem.plain.weight[:, 0],
        margin=given.get("margin", 0.0), pairs=given.get("pairs"), columns=columns,
        skip_l2=given.get("skip_l2", 0.0), equality=equality,
    )  # fmt: skip


def solve(problem, backend="numpy", linear_solver="auto", tol=TOL, max_iter=None):
    settings = Settings.read(rho=None, tol=tol, max_iter=max_iter, time_limit=60, linear_solver=linear_solver)
    chosen = make_backend(backend)
    with chosen.scope():
        return SampledStage(problem, chosen, settings).run()


def always_newton(monkeypatch):
    for name, value in (("LEAST_FLOPS", 0.0), ("ROWS", 0.0), ("FREEDOM", np.inf)):
        monkeypatch.setattr(newton_stage, name, value)


def objective(problem, neurons, linear, bias, norm):
    """Of (S) or (N), from the outputs of the neurons, the skip, and what beta multiplies."""
    features = problem.X[:, : problem.n_features]
    total = neurons.reshape(len(X), -1).copy()
    if linear is not None:
        total += features @ linear.reshape(features.shape[1], -1)
    if bias is not None:
        total += np.reshape(bias, (1, -1))
    parts = [part for part in (linear, bias) if part is not None]
    ridge = 0.0 if problem.skip is None else 0.5 * problem.skip.l2 * sum(np.sum(part**2) for part in parts)
    return float(problem.plain.value(problem.read(total))) + problem.beta * norm + ridge


@pytest.mark.parametrize("method, tol", [("admm", TOL), ("newton", 1e-6)])
@pytest.mark.parametrize("case", CASES)
def test_objective_and_bound_against_clarabel(case, method, tol, monkeypatch):
    if method == "newton":
        always_newton(monkeypatch)
    problem = build(case)
    best = optimum(case)
    solution = solve(problem, tol=tol)
    sampled = solution.sampled
    assert (solution.settings["linear_solver"] == "newton") == (method == "newton")
    assert sampled.lower_bound <= best * (1 + 1e-6) + 1e-7
    assert best * (1 - 1e-6) - 1e-7 <= sampled.objective <= best * (1 + tol) + 1e-7
    assert solution.status.value == "optimal" and sampled.gap <= tol

    # The point is feasible, and its objective is what it says.
    blocks = sampled.blocks if sampled.blocks.ndim == 4 else sampled.blocks[..., None]
    XU = np.einsum("nd,sdpc->nspc", problem.X, blocks)
    signs = (2.0 * sampled.patterns - 1.0)[:, None, :, None]
    assert (signs * XU).min() >= -1e-8 * np.abs(XU).max()
    inside = (sampled.patterns[:, None, :, None] * XU).sum(axis=2)
    norm = np.linalg.norm(blocks, axis=1).sum()
    found = objective(problem, inside[:, 0] - inside[:, 1], sampled.skip, sampled.bias, norm)
    assert found == pytest.approx(sampled.objective, rel=1e-9)
    if "equality" in CASES[case]:
        C, e = EQUALITY
        for linear in (sampled.skip, solution.network.skip):
            np.testing.assert_allclose(C @ linear.reshape(D, -1), np.tile(e[:, None], problem.n_outputs), atol=1e-9)

    # The dual variable is feasible, for p = R^T t.
    dual = sampled.dual.reshape(problem.loss.y.shape)
    p, _ = problem.pull_back(dual)
    mask = sampled.patterns[:, 0]
    for side in (1.0, -1.0):
        assert support(problem.X, mask, side * problem.X.T @ (mask * p[:, 0])) <= problem.beta * (1 + 1e-6) + 1e-7

    # So is the network, with its own objective.
    network, features = solution.network, problem.X[:, : problem.n_features]
    bare = network.predict(features).reshape(N, -1)
    bare -= 0.0 if network.skip is None else features @ network.skip.reshape(features.shape[1], -1)
    bare -= 0.0 if network.bias is None else np.reshape(network.bias, (1, -1))
    assert objective(problem, bare, network.skip, network.bias, network.path_norm) == pytest.approx(solution.objective)
    assert solution.lower_bound <= solution.objective


@pytest.mark.parametrize("case, dtype", [("multinomial linear", np.float32), ("pairs linear", np.float64)])
def test_conjugate_gradients_and_single_precision(case, dtype):
    problem = build(case, dtype=dtype)
    best = optimum(case)
    solution = solve(problem, linear_solver="cg")
    assert solution.settings["linear_solver"] == "cg" and solution.dtype == np.dtype(dtype).name
    assert solution.sampled.lower_bound <= best * (1 + 1e-6)
    assert best * (1 - 1e-6) <= solution.sampled.objective <= best * (1 + TOL)


@pytest.mark.parametrize(
    "case",
    [
        "logistic weights margin", "logistic outputs", "multinomial weights", "pairs weights margin", "squared linear",
        "squared linear l2", "squared equality l2", "multinomial equality", "pairs linear",
    ],
)  # fmt: skip
def test_bounds_hold_from_any_iterates(case):
    """Random predictions, multipliers and skips: the bound of `check`, the tightened one, and the relaxed one."""
    problem, rng = build(case), np.random.default_rng(1)
    masks, best = problem.patterns.patterns, optimum(case)
    beta, ridge, useful = np.asarray(problem.beta), host_ridge(problem), 0.0
    exact = bounds.Exact(problem.X, masks, problem.loss, beta, problem.readout, ridge)
    d, c = problem.X.shape[1], problem.n_outputs
    networks = best if c > 1 else optimum(case, every_pattern=True)
    upper = solve(problem, max_iter=30).objective
    for _ in range(20):
        size = 10.0 ** rng.uniform(-3, 1)
        W = rng.standard_normal((d, 2, c, P)) * (rng.random((2, c, P)) < 0.5)
        prediction = size * rng.standard_normal(problem.loss.y.shape)
        t_state = 10.0 ** rng.uniform(-4, 1) * rng.standard_normal((N, 2, c, P))
        skip = None if ridge is None else 10.0 ** rng.uniform(-2, 1) * rng.standard_normal((ridge.columns.shape[1], c))
        check = bounds.check(make_backend("numpy"), exact, np.eye(d), W, prediction, t_state, np.asarray(1.0), skip)
        p, error = pull_back(problem.readout, problem.X, check.dual)
        norms = bounds.tighten(problem.X, masks, p, check.norms, problem.beta, error=error)
        bound, _ = sampled_bound(problem.loss, check.dual, norms.max(axis=(0, 2)), beta, ridge)
        assert check.values[4] <= bound * (1 + 1e-12) and bound <= best * (1 + 1e-6) + 1e-7
        relaxed, _ = relaxed_bound(problem.loss, problem.X, check.dual, beta, problem.readout, ridge)
        assert relaxed <= min(networks, upper) * (1 + 1e-6) + 1e-7
        assert check.values[0] >= networks * (1 - 1e-6) - 1e-7 or c > 1
        useful = max(useful, bound / best)
    assert useful > 0.1  # the inequalities are not empty


@pytest.mark.parametrize("method", ["admm", "newton"])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("case", ["logistic outputs", "multinomial linear", "squared pairs linear"])
def test_units_do_not_matter(case, scale, method, monkeypatch):
    """X, beta and the roots of the skip's penalty in other units; then the weights, beta and the skip's penalty."""
    if method == "newton":
        always_newton(monkeypatch)
    given = {"beta": 0.3, "patterns": GATES, **CASES[case]}
    y, l2 = given.pop("y"), given.pop("skip_l2", 0.0)
    expected = solve(build(case), tol=1e-2).sampled
    beta = given["beta"]
    weighted = build_problem(
        X,
        y,
        **{
            **given,
            "beta": beta * scale,
            "skip_l2": l2 * scale,
            "sample_weight": np.full(len(build(case).loss.y), scale),
        },
    )
    got = solve(weighted, tol=1e-2).sampled
    assert got.objective == pytest.approx(scale * expected.objective, rel=1e-2)
    assert got.lower_bound == pytest.approx(scale * expected.lower_bound, rel=1e-2)
    if given.get("skip") != "linear":
        other = solve(build_problem(scale * X, y, **{**given, "beta": beta * scale}), tol=1e-2).sampled
        assert other.objective == pytest.approx(expected.objective, rel=1e-2) and other.gap <= 1e-2


def test_only_contradictory_pairs_leave_the_zero_network():
    pairs = np.concatenate([PAIRS[:5], PAIRS[:5, ::-1]])
    problem = build_problem(X, None, beta=0.1, loss="logistic", pairs=pairs, patterns=GATES)
    solution = solve(problem)
    assert solution.sampled.objective == pytest.approx(10 * np.log(2)) and solution.network.n_neurons == 0
    assert solution.sampled.lower_bound == pytest.approx(10 * np.log(2))


@pytest.mark.parametrize("method", ["admm", "newton"])
def test_history_and_residuals_name_the_split_of_the_loss(method, monkeypatch):
    if method == "newton":
        always_newton(monkeypatch)
    split = ["primal_loss", "dual_loss"]
    both = [list(solve(build(case), max_iter=1).sampled.residuals) for case in ("multinomial", "squared bias")]
    assert both[0] == both[1] + split and both[1] == ["primal_copy", "dual_copy", "primal_cone", "dual_cone"]
    solution = solve(build("logistic"), max_iter=20)
    assert set([*split, "rho_loss"]) <= set(solution.history[-1]) and len(solution.sampled.rho) == 3
