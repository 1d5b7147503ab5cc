"""Arrays of every kind and precision: predictions in kind, solves of short floats, pickles without the data."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import cvxrelu
from cvxrelu import ReLUNetwork

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3))
Y = np.maximum(X[:, 0], 0) - X[:, 1]
NETWORK = ReLUNetwork(
    RNG.standard_normal((3, 4)), RNG.standard_normal((4, 2)), RNG.standard_normal(4), RNG.standard_normal((3, 2)),
    RNG.standard_normal(2),
)  # fmt: skip
PRECISION = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-1}


@pytest.mark.parametrize("dtype", PRECISION)
def test_predictions_of_torch_are_in_kind(dtype):
    torch = pytest.importorskip("torch")
    for network in (NETWORK, ReLUNetwork(np.float32(NETWORK.first_layer), np.float32(NETWORK.second_layer))):
        found = network.predict(torch.tensor(X).to(getattr(torch, dtype)))
        assert found.dtype == getattr(torch, dtype)
        np.testing.assert_allclose(found.double().numpy(), network.predict(X), atol=PRECISION[dtype])
    assert not NETWORK.first_layer.flags.writeable


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_predictions_of_jax_are_in_kind(dtype):
    import jax.numpy as jnp

    found = NETWORK.predict(jnp.asarray(X, dtype=dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, dtype=np.float64), NETWORK.predict(X), atol=PRECISION[dtype])


def test_predictions_of_numpys_float16_are_in_kind():
    assert NETWORK.predict(X.astype(np.float16)).dtype == np.float16


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_are_solved_in_float32(library, dtype):
    if library == "torch":
        torch = pytest.importorskip("torch")
        short = torch.tensor(X).to(getattr(torch, dtype))
        same = short.double().numpy()
    else:
        import jax.numpy as jnp

        short = jnp.asarray(X, dtype=dtype)
        same = np.asarray(short, dtype=np.float64)
    found = cvxrelu.solve(short, Y, beta=0.5, backend="numpy")
    assert found.success and found.dtype == "float32"
    assert found.objective == pytest.approx(cvxrelu.solve(same, Y, beta=0.5, backend="numpy").objective, rel=1e-3)


def test_short_floats_are_weights_without_loss():
    torch = pytest.importorskip("torch")
    first = torch.tensor([[0.1], [0.7]]).bfloat16()
    network = ReLUNetwork.from_((first, torch.ones(1).bfloat16()))
    assert network.first_layer.dtype == np.float64
    np.testing.assert_array_equal(network.first_layer, first.double().numpy())


def test_what_is_pickled_holds_no_data():
    from cvxrelu import ConvexReLURegressor

    tall = np.repeat(X, 200, axis=0) + 1e-3 * RNG.standard_normal((8000, 3))
    fitted = ConvexReLURegressor(tol=1e-1).fit(tall, tall[:, 0])
    kept = pickle.dumps(fitted)
    assert len(kept) < tall.nbytes / 2
    back = pickle.loads(kept)
    np.testing.assert_array_equal(back.predict(X), fitted.predict(X))
    assert fitted.solution_.problem is not None  # the live one keeps it, for leave_one_out
    assert back.solution_.problem is None and back.solution_.objective == fitted.solution_.objective


def test_predictions_of_ml_dtypes_are_in_kind():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    found = NETWORK.predict(X.astype(bfloat16))
    assert found.dtype == bfloat16
    np.testing.assert_allclose(found.astype(np.float64), NETWORK.predict(X), atol=PRECISION["bfloat16"])


@pytest.mark.parametrize("kind", ["bfloat16", "gradient", "jax"])
def test_estimators_take_arrays_of_every_library(kind):
    from cvxrelu import ConvexReLURegressor

    if kind == "jax":
        import jax.numpy as jnp

        given = jnp.asarray(X, dtype="float32")
    else:
        torch = pytest.importorskip("torch")
        given = torch.tensor(X).bfloat16() if kind == "bfloat16" else torch.tensor(X).requires_grad_()
    fitted = ConvexReLURegressor(tol=1e-2).fit(given, Y)
    same = ConvexReLURegressor(tol=1e-2).fit(X, Y)
    np.testing.assert_allclose(fitted.predict(given), same.predict(X), atol=0.1)


@pytest.mark.parametrize("library", ["scipy", "torch"])
def test_sparse_matrices_are_refused_alike(library):
    if library == "scipy":
        import scipy.sparse

        sparse = scipy.sparse.csr_array(X)
    else:
        sparse = pytest.importorskip("torch").tensor(X).to_sparse()
    for refuse in (NETWORK.predict, lambda Z: cvxrelu.solve(Z, Y, beta=1.0)):
        with pytest.raises(TypeError, match="X is a sparse"):
            refuse(sparse)


def test_pickles_hold_no_rows_and_copies_keep_them():
    import copy

    A = np.repeat(X, 100, axis=0)
    last = cvxrelu.solve_logistic(A, np.sign(A[:, 0]), l2=1.0)
    assert len(pickle.dumps(last)) < A.nbytes
    assert pickle.loads(pickle.dumps(last)).rows is None
    sol = cvxrelu.solve(X, Y, beta=0.5)
    for whole, name in ((last, "rows"), (sol, "problem")):
        assert getattr(copy.copy(whole), name) is not None
        assert getattr(copy.deepcopy(whole), name) is not None
    cvxrelu.leave_one_out(copy.deepcopy(sol))
