"""`solve_logistic` against Clarabel, SciPy, scikit-learn; the bound at points that are not optimal; odd data; input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import make_backend
from scipy.optimize import minimize

from cvxrelu import BackendError, Status
from cvxrelu.backends.numpy import NumpyBackend
from cvxrelu.last_layer.newton import _step_length, newton_step
from cvxrelu.last_layer.program import Program, measure
from cvxrelu.last_layer.solve import solve_logistic
from cvxrelu.program.losses import Logistic

seeds = st.integers(0, 10**6)


def objective(theta, A, y=None, *, l2, scale=1.0, margin=0.0, sample_weight=None):
    """The program's value by its formula, in extended precision."""
    y, weight = np.ones(len(A)) if y is None else y, np.ones(len(A)) if sample_weight is None else sample_weight
    u = (margin - scale * y * (A @ theta)).astype(np.longdouble)
    return float(weight @ np.logaddexp(np.longdouble(0), u) + l2 / 2 * np.longdouble(theta) @ np.longdouble(theta))


def clarabel(A, y, *, l2, scale=1.0, margin=0.0, sample_weight=None, solver="CLARABEL"):
    """Optimum by an interior point method; its own tolerance about 1e-8."""
    import cvxpy as cp

    weight = np.ones(len(A)) if sample_weight is None else sample_weight
    theta = cp.Variable(A.shape[1])
    loss = cp.logistic(margin - cp.multiply(scale * y, A @ theta))
    program = cp.Problem(cp.Minimize(weight @ loss + l2 / 2 * cp.sum_squares(theta)))
    program.solve(solver=solver)
    return float(program.value)


def by_newton(A, y=None, *, l2, scale=1.0, margin=0.0, sample_weight=None):
    """Optimum by SciPy's trust region Newton method with the exact Hessian."""
    y, weight = np.ones(len(A)) if y is None else y, np.ones(len(A)) if sample_weight is None else sample_weight
    B = scale * y[:, None] * A
    sigmoid = lambda u: 0.5 * (1 + np.tanh(0.5 * u))  # noqa: E731
    bend = lambda u: weight * sigmoid(u) * sigmoid(-u)  # noqa: E731
    found = minimize(
        lambda v: objective(v, A, y, l2=l2, scale=scale, margin=margin, sample_weight=weight),
        np.zeros(A.shape[1]),
        jac=lambda v: l2 * v - B.T @ (weight * sigmoid(margin - B @ v)),
        hess=lambda v: l2 * np.eye(len(v)) + B.T @ (bend(margin - B @ v)[:, None] * B),
        method="trust-exact", options={"gtol": 1e-9 * np.sqrt(l2), "maxiter": 5000},
    )  # fmt: skip
    return found.fun


def draw(seed, n=60, d=5):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, d))
    y = np.where(A @ rng.standard_normal(d) + rng.standard_normal(n) > 0, 1.0, -1.0)
    return A, y


def check(sol, A, y=None, tol=1e-8, **program):
    """What every result must satisfy, whatever it is compared with."""
    value = objective(sol.theta, A, y, **program)
    assert sol.objective == pytest.approx(value, rel=1e-11, abs=1e-300)
    assert sol.lower_bound <= value * (1 + 1e-12)
    assert sol.gap == pytest.approx((sol.objective - sol.lower_bound) / max(sol.objective, 1e-300), abs=1e-15)
    assert sol.success and sol.gap <= tol
    assert sol.theta.shape == (A.shape[1],) and sol.theta.dtype == np.float64 and sol.dual.shape == (len(A),)


def dual_value(t, A, y=None, *, l2, scale=1.0, margin=0.0, sample_weight=None):
    """The bound that t proves, by the formula."""
    y, weight = np.ones(len(A)) if y is None else y, np.ones(len(A)) if sample_weight is None else sample_weight
    assert not t[weight == 0].any()
    s = np.divide(t * y, weight, out=np.zeros_like(t), where=weight > 0)
    assert s.min() >= 0 and s.max() <= 1
    xlogx = lambda p: np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)  # noqa: E731
    pull = scale * (A.T @ t)
    return weight @ (-xlogx(s) - xlogx(1 - s) + s * margin) - pull @ pull / (2 * l2)


# -- the optimum ------------------------------------------------------------------------------------------------------
CASES = {
    "plain": {"l2": 1.0},
    "weak ridge": {"l2": 1e-2},
    "strong ridge": {"l2": 1e3},
    "scale": {"l2": 0.1, "scale": 0.2},
    "positive margin": {"l2": 0.5, "margin": 3.0},
    "negative margin": {"l2": 0.5, "margin": -2.0},
    "margins": {"l2": 0.5, "margin": np.linspace(-3, 3, 60)},
    "weights": {"l2": 0.5, "sample_weight": np.arange(60.0) % 4},
    "all": {"l2": 0.2, "scale": 3.0, "margin": np.linspace(2, -1, 60), "sample_weight": np.arange(60.0) % 3},
}


@pytest.mark.parametrize("name", CASES)
def test_against_clarabel(name):
    A, y = draw(0)
    sol = solve_logistic(A, y, backend="numpy", **CASES[name])
    check(sol, A, y, **CASES[name])
    optimum = clarabel(A, y, **CASES[name])
    assert sol.objective == pytest.approx(optimum, rel=1e-6, abs=1e-6)
    assert sol.lower_bound <= by_newton(A, y, **CASES[name]) * (1 + 1e-12)
    assert sol.lower_bound == pytest.approx(dual_value(sol.dual, A, y, **CASES[name]), rel=1e-9)


def test_against_scs():
    A, y = draw(1, 40, 3)
    assert solve_logistic(A, y, l2=1.0).objective == pytest.approx(clarabel(A, y, l2=1.0, solver="SCS"), rel=1e-4)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # its tolerance is below rounding
@pytest.mark.parametrize("l2", [10.0, 1.0, 1e-2])
def test_against_scikit_learn(l2):
    """LogisticRegression(C = 1 / l2) without intercept is the same problem."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression

    X, labels = load_breast_cancer(return_X_y=True)
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), 2.0 * labels - 1
    sol = solve_logistic(X, y, l2=l2, tol=1e-15, max_iter=40)  # to the limits of rounding
    other = LogisticRegression(C=1 / l2, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=40)
    theta = other.fit(X, labels).coef_[0]
    assert sol.objective == pytest.approx(objective(theta, X, y, l2=l2), rel=1e-8)
    assert sol.objective <= objective(theta, X, y, l2=l2) * (1 + 1e-10)
    np.testing.assert_allclose(sol.theta, theta, rtol=0, atol=1e-8 * np.abs(theta).max())


@settings(max_examples=25)
@given(seeds)
def test_random_programs(seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 40)), int(rng.integers(1, 12))
    A = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-2, 3, size=d)
    y = rng.choice([-1.0, 1.0], size=n)
    weight = rng.choice([0.0, 1.0, 5.0], size=n)
    weight[0] = 1.0
    program = {
        "l2": 10.0 ** rng.integers(-4, 3), "scale": 10.0 ** rng.integers(-1, 2), "sample_weight": weight,
        "margin": rng.standard_normal(n) * 10.0 ** rng.integers(-1, 2),
    }  # fmt: skip
    sol = solve_logistic(A, y, backend="numpy", **program)
    check(sol, A, y, **program)
    assert sol.lower_bound <= by_newton(A, y, **program) * (1 + 1e-12)


# -- the certificate --------------------------------------------------------------------------------------------------
def test_the_bound_holds_anywhere():
    """Two thousand bounds at random theta: never above the optimum, which Newton's method encloses."""
    backend, rng = NumpyBackend(), np.random.default_rng(0)
    tight = 0
    for _ in range(200):
        n, d = rng.integers(1, 8, size=2)
        weight = rng.choice([0.0, 1.0, 1e-3, 50.0], size=(n, 1), p=[0.1, 0.6, 0.1, 0.2])
        margin = rng.standard_normal((n, 1)) * 10.0 ** rng.integers(-2, 3)
        loss = Logistic(rng.choice([-1.0, 1.0], size=(n, 1)), weight, margin)
        l2, scale = 10.0 ** rng.uniform(-4, 3), 10.0 ** rng.uniform(-2, 2)
        program = Program(rng.standard_normal((n, d)), loss, np.asarray(scale), np.asarray(l2))
        theta = np.zeros((d, 1))
        found = measure(backend, [program], loss, theta, l2)
        for _ in range(40):
            if found.objective - found.lower_bound <= 1e-11 * found.objective:
                break
            theta, _ = newton_step(backend, lambda p=program: [p], theta, found.gradient, l2, True)
            found = measure(backend, [program], loss, theta, l2)
        optimum = found.objective
        tight += optimum - found.lower_bound <= 1e-9 * optimum
        for size in (0.0, 1e-6, 1e-3, 0.1, 1.0, 1.0, 10.0, 100.0, 1e3, 1e4):
            near = theta + size * rng.standard_normal((d, 1)) / scale
            anywhere = measure(backend, [program], loss, near, l2)
            assert 0 <= anywhere.lower_bound <= optimum * (1 + 1e-14)
            assert anywhere.objective >= optimum * (1 - 1e-9)
    assert tight > 195  # else the optimum above would not be one


@given(seeds)
def test_the_bound_allows_for_its_rounding(seed):
    """It is below what its t proves in extended precision, and not by much."""
    rng = np.random.default_rng(seed)
    n, d = rng.integers(1, 30, size=2)
    A, y = rng.standard_normal((n, d)), rng.choice([-1.0, 1.0], size=n)
    loss = Logistic(y[:, None], np.ones((n, 1)), rng.standard_normal((n, 1)))
    l2 = 10.0 ** rng.uniform(-3, 1)
    program = Program(A, loss, np.asarray(0.7), np.asarray(l2))
    found = measure(NumpyBackend(), [program], loss, 0.3 * rng.standard_normal((d, 1)), l2)
    t, margin = found.dual[:, 0].astype(np.longdouble), loss.margin[:, 0].astype(np.longdouble)
    s, pull = t * y, np.longdouble(0.7) * (A.T.astype(np.longdouble) @ t)
    entropy, ridge = -s * np.log(s) - (1 - s) * np.log1p(-s), pull @ pull / (2 * np.longdouble(l2))
    proven = np.sum(entropy + s * margin) - ridge
    assert found.lower_bound <= proven
    assert found.lower_bound >= proven - 1e-11 * (np.sum(entropy + np.abs(s * margin)) + ridge)


def test_the_gap_is_the_gradients(backend_name):
    """Before scaling, objective - bound = |gradient|^2 / (2 l2); with the best scale the bound is no worse."""
    backend, (A, y) = make_backend(backend_name), draw(2)
    loss = Logistic(y[:, None], np.ones((60, 1)), np.zeros((60, 1)))
    theta = 0.3 * np.random.default_rng(0).standard_normal((5, 1))
    with backend.scope():
        program = backend.put(Program(A, loss, np.asarray(1.0), np.asarray(2.0)))
        found = measure(backend, [program], program.loss, theta, 2.0)
        halves = [
            program._replace(A=program.A[rows, :], loss=Logistic(*(v[rows, :] for v in program.loss)))
            for rows in (slice(0, 25), slice(25, 60))
        ]
        in_parts = measure(backend, halves, program.loss, theta, 2.0)
    t = y / (1 + np.exp(y * (A @ theta[:, 0])))
    plain = dual_value(t, A, y, l2=2.0)
    slope = 2 * theta[:, 0] - A.T @ t
    assert found.objective - plain == pytest.approx(slope @ slope / 4, rel=1e-10)
    assert found.lower_bound >= plain - 1e-10
    assert found.lower_bound == pytest.approx(dual_value(found.dual[:, 0], A, y, l2=2.0), rel=1e-10)
    np.testing.assert_allclose(found.gradient[:, 0], slope, atol=1e-12)
    for one, other in zip(found, in_parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


# -- odd data ---------------------------------------------------------------------------------------------------------
def odd_data():
    A, y = draw(4, 40, 4)
    doubled, signs = np.vstack([A, A]), np.concatenate([y, y])
    return {
        "separable": (A, np.where(A[:, 0] > 0, 1.0, -1.0), {"l2": 1e-3}),
        "separable, hardly any ridge": (A, np.where(A[:, 0] > 0, 1.0, -1.0), {"l2": 1e-8}),
        "one class": (A, None, {"l2": 0.1}),
        "one class, negative": (A, -np.ones(40), {"l2": 0.1}),
        "duplicated": (doubled, signs, {"l2": 0.1}),
        "contradictory": (doubled, np.concatenate([y, -y]), {"l2": 0.1}),
        "pairs (i, i)": (np.where(np.arange(40)[:, None] < 10, 0.0, A), None, {"l2": 0.1}),
        "all zero": (0 * A, y, {"l2": 0.1}),
        "constant column": (np.hstack([A, np.ones((40, 1))]), y, {"l2": 0.1}),
        "zero column": (np.hstack([A, np.zeros((40, 1))]), y, {"l2": 1e-6}),
        "equal columns": (np.hstack([A, A]), y, {"l2": 1e-6}),
        "columns of many scales": (A * [1e-6, 1, 1e3, 1e6], y, {"l2": 1e-3}),
        "one row": (A[:1], y[:1], {"l2": 0.1}),
        "one column": (A[:, :1], y, {"l2": 0.1}),
        "one number": (A[:1, :1], y[:1], {"l2": 0.1}),
        "d >> n": (np.random.default_rng(5).standard_normal((12, 300)), y[:12], {"l2": 0.1}),
        "large margin": (A, y, {"l2": 0.1, "margin": 1e3}),
        "large negative margin": (A, y, {"l2": 0.1, "margin": -1e3}),
        "mixed margins": (A, y, {"l2": 0.1, "margin": np.linspace(-50, 50, 40)}),
        "few weights": (A, y, {"l2": 0.1, "sample_weight": (np.arange(40) == 3) * 2.0}),
        "weights of many scales": (A, y, {"l2": 0.1, "sample_weight": np.logspace(-6, 6, 40)}),
    }


@pytest.mark.parametrize("name", odd_data())
def test_odd_data(name):
    A, y, program = odd_data()[name]
    sol = solve_logistic(A, y, backend="numpy", **program)
    check(sol, A, y, **program)
    assert sol.status is Status.OPTIMAL
    assert sol.lower_bound <= by_newton(A, y, **program) * (1 + 1e-11) + 1e-300


def test_what_odd_data_mean():
    data = odd_data()
    A, y, program = data["duplicated"]
    weighted = solve_logistic(A[:40], y[:40], sample_weight=2 * np.ones(40), tol=1e-12, **program)
    np.testing.assert_allclose(solve_logistic(A, y, tol=1e-12, **program).theta, weighted.theta, atol=1e-7)
    A, y, program = data["contradictory"]
    np.testing.assert_allclose(solve_logistic(A, y, tol=1e-12, **program).theta, 0, atol=1e-6)
    A, y, program = data["zero column"]
    assert abs(solve_logistic(A, y, **program).theta[-1]) < 1e-12
    A, y, program = data["all zero"]
    sol = solve_logistic(A, y, **program)
    assert sol.objective == pytest.approx(40 * np.log(2)) and not sol.theta.any() and sol.n_iter == 0
    A, y, program = data["equal columns"]
    theta = solve_logistic(A, y, tol=1e-12, **program).theta
    np.testing.assert_allclose(theta[:4], theta[4:], atol=1e-6 * np.abs(theta).max())


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("separable", [False, True])
def test_scales(scale, separable):
    """theta(scale, l2) = theta(1, l2 / scale^2) / scale: the same optimum."""
    A, y = draw(6)
    y = np.where(A[:, 0] > 0, 1.0, -1.0) if separable else y
    program = {"l2": 0.01, "scale": scale}
    sol = solve_logistic(A, y, **program)
    check(sol, A, y, **program)
    same = solve_logistic(A, y, l2=0.01 / scale**2)
    assert sol.objective == pytest.approx(same.objective, rel=2e-8)


def test_a_loss_that_underflows():
    A, y = draw(7)
    sol = solve_logistic(A, y, l2=1.0, margin=-1e6)
    assert sol.objective == 0 and sol.lower_bound == 0 and sol.gap == 0 and sol.status is Status.OPTIMAL


# -- methods, precisions, backends ------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "jax"])
@pytest.mark.parametrize("method", ["agd", "svrg", "adamw"])
def test_every_method_on_every_backend(method, backend, dtype):
    A, y = draw(8)
    program = {"l2": 0.5, "margin": 0.3}
    sol = solve_logistic(
        A, y, method=method, backend=backend, dtype=dtype, max_iter=40 if method == "adamw" else None, **program
    )
    assert (sol.backend, sol.dtype) == (backend, dtype)
    optimum = by_newton(A, y, **program)
    assert sol.lower_bound <= optimum * (1 + 1e-12) <= sol.objective * (1 + 2e-12)
    if method == "adamw":
        assert sol.status is Status.MAX_ITER and not sol.success and sol.n_iter == 40
        assert objective(np.zeros(5), A, y, **program) > sol.objective
    else:
        check(sol, A, y, **program)


def test_strict_backend(monkeypatch):
    """The whole solve uses nothing beyond the array API standard."""
    strict = make_backend("strict")
    monkeypatch.setattr("cvxrelu.last_layer.solve.select_backend", lambda *_: strict)
    for A, y in (draw(8), draw(8, 6, 20)):
        for method in ("agd", "svrg", "adamw"):
            sol = solve_logistic(A, y, l2=0.5, method=method, max_iter=200 if method != "adamw" else 3)
            assert sol.lower_bound <= by_newton(A, y, l2=0.5) * (1 + 1e-12)
            assert sol.status is (Status.MAX_ITER if method == "adamw" else Status.OPTIMAL)


def test_without_finish():
    """The plain methods reach the tolerance by themselves, without a Newton step."""
    A, y = draw(9)
    for method, tol in (("agd", 1e-8), ("svrg", 1e-6)):
        sol = solve_logistic(A, y, l2=5.0, method=method, finish=False, tol=tol)
        check(sol, A, y, l2=5.0, tol=tol)
        assert sol.settings["newton_steps"] == 0
    assert solve_logistic(A, y, l2=1e-3).settings["newton_steps"] > 0


def test_newton_by_conjugate_gradients(monkeypatch, backend_name):
    monkeypatch.setattr("cvxrelu.last_layer.run.DIRECT_NEWTON", 0)
    backend = make_backend(backend_name)
    monkeypatch.setattr("cvxrelu.last_layer.solve.select_backend", lambda *_: backend)
    A, y = draw(10)
    for data in (A, A * [1e-3, 1, 1, 30, 1]):
        sol = solve_logistic(data, y, l2=1e-4)
        check(sol, data, y, l2=1e-4)
        assert sol.settings["newton_steps"] > 0


@pytest.mark.parametrize("theta", [0.0, 5.0, -40.0])
def test_newton_never_raises_the_objective(theta):
    A, y = draw(11)
    loss, backend = Logistic(y[:, None], np.ones((60, 1)), np.full((60, 1), 30.0)), NumpyBackend()
    program = Program(A, loss, np.asarray(1.0), np.asarray(1e-3))
    at = np.full((5, 1), theta)
    for _ in range(60):
        found = measure(backend, [program], loss, at, 1e-3)
        new, _ = newton_step(backend, lambda: [program], at, found.gradient, 1e-3, True)
        assert measure(backend, [program], loss, new, 1e-3).objective <= found.objective * (1 + 1e-12)
        at = new
    assert found.objective - found.lower_bound <= 1e-9 * found.objective


def test_newton_shortens_a_step_that_rises():
    """Falls with slope -1 up to 0.05 and rises with 0.2 from there: at 1 the slope is small, and the value is not."""
    loss = Logistic(np.array([[1.0], [-1.0]]), np.array([[1.2e-3], [0.2]]), np.array([[50.0], [100.0]]))
    program = Program(np.array([[1e3], [1.0]]), loss, np.asarray(1.0), np.asarray(1e-9))
    length = _step_length(NumpyBackend(), lambda: [program], np.zeros((1, 1)), np.ones((1, 1)), 1e-9)
    assert 0.02 < length < 0.06


# -- data larger than memory ------------------------------------------------------------------------------------------
def test_memory_map_and_factory(tmp_path):
    A, y = draw(12, 300, 6)
    program = {"l2": 0.3, "margin": np.linspace(-1, 1, 300), "sample_weight": 1.0 + np.arange(300) % 3}
    mapped = np.lib.format.open_memmap(tmp_path / "A.npy", mode="w+", dtype=np.float64, shape=A.shape)
    mapped[:] = A
    passes = []

    def factory():
        passes.append(0)
        return (A[k : k + 37] for k in range(0, 300, 37))

    optimum = by_newton(A, y, **program)
    for source in (np.load(tmp_path / "A.npy", mmap_mode="r"), factory, A):
        for finish in (True, False):
            tol = 1e-8 if finish else 1e-4
            sol = solve_logistic(source, y, method="svrg", batch_size=37, finish=finish, tol=tol, **program)
            check(sol, A, y, tol=tol, **program)
            assert sol.lower_bound <= optimum * (1 + 1e-12)
        start = solve_logistic(source, y, method="adamw", max_iter=1, **program).objective
        assert optimum < solve_logistic(source, y, method="adamw", max_iter=20, **program).objective < start
    assert len(passes) > 4


def test_bad_factories():
    A, y = draw(13)
    pieces = iter([[A], [A], [A[:30]], [A[:30]], [A]])
    with pytest.raises(ValueError, match="same rows on every pass: 60 at first, now 30"):
        solve_logistic(lambda: next(pieces), y, l2=1.0, method="svrg")
    for factory, message in [
        (lambda: [A, A[:, :2]], r"A \(batch 1\) must have shape \(k, 5\)"),
        (lambda: [A, np.full((1, 5), np.nan)], r"A \(batch 1\) must be finite"),
        (lambda: [], "at least one row"),
    ]:
        with pytest.raises(ValueError, match=message):
            solve_logistic(factory, y, l2=1.0, method="svrg")
    with pytest.raises(TypeError, match="iterable"):
        solve_logistic(lambda: 3, y, l2=1.0, method="svrg")
    with pytest.raises(ValueError, match="needs method='svrg'"):
        solve_logistic(lambda: [A], y, l2=1.0)


# -- how it ends ------------------------------------------------------------------------------------------------------
def test_history_and_summary(capsys):
    A, y = draw(14)
    records = []
    sol = solve_logistic(A, y, l2=1e-3, verbose=True, callback=records.append)
    assert [dict(r) for r in sol.history] == records
    assert np.all(np.diff(sol.history["objective"]) <= 0) and np.all(np.diff(sol.history["lower_bound"]) >= 0)
    assert np.all(np.diff(sol.history["passes"]) > 0) and sol.history["gap"][-1] == sol.gap
    assert sol.settings["passes"] == sol.history["passes"][-1] and sol.n_iter == sol.history["iteration"][-1]
    assert len(capsys.readouterr().out.splitlines()) == len(records) + 2
    text = sol.summary()
    assert "optimal" in text and "rigorous" in text and "n = 60, d = 5" in text
    assert repr(sol).startswith("LogisticSolution(status='optimal'")


def test_stops():
    A, y = draw(15)
    few = solve_logistic(A, y, l2=1e-3, max_iter=3, finish=False)
    assert few.status is Status.MAX_ITER and few.n_iter == 3 and "max_iter" in few.message and not few.success
    assert solve_logistic(A, y, l2=1e-3, time_limit=1e-9).status is Status.TIME_LIMIT
    stopped = solve_logistic(A, y, l2=1e-3, callback=lambda record: record["iteration"] > 0)
    assert stopped.status is Status.INTERRUPTED and len(stopped.history) == 2

    def interrupt(record):
        if record["iteration"] > 0:
            raise KeyboardInterrupt

    interrupted = solve_logistic(A, y, l2=1e-3, callback=interrupt)
    assert interrupted.status is Status.INTERRUPTED and np.isfinite(interrupted.objective)


def test_tolerance_is_kept():
    A, y = draw(16)
    for tol in (1e-2, 1e-6, 1e-10, 1e-12):
        check(solve_logistic(A, y, l2=0.1, tol=tol), A, y, l2=0.1, tol=tol)
    ends = (Status.OPTIMAL, Status.OPTIMAL_INACCURATE, Status.STALLED, Status.MAX_ITER)
    assert solve_logistic(A, y, l2=0.1, tol=1e-15, max_iter=300).status in ends


def test_repeatable():
    A, y = draw(17)
    for method in ("agd", "svrg", "adamw"):
        one, two, other = (
            solve_logistic(A, y, l2=0.1, method=method, seed=s, max_iter=8, finish=False).theta for s in (0, 0, 1)
        )
        np.testing.assert_array_equal(one, two)
        assert (one == other).all() == (method == "agd")


def test_arrays_of_other_libraries():
    import jax.numpy as jnp

    A, y = draw(18)
    expected = solve_logistic(A, y, l2=0.1, backend="numpy")
    sol = solve_logistic(jnp.asarray(A), jnp.asarray(y), l2=0.1)
    assert sol.backend == ("numpy" if jnp.zeros(1).devices().pop().platform == "cpu" else "jax")
    assert sol.dtype == "float32"
    assert sol.objective == pytest.approx(expected.objective, rel=1e-6)
    lists = solve_logistic(A.tolist(), y.astype(int).tolist(), l2=0.1, backend="numpy")
    np.testing.assert_array_equal(lists.theta, expected.theta)


# -- input ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("l2", [0, 0.0, -1.0, np.nan, np.inf])
def test_a_missing_ridge_is_refused_with_the_reason(l2):
    with pytest.raises(ValueError, match=r"l2 must be a positive finite number.*separable data have no minimiser"):
        solve_logistic(*draw(0), l2=l2)


A, Y = draw(0)
BAD = [
    ({"A": A[0]}, ValueError, "A must have 2 dimension"),
    ({"A": [[1.0], [1.0, 2.0]]}, ValueError, "A cannot be read as a rectangular array"),
    ({"A": A[:0]}, ValueError, "at least one row and one column"),
    ({"A": A[:, :0]}, ValueError, "at least one row and one column"),
    ({"A": np.where(A > 2, np.nan, A)}, ValueError, "A must be finite"),
    ({"A": A.astype(complex)}, TypeError, "A must hold real numbers"),
    ({"A": 1e60 * A}, ValueError, r"scale \* A has largest entry"),
    ({"y": Y[:-1]}, ValueError, r"y must have shape \(60,\)"),
    ({"y": (Y > 0) * 1.0}, ValueError, r"-1 and \+1 only.*2 \* y - 1"),
    ({"l2": "1"}, TypeError, "l2 must be"),
    ({"l2": True}, TypeError, "l2 must be"),
    ({"l2": 1e-200}, ValueError, "l2 must lie between"),
    ({"scale": 0.0}, ValueError, "scale must be"),
    ({"scale": -1.0}, ValueError, "scale must be"),
    ({"margin": np.ones(3)}, ValueError, r"margin must have shape \(60,\)"),
    ({"margin": np.inf}, ValueError, "margin must be finite"),
    ({"margin": "1"}, TypeError, "margin must hold real numbers"),
    ({"margin": 1e60}, ValueError, "margin has largest entry"),
    ({"sample_weight": -np.ones(60)}, ValueError, "sample_weight must be nonnegative"),
    ({"sample_weight": np.zeros(60)}, ValueError, "sample_weight must be nonnegative with a positive entry"),
    ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight must have shape \(60,\)"),
    ({"tol": 0}, ValueError, "tol must be"),
    ({"method": "lbfgs"}, ValueError, "method must be 'agd', 'svrg' or 'adamw'"),
    ({"method": None}, ValueError, "method must be"),
    ({"finish": 1}, TypeError, "finish must be True or False"),
    ({"batch_size": 0}, ValueError, "batch_size must be None or a positive integer"),
    ({"max_iter": 2.5}, ValueError, "max_iter must be None or a positive integer"),
    ({"learning_rate": 0.0}, ValueError, "learning_rate must be"),
    ({"time_limit": -1}, ValueError, "time_limit must be"),
    ({"backend": "torch"}, ValueError, "backend must be"),
    ({"dtype": "float16"}, ValueError, "dtype must be None, 'float32' or 'float64'"),
    ({"seed": -1}, ValueError, "seed must be"),
    ({"verbose": 2}, TypeError, "verbose must be True or False"),
    ({"callback": 3}, TypeError, "callback must be callable"),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), BAD, ids=[f"{next(iter(c))}-{k}" for k, (c, _, _) in enumerate(BAD)]
)
def test_bad_input(change, error, message):
    arguments = {"A": A, "y": Y, "l2": 1.0, **change}
    with pytest.raises(error, match=message):
        solve_logistic(arguments.pop("A"), arguments.pop("y"), **arguments)


def test_a_missing_backend_says_so():
    with pytest.raises(BackendError, match="cupy"):
        solve_logistic(A, Y, l2=1.0, backend="cupy")
