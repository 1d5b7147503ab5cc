"""ADMM with a split of the prediction, readouts and skips: a step against a dense textbook, chunks on every backend."""

import numpy as np
import pytest
from oracles import blocks, columns, dense_F, dense_G, make_backend, rotated

from cvxrelu.backends import Backend
from cvxrelu.numerics.proximal import group_soft_threshold
from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.multinomial import Multinomial
from cvxrelu.program.readout import make_pairs
from cvxrelu.program.skip import Skip, free_directions
from cvxrelu.sampled import admm
from cvxrelu.sampled.data_term import skip_factors

RHO, BETA, L2 = (0.7, 2.3, 1.9), 0.8, 0.6
CASES = {  # loss, pairs, skip
    "squared-pairs": ("squared", True, None),
    "squared-skip": ("squared", False, L2),
    "squared-free": ("squared", False, 0.0),
    "squared-pairs-free": ("squared", True, 0.0),
    "logistic": ("logistic", False, None),
    "logistic-pairs": ("logistic", True, None),
    "logistic-pairs-skip": ("logistic", True, L2),
    "multinomial": ("multinomial", False, None),
    "multinomial-skip": ("multinomial", False, L2),
}


class Run:
    """A problem with eight rows on a backend, its u-step prepared; everything dense for the textbook beside it."""

    def __init__(self, backend: Backend, case: str, method: str = "gram", dtype=np.float64) -> None:
        self.backend, self.dtype = backend, dtype
        loss, pairs, self.l2 = CASES[case]
        rng = np.random.default_rng(3)
        n, d, P, c = 8, 3, 4, 3 if loss == "multinomial" else 2
        X, eigenvalues, _ = rotated(rng.standard_normal((n, d)))
        self.X, self.M = X, X @ rng.standard_normal((d, P)) >= 0
        chosen = np.array([rng.choice(n, 2, replace=False) for _ in range(11)])
        readout = make_pairs(chosen, n) if pairs else None
        self.R = np.eye(n)[chosen[:, 0]] - np.eye(n)[chosen[:, 1]] if pairs else np.eye(n)
        m = len(self.R)
        self.weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=(m, 1))
        self.weight[:2] = [[0.0], [2.0]]
        self.C = np.zeros((m, 0)) if self.l2 is None else rng.standard_normal((m, 2))
        if loss == "squared":
            free = free_directions(self.C, self.weight) if self.l2 == 0 else None
            self.loss = Squared(rng.standard_normal((m, c)), self.weight, free)
        elif loss == "logistic":
            self.loss = Logistic(rng.choice([-1.0, 1.0], size=(m, c)), self.weight, rng.standard_normal((m, 1)))
        else:
            self.loss = Multinomial(np.eye(c)[rng.integers(c, size=m)], self.weight, rng.standard_normal((m, c)))
        self.D = admm.row_curvature(self.loss) * (1.0 if loss == "squared" else RHO[2])
        skip = Skip(self.C, self.l2, np.eye(2), np.zeros((2, c)), True, False) if self.l2 else None
        factors = skip_factors(skip, getattr(self.loss, "free", None), admm.row_curvature(self.loss))
        arrays = (X, eigenvalues, self.M, self.loss, np.asarray(BETA), readout, factors)
        with backend.scope():
            self.data = backend.compile(admm.prepare)(backend, *backend.put(arrays, dtype))
            rho = RHO[:2] if loss == "squared" else RHO
            self.rho = admm.Penalties(*backend.put(tuple(map(np.asarray, rho)), dtype))
            landmarks = backend.put(np.arange(3))
            self.system = admm.make_system(backend, self.data, self.rho, landmarks, method)
            zero = admm.initial_state(self.data)
        x, t, warm, p, a = (None if a is None else rng.standard_normal(a.shape) for a in (*zero[:3], *zero[4:]))
        late = np.asarray(10**7, dtype=np.int32)  # conjugate gradients are asked for eleven digits
        self.state = admm.State(x * BETA / RHO[0], t, warm, late, p, a)

    def call(self, fn, *args, compiled=True):
        with self.backend.scope():
            fn = self.backend.compile(fn) if compiled else fn
            state = self.backend.put(self.state, self.dtype)
            return self.backend.get(fn(self.backend, self.data, self.system, self.rho, state, *args))

    def textbook(self):
        """(U, z, x, t, p) after a step, from one dense system for U and the skip's coefficients z."""
        F, G, P = self.R @ dense_F(self.X, self.M), dense_G(self.X, self.M), self.M.shape[1]
        x, t = columns(self.state.x), columns(self.state.t)
        W, s = columns(group_soft_threshold(self.state.x, BETA / RHO[0])), np.maximum(t, 0)
        a, target = None, self.loss.y
        if self.state.p is not None:
            per_row = np.where(self.weight > 0, self.D, 1.0)
            a = self.loss.prox(self.state.p, per_row)
            target = 2 * a - self.state.p
        A = np.hstack([F, self.C])
        H = A.T @ (self.D * A)
        H[: F.shape[1], : F.shape[1]] += RHO[0] * np.eye(F.shape[1]) + RHO[1] * G.T @ G
        H[F.shape[1] :, F.shape[1] :] += (self.l2 or 0.0) * np.eye(self.C.shape[1])
        right = A.T @ (self.D * target)
        right[: F.shape[1]] += RHO[0] * (2 * W - x) + RHO[1] * G.T @ np.abs(t)
        both = np.linalg.solve(H, right)
        U, z = both[: F.shape[1]], both[F.shape[1] :]
        p = None if a is None else self.state.p + 1.6 * np.where(self.weight > 0, A @ both - a, 0.0)
        return blocks(U, P), z, blocks(x + 1.6 * (U - W), P), blocks(t + 1.6 * (G @ U - s), P), p


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
@pytest.mark.parametrize("case", CASES)
def test_one_step_is_the_textbooks(case, method):
    run = Run(make_backend("numpy"), case, method)
    new, U = run.call(admm.step)
    expected_U, z, x, t, p = run.textbook()
    np.testing.assert_allclose(U, expected_U, atol=1e-9)
    np.testing.assert_allclose(new.x, x, atol=1e-9)
    np.testing.assert_allclose(new.t, t, atol=1e-9)
    if p is None:
        assert new.p is None
    else:
        np.testing.assert_allclose(new.p, p, atol=1e-9)
    _, report = run.call(admm.run_chunk, 1)
    neurons = run.R @ dense_F(run.X, run.M) @ columns(expected_U)
    if p is None:
        np.testing.assert_allclose(report.prediction_U, neurons, atol=1e-9)
    if run.l2:
        np.testing.assert_allclose(report.skip, np.sqrt(run.l2) * z, atol=1e-9)
    else:
        assert report.skip is None


def test_residuals_of_the_loss():
    """|A u - a| over the larger of the two, and the change of a over the scaled dual, both through F^T R^T D."""
    run = Run(make_backend("numpy"), "logistic-pairs-skip")
    new, report = run.call(admm.run_chunk, 1)
    U, z, _, _, p = run.textbook()
    prox = lambda v: run.loss.prox(v, np.where(run.weight > 0, run.D, 1.0))  # noqa: E731
    reached = run.R @ dense_F(run.X, run.M) @ columns(U) + run.C @ z
    a_old, a = prox(run.state.p), prox(p)
    reached = np.where(run.weight > 0, reached, a_old)  # rows without weight take no part
    back = dense_F(run.X, run.M).T @ run.R.T
    primal = np.linalg.norm(reached - a) / max(np.linalg.norm(reached), np.linalg.norm(a))
    dual = np.linalg.norm(back @ (run.D * (a - a_old))) / np.linalg.norm(back @ (run.D * (p - a)))
    np.testing.assert_allclose(report.residuals[4:], [primal, dual], rtol=1e-8)
    np.testing.assert_allclose(report.prediction_U, a, atol=1e-9)
    np.testing.assert_allclose(new.p, p, atol=1e-9)


@pytest.mark.parametrize("case", ["logistic-pairs-skip", "multinomial-skip"])
@pytest.mark.parametrize("name", ["jax", "strict"])
def test_every_backend_computes_what_numpy_does(name, case):
    if name == "strict":
        pytest.importorskip("array_api_strict")
    got, expected = (Run(make_backend(b), case).call(admm.run_chunk, 20) for b in (name, "numpy"))
    for part, other in zip(got, expected, strict=True):
        for value, wanted in zip(part, other, strict=True):
            if wanted is None:
                assert value is None
            else:
                np.testing.assert_allclose(value, wanted, atol=1e-9)


def test_single_precision_stays_single():
    for case in ("multinomial-skip", "logistic-pairs"):
        parts = Run(make_backend("numpy"), case, dtype=np.float32).call(admm.run_chunk, 3)
        kinds = {np.asarray(a).dtype for part in parts for a in part if a is not None}
        assert kinds == {np.dtype(np.float32), np.dtype(np.int32)}


def test_rescale_keeps_the_multipliers_of_the_loss():
    run = Run(make_backend("numpy"), "logistic-pairs")
    new = admm.Penalties(*map(np.asarray, (2.1, 0.4, 0.3)))
    rescaled = admm.rescale(run.backend, run.data, run.rho, new, run.state)
    unit = np.where(run.weight > 0, run.D / RHO[2], 1.0)
    before, after = (run.loss.prox(s.p, r * unit) for s, r in ((run.state, RHO[2]), (rescaled, 0.3)))
    np.testing.assert_allclose(after, before, atol=1e-10)
    np.testing.assert_allclose(0.3 * (rescaled.p - after), RHO[2] * (run.state.p - before), atol=1e-10)
