"""L-BFGS against SciPy's on smooth functions and on the network objective; it never rises, and survives what is not a
number.
"""

from __future__ import annotations

import numpy as np
import pytest
from array_api_compat import array_namespace
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import make_backend, planted
from scipy.optimize import minimize

from cvxrelu.numerics import lbfgs
from cvxrelu.program.losses import Squared
from cvxrelu.refinement import neurons
from cvxrelu.refinement.neurons import Terms

seeds = st.integers(0, 10**6)


# -- functions of module level, as compiled chunks need them -----------------------------------------------------------
def quadratic(A, x):
    """1/2 x^T A x - sum(x), for x (p, 1)."""
    xp = array_namespace(x)
    return 0.5 * xp.sum(x * (A @ x)) - xp.sum(x), A @ x - 1.0


def rosenbrock(_, x):
    xp = array_namespace(x)
    a, b = x[:-1, :], x[1:, :]
    r = b - a * a
    zero = xp.zeros_like(x[:1, :])
    gradient = xp.concat([-400.0 * a * r - 2.0 * (1.0 - a), zero]) + xp.concat([zero, 200.0 * r])
    return xp.sum(100.0 * r * r + (1.0 - a) * (1.0 - a)), gradient


def broken_beyond_one(A, x):
    """The quadratic, and NaN where some entry is above one."""
    xp = array_namespace(x)
    value, gradient = quadratic(A, x)
    nan = value * 0 + xp.nan
    return xp.where(xp.max(x) > 1.0, nan, value), xp.where(xp.max(x) > 1.0, nan + gradient, gradient)


def descend(backend, data, x, objective, steps, dtype=np.float64, chunks=1):
    """(final state, values after every chunk), as `Refinement` calls it."""
    with backend.scope():
        start, run = (backend.compile(fn, ("objective",)) for fn in (lbfgs.start, lbfgs.run))
        data, x = backend.put((data, x), dtype)
        state = start(backend, data, x, objective=objective)
        values = [float(backend.get(state.value))]
        for _ in range(chunks):
            state = run(backend, data, state, steps, objective=objective)
            values.append(float(backend.get(state.value)))
        return backend.get(state), np.array(values)


def conditioned(seed, p, condition):
    """A positive definite matrix with this condition number."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((p, p)))[0]
    return basis * np.geomspace(1.0, condition, p) @ basis.T


def of_network(seed, m=6, n=40, d=4, c=1):
    """The network objective: its data on the host and random balanced weights."""
    p = planted(n, d, 4, seed, fraction=0.05, c=c, weights=True)
    x = 0.5 * np.random.default_rng(seed).standard_normal((d + c) * m)
    return Terms(p.X, Squared(p.y, p.weight), np.asarray(p.beta)), x


def scipy_descends(objective, data, x, steps):
    flat = lambda z: (lambda v, g: (float(v), np.ravel(g)))(*objective(data, z.reshape(x.shape)))  # noqa: E731
    return minimize(flat, x.ravel(), method="L-BFGS-B", jac=True, options={"maxcor": 20, "maxiter": steps}).fun


# -- smooth functions -------------------------------------------------------------------------------------------------
@settings(max_examples=12)
@given(seeds, st.integers(1, 8), st.floats(0, 3), st.floats(-6, 6))
def test_quadratics_are_minimised(seed, p, log_condition, log_scale):
    A = 10.0**log_scale * conditioned(seed, p, 10.0**log_condition)
    x = 10.0**-log_scale * np.random.default_rng(seed).standard_normal((p, 1))
    state, _ = descend(make_backend("numpy"), A, x, quadratic, 120)
    optimum = -0.5 * np.sum(np.linalg.solve(A, np.ones((p, 1))))
    assert state.value == pytest.approx(optimum, rel=1e-8)


def test_rosenbrock(backend_name):
    x = np.random.default_rng(0).uniform(-1, 1, (4, 1))
    state, values = descend(make_backend(backend_name), np.zeros(1), x, rosenbrock, 60, chunks=2)
    assert values[-1] <= 1e-12
    np.testing.assert_allclose(state.x, 1.0, atol=1e-5)


@pytest.mark.parametrize("height", [1e3, 1e6, 1e10])
def test_a_first_step_may_be_far_too_long(height):
    """At the bottom of a steep valley a hundredth of |x| along the gradient is up its side."""
    A = np.diag([height, 1.0])
    x = np.array([[1e-3 / height], [10.0]])
    state, _ = descend(make_backend("numpy"), A, x, quadratic, 200)
    assert state.value == pytest.approx(-0.5 / height - 0.5, rel=1e-6)


def test_a_start_at_the_minimiser_stays_there():
    A = conditioned(0, 4, 10.0)
    x = np.linalg.solve(A, np.ones((4, 1)))
    state, values = descend(make_backend("numpy"), A, x, quadratic, 30)
    assert values[1] <= values[0]
    np.testing.assert_allclose(state.x, x, rtol=1e-7)
    zero, _ = descend(make_backend("numpy"), np.eye(3), np.zeros((3, 1)), lambda _, x: ((x * x).sum(), 2 * x), 5)
    assert not zero.x.any() and np.isfinite(zero.direction).all()


# -- trials that are not numbers, values that rise -----------------------------------------------------------------
def test_a_trial_that_is_not_a_number_is_stepped_back_from(backend_name):
    A = np.diag([0.3, 0.4, 0.5])  # the minimiser is beyond one, where nothing is a number
    state, values = descend(make_backend(backend_name), A, np.full((3, 1), 0.5), broken_beyond_one, 40)
    assert np.isfinite(state.x).all() and np.isfinite(state.length)
    assert values[1] < values[0] and state.x.max() <= 1.0
    assert state.x.max() > 0.9


@settings(max_examples=10)
@given(seeds, st.sampled_from([np.float32, np.float64]), st.integers(1, 3))
def test_the_value_never_rises(seed, dtype, c):
    data, x = of_network(seed, c=c)
    _, values = descend(make_backend("numpy"), data, x, neurons.balanced, 1, dtype, chunks=40)
    assert np.all(np.diff(values) <= 0)
    assert values[-1] < values[0]


def test_the_value_that_is_kept_is_that_of_the_point():
    data, x = of_network(1, c=2)
    state, _ = descend(make_backend("numpy"), data, x, neurons.balanced, 50)
    value, gradient = neurons.balanced(data, state.x)
    assert state.value == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(state.gradient, gradient, atol=1e-12 * np.abs(gradient).max() + 1e-14)


# -- the network objective --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("c", [1, 3])
def test_networks_as_well_as_scipy(c):
    """Kinks and saddles make single runs differ; over five starts neither may be far behind."""
    ours, theirs = [], []
    for seed in range(5):
        data, x = of_network(seed, c=c)
        ours.append(descend(make_backend("numpy"), data, x, neurons.balanced, 150)[1][-1])
        theirs.append(scipy_descends(neurons.balanced, data, x, 300))
    assert np.median(np.array(ours) / theirs) <= 1.02


def test_every_backend_descends_alike(backend_name):
    """The first steps are the same numbers; later ones part where a trial is accepted on one side of rounding only."""
    data, x = of_network(3, c=2)
    state, values = descend(make_backend(backend_name), data, x, neurons.balanced, 5)
    expected, _ = descend(make_backend("numpy"), data, x, neurons.balanced, 5)
    np.testing.assert_allclose(state.x, expected.x, rtol=1e-9, atol=1e-10)
    assert values[1] < values[0]
    single, _ = descend(make_backend(backend_name), data, x, neurons.balanced, 5, np.float32)
    assert single.x.dtype == single.value.dtype == np.float32
    np.testing.assert_allclose(single.x, expected.x, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("c", [1, 2])
def test_zero_neurons_are_inert(c):
    """Padding changes nothing, and stays zero."""
    data, x = of_network(4, c=c)
    state, _ = descend(make_backend("numpy"), data, x, neurons.balanced, 20)
    wide = np.pad(x.reshape(4 + c, -1), ((0, 0), (0, 5)))
    padded, _ = descend(make_backend("numpy"), data, wide.ravel(), neurons.balanced, 20)
    layers = padded.x.reshape(wide.shape)
    assert not layers[:, -5:].any()
    np.testing.assert_allclose(layers[:, :-5].ravel(), state.x, rtol=1e-8, atol=1e-9)


def test_pairs_whose_squares_vanish_are_no_memory():
    """In float32 a change of gradient of 1e-24 has length zero: the step is then along the gradient, not beyond all."""
    data = np.float32(1e-24) * np.eye(3, dtype=np.float32)
    x = np.ones((3, 1), dtype=np.float32)
    state, values = descend(make_backend("numpy"), data, x, tiny, 30, np.float32)
    assert np.isfinite(state.x).all() and values[-1] <= values[0]


def tiny(A, x):
    """1/2 x^T A x, for A so small that squares of its gradients vanish in single precision."""
    xp = array_namespace(x)
    return 0.5 * xp.sum(x * (A @ x)), A @ x
