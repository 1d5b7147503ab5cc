"""The methods of `solve_logistic` between two checks: chunks of accelerated gradient, epochs of SVRG and of AdamW.

A stepper holds an algorithm of `agd` and its state. `advance` moves on and returns (theta, iterations, passes);
`restart` continues from another point. Iterations are steps of accelerated gradient, or epochs.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.last_layer import first_order as agd
from cvxrelu.last_layer.program import Program, largest_eigenvalue
from cvxrelu.last_layer.rows import Rows

__all__ = ["STEPPERS", "Position", "Setting"]


class Setting(NamedTuple):
    """What a stepper is made from. `inner`: all rows on the device in float64, in the coordinates of the steps."""

    backend: Backend
    dtype: np.dtype
    rows: Rows
    inner: Program | None
    scalars: tuple[np.ndarray, np.ndarray]  # scale, l2
    unknowns: int
    options: dict[str, Any]


class Position(NamedTuple):
    """Where the last check was made, and what may still be spent."""

    theta: Float[np.ndarray, "d 1"]
    slope: Float[np.ndarray, "d 1"]
    gap: float
    iterations: int
    deadline: float


class Accelerated:
    """Accelerated gradient in the working precision: ten steps at first, ever more between checks."""

    passes = 0  # over the data, made in preparation

    def __init__(self, setting: Setting) -> None:
        backend, self.dtype, options, inner = setting.backend, setting.dtype, setting.options, setting.inner
        assert inner is not None  # `read_rows` keeps streamed rows away from this method
        self.backend = backend
        top = 0.25 * options["scale"] ** 2 * largest_eigenvalue(backend, inner, options["seed"])
        working = getattr(backend.xp, self.dtype.name)

        def cast(array: Any) -> Any:
            return backend.xp.astype(array, working, copy=False)

        self.program = Program(
            cast(inner.A), type(inner.loss)(*map(cast, inner.loss)), cast(inner.scale), cast(inner.l2)
        )
        L = (top + options["l2"]) * (1.0 + 4.0 * float(np.finfo(self.dtype).eps))  # still above when it is rounded
        constants = (np.asarray(L), np.asarray(options["l2"] / L), np.asarray(options["finish"]))
        self.constants = agd.Smoothness(*backend.put(constants, self.dtype))
        self.steps = 0
        self.restart(np.zeros((setting.unknowns, 1)))

    def restart(self, theta: Float[np.ndarray, "d 1"]) -> None:
        self.state = agd.AGD.init(self.backend.put(theta, self.dtype))

    def advance(self, position: Position) -> tuple[Float[np.ndarray, "d 1"], int, int]:
        chunk = min(10 + self.steps // 4, 200, position.iterations)
        compiled = self.backend.compile(agd.run_chunk, static=("algorithm",))
        self.state = compiled(self.backend, self.program, self.constants, self.state, chunk, algorithm=agd.AGD)
        self.steps += chunk
        return self.backend.get(self.state.theta).astype(np.float64), chunk, chunk


class Stochastic:
    """What the stochastic methods share: epochs over batches, each put on the device in the working precision."""

    algorithm: agd.Algorithm
    passes = 0

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.rng = np.random.default_rng([setting.options["seed"], 3])
        # Contiguous batches of sorted rows would all be of one class. On disk, rows are read as they lie.
        self.shuffle = None if setting.rows.streamed else self.rng.permutation(setting.rows.shape[0])
        self.restart(np.zeros((setting.unknowns, 1)))

    def restart(self, theta: Float[np.ndarray, "d 1"]) -> None:
        self.state = self.algorithm.init(self.setting.backend.put(theta, self.setting.dtype))

    def epochs(self, most: int, position: Position, constants: Any) -> tuple[Float[np.ndarray, "d 1"], int, int]:
        """Up to `most` epochs with these constants; the last may be the one in which the time limit passes."""
        backend, dtype, rows = self.setting.backend, self.setting.dtype, self.setting.rows
        step = backend.compile(agd.run_chunk, static=("algorithm",))
        constants, done = backend.put(constants, dtype), 0
        while done < min(most, position.iterations) and (done == 0 or time.perf_counter() < position.deadline):
            for A, loss in rows.batches(self.order(), self.shuffle):
                batch = Program(*backend.put((A, loss, *self.setting.scalars), dtype))
                self.state = step(backend, batch, constants, self.state, 1, algorithm=self.algorithm)
            done += 1
        return backend.get(self.state.theta).astype(np.float64), done, done

    def order(self) -> np.ndarray:
        """Which batches an epoch takes."""
        raise NotImplementedError


class VarianceReduced(Stochastic):
    """SVRG. The full gradient is the one the last check took, so that a snapshot costs nothing more."""

    algorithm = agd.SVRG
    passes = 1

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        backend, options = setting.backend, setting.options
        tops = [
            largest_eigenvalue(backend, Program(*backend.put((A, loss, *setting.scalars))), options["seed"])
            for A, loss in setting.rows.batches(shuffle=self.shuffle)
        ]
        self.count = len(tops)
        self.step = 1.0 / (4.0 * (0.25 * options["scale"] ** 2 * self.count * max(tops) + options["l2"]))
        self.length, self.last_gap = 1, np.inf

    def advance(self, position: Position) -> tuple[Float[np.ndarray, "d 1"], int, int]:
        if position.gap > 0.5 * self.last_gap:
            self.length = min(2 * self.length, 64)
        self.last_gap = position.gap
        constants = (position.theta, position.slope, np.asarray(self.step), np.asarray(float(self.count)))
        return self.epochs(self.length, position, agd.Snapshot(*constants))

    def order(self) -> np.ndarray:
        return self.rng.integers(self.count, size=self.count)


class AdamW(Stochastic):
    """AdamW, checked ever more rarely."""

    algorithm = agd.ADAMW

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        rate, share = setting.options["learning_rate"], 1.0 / setting.rows.shape[0]
        self.constants = agd.Rate(np.asarray(rate), np.asarray(share))
        self.made = 0

    def advance(self, position: Position) -> tuple[Float[np.ndarray, "d 1"], int, int]:
        theta, epochs, passes = self.epochs(1 + self.made // 5, position, self.constants)
        self.made += epochs
        return theta, epochs, passes

    def order(self) -> np.ndarray:
        return self.rng.permutation(self.setting.rows.n_batches)


STEPPERS: dict[str, Any] = {"agd": Accelerated, "svrg": VarianceReduced, "adamw": AdamW}
