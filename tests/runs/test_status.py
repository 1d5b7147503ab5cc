"""Statuses speak of the bound that is reported; messages name it, and exit codes follow."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

import cvxrelu
from cvxrelu.command_line import main as cli
from cvxrelu.command_line.parsing import exit_code_of
from cvxrelu.refinement import stage as refinement_stage
from cvxrelu.refinement.search import Refinement
from cvxrelu.runs.status import Status, status_of_bound

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 8))
Y = np.maximum(X @ RNG.standard_normal((8, 4)), 0) @ np.array([1.0, -1.0, 1.0, -1.0])
BETA = 0.2 * cvxrelu.beta_max(X, Y)
QUICK = {"beta": BETA, "backend": "numpy", "tol": 1e-2}


@pytest.mark.parametrize("ended", [status for status in Status if status is not Status.UNPROVEN])  # no search ends so
@pytest.mark.parametrize("rigorous", [True, False])
@pytest.mark.parametrize("gap", [0.0, 1e-3, 1.01e-3, 1e-2, 1.01e-2, 1.0])
def test_no_status_says_more_than_the_gap_reported(ended, rigorous, gap):
    status = status_of_bound(ended, gap, 1e-3, rigorous)
    if status is Status.OPTIMAL:
        assert gap <= 1e-3
    if status is Status.OPTIMAL_INACCURATE:
        assert gap <= 1e-2
    if status is Status.UNPROVEN:
        assert ended is Status.OPTIMAL and gap > 1e-3
    if ended in (Status.INTERRUPTED, Status.NUMERICAL_ERROR):
        assert status is ended
    elif gap <= 1e-3 and rigorous:
        assert status is Status.OPTIMAL
    assert status.success == (status in (Status.OPTIMAL, Status.OPTIMAL_INACCURATE))
    assert (status.exit_code == 0) == (status is Status.OPTIMAL)
    assert status_of_bound(status, gap, 1e-3, rigorous) is status


LABELS = np.sign(Y + 0.1)
PROGRAMS = {
    "squared": {},
    "outputs": {"y": np.stack([Y, -X[:, 0]], axis=1)},
    "bias": {"skip": "bias"},
    "logistic": {"y": LABELS, "loss": "logistic", "skip": "linear", "skip_l2": 1.0},
    "pairs": {"y": None, "loss": "logistic", "pairs": np.arange(120).reshape(-1, 2)},
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_tolerance_that_the_proof_does_not_reach_is_unproven(name):
    program = {"y": Y, **PROGRAMS[name]}
    given = {key: value for key, value in program.items() if key != "y"}
    beta = 0.2 * cvxrelu.beta_max(X, program["y"], **given)
    sol = cvxrelu.solve(X, **program, beta=beta, certificate="relaxed", backend="numpy", tol=1e-2)
    assert sol.certificate.kind == "relaxed" and sol.gap > 1e-2
    assert sol.status is Status.UNPROVEN and not sol.success
    assert f"gap {sol.gap:.1e} by the relaxed bound" in sol.message and "does not prove" in sol.message
    assert sol.network.metadata["status"] == "unproven" and sol.summary().split(":")[0].split() == [
        "status",
        "unproven",
    ]
    assert cvxrelu.solve(X, **program, beta=beta, backend="numpy", tol=1e-2).status is Status.OPTIMAL


def test_a_relaxed_bound_that_is_tight_enough_is_optimal():
    sol = cvxrelu.solve(X[:, :1], Y, beta=BETA, certificate="relaxed", backend="numpy", tol=1e-2)
    assert sol.status is Status.OPTIMAL and sol.certificate.rigorous and sol.gap <= 1e-2


@pytest.mark.parametrize(("certificate", "ends"), [("priced", Status.STALLED), ("relaxed", Status.STALLED)])
def test_a_stall_is_a_status_of_its_own(certificate, ends, monkeypatch):
    """Rounds that bring nothing: the search cannot get on, and no limit was reached."""
    rounds = itertools.count()
    whole = Refinement._round

    def barren(self, new, deadline):
        if next(rounds) == 0:
            whole(self, new, deadline)
        else:
            self.rounds += 1

    monkeypatch.setattr(Refinement, "_round", barren)
    sol = cvxrelu.solve(X, Y, **{**QUICK, "tol": 1e-6}, certificate=certificate)
    assert sol.status is ends and not sol.success and sol.gap > 1e-5
    assert "progress stopped" in sol.message and "max_iter" not in sol.message and f"{sol.gap:.1e}" in sol.message


def test_all_rounds_made_is_a_limit_that_is_named(monkeypatch):
    monkeypatch.setattr("cvxrelu.refinement.search.MAX_ROUNDS", 1)
    sol = cvxrelu.solve(X, Y, **{**QUICK, "tol": 1e-6})
    assert sol.status is Status.MAX_ITER and not sol.success
    assert sol.message.startswith(refinement_stage.ALL_ROUNDS) and "raise max_iter" not in sol.message


def test_the_sampled_program_speaks_of_itself():
    sol = cvxrelu.solve(X, Y, **QUICK, refine=False, patterns=20)
    assert sol.status is Status.OPTIMAL and sol.sampled.gap <= 1e-2 < sol.gap
    assert sol.message.startswith("the gap of the sampled program is at most tol (")
    assert f"network program: gap {sol.gap:.1e}" in sol.message
    assert sol.summary().startswith("status of (S)   optimal: ")
    assert f"status='optimal', sampled_gap={sol.sampled.gap:.2e}, objective=" in repr(sol)
    assert "sampled_gap" not in repr(cvxrelu.solve(X, Y, **QUICK))


def test_admm_that_stands_still_far_from_tol_has_stalled(monkeypatch):
    from cvxrelu.sampled.stage import SampledStage

    counted = SampledStage._iterate

    def hastened(self, steps):
        report = counted(self, steps)
        self.iteration += 2000  # as if that many had gone by
        return report

    monkeypatch.setattr(SampledStage, "_iterate", hastened)
    monkeypatch.setattr(SampledStage, "_certify", lambda self, check: None)  # no bound that would move the gap
    monkeypatch.setattr("cvxrelu.sampled.incumbent.Incumbent.offer", lambda self, check, values: None)
    options = {**QUICK, "refine": False, "patterns": 5, "max_iter": 10**7, "certificate": "relaxed"}
    sol = cvxrelu.solve(X[:, :2], Y, **options)
    assert sol.status is Status.STALLED and not sol.success and sol.n_iter < 10**5
    assert "progress stopped before the gap of the sampled program" in sol.message


@pytest.mark.parametrize("goes_on", [True, False])
def test_the_last_layer_has_stalled_only_where_nothing_moves(goes_on, monkeypatch):
    from cvxrelu.last_layer import run as logistic_run

    whole, checks = logistic_run.measure, itertools.count(1)

    def without_bound(*arguments):
        found = whole(*arguments)
        falling = 100.0 * 0.99 ** next(checks) if goes_on else 100.0
        return found._replace(objective=falling, lower_bound=0.0)

    monkeypatch.setattr(logistic_run, "measure", without_bound)
    sol = cvxrelu.solve_logistic(X, LABELS, l2=1.0, max_iter=900, finish=False, backend="numpy", tol=1e-3)
    assert sol.status is (Status.MAX_ITER if goes_on else Status.STALLED) and not sol.success


@pytest.mark.parametrize("name", ["unproven", "stalled", "optimal_inaccurate", "max_iter", "optimal"])
def test_a_path_names_the_points_that_failed(name, around_solves):
    def solve(_, run, beta, settings, **more):
        solution = run(beta, settings, **more)
        first = Status.OPTIMAL_INACCURATE if beta == 9.0 else solution.status
        return dataclasses.replace(solution, status=Status(name) if beta < 2 else first)

    around_solves(solve)
    found = cvxrelu.path(X, Y, betas=[9.0, 3.0, 1.0], tol=5e-2, backend="numpy")
    failed = name in ("unproven", "stalled", "max_iter")
    assert found.status is (Status(name) if failed else Status.OPTIMAL_INACCURATE)
    said = {"unproven": "1 of 3 points reached tol by the search's estimate, and are not proven to"}
    assert found.message.startswith(said.get(name, "1 of 3 points did not reach tol") if failed else "3 points;")


# -- the command lines ------------------------------------------------------------------------------------------------
@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.column_stack([X, Y])
    np.savetxt("data.csv", rows, delimiter=",", header=",".join([*"abcdefgh", "y"]), comments="", fmt="%.6f")
    return tmp_path


def test_the_command_line_exits_with_what_the_bound_says(table):
    options = ["data.csv", "--target", "y", "--beta", "0.3", "--tol", "1e-2", "--quiet", "--test-size", "0"]
    for code, name, more in ((0, "optimal", []), (5, "unproven", ["--certificate", "relaxed"])):
        assert cli.main(["fit", *options, *more, "--out", name]) == code
        record = json.loads((table / name / "solution.json").read_text())
        assert record["status"] == name and (record["gap"] <= 1e-2) == (code == 0)
        assert cvxrelu.ReLUNetwork.load(table / name / "network.safetensors").metadata["status"] == name


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["optimal"], 0), (["optimal", "unproven"], 5), (["unproven", "stalled"], 6), (["stalled", "max_iter"], 1),
        (["optimal_inaccurate"], 1), (["time_limit", "interrupted"], 130), (["numerical_error"], 1), ([], 0),
    ],
)  # fmt: skip
def test_the_worst_status_decides(names, code):
    solution = cvxrelu.solve(X[:20], Y[:20], beta=1e6, backend="numpy")
    assert exit_code_of([dataclasses.replace(solution, status=Status(name)) for name in names]) == code


def test_every_exit_code_is_in_the_help(capsys):
    assert cli.main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    for status in Status:
        assert f"\n  {status.exit_code} " in text
