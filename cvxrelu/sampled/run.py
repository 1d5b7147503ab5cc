"""What a checkpoint holds of each stage, and how a stage takes it up again.

Sampled stage: the incumbent, the history, the counters that decide when to certify and to balance; then either ADMM's
state and penalties, or the position of semismooth Newton between two proximal points with the memory of its cones. What
follows from the data alone (rotated basis, factorisations, gates in their cones) is computed again.

Refinement: neurons, bound, counts, the near misses of the last pricing and the state of the random generator, at the
top of a round. A round that was cut short is done again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cvxrelu.runs.checkpoint import State, restore, snapshot
from cvxrelu.runs.progress import History
from cvxrelu.runs.status import Status
from cvxrelu.sampled import admm

if TYPE_CHECKING:
    from cvxrelu.sampled.cone_memory import ConeMemory
    from cvxrelu.sampled.newton_stage import _NewtonStage
    from cvxrelu.sampled.semismooth import SampledNewton
    from cvxrelu.sampled.stage import SampledStage

__all__ = [
    "load_sampled",
    "newton_position",
    "newton_saver",
    "resume_newton",
    "save_sampled",
    "settled",
    "start_state",
]

COUNTERS = (
    "iteration", "residuals", "certify_below", "certify_at", "estimate", "balance_at", "best_gap", "best_at", "method",
    "rho_values", "timings",
)  # fmt: skip
# What these two hold that follows from the data, or from the rest of what they hold.
FIXED_OF_NEWTON = frozenset((
    "X", "patterns", "loss", "beta", "tol", "deadline", "n", "d", "P", "masks", "memory", "row_lengths", "curvature",
    "inverse",
))  # fmt: skip
FIXED_OF_MEMORY = frozenset(["X", "patterns", "unit", "signs", "m", "d", "margin", "normals", "inverses"])


# -- the sampled stage ------------------------------------------------------------------------------------------------
def load_sampled(stage: SampledStage) -> State | None:
    """The saved state, if there is one; incumbent, history and counters of the stage are then as they were."""
    saved = None if stage.checkpoint is None else stage.checkpoint.load("sampled")
    if saved is not None:
        stage.best.restore(saved["best"])
        stage.history = History(saved["history"])
        stage.spent = saved["spent"]
        for name in COUNTERS:
            setattr(stage, name, saved[name])
        stage.rho_values = tuple(stage.rho_values)
    return saved


def settled(stage: SampledStage, saved: State | None) -> Status | None:
    """The status that a saved run has under the limits of now; None to go on with it."""
    if saved is None:
        return None
    if saved["admm"] is not None:
        return stage._decide(stop=False)
    if stage.best.sampled_gap <= stage.limits.tol:
        return Status.OPTIMAL
    ended = saved["newton"]["ended"]
    return Status(ended) if ended is not None and stage.limits.tol >= saved["tol"] else None


def start_state(stage: SampledStage, saved: State | None) -> admm.State:
    """ADMM's state to start from: that of the checkpoint, or zeros."""
    if saved is None or saved["admm"] is None:
        return stage.backend.compile(admm.start)(stage.backend, stage.data)
    state = admm.State(*stage.backend.put(tuple(saved["admm"])))
    return stage.backend.compile(admm.divide)(stage.backend, state)


def save_sampled(stage: SampledStage, ended: Status | None, newton: State | None = None) -> None:
    """Save the stage if it is time to, and in any case when it has ended.

    newton : the position of Newton. Without one ADMM is under way, if anything is.
    """
    if stage.checkpoint is None or ended is Status.NUMERICAL_ERROR:
        return
    if newton is None and stage.method == "newton":
        newton = {"ended": None if ended is None else ended.value}

    def state() -> State:
        progress = None
        if newton is None:
            progress = [None if a is None else np.asarray(a) for a in stage.backend.get(stage.state)]
        return {
            "best": stage.best.state(), "history": stage.history.records, "spent": stage.spent + stage._elapsed(),
            "tol": stage.limits.tol, "admm": progress, "newton": newton,
            **{name: getattr(stage, name) for name in COUNTERS},
        }  # fmt: skip

    if ended is None:
        stage.checkpoint.offer("sampled", state)
    else:
        stage.checkpoint.save("sampled", state())


def newton_position(newton: _NewtonStage) -> State | None:
    """Where Newton was in the middle of an output, if it was; the outputs before it are then as they were."""
    saved = newton.stage.saved
    if saved is None or saved["newton"] is None or saved["newton"]["ended"] is not None:
        return None
    position: State = saved["newton"]
    newton.stage.saved = None
    newton.blocks, newton.dual, newton.norms = (position[name] for name in ("blocks", "dual", "norms"))
    newton.steps = position["steps"]
    return position


def resume_newton(solver: SampledNewton, memory: ConeMemory, position: State) -> None:
    """The solver of one output and the memory of the cones as they were."""
    restore(solver, position["solver"])
    restore(memory, position["memory"])
    for block, face in enumerate(memory.faces):
        k = face.rows.size
        memory.normals[block, :, :k], memory.inverses[block, :k] = face.normals, face.inverse


def newton_saver(newton: _NewtonStage, output: int, solver: SampledNewton, memory: ConeMemory) -> Callable | None:
    """What the solver of this output calls between two proximal points."""
    if newton.stage.checkpoint is None:
        return None

    def save() -> None:
        position = {
            "ended": None, "output": output, "blocks": newton.blocks, "dual": newton.dual, "norms": newton.norms,
            "steps": newton.steps, "solver": snapshot(solver, FIXED_OF_NEWTON),
            "memory": snapshot(memory, FIXED_OF_MEMORY),
        }  # fmt: skip
        save_sampled(newton.stage, None, position)

    return save


# -- refinement -------------------------------------------------------------------------------------------------------
