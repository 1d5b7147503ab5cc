"""Micro-benchmarks of the operators, the proximal map and the u-step: `pytest bench/micro` (pytest-benchmark).

Not part of `make test`: they time, they do not judge.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.common.planted_admm import Bench
from bench.common.problems import planted
from cvxrelu.backends import Backend
from cvxrelu.backends.choose import get_backend
from cvxrelu.numerics.proximal import group_soft_threshold
from cvxrelu.program import operators
from cvxrelu.sampled.linear_systems import solve_blocks

SIZE = (1000, 20, 100)


@pytest.fixture(params=["numpy", "jax"])
def backend(request):
    chosen = get_backend(request.param)
    with chosen.scope():
        yield chosen


def inputs(backend: Backend):
    problem = planted(*SIZE)
    (n, d), P = problem.X.shape, problem.patterns.shape[1]
    rng = np.random.default_rng(0)
    U, r, s = rng.standard_normal((d, 2, 1, P)), rng.standard_normal((n, 1)), rng.standard_normal((n, 2, 1, P))
    return backend.put((problem.X, problem.patterns, U, r, s), np.float64)


def F(backend, X, M, U, r, s):
    return operators.F(X, M, U)


def F_adjoint(backend, X, M, U, r, s):
    return operators.F_adjoint(X, M, r)


def G(backend, X, M, U, r, s):
    return operators.G(X, M, U)


def G_adjoint(backend, X, M, U, r, s):
    return operators.G_adjoint(X, M, s)


def prox(backend, X, M, U, r, s):
    return group_soft_threshold(U, 1.0)


@pytest.mark.parametrize("function", [F, F_adjoint, G, G_adjoint, prox], ids=lambda f: f.__name__)
def test_operators_and_prox(benchmark, backend, function):
    arrays, compiled = inputs(backend), backend.compile(function)
    backend.block(compiled(backend, *arrays))
    benchmark.group = function.__name__
    benchmark(lambda: backend.block(compiled(backend, *arrays)))


def u_step(backend, system, data, rhs, warm):
    return solve_blocks(backend, system, data.X, data.patterns, rhs, warm, 1e-6)


@pytest.mark.parametrize("method", ["gram", "primal", "cg"])
def test_u_step(benchmark, backend, method):
    bench = Bench(backend, (1000, 20, 20) if method == "primal" else SIZE, method=method)
    rng = np.random.default_rng(0)
    rhs = backend.put(rng.standard_normal(bench.state.x.shape), np.float64)
    arguments, compiled = (backend, bench.system, bench.data, rhs, bench.state.warm), backend.compile(u_step)
    backend.block(compiled(*arguments))
    benchmark.group = f"u-step {method}"
    benchmark(lambda: backend.block(compiled(*arguments)))
