"""The group soft threshold: its optimality condition, exact zeros, and the inequality of a proximal map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import make_backend, rounding

from cvxrelu.numerics.proximal import block_norms, group_soft_threshold

entries = st.floats(-1e3, 1e3).map(lambda v: 0.0 if abs(v) < 1e-6 else v)
points = arrays(np.float64, st.tuples(st.integers(1, 4), st.just(2), st.integers(1, 3)), elements=entries)
thresholds = st.sampled_from([0.0, 1e-3, 1.0, 10.0, 1e4])


@given(points, thresholds)
def test_optimality(U, tau):
    """0 is in tau d|w| + w - u: w = u - tau w / |w|, or w = 0 and |u| <= tau."""
    W = group_soft_threshold(U, tau)
    for u, w in zip(np.moveaxis(U, 0, -1).reshape(-1, len(U)), np.moveaxis(W, 0, -1).reshape(-1, len(U)), strict=True):
        length = np.linalg.norm(w)
        if length == 0:
            assert np.linalg.norm(u) <= tau * (1 + 1e-14)
        else:
            np.testing.assert_allclose(w + tau * w / length, u, rtol=1e-9, atol=1e-9)


@given(points.flatmap(lambda U: st.tuples(st.just(U), arrays(np.float64, U.shape, elements=entries))), thresholds)
def test_firmly_nonexpansive(pair, tau):
    difference = group_soft_threshold(pair[0], tau) - group_soft_threshold(pair[1], tau)
    apart = pair[0] - pair[1]
    products = np.sum(difference * apart, axis=0)
    assert np.all(np.sum(difference**2, axis=0) <= products + 1e-10 * (1 + np.sum(apart**2, axis=0)))


def test_zero_exactly_at_the_threshold():
    u = np.array([[3.0, -3.0], [4.0, 4.0]])
    np.testing.assert_array_equal(block_norms(u), [5.0, 5.0])
    assert not group_soft_threshold(u, 5.0).any()
    assert not group_soft_threshold(u, np.nextafter(5.0, 6.0)).any()
    below = group_soft_threshold(u, np.nextafter(5.0, 4.0))
    assert below.any(axis=0).all() and np.abs(below).max() < 1e-14
    np.testing.assert_array_equal(group_soft_threshold(u, 0.0), u)
    assert not group_soft_threshold(np.zeros((2, 3)), 0.0).any()


@pytest.mark.parametrize("name", ["numpy", "jax", "strict"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_backend(name, dtype):
    backend = make_backend(name)
    U = np.random.default_rng(0).standard_normal((3, 2, 2, 5)).astype(dtype)
    U[..., 0] = 0.0
    with backend.scope():
        for tau in (0.0, 1.5):
            W = backend.get(group_soft_threshold(*backend.put((U, np.asarray(tau)), dtype)))
            assert W.dtype == dtype and np.isfinite(W).all()
            lengths = np.sqrt(np.einsum("dscp,dscp->scp", U, U))
            factor = np.array([[[max(0.0, 1 - tau / v) if v > 0 else 0.0 for v in a] for a in b] for b in lengths])
            np.testing.assert_allclose(W, U * factor, rtol=rounding(dtype), atol=rounding(dtype))


@settings(max_examples=25)
@given(st.integers(0, 10**6), thresholds)
def test_blocks_do_not_see_each_other_nor_rotations(seed, tau):
    rng = np.random.default_rng(seed)
    U = 5 * rng.standard_normal((3, 2, 4))
    W = group_soft_threshold(U, tau)
    np.testing.assert_array_equal(W[..., 2], group_soft_threshold(U[..., 2], tau))
    Q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    np.testing.assert_allclose(
        np.tensordot(Q, W, axes=1), group_soft_threshold(np.tensordot(Q, U, axes=1), tau), atol=1e-9
    )
