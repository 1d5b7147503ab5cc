"""Newton with its products on a backend: the optima of Clarabel, the steps of the host, nothing of size n P moved."""

import numpy as np
import pytest
from oracles import infeasibility, make_backend, planted, solve_sampled

from cvxrelu.program.dual import Ridge
from cvxrelu.program.losses import Squared
from cvxrelu.program.multinomial import Multinomial
from cvxrelu.sampled.on_device.newton import DeviceNewton
from cvxrelu.sampled.semismooth import SampledNewton


@pytest.fixture
def backend(backend_name):
    backend = make_backend(backend_name)
    with backend.scope():
        yield backend


def go_on():
    return False


def newton(backend, p, gates, tol=1e-8, **options):
    loss = Squared(p.y, p.weight)
    if backend is None:
        return SampledNewton(p.X, p.patterns, gates, loss, beta=p.beta, tol=tol, **options)
    return DeviceNewton(backend, p.X, p.patterns, gates, loss, beta=p.beta, tol=tol, **options)


@pytest.mark.parametrize("seed", range(6))
def test_against_clarabel(backend, seed):
    """Rows repeated, opposite or zero, scales apart, patterns that nothing realises, rows without weight."""
    rng = np.random.default_rng(seed)
    n, d, P = int(rng.integers(4, 40)), int(rng.integers(1, 8)), int(rng.integers(1, 8))
    p = planted(n, d, P, seed, fraction=10.0 ** rng.uniform(-2, -0.3), weights=seed % 2 == 0)
    X, gates = p.X.copy(), rng.standard_normal((d, P))
    if seed % 3 == 1:
        X[: n // 2] = X[rng.integers(n, size=n // 2)] * rng.choice([-1.0, 0.0, 2.0], size=(n // 2, 1))
    elif seed % 3 == 2:
        X = X * 10.0 ** rng.uniform(-2, 2, d)
    patterns = X @ gates >= 0
    if seed == 5:
        patterns ^= rng.random(patterns.shape) < 0.1
    p = p._replace(X=X, patterns=patterns)
    optimum, scale = solve_sampled(p)[0], float(np.sum(p.weight * p.y**2))
    for start in (gates, None):
        solver = newton(backend, p, start)
        assert solver.run(go_on)
        assert solver.lower_bound <= optimum + 1e-8 * scale
        assert solver.objective == pytest.approx(optimum, rel=1e-6, abs=1e-7 * scale)
        U = solver.blocks.reshape(d, 2, 1, -1)
        assert infeasibility(p, U) <= 1e-9 * np.abs(p.X).max() * max(np.abs(U).max(), 1e-300)


@pytest.mark.parametrize("outputs", [1, 2])
def test_operators_and_step_are_those_of_the_host(backend, outputs):
    p = planted(80, 6, 9, 3, fraction=0.05, weights=True, c=outputs)
    gates = np.random.default_rng(3).standard_normal((6, 9))
    p = p._replace(patterns=p.X @ gates >= 0)
    host, device = newton(None, p, gates), newton(backend, p, gates)
    t = np.random.default_rng(4).standard_normal(p.y.shape)
    U = np.random.default_rng(5).standard_normal(host.blocks.shape)
    for blocks in (U, np.where(np.arange(U.shape[1]) % 3 == 0, U, 0.0), 0.0 * U):
        np.testing.assert_allclose(device.program.neurons(blocks), host.program.neurons(blocks), atol=1e-11)
    np.testing.assert_allclose(device.program.pull(t), host.program.pull(t), atol=1e-11)
    at = host._evaluate(host.blocks, host.a)
    gradient = at.prediction - at.a
    device._evaluate(device.blocks, device.a)  # its memory of the faces
    step = host._direction(at, gradient)
    np.testing.assert_allclose(device._direction(at, gradient), step, atol=1e-8 * np.abs(step).max())


def test_a_step_that_is_not_finite_is_taken_on_the_host(monkeypatch):
    backend = make_backend("numpy")
    p = planted(60, 4, 6, 1, fraction=0.1)
    solver = newton(backend, p, None)
    at = solver._evaluate(solver.blocks, solver.a)
    expected = SampledNewton._direction(solver, at, at.prediction - at.a)
    monkeypatch.setattr("cvxrelu.sampled.on_device.newton._newton_step", lambda *given: np.full(p.y.shape, np.nan))
    np.testing.assert_array_equal(solver._direction(at, at.prediction - at.a), expected)


def test_as_many_steps_as_on_the_host():
    """Projections end at the same points, whatever rows they took on the way: so does everything else."""
    p = planted(300, 20, 30, 7, fraction=0.1)
    gates = np.random.default_rng(7).standard_normal((20, 30))
    p = p._replace(patterns=p.X @ gates >= 0)
    host, device = newton(None, p, gates, 1e-6), newton(make_backend("numpy"), p, gates, 1e-6)
    assert host.run(go_on) and device.run(go_on)
    assert device.steps == host.steps
    assert device.objective == pytest.approx(host.objective, rel=1e-10)
    assert device.lower_bound == pytest.approx(host.lower_bound, rel=1e-8)


def test_what_moves_between_host_and_device_is_small():
    """Vectors of m and blocks (d, B), never n P numbers, once the data are there."""
    from cvxrelu.backends.numpy import NumpyBackend

    class Counting(NumpyBackend):
        largest = 0

        def _get_array(self, array):
            self.largest = max(self.largest, np.size(array))
            return super()._get_array(array)

        def _put_array(self, array):
            self.largest = max(self.largest, np.size(array))
            return super()._put_array(array)

    p, backend = planted(500, 8, 40, 2, fraction=0.1), Counting()
    solver = newton(backend, p, None, 1e-6)
    backend.largest = 0
    assert solver.run(go_on) and solver.steps > 0
    assert 0 < backend.largest <= max(500, 3 * 8 * 80)


def test_a_run_goes_on_from_its_state():
    """Stopped after two proximal points and taken up by another object: the steps of the one that was not stopped."""
    backend, p = make_backend("numpy"), planted(120, 5, 12, 4, fraction=0.02)
    saved = []

    def keep(solver):
        return lambda: saved.append((solver.state(), solver.memory.state()))

    whole = newton(backend, p, None)
    whole.run(go_on, keep(whole))
    assert len(saved) > 2
    solver = newton(backend, p, None)
    copied = saved[1]
    solver.restore(copied[0])
    solver.memory.restore(copied[1])
    solver.run(go_on)
    assert solver.objective == pytest.approx(whole.objective, rel=1e-9)
    assert solver.gap <= 1e-8


def test_step_with_coupled_outputs_and_a_skip(backend):
    """Columns of the skip for every output, in the order of the host's."""
    rng = np.random.default_rng(6)
    X, gates, C = rng.standard_normal((50, 5)), rng.standard_normal((5, 7)), rng.standard_normal((50, 3))
    loss = Multinomial(np.eye(3)[rng.integers(3, size=50)], np.ones((50, 1)), np.zeros((1, 3)))
    ridge = Ridge(C, np.asarray(0.7), np.asarray(0.0))
    given, options = (X, X @ gates >= 0, gates, loss), {"beta": 0.4, "tol": 1e-8, "ridge": ridge}
    host, device = SampledNewton(*given, **options), DeviceNewton(backend, *given, **options)
    at = host._evaluate(host.blocks, host.a)
    device._evaluate(device.blocks, device.a)
    gradient = at.prediction - at.a
    step = host._direction(at, gradient)
    assert at.active.size > 0
    np.testing.assert_allclose(device._direction(at, gradient), step, atol=1e-8 * np.abs(step).max())
