"""What a solve returns: status, history, certificate, sampled solution and the solution itself.

Plain records on the host. Nothing here computes anything that is not a ratio of two stored numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np

from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.runs.answer import Answer
from cvxrelu.runs.progress import History
from cvxrelu.runs.status import Status

__all__ = [
    "Certificate",
    "SampledSolution",
    "Solution",
]


@dataclass(frozen=True)
class Certificate:
    """A lower bound on the optimum of the network program (N), and how it was obtained.

    Attributes
    ----------
    kind : "exact", "branch", "relaxed" or "priced".
    rigorous : True when the bound holds whatever was computed; False for an estimate ("priced").
    lower_bound : the bound, float64.
    gap : `(objective - lower_bound) / max(|objective|, tiny)` for the objective it was issued for.
    dual : the scaled dual variable t that proves it, (n,) or (n, c).
    starts : number of ascents behind a "priced" bound, else None.
    objective : the objective the gap is of.
    progress : of a "branch" bound, what was proved when: columns time (seconds of the proof), lower_bound, cones, and
        price, the largest bound on the price over beta. Else None.
    """

    kind: str
    rigorous: bool
    lower_bound: float
    gap: float
    dual: np.ndarray
    starts: int | None = None
    objective: float = np.nan
    progress: History | None = None

    def __str__(self) -> str:
        nature = "rigorous" if self.rigorous else f"estimate from {self.starts} starts"
        return f"{self.kind} ({nature}): lower bound {self.lower_bound:.6g}, gap {self.gap:.2e}"


@dataclass(frozen=True)
class SampledSolution:
    """The solution of the sampled program (S).

    Attributes
    ----------
    blocks : (2, d, P) or (2, d, P, c). The cone-feasible point whose objective is `objective`; with `intercept=True`
        the last of the d rows belongs to the constant column.
    patterns : (n, P) bool, distinct.
    gates : (d, P) vectors that realise the patterns, or None when patterns were given as such.
    n_requested : number of patterns asked for, before deduplication.
    objective : objective of (S) at `blocks`; an upper bound on its optimum.
    lower_bound : rigorous lower bound on the optimum of (S), float64.
    gap : relative gap of the two.
    status : Status of the sampled stage.
    residuals : {"primal_copy", "dual_copy", "primal_cone", "dual_cone"}, relative, at the last check; where the loss is
        not the squared one also "primal_loss" and "dual_loss".
    rho : (penalty of U = copy, penalty of G U = s) at the end; then also that of the prediction's split.
    dual : the scaled dual variable t behind `lower_bound`, (n,) or (n, c); with m pairs (m,).
    skip, bias : the skip at `blocks`, (d,) or (d, c) and () or (c,), each None where there is none.
    """

    blocks: np.ndarray
    patterns: np.ndarray
    gates: np.ndarray | None
    n_requested: int
    objective: float
    lower_bound: float
    gap: float
    status: Status
    residuals: Mapping[str, float]
    rho: tuple[float, ...]
    dual: np.ndarray
    skip: np.ndarray | None = None
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class Solution(Answer, data="problem"):
    """A network, its objective, and a bound on how far from the global optimum it can be.

    `objective`, `lower_bound`, `gap` and `certificate` are always about the network program (N); `sampled` is about
    the sampled program (S). `status` is "optimal" only where the gap reported, `gap`, is at most tol; with
    `refine=False` it speaks of (S), where that gap is `sampled.gap`, and `message` says so.

    Attributes
    ----------
    network : the best network seen, by objective of (N).
    objective : its objective, float64.
    certificate : the bound, its kind, and whether it is rigorous.
    sampled : the solution of (S), or None when that stage did not run.
    status, message : why the solve ended, and the same in words.
    n_iter : ADMM iterations.
    history : one record per check.
    timings : seconds by phase: "setup", "factor", "iterate", "certify", "total"; on JAX each holds its own compilation.
    backend, dtype, device : where and in what precision the iterations ran.
    settings : the problem's sizes and the options in force, as plain values.
    n_rounds : rounds of refinement.
    problem : the data as the solver saw them, for `leave_one_out`; never saved.
    """

    network: ReLUNetwork
    objective: float
    certificate: Certificate
    sampled: SampledSolution | None
    status: Status
    message: str
    n_iter: int
    history: History
    timings: Mapping[str, float]
    backend: str
    dtype: str
    device: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_rounds: int = 0
    problem: Any = field(default=None, repr=False, compare=False)

    @property
    def lower_bound(self) -> float:
        """Lower bound on the optimum of (N); `certificate.kind` says of which kind."""
        return self.certificate.lower_bound

    @property
    def gap(self) -> float:
        """`(objective - lower_bound) / max(|objective|, tiny)` for (N), 0 where rounding alone keeps it from 0."""
        return self.certificate.gap

    @property
    def _of_sampled(self) -> bool:
        """Whether `status` speaks of the sampled program."""
        return self.sampled is not None and self.settings.get("refine") is False

    def predict(self, X: Any) -> Any:
        """`network.predict(X)`: (n,) or (n, c), in X's library and dtype."""
        return self.network.predict(X)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to one safetensors file, and what is known of it into its metadata.

        `ReLUNetwork.load(path)` reads it; `metadata["solution"]` then holds status, objective, lower bound, gap, kind
        of certificate and settings. A file that is there is replaced as a whole, or not at all.
        """
        known = {
            "status": self.status.value, "objective": self.objective, "lower_bound": self.lower_bound, "gap": self.gap,
            "certificate": self.certificate.kind, "rigorous": self.certificate.rigorous,
            "settings": {k: v for k, v in self.settings.items() if isinstance(v, bool | int | float | str | None)},
        }  # fmt: skip
        plain = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in known.items()}
        replace(self.network, metadata={**self.network.metadata, "solution": plain}).save(path)

    def plot(self, axes: Any = None) -> Any:
        """Draw objective and lower bound against seconds, and return the matplotlib figure; needs matplotlib.

        axes : to draw into, in place of a new figure. ValueError where the history is empty.
        """
        if not len(self.history):
            raise ValueError("the history is empty: there is nothing to draw")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(f"plotting needs matplotlib: pip install 'cvxrelu[report]' ({error})") from error
        if axes is None:
            axes = Figure(figsize=(5.5, 3.4), layout="constrained").subplots()
        seconds = np.asarray(self.history["time"], dtype=float)
        axes.plot(seconds, self.history["objective"], color="#0072b2", label="network's objective")
        nature = "proven" if self.certificate.rigorous else "estimated"
        axes.plot(seconds, self.history["lower_bound"], "--", color="#d55e00", label="lower bound of the search")
        axes.axhline(self.lower_bound, color="#00805c", linewidth=0.9, label=f"lower bound, {nature}")
        axes.set(xlabel="seconds", ylabel="objective", title=f"{self.status.value}, gap {self.gap:.1e}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        return axes.figure

    def _repr_html_(self) -> str:
        """The summary as a table, for notebooks."""
        rows = ((line[:16], line[16:]) for line in self._lines())
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name.strip())}</th>"
            f"<td style='text-align:left'>{escape(text.strip())}</td></tr>"
            for name, text in rows
        )
        return f"<table>{cells}</table>"

    def summary(self) -> str:
        """The whole result as text, one fact per line."""
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        """Of the summary: a name in sixteen columns, then what there is to say."""
        size = self.settings
        work = f"rounds          {self.n_rounds}" if self.n_rounds or not self.n_iter else ""
        if self.n_iter:
            work = f"iterations      {self.n_iter}" + (f", then {self.n_rounds} rounds" if work else "")
        lines = [
            f"{'status of (S)' if self._of_sampled else 'status':15} {self.status.value}: {self.message}",
            f"problem         n = {size.get('n')}, d = {size.get('d')}, outputs = {size.get('c')}, "
            f"loss = {size.get('loss')}, beta = {size.get('beta'):.6g}",
            f"network         {self.network.n_neurons} neurons, objective {self.objective:.8g}",
            f"certificate     {self.certificate}",
        ]
        if self.sampled is not None:
            s = self.sampled
            lines += [
                f"sampled program {s.patterns.shape[1]} distinct patterns of {s.n_requested}, "
                f"objective {s.objective:.8g}, "
                f"lower bound {s.lower_bound:.8g} (rigorous), gap {s.gap:.2e}",
            ]
        lines += [
            f"{work} on {self.backend} ({self.device}, {self.dtype})",
            "seconds         " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.timings.items()),
        ]
        return lines

    def __repr__(self) -> str:
        sampled = f", sampled_gap={self.sampled.gap:.2e}" if self.sampled is not None and self._of_sampled else ""
        return (
            f"Solution(status={self.status.value!r}{sampled}, objective={self.objective:.6g}, "
            f"lower_bound={self.lower_bound:.6g}, gap={self.gap:.2e}, certificate={self.certificate.kind!r}, "
            f"neurons={self.network.n_neurons})"
        )
