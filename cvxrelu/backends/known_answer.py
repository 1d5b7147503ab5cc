"""Each backend is asked questions with known answers before it is trusted: every method that the solver calls.

    products     F, F^T, G, G^T; and one so wide that a library takes its reduced precision for it, if that is on
    methods      spd_inverse, of a matrix that has none too; repeat and loops that end by their values; put, get, split
    the rest     factorisations, solves, reductions, orders, running sums, exponentials, the last digit of float64

Products are compared with dense ones of NumPy in float64, inverses and factors with what defines them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.backends.loops import while_loop

__all__ = ["known_answer"]

STEPS = 7  # of the loop that is asked for
WIDE = 256  # rows, columns and terms of the wide product: TF32 and its like are for large ones


def known_answer(backend: Backend, everything: bool | None = None) -> str | None:
    """None where all answers are right in both precisions, else what differs, and by how much.

    everything : False for products alone; None for that where questions are compiled on a CPU, which takes two
        seconds for all of them, and everything elsewhere.
    """
    if everything is None:
        everything = backend.name != "jax" or backend.is_accelerator
    with backend.scope():
        for question in (_asked_of_products, _asked_of_wide_products, *([_asked_of_methods] if everything else [])):
            for dtype in (np.float64, np.float32):
                for name, got, expected, tolerance in question(backend, dtype):
                    error = np.abs(got - expected).max() / np.abs(expected).max()
                    if got.dtype != dtype or not error <= tolerance:
                        digits = np.dtype(dtype)
                        return f"{name} in {digits} is off by {error:.1e} (relative), returned as {got.dtype}"
        return _lost_on_the_way(backend) if everything else None


Answers = Iterator[tuple[str, Any, Any, float]]  # name, what is computed, what it should be, tolerance


# -- products ---------------------------------------------------------------------------------------------------------
def _products(backend: Backend, X: Any, M: Any, U: Any, r: Any, s: Any) -> tuple[Any, ...]:
    """Masked products of every kind that the solver makes: F, F^T, G and G^T."""
    xp = backend.xp
    mask = xp.astype(M, X.dtype)
    signs = 2.0 * mask - 1.0
    half = xp.tensordot(xp.matrix_transpose(X), mask[:, None, :] * r[:, :, None], axes=1)
    inner = xp.tensordot(X, U, axes=1)  # (n, 2, c, P)
    return (
        xp.sum(mask[:, None, :] * (inner[:, 0, ...] - inner[:, 1, ...]), axis=-1),
        xp.stack([half, -half], axis=1),
        signs[:, None, None, :] * inner,
        xp.tensordot(xp.matrix_transpose(X), signs[:, None, None, :] * s, axes=1),
    )


def _asked_of_products(backend: Backend, dtype: Any) -> Answers:
    rng = np.random.default_rng(0)
    n, d, c, P = 37, 5, 2, 11
    X, U = rng.standard_normal((n, d)), rng.standard_normal((d, 2, c, P))
    r, s, M = rng.standard_normal((n, c)), rng.standard_normal((n, 2, c, P)), rng.random((n, P)) < 0.5
    E = np.where(M, 1.0, -1.0)
    half = np.einsum("nd,np,nc->dcp", X, M, r)
    expected = {
        "F": np.einsum("np,nd,dcp->nc", M, X, U[:, 0] - U[:, 1]),
        "F^T": np.stack([half, -half], axis=1),
        "G": np.einsum("np,nd,dscp->nscp", E, X, U),
        "G^T": np.einsum("nd,np,nscp->dscp", X, E, s),
    }
    found = backend.get(backend.compile(_products)(backend, *backend.put((X, M, U, r, s), dtype)))
    for (name, answer), result in zip(expected.items(), found, strict=True):
        yield name, result, answer, 1e-12 if dtype == np.float64 else 1e-5


# -- methods ----------------------------------------------------------------------------------------------------------
def _methods(backend: Backend, A: Any, B: Any, order: Any, steps: Any) -> tuple[Any, ...]:
    """What the solver takes from the backend and its library beside products; A is positive definite, B any matrix."""
    xp = backend.xp
    one = xp.ones((), dtype=A.dtype)
    identity = xp.eye(A.shape[0], dtype=A.dtype)
    values, vectors = xp.linalg.eigh(A)
    left, singular, right = xp.linalg.svd(B, full_matrices=False)
    basis, triangle = xp.linalg.qr(B, mode="reduced")
    small = one / (2.0 * xp.max(values))

    def goes_on(state: tuple[Any, Any]) -> Any:
        return xp.sum((A @ state[0] - identity) ** 2) > 1e-6

    def step(state: tuple[Any, Any]) -> tuple[Any, Any]:  # Newton's iteration for the inverse
        return state[0] @ (2.0 * identity - A @ state[0]), state[1] + 1

    inverse, count = while_loop(xp, goes_on, step, (small * identity, xp.zeros((), dtype=xp.int32)))
    sums = xp.stack([xp.sum(B, axis=0), xp.max(B, axis=0), xp.min(B, axis=0), xp.take(B, order, axis=0)[0, ...]])
    sorted_B = xp.take_along_axis(B, xp.argsort(B, axis=0), axis=0)
    return (
        A @ backend.spd_inverse(A),
        A @ inverse,
        backend.repeat(steps, lambda v: 0.5 * (A @ v), B),
        (vectors * values[None, :]) @ vectors.T,
        (left * singular[None, :]) @ right,
        basis @ triangle,
        A @ xp.linalg.solve(A, B),
        sums,
        sorted_B,
        xp.sort(xp.take_along_axis(B, backend.smallest(B, 4), axis=1), axis=1),
        xp.concat([xp.cumulative_sum(B, axis=0, include_initial=True)[-1:, ...], xp.flip(B, axis=0)]),
        xp.log1p(xp.exp(-xp.abs(B))),
        xp.astype(xp.isfinite(backend.spd_inverse(-A)), A.dtype),
        xp.astype(count, A.dtype),
    )


def _asked_of_methods(backend: Backend, dtype: Any) -> Answers:
    rng, exact = np.random.default_rng(1), dtype == np.float64
    B = rng.standard_normal((12, 6))
    A = B @ B.T / 6.0 + np.eye(12)
    order = rng.permutation(12)
    found = backend.get(backend.compile(_methods)(backend, *backend.put((A, B, order), dtype), STEPS))
    expected = {
        "spd_inverse": np.eye(12),
        "a loop that ends by its values": np.eye(12),
        "repeat": np.linalg.matrix_power(0.5 * A, STEPS) @ B,
        "eigh": A,
        "svd": B,
        "qr": B,
        "solve": B,
        "reductions and take": np.stack([B.sum(axis=0), B.max(axis=0), B.min(axis=0), B[order[0]]]),
        "argsort": np.sort(B, axis=0),
        "smallest": np.sort(B, axis=1)[:, :4],
        "running sums and flip": np.concatenate([B.sum(axis=0, keepdims=True), B[::-1]]),
        "exp and log1p": np.logaddexp(0.0, -np.abs(B)),
    }
    *results, finite, count = found
    for (name, answer), result in zip(expected.items(), results, strict=True):
        loose = 1e-3 if name.startswith("a loop") else 1e-12 if exact else 2e-5
        yield name, result, answer, loose
    # Of a matrix that is not positive definite NaN, at least in part: what is finite would be believed.
    yield "spd_inverse of what has none", finite.min(keepdims=True) + 1.0, np.ones(1), 0.0
    yield "the count of a loop", np.asarray(count > 0, dtype=dtype)[None], np.ones(1), 0.0


def _asked_of_wide_products(backend: Backend, dtype: Any) -> Answers:
    exact, wide = dtype == np.float64, np.random.default_rng(2).standard_normal((2, WIDE, WIDE))
    (product,) = backend.get((backend.compile(_product)(backend, *backend.put(tuple(wide), dtype)),))
    yield "a wide product", product, wide[0] @ wide[1], 1e-13 if exact else 1e-5
    if exact:
        unit = float(np.finfo(np.float64).eps)
        digits = backend.compile(_last_digit)(backend, backend.put(np.array([1.0, unit, 1e200])))
        yield "the last digit", backend.get(digits), np.array([1.0, 1.0]), 0.0


def _product(backend: Backend, one: Any, two: Any) -> Any:
    return one @ two


def _last_digit(backend: Backend, numbers: Any) -> Any:
    """(1 + eps) - 1 over eps, and 1e200 1e100 / 1e200 over 1e100: 1 where float64 is that of IEEE 754."""
    one, unit, large = numbers[0], numbers[1], numbers[2]
    return backend.xp.stack([((one + unit) - one) / unit, (large * 1e100) / large / 1e100])


# -- copies -----------------------------------------------------------------------------------------------------------
def _lost_on_the_way(backend: Backend) -> str | None:
    """None where put, split and get return what was put, kinds and shapes of all arrays included."""
    kinds = (np.arange(6.0), np.arange(6, dtype=np.float32)[None, :], np.arange(6) % 2 == 0, np.arange(6) - 3)
    given = (*kinds, (np.asarray(2.5), None))
    for axis in (None, -1):
        there = backend.put(given[:4], split=axis, rows=0)
        there = (*(backend.split(array, -1, 0) for array in there), backend.put(given[4]))
        found = backend.get(backend.block(there))
        pairs = [*zip(found[:4], given[:4], strict=True), (found[4][0], given[4][0])]
        for got, sent in pairs:
            if got.dtype != sent.dtype or got.shape != sent.shape or not np.array_equal(got, sent):
                return f"put and get of {sent.dtype} {sent.shape} return {got.dtype} {got.shape}: {got}"
        if found[4][1] is not None:
            return f"put and get of None return {found[4][1]!r}"
    return None
