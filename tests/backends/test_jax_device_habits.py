"""JAX as it has to be used on a device: nothing is moved within compiled functions, no axis is broadcast by chance,
memory is given back, and a process without 64-bit types gets certificates in float64 all the same.

On a CPU JAX guards copies to the device only; those back are counted on CuPy's stand-in, which runs the same functions.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import cvxrelu
from cvxrelu.backends.choose import get_backend
from cvxrelu.backends.jax import JaxBackend

RNG = np.random.default_rng(0)
N, D = 50, 4
X = RNG.standard_normal((N, D))
Y = np.abs(X[:, 0]) - X[:, 1]
PAIRS = RNG.permutation(N).reshape(-1, 2)
LOGISTIC = {"loss": "logistic", "skip": "linear", "skip_l2": 0.5}
SAMPLED = {"refine": False, "certificate": "relaxed", "patterns": 9, "max_iter": 45}
PROBLEMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "refined": (Y, {"tol": 3e-2}),
    "refined-outputs": (np.stack([Y, X[:, 2]], axis=1), {"tol": 0.1, "skip": "bias", "skip_l2": 0.1}),
    "direct": (np.stack([Y, X[:, 2]], axis=1), {"intercept": True, "linear_solver": "direct", **SAMPLED}),
    "cg": (Y, {"linear_solver": "cg", "skip": "linear", **SAMPLED}),
    "logistic": (np.where(np.stack([Y, -Y], axis=1) > 0, 1.0, -1.0), {**LOGISTIC, **SAMPLED}),
    "multinomial": (np.digitize(Y, [0.0, 1.0]), {"loss": "multinomial", **SAMPLED}),
    "pairs": (None, {"loss": "logistic", "pairs": PAIRS, **SAMPLED}),
}


@pytest.fixture
def guarded(monkeypatch):
    """Compiled functions that refuse implicit copies; the names of those that ran."""
    plain, ran = JaxBackend.compile, set()

    def compile(self, fn, *given, **options):
        compiled = plain(self, fn, *given, **options)

        def call(*arguments, **named):
            ran.add(fn.__name__)
            with jax.transfer_guard("disallow"):
                return compiled(*arguments, **named)

        return call

    monkeypatch.setattr(JaxBackend, "compile", compile)
    return ran


def test_the_guards_see(guarded):
    """What is a number of the host, or of another number of axes, does not pass."""
    backend = get_backend("jax")
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        jax.jit(lambda x: x + 1)(np.ones(2))
    with backend.scope(), jax.numpy_rank_promotion("raise"):
        wide = backend.put(np.ones((2, 3)))
        with pytest.raises(ValueError, match="jax_numpy_rank_promotion"):
            backend.compile(lambda backend, a: a * a[0])(backend, wide)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            backend.compile(lambda backend, a: a + 1)(backend, np.ones(2))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_copies_and_no_chance_broadcasts(guarded, problem):
    y, options = PROBLEMS[problem]
    with jax.numpy_rank_promotion("raise"):
        found = cvxrelu.solve(X, y, beta=2.0, backend="jax", **options)
    assert np.isfinite(found.objective) and found.lower_bound <= found.objective
    assert {"roam", "ascend", "run", "polish"} <= guarded or {"run_chunk", "check", "_build"} <= guarded


@pytest.mark.parametrize("method", ["agd", "svrg", "adamw"])
def test_last_layer(guarded, method):
    with jax.numpy_rank_promotion("raise"):
        for A in (X, X[:6].T[:3]):
            found = cvxrelu.solve_logistic(
                A, np.where(A[:, 0] > 0, 1.0, -1.0), l2=0.1, method=method, backend="jax", max_iter=40
            )
            assert np.isfinite(found.objective)
    assert {"run_chunk", "_settle"} <= guarded
