"""Every loss, readout and skip as a network program: against independent optima, linear models and other runs.

The lying test: no bound may lie above the optimum, which is at most what an interior point method attains, and what is
reported is what `network.predict` gives.
"""

from __future__ import annotations

import numpy as np
import pytest
from network_optimum import Program, convex_optimum
from programs import Case, draw
from scipy.optimize import minimize
from scipy.special import expit

import cvxrelu

pytest.importorskip("cvxpy")
pytest.importorskip("sklearn")

QUIET = {"backend": "numpy"}


def recomputed(case: Case, sol: cvxrelu.Solution) -> float:
    """The objective by the network's own predictions and parameters."""
    program, network = case.program, sol.network
    prediction = np.asarray(network.predict(np.asarray(case.data[0], dtype=np.float64)))
    parts = [] if network.skip is None else [network.skip]
    if program.pairs is None and network.bias is not None:
        parts.append(np.atleast_1d(network.bias))
    theta = np.concatenate(parts) if parts else np.zeros(0)
    return program._replace(columns=None).objective(prediction, network.path_norm, theta)


@pytest.mark.parametrize("seed", [*range(24), 2384])
def test_bounds_never_lie_and_objectives_are_those_of_the_network(seed):
    """Each seed is one problem of each kind: logistic and squared, rows and pairs, skips, constraints, scales."""
    case = draw(seed)
    truth = convex_optimum(case.program)
    for kind, tol in (("exact", 1e-6), ("relaxed", 1e-3)):
        sol = cvxrelu.solve(*case.data, certificate=kind, tol=tol, **QUIET, **case.options)
        assert sol.objective == pytest.approx(recomputed(case, sol), rel=1e-10, abs=1e-300)
        assert 0 <= sol.lower_bound <= sol.objective * (1 + 1e-12)
        assert sol.lower_bound <= truth.attained * (1 + 1e-12)
        if kind == "exact":
            assert sol.objective <= truth.attained * (1 + 1e-5)
            assert sol.gap <= 1e-3 or sol.objective <= 1e-20 * np.sum(case.program.weight * case.program.y**2)
        if case.program.equality is not None:
            C, e = case.options["equality"]
            np.testing.assert_allclose(C @ sol.network.skip, e, atol=1e-9 * max(1.0, np.abs(e).max()))


@pytest.mark.parametrize("seed", range(8))
def test_certificates_of_any_network_never_lie(seed):
    """A random network with the same skip and readout, certified by exact and relaxed bounds."""
    case = draw(seed)
    options = {k: v for k, v in case.options.items() if k not in ("intercept", "skip", "equality")}
    rng, d = np.random.default_rng(seed), case.data[0].shape[1]
    skip = case.options.get("skip")
    network = cvxrelu.ReLUNetwork(
        rng.standard_normal((d, 3)),
        rng.standard_normal(3),
        rng.standard_normal(3) if case.options["intercept"] else None,
        rng.standard_normal(d) if skip == "linear" else None, 0.3 if skip else None,
    )  # fmt: skip
    truth = convex_optimum(case.program._replace(equality=None))
    for kind, limit in (("exact", None), ("relaxed", None), ("branch", 2.0)):
        found = cvxrelu.certify(network, *case.data, kind=kind, time_limit=limit, **QUIET, **options)
        assert found.rigorous and found.lower_bound <= truth.attained * (1 + 1e-12)
        assert found.objective >= truth.attained * (1 - 1e-6)


# -- edge cases -------------------------------------------------------------------------------------------------------
RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 2))
SIGNS = np.array([1.0, -1, 1, 1, -1, -1, 1])
PAIRS = np.array([[0, 1], [2, 3], [4, 5], [6, 0], [1, 4]])


def pair_problem(pairs, y, weight=None, margin=0.0, beta=0.2, **more):
    m = len(pairs)
    weight = np.ones(m) if weight is None else np.asarray(weight, dtype=np.float64)
    return Program(
        X, y, beta, "logistic", weight, np.broadcast_to(margin, (m,)) + np.zeros(m), np.asarray(pairs), **more
    )


EDGES = {
    "one class": ({"y": np.ones(7)}, Program(X, np.ones(7), 0.2, "logistic", np.ones(7), np.zeros(7))),
    "separable": (
        {"y": np.sign(X[:, 0])}, Program(X, np.sign(X[:, 0]), 0.2, "logistic", np.ones(7), np.zeros(7)),
    ),
    "weights of zero": (
        {"y": SIGNS, "sample_weight": np.array([1.0, 0, 2, 0, 1, 1, 0])},
        Program(X, SIGNS, 0.2, "logistic", np.array([1.0, 0, 2, 0, 1, 1, 0]), np.zeros(7)),
    ),
    "one weight": (
        {"y": SIGNS, "sample_weight": np.eye(7)[2]}, Program(X, SIGNS, 0.2, "logistic", np.eye(7)[2], np.zeros(7)),
    ),
    "repeated pairs": ({"pairs": np.repeat(PAIRS, 3, axis=0)}, pair_problem(np.repeat(PAIRS, 3, axis=0), np.ones(15))),
    "pairs that contradict": (
        {"pairs": np.concatenate([PAIRS, PAIRS[:, ::-1]])},
        pair_problem(np.concatenate([PAIRS, PAIRS[:, ::-1]]), np.ones(10)),
    ),
    "pairs either way": (
        {"pairs": PAIRS, "y": SIGNS[:5], "margin": np.array([0.0, 3, -3, 50, -50])},
        pair_problem(PAIRS, SIGNS[:5], margin=np.array([0.0, 3, -3, 50, -50])),
    ),
    "margin of thirty": ({"pairs": PAIRS, "margin": 30.0}, pair_problem(PAIRS, np.ones(5), margin=30.0)),
    "margin of minus thirty": ({"pairs": PAIRS, "margin": -30.0}, pair_problem(PAIRS, np.ones(5), margin=-30.0)),
    "one pair": ({"pairs": PAIRS[:1]}, pair_problem(PAIRS[:1], np.ones(1))),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_edge_cases(name):
    options, program = EDGES[name]
    sol = cvxrelu.solve(X, options.get("y"), beta=0.2, loss="logistic", certificate="exact", tol=1e-5, **QUIET,
                        **{k: v for k, v in options.items() if k != "y"})  # fmt: skip
    truth = convex_optimum(program)
    assert sol.success
    assert sol.lower_bound <= truth.attained * (1 + 1e-12) + 1e-300
    assert sol.objective <= truth.attained * (1 + 1e-5) + 1e-300


@pytest.mark.parametrize(
    "margin",
    [1e3, -1e3, -1e6, pytest.param(1e6, marks=pytest.mark.xfail(reason="hinge-like: refinement stops at gaps to 0.5"))],
)
@pytest.mark.parametrize("skip_l2", [None, 1e-3])
def test_margins_far_out(margin, skip_l2):
    """Where no start is anywhere near, the loss is flat or linear and its Hessian zero: an honest gap."""
    skip = {} if skip_l2 is None else {"skip": "linear", "skip_l2": skip_l2}
    for data in ({"pairs": PAIRS}, {"y": SIGNS}):
        sol = cvxrelu.solve(
            X, loss="logistic", margin=margin, beta=0.05, certificate="exact", tol=1e-4, **data, **skip, **QUIET
        )
        assert sol.lower_bound <= sol.objective
        assert sol.gap <= 0.1 or sol.objective < 1e-300


@pytest.mark.parametrize("margin", [50.0, 100.0, 300.0])
@pytest.mark.parametrize(
    "options",
    [{}, {"skip": "linear", "skip_l2": 0.1}, {"sample_weight": np.full(7, 1e4), "beta": 2e3}, {"pairs": PAIRS}],
)
def test_margins_beside_which_the_curvature_vanishes(margin, options):
    """At zero the Hessian is exp(-margin): a rigorous gap says that the search got away from there."""
    given = {"loss": "logistic", "beta": 0.2, "certificate": "exact", "margin": margin, **QUIET, **options}
    sol = cvxrelu.solve(X, None if "pairs" in options else SIGNS, **given)
    assert sol.network.n_neurons > 0
    assert sol.certificate.rigorous and sol.gap <= 1e-2


def test_pairs_that_only_contradict_have_nothing_to_learn():
    sol = cvxrelu.solve(X, pairs=np.array([[0, 1], [1, 0]]), loss="logistic", beta=1e-3, certificate="exact", **QUIET)
    assert sol.network.n_neurons == 0
    assert sol.objective == pytest.approx(2 * np.log(2))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scale_of_the_data(scale, dtype):
    """X and beta by the same factor is the same problem for the logistic loss; the skip's columns scale along."""
    options = {"loss": "logistic", "pairs": PAIRS, "certificate": "exact", "tol": 1e-4, **QUIET}
    linear = {"skip": "linear", "skip_l2": 0.1}
    plain = cvxrelu.solve(X, beta=0.1, **options)
    scaled = cvxrelu.solve((scale * X).astype(dtype), beta=0.1 * scale, **options)
    assert scaled.objective == pytest.approx(plain.objective, rel=3e-4)
    plain = cvxrelu.solve(X, beta=0.1, **options, **linear)
    scaled = cvxrelu.solve(
        (scale * X).astype(dtype), beta=0.1 * scale, **options, skip="linear", skip_l2=0.1 * scale**2
    )
    assert scaled.success and scaled.objective == pytest.approx(plain.objective, rel=3e-4)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scale_of_the_loss(factor):
    """Weights, beta and skip_l2 by a factor scale the objective."""
    given = {"loss": "multinomial", "skip": "linear", "tol": 1e-3, **QUIET}
    labels = np.arange(7) % 3
    plain = cvxrelu.solve(X, labels, beta=0.1, skip_l2=0.1, **given)
    scaled = cvxrelu.solve(
        X, labels, beta=0.1 * factor, skip_l2=0.1 * factor, sample_weight=np.full(7, factor), **given
    )
    assert scaled.success and scaled.objective == pytest.approx(factor * plain.objective, rel=3e-3)


# -- beside linear models ---------------------------------------------------------------------------------------------
def linear_optimum(columns, y, l2, readout=lambda f: f):
    """Optimum of logistic regression with this ridge, by scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    A = readout(columns)
    both = np.concatenate([A * y[:, None], -A * y[:, None]])  # each row once as +1 and once as -1: two classes always
    target = np.repeat([1.0, -1.0], len(A))
    model = LogisticRegression(fit_intercept=False, C=2.0 / (2.0 * l2), tol=1e-12, max_iter=10_000)
    theta = model.fit(both, target, sample_weight=np.full(2 * len(A), 0.5)).coef_[0]
    return float(np.sum(np.logaddexp(0, -y * (A @ theta)))) + 0.5 * l2 * float(theta @ theta)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("l2", [1e-3, 100.0])
def test_never_worse_than_the_linear_model_and_equal_to_it_for_large_beta(l2, paired):
    rng = np.random.default_rng(1)
    data, signs = rng.standard_normal((40, 3)), rng.choice([-1.0, 1.0], 40)
    pairs = rng.permutation(40).reshape(20, 2)
    columns = data if paired else np.hstack([data, np.ones((40, 1))])
    labels = np.ones(20) if paired else signs
    linear = linear_optimum(columns, labels, l2, (lambda f: f[pairs[:, 0]] - f[pairs[:, 1]]) if paired else lambda f: f)
    options = {"loss": "logistic", "skip": "linear", "skip_l2": l2, "tol": 1e-4, **QUIET}
    options |= {"pairs": pairs} if paired else {"y": signs}
    for beta in (0.3, 1.0):
        sol = cvxrelu.solve(data, beta=beta, **{**options, "tol": 1e-3})
        assert sol.objective <= linear * (1 + 1e-9)
    for beta in (1e4, 1e8):
        sol = cvxrelu.solve(data, beta=beta, **options)
        assert sol.network.n_neurons == 0
        assert sol.objective == pytest.approx(linear, rel=1e-6)
        assert sol.gap <= 1e-6
    if not paired:
        return
    ours = cvxrelu.solve_logistic(data[pairs[:, 0]] - data[pairs[:, 1]], l2=l2)
    assert sol.objective == pytest.approx(ours.objective, rel=1e-6)
    np.testing.assert_allclose(sol.network.skip, ours.theta, atol=1e-5)


def test_beta_max_is_where_neurons_come_in():
    options = {"loss": "logistic", "skip": "linear", "skip_l2": 0.3, "pairs": PAIRS}
    largest = cvxrelu.beta_max(X, **options)
    above, below = (cvxrelu.solve(X, beta=s * largest, tol=1e-6, **options, **QUIET) for s in (1.001, 0.9))
    assert above.network.n_neurons == 0 and above.gap <= 1e-6
    assert below.network.n_neurons > 0
    labels = np.arange(7) % 3
    largest = cvxrelu.beta_max(X, labels, loss="multinomial")
    assert cvxrelu.solve(X, labels, beta=1.001 * largest, loss="multinomial", **QUIET).network.n_neurons == 0
    assert cvxrelu.solve(X, labels, beta=0.9 * largest, loss="multinomial", **QUIET).network.n_neurons > 0


# -- several classes --------------------------------------------------------------------------------------------------
def wide_runs(data, Y, weight, beta, runs=4, width=20):
    """Best of L-BFGS runs of a wide network on the balanced objective, and it is some network's."""
    (_n, d), c = data.shape, Y.shape[1]

    def objective(flat):
        W, A = flat[: d * width].reshape(d, width), flat[d * width :].reshape(c, width)
        hidden = np.maximum(data @ W, 0)
        b = hidden @ A.T
        b = b - b.max(axis=1, keepdims=True)
        e = np.exp(b)
        sums = e.sum(axis=1, keepdims=True)
        value = np.sum(weight * (np.log(sums[:, 0]) - np.sum(Y * b, axis=1))) + 0.5 * beta * np.sum(flat * flat)
        p = weight[:, None] * (e / sums - Y)
        of_W = data.T @ ((hidden > 0) * (p @ A))
        return value, np.concatenate([of_W.ravel(), (p.T @ hidden).ravel()]) + beta * flat

    starts = [0.5 * np.random.default_rng(seed).standard_normal((d + c) * width) for seed in range(runs)]
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-10}
    return min(minimize(objective, x, jac=True, method="L-BFGS-B", options=options).fun for x in starts)


@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_multinomial_as_good_as_many_runs_of_a_wide_network(beta):
    rng = np.random.default_rng(2)
    data = rng.standard_normal((25, 2))
    labels = (data[:, 0] > 0).astype(int) + (np.abs(data[:, 1]) > 0.5)
    weight = rng.choice([0.5, 1.0, 2.0], 25)
    best = wide_runs(data, np.eye(3)[labels], weight, beta)
    given = {"beta": beta, "loss": "multinomial", "sample_weight": weight, **QUIET}
    for options in ({"tol": 1e-4}, {"tol": 1e-3, "certificate": "relaxed"}):
        sol = cvxrelu.solve(data, labels, **given, **options)
        assert sol.objective <= best * (1 + 1e-3)
        assert sol.lower_bound <= min(best, sol.objective) * (1 + 1e-12)
    assert sol.certificate.rigorous and sol.gap < 0.2
    found = cvxrelu.certify(sol.network, data, np.eye(3)[labels], kind="relaxed", **given)
    assert found.lower_bound <= best and found.objective == pytest.approx(sol.objective, rel=1e-12)


def test_two_classes_are_a_logistic_problem():
    """With outputs (-a, a) / sqrt(2) the multinomial loss is the logistic one of sqrt(2) a."""
    options = {"tol": 1e-5, **QUIET}
    two = cvxrelu.solve(X, (SIGNS > 0).astype(int), beta=0.1, loss="multinomial", **options)
    one = cvxrelu.solve(X, SIGNS, beta=0.1 / np.sqrt(2), loss="logistic", **options)
    assert two.objective == pytest.approx(one.objective, rel=5e-5)
    np.testing.assert_allclose(np.diff(two.network.predict(X), axis=1)[:, 0], one.network.predict(X), atol=0.05)


# -- the same answer in other ways ------------------------------------------------------------------------------------
def preference_data(n=30, d=3, seed=0):
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((n, d))
    pairs = rng.permutation(np.repeat(np.arange(n), 2)).reshape(-1, 2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    score = np.maximum(data @ rng.standard_normal(d), 0) + data[:, 0]
    signs = np.where(rng.random(len(pairs)) < expit(2 * (score[pairs[:, 0]] - score[pairs[:, 1]])), 1.0, -1.0)
    return data, pairs, signs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_and_jax_agree(dtype):
    data, pairs, signs = preference_data()
    options = {"beta": 0.5, "loss": "logistic", "pairs": pairs, "skip": "linear", "skip_l2": 0.5, "margin": 0.1}
    here, there = (cvxrelu.solve(data.astype(dtype), signs, backend=b, **options) for b in ("numpy", "jax"))
    assert here.success and there.success
    assert there.backend == "jax"
    assert here.objective == pytest.approx(there.objective, rel=2e-3)
    # An estimate, and by float32: it may be above the optimum by as little as this.
    assert max(here.lower_bound, there.lower_bound) <= min(here.objective, there.objective) * (1 + 1e-4)


def test_warm_start_with_a_skip_needs_less():
    data, pairs, signs = preference_data(seed=1)
    options = {"beta": 0.5, "loss": "logistic", "pairs": pairs, "skip": "linear", "skip_l2": 0.5, **QUIET}
    cold = cvxrelu.solve(data, signs, **options)
    warm = cvxrelu.solve(data, signs, warm_start=cold, **options)
    assert warm.success and warm.n_rounds < cold.n_rounds
    assert warm.objective <= cold.objective * (1 + 1e-6)


def test_paths_of_pairs_with_cross_validation():
    data, pairs, signs = preference_data(seed=2)
    given = {"loss": "logistic", "pairs": pairs, "skip": "linear", "skip_l2": 0.5, **QUIET}
    found = cvxrelu.path(data, signs, betas=3, smallest=0.1, cv=2, scorer="accuracy", tol=1e-2, **given)
    assert np.all(np.diff(found.objectives) <= 1e-2 * found.objectives[:-1])
    assert found.n_neurons[0] == 0 and found.n_neurons[-1] > 0
    assert found.fold_scores.shape == (3, 2)
    last = found.solutions[-1]
    alone = cvxrelu.solve(data, signs, beta=float(found.betas[-1]), tol=1e-2, **given)
    assert last.objective == pytest.approx(alone.objective, rel=2e-2)

    seen = []

    def scorer(network, X, y, pairs):
        seen.append((len(y), pairs))
        return float(np.mean(y * (network.predict(X)[pairs[:, 0]] - network.predict(X)[pairs[:, 1]]) > 0))

    again = cvxrelu.path(data, signs, betas=found.betas[:2], cv=2, scorer=scorer, tol=1e-2, **given)
    assert sum(count for count, _ in seen) == 2 * len(pairs)
    np.testing.assert_allclose(again.fold_scores[1], found.fold_scores[1], atol=0.1)


def test_paths_score_multinomial_and_logistic_rows():
    rng = np.random.default_rng(3)
    data = rng.standard_normal((45, 2))
    labels = (data[:, 0] > 0).astype(int) + (data[:, 1] > 0.5)
    found = cvxrelu.path(data, labels, betas=2, smallest=0.1, cv=2, loss="multinomial", tol=1e-2, **QUIET)
    assert found.fold_scores[0].mean() == pytest.approx(-np.log(3), rel=0.05)  # the zero network
    assert found.fold_scores[-1].mean() > -0.6
    hits = cvxrelu.path(data, np.where(labels > 0, 1.0, -1.0), betas=2, cv=2, loss="logistic", scorer="accuracy",
                        tol=1e-2, **QUIET)  # fmt: skip
    assert hits.fold_scores[-1].mean() > 0.8
