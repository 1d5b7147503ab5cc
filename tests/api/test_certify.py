"""Certificates of any network never claim too much: against the exact optimum, and for every kind of model."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
from network_optimum import ACCURACY, network_optimum

import cvxrelu
from cvxrelu import ReLUNetwork
from cvxrelu.api.certify import certify
from cvxrelu.backends.choose import get_backend
from cvxrelu.certificates.closed_form import relaxed_bound
from cvxrelu.certificates.network import network_certificate, network_objective
from cvxrelu.program.problem import build_problem

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


def check_truth(case: Case, whole: bool = True) -> dict[str, float]:
    """The distance of every certificate of the case from the optimum, after all that they say was found to be true.

    whole : by `certify`; otherwise from the dual variable of the network alone, which is much less work.
    """
    optimum, allowance = case.optimum(), case.allowance()
    problem = build_problem(
        case.X, case.y, beta=case.beta, sample_weight=case.weight, intercept=case.hidden_bias, patterns=1,
        check_patterns=False, dtype=np.float64, seed=0, skip=case.skip or False, sampled=False,
    )  # fmt: skip
    objective, dual = network_objective(ReLUNetwork.from_(case.network), problem)
    distances = {}
    for kind in ("exact", "relaxed"):
        found = [network_certificate(kind, problem, dual, objective, get_backend("numpy"), seed=0)]
        if kind == "relaxed":
            closed = float(relaxed_bound(problem.loss, problem.X, dual, np.asarray(case.beta))[0])
            rounding = 1e-12 * closed + (0 if case.skip is None else 1e-3 * allowance)  # free parts have a price
            assert closed - rounding <= found[0].lower_bound
        if whole:
            found.append(case.certify(kind))
        for certificate in found:
            assert certificate.kind == kind and certificate.rigorous and certificate.starts is None
            assert np.isfinite([certificate.lower_bound, certificate.objective]).all()
            assert 0 <= certificate.lower_bound <= optimum + allowance, (kind, certificate.lower_bound, optimum)
            assert optimum <= certificate.objective + allowance, (kind, certificate.objective, optimum)
        distances[kind] = (optimum - found[-1].lower_bound) / max(optimum, 1e3 * allowance, 1e-300)
    return distances


@pytest.mark.filterwarnings("ignore::UserWarning")  # some of the random data are odd
@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_the_optimum_lies_between_bound_and_objective(block):
    """Three hundred of the problems; a few thousand more were checked with `certify` in full when this was written."""
    for seed in range(30 * block, 30 * (block + 1)):
        check_truth(draw(seed), whole=False)
    distances = [check_truth(draw(seed)) for seed in range(30 * block, 30 * block + 3)]
    # what is claimed is not nothing
    assert max(d["exact"] for d in distances) <= 2e-3 and np.median([d["relaxed"] for d in distances]) <= 0.5


# -- models of every kind ---------------------------------------------------------------------------------------------
def teacher(n=20, d=2, c=0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 2)), 0) @ rng.standard_normal((2, max(c, 1)))
    y = y + 0.1 * rng.standard_normal(y.shape)
    return X, y if c else y[:, 0]


def written_out(X, y, beta, first, second, hidden_bias=None, bias=0.0):
    """(N) of plain arrays; a hidden bias counts in the norm, an output bias does not."""
    hidden = X @ first + (0.0 if hidden_bias is None else hidden_bias)
    inner = first if hidden_bias is None else np.vstack([first, hidden_bias])
    second = second.reshape(first.shape[1], -1)
    residual = np.maximum(hidden, 0) @ second + bias - y.reshape(len(X), -1)
    path = np.linalg.norm(inner, axis=0) @ np.linalg.norm(second, axis=1)
    return 0.5 * float(np.sum(residual**2)) + beta * float(path)


def test_a_solution_is_certified_as_it_says():
    X, y = teacher()
    sol = cvxrelu.solve(X, y, beta=0.3, certificate="exact", tol=1e-6, backend="numpy")
    for model in (sol, sol.network, (sol.network.first_layer, sol.network.second_layer)):
        got = certify(model, X, y, beta=0.3, kind="exact", tol=1e-6, backend="numpy")
        assert got.objective == pytest.approx(sol.objective, rel=1e-12) and got.gap <= 2e-6
        assert got.lower_bound == pytest.approx(sol.lower_bound, rel=3e-6) and got.rigorous
        assert got.gap == pytest.approx((got.objective - got.lower_bound) / got.objective)
        assert got.dual.shape == (20,) and "exact (rigorous): lower bound" in str(got)


@pytest.mark.parametrize("biased", [False, True])
def test_torch(biased):
    torch = pytest.importorskip("torch")
    X, y = teacher(seed=1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 5, bias=biased), torch.nn.ReLU(), torch.nn.Linear(5, 1, bias=biased)
    ).double()
    first, second = (model[k].weight.detach().numpy().T for k in (0, 2))
    biases = [model[k].bias.detach().numpy() for k in (0, 2)] if biased else [None, 0.0]
    got = certify(model, X, y, beta=0.2, kind="exact", backend="numpy")
    assert got.objective == pytest.approx(written_out(X, y, 0.2, first, second, *biases), rel=1e-12)
    ones = np.ones((20, 1))
    columns, free = (np.hstack([X, ones]), ones) if biased else (X, None)
    truth = network_optimum(columns[:12], y[:12], 0.2, None, None if free is None else free[:12])
    few = certify(model, X[:12], y[:12], beta=0.2, kind="exact", tol=1e-6, backend="numpy")
    assert few.lower_bound == pytest.approx(truth, rel=1e-5)


def test_scikit_learn():
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    X, y = teacher(40, 3, seed=2)
    options = {"hidden_layer_sizes": (8,), "solver": "lbfgs", "max_iter": 40, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPRegressor(**options).fit(X, y)
        classes = MLPClassifier(**options).fit(X, y > 0)
    (first, second), (hidden, bias) = model.coefs_, model.intercepts_
    for kind in ("relaxed", "priced"):
        got = certify(model, X, y, beta=0.2, kind=kind, backend="numpy")
        assert got.objective == pytest.approx(written_out(X, y, 0.2, first, second, hidden, bias), rel=1e-9)
        assert 0 < got.lower_bound < got.objective
    logits = certify(classes, X, np.where(y > 0, 1.0, -1.0), beta=0.2, backend="numpy")
    assert 0 < logits.lower_bound < logits.objective


@pytest.mark.parametrize("c", [1, 3])
def test_outputs(c):
    X, y = teacher(30, 4, c, seed=3)
    sol = cvxrelu.solve(X, y, beta=0.3, backend="numpy")
    relaxed = certify(sol, X, y, beta=0.3, kind="relaxed", backend="numpy")
    priced = certify(sol, X, y, beta=0.3, backend="numpy")
    assert relaxed.dual.shape == priced.dual.shape == (30, c)
    assert 0 < relaxed.lower_bound <= priced.lower_bound * (1 + 1e-3) and priced.gap <= 3e-3
    assert priced.lower_bound <= sol.objective


def test_a_priced_certificate_says_that_it_is_an_estimate():
    X, y = teacher(seed=4)
    got = certify((np.eye(2), np.ones(2)), X, y, beta=0.3, backend="numpy")
    assert (got.kind, got.rigorous) == ("priced", False) and got.starts > 0
    assert f"estimate from {got.starts} starts" in str(got)
    again = certify((np.eye(2), np.ones(2)), X, y, beta=0.3, backend="numpy")
    assert again.lower_bound == got.lower_bound


def test_the_program_is_that_of_the_network():
    """What a network may use beside its neurons lowers the optimum that it is compared with."""
    X, y = teacher(seed=5)
    y = y + 3.0 + X[:, 0]
    W, a, b = np.eye(2), np.ones(2), np.zeros(2)
    options = {"beta": 0.3, "kind": "exact", "tol": 1e-5, "backend": "numpy"}
    plain = certify((W, a), X, y, **options)
    hidden = certify((W, a, b), X, y, **options)
    bias = certify((W, a, None, None, 0.0), X, y, **options)
    skip = certify((W, a, None, np.zeros(2), 0.0), X, y, **options)
    assert plain.objective == hidden.objective == bias.objective == skip.objective
    assert skip.lower_bound < bias.lower_bound < plain.lower_bound
    assert hidden.lower_bound < plain.lower_bound
    dual = skip.dual
    np.testing.assert_allclose(np.hstack([X, np.ones((20, 1))]).T @ dual, 0.0, atol=1e-12 * np.abs(dual).sum())


@pytest.mark.parametrize("kind", ["exact", "relaxed", "priced"])
def test_free_parts_that_explain_everything_leave_no_bound(kind):
    """As many free coefficients as rows: the optimum is zero, and a residual of rounding must not be scaled up."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3):
        X, y = rng.standard_normal((n, 2)), rng.standard_normal(n)
        network = (rng.standard_normal((2, 4)), rng.standard_normal(4), None, rng.standard_normal(2), 0.3)
        assert certify(network, X, y, beta=0.1, kind=kind, backend="numpy").lower_bound <= 1e-25


@pytest.mark.parametrize("kind", ["exact", "relaxed", "priced"])
def test_odd_networks(kind):
    """No neurons, dead ones, and ones whose norms overflow together: each is a network."""
    X, y = teacher(seed=6)
    options = {"beta": 0.3, "kind": kind, "backend": "numpy"}
    zero = certify((np.zeros((2, 0)), np.zeros(0)), X, y, **options)
    assert zero.objective == pytest.approx(0.5 * y @ y)
    dead = certify((np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([0.0, 4.0])), X, y, **options)
    assert dead.objective == pytest.approx(0.5 * y @ y) and dead.lower_bound == pytest.approx(
        zero.lower_bound, rel=1e-2
    )
    scaled = certify((1e150 * np.eye(2), 1e-150 * np.ones(2)), X, y, **options)
    assert scaled.objective == pytest.approx(certify((np.eye(2), np.ones(2)), X, y, **options).objective)


def test_a_time_limit_costs_tightness_only():
    X, y = teacher(60, 6, seed=7)
    options = {"beta": 0.2, "kind": "relaxed", "backend": "numpy"}
    quick = certify((np.eye(6), np.ones(6)), X, y, time_limit=1e-6, **options)
    best = cvxrelu.solve(X, y, beta=0.2, backend="numpy").objective
    assert quick.rigorous and quick.lower_bound <= best


def test_on_jax():
    X, y = teacher(seed=8)
    here = certify((np.eye(2), np.ones(2)), X, y, beta=0.3, kind="exact", backend="numpy", tol=1e-5)
    there = certify((np.eye(2), np.ones(2)), X, y, beta=0.3, kind="exact", backend="jax", tol=1e-5)
    assert there.lower_bound == pytest.approx(here.lower_bound, rel=1e-4)


# -- refusals ---------------------------------------------------------------------------------------------------------
X4, Y4 = teacher(10, 4, seed=9)
NETWORK = (np.eye(4), np.ones(4))


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"kind": "best"}, ValueError, "kind must be 'priced', 'relaxed', 'branch' or 'exact', got 'best'"),
        ({"kind": None}, ValueError, "kind must be"),
        ({"kind": "exact"}, ValueError, "an exact certificate needs X of rank at most 3, got rank 4: use 'relaxed'"),
        ({"beta": 0}, ValueError, "beta must be a positive finite number"),
        ({"tol": -1.0}, ValueError, "tol must be"),
        ({"time_limit": 0}, ValueError, "time_limit must be"),
        ({"backend": "torch"}, ValueError, "backend must be"),
        ({"seed": -1}, ValueError, "seed must be a nonnegative integer"),
        ({"X": X4[:, :3]}, ValueError, r"network takes 4 features and has 1 outputs; expected 3 and 1"),
        ({"X": np.full((10, 4), np.nan)}, ValueError, "X must be finite"),
        (
            {"y": np.stack([Y4, Y4], axis=1)},
            ValueError,
            r"network takes 4 features and has 1 outputs; expected 4 and 2",
        ),
        ({"y": None}, ValueError, "y is required"),
        ({"y": Y4[:3]}, ValueError, "y must have shape"),
        ({"sample_weight": -np.ones(10)}, ValueError, "sample_weight must be nonnegative"),
        ({"network": (np.eye(4),)}, (TypeError, ValueError), "second_layer|model"),
        ({"network": "net"}, TypeError, "model must be"),
        ({"network": (np.eye(4), np.ones(3))}, ValueError, "second_layer has shape"),
        ({"loss": "logistic"}, ValueError, r"y must hold -1 and \+1 only with loss='logistic', got -?\d"),
        ({"loss": "hinge"}, ValueError, "loss must be one of"),
        ({"pairs": np.zeros((3, 2), int)}, ValueError, "pairs must compare different rows, got row 0 beside itself"),
        ({"margin": 1.0}, ValueError, "margin needs loss='logistic', got 1.0 with loss='squared'"),
        ({"skip_l2": 1.0}, ValueError, "skip_l2=1.0 needs skip='bias' or 'linear'"),
    ],
)
def test_bad_input_is_one_clear_line(options, kind, says, capfd):
    given = {"network": NETWORK, "X": X4, "y": Y4, "beta": 1.0, **options}
    with pytest.raises(kind, match=says) as caught:
        certify(given.pop("network"), given.pop("X"), given.pop("y"), **given)
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")


def test_exact_needs_one_output():
    X, y = teacher(10, 2, 2)
    with pytest.raises(ValueError, match="one output, got y with 2: use 'relaxed'"):
        certify((np.eye(2), np.ones((2, 2))), X, y, beta=1.0, kind="exact")


@pytest.mark.parametrize("skip_l2", [0.0, 0.5])
def test_a_bias_drops_out_of_pairs(skip_l2):
    """Whatever penalty is named for it: without a constant it predicts the same differences."""
    rng = np.random.default_rng(3)
    X, pairs = rng.standard_normal((12, 3)), np.arange(12).reshape(6, 2)
    sol = cvxrelu.solve(X, loss="logistic", pairs=pairs, beta=0.05, skip="bias", skip_l2=0.5, backend="numpy")
    moved = ReLUNetwork(sol.network.first_layer, sol.network.second_layer, bias=3.0)
    options = {"loss": "logistic", "pairs": pairs, "beta": 0.05, "backend": "numpy"}
    found = certify(moved, X, skip_l2=skip_l2, **options)
    assert found.objective == pytest.approx(sol.objective, rel=1e-9) and found.gap <= 2e-3
    with pytest.raises(ValueError, match="skip_l2"):
        certify(moved, X, skip_l2=-1.0, **options)
