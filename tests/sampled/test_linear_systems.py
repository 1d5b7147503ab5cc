"""The u-step: all three methods against the dense system, the Gram matrix, and what the preconditioner is worth."""

import numpy as np
import pytest
from oracles import blocks, columns, dense_F, dense_G, make_backend, planted, rotated

from cvxrelu.backends.choose import get_backend
from cvxrelu.numerics.conjugate_gradients import conjugate_gradients
from cvxrelu.sampled.linear_systems import build_system, gram, solve_blocks

CASES = {  # n, d, c, P, rank
    "plain": (9, 3, 1, 4, 3),
    "outputs": (7, 2, 3, 5, 2),
    "rank-deficient": (8, 5, 2, 3, 2),
    "wide": (4, 6, 1, 3, 4),
    "many rows": (30, 2, 2, 3, 2),
    "smallest": (1, 1, 1, 1, 1),
}


@pytest.fixture(scope="module", params=["numpy", "jax", "strict"])
def backend(request):
    backend = make_backend(request.param)
    with backend.scope():
        yield backend


class Case:
    """A u-step, X rotated by its right singular vectors, weights with zeros."""

    def __init__(self, n, d, c, P, rank, seed=0, rho=(0.3, 1.7)):
        rng = np.random.default_rng(seed)
        self.X, self.eigenvalues, _ = rotated(rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d)))
        assert self.X.shape == (n, rank)
        self.M = rng.random((n, P)) < 0.5
        self.weight = rng.choice([0.0, 0.5, 1.0, 3.0], size=(n, 1))
        self.rho = tuple(np.asarray(r) for r in rho)
        self.rhs, self.warm = rng.standard_normal((rank, 2, c, P)), rng.standard_normal((n, c))
        self.landmarks = np.sort(rng.choice(n, size=max(1, n // 2), replace=False))

    def dense_solution(self):
        F, G = dense_F(self.X, self.M), dense_G(self.X, self.M)
        H = F.T @ (self.weight * F) + self.rho[0] * np.eye(F.shape[1]) + self.rho[1] * G.T @ G
        return blocks(np.linalg.solve(H, columns(self.rhs)), self.M.shape[1])

    def solve(self, backend, method, dtype=np.float64, atol=1e-12, compiled=True):
        X, M, eigenvalues, weight, *rho = backend.put((self.X, self.M, self.eigenvalues, self.weight, *self.rho), dtype)
        system = build_system(backend, X, M, eigenvalues, weight, *rho, backend.put(self.landmarks), method)
        rhs, warm, tolerance = backend.put((self.rhs, self.warm, np.asarray(atol)), dtype)
        solve = backend.compile(solve_blocks) if compiled else solve_blocks
        U, warm = solve(backend, system, X, M, rhs, warm, tolerance)
        return backend.get(U), backend.get(warm), system


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
@pytest.mark.parametrize("case", CASES)
def test_solution_is_the_dense_one(backend, method, case):
    case = Case(*CASES[case])
    U, warm, _ = case.solve(backend, method)
    np.testing.assert_allclose(U, case.dense_solution(), rtol=1e-9, atol=1e-10)
    assert warm.shape == case.warm.shape


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
def test_single_precision_stays_single(backend, method):
    case = Case(*CASES["outputs"])
    U, warm, system = case.solve(backend, method, np.float32, atol=1e-6)
    assert U.dtype == warm.dtype == np.float32
    parts = [part for part in backend.get(system) if not isinstance(part, tuple)] + [backend.get(system.reading.root)]
    assert all(part.dtype == np.float32 for part in parts)
    np.testing.assert_allclose(U, case.dense_solution(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
def test_compiled_is_eager(backend, method):
    case = Case(*CASES["plain"])
    np.testing.assert_allclose(
        case.solve(backend, method)[0], case.solve(backend, method, compiled=False)[0], rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
def test_nothing_in_nothing_out(backend, method):
    """Zero weights leave H alone; a right-hand side of zero gives zero, whatever the start."""
    case = Case(*CASES["outputs"])
    case.weight = 0 * case.weight
    h = case.rho[0] + case.rho[1] * case.eigenvalues
    np.testing.assert_allclose(
        case.solve(backend, method)[0], case.rhs / h[:, None, None, None], rtol=1e-12, atol=1e-12
    )
    case = Case(*CASES["outputs"])
    case.rhs = 0 * case.rhs
    np.testing.assert_allclose(case.solve(backend, method)[0], 0.0, atol=1e-12)


def test_gram_is_the_dense_kernel(backend):
    case = Case(*CASES["rank-deficient"])
    h, root = case.rho[0] + case.rho[1] * case.eigenvalues, np.sqrt(case.weight)
    F1 = dense_F(case.X, case.M).reshape(8, 2, 2, 3)[:, :, 0].reshape(8, -1)  # columns by feature, then pattern
    expected = 2 * root * (F1 / np.repeat(h, 3)) @ F1.T * root.T
    arrays = backend.put((case.X, case.M, h, root))
    np.testing.assert_allclose(backend.get(gram(*arrays)), expected, atol=1e-13)
    rows = np.array([6, 0, 3])
    np.testing.assert_allclose(backend.get(gram(*arrays, backend.put(rows))), expected[:, rows], atol=1e-13)


def test_cg_keeps_its_tolerance(backend):
    case = Case(12, 3, 2, 6, 3)
    h, root = case.rho[0] + case.rho[1] * case.eigenvalues, np.sqrt(case.weight)
    S = np.eye(12) + gram(case.X, case.M, h, root)
    v, z = case.rhs[:, 0], case.rhs[:, 1]
    b = 2 * root * np.einsum("np,nd,dcp->nc", case.M, case.X, (v - z) / h[:, None, None])
    for tolerance in (1e-1, 1e-4, 1e-8):
        _, t, _ = case.solve(backend, "cg", atol=tolerance)
        assert np.linalg.norm(S @ t - b) <= 1.001 * tolerance * np.linalg.norm(b)


NUMPY = get_backend("numpy")


@pytest.fixture
def steps(monkeypatch):
    """The numbers of steps of all runs of conjugate gradients in a test."""
    taken = []

    def counted(*given):
        x, count = conjugate_gradients(*given)
        taken.append(int(count))
        return x, count

    monkeypatch.setattr("cvxrelu.sampled.linear_systems.conjugate_gradients", counted)
    return taken


def test_the_preconditioner_saves_steps(steps):
    """An ill-conditioned system: correlated columns, a few heavy rows, small penalties."""
    problem = planted(120, 6, 40, seed=0, fraction=0.1)
    X, eigenvalues, _ = rotated(problem.X * np.array([30.0, 10.0, 3.0, 1.0, 0.3, 0.1]))
    rng = np.random.default_rng(1)
    weight = 10.0 ** rng.uniform(-2, 2, (120, 1))
    rhs, cold = rng.standard_normal((6, 2, 1, 40)), np.zeros((120, 1))
    rho = (np.asarray(1e-2), np.asarray(1e-2))
    products, solutions = {}, {}
    for landmarks in (0, 20, 60, 120):
        chosen = np.sort(rng.choice(120, size=max(1, landmarks), replace=False))
        system = build_system(NUMPY, X, problem.patterns, eigenvalues, weight, *rho, chosen, "cg")
        if landmarks == 0:
            system = system._replace(eigenvalues=0 * system.eigenvalues)
        solutions[landmarks], _ = solve_blocks(NUMPY, system, X, problem.patterns, rhs, cold, np.asarray(1e-10))
        products[landmarks] = steps.pop()
    assert products[120] <= 5 < products[60] < products[20] < products[0]
    assert products[60] < products[0] / 2
    exact = build_system(NUMPY, X, problem.patterns, eigenvalues, weight, *rho, chosen, "gram")
    expected, warm = solve_blocks(NUMPY, exact, X, problem.patterns, rhs, cold, np.asarray(0.0))
    for solution in solutions.values():
        np.testing.assert_allclose(solution, expected, atol=1e-8 * np.abs(expected).max())
    solve_blocks(NUMPY, system, X, problem.patterns, rhs, warm, np.asarray(1e-8))
    assert steps == [0]  # warm start at the solution


def _plain_cg(backend, A, b, x0, atol):
    return conjugate_gradients(lambda t: A @ t, b, x0, lambda t: t, atol, 500)


def test_cg_survives_a_tolerance_out_of_reach(backend):
    """Condition number 300 in float32, asked for ten units in the last place: it may stagnate, not diverge."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    A, b = (Q * np.geomspace(1, 300, 200)) @ Q.T, rng.standard_normal((200, 1))
    tolerance = np.asarray(10 * np.finfo(np.float32).eps * np.linalg.norm(b))
    arrays = backend.put((A, b, 0 * b, tolerance), np.float32)
    run = backend.compile(_plain_cg)
    x, _ = run(backend, *arrays)
    assert np.linalg.norm(A @ backend.get(x) - b) <= 1e-3 * np.linalg.norm(b)


@pytest.mark.parametrize("name", ["numpy", "jax"])
def test_an_indefinite_matrix_gives_nan(name):
    """The solve then ends with a status, in the same way on every backend."""
    chosen = get_backend(name)
    with chosen.scope():
        assert np.isnan(chosen.get(chosen.spd_inverse(chosen.put(np.diag([1.0, -1.0]))))).any()


def test_inverse(backend):
    A = np.random.default_rng(0).standard_normal((5, 5))
    A = A @ A.T + np.eye(5)
    np.testing.assert_allclose(
        backend.get(backend.spd_inverse(backend.put(A))), np.linalg.inv(A), rtol=1e-10, atol=1e-12
    )
