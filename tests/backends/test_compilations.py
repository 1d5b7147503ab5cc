"""A second solve of the same shapes compiles nothing, and a search whose widths change from round to round compiles for
few of them. Every compilation of JAX reports its duration to `jax.monitoring`: here they are counted."""

import jax
import numpy as np
import pytest

import cvxrelu
from cvxrelu.backends.choose import get_backend

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 5))
OTHER = RNG.standard_normal((50, 5))
Y = np.abs(X[:, 0]) - X[:, 1]
compiled: list[str] = []


def note(event: str, duration: float, **names: object) -> None:
    if event.startswith("/jax/core/compile/"):
        compiled.append(event)


@pytest.fixture(scope="module", autouse=True)
def listening():
    jax.monitoring.register_event_duration_secs_listener(note)
    yield
    compiled.clear()


def compilations_of(fn) -> int:
    """Traces, lowerings and compilations during the call."""
    compiled.clear()
    fn()
    return len(compiled)


def test_a_compilation_is_seen():
    numbers = jax.numpy.ones(3)
    double = jax.jit(lambda x: 2 * x)
    assert compilations_of(lambda: double(numbers)) > 0
    assert compilations_of(lambda: double(numbers)) == 0
    assert compilations_of(lambda: double(jax.numpy.ones(4))) > 0


def test_sampled_program():
    """Of ADMM's two u-steps one; `test_backends.py` has both, and both precisions."""
    gates = np.random.default_rng(1).standard_normal((5, 8))

    def solve(X: np.ndarray, beta: float, steps: int) -> None:
        sol = cvxrelu.solve(
            X, Y, beta=beta, patterns=gates, refine=False, backend="jax", linear_solver="direct", max_iter=steps,
            tol=1e-14, certificate="relaxed", check_patterns=False,
        )  # fmt: skip
        assert sol.sampled.patterns.shape == (50, 8)

    assert compilations_of(lambda: solve(X, 0.5, 100)) > 0
    assert compilations_of(lambda: solve(OTHER, 0.2, 120)) == 0


def test_refinement():
    def solve() -> None:
        assert cvxrelu.solve(X, Y, beta=0.5, backend="jax", tol=1e-2, seed=1).success

    assert compilations_of(solve) > 0
    assert compilations_of(solve) == 0


def test_last_layer():
    def solve(A: np.ndarray, l2: float) -> None:
        labels = np.where(A[:, 0] + 0.1 > 0, 1.0, -1.0)
        assert cvxrelu.solve_logistic(A, labels, l2=l2, backend="jax", tol=1e-6).success

    assert compilations_of(lambda: solve(X, 0.5)) > 0
    assert compilations_of(lambda: solve(OTHER, 0.5)) == 0


def test_widths_are_few():
    """Numbers of neurons, starts and directions change all the time: they are padded by at most a half."""
    padded = get_backend("jax").padded
    sizes = np.arange(1, 3000)
    found = np.array([padded(int(size)) for size in sizes])
    assert (found >= sizes).all()
    assert (found[15:] <= 1.5 * sizes[15:]).all()
    assert (np.diff(found) >= 0).all()
    assert len(set(found)) <= 18
