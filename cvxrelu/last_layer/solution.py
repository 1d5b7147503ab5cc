"""What `solve_logistic` returns: a plain record on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cvxrelu.runs.answer import Answer
from cvxrelu.runs.progress import History
from cvxrelu.runs.status import Status, relative_gap

__all__ = ["LogisticSolution"]


@dataclass(frozen=True)
class LogisticSolution(Answer, data="rows"):
    """A minimiser of the last-layer program and the proof of how good it is.

    Attributes
    ----------
    theta : (d,) float64.
    objective : the program's value at theta, float64.
    lower_bound : rigorous lower bound on the optimum, float64.
    dual : (n,) the feasible t behind the bound: 0 <= t y / weight <= 1.
    status, message : why the solve ended.
    n_iter : steps of accelerated gradient and of Newton, or epochs of the stochastic methods.
    history : one record per check: iteration, passes (over the data, checks included), newton_steps, time, objective,
        lower_bound and gap (the best so far), current_objective (of this check).
    timings : seconds for "setup", "iterate", "newton", "certify", "total".
    backend, dtype, device, settings : where, in which precision and with which options it ran.
    rows : the data as the solver saw them, for `leave_one_out`; never saved.
    """

    theta: np.ndarray
    objective: float
    lower_bound: float
    dual: np.ndarray
    status: Status
    message: str
    n_iter: int
    history: History
    timings: Mapping[str, float]
    backend: str
    dtype: str
    device: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: Any = field(default=None, repr=False, compare=False)

    @property
    def gap(self) -> float:
        """`(objective - lower_bound) / max(|objective|, tiny)`; the optimum lies between the two."""
        return relative_gap(self.objective, self.lower_bound)

    def summary(self) -> str:
        """The whole result as text, one fact per line."""
        size = self.settings
        return "\n".join(
            [
                f"status       {self.status.value}: {self.message}",
                f"problem      n = {size.get('n')}, d = {size.get('d')}, l2 = {size.get('l2'):.6g}, "
                f"scale = {size.get('scale'):.6g}",
                f"objective    {self.objective:.12g}",
                f"lower bound  {self.lower_bound:.12g} (rigorous), gap {self.gap:.2e}",
                f"iterations   {self.n_iter} of {size.get('method')}, {size.get('newton_steps')} of them by Newton, "
                f"{size.get('passes')} passes over the data, on {self.backend} ({self.device}, {self.dtype})",
                "seconds      " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.timings.items()),
            ]
        )

    def __repr__(self) -> str:
        return (
            f"LogisticSolution(status={self.status.value!r}, objective={self.objective:.6g}, "
            f"lower_bound={self.lower_bound:.6g}, gap={self.gap:.2e})"
        )
