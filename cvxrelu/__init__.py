"""cvxrelu: two-layer ReLU networks trained to certified optimality by convex optimisation."""

from typing import Any

from cvxrelu.arrangement import enumerate_patterns
from cvxrelu.backends import BackendError
from cvxrelu.beta_max import beta_max
from cvxrelu.certify import certify
from cvxrelu.influence import LeaveOneOut, leave_one_out
from cvxrelu.logistic import LogisticSolution, solve_logistic
from cvxrelu.network import ReLUNetwork
from cvxrelu.path import Path, path
from cvxrelu.patterns import Patterns, sample_patterns
from cvxrelu.recipe import TwoPhase, two_phase
from cvxrelu.solution import Certificate, History, SampledSolution, Solution, Status
from cvxrelu.solve import solve

__all__ = [
    "BackendError",
    "Certificate",
    "ConvexReLUClassifier",
    "ConvexReLURegressor",
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
    """The estimators and the version load on first use: scikit-learn is an extra, and importing must stay fast."""
    if name in ("ConvexReLUClassifier", "ConvexReLURegressor"):
        try:
            from cvxrelu import estimators
        except ImportError as error:
            raise ImportError(f"{name} needs scikit-learn: pip install 'cvxrelu[sklearn]' ({error})") from error
        return getattr(estimators, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("cvxrelu")
    raise AttributeError(f"module 'cvxrelu' has no attribute {name!r}")
