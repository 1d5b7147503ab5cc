"""JAX as it has to be used on a device: nothing is moved within compiled functions, no axis is broadcast by chance,
memory is given back, and a process without 64-bit types gets certificates in float64 all the same.

On a CPU JAX guards copies to the device only; those back are counted on CuPy's stand-in, which runs the same functions.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import numpy as np
import pytest

import cvxrelu
from cvxrelu.backends.choose import get_backend
from cvxrelu.backends.jax import JaxBackend
from cvxrelu.program.losses import Logistic, Squared

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


# -- memory and compilations ------------------------------------------------------------------------------------------
def test_states_are_given_back(monkeypatch):
    """ADMM's and the descent's states are overwritten in place, so that there is one of each; what is the user's, and
    what is used again, never is.
    """
    plain, given = JaxBackend.compile, []

    def compile(self, fn, static=(), donate=()):
        compiled = plain(self, fn, static, donate)
        names = list(inspect.signature(fn).parameters)[1:]

        def call(backend, *arguments, **named):
            leaves = {name: jax.tree.leaves(value) for name, value in zip(names, arguments, strict=False)}
            found = compiled(backend, *arguments, **named)
            for name, arrays in leaves.items():
                gone = [a.is_deleted() for a in arrays if isinstance(a, jax.Array)]
                if name in donate:
                    given.append((fn.__name__, sum(gone), len(gone)))
                else:
                    assert not any(gone), (fn.__name__, name)
            return found

        return call

    monkeypatch.setattr(JaxBackend, "compile", compile)
    rows = jax.numpy.asarray(X)
    cvxrelu.solve(rows, Y, beta=2.0, backend="jax", tol=0.1)
    cvxrelu.solve(rows, Y, beta=2.0, backend="jax", **SAMPLED)
    assert not rows.is_deleted()
    assert {name for name, *_ in given} == {"run", "run_chunk", "rescale"}
    assert all(gone >= 2 for _, gone, _ in given)  # the slack and the blocks; memory and direction of the descent


def test_saved_states_are_whole(tmp_path):
    """A checkpoint looks at a state that the next chunk takes the memory of."""
    run = {"beta": 1.0, "backend": "jax", "tol": 1e-12, **SAMPLED, "linear_solver": "direct"}
    run["checkpoint"], whole = tmp_path / "run", {**run, "max_iter": 60}
    cvxrelu.solve(X, Y, **{**run, "max_iter": 30})
    resumed = cvxrelu.solve(X, Y, **whole)
    straight = cvxrelu.solve(X, Y, **{**whole, "checkpoint": None})
    np.testing.assert_allclose(resumed.sampled.blocks, straight.sampled.blocks, atol=1e-10)


def test_compilations_are_few():
    """Of a shape that is new; every program that XLA builds counts. A second solve of the shape builds none, which
    `test_compilations.py` has.
    """
    built: list[str] = []

    def note(event: str, duration: float, **names: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            built.append(event)

    rows = RNG.standard_normal((41, 3))
    y = np.abs(rows[:, 0]) - rows[:, 1]
    counts = {}
    jax.monitoring.register_event_duration_secs_listener(note)
    for name, options in {"sampled": {**SAMPLED, "max_iter": 200}, "refined": {"tol": 1e-2}}.items():
        built.clear()
        cvxrelu.solve(rows, y, beta=0.3, backend="jax", **options)
        counts[name] = len(built)
    print(counts)
    assert 0 < counts["sampled"] <= 60 and 0 < counts["refined"] <= 150


# -- without 64-bit types ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("program", ["refined", "sampled"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_certificates_are_float64_without_x64(program, loss):
    """A process without `jax_enable_x64`, and arrays in float32: iterations in float32, and a certificate that NumPy
    proves again from its dual variable, in float64.
    """
    from cvxrelu.certificates.closed_form import relaxed_bound

    assert not jax.config.jax_enable_x64
    rows, signs = jax.numpy.asarray(X, dtype="float32"), jax.numpy.asarray(np.where(Y > 0, 1, -1), dtype="float32")
    y = signs if loss == "logistic" else jax.numpy.asarray(Y, dtype="float32")
    options = {"tol": 1e-2} if program == "refined" else {**SAMPLED, "linear_solver": "direct"}
    found = cvxrelu.solve(rows, y, beta=1.0, backend="jax", loss=loss, **{**options, "certificate": "relaxed"})
    assert found.dtype == "float32" and jax.numpy.ones(1).dtype == np.float32
    dual = found.certificate.dual
    assert type(dual) is np.ndarray and dual.dtype == np.float64 and type(found.lower_bound) is float
    host, targets = np.asarray(rows, np.float64), np.asarray(y, np.float64)[:, None]
    weight = np.ones((N, 1))
    exact = Logistic(targets, weight, np.zeros((N, 1))) if loss == "logistic" else Squared(targets, weight)
    prediction = found.network.predict(host).reshape(N, 1)
    objective = float(exact.value(prediction)) + found.network.path_norm
    assert found.objective == pytest.approx(objective, rel=1e-12)
    closed, _ = relaxed_bound(exact, host, dual[:, None], np.asarray(1.0))
    assert float(closed) <= found.objective
    assert found.lower_bound >= float(closed) * (1 - 1e-12)  # that, or tighter
    assert found.lower_bound <= cvxrelu.solve(host, targets[:, 0], beta=1.0, loss=loss, tol=1e-3).objective
