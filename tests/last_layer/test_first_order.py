"""First-order algorithms: steps against the formulas, guarantees as inequalities, restarts, parity of backends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import make_backend
from scipy.optimize import minimize

from cvxrelu.last_layer import first_order as agd
from cvxrelu.last_layer.program import Program, gradient, largest_eigenvalue
from cvxrelu.program.losses import Logistic

seeds = st.integers(0, 10**6)


@pytest.fixture
def backend(backend_name):
    backend = make_backend(backend_name)
    with backend.scope():
        yield backend


def draw(seed, n=12, d=3, l2=0.1, scale=0.7):
    rng = np.random.default_rng(seed)
    weight = rng.choice([0.0, 0.5, 1.0, 3.0], size=(n, 1))
    weight[0] = 1.0
    loss = Logistic(rng.choice([-1.0, 1.0], size=(n, 1)), weight, rng.standard_normal((n, 1)))
    return Program(rng.standard_normal((n, d)), loss, np.asarray(scale), np.asarray(l2))


def objective(p, theta):
    """By the formula of the last-layer program, entry by entry."""
    u = p.loss.margin[:, 0] - p.scale * p.loss.y[:, 0] * (p.A @ np.ravel(theta))
    return float(p.loss.weight[:, 0] @ np.logaddexp(0, u) + p.l2 / 2 * np.sum(theta**2))


def minimiser(p):
    found = minimize(
        lambda v: objective(p, v), np.zeros(p.A.shape[1]), jac=lambda v: gradient(p, v[:, None])[0][:, 0],
        method="BFGS", options={"gtol": 1e-11, "maxiter": 10_000},
    )  # fmt: skip
    return found.fun, found.x[:, None]


def smoothness(p, restart):
    L = p.l2 + p.scale**2 / 4 * np.linalg.norm(np.sqrt(p.loss.weight) * p.A, 2) ** 2
    return agd.Smoothness(np.asarray(L), np.asarray(p.l2 / L), np.asarray(restart))


def iterates(p, constants, steps):
    state = agd.AGD.init(np.zeros((p.A.shape[1], 1)))
    for _ in range(steps):
        state = agd.AGD.step(p, constants, state)
        yield state


def run(backend, algorithm, program, constants, theta, steps, dtype=np.float64):
    chunk = backend.compile(agd.run_chunk, static=("algorithm",))
    program, constants, theta = backend.put((program, constants, theta), dtype)
    return backend.get(chunk(backend, program, constants, algorithm.init(theta), steps, algorithm=algorithm))


@given(seeds)
def test_gradient(seed):
    p = draw(seed)
    theta, step = np.random.default_rng(seed).standard_normal((3, 1)), 1e-5
    slope, value = gradient(p, theta)
    assert float(value) == pytest.approx(objective(p, theta), rel=1e-12)
    for j in range(3):
        shift = step * np.eye(3)[:, [j]]
        numeric = (objective(p, theta + shift) - objective(p, theta - shift)) / (2 * step)
        assert slope[j, 0] == pytest.approx(numeric, rel=1e-6, abs=1e-7)


def test_one_step_is_nesterovs(backend):
    """Constant step scheme II of the book, written out with gamma_0 = L; the second step has momentum."""
    p = draw(1)
    constants = smoothness(p, False)
    L, q = float(constants.L), float(constants.q)
    x = y = np.array([[0.3], [-0.2], [0.5]])
    alpha = max(np.roots([1, 1 - q, -1]))  # L a^2 = (1 - a) L + a l2
    for steps in (1, 2, 3):
        new = y - gradient(p, y)[0] / L
        following = max(np.roots([1, alpha**2 - q, -(alpha**2)]))
        y = new + alpha * (1 - alpha) / (alpha**2 + following) * (new - x)
        x, alpha = new, following
        state = run(backend, agd.AGD, p, constants, np.array([[0.3], [-0.2], [0.5]]), steps)
        np.testing.assert_allclose(state.theta, x, atol=1e-13)
        np.testing.assert_allclose(state.y, y, atol=1e-13)
        assert state.phase == steps and state.earlier == 0


@settings(max_examples=15)
@given(seeds, st.sampled_from([1e-4, 1e-2, 1.0, 100.0]))
def test_guarantee(seed, l2):
    """f(x_k) - f* <= min((1 - sqrt q)^k, 4 / (k + 2)^2) (f(x_0) - f* + L/2 |x_0 - x*|^2)."""
    p = draw(seed, l2=l2)
    optimum, best = minimiser(p)
    constants = smoothness(p, False)
    start = objective(p, np.zeros((3, 1))) - optimum + float(constants.L) / 2 * np.sum(best**2)
    for k, state in enumerate(iterates(p, constants, 300), 1):
        limit = min((1 - float(constants.q) ** 0.5) ** k, 4 / (k + 2) ** 2) * start
        assert objective(p, state.theta) - optimum <= limit + 1e-9 * (1 + abs(optimum))


@settings(max_examples=15)
@given(seeds, st.sampled_from([1e-4, 1e-2, 1.0]))
def test_restarts_keep_the_guarantee(seed, l2):
    """Phases grow geometrically and begin below where the one before began; the best so far obeys the weaker rate."""
    p = draw(seed, l2=l2)
    optimum, best = minimiser(p)
    constants = smoothness(p, True)
    at, best_so_far = objective(p, np.zeros((3, 1))), np.inf
    radius = max(np.sum(best**2), 2 / l2 * (at - optimum))  # of the level set of the start, about the minimiser
    begun, last = [at], 0.0
    for k, state in enumerate(iterates(p, constants, 400), 1):
        value = objective(p, state.theta)
        best_so_far = min(best_so_far, value)
        if state.earlier > last:
            assert state.earlier - last >= 0.25 * last
            assert value <= float(state.ceiling) + 1e-12 <= begun[-1] + 2e-12
            begun.append(value)
            last = float(state.earlier)
        limit = 4 / (k / 6 + 1) ** 2 * (at - optimum + float(constants.L) / 2 * radius)
        assert best_so_far - optimum <= limit + 1e-9 * (1 + abs(optimum))


def test_when_a_restart_is_allowed(backend):
    """Uphill, in a phase of a quarter of the steps before it, and not above where the phase began."""
    p = draw(7)
    at = np.array([[3.0], [0.0], [0.0]])
    slope = gradient(p, at)[0]
    number = lambda v: np.asarray(float(v))  # noqa: E731
    for sense, phase, ceiling, expected in [
        (1, 10, 1e9, True), (-1, 10, 1e9, False), (1, 8, 1e9, False), (1, 10, -1e9, False),
    ]:  # fmt: skip
        state = agd.State(at - sense * slope, at, number(0.1), number(phase), number(40), number(ceiling))
        new = backend.get(agd.AGD.step(*backend.put((p, smoothness(p, True), state))))
        if expected:
            assert (new.phase, new.earlier) == (0, 40 + phase + 1) and new.ceiling < 1e9
            np.testing.assert_array_equal(new.y, new.theta)
        else:
            assert (new.phase, new.earlier, new.ceiling) == (phase + 1, 40, ceiling)
            assert (new.y != new.theta).any()
    never = agd.AGD.step(*backend.put((p, smoothness(p, False), state._replace(theta=at - slope, ceiling=number(1e9)))))
    assert backend.get(never.phase) == 11


def test_restarts_happen_and_pay():
    p = draw(3, n=200, d=10, l2=1e-3)
    optimum, _ = minimiser(p)
    errors = {}
    for restart in (False, True):
        *_, state = iterates(p, smoothness(p, restart), 400)
        errors[restart] = objective(p, state.theta) - optimum
        assert (state.earlier > 0) == restart
    assert errors[True] < 0.1 * errors[False] or errors[True] < 1e-10


def test_svrg_step_is_unbiased(backend):
    """The mean over batches of a step is the gradient step; at the snapshot every batch gives it."""
    p = draw(4)
    theta, snapshot = np.random.default_rng(0).standard_normal((2, 3, 1))
    slope = gradient(p, snapshot)[0]
    constants = agd.Snapshot(snapshot, slope, np.asarray(0.01), np.asarray(3.0))
    batches = [p._replace(A=p.A[k::3], loss=Logistic(*(v[k::3] for v in p.loss))) for k in range(3)]
    moved = np.mean([run(backend, agd.SVRG, b, constants, theta, 1).theta for b in batches], axis=0)
    np.testing.assert_allclose(moved, theta - 0.01 * gradient(p, theta)[0], atol=1e-13)
    for b in batches:
        still = run(backend, agd.SVRG, b, constants, snapshot, 1).theta
        np.testing.assert_allclose(still, snapshot - 0.01 * slope, atol=1e-13)


def test_adamw_steps(backend):
    """Against the update written out: bias-corrected moments of the mean loss, decay decoupled."""
    p, rate = draw(5), 0.05
    theta, mean, square = np.ones((3, 1)), np.zeros((3, 1)), np.zeros((3, 1))
    n = len(p.A)
    for k in range(1, 6):
        slope = (gradient(p, theta)[0] - p.l2 * theta) / n
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        theta = theta * (1 - rate * p.l2 / n)
        theta = theta - rate * mean / (1 - 0.9**k) / (np.sqrt(square / (1 - 0.999**k)) + 1e-8)
    constants = agd.Rate(np.asarray(rate), np.asarray(1 / n))
    state = run(backend, agd.ADAMW, p, constants, np.ones((3, 1)), 5)
    np.testing.assert_allclose(state.theta, theta, rtol=1e-9)


def test_the_working_precision_is_kept(backend):
    p = draw(6)
    rate = agd.Rate(np.asarray(0.1), np.asarray(0.1))
    snapshot = agd.Snapshot(np.ones((3, 1)), np.ones((3, 1)), np.asarray(0.1), np.asarray(2.0))
    for algorithm, constants in ((agd.AGD, smoothness(p, True)), (agd.SVRG, snapshot), (agd.ADAMW, rate)):
        states = {t: run(backend, algorithm, p, constants, np.ones((3, 1)), 4, t) for t in (np.float32, np.float64)}
        assert {array.dtype for array in states[np.float32]} == {np.dtype(np.float32)}
        np.testing.assert_allclose(states[np.float32].theta, states[np.float64].theta, rtol=1e-4)


@settings(max_examples=20)
@given(seeds, st.sampled_from([(1, 1), (30, 4), (4, 30), (7, 7)]))
def test_largest_eigenvalue_is_above_and_tight(seed, shape):
    p = draw(seed, *shape)
    top = np.linalg.norm(np.sqrt(p.loss.weight) * p.A, 2) ** 2
    found = largest_eigenvalue(make_backend("numpy"), p)
    assert top <= found <= top * (1 + 1e-10)


def test_largest_eigenvalue_by_lanczos(backend, monkeypatch):
    monkeypatch.setattr("cvxrelu.last_layer.program.DENSE_EIGENVALUES", 0)
    for seed, (n, d) in enumerate([(80, 60), (60, 80), (5, 90), (90, 5), (1, 1)]):
        p = draw(seed, n, d)
        top = np.linalg.norm(np.sqrt(p.loss.weight) * p.A, 2) ** 2
        assert top <= largest_eigenvalue(backend, backend.put(p)) <= 1.12 * top
    nothing = draw(0)._replace(A=np.zeros((12, 3)))
    assert largest_eigenvalue(backend, backend.put(nothing)) == 0
