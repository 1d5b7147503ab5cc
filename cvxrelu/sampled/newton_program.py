"""The sampled program as the Newton method sees it: data, loss, readout and skip of outputs that are solved together.

    minimise over U, z   loss(R F U + C z) + l2/2 |z|^2 + beta sum_b |u_b|,   u_b in its cone

With P patterns and c outputs there are B = 2 P c blocks: for every output P of v, then P of z, which count negatively.
Host NumPy in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.program.dual import Ridge, sampled_bound
from cvxrelu.program.loss import Loss
from cvxrelu.program.readout import Pairs, adjoint, read

__all__ = ["NewtonProgram"]


class NewtonProgram(NamedTuple):
    """X (n, d); masks, the patterns as numbers; the loss of m rows and c outputs; a penalised skip, or None."""

    X: Float[np.ndarray, "n d"]
    masks: Float[np.ndarray, "n P"]
    loss: Loss
    beta: float
    readout: Pairs | None = None
    ridge: Ridge | None = None

    @property
    def sides(self) -> int:
        """Blocks of every pattern: 2 c."""
        return 2 * self.loss.y.shape[1]

    @property
    def n_blocks(self) -> int:
        return self.sides * self.masks.shape[1]

    def place(self, blocks: Int[np.ndarray, " b"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(pattern, output, sign) of blocks."""
        P = self.masks.shape[1]
        side = blocks // P
        return blocks % P, side // 2, np.where(side % 2 == 0, 1.0, -1.0)

    def pull(self, t: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "d B"]:
        """F^T R^T t."""
        halves = [self.X.T @ (self.masks * p[:, None]) for p in adjoint(self.readout, t).T]
        return np.hstack([signed for half in halves for signed in (half, -half)])

    def neurons(self, blocks: Float[np.ndarray, "d B"]) -> Float[np.ndarray, "m c"]:
        """R F U."""
        used = np.flatnonzero(blocks.any(axis=0))
        pattern, output, sign = self.place(used)
        terms = (self.X @ blocks[:, used]) * (self.masks[:, pattern] * sign)
        c = self.loss.y.shape[1]
        sums = [terms.sum(axis=1)] if c == 1 else [terms[:, output == k].sum(axis=1) for k in range(c)]
        return read(self.readout, np.stack(sums, axis=1))

    def skip(self, t: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "k c"] | None:
        """The z of the dual variable t: C^T t / l2. None without a skip."""
        return None if self.ridge is None else self.ridge.columns.T @ t / self.ridge.l2

    def skip_part(self, z: Float[np.ndarray, "k c"] | None) -> Float[np.ndarray, "m c"] | float:
        """C z."""
        return 0.0 if self.ridge is None else self.ridge.columns @ z

    def objective(self, neurons: np.ndarray, z: np.ndarray | None, lengths: float) -> float:
        """Of neurons' outputs R F U, a skip, and the sum of the blocks' lengths."""
        value = float(self.loss.value(neurons + self.skip_part(z))) + self.beta * lengths
        return value if self.ridge is None else value + float(self.ridge.penalty(z))

    def best_multiple(self, neurons: np.ndarray, z: np.ndarray | None, lengths: float) -> float:
        """The s >= 0 for which s U is best beside this skip."""
        beside = self.loss if self.ridge is None else self.loss.shifted(self.skip_part(z))
        return float(beside.best_scale(neurons, self.beta * lengths))

    def gram(
        self, a: Float[np.ndarray, "m c"], columns: Float[np.ndarray, "m k"], of_output: Float[np.ndarray, "c k"]
    ) -> Float[np.ndarray, "k k"]:
        """W^T D W for columns of one output each, with D the Hessian of the loss at a.

        Where outputs are coupled they are so row by row, and D is written out: c times less work than squares of which
        none can cancel, which nobody needs who adds the identity.
        """
        c = a.shape[1]
        if c == 1:
            return self.loss.gram(a, columns, of_output)
        G = np.empty((columns.shape[1], columns.shape[1]))
        parts = [np.flatnonzero(row) for row in of_output]
        for k, unit in enumerate(np.eye(c)):
            D = self.loss.hessian_product(a, np.broadcast_to(unit, a.shape))
            right = columns[:, parts[k]]
            for j in range(k + 1):
                block = columns[:, parts[j]].T @ (D[:, j : j + 1] * right)
                G[np.ix_(parts[j], parts[k])] = block
                G[np.ix_(parts[k], parts[j])] = block.T
        return G

    def bound(self, t: np.ndarray, norms: Float[np.ndarray, " B"]) -> float:
        """What t proves, with these bounds on |Proj_b(F_b^T R^T t)|."""
        largest = norms.reshape(self.loss.y.shape[1], -1).max(axis=1)
        return float(sampled_bound(self.loss, t, largest, self.beta, self.ridge)[0])
