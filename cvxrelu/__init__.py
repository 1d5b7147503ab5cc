"""cvxrelu: two-layer ReLU networks trained to certified optimality by convex optimisation.

The names below load on first use: a command line must see to Ctrl-C before anything heavy loads.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as type checkers see it, True; `typing` itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from cvxrelu.api.beta_max import beta_max
    from cvxrelu.api.certify import certify
    from cvxrelu.api.estimators import ConvexReLUClassifier, ConvexReLURegressor
    from cvxrelu.api.leave_one_out import LeaveOneOut, leave_one_out
    from cvxrelu.api.solve import solve
    from cvxrelu.api.two_phase import TwoPhase, two_phase
    from cvxrelu.backends import BackendError
    from cvxrelu.last_layer.solve import LogisticSolution, solve_logistic
    from cvxrelu.model_selection.estimators import ConvexReLUClassifierCV, ConvexReLURegressorCV
    from cvxrelu.model_selection.path import Path, path
    from cvxrelu.network.relu_network import ReLUNetwork
    from cvxrelu.program.arrangement import enumerate_patterns
    from cvxrelu.program.patterns import Patterns, sample_patterns
    from cvxrelu.runs.progress import History
    from cvxrelu.runs.solution import Certificate, SampledSolution, Solution
    from cvxrelu.runs.status import Status

_MODULES = {
    "BackendError": "cvxrelu.backends",
    "Certificate": "cvxrelu.runs.solution",
    "ConvexReLUClassifier": "cvxrelu.api.estimators",
    "ConvexReLUClassifierCV": "cvxrelu.model_selection.estimators",
    "ConvexReLURegressor": "cvxrelu.api.estimators",
    "ConvexReLURegressorCV": "cvxrelu.model_selection.estimators",
    "History": "cvxrelu.runs.solution",
    "LeaveOneOut": "cvxrelu.api.leave_one_out",
    "LogisticSolution": "cvxrelu.last_layer.solve",
    "Path": "cvxrelu.model_selection.path",
    "Patterns": "cvxrelu.program.patterns",
    "ReLUNetwork": "cvxrelu.network.relu_network",
    "SampledSolution": "cvxrelu.runs.solution",
    "Solution": "cvxrelu.runs.solution",
    "Status": "cvxrelu.runs.solution",
    "TwoPhase": "cvxrelu.api.two_phase",
    "beta_max": "cvxrelu.api.beta_max",
    "certify": "cvxrelu.api.certify",
    "enumerate_patterns": "cvxrelu.program.arrangement",
    "leave_one_out": "cvxrelu.api.leave_one_out",
    "path": "cvxrelu.model_selection.path",
    "sample_patterns": "cvxrelu.program.patterns",
    "solve": "cvxrelu.api.solve",
    "solve_logistic": "cvxrelu.last_layer.solve",
    "two_phase": "cvxrelu.api.two_phase",
}

__all__ = [
    "BackendError",
    "Certificate",
    "ConvexReLUClassifier",
    "ConvexReLUClassifierCV",
    "ConvexReLURegressor",
    "ConvexReLURegressorCV",
    "History",
    "LeaveOneOut",
    "LogisticSolution",
    "Path",
    "Patterns",
    "ReLUNetwork",
    "SampledSolution",
    "Solution",
    "Status",
    "TwoPhase",
    "beta_max",
    "certify",
    "enumerate_patterns",
    "leave_one_out",
    "path",
    "sample_patterns",
    "solve",
    "solve_logistic",
    "two_phase",
]


def __getattr__(name: str) -> Any:
    """Public names, from their modules, and `__version__`, from the installed metadata."""
    if name in _MODULES:
        try:
            module = importlib.import_module(_MODULES[name])
        except ImportError as error:
            if not name.startswith(("ConvexReLUClassifier", "ConvexReLURegressor")):
                raise
            raise ImportError(f"{name} needs scikit-learn: pip install 'cvxrelu[sklearn]' ({error})") from error
        found = globals()[name] = getattr(module, name)
        return found
    if name == "__version__":
        from importlib.metadata import version

        return version("cvxrelu")
    raise AttributeError(f"module 'cvxrelu' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, and nothing else."""
    return [*__all__, *(name for name in globals() if name.startswith("__")), "__version__"]
