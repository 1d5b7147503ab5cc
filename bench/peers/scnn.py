"""pyscnn: augmented Lagrangian around restarted FISTA in PyTorch (Mishkin, Sahiner & Pilanci, ICML 2022).

Its objective is 1/(2 n c) |F U - y|^2 + lambda sum |u_i|, so lambda = beta / n for (S) divided by n. `unitize_data` is
off: it would give columns other weights in the regulariser, another problem. The optimisation procedure is built by the
package's own functions, as its `optimize_model` does, to reach the callback that the public function does not pass on.
The tolerance of the subproblems decides how good a solution can get and how soon: one run for each.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from bench.peers.common import Problem, Recorder, main

TOLERANCES = (1e-6, 1e-8, 1e-10, 1e-12)  # on the squared norm of a gradient; 1e-6 is the default


class Expired(Exception):
    """Raised by the callback at the cap."""


def solve(problem: Problem, recorder: Recorder) -> None:
    """One run per tolerance, until one takes longer than the cap."""
    import scnn.optimize  # noqa: F401  (not on the clock)
    import torch

    torch.set_num_threads(1)
    for tol in TOLERANCES:
        with recorder.run(f"tol {tol:g}"), contextlib.suppress(Expired):
            recorder.point(run(problem, recorder, tol))
        if recorder.expired:
            break


def run(problem: Problem, recorder: Recorder, tol: float) -> np.ndarray:
    """Blocks (2, d, P) at the end; some on the way are recorded."""
    from scnn.metrics import Metrics
    from scnn.models import ConvexReLU
    from scnn.optimize import build_metrics_tuple, build_optimizer, get_logger
    from scnn.regularizers import NeuronGL1
    from scnn.solvers import AL

    n = len(problem.y)
    model, metrics = ConvexReLU(problem.gates), Metrics(metric_freq=10**9)
    regulariser = NeuronGL1(problem.beta / n)
    solver = AL(model, max_primal_iters=10**7, max_dual_iters=10**7, tol=tol, constraint_tol=tol)
    internal, train, test, columns = _internal(problem, model, regulariser)

    def blocks(state: Any) -> np.ndarray:
        found = np.zeros((2, *problem.gates.shape))
        found[:, :, columns] = np.asarray(state.weights)[:, 0].transpose(0, 2, 1)
        return found

    def callback(state: Any, X: Any, y: Any) -> Any:
        if recorder.due:
            recorder.point(blocks(state))
        if recorder.expired:
            raise Expired
        return state

    procedure = build_optimizer(solver, regulariser, metrics)
    _, internal, _ = procedure(
        get_logger("scnn", False, False, None), internal, lambda state: state, train, test,
        build_metrics_tuple(metrics), callback=callback,
    )  # fmt: skip
    return blocks(internal)


def their_objective(problem: Problem, blocks: np.ndarray) -> float:
    """The package's own objective at cone-feasible blocks (2, d, P), where its penalty is zero: (S) divided by n."""
    from scnn.models import ConvexReLU
    from scnn.regularizers import NeuronGL1

    regulariser = NeuronGL1(problem.beta / len(problem.y))
    internal, (X, y), _, columns = _internal(problem, ConvexReLU(problem.gates), regulariser)
    internal.weights = np.ascontiguousarray(blocks[:, :, columns].transpose(0, 2, 1)[:, None])
    return float(internal.objective(X, y))


def _internal(problem: Problem, model: Any, regulariser: Any) -> tuple[Any, Any, Any, np.ndarray]:
    """The package's inner model, its training and test data, and which of our patterns each of its columns is."""
    from scnn.optimize import build_internal_model, process_data, set_device

    set_device("cpu", "float64", 778)
    train, test, _ = process_data(problem.X, problem.y, None, None, False, False)
    internal = build_internal_model(model, regulariser, train[0])
    return internal, train, test, _columns(problem.patterns, np.asarray(internal.D))


def _columns(patterns: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For each of their columns the index of the pattern it is: the package sorts them."""
    ours = {pattern.tobytes(): i for i, pattern in enumerate(patterns.T.astype(bool))}
    return np.array([ours[np.ascontiguousarray(column).tobytes()] for column in (theirs > 0.5).T])


if __name__ == "__main__":
    main(solve, "pyscnn", "torch")
