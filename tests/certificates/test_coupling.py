"""Bounds with coupled rows are above every value, at any parameters, and the best that the semidefinite program has."""

from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import max_on_circle, odd_rows
from scipy.optimize import minimize
from scipy.sparse import csr_array

from cvxrelu.certificates.coupling import Coupling
from cvxrelu.certificates.relaxation import relaxed_price

seeds = st.integers(0, 10**6)
KINDS = ["plain", "integer", "repeated", "row scales", "nearly parallel", "flat"]


def differences(f, z, step=1e-6):
    return np.array([(f(z + step * e) - f(z - step * e)) / (2 * step) for e in np.eye(len(z))])


def values(X, p, rng, count=400):
    """p^T (X u)_+ in extended precision, of random unit directions and of the rows' own."""
    u = np.concatenate([rng.standard_normal((count, X.shape[1])), X, -X]).astype(np.longdouble)
    u = u[np.any(u != 0, axis=1)]
    u /= np.sqrt(np.sum(u * u, axis=1))[:, None]
    return np.maximum(u @ X.T.astype(np.longdouble), 0) @ p.astype(np.longdouble)


def near_opposites(rng, n, r, noise):
    """Rows in pairs that lie near each other and pull to opposite sides: where rows by themselves are bounded badly."""
    X = rng.standard_normal((n, r))
    p = np.abs(rng.standard_normal(n))
    return np.concatenate([X, X + noise * rng.standard_normal((n, r))]), np.concatenate([p, -p])


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 5), seeds, st.sampled_from(KINDS), st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    st.integers(0, 12), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_parameters_prove_a_bound(n, r, seed, kind, noise, near, turned, moments):
    rng = np.random.default_rng(seed)
    X = odd_rows(rng, n, r, kind)
    X = X / max(np.abs(X).max(), 1e-300)
    p = rng.standard_normal(n) * rng.choice([0.0, 1.0, 3.0], size=n)
    side = Coupling(X, near, turned)
    u = rng.standard_normal((r, 3)) / np.sqrt(3 * r)
    z = side.start_at(p, u @ u.T / np.sum(u * u), u.mean(axis=1), 0.1) if moments and side.n else side.start(p)
    z += noise * rng.standard_normal(side.size)
    assert values(X, p, rng).max() <= side.bound(z, p)
    assert values(X, -p, rng).max() <= side.bound(z, -p)  # of parameters that were made for another p


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.3])
def test_above_the_largest_value_in_the_plane(noise):
    for seed in range(4):
        X, p = near_opposites(np.random.default_rng(seed), 6, 2, noise)
        side = Coupling(X)
        bounds = [side.bound(minimized(side, s * p, rounds=60), s * p) for s in (1.0, -1.0)]
        assert max_on_circle(X, p[:, None]) <= max(bounds) * (1 + 1e-9)


def minimized(side, p, barriers=(0.1, 0.01, 1e-3), rounds=60, moved=None):
    """The parameters at the end of these barriers; moved: that many of them, the others stay as they start."""
    z, options = side.start(p), {"maxiter": rounds, "maxcor": 20}
    size, kept = side.bound(z, p), z[side.size if moved is None else moved :]

    def smoothed(part, eps):
        value, of_z, _ = side.smoothed(np.concatenate([part, kept]), p, eps)
        return value, of_z[: len(part)]

    part = z[: len(z) - len(kept)]
    for barrier in barriers:
        part = minimize(smoothed, part, (barrier * size / side.rank,), method="L-BFGS-B", jac=True, options=options).x
    return np.concatenate([part, kept])


def semidefinite_price(side, p):
    """The relaxation of one sign with coupled rows, in its primal form, by CVXPY and Clarabel.

    v stands for (|h_i u|), Z for v v^T; the squares of the pairs, at every alpha, say that
    (h_i U h_i - Z_ii) (h_j U h_j - Z_jj) >= (s h_i U h_j - Z_ij)_+^2.
    """
    X, H, L = side.X, side.unit_rows, side.lengths
    n, d = X.shape
    U, u = cp.Variable((d, d), symmetric=True), cp.Variable((d, 1))
    Z, v = cp.Variable((n, n), symmetric=True), cp.Variable((n, 1))
    lift = lambda A, a: cp.bmat([[A, a], [a.T, np.ones((1, 1))]]) >> 0  # noqa: E731
    moment = cp.diag(H @ U @ H.T)
    left = moment - cp.diag(Z)
    constraints = [lift(U, u), lift(Z, v), cp.trace(U) == 1, left >= 0]
    for i, j, s in zip(side.first, side.second, side.signs, strict=True):
        apart = cp.Variable(nonneg=True)
        constraints += [apart >= s * (H[i] @ U @ H[j]) - Z[i, j]]
        constraints += [cp.SOC(left[i] + left[j], cp.hstack([left[i] - left[j], 2.0 * apart]))]
    along, up, down = (H @ u)[:, 0], np.flatnonzero(p > 0), np.flatnonzero(p < 0)
    least = cp.maximum(cp.abs(along[down]), cp.norm(U @ H[down].T, axis=0), v[down, 0])
    mass = p * L
    value = mass @ along + mass[up] @ v[up, 0] + mass[down] @ least
    program = cp.Problem(cp.Maximize(0.5 * value), constraints)
    program.solve(solver=cp.CLARABEL)
    return float(program.value)


@pytest.mark.parametrize(("n", "r", "noise"), [(4, 3, 0.3), (5, 4, 0.6), (6, 5, 0.15)])
def test_reaches_the_semidefinite_program(n, r, noise):
    X, p = near_opposites(np.random.default_rng(n), n, r, noise)
    side = Coupling(X)
    bound, best = side.bound(minimized(side, p, (0.1, 0.01, 1e-3, 1e-4), 150), p), semidefinite_price(side, p)
    assert best * (1 - 1e-5) <= bound <= 1.03 * best


def test_tighter_than_rows_by_themselves():
    """By half, where every row has a near one of the opposite sign; and never looser than a few per cent."""
    X, p = near_opposites(np.random.default_rng(0), 60, 6, 0.2)
    side = Coupling(X)
    assert side.bound(minimized(side, p), p) < 0.6 * relaxed_price(X, p, cones=0, rounds=150)
    X, p = np.random.default_rng(1).standard_normal((60, 6)), np.random.default_rng(2).standard_normal(60)
    side = Coupling(X)
    both = max(side.bound(minimized(side, s * p), s * p) for s in (1.0, -1.0))
    assert both < 1.05 * relaxed_price(X, p, cones=0, rounds=150)


def test_what_products_with_the_ball_add():
    """Beside every g along its row, where the directions that matter lie near two of twelve dimensions."""
    rng = np.random.default_rng(0)
    X, p = rng.standard_normal((80, 12)), np.where(rng.random(80) < 0.5, -0.5, 0.2)
    X[p > 0, 2:] *= 0.2
    side = Coupling(X)
    assert side.bound(minimized(side, p), p) < 0.75 * side.bound(minimized(side, p, moved=side.size - X.size), p)


def test_gradients():
    rng = np.random.default_rng(3)
    X, p = rng.standard_normal((9, 3)), rng.standard_normal(9)
    side = Coupling(X)
    z = side.start(p) + 0.3 * rng.standard_normal(side.size)
    _, of_z, of_p = side.smoothed(z, p, 0.05)
    np.testing.assert_allclose(of_z, differences(lambda z: side.smoothed(z, p, 0.05)[0], z), atol=1e-6)
    _, _, of_p = side.smoothed(z, p, 1e-8)  # without the entropy, whose weights count as fixed
    np.testing.assert_allclose(of_p, differences(lambda p: side.smoothed(z, p, 1e-8)[0], p), atol=1e-5)


def broken(name):
    """A bound with one term wrong."""

    class Broken(Coupling):
        def _parts(self, z, p):
            parts = super()._parts(z, p)
            H, L = self.unit_rows, self.lengths
            signed = csr_array((self.signs * parts.w, (self.first, self.second)), shape=(self.n, self.n))
            cross = H.T @ (signed @ H)
            cross = 0.5 * (cross + cross.T)
            shift = parts.shares[0] - parts.shares[1]
            curve = H.T @ (parts.curve[:, None] * parts.against)
            of_any_length = H.T @ (parts.curve[:, None] * z[len(z) - H.size :].reshape(H.shape))
            curve, of_any_length = (0.5 * (matrix + matrix.T) for matrix in (curve, of_any_length))
            changes = {
                "twice the coupling in B": lambda: {"coupled": 2.0 * parts.coupled, "diagonal": 2.0 * parts.diagonal},
                "half of H": lambda: {"Q": 0.5 * parts.Q},
                "twice the products of pairs in H": lambda: {"Q": parts.Q - cross},
                "shares of sum two": lambda: {
                    "b": 0.5 * (self.X.T @ (p - 2.0 * parts.q * shift)),
                    "r": parts.r - parts.q * parts.shares[3] * L,
                    "Q": parts.Q - curve,
                },
                "no linear part": lambda: {"b": 0.0 * parts.b},
                "rows of negative p twice": lambda: {"r": parts.r - parts.q * parts.shares[3] * L},
                "curve twice": lambda: {"Q": parts.Q - curve},
                "g of any length": lambda: {"Q": parts.Q + curve - of_any_length},
            }  # fmt: skip
            return parts._replace(**changes[name]())

    return Broken


@pytest.mark.parametrize(
    "name",
    [
        "twice the coupling in B", "half of H", "twice the products of pairs in H",
        "shares of sum two", "no linear part", "rows of negative p twice", "curve twice",
        "g of any length",
    ],
)  # fmt: skip
def test_a_wrong_term_is_caught(name):
    """The comparison with values above would fail: of the problems below some are bounded too low."""
    caught = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        X, p = near_opposites(rng, 1 + seed % 4, 1 + seed % 3, 0.3)
        p = p if seed % 2 else rng.standard_normal(len(p))
        for way in (Coupling, broken(name)):
            side = way(X)
            z = minimized(side, p, (0.05,), 30)
            z = z + rng.choice([0.0, 1.0]) * rng.standard_normal(len(z))
            late = values(X, p, rng).max() > side.bound(z, p)
            assert not (late and way is Coupling)
            caught += late
    assert caught > 0


@pytest.mark.parametrize(
    "rows, values_of_p", [(1.0, 1e-165), (1.0, 1e-250), (1e-130, 1.0), (1e-130, 1e-150), (1e-130, 1e200)]
)
def test_bounds_hold_where_squares_vanish(rows, values_of_p):
    rng = np.random.default_rng(0)
    for n in range(1, 20):
        X, p = rows * rng.random((n, 1)), values_of_p * rng.random(n)
        side = Coupling(X)
        exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(X[:, 0], p, strict=True))
        assert Fraction(side.bound(side.start(p), p)) >= exact


def test_rows_of_nothing_and_single_rows():
    p = np.array([1.0, -2.0])
    nothing = Coupling(np.zeros((2, 1)))
    assert nothing.n == 0
    one = Coupling(np.array([[0.0, 0.0], [0.6, 0.8]]))
    assert len(one.first) == 0 and one.bound(one.start(-p), -p) >= 2.0
