"""F, G and their adjoints: equal to dense matrices, adjoint to each other, on every backend and in both precisions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import blocks, columns, dense_F, dense_G, make_backend, rounding

from cvxrelu.program import operators


@pytest.fixture(scope="module", params=["numpy", "jax", "strict"])
def backend(request):
    backend = make_backend(request.param)
    with backend.scope():
        yield backend


def draw(n, d, c, P, seed, dtype=np.float64):
    """X, M, U, r, s."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in [(n, d), (d, 2, c, P), (n, c), (n, 2, c, P)]]
    return arrays[0], rng.random((n, P)) < 0.5, *arrays[1:]


def everything(backend, X, M, U, r, s):
    """All operators, as one function of module level that a backend can compile."""
    return {
        "F": operators.F(X, M, U),
        "F^T": operators.F_adjoint(X, M, r),
        "G": operators.G(X, M, U),
        "G^T": operators.G_adjoint(X, M, s),
        "F1": operators.F1(X, M, U[:, 1, ...]),
        "F1^T": operators.F1_adjoint(X, M, r),
        "masked": operators.masked(M, s),
        "signed": operators.signed(M, s),
    }


def evaluate(backend, inputs, compiled=True):
    fn = backend.compile(everything) if compiled else everything
    return {name: np.asarray(backend.get(value)) for name, value in fn(backend, *backend.put(inputs)).items()}


sizes = st.fixed_dictionaries({
    "n": st.integers(1, 5), "d": st.integers(1, 4), "c": st.integers(1, 3), "P": st.integers(1, 4),
    "seed": st.integers(0, 10**6), "dtype": st.sampled_from([np.float32, np.float64]),
})  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(sizes)
def test_equal_to_dense_and_adjoint(backend, size):
    inputs = X, M, U, r, s = draw(**size)
    P, tolerance = size["P"], rounding(size["dtype"])
    got = evaluate(backend, inputs)
    assert {value.dtype for value in got.values()} == {np.dtype(size["dtype"])}

    F, G, E = dense_F(X, M), dense_G(X, M), 2.0 * M - 1.0
    alone = np.stack([U[:, 1], np.zeros_like(U[:, 1])], axis=1)  # F1 is F on blocks without a second half
    expected = {
        "F": F @ columns(U),
        "F^T": blocks(F.T @ r, P),
        "G": blocks(G @ columns(U), P),
        "G^T": blocks(G.T @ columns(s), P),
        "F1": F @ columns(alone),
        "F1^T": blocks(F.T @ r, P)[:, 0],
        "masked": np.einsum("np,nscp->nscp", M, s),
        "signed": np.einsum("np,nscp->nscp", E, s),
    }
    for name, value in expected.items():
        assert got[name].shape == value.shape
        np.testing.assert_allclose(got[name], value, rtol=tolerance, atol=tolerance, err_msg=name)

    scale = tolerance * (1 + np.linalg.norm(U)) * (1 + np.linalg.norm(X)) * (1 + np.linalg.norm(s) + np.linalg.norm(r))
    assert abs(np.sum(got["F"] * r) - np.sum(U * got["F^T"])) <= scale
    assert abs(np.sum(got["G"] * s) - np.sum(U * got["G^T"])) <= scale


def test_every_output_is_on_its_own(backend):
    X, M, U, r, s = draw(4, 3, 3, 2, seed=1)
    together = evaluate(backend, (X, M, U, r, s))
    for k in range(3):
        alone = evaluate(backend, (X, M, U[:, :, [k]], r[:, [k]], s[:, :, [k]]))
        for name, axis in {"F": 1, "F^T": 2, "G": 2, "G^T": 2}.items():
            np.testing.assert_allclose(np.take(together[name], [k], axis=axis), alone[name], rtol=1e-13, atol=1e-13)


def test_cones_are_where_G_is_nonnegative(backend):
    X, _, _, r, s = draw(7, 3, 1, 4, seed=2)
    gates = np.random.default_rng(3).standard_normal((3, 4))
    inside = np.stack([gates, gates], axis=1)[:, :, None]
    G = evaluate(backend, (X, X @ gates >= 0, inside, r, s))["G"]
    assert G.min() >= 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_is_eager(backend, dtype):
    inputs = draw(6, 3, 2, 5, seed=4, dtype=dtype)
    eager, compiled = evaluate(backend, inputs, compiled=False), evaluate(backend, inputs)
    for name, value in eager.items():
        assert compiled[name].dtype == value.dtype == dtype
        np.testing.assert_allclose(compiled[name], value, rtol=rounding(dtype), atol=rounding(dtype), err_msg=name)
