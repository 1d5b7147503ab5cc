"""The line of coupled rows: its bounds hold, rise with time, go on from a checkpoint, and follow the gradient of D."""

import time

import numpy as np
import pytest
from oracles import constraint_at

import cvxrelu
from cvxrelu.certificates.branching import coupled_line
from cvxrelu.certificates.branching.box_search import BoxLine
from cvxrelu.certificates.branching.branch import branch_lower_bound
from cvxrelu.certificates.branching.coupled_line import PER_ROUND, CoupledLine
from cvxrelu.certificates.coupling import Coupling
from cvxrelu.certificates.relaxation import relaxed_lower_bound
from cvxrelu.program.problem import build_problem
from cvxrelu.runs.checkpoint import Checkpoint
from cvxrelu.runs.proving import Branching, Ledger, Proof


def noisy(n=40, d=8, seed=0, loss="squared"):
    """Targets that alternate between near rows, at a small beta: what rows by themselves are bounded badly for."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n // 2, d))
    X = np.concatenate([X, X + 0.2 * rng.standard_normal(X.shape)])
    y = rng.standard_normal(n // 2)
    y = np.concatenate([y, -y]) + 0.3 * rng.standard_normal(n)
    y = np.sign(y) if loss == "logistic" else y
    return X, y, 0.03 * cvxrelu.beta_max(X, y, loss=loss)


def line_of(problem, t, saved=None, **options):
    ledger = Ledger(Proof(0.0, 0.0, t), Branching(**options), dict)
    ledger.target = np.inf
    return CoupledLine(problem, t, ledger, saved=saved)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("kind", ["plain", "weights", "flat", "scaled"])
def test_what_it_proves_holds_and_is_more_than_the_relaxed_bound(loss, kind):
    rng = np.random.default_rng(1)
    X, y, beta = noisy(loss=loss)
    weight = rng.integers(0, 3, size=len(y)).astype(float) if kind == "weights" else None
    if kind == "flat":  # rank 8 in ten dimensions
        X = X @ np.linalg.qr(rng.standard_normal((10, 8)))[0].T
    if kind == "scaled":
        X, beta = 1e5 * X, 1e5 * beta
    sol = cvxrelu.solve(X, y, beta=beta, loss=loss, backend="numpy", sample_weight=weight, tol=1e-2)
    problem = build_problem(X, y, beta=beta, loss=loss, sample_weight=weight, sampled=False)
    t = problem.loss.dual(sol.network.predict(X)[:, None])
    line = line_of(problem, t)
    line.go(np.inf, 2 * PER_ROUND)
    assert line.rounds == 2
    proof = line.ledger.best
    assert proof.bound <= sol.objective
    assert proof.bound > 1.4 * relaxed_lower_bound(problem, t)[0]
    u = rng.standard_normal((problem.X.shape[1], 4000))
    assert constraint_at(problem.X, proof.dual, u / np.linalg.norm(u, axis=0)).max() <= beta
    assert np.all(np.diff(line.ledger.history["lower_bound"]) >= 0)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_gradients(loss):
    rng = np.random.default_rng(0)
    X, y, beta = noisy(n=12, d=3, loss=loss)
    problem = build_problem(X, y, beta=beta, loss=loss, sample_weight=rng.uniform(0.5, 2.0, size=12), sampled=False)
    line = line_of(problem, problem.loss.dual(0.3 * rng.standard_normal((12, 1))))
    line.couplings = [Coupling(line.space.rows) for _ in (1, -1)]
    line.z = np.stack([side.start(p) for side, p, _ in line.sides(line.t)])
    _, of_f, of_z = line.value(line.f, line.z, 1e-8)
    for scale in (1e-6, 1e-7):
        f, z = scale * rng.standard_normal(line.f.shape), scale * rng.standard_normal(line.z.shape)
        change = line.value(line.f + f, line.z + z, 1e-8)[0] - line.value(line.f - f, line.z - z, 1e-8)[0]
        assert 0.5 * change == pytest.approx(np.sum(of_f * f) + np.sum(of_z * z), rel=1e-4)


def test_a_price_that_is_no_limit_has_no_slope():
    """With so much barrier both bounds are below zero, and no multiple of t is too large."""
    X, y, beta = noisy(n=12, d=3)
    line = line_of(build_problem(X, y, beta=beta, sampled=False), 0.5 * y[:, None])
    line.couplings = [Coupling(line.space.rows) for _ in (1, -1)]
    z = np.stack([side.start(p) for side, p, _ in line.sides(line.t)])
    assert max(side.smoothed(one, p, 1e3)[0] for (side, p, _), one in zip(line.sides(line.t), z, strict=True)) < 0
    value, of_f, of_z = line.value(line.f, z, 1e3)
    assert value == pytest.approx(0.5 * float(y @ y)) and not of_z.any()
    assert np.abs(of_f).max() < 1e-12 * np.abs(y).max()


@pytest.mark.parametrize("stop", [2, 5])
def test_a_resumed_proof_is_the_straight_one(tmp_path, stop):
    X, y, beta = noisy(n=30)
    problem, t = build_problem(X, y, beta=beta, sampled=False), y[:, None]
    straight, history = branch_lower_bound(problem, t, Branching(cones=8_000), deadline=np.inf)
    assert len(history["time"]) > stop
    seen = []

    def checkpoint():
        return Checkpoint(tmp_path / "proof", {"problem": 1}, {})

    first = Branching(cones=8_000, checkpoint=checkpoint(), note=lambda r: seen.append(r) or len(seen) >= stop)
    branch_lower_bound(problem, t, first, deadline=np.inf)
    again = Branching(cones=8_000, checkpoint=checkpoint())
    second, resumed = branch_lower_bound(problem, t, again, deadline=np.inf)
    np.testing.assert_array_equal(second.dual, straight.dual)
    np.testing.assert_array_equal(resumed["lower_bound"], history["lower_bound"])


def test_a_checkpoint_of_other_ways_keeps_its_bound(tmp_path):
    X, y, beta = noisy(n=30)
    problem, t = build_problem(X, y, beta=beta, sampled=False), y[:, None]
    folder = Checkpoint(tmp_path / "proof", {"problem": 1}, {})
    proof, _ = branch_lower_bound(problem, t, Branching(cones=8_000, checkpoint=folder), deadline=np.inf)
    saved = folder.load("branch")
    folder.save("branch", {**saved, "ways": ["boxes"], "lines": saved["lines"][1:]})
    later, _ = branch_lower_bound(problem, t, Branching(cones=100, checkpoint=folder), deadline=np.inf)
    assert later.bound >= proof.bound
    lines = [{name: part for name, part in line.items() if name != "slope"} for line in saved["lines"]]
    folder.save("branch", {name: part for name, part in saved.items() if name != "form"} | {"lines": lines})
    earlier, _ = branch_lower_bound(problem, t, Branching(cones=100, checkpoint=folder), deadline=np.inf)
    assert earlier.bound >= proof.bound


def test_a_round_ends_in_time(monkeypatch):
    """However many iterations a round has, and with a proof of what there is by then."""
    monkeypatch.setattr(coupled_line, "ROUND", 10**7)
    X, y, beta = noisy(n=300, d=20)
    problem = build_problem(X, y, beta=beta, sampled=False)
    line, seen, smoothed = line_of(problem, y[:, None]), [], Coupling.smoothed

    def counted(*args):
        seen.append(1)
        if len(seen) == 40:  # from here on it is late
            line.deadline = -np.inf
        return smoothed(*args)

    monkeypatch.setattr(Coupling, "smoothed", counted)
    line.go(np.inf, 10**9)
    assert line.rounds == 1 and 40 <= len(seen) < 100
    assert line.ledger.best.bound > 0


def test_nothing_is_proved_of_nothing():
    X, y, beta = noisy(n=30)
    nothing = line_of(build_problem(X, y, beta=beta, sampled=False), 0.0 * y[:, None])
    nothing.go(np.inf, 10**9)
    assert nothing.rounds == 0


def test_the_time_that_it_leaves_is_for_boxes(monkeypatch):
    """It proves more than boxes here, and ends: what is left of the time is not lost."""
    monkeypatch.setattr(coupled_line, "STALLED", (10.0, 10.0, 10.0))
    went = []
    monkeypatch.setattr(BoxLine, "finish", lambda self, *args: went.append(self.best))
    X, y, beta = noisy(n=30)
    problem = build_problem(X, y, beta=beta, sampled=False)
    proof, _ = branch_lower_bound(problem, y[:, None], Branching(), deadline=time.perf_counter() + 10.0)
    assert len(went) == 1 and went[0] < proof.bound
