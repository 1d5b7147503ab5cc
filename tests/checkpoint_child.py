"""A solve in a process of its own, for tests that kill it: python checkpoint_child.py CASE FOLDER RESULT SLEEP."""

import json
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

import cvxrelu
from cvxrelu.runs import checkpoint
from cvxrelu.sampled import newton_stage

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 8))
Y = np.maximum(X @ RNG.standard_normal((8, 3)), 0) @ RNG.standard_normal((3, 2))
SAMPLED = {"refine": False, "patterns": 15, "time_limit": 600.0}
CASES = {
    "admm": {"y": Y[:, 0], "linear_solver": "direct", "tol": 2e-2, **SAMPLED},
    "cg": {"y": Y, "linear_solver": "cg", "tol": 1e-9, "max_iter": 20, **SAMPLED},
    "logistic": {
        "y": np.where(Y[:, 0] > 0, 1, -1),
        "loss": "logistic",
        "beta": 0.05,
        "skip": "bias",
        "skip_l2": 0.1,
        "tol": 1e-2,
        **SAMPLED,
    },
    "logistic admm": {
        "y": np.where(Y[:, 0] > 0, 1, -1),
        "loss": "logistic",
        "beta": 0.05,
        "skip": "bias",
        "skip_l2": 0.1,
        "tol": 1e-2,
        "linear_solver": "direct",
        **SAMPLED,
    },
    "newton logistic": {
        "y": np.where(Y > 0, 1, -1),
        "loss": "logistic",
        "beta": 0.05,
        "skip": "linear",
        "skip_l2": 0.1,
        "tol": 1e-5,
        **SAMPLED,
    },
    "newton multinomial": {
        "y": (Y[:, 0] > Y[:, 1]) + (Y[:, 0] > 1),
        "loss": "multinomial",
        "beta": 0.1,
        "tol": 1e-5,
        **SAMPLED,
    },
    "newton": {"y": Y, "tol": 1e-4, **SAMPLED},
    "refinement": {"y": Y[:, 0], "tol": 1e-4},
    "outputs": {"y": Y, "tol": 1e-2, "skip": "bias", "dtype": "float64"},
    "both": {"y": Y[:, 0], "patterns": RNG.standard_normal((8, 10)), "linear_solver": "direct", "tol": 2e-2},
}


def run(case, folder, callback=None, **changed):
    """Solve a case; every check and every round is saved."""
    options = {"beta": 1.0, "backend": "numpy", "seed": 3, **CASES[case], **changed}
    with (
        mock.patch.multiple(checkpoint, INTERVAL=0.0, SHARE=np.inf),
        mock.patch.multiple(newton_stage, LEAST_FLOPS=0.0, ROWS=0.0, FREEDOM=np.inf),
    ):
        return cvxrelu.solve(X, **options, checkpoint=folder, callback=callback)


def answer(sol):
    """All of a solution that must not depend on whether it was interrupted; floats are exact in JSON."""
    sampled = None
    if sol.sampled is not None:
        sampled = [sol.sampled.objective, sol.sampled.lower_bound, sol.sampled.blocks.tolist(), sol.sampled.rho]
    columns = [name for name in sol.history.columns if name not in ("time", "priced")]
    history = [np.nan_to_num(sol.history[name], nan=-1.0).tolist() for name in columns]
    network = [sol.network.first_layer.tolist(), sol.network.second_layer.tolist()]
    facts = [sol.status.value, sol.objective, sol.lower_bound, sol.n_iter, sol.n_rounds, sol.certificate.dual.tolist()]
    return json.loads(json.dumps([*facts, sampled, columns, history, network]))


if __name__ == "__main__":
    case, folder, result, pause = sys.argv[1:]
    found = run(case, folder, lambda record: time.sleep(float(pause)))
    Path(result).write_text(json.dumps(answer(found)))
