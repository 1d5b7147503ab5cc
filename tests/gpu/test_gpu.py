"""What NumPy computes, computed on an accelerator. Skipped, with the reason, where there is none."""

import numpy as np
import pytest
from oracles import planted, rotated

import cvxrelu
from cvxrelu.backends.choose import check_backend, get_backend
from cvxrelu.certificates.closed_form import relaxed_bound
from cvxrelu.program import operators
from cvxrelu.program.losses import Squared
from cvxrelu.sampled import admm, bounds
from cvxrelu.sampled.linear_systems import build_system, solve_blocks
from cvxrelu.sampled.on_device.newton import DeviceNewton
from cvxrelu.sampled.semismooth import SampledNewton

pytestmark = pytest.mark.gpu
TOLERANCE = {np.float32: 2e-4, np.float64: 1e-10}


@pytest.fixture(scope="module", params=["cupy", "jax"])
def backend(request):
    report = check_backend(request.param)
    if report.known_answer not in ("ok", "not run"):
        pytest.fail(f"{request.param}: {report.known_answer}")
    if not report.available:
        pytest.skip(report.detail)
    backend = get_backend(request.param)
    if not backend.is_accelerator:
        pytest.skip(f"{request.param} has no accelerator: it runs on {backend.device}")
    with backend.scope():
        yield backend


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return request.param


def on_both(backend, fn, tree, dtype):
    """Results of `fn(backend, *tree)` there and of NumPy in float64 here."""
    numpy = get_backend("numpy")
    there = backend.get(backend.compile(fn)(backend, *backend.put(tree, dtype)))
    return there, fn(numpy, *numpy.put(tree, np.float64))


def assert_close(got, expected, tolerance):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * (1 + np.abs(expected).max())


def all_operators(backend, X, M, U, r, s):
    return operators.F(X, M, U), operators.F_adjoint(X, M, r), operators.G(X, M, U), operators.G_adjoint(X, M, s)


def test_operators(backend, dtype):
    """Large enough that reduced-precision products (TF32) would show."""
    rng = np.random.default_rng(0)
    n, d, c, P = 500, 40, 2, 60
    X, U, r, s = (rng.standard_normal(shape) for shape in [(n, d), (d, 2, c, P), (n, c), (n, 2, c, P)])
    M = rng.random((n, P)) < 0.5
    for got, expected in zip(*on_both(backend, all_operators, (X, M, U, r, s), dtype), strict=True):
        assert got.dtype == dtype
        assert_close(got, expected, {np.float32: 2e-5, np.float64: 1e-12}[dtype])


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
def test_u_step(backend, dtype, method):
    p = planted(200, 8, 20, seed=1, fraction=0.1, c=2, weights=True)
    X, eigenvalues, _ = rotated(p.X)
    rng = np.random.default_rng(2)
    rhs, warm = rng.standard_normal((8, 2, 2, 20)), np.zeros((200, 2))
    landmarks, rho = np.arange(0, 200, 4), (np.asarray(2.0), np.asarray(5.0))

    def solve(b, kind):
        arrays = b.put((X, p.patterns, eigenvalues, p.weight, *rho), kind)
        system = build_system(b, *arrays, b.put(landmarks), method)
        atol = np.asarray(1e-6 if kind == np.float32 else 1e-13)
        return b.get(b.compile(solve_blocks)(b, system, *arrays[:2], *b.put((rhs, warm, atol), kind))[0])

    got = solve(backend, dtype)
    assert got.dtype == dtype
    assert_close(got, solve(get_backend("numpy"), np.float64), TOLERANCE[dtype])


def test_iterations_and_certificates(backend, dtype):
    p = planted(150, 6, 15, seed=3, fraction=0.1)
    X, eigenvalues, basis = rotated(p.X)
    loss, beta = Squared(p.y, p.weight), np.asarray(p.beta)

    def run(b, kind):
        inputs = b.put((X, eigenvalues, p.patterns, loss, beta), kind)
        data = b.compile(admm.prepare)(b, *inputs)
        rho = admm.Penalties(*b.put((np.asarray(5.0), np.asarray(10.0)), kind))
        system = build_system(b, *data[:1], data.patterns, data.eigenvalues, data.loss.curvature, *rho, None, "gram")
        state, report = b.compile(admm.run_chunk)(b, data, system, rho, admm.initial_state(data), 25)
        exact = b.put(bounds.Exact(p.X, p.patterns, loss, beta), np.float64)
        check = b.compile(bounds.check)(b, exact, b.put(basis), report.W, report.prediction_U, state.t, rho.cone)
        relaxed = relaxed_bound(exact.loss, exact.X, check.dual, exact.beta)
        return b.get((report.prediction_U, check.values, check.norms, relaxed[0]))

    for got, expected in zip(run(backend, dtype), run(get_backend("numpy"), np.float64), strict=True):
        assert_close(got, expected, TOLERANCE[dtype])


def test_newton_with_its_products_there(backend):
    """The bounds of the host's Newton hold for it and its own for the host's, at a gap that ADMM does not reach."""
    p = planted(200, 8, 20, seed=5, fraction=0.1, c=1, weights=True)
    gates = np.random.default_rng(5).standard_normal((8, 20))
    given = (p.X, p.X @ gates >= 0, gates, Squared(p.y, p.weight))
    here = SampledNewton(*given, beta=p.beta, tol=1e-8)
    there = DeviceNewton(backend, *given, beta=p.beta, tol=1e-8)
    for solver in (here, there):
        assert solver.run(lambda: False) and solver.gap <= 1e-8
    assert there.lower_bound <= here.objective * (1 + 1e-12) and here.lower_bound <= there.objective * (1 + 1e-12)


@pytest.mark.parametrize("linear_solver", ["direct", "cg"])
def test_solve(backend, dtype, linear_solver):
    p = planted(100, 4, 10, seed=4, fraction=0.2)
    options = {"beta": p.beta, "patterns": p.patterns, "linear_solver": linear_solver, "tol": 1e-2}
    there = cvxrelu.solve(p.X.astype(dtype), p.y[:, 0], backend=backend.name, **options)
    here = cvxrelu.solve(p.X, p.y[:, 0], backend="numpy", **options)
    assert there.backend == backend.name and there.dtype == np.dtype(dtype).name and there.device != "cpu"
    assert there.success and here.success and there.sampled.gap <= 1e-2
    for one, other in ((there, here), (here, there)):  # float32 rows are slightly other rows
        assert one.sampled.lower_bound <= other.sampled.objective * (1 + 1e-5)
        assert one.lower_bound <= other.objective * (1 + 1e-5)
