"""Activation patterns: sampling, complete enumeration up to rank 3, realisability, and the `patterns` option."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxrelu.program.arrangement import count_patterns, enumerate_patterns
from cvxrelu.program.patterns import Patterns, as_patterns, check_realisable, sample_patterns


def keys(M):
    return {column.tobytes() for column in np.asarray(M).T}


def low_rank(rng, n, d, r):
    return rng.standard_normal((n, r)) @ rng.standard_normal((r, d))


def by_recursion(X):
    """The patterns of full-dimensional cells, one row after another: those prefixes a linear program finds feasible.

    Strict on both sides: x @ u <= -1 or x @ u >= 1, by `check_realisable`'s solver but none of its code.
    """
    from scipy.optimize import linprog

    found = [()]
    for i, row in enumerate(X):
        longer = []
        for pattern in found:
            for active in (False, True):
                if not row.any():
                    if active:
                        longer.append((*pattern, True))
                    continue
                used = [k for k in range(i + 1) if X[k].any()]
                signs = np.where([(*pattern, active)[k] for k in used], 1.0, -1.0)
                A = -signs[:, None] * X[used]
                answer = linprog(np.zeros(X.shape[1]), A_ub=A, b_ub=-np.ones(len(used)), bounds=(None, None))
                if answer.status == 0:
                    longer.append((*pattern, active))
        found = longer
    return {np.array(pattern).tobytes() for pattern in found}


def assert_sound(X, found):
    assert found.patterns.dtype == bool and found.patterns.shape == (len(X), found.gates.shape[1])
    assert found.gates.dtype == np.float64 and found.gates.shape[0] == X.shape[1]
    assert len(keys(found.patterns)) == found.patterns.shape[1], "patterns repeat"
    np.testing.assert_array_equal(X @ found.gates >= 0, found.patterns)


@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 30])
def test_the_count_in_general_position(n, r):
    rng = np.random.default_rng(10 * n + r)
    for d in (r, r + 4):
        X = low_rank(rng, n, d, r)
        found = enumerate_patterns(X)
        assert found.patterns.shape[1] == count_patterns(n, min(n, r))
        assert_sound(X, found)


@pytest.mark.parametrize(("n", "r"), [(1000, 2), (120, 3)])
def test_larger_arrangements(n, r):
    X = low_rank(np.random.default_rng(0), n, r, r)
    found = enumerate_patterns(X)
    assert found.patterns.shape[1] == count_patterns(n, r)
    assert_sound(X, found)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_what_a_million_gates_find_is_enumerated(r):
    rng = np.random.default_rng(r)
    X = low_rank(rng, 8, r, r)
    X = np.vstack([X, X[0], -3.0 * X[1], np.zeros(r), X[0] + X[2]])
    found = enumerate_patterns(X)
    assert_sound(X, found)
    sampled = keys(X @ rng.standard_normal((r, 1_000_000)) >= 0)
    assert sampled == keys(found.patterns)


entries = st.integers(-2, 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3).flatmap(lambda d: st.lists(st.tuples(*[entries] * d), min_size=1, max_size=7)))
def test_degenerate_rows_agree_with_linear_programs(rows):
    X = np.array(rows, dtype=float)
    found = enumerate_patterns(X)
    assert_sound(X, found)
    assert keys(found.patterns) == by_recursion(X)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(0, 10_000))
def test_gates_reproduce_patterns_and_sampling_finds_a_subset(r, n, seed):
    rng = np.random.default_rng(seed)
    X = low_rank(rng, n, r + int(rng.integers(3)), r)
    X = X[rng.integers(n, size=n + 2)] * rng.choice([-2.0, 0.0, 1.0, 1e-3], size=(n + 2, 1))
    found, sampled = enumerate_patterns(X), sample_patterns(X, 40, seed)
    assert_sound(X, found)
    assert_sound(X, sampled)
    assert keys(sampled.patterns) <= keys(found.patterns)
    assert check_realisable(X, found.patterns).all()


def test_antipodal_cells_come_together():
    X = np.random.default_rng(3).standard_normal((15, 3))
    found = enumerate_patterns(X)
    assert keys(found.patterns) == keys(~found.patterns)


def test_a_pencil_and_a_grid():
    pencil = np.vstack([np.c_[np.cos(np.arange(9)), np.sin(np.arange(9)), np.zeros(9)], [[0.0, 0.0, 1.0]]])
    assert enumerate_patterns(pencil).patterns.shape[1] == 2 * 18
    assert enumerate_patterns(np.eye(3)).patterns.shape[1] == 8
    braid = np.array([[1.0, -1, 0, 0], [1, 0, -1, 0], [1, 0, 0, -1], [0, 1, -1, 0], [0, 1, 0, -1], [0, 0, 1, -1]])
    assert enumerate_patterns(braid).patterns.shape[1] == 24  # the orders of four numbers
    cube = np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=3)))
    found = enumerate_patterns(cube)
    assert_sound(cube, found)
    assert found.patterns.shape[1] == 96  # mirrors of the cube (48 chambers), and the four planes across its diagonals


def test_units_do_not_matter():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((12, 3))
    scaled = rng.uniform(0.1, 10, (12, 1)) * X * [1e-9, 1.0, 1e9]
    assert keys(enumerate_patterns(X).patterns) == keys(enumerate_patterns(scaled).patterns)
    assert_sound(scaled, enumerate_patterns(scaled))


def test_rows_that_are_zero_are_always_active():
    found = enumerate_patterns(np.zeros((3, 2)))
    assert found.patterns.tolist() == [[True]] * 3 and found.gates.shape == (2, 1)
    found = enumerate_patterns(np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert sorted(map(tuple, found.patterns.T.tolist())) == [(True, False), (True, True)]


def test_enumeration_refuses_rank_limit_and_hopeless_input():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"rank 4; .*sample_patterns"):
        enumerate_patterns(rng.standard_normal((10, 4)))
    for r in (1, 2, 3):
        X = low_rank(rng, 10, 4, r)
        count = enumerate_patterns(X).patterns.shape[1]
        assert enumerate_patterns(X, limit=count).patterns.shape[1] == count
        with pytest.raises(ValueError, match=rf"limit = {count - 1} patterns"):
            enumerate_patterns(X, limit=count - 1)
    X = rng.standard_normal((6, 2))
    with pytest.raises(ValueError, match="float64 cannot tell"):
        enumerate_patterns(np.c_[X, X.sum(axis=1) + 1e-14 * rng.standard_normal(6)])


def test_rows_that_nearly_agree_are_told_apart_until_they_count_as_parallel():
    rng = np.random.default_rng(0)
    X, near = rng.standard_normal((6, 3)), rng.standard_normal((4, 3))
    for size in (1e-3, 1e-6, 1e-9):
        found = enumerate_patterns(np.vstack([X, X[0] + size * near]))
        assert found.patterns.shape[1] == count_patterns(10, 3)
        assert_sound(np.vstack([X, X[0] + size * near]), found)
    assert enumerate_patterns(np.vstack([X, X[0] + 1e-12 * near])).patterns.shape[1] == count_patterns(6, 3)


def test_the_closed_formula():
    assert [count_patterns(1, r) for r in (1, 2, 3)] == [2, 2, 2]
    assert count_patterns(7, 1) == 2 and count_patterns(7, 2) == 14 and count_patterns(7, 3) == 44
    assert count_patterns(5, 5) == 2**5
    for n, r in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            count_patterns(n, r)


def test_sampling_is_the_definition():
    X = np.random.default_rng(5).standard_normal((4, 3))
    G = np.random.default_rng(11).standard_normal((3, 60))
    expected = []
    for j in range(60):
        column = X @ G[:, j] >= 0
        if column.any() and not any(np.array_equal(column, X @ g >= 0) for g in expected):
            expected.append(G[:, j])
    found = sample_patterns(X, 60, 11)
    np.testing.assert_array_equal(found.gates, np.array(expected).T)
    assert_sound(X, found)
    again = sample_patterns(X.tolist(), np.int64(60), np.random.default_rng(11))
    np.testing.assert_array_equal(again.gates, found.gates)
    assert not np.array_equal(sample_patterns(X, 60).gates[:, 0], found.gates[:, 0])


def test_sampling_can_find_nothing():
    empty = [found for seed in range(20) if (found := sample_patterns([[1.0]], 1, seed)).patterns.shape[1] == 0]
    assert 0 < len(empty) < 20
    assert empty[0].patterns.shape == (1, 0) and empty[0].gates.shape == (1, 0)


@pytest.mark.parametrize(("P", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError)])
def test_sampling_refuses(P, error):
    with pytest.raises(error, match=r"^P is "):
        sample_patterns(np.ones((2, 2)), P)


@pytest.mark.parametrize("call", [lambda X: sample_patterns(X, 3), enumerate_patterns, lambda X: as_patterns(3, X)])
@pytest.mark.parametrize(
    ("X", "error"),
    [
        (np.ones(3), ValueError),
        (np.ones((0, 3)), ValueError),
        (np.ones((3, 0)), ValueError),
        (np.array([[1.0, np.nan]]), ValueError),
        (np.ones((2, 2), dtype=complex), TypeError),
        (np.ones((2, 2), dtype=object), TypeError),
    ],
)
def test_bad_data_is_refused(call, X, error):
    with pytest.raises(error, match=r"^X "):
        call(X)


def test_realisable_is_what_enumeration_says():
    rng = np.random.default_rng(6)
    X = rng.standard_normal((5, 3))
    every = np.array(list(itertools.product([False, True], repeat=5))).T
    known = keys(enumerate_patterns(X).patterns)
    expected = [column.tobytes() in known for column in every.T]
    got = check_realisable(X, every)
    assert got.dtype == bool and got.tolist() == expected and 0 < sum(expected) < 32
    assert check_realisable(1e-8 * X, every).tolist() == expected


def test_realisable_counts_boundaries_and_zero_rows():
    X = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    M = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0]], dtype=bool).T
    assert check_realisable(X, M).tolist() == [True, True, False, False]  # by u = 0 and u = (0, -1)
    assert check_realisable(X, np.zeros((4, 0), dtype=bool)).shape == (0,)
    with pytest.raises(ValueError, match=r"^M has dtype"):
        check_realisable(X, M.astype(int))
    with pytest.raises(ValueError, match=r"^M has dtype"):
        check_realisable(X, M[:3])


X5 = np.random.default_rng(7).standard_normal((5, 2))


def test_as_patterns_samples():
    got, requested = as_patterns(np.int32(20), X5, seed=3)
    assert requested == 20 and isinstance(got, Patterns)
    np.testing.assert_array_equal(got.gates, sample_patterns(X5, 20, 3).gates)


def test_as_patterns_takes_patterns_gates_and_pairs():
    gates = enumerate_patterns(X5).gates[:, [0, 1, 0, 2, 1, 3]]
    M = X5 @ gates >= 0
    for check in (False, True):
        given_gates, requested = as_patterns(gates, X5, check_patterns=check)
        assert requested == 6
        np.testing.assert_array_equal(given_gates.gates, gates[:, [0, 1, 3, 5]])
        np.testing.assert_array_equal(given_gates.patterns, M[:, [0, 1, 3, 5]])
        for pair in ((M, gates), Patterns(M, gates)):
            both, requested = as_patterns(pair, X5, check_patterns=check)
            assert requested == 6
            np.testing.assert_array_equal(both.gates, gates[:, [0, 1, 3, 5]])
            np.testing.assert_array_equal(both.patterns, M[:, [0, 1, 3, 5]])
        for alone in (M, (M, None), M.tolist()):
            bare, requested = as_patterns(alone, X5, check_patterns=check)
            assert requested == 6 and bare.gates is None
            np.testing.assert_array_equal(bare.patterns, M[:, [0, 1, 3, 5]])


def test_as_patterns_can_check_that_a_gate_exists():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    M = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1]], dtype=bool).T
    as_patterns(M, X)
    with pytest.raises(ValueError, match=r"patterns has 2 of 4 columns .* the first is 1"):
        as_patterns(M, X, check_patterns=True)
    as_patterns(M[:, [0, 3]], X, check_patterns=True)


GATES = np.ones((2, 3))
ACTIVE = X5 @ GATES >= 0


@pytest.mark.parametrize(
    ("patterns", "error", "message"),
    [
        (0, ValueError, "patterns is 0; expected an integer P >= 1"),
        (True, TypeError, "patterns is True"),
        (None, TypeError, "patterns is None"),
        ("many", TypeError, "patterns holds a str of dtype"),
        (2.5, ValueError, r"gates of dtype float64 and shape \(\)"),
        (np.ones((5, 2), dtype=int), TypeError, "patterns holds a ndarray of dtype int64"),
        (ACTIVE[:4], ValueError, r"bool array of shape \(4, 3\); .*bool \(5, P\)"),
        (ACTIVE[:, :0], ValueError, r"bool array of shape \(5, 0\)"),
        (ACTIVE[:, 0], ValueError, r"bool array of shape \(5,\)"),
        (np.ones((3, 2)), ValueError, r"gates of dtype float64 and shape \(3, 2\); .*float \(2, P\)"),
        (np.full((2, 2), np.nan), ValueError, "gates with NaN or infinity"),
        ((ACTIVE,), ValueError, "patterns is a tuple of 1"),
        ((GATES, ACTIVE), TypeError, "patterns has dtype float64"),
        ((ACTIVE, GATES[:, :2]), ValueError, "3 patterns but 2 gates"),
        ((ACTIVE, ACTIVE), ValueError, "gates of dtype bool"),
        ((ACTIVE, -GATES), ValueError, "differs from .* in 3 columns, the first is 0"),
        ([[True], [True, False]], TypeError, "patterns holds a list"),
    ],
)
def test_as_patterns_refuses(patterns, error, message):
    with pytest.raises(error, match=message):
        as_patterns(patterns, X5)
