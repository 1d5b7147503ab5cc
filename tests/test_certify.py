"""Certificates of any network never claim too much: against the exact optimum, and for every kind of model."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
from network_optimum import ACCURACY, network_optimum

import cvxrelu
from cvxrelu import ReLUNetwork, certificates
from cvxrelu.certify import certify, network_certificate, network_objective
from cvxrelu.problem import build_problem
from cvxrelu.selection import get_backend

pytest.importorskip("sklearn")

KINDS = ["optimal", "random", "scikit-learn"]


# -- the lying test -------------------------------------------------------------------------------------------------
class Case(NamedTuple):
    """A problem of rank at most three, a network for it, and what the network says the program is."""

    network: object
    X: np.ndarray
    y: np.ndarray
    beta: float
    weight: np.ndarray | None
    hidden_bias: bool
    skip: str | None

    def columns(self) -> np.ndarray:
        X = self.X.astype(np.float64)
        return np.hstack([X, np.ones((len(X), 1))]) if self.hidden_bias else X

    def free(self) -> np.ndarray | None:
        ones = np.ones((len(self.X), 1))
        return {None: None, "bias": ones, "linear": np.hstack([self.X.astype(np.float64), ones])}[self.skip]

    def optimum(self) -> float:
        weight = None if self.weight is None else self.weight.astype(np.float64)
        return network_optimum(self.columns(), self.y.astype(np.float64), self.beta, weight, self.free())

    def allowance(self) -> float:
        """What the interior point method leaves open."""
        weight = np.ones(len(self.y)) if self.weight is None else self.weight.astype(np.float64)
        return ACCURACY * 0.5 * float(np.sum(weight * self.y.astype(np.float64) ** 2))

    def certify(self, kind: str, **options: object) -> cvxrelu.Certificate:
        return certify(
            self.network, self.X, self.y, beta=self.beta, sample_weight=self.weight, kind=kind, backend="numpy",
            **options,
        )  # fmt: skip


def draw(seed: int) -> Case:
    """Few rows, plain, repeated, integer, zero or at any scale; weights, biases, float32; three kinds of networks."""
    rng = np.random.default_rng(seed)
    origin = KINDS[seed % 3]
    hidden_bias = bool(rng.random() < 0.4) or origin == "scikit-learn"
    skip = str(rng.choice(["bias", "linear"])) if rng.random() < 0.3 else None
    if origin == "scikit-learn":
        skip = "bias"
    d = 2 if hidden_bias or seed % 2 else 3
    n = int(rng.integers(2, 9 if d + hidden_bias == 2 else 7))
    X = rng.standard_normal((n, d))
    shape = rng.choice(["plain", "repeated", "integer", "scaled"], p=[0.5, 0.2, 0.15, 0.15])
    if shape == "repeated":
        X = X[rng.integers(n, size=n)] * rng.choice([-1.0, 0.0, 1.0, 2.0], size=(n, 1))
    elif shape == "integer":
        X = np.round(2 * X)
    elif shape == "scaled":
        X = X * 10.0 ** rng.uniform(-3, 3)
    y = np.maximum(X @ rng.standard_normal(d), 0) + 0.3 * np.abs(X).max() * rng.standard_normal(n)
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], size=n) if rng.random() < 0.4 else None
    if weight is not None:
        weight[0] = 1.0
    dtype = np.float32 if rng.random() < 0.3 else np.float64
    X, y = X.astype(dtype), y.astype(dtype)
    scale = np.linalg.norm(X.T.astype(float) @ ((1.0 if weight is None else weight) * y)) + 1e-3
    beta = float(scale * 10.0 ** rng.uniform(-3, 0))
    network = train(origin, rng, X, y, weight, beta, hidden_bias, skip)
    return Case(network, X, y, beta, weight, hidden_bias, skip)


def train(origin, rng, X, y, weight, beta, hidden_bias, skip) -> object:
    (_, d), m = X.shape, 6
    if origin == "optimal":
        return cvxrelu.solve(
            X, y, beta=beta, sample_weight=weight, intercept=hidden_bias, skip=skip or False, certificate="exact",
            tol=1e-6, backend="numpy", seed=0,
        )  # fmt: skip
    if origin == "scikit-learn":
        from sklearn.neural_network import MLPRegressor

        model = MLPRegressor(hidden_layer_sizes=(m,), solver="lbfgs", alpha=beta / len(X), max_iter=60, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge
            return model.fit(X.astype(np.float64), y.astype(np.float64))
    size = 10.0 ** rng.uniform(-2, 1)
    return ReLUNetwork(
        size * rng.standard_normal((d, m)), size * rng.standard_normal(m),
        rng.standard_normal(m) if hidden_bias else None, rng.standard_normal(d) if skip == "linear" else None,
        rng.standard_normal(()) if skip else None,
    )  # fmt: skip


def check_truth(case: Case) -> dict[str, float]:
    """The gap of every certificate of the case, after everything it says was found to be true."""
    optimum, allowance = case.optimum(), case.allowance()
    gaps = {}
    for kind in ("exact", "relaxed"):
        certificate = case.certify(kind)
        assert certificate.kind == kind and certificate.rigorous and certificate.starts is None
        assert np.isfinite([certificate.lower_bound, certificate.objective]).all()
        assert 0 <= certificate.lower_bound <= optimum + allowance, (kind, certificate.lower_bound, optimum)
        assert optimum <= certificate.objective + allowance, (kind, certificate.objective, optimum)
        gaps[kind] = (optimum - certificate.lower_bound) / max(optimum, 1e-300)
    check_above_the_closed_form(case, optimum, allowance)
    return gaps


def check_above_the_closed_form(case: Case, optimum: float, allowance: float) -> None:
    """At one and the same dual variable."""
    problem = build_problem(
        case.X, case.y, beta=case.beta, sample_weight=case.weight, intercept=case.hidden_bias, patterns=1,
        check_patterns=False, dtype=np.float64, seed=0, skip=case.skip or False, sampled=False,
    )  # fmt: skip
    given = ReLUNetwork.from_(case.network)
    objective, dual = network_objective(given, problem)
    closed = float(certificates.relaxed_bound(problem.loss, problem.X, dual, np.asarray(case.beta))[0])
    tightened = network_certificate("relaxed", problem, dual, objective, get_backend("numpy"), seed=0)
    rounding = 1e-12 * closed + (0 if case.skip is None else 1e-3 * allowance)  # of free parts, which have a price
    assert closed - rounding <= tightened.lower_bound <= optimum + allowance


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_the_optimum_lies_between_bound_and_objective(block):
    gaps = [check_truth(draw(seed)) for seed in range(30 * block, 30 * (block + 1))]
    # what is claimed is not nothing: the exact kind comes close to the optimum, the relaxed one most of the way
    assert np.median([gap["exact"] for gap in gaps]) <= 1e-3
    assert np.median([gap["relaxed"] for gap in gaps]) <= 0.5
