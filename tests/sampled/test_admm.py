"""ADMM: one step against the textbook's, chunks, fixed points against an interior point method, changes of penalty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import (
    blocks,
    columns,
    dense_F,
    dense_G,
    infeasibility,
    make_backend,
    planted,
    rotated,
    rounding,
    sampled_objective,
    solve_sampled,
)

import cvxrelu
from cvxrelu.numerics.proximal import group_soft_threshold
from cvxrelu.program.losses import Squared
from cvxrelu.sampled import admm
from cvxrelu.sampled.penalties import balance_factors


@pytest.fixture(scope="module", params=["numpy", "jax", "strict"])
def backend(request):
    backend = make_backend(request.param)
    with backend.scope():
        yield backend


RHO = (0.7, 2.3)


class Run:
    """A problem on a backend, its u-step prepared; `state` arrays are NumPy's in and out."""

    def __init__(self, backend, problem, method="gram", rho=RHO, dtype=np.float64):
        self.backend, self.dtype = backend, dtype
        X, eigenvalues, self.basis = rotated(problem.X)
        self.problem = problem._replace(X=X)
        loss = Squared(problem.y, problem.weight)
        put = backend.put((X, eigenvalues, problem.patterns, loss, np.asarray(problem.beta)), dtype)
        self.data = backend.compile(admm.prepare)(backend, *put)
        self.rho = admm.Penalties(*backend.put(tuple(map(np.asarray, rho)), dtype))
        landmarks = backend.put(np.arange(min(3, len(X))))
        self.system = admm.make_system(backend, self.data, self.rho, landmarks, method)

    def random_state(self, iteration=0):
        zero = admm.initial_state(self.data)
        rng = np.random.default_rng(0)
        x, t, warm = (rng.standard_normal(a.shape) for a in zero[:3])
        x = x * (0.7 * self.problem.beta / RHO[0])  # some blocks below the threshold, some above
        return self.put(admm.State(x, t, warm, np.asarray(iteration, dtype=np.int32)))

    def put(self, state):
        return self.backend.put(state, self.dtype)

    def chunk(self, state, steps):
        chunk = self.backend.compile(admm.run_chunk)
        return self.backend.get(chunk(self.backend, self.data, self.system, self.rho, state, steps))

    def step(self, state, compiled=True):
        step = self.backend.compile(admm.step) if compiled else admm.step
        return self.backend.get(step(self.backend, self.data, self.system, self.rho, state))


def small(c=2):
    """One size for many tests: a compiled function is made once for each."""
    return planted(8, 3, 4, seed=c, fraction=0.3, c=c, weights=True)


LATE = 10**7  # the iteration from which conjugate gradients are asked for eleven digits


def textbook_step(p, rho, W, lam, s, nu):
    """Boyd et al. 2011, section 3.4.3, relaxed by 1.6: min f(U) + beta |W| + 1[s >= 0] s.t. U = W, G U = s."""
    P = p.patterns.shape[1]
    F, G = dense_F(p.X, p.patterns), dense_G(p.X, p.patterns)
    H = F.T @ (p.weight * F) + rho[0] * np.eye(F.shape[1]) + rho[1] * G.T @ G
    U = np.linalg.solve(H, F.T @ (p.weight * p.y) + rho[0] * (W - lam) + rho[1] * G.T @ (s - nu))
    relaxed = 1.6 * U + (1 - 1.6) * W
    argument = blocks(relaxed + lam, P)
    lengths = np.linalg.norm(argument, axis=0)
    new_W = columns(argument * np.maximum(1 - p.beta / rho[0] / lengths, 0))
    relaxed_s = 1.6 * G @ U + (1 - 1.6) * s
    new_s = np.maximum(relaxed_s + nu, 0)
    return U, new_W, lam + relaxed - new_W, new_s, nu + relaxed_s - new_s


def split(p, rho, x, t):
    """W, lam, s, nu as columns, from the two arrays of the state."""
    W = group_soft_threshold(x, p.beta / rho[0])
    return columns(W), columns(x - W), columns(np.maximum(t, 0)), columns(np.minimum(t, 0))


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
@pytest.mark.parametrize("c", [1, 2])
def test_one_step_is_the_textbooks(backend, method, c):
    run = Run(backend, small(c), method)
    state = run.random_state(LATE)
    host = backend.get(state)
    parts = split(run.problem, RHO, host.x, host.t)
    assert 0 < np.count_nonzero(parts[0]) < parts[0].size and 0 < np.count_nonzero(parts[2]) < parts[2].size
    U, *expected = textbook_step(run.problem, RHO, *parts)
    new, got_U = run.step(state)
    assert new.iteration == host.iteration + 1
    P = run.problem.patterns.shape[1]
    np.testing.assert_allclose(got_U, blocks(U, P), atol=1e-9)
    GU = np.maximum(host.t, 0) + (new.t - host.t) / admm.RELAXATION
    np.testing.assert_allclose(GU, blocks(dense_G(run.problem.X, run.problem.patterns) @ U, P), atol=1e-9)
    np.testing.assert_allclose(new.x, blocks(expected[0] + expected[1], P), atol=1e-9)
    np.testing.assert_allclose(new.t, blocks(expected[2] + expected[3], P), atol=1e-9)
    for got, value in zip(split(run.problem, RHO, new.x, new.t), expected, strict=True):
        np.testing.assert_allclose(got, value, atol=1e-9)


def test_a_chunk_is_its_steps_and_reports_on_the_last(backend):
    run = Run(backend, small())
    p, state = run.problem, run.random_state()
    before, after = backend.get(state), None
    parts = split(p, RHO, before.x, before.t)
    for _ in range(4):
        old, (U, *parts) = parts, textbook_step(p, RHO, *parts)
        after = parts
    new, report = run.chunk(state, 4)
    P = p.patterns.shape[1]
    np.testing.assert_allclose(new.x, blocks(after[0] + after[1], P), atol=1e-9)
    np.testing.assert_allclose(new.t, blocks(after[2] + after[3], P), atol=1e-9)
    assert new.iteration == 4
    one_by_one = state
    for _ in range(4):
        one_by_one = run.put(run.chunk(one_by_one, 1)[0])
    np.testing.assert_allclose(backend.get(one_by_one.t), new.t, atol=1e-12)

    F, G, norm = dense_F(p.X, p.patterns), dense_G(p.X, p.patterns), np.linalg.norm
    np.testing.assert_allclose(report.W, blocks(after[0], P), atol=1e-9)
    np.testing.assert_allclose(report.prediction_U, F @ U, atol=1e-9)
    W, lam, s, nu = after
    expected = [
        norm(U - W) / max(norm(U), norm(W)),
        norm(W - old[0]) / norm(lam),
        norm(G @ U - s) / max(norm(G @ U), norm(s)),
        norm(G.T @ (s - old[2])) / norm(G.T @ nu),
    ]
    np.testing.assert_allclose(report.residuals, expected, rtol=1e-8)


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
def test_every_backend_computes_what_numpy_does(backend, method):
    runs = [Run(b, small(), method) for b in (backend, make_backend("numpy"))]
    (new, report), (expected, expected_report) = (run.chunk(run.random_state(LATE), 30) for run in runs)
    for got, value in [(new.x, expected.x), (new.t, expected.t), (report.prediction_U, expected_report.prediction_U)]:
        np.testing.assert_allclose(got, value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_is_eager_and_keeps_its_precision(backend, dtype):
    run = Run(backend, small(), dtype=dtype)
    state = run.random_state()
    (new, *products), (eager, *eager_products) = run.step(state), run.step(state, compiled=False)
    for got, expected in zip((*new[:4], *products), (*eager[:4], *eager_products), strict=True):
        assert got.dtype == expected.dtype and got.dtype in (dtype, np.int32)
        np.testing.assert_allclose(got, expected, rtol=rounding(dtype), atol=rounding(dtype))
    arrays = [a for part in run.chunk(state, 3) for a in part if a is not None]
    assert {a.dtype for a in arrays} == {np.dtype(dtype), np.dtype(np.int32)}


@pytest.mark.parametrize("c", [1, 2])
def test_where_it_comes_to_rest_is_the_optimum(c):
    """F^T t + G^T mu = rho_copy lam with mu >= 0, mu * G U = 0, |rho_copy lam| <= beta, beta w / |w| where w != 0."""
    backend = make_backend("jax")  # thousands of steps, compiled
    problem = planted(15, 2, 5, seed=6, fraction=0.1, c=c, weights=True)
    with backend.scope():
        run = Run(backend, problem, rho=(2.0, 4.0))
        p = run.problem
        state, _ = run.chunk(admm.initial_state(run.data), 5000)
        assert np.abs(run.step(run.put(state))[0].t - state.t).max() < 1e-8
    W, lam, s, nu = split(p, (2.0, 4.0), state.x, state.t)
    F, G = dense_F(p.X, p.patterns), dense_G(p.X, p.patterns)
    t, mu = p.weight * (p.y - F @ W), -4.0 * nu
    np.testing.assert_allclose(G @ W, s, atol=1e-6)
    np.testing.assert_allclose(F.T @ t + G.T @ mu, 2.0 * lam, atol=1e-5)
    assert mu.min() >= 0 and np.abs(mu * s).max() == 0
    P = p.patterns.shape[1]
    slopes, W = blocks(2.0 * lam, P), blocks(W, P)
    lengths = np.linalg.norm(W, axis=0)
    assert np.linalg.norm(slopes, axis=0).max() <= p.beta * (1 + 1e-9)
    active = lengths > 0
    assert 0 < active.sum() < active.size
    np.testing.assert_allclose(slopes[:, active], p.beta * (W / np.where(active, lengths, 1.0))[:, active], atol=1e-6)

    optimum, minimiser = solve_sampled(problem)
    W = np.tensordot(run.basis, W, axes=1)
    assert sampled_objective(problem, W) == pytest.approx(optimum, rel=1e-6)
    assert infeasibility(problem, W) <= 1e-6
    F = dense_F(
        problem.X, problem.patterns
    )  # the minimiser need not be unique, its prediction is (where there is weight)
    used = problem.weight[:, 0] > 0
    np.testing.assert_allclose((F @ columns(W))[used], (F @ columns(minimiser))[used], atol=1e-3)


def test_a_large_beta_comes_to_rest_at_zero():
    run = Run(make_backend("numpy"), planted(10, 3, 4, seed=7, fraction=1.1))
    _, report = run.chunk(admm.initial_state(run.data), 200)
    assert not report.W.any()


def test_rescale_keeps_the_multipliers(backend):
    run = Run(backend, small())
    state, new_rho = run.random_state(), (2.1, 0.4)
    new = admm.Penalties(*backend.put(tuple(map(np.asarray, new_rho))))
    rescale = backend.compile(admm.rescale)
    rescaled = backend.get(rescale(backend, run.data, run.rho, new, state))
    host = backend.get(state)
    W, lam, s, nu = split(run.problem, RHO, host.x, host.t)
    P = run.problem.patterns.shape[1]
    np.testing.assert_allclose(rescaled.x, blocks(W + lam * RHO[0] / new_rho[0], P), atol=1e-12)
    np.testing.assert_allclose(rescaled.t, blocks(s + nu * RHO[1] / new_rho[1], P), atol=1e-12)
    np.testing.assert_array_equal(rescaled.warm, host.warm)
    # where lam is the scaled multiplier of W (after any step), W itself survives the change
    after, _ = run.chunk(state, 1)
    rescaled = backend.get(rescale(backend, run.data, run.rho, new, run.put(after)))
    got, expected = (split(run.problem, r, a.x, a.t) for r, a in ((new_rho, rescaled), (RHO, after)))
    np.testing.assert_allclose(got[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(new_rho[0] * got[1], RHO[0] * expected[1], atol=1e-12)
    np.testing.assert_allclose(got[2], expected[2], atol=1e-12)
    np.testing.assert_allclose(new_rho[1] * got[3], RHO[1] * expected[3], atol=1e-12)


def test_initial_state_is_the_zero_network(backend):
    state = backend.get(admm.initial_state(Run(backend, small()).data))
    assert [a.shape for a in state[:4]] == [(3, 2, 2, 4), (8, 2, 2, 4), (8, 2), ()] and state.p is None
    assert not any(a.any() for a in state[:4])


def test_cg_tolerances_are_summable(backend):
    """0.1 / (k + 1)^1.5, floored at the precision."""
    xp = backend.xp
    for name in ("float32", "float64"):
        iterations = [backend.put(np.asarray(k, np.int32)) for k in (0, 3, 99, 10**9)]
        got = [float(backend.get(admm.cg_tolerance(k, getattr(xp, name), xp))) for k in iterations]
        np.testing.assert_allclose(got[:3], [0.1, 0.1 / 8, 1e-4], rtol=1e-5)
        assert np.finfo(name).eps <= got[3] <= 1e3 * np.finfo(name).eps


residual = st.floats(1e-12, 1e12)


@given(residual, residual, st.floats(1e-3, 1e3))
def test_balance(primal, dual, unit):
    factor = admm.balance(primal, dual)
    assert factor == 1 or 1.5 < max(factor, 1 / factor) <= 5.0000001
    assert factor * admm.balance(dual, primal) == pytest.approx(1)
    assert (factor > 1) <= (primal > dual) and (factor < 1) <= (primal < dual)
    ratio = (primal / dual) ** 0.5
    if 1.51 < max(ratio, 1 / ratio) < 4.99:
        assert factor == pytest.approx(ratio)
        assert admm.balance(unit * primal, unit * dual) == pytest.approx(factor)
    elif max(ratio, 1 / ratio) < 1.49:
        assert factor == 1
    elif max(ratio, 1 / ratio) > 5.01:
        assert max(factor, 1 / factor) == pytest.approx(5)


@pytest.mark.parametrize("pair", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (np.nan, 1.0), (1.0, np.nan)])
def test_balance_leaves_alone_what_it_cannot_compare(pair):
    assert admm.balance(*pair) == 1.0


@pytest.mark.parametrize("rho", [1e-4, 1e-2, 1.0, 1e2, 1e4])
def test_any_start_of_rho_arrives(rho):
    """Also one so small that thresholding leaves no block, where the dual residuals are zero and say nothing."""
    rng = np.random.default_rng(0)
    X, gates = rng.standard_normal((60, 90)), rng.standard_normal((90, 6))
    f = X @ rng.standard_normal(90)
    pairs = np.arange(60).reshape(-1, 2)
    pairs = np.where((f[pairs[:, 0]] > f[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    problem = {"pairs": pairs, "patterns": gates, "loss": "logistic"}
    beta = 0.1 * cvxrelu.beta_max(X, None, **problem)
    found = cvxrelu.solve(X, None, beta=beta, refine=False, rho=rho, tol=1e-2, max_iter=600, **problem)
    assert found.success and found.sampled.gap <= 1e-2


def test_a_penalty_under_which_nothing_moves_goes_to_its_usual_start():
    residuals = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 4.0])
    assert balance_factors((1e-3, 0.5, 8.0, 1.0), residuals, (1.0, 1.0, 1.0, 1.0)) == [5.0, 2.0, 1.0, 0.5]
