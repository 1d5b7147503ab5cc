"""Which run a checkpoint is of: problem, options and start, by their hashes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.network.balanced import to_arrays
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.program.problem import Problem
from cvxrelu.runs.checkpoint import Checkpoint, digest
from cvxrelu.runs.shared_checkpoint import checkpoint_of

__all__ = ["open_checkpoint"]


def open_checkpoint(
    folder: Path | None, problem: Problem, options: Mapping[str, Any], start: ReLUNetwork | None, backend: Backend
) -> Checkpoint | None:
    """The folder of this run, or one error that says what it is the folder of."""
    if folder is None:
        return None
    plain, skip, pairs = problem.plain, problem.skip, problem.readout
    arrays = {
        "X": problem.X, "y": plain.y, "sample_weight": plain.weight, "margin": getattr(plain, "margin", None),
        "patterns": problem.patterns.patterns, "gates": problem.patterns.gates,
        "pairs": None if pairs is None else np.stack([pairs.first, pairs.second]),
        "equality": None if skip is None else np.concatenate([skip.basis, skip.origin], axis=1),
    }  # fmt: skip
    values = {
        "beta": problem.beta, "loss": problem.loss_name, "intercept": problem.intercept, "skip": problem.skip_kind,
        "skip_l2": 0.0 if skip is None else float(skip.l2),
    }  # fmt: skip
    warm = None
    if start is not None:
        parts = [part.ravel() for part in to_arrays(start, problem.intercept)[:2]]
        warm = digest(np.concatenate(parts))
    identity = {**{name: digest(array) for name, array in arrays.items()}, **values, "warm_start": warm}
    return checkpoint_of(backend, folder, identity, options)
