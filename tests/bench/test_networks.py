"""The benchmark of networks: its pricing, its baselines and its cells, each against something independent."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import approx_fprime, lsq_linear

import cvxrelu
from bench.common import datasets
from bench.networks import baselines, cells, independent_pricing
from bench.networks import run as networks
from bench.networks import tables as network_tables


def problem(n: int = 40, d: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def price_on_a_grid(X: np.ndarray, t: np.ndarray) -> float:
    """Largest |t^T (X u)_+| over 200 000 directions of the plane, and those where a row has its kink."""
    kinks = np.arctan2(X[:, 1], X[:, 0])[:, None] + np.array([-0.5, 0.5]) * np.pi
    angle = np.concatenate([np.linspace(0, 2 * np.pi, 200_000), kinks.ravel()])
    best = 0.0
    for part in np.array_split(np.vstack([np.cos(angle), np.sin(angle)]), 100, axis=1):
        best = max(best, float(np.abs(t @ np.maximum(X @ part, 0)).max()))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_price_in_the_plane_is_that_of_a_dense_grid(seed: int) -> None:
    X, t = problem(seed=seed)
    found = independent_pricing.price(X, t, seed)
    assert found.value == pytest.approx(price_on_a_grid(X, t), rel=1e-8)
    assert np.linalg.norm(found.direction) == pytest.approx(1.0)
    assert found.value == pytest.approx(abs(t @ np.maximum(X @ found.direction, 0)), rel=1e-12)


def test_inner_problem_of_the_polish_agrees_with_an_active_set_method() -> None:
    rng = np.random.default_rng(0)
    rows, target, upper = rng.standard_normal((30, 8)), rng.standard_normal(8) * 5, rng.uniform(0, 1, 30)
    exact = lsq_linear(rows.T, target, (0.0, upper), method="bvls")
    np.testing.assert_allclose(
        independent_pricing.box_residual(rows, target, upper), target - rows.T @ exact.x, atol=1e-6
    )


def test_gap_is_zero_at_the_optimum_and_positive_elsewhere() -> None:
    X, y = problem()
    top = independent_pricing.beta_max(X, y)
    nothing = np.zeros((2, 0)), np.zeros(0)
    assert independent_pricing.gap(X, y, *nothing, 1.0001 * top.value).gap == pytest.approx(0.0, abs=1e-12)
    below = independent_pricing.gap(X, y, *nothing, 0.9 * top.value)
    # kappa = 0.9 is the best feasible multiple of t = y
    assert below.gap == pytest.approx(1 - (2 * 0.9 - 0.9**2), rel=1e-6)
    assert below.price_ratio == pytest.approx(1 / 0.9, rel=1e-6)


def test_gradient_of_the_baselines() -> None:
    X, y = problem()
    rng = np.random.default_rng(1)
    W, a = rng.standard_normal((2, 3)), rng.standard_normal(3)
    loss = baselines.Loss(X, y, 3)
    value, grad_W, grad_a = loss(W.astype(np.float32), a.astype(np.float32))

    def exact(x: np.ndarray) -> float:
        return 0.5 * float(np.sum((np.maximum(X @ x[:6].reshape(2, 3), 0) @ x[6:] - y) ** 2))

    x = np.concatenate([W.ravel(), a])
    assert value == pytest.approx(exact(x), rel=1e-5)
    np.testing.assert_allclose(np.concatenate([grad_W.ravel(), grad_a]), approx_fprime(x, exact), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["lbfgs", "adam"])
def test_baselines_find_zero_above_beta_max_and_something_better_below(method: str) -> None:
    X, y = problem(60, 3)
    zero, top = 0.5 * float(y @ y), independent_pricing.beta_max(X, y).value
    for factor, expected in ((1.05, True), (0.5, False)):
        if method == "lbfgs":
            run = baselines.lbfgs(X, y, factor * top, 0)
        else:
            run = baselines.adam(X, y, factor * top, 0, 1e-2, 0.0, adam_least_steps=1000)
        assert run.objective == pytest.approx(baselines.objective(X, y, run.W, run.a, factor * top))
        assert (run.objective >= zero * (1 - 1e-6)) == expected
        assert run.objective <= zero * 1.001


def test_columns_constant_or_repeated_are_dropped() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2))
    table = np.column_stack([x[:, 0], np.full(20, 3.0), 2 * x[:, 0] + 1, -x[:, 0], x[:, 1]])
    train, other = datasets.with_constant(table, table[:5])
    assert train.shape == (20, 3)
    np.testing.assert_allclose(train[:, :2].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(train[:, :2].std(0), 1)
    np.testing.assert_allclose(train[:, 2], 1)
    np.testing.assert_allclose(other, train[:5])


def test_cells_are_made_once_per_key(tmp_path) -> None:
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"value": len(made)}

    path = tmp_path / "a" / "cell.json"
    for settings, belongs_to, redo, expected in (
        ({"v": 1}, ["x"], False, 1), ({"v": 1}, ["x"], False, 1), ({"v": 2}, ["x"], False, 2),
        ({"v": 2}, ["y"], False, 3), ({"v": 2}, ["y"], True, 4),
    ):  # fmt: skip
        assert cells.cached(path, settings, belongs_to, make, redo)["value"] == expected
    assert [found.name for found in path.parent.iterdir()] == ["cell.json"]


def test_tables_show_what_is_met_and_what_is_missed(tmp_path, monkeypatch) -> None:
    """A solver that never comes near the baseline's objective, and one that returns what L-BFGS finds, at once."""
    monkeypatch.setitem(networks.PROBLEMS, "yacht", lambda: datasets.Problem(*problem(60, 3)))
    monkeypatch.setattr(networks, "available", lambda name: True)
    monkeypatch.setitem(networks.SETTINGS["ours"], "repeats", 1)
    monkeypatch.setattr(network_tables, "FRACTIONS", [0.5, 0.3])
    networks.run_problem("yacht", [0.5, 0.3], "baselines", tmp_path, False)

    def solve(X: np.ndarray, y: np.ndarray, *, beta: float, refine: bool, **options: object) -> SimpleNamespace:
        W, a = np.zeros((3, 0)), np.zeros(0)
        if len(X) == 60 and found:
            W, a = found[0]
        objective = baselines.objective(X, y, W, a, beta)
        return SimpleNamespace(
            objective=objective, lower_bound=0.999 * objective, gap=1e-3,
            certificate=SimpleNamespace(kind="priced", starts=5), network=SimpleNamespace(
                first_layer=W, second_layer=a, n_neurons=len(a)),
            history=[{"time": 1e-6, "objective": objective}], timings={}, n_rounds=3,
            status=SimpleNamespace(value="optimal"),
            backend="numpy",
        )  # fmt: skip

    found: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(cvxrelu, "solve", solve)
    networks.run_problem("yacht", [0.5], "ours", tmp_path, False)
    X, y = problem(60, 3)
    beta = cells.load(cells.path_of(tmp_path, "yacht", "baselines", 0.3))["beta"]
    run = baselines.adam(X, y, beta, 0, 3e-2, 0.0)
    found.append((run.W, run.a))
    networks.run_problem("yacht", [0.3], "ours", tmp_path, False)

    bad, good = (network_tables.met(row) for row in network_tables.collect(tmp_path))
    assert bad == {"objective": False, "time": False, "whole": True, "gap": False}
    assert good["objective"] and good["time"] and good["whole"]
    table = network_tables.render(tmp_path)
    assert "no: objective, time, gap" in table and "never" in table
    assert "1 of 2" in network_tables.summary(network_tables.collect(tmp_path))
