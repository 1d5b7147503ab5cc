"""ADMM on a planted problem, set up to be stepped and timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.common.problems import Planted, planted
from bench.common.report import timed
from cvxrelu.backends import Backend
from cvxrelu.numerics.row_space import right_singular_basis
from cvxrelu.program.losses import Squared
from cvxrelu.sampled import admm
from cvxrelu.sampled.data_term import Reading
from cvxrelu.sampled.linear_systems import DirectGram
from cvxrelu.sampled.penalties import initial_penalties

__all__ = ["Bench"]


CHUNK = 25  # as in a solve


class Bench:
    """A planted problem on a backend, ready to be stepped.

    stand_in : a multiple of the identity for the (n, n) inverse, which takes as long to multiply with and costs nothing
        to make: for timing only. problem : that of the size, where it has been made already.
    """

    def __init__(
        self,
        backend: Backend,
        size: tuple[int, int, int],
        dtype: str = "float64",
        *,
        method: str = "gram",
        stand_in: bool = False,
        problem: Planted | None = None,
    ) -> None:
        problem = planted(*size) if problem is None else problem
        self.backend, self.method, self.stand_in = backend, method, stand_in
        n, self.size = size[0], size
        loss = Squared(problem.y[:, None], np.ones((n, 1)))
        with backend.scope():
            whole = backend.put(problem.X, "float64")
            basis, eigenvalues = right_singular_basis(whole, backend.xp)
            self.rho_values = initial_penalties(None, backend.get(eigenvalues), 1.0)
            X, eigenvalues = (backend.xp.astype(a, getattr(backend.xp, dtype)) for a in (whole @ basis, eigenvalues))
            patterns, loss, beta = backend.put((problem.patterns, loss, np.asarray(problem.beta)), dtype)
            del whole
            self.data = admm.prepare(backend, X, eigenvalues, patterns, loss, beta)
            self.rho = admm.Penalties(*backend.put(tuple(np.asarray(r) for r in self.rho_values), dtype))
            self.landmarks = backend.put(np.linspace(0, n - 1, min(n, 128)).astype(int))
            self.state = admm.initial_state(self.data)
            self.build()

    def build(self) -> None:
        if self.stand_in:
            xp, X = self.backend.xp, self.data.X
            h = self.rho.copy + self.rho.cone * self.data.eigenvalues
            inverse = 0.5 * xp.eye(X.shape[0], dtype=X.dtype)
            self.system = DirectGram(h, Reading.make(self.data.curvature, None, None), inverse)
            return
        system = admm.make_system(self.backend, self.data, self.rho, self.landmarks, self.method)
        self.system = self.backend.block(system)

    def chunk(self, steps: int = CHUNK) -> None:
        run = self.backend.compile(admm.run_chunk)
        self.state, _ = self.backend.block(run(self.backend, self.data, self.system, self.rho, self.state, steps))

    def in_scope(self, fn: Callable[[], Any], **options: Any) -> list[float]:
        with self.backend.scope():
            return timed(fn, **options)

    @property
    def flops(self) -> float:
        """Useful flops of one iteration."""
        return 12.0 * self.size[0] * self.size[1] * self.data.patterns.shape[1]
