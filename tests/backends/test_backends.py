"""One method on every array library: the same numbers, what is the user's left untouched, nothing compiled twice."""

from __future__ import annotations

import functools
import logging
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import make_backend

import cvxrelu
from cvxrelu import BackendError
from cvxrelu.backends import choose as selection
from cvxrelu.backends.choose import check_backend, get_backend, select_backend
from cvxrelu.backends.known_answer import known_answer
from cvxrelu.backends.numpy import NumpyBackend

RNG = np.random.default_rng(0)
X, BETA = RNG.standard_normal((40, 4)), 2.0
Y = np.maximum(X @ RNG.standard_normal(4), 0) + 0.1 * RNG.standard_normal(40)
Y3 = np.stack([Y, -Y[::-1], RNG.standard_normal(40)], axis=1)
WEIGHT = RNG.uniform(0.5, 2.0, 40)
solve_sampled = functools.partial(cvxrelu.solve, refine=False, certificate="relaxed")
ON_ACCELERATOR = get_backend("jax").is_accelerator


@pytest.fixture
def solve_on(monkeypatch):
    """`solve` of the sampled program with one more backend, "strict"."""

    def solve(name, *args, **options):
        if name != "strict":
            return solve_sampled(*args, backend=name, **options)
        pytest.importorskip("array_api_strict")
        from strict_backend import StrictBackend

        with monkeypatch.context() as patch:
            # the attribute cvxrelu.solve is the function; the module is found here
            patch.setattr(sys.modules["cvxrelu.api.prepared"], "select_backend", lambda *_: StrictBackend())
            return solve_sampled(*args, **options)

    return solve


# -- parity ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["jax", "strict"])
@pytest.mark.parametrize(
    ("y", "options"),
    [
        (Y, {"linear_solver": "direct"}),
        (Y, {"linear_solver": "cg"}),
        (Y3, {"linear_solver": "direct", "sample_weight": WEIGHT, "patterns": 8}),
        (Y3, {"linear_solver": "cg", "intercept": True}),
        (Y, {"dtype": "float32"}),
        (Y3, {"dtype": "float32", "linear_solver": "cg", "patterns": 8}),
    ],
    ids=["gram", "cg", "primal-outputs-weights", "cg-outputs-intercept", "float32", "float32-cg-outputs"],
)
def test_same_numbers_as_numpy(solve_on, name, y, options):
    fixed = {"beta": BETA, "patterns": 20, "tol": 1e-14, "max_iter": 60, **options}
    ours, numpys = solve_on(name, X, y, **fixed), solve_on("numpy", X, y, **fixed)
    tolerance = 1e-4 if ours.dtype == "float32" else 1e-8
    assert ours.backend == name
    assert ours.dtype == numpys.dtype
    for mine, other in (
        (ours.objective, numpys.objective),
        (ours.lower_bound, numpys.lower_bound),
        (ours.sampled.objective, numpys.sampled.objective),
        (ours.sampled.lower_bound, numpys.sampled.lower_bound),
    ):
        assert mine == pytest.approx(other, rel=tolerance)
    assert np.array_equal(ours.sampled.patterns, numpys.sampled.patterns)
    assert type(ours.sampled.blocks) is type(ours.certificate.dual) is type(ours.network.first_layer) is np.ndarray
    np.testing.assert_allclose(ours.network.predict(X), numpys.network.predict(X), atol=100 * tolerance)


# -- choice ---------------------------------------------------------------------------------------------------------
def test_auto_follows_the_arrays():
    """JAX arrays go to JAX on an accelerator; on a CPU they are sized up like any others."""
    expected = "jax" if ON_ACCELERATOR else "numpy"
    for given in ((jnp.asarray(X), jnp.asarray(Y)), (X, jnp.asarray(Y))):
        found = solve_sampled(*given, beta=BETA, patterns=5, max_iter=5)
        assert found.backend == expected
        if not ON_ACCELERATOR:
            np.testing.assert_array_equal(
                found.sampled.blocks,
                solve_sampled(*map(np.asarray, given), beta=BETA, patterns=5, max_iter=5).sampled.blocks,
            )
    assert select_backend("auto", (jnp.asarray(X),), selection.JAX_CPU_FLOPS).name == "jax"
    assert solve_sampled(jnp.asarray(X), Y, beta=BETA, patterns=5, max_iter=5, backend="numpy").backend == "numpy"


def test_auto_follows_the_size():
    for flops in (selection.JAX_CPU_FLOPS / 2, selection.JAX_CPU_FLOPS * 2):
        chosen = select_backend("auto", (X, Y), flops).name
        assert chosen == ("jax" if ON_ACCELERATOR or flops > selection.JAX_CPU_FLOPS else "numpy")


def test_auto_makes_do_without_jax(monkeypatch):
    def without_jax(name):
        if name == "jax":
            raise BackendError("no jax here")
        return get_backend(name)

    monkeypatch.setattr(selection, "get_backend", without_jax)
    assert select_backend("auto", (X, Y), 1e15).name == "numpy"


@pytest.mark.parametrize("bad", ["torch", "NumPy", "", "auto "])
def test_unknown_names(bad):
    with pytest.raises(ValueError, match=f"backend must be 'auto', 'numpy', 'jax' or 'cupy', got {bad!r}"):
        solve_sampled(X, Y, beta=BETA, backend=bad)


def test_backends_are_made_once():
    assert get_backend("numpy") is get_backend("numpy")
    assert get_backend("jax") is get_backend("jax")
    assert repr(get_backend("numpy")) == "<cvxrelu backend numpy on cpu>"


def test_cupy_without_a_device_is_one_clear_line():
    report = check_backend("cupy")
    if report.available:
        pytest.skip("there is a CUDA device and CuPy: tests/gpu runs on it")
    with pytest.raises(BackendError) as caught:
        solve_sampled(X, Y, beta=BETA, backend="cupy")
    message = str(caught.value)
    assert message.startswith("backend 'cupy' needs ")
    assert "\n" not in message
    assert report.detail == message
    assert report.known_answer == "not run"


@pytest.mark.parametrize("name", ["numpy", "jax"])
def test_reports(name):
    report = check_backend(name)
    assert (report.available, report.known_answer) == (True, "ok")
    assert report.devices
    assert name in report.versions


# -- the known-answer check -----------------------------------------------------------------------------------------
def wrong_sign(results):
    F, F_adjoint, *rest = results
    return (F, F_adjoint[:, ::-1], *rest)


def wrong_by_1e_9(results):
    return (*results[:2], results[2] * (1 + 1e-9), results[3])


def short_products(results):
    """What 10-bit mantissas, the TF32 of recent GPUs, make of float32 results."""
    if results[0].dtype == np.float64:
        return results
    return tuple((r.view(np.int32) & ~0x1FFF).view(np.float32) for r in results)


def widened(results):
    return tuple(r.astype(np.float64) for r in results)


@pytest.mark.parametrize(
    ("corrupt", "says"),
    [
        (wrong_sign, r"F\^T in float64 is off by 2"),
        (wrong_by_1e_9, "G in float64 is off by 1.0e-09"),
        (short_products, "F in float32 is off by"),
        (widened, "F in float32 .* returned as float64"),
        (lambda results: tuple(r * np.nan for r in results), "F in float64 is off by nan"),
    ],
    ids=["sign", "digits", "tf32", "widened", "nan"],
)
def test_wrong_numbers_are_refused(monkeypatch, corrupt, says):
    class Corrupt(NumpyBackend):
        def compile(self, fn, static=(), donate=()):
            return lambda *args, **options: corrupt(fn(*args, **options))

    monkeypatch.setattr(selection, "_create", lambda name: Corrupt())
    with pytest.raises(BackendError, match=rf"backend 'numpy' computes wrong numbers and is refused: {says}"):
        get_backend.__wrapped__("numpy")
    report = check_backend("numpy")
    assert not report.available
    assert re.match(says, report.known_answer)


class Library:
    """NumPy's namespace, one name of it replaced."""

    def __init__(self, xp, name, other):
        self.__dict__.update(vars(xp))
        self.linalg = types.SimpleNamespace(**vars(xp.linalg))
        where, _, last = name.rpartition(".")
        setattr(getattr(self, where) if where else self, last, other)


def swapped(name, other, says):
    """A NumPy backend whose library has another function of this name."""

    class Swapped(NumpyBackend):
        xp = Library(NumpyBackend.xp, name, other)

    return pytest.param(Swapped(), says, id=name)


def broken(says, **methods):
    return pytest.param(type("Broken", (NumpyBackend,), methods)(), says, id=next(iter(methods)))


def short_matmul(backend, fn, static=(), donate=()):
    """Products of many terms in TF32, those of few as they should be; float64 through float32."""

    def run(*given, **options):
        if fn.__name__ == "_product":
            return np.asarray(given[1], np.float32) @ np.asarray(given[2], np.float32) + 0 * given[1]
        return fn(*given, **options)

    return run


PLAIN = NumpyBackend()
xp = NumpyBackend.xp


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        broken("spd_inverse in float64", spd_inverse=lambda self, a: np.linalg.inv(a + 1e-9 * np.eye(len(a)))),
        broken("spd_inverse of what has none", spd_inverse=lambda self, a: np.linalg.inv(a)),
        broken("repeat", repeat=lambda self, n, body, state: PLAIN.repeat(n - 1, body, state)),
        broken("a wide product in float64", compile=short_matmul),
        broken("put and get of bool", put=lambda self, tree, *a, **_: PLAIN.put(tree, *a), get=lambda self, tree: (
            tuple(a * 1 if getattr(a, "dtype", 0) == np.bool_ else a for a in tree) if isinstance(tree, tuple) else tree
        )),
        broken("put and get of float64", split=lambda self, array, axis, rows: array[..., :-1]),
        broken("put and get of float64", block=lambda self, tree: (tree[0] + 1e-3, *tree[1:])),
        swapped("linalg.eigh", lambda a: (np.linalg.eigvalsh(a)[::-1], np.eye(len(a))), "eigh"),
        swapped("linalg.svd", lambda a, **k: np.linalg.svd(a.astype(np.float32), **k), "svd in float64"),
        swapped("linalg.qr", lambda a, mode: (lambda q, r: (q, -r))(*np.linalg.qr(a)), "qr"),
        swapped("linalg.solve", lambda a, b: np.linalg.solve(a.T, b + 1e-9), "solve"),
        swapped("max", lambda a, axis=None: np.min(a, axis=axis) if axis == 0 else np.max(a), "reductions"),
        swapped("take", lambda a, rows, axis: np.take(a, rows[::-1], axis=axis), "reductions"),
        swapped("argsort", lambda a, axis: np.argsort(-a, axis=axis), "argsort"),
        broken("smallest", smallest=lambda self, values, count: np.argsort(-values, axis=1)[:, :count]),
        swapped("cumulative_sum", lambda a, axis, include_initial: xp.cumulative_sum(a[:-1], axis=axis), "running"),
        swapped("log1p", lambda a: np.log(1.0 + a.astype(np.float32)).astype(a.dtype), "exp and log1p in float64"),
        broken("the last digit", put=lambda self, tree, *a, **_: PLAIN.put(
            np.where(np.abs(tree) > 3e38, np.inf, tree) if isinstance(tree, np.ndarray) else tree, *a
        )),
    ],
)  # fmt: skip
def test_every_method_is_asked(backend, says):
    with np.errstate(all="ignore"):
        found = known_answer(backend, everything=True)
    assert found is not None and found.startswith(says), found


@pytest.mark.parametrize("name", ["numpy", "jax", "strict"])
def test_sound_backends_know_every_answer(name):
    assert known_answer(make_backend(name), everything=True) is None


# -- surroundings ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("x64", [False, True])
def test_settings_of_jax_are_left_alone(x64):
    with jax.enable_x64(x64):
        sol = solve_sampled(X, Y, beta=BETA, patterns=5, max_iter=5, backend="jax")
        assert jax.config.jax_enable_x64 == x64
        assert jnp.ones(2).dtype == (jnp.float64 if x64 else jnp.float32)
        assert jax.config.jax_default_matmul_precision is None
    assert sol.dtype == "float64"
    assert sol.sampled.blocks.dtype == sol.certificate.dual.dtype == np.float64


def test_jax_arrays_keep_their_dtype_and_survive():
    given = jnp.asarray(X, dtype=jnp.float32), jnp.asarray(Y, dtype=jnp.float32), jnp.asarray(WEIGHT, dtype=jnp.float32)
    before = [np.array(a) for a in given]
    sol = solve_sampled(given[0], given[1], beta=BETA, patterns=5, max_iter=30, sample_weight=given[2])
    assert sol.dtype == "float32"
    for array, old in zip(given, before, strict=True):
        assert not array.is_deleted()
        assert np.array_equal(array, old)
    prediction = sol.network.predict(given[0])
    assert isinstance(prediction, jax.Array)
    assert prediction.dtype == jnp.float32


@pytest.mark.parametrize("name", ["numpy", "jax"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_arrays_are_not_written_to(name, dtype):
    given = [a.astype(dtype) for a in (X, Y3, WEIGHT)] + [X @ RNG.standard_normal((4, 6)) >= 0]
    before = [a.copy() for a in given]
    for array in given:
        array.flags.writeable = False
    data, y, weight, patterns = given
    sol = solve_sampled(data, y, beta=BETA, patterns=patterns, sample_weight=weight, max_iter=60, backend=name)
    for array, old in zip(given, before, strict=True):
        assert np.array_equal(array, old)
    assert not any(np.shares_memory(sol.network.first_layer, array) for array in given)


def test_nothing_is_compiled_twice(caplog):
    """Other numbers of the same shapes: rows, columns, patterns, outputs and dtype are all that compilation may see."""
    shape = {"patterns": 11, "backend": "jax", "tol": 1e-14, "max_iter": 120}
    options = ({"linear_solver": "direct"}, {"linear_solver": "cg", "dtype": "float32"})
    for chosen in options:
        solve_sampled(X, Y, beta=BETA, **shape, **chosen)
    with jax.log_compiles(), caplog.at_level(logging.DEBUG, "jax"):
        jax.jit(lambda x: x + 1)(1.0)
        said = [record.getMessage() for record in caplog.records]
        assert any("ompil" in message for message in said)  # it would be seen
        caplog.clear()
        for chosen in options:
            solve_sampled(X[::-1] ** 3, Y - 1, beta=0.3, rho=5.0, seed=4, sample_weight=WEIGHT, **shape, **chosen)
    assert [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()] == []
