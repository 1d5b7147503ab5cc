"""What `path` returns: solutions for falling beta and their scores; as text, plot and files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvxrelu.api.cross_validation import standard_errors
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status

__all__ = ["Path", "path_row"]

_FORMAT = "cvxrelu-path"


def path_row(
    beta: float, solution: Solution, score: tuple[float, float] | None, *, header: bool = False, note: str = ""
) -> str:
    """One line of the table of a path, below the heading if asked for; `score` is a mean and its standard error."""
    heading = "        beta    objective  lower bound      gap | neurons  rounds"
    row = (
        f"{beta:12.5g} {solution.objective:12.6g} {solution.lower_bound:12.6g} {solution.gap:8.1e} | "
        f"{solution.network.n_neurons:7d} {solution.n_rounds:7d}"
    )
    if score is not None:
        heading += " |      score  std. error"
        row += f" | {score[0]:10.5g} {score[1]:11.2g}"
    row += f"  {note}" if note else ""
    return f"{heading}\n{row}" if header else row


@dataclass(frozen=True, eq=False, repr=False)
class Path:
    """A regularisation path: for each beta, in falling order, a network and a bound on how far it is from the optimum.

    Attributes
    ----------
    betas : (k,) float64, falling.
    solutions : k of `Solution`, on all rows.
    fold_scores : (k, folds) float64, the score of every fold's network on that fold's test rows; None without cv.
    status : "optimal" when every point is; else why the path was cut short, or how the first point that failed ended;
        where none failed, "optimal_inaccurate".
    message : the same in words.
    timings : seconds: "beta_max", "solve", "cross_validate", "total".
    settings : the options in force, as plain values.
    """

    betas: Float[np.ndarray, " k"]
    solutions: tuple[Solution, ...]
    fold_scores: Float[np.ndarray, "k folds"] | None
    status: Status
    message: str
    timings: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def objectives(self) -> Float[np.ndarray, " k"]:
        """Objectives of (N): upper bounds of the optimal values f(beta)."""
        return np.array([solution.objective for solution in self.solutions])

    @property
    def lower_bounds(self) -> Float[np.ndarray, " k"]:
        """Lower bounds of f(beta); `settings["certificate"]` says of which kind."""
        return np.array([solution.lower_bound for solution in self.solutions])

    @property
    def gaps(self) -> Float[np.ndarray, " k"]:
        """Relative gaps, as `Solution.gap`."""
        return np.array([solution.gap for solution in self.solutions])

    @property
    def n_neurons(self) -> Int[np.ndarray, " k"]:
        """Numbers of neurons."""
        return np.array([solution.network.n_neurons for solution in self.solutions], dtype=np.int64)

    @property
    def n_rounds(self) -> Int[np.ndarray, " k"]:
        """Rounds of refinement that each point took from the one before."""
        return np.array([solution.n_rounds for solution in self.solutions], dtype=np.int64)

    @property
    def scores(self) -> Float[np.ndarray, " k"] | None:
        """Means over the folds, the larger the better; None without cv."""
        return None if self.fold_scores is None else self.fold_scores.mean(axis=1)

    @property
    def score_errors(self) -> Float[np.ndarray, " k"] | None:
        """Standard errors of `scores`, `std(ddof=1) / sqrt(folds)`; NaN with one fold, None without cv."""
        return None if self.fold_scores is None else standard_errors(self.fold_scores)

    @property
    def best_index(self) -> int | None:
        """Position of the largest mean score, of equal ones that of the largest beta; None without scores."""
        scores = self.scores
        return None if scores is None or scores.size == 0 else int(np.argmax(scores))

    @property
    def best_1se_index(self) -> int | None:
        """Position of the largest beta whose mean score is at most one standard error, of the best, below the best."""
        best, scores, errors = self.best_index, self.scores, self.score_errors
        if best is None or scores is None or errors is None:
            return None
        return int(np.argmax(scores >= scores[best] - np.nan_to_num(errors[best])))

    @property
    def best(self) -> Solution | None:
        """The solution, on all rows, with the best mean score; None without scores."""
        return None if self.best_index is None else self.solutions[self.best_index]

    @property
    def best_1se(self) -> Solution | None:
        """The most regularised solution within one standard error of the best; None without scores."""
        return None if self.best_1se_index is None else self.solutions[self.best_1se_index]

    def __len__(self) -> int:
        return len(self.solutions)

    def __repr__(self) -> str:
        span = f", beta {self.betas[0]:.6g} to {self.betas[-1]:.6g}" if len(self) else ""
        folds = "" if self.fold_scores is None else f", {self.fold_scores.shape[1]} folds"
        return f"Path({len(self)} points{span}{folds}, status={self.status.value!r})"

    def summary(self) -> str:
        """A table with one line per point, and the status in words."""
        rows = [
            path_row(beta, solution, self._score(i), header=i == 0, note=self._note(i))
            for i, (beta, solution) in enumerate(zip(self.betas, self.solutions, strict=True))
        ]
        return "\n".join([*rows, f"{self.status.value}: {self.message}"])

    def plot(self, path: str | os.PathLike[str] | None = None, *, axes: Any = None) -> Any:
        """Draw objective and bound, gap, neurons and, where there are some, scores against beta, which falls.

        Needs matplotlib: `pip install 'cvxrelu[report]'`.

        Parameters
        ----------
        path : a file to write, by its ending a PNG, SVG or PDF; written as a whole or not at all.
        axes : 3 matplotlib axes, or 4 with scores, to draw into in the order above, instead of a new figure.

        Returns
        -------
        The matplotlib figure.

        Raises
        ------
        ValueError : the path has no point; the file has another ending; the number of axes is another.
        FileNotFoundError : the folder of `path` does not exist.
        """
        from cvxrelu.model_selection.path_plot import plot_path

        scores, errors = self.scores, self.score_errors
        return plot_path(
            path, axes, betas=self.betas, objectives=self.objectives, lower_bounds=self.lower_bounds, gaps=self.gaps,
            tol=self.settings.get("tol"), n_neurons=self.n_neurons, scores=scores, errors=errors,
            best=self.best_index, best_1se=self.best_1se_index, score=self.settings.get("scorer"),
            certificate=self.settings.get("certificate"),
        )  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write every network to a new folder, as `network-000.safetensors` and so on, and `path.json` about them.

        The folder appears as a whole or not at all. `ReLUNetwork.load` reads each file; the JSON names file, beta,
        objective, lower bound, gap, certificate, status and scores of every point.

        Raises
        ------
        FileExistsError : there is something at `folder` already, other than an empty folder.
        """
        from cvxrelu.support.files import atomic_write, new_folder

        place = FilePath(folder)
        if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
            raise FileExistsError(f"folder {str(folder)!r} exists already; expected a new name, or an empty folder")
        with new_folder(place) as work:
            points = []
            for i, solution in enumerate(self.solutions):
                file = f"network-{i:03d}.safetensors"
                solution.network.save(work / file)
                points.append({"file": file, **self._point(i)})
            record = {
                "format": _FORMAT, "format_version": 1, "status": self.status.value, "message": self.message,
                "settings": dict(self.settings), "timings": dict(self.timings), "best_index": self.best_index,
                "best_1se_index": self.best_1se_index, "points": points,
            }  # fmt: skip
            atomic_write(work / "path.json", json.dumps(record, indent=1, allow_nan=False) + "\n")

    def _point(self, i: int) -> dict[str, Any]:
        """What `path.json` says of one point."""
        solution, score = self.solutions[i], self._score(i)
        point = {
            "beta": float(self.betas[i]), "objective": solution.objective, "lower_bound": solution.lower_bound,
            "gap": solution.gap, "certificate": solution.certificate.kind, "rigorous": solution.certificate.rigorous,
            "starts": solution.certificate.starts, "status": solution.status.value,
            "n_neurons": solution.network.n_neurons, "n_rounds": solution.n_rounds,
        }  # fmt: skip
        if self.fold_scores is not None and score is not None:
            point |= {"score": score[0], "score_error": score[1] if np.isfinite(score[1]) else None}
            point["fold_scores"] = self.fold_scores[i].tolist()
        return point

    def _score(self, i: int) -> tuple[float, float] | None:
        if self.scores is None or self.score_errors is None:
            return None
        return float(self.scores[i]), float(self.score_errors[i])

    def _note(self, i: int) -> str:
        marks = (("best", self.best_index), ("best_1se", self.best_1se_index))
        names = [name for name, index in marks if index == i]
        if not self.solutions[i].success:
            names.append(self.solutions[i].status.value)
        return ", ".join(names)
