"""Real regression problems, standardised, with a constant column; skipped where the folder of data is absent."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

import cvxrelu
from cvxrelu import Status

DATA_SETS = {"yacht": (308, 6), "energy": (768, 8), "housing": (506, 13)}


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA_SETS)
def test_solved_with_both_bounds(shared_data, name):
    file = shared_data / "uci" / f"{name}.csv.gz"
    if not file.is_file():
        pytest.skip(f"{file.name} is not in the data folder")
    with gzip.open(file, "rt") as text:
        table = np.loadtxt(text, delimiter=",")
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    X, y = table[:, :-1], table[:, -1]
    assert X.shape == DATA_SETS[name]
    n = len(X)
    beta = 0.1 * cvxrelu.beta_max(X, y, patterns=64, intercept=True)
    sol = cvxrelu.solve(X, y, beta=beta, patterns=64, intercept=True, refine=False, certificate="relaxed", tol=1e-2)
    assert sol.status is Status.OPTIMAL

    residual = sol.network.predict(X) - y
    norms = np.hypot(np.linalg.norm(sol.network.first_layer, axis=0), sol.network.hidden_bias)
    written_out = 0.5 * residual @ residual + beta * norms @ np.abs(sol.network.second_layer)
    assert sol.objective == pytest.approx(written_out, rel=1e-9)
    assert 0 < sol.lower_bound <= sol.objective <= sol.sampled.objective * (1 + 1e-12) < 0.5 * n
    assert (sol.sampled.objective - sol.sampled.lower_bound) / sol.sampled.objective <= 1e-2
    assert sol.certificate.rigorous

    data = np.hstack([X, np.ones((n, 1))])
    M, (V, Z) = sol.sampled.patterns, sol.sampled.blocks
    slack = np.where(M, 1.0, -1.0)[:, None] * np.stack([data @ V, data @ Z], axis=1)
    assert slack.min() >= -1e-9 * np.linalg.norm(data, axis=1).max() * np.linalg.norm(sol.sampled.blocks, axis=1).max()
    fit = np.sum(M * (data @ (V - Z)), axis=1) - y
    value = 0.5 * fit @ fit + beta * np.linalg.norm(sol.sampled.blocks, axis=1).sum()
    assert sol.sampled.objective == pytest.approx(value, rel=1e-9)
