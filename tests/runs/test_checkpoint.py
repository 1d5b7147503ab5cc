"""A run that is killed goes on from its checkpoint and ends where it would have ended; another run's is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoint_child
import numpy as np
import pytest
from checkpoint_child import CASES, X, Y, answer, run

import cvxrelu
from cvxrelu.api.run_identity import open_checkpoint
from cvxrelu.backends.choose import get_backend
from cvxrelu.program.problem import build_problem
from cvxrelu.refinement.neurons import Neurons
from cvxrelu.refinement.search import Refinement
from cvxrelu.runs import checkpoint
from cvxrelu.runs.checkpoint import Checkpoint, digest
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.status import Status
from cvxrelu.sampled import admm, newton_stage
from cvxrelu.sampled.stage import SampledStage


@pytest.fixture(autouse=True)
def save_always(monkeypatch):
    # `run` sets these
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)
    monkeypatch.setattr(newton_stage, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(newton_stage, "ROWS", 0.0)
    monkeypatch.setattr(newton_stage, "FREEDOM", np.inf)


class Killed(BaseException):
    """Not caught by anything on the way."""


def killed_after(checks, case, folder, **changed):
    """Run until this many checks or rounds are recorded; false where the run ends before."""
    seen = 0

    def callback(_):
        nonlocal seen
        seen += 1
        if seen > checks:
            raise Killed

    try:
        run(case, folder, callback, **changed)
    except Killed:
        return True
    return False


@pytest.fixture(scope="module")
def whole():
    """The answers of uninterrupted runs, without any checkpoint."""
    found = {}

    def get(case):
        if case not in found:
            found[case] = run(case, None)
        return found[case]

    return get


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_takes_the_same_steps(case, tmp_path, whole):
    expected = whole(case)
    assert expected.success or case == "cg"
    assert len(expected.history) >= 3
    for k, checks in enumerate(sorted({1, len(expected.history) - 1})):
        assert killed_after(checks, case, tmp_path / str(k))
        assert answer(run(case, tmp_path / str(k))) == answer(expected)


def test_killed_again_and_again(tmp_path, whole):
    runs = 1
    while killed_after(5, "both", tmp_path):
        runs += 1
    assert runs > 2
    assert answer(run("both", tmp_path)) == answer(whole("both"))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["admm", "newton", "refinement"])
def test_sigkill_at_any_moment(case, tmp_path, whole):
    rng = np.random.default_rng(len(case))
    result, folder = tmp_path / "result.json", tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(cvxrelu.__file__).parent.parent)])}
    pause = 1.5 / len(whole(case).history)  # a run of some seconds
    command = [sys.executable, checkpoint_child.__file__, case, str(folder), str(result), str(pause)]
    kills = 0
    for attempt in range(6):
        child = subprocess.Popen(command, env=environment)
        if attempt < 2:
            while child.poll() is None and not list(folder.glob("*.npz")):
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 1.0))
            child.send_signal(signal.SIGKILL)
            kills += child.wait() == -signal.SIGKILL
        else:
            assert child.wait(timeout=60) == 0
            break
    assert kills >= 1
    assert json.loads(result.read_text()) == answer(whole(case))


@pytest.mark.parametrize("case", ["cg", "refinement"])
def test_jax(case, tmp_path):
    expected = run(case, None, backend="jax")
    assert killed_after(len(expected.history) // 2, case, tmp_path, backend="jax")
    got = run(case, tmp_path, backend="jax")
    assert got.objective == pytest.approx(expected.objective, rel=1e-10)
    assert got.lower_bound == pytest.approx(expected.lower_bound, rel=1e-10)
    assert len(got.history) == len(expected.history)


@pytest.mark.parametrize("case", ["admm", "newton"])
def test_a_finished_run_answers_without_a_step(case, tmp_path, whole, monkeypatch):
    first = run(case, tmp_path)

    def refuse(*_, **__):
        raise AssertionError("a step was taken")

    monkeypatch.setattr(admm, "run_chunk", refuse)
    monkeypatch.setattr(newton_stage.SampledNewton, "run", refuse)
    again = run(case, tmp_path)
    assert answer(again) == answer(first) == answer(whole(case))


def test_a_finished_refinement_prices_once_more(tmp_path, whole):
    run("refinement", tmp_path)
    rounds = []
    assert answer(run("refinement", tmp_path, rounds.append)) == answer(whole("refinement"))
    assert len(rounds) <= 1


@pytest.mark.parametrize("case", ["admm", "newton", "refinement"])
def test_a_finished_run_goes_on_to_a_smaller_tolerance(case, tmp_path, whole):
    coarse = run(case, tmp_path, tol=1e-2)
    fine = run(case, tmp_path)
    goal = CASES[case]["tol"]
    gap = fine.gap if fine.sampled is None else fine.sampled.gap
    assert coarse.success and fine.status is Status.OPTIMAL and gap <= goal
    assert fine.objective == pytest.approx(whole(case).objective, rel=2 * goal if case == "refinement" else 1e-2)


def test_max_iter_reached_is_where_the_next_run_goes_on(tmp_path):
    first = run("admm", tmp_path, max_iter=20)
    assert first.status is Status.MAX_ITER and first.n_iter == 20
    assert run("admm", tmp_path, max_iter=20).n_iter == 20
    second = run("admm", tmp_path, max_iter=45)
    assert second.n_iter == 45 and second.history[0] == first.history[0]


def backdate(folder, stage):
    """As if the runs so far had taken a thousand seconds more."""
    saved = json.loads((folder / "run.json").read_text())
    held = Checkpoint(folder, saved["problem"], saved["options"])
    state = held.load(stage)
    held.save(stage, {**state, "spent": state["spent"] + 1000.0})


@pytest.mark.parametrize(("case", "stage"), [("admm", "sampled"), ("both", "sampled"), ("refinement", "refinement")])
def test_times_include_those_of_the_runs_before(case, stage, tmp_path):
    assert killed_after(1, case, tmp_path)
    backdate(tmp_path, stage)
    sol = run(case, tmp_path)
    times = sol.history["time"]
    assert np.all(np.diff(times) >= 0) and times[0] < 1000.0 < times[-1] <= sol.timings["total"] < 2000.0


def test_phases_do_not_overlap(tmp_path):
    def slow(_):
        time.sleep(0.02)  # within the sampled stage, which is no part of preparing the refinement

    first = run("both", tmp_path, slow)
    for sol in (first, run("both", tmp_path)):
        assert sum(s for name, s in sol.timings.items() if name != "total") <= sol.timings["total"] * 1.01 + 1e-3
        assert sol.timings["iterate"] == first.timings["iterate"] > 0  # of which there is no more in the second run


def test_nothing_of_a_sampled_stage_is_forgotten(tmp_path):
    """All that a run has changed, found by looking: what is not computed again is as it was."""
    problem = build_problem(X, Y[:, 0], beta=1.0, patterns=15, seed=3)
    settings = Settings.read(rho=None, tol=1e-9, max_iter=40, time_limit=None, linear_solver="direct")

    def made():
        return SampledStage(problem, get_backend("numpy"), settings, checkpoint=opened(tmp_path))

    stage, fresh, again = made(), made(), made()
    stage.run()
    fresh._set_up()
    again._set_up()
    again.load()
    computed = {
        "basis",
        "data",
        "iterate",
        "saved",
        "landmarks",
        "rho",
        "system",
        "factor_seconds",
        "started",
        "exact",
        "best",
    }
    computed |= {"checkpoint", "history", "timings"}
    changed = {
        name
        for name, value in vars(stage).items()
        if name not in computed and not (hasattr(fresh, name) and equal(value, getattr(fresh, name)))
    }
    assert changed >= {"iteration", "residuals", "balance_at", "best_gap", "best_at", "method", "rho_values"}
    assert not [name for name in changed if not equal(getattr(stage, name), getattr(again, name))]
    assert again.history.records == stage.history.records
    for name in ("factor", "iterate"):
        assert again.timings[name] == stage.timings[name] > 0


def test_nothing_of_a_refinement_is_forgotten(tmp_path):
    problem, rounds = build_problem(X, Y[:, 0], beta=1.0), []

    def made():
        return Refinement(problem, get_backend("numpy"), dtype="float64", tol=1e-6, seed=3)

    search, fresh, again = made(), made(), made()
    search.run(lambda *_: rounds.append(None) or len(rounds) == 4, np.inf)
    search.idle, search.near = 2, True
    opened(tmp_path).save("refinement", search.state())
    again.restore(opened(tmp_path).load("refinement"))
    held = [name for name, value in vars(search).items() if isinstance(value, (bool, int, float, np.ndarray, Neurons))]
    changed = {name for name in held if name != "reached" and not equal(getattr(search, name), getattr(fresh, name))}
    assert changed >= {"neurons", "objective", "dual", "lower_bound", "proof", "rounds", "starts", "idle", "near"}
    assert not [name for name in changed if not equal(getattr(search, name), getattr(again, name))]
    assert search.pricing.misses.size > 0 and equal(search.pricing.misses, again.pricing.misses)
    assert search.pricing.rng.random() == again.pricing.rng.random() != fresh.pricing.rng.random()


CHANGES = [
    ("beta", {"beta": 2.0}),
    ("y", {"y": Y[:, 0] + 1e-9}),
    ("seed", {"seed": 4}),
    ("gates", {"patterns": 14}),
    ("rho", {"rho": 1.0}),
    ("linear_solver", {"linear_solver": "cg"}),
    ("certificate", {"certificate": "relaxed"}),
    ("backend", {"backend": "jax"}),
    ("working_dtype", {"dtype": "float32"}),
    ("sample_weight", {"sample_weight": np.full(80, 2.0)}),
    ("intercept", {"intercept": True}),
    ("skip", {"skip": "bias"}),
    ("refine", {"refine": True}),
]


@pytest.mark.parametrize(("name", "changed"), CHANGES, ids=[name for name, _ in CHANGES])
def test_another_run_is_refused(name, changed, tmp_path):
    run("admm", tmp_path, max_iter=5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"^checkpoint .*\b{name}\b") as error:
        run("admm", tmp_path, max_iter=5, **changed)
    assert "another folder" in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_data_are_refused(tmp_path):
    run("admm", tmp_path, max_iter=5)
    with pytest.raises(ValueError, match="another X"):
        cvxrelu.solve(X + 1e-12, beta=1.0, backend="numpy", seed=3, max_iter=5, checkpoint=tmp_path, **CASES["admm"])


RNG = np.random.default_rng(5)
PAIRS = np.arange(80).reshape(40, 2)
PLANE = RNG.standard_normal((1, 8))
PREFERENCES = {
    "y": np.sign(RNG.standard_normal(40)), "beta": 1.0, "loss": "logistic", "pairs": PAIRS, "skip": "linear",
    "skip_l2": 0.1, "equality": (PLANE, [1.0]), "patterns": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "squared"),
        ("margin", 0.5),
        ("pairs", PAIRS[:, ::-1]),
        ("skip_l2", 0.2),
        ("equality", (PLANE, [2.0])),
        ("equality", (-2 * PLANE + np.eye(8)[:1], [1.0])),
    ],
)
def test_all_of_the_problem_is_compared(name, value, tmp_path):
    open_checkpoint(tmp_path, build_problem(X, **PREFERENCES), {}, None, get_backend("numpy"))
    open_checkpoint(tmp_path, build_problem(X, **PREFERENCES), {}, None, get_backend("numpy"))
    with pytest.raises(ValueError, match=rf"^checkpoint .*\b{name}\b"):
        open_checkpoint(tmp_path, build_problem(X, **{**PREFERENCES, name: value}), {}, None, get_backend("numpy"))


def test_digests_are_of_all_entries_shape_and_type(monkeypatch):
    whole = RNG.standard_normal((7, 3))
    expected = digest(whole)
    monkeypatch.setattr(checkpoint, "HASHED", 6)  # two rows at a time
    assert digest(whole) == digest(np.asfortranarray(whole)) == digest(whole.copy()) == expected
    for row in range(7):
        changed = whole.copy()
        changed[row, 2] += 1e-9
        assert digest(changed) != expected
    zeros = [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(6), np.zeros((2, 6), dtype=np.float32)]
    assert len(set(map(digest, zeros))) == len(zeros)


def test_other_limits_are_not(tmp_path):
    run("admm", tmp_path, max_iter=5)
    assert run("admm", tmp_path, max_iter=10, tol=1e-3, time_limit=100.0, verbose=True).n_iter == 10


def test_a_warm_start_belongs_to_the_run(tmp_path):
    start = (np.eye(8), np.ones(8))
    run("refinement", tmp_path, warm_start=start, tol=1e-2)
    run("refinement", tmp_path, warm_start=start, tol=1e-2)
    with pytest.raises(ValueError, match="another warm_start"):
        run("refinement", tmp_path, warm_start=(2 * np.eye(8), np.ones(8)), tol=1e-2)


@pytest.mark.parametrize("bad", [3, "", b"", True, ["folder"]])
def test_bad_paths(bad):
    with pytest.raises(TypeError, match=r"^checkpoint"):
        run("admm", bad)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^checkpoint must be a folder"):
        run("admm", tmp_path / "file")


# -- the format -------------------------------------------------------------------------------------------------------
TREE = {
    "a": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "list": [1, 2.5, None, "text", True, np.float64(0.1), np.zeros(0)], "nan": [np.inf, -np.inf],
    "many": [np.arange(k) * 1.0 for k in range(10)], "big": 2**127, "nested": {"t": (np.array(3, dtype=np.int32), ())},
}  # fmt: skip


def opened(folder):
    return Checkpoint(folder, {"X": "0" * 64}, {"seed": 0})


def equal(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.flags.c_contiguous == other.flags.c_contiguous and (one == other).all()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return (type(one) is type(other) and one == other) or (isinstance(one, np.generic) and one.item() == other)


def test_what_is_saved_comes_back(tmp_path):
    opened(tmp_path).save("sampled", TREE)
    assert equal(TREE, opened(tmp_path).load("sampled"))
    with np.load(tmp_path / "sampled.npz", allow_pickle=False) as members:
        assert not any(members[name].dtype.hasobject for name in members)


def test_what_cannot_be_saved_is_refused(tmp_path):
    for bad in (object(), np.array([object()])):
        with pytest.raises(TypeError, match="a checkpoint cannot hold"):
            opened(tmp_path).save("sampled", {"bad": bad})
    assert opened(tmp_path).load("sampled") is None


def test_damage_is_reported(tmp_path):
    opened(tmp_path).save("sampled", TREE)
    path = tmp_path / "sampled.npz"
    whole, rng, reported = path.read_bytes(), np.random.default_rng(0), 0
    trials = [whole[: len(whole) // 2], whole[:-1], b"", b"\0" * len(whole)]
    for position in rng.choice(len(whole), 150, replace=False):
        trials.append(whole[:position] + bytes([whole[position] ^ (1 << rng.integers(8))]) + whole[position + 1 :])
    for content in trials:
        path.write_bytes(content)
        try:
            found = opened(tmp_path).load("sampled")
        except ValueError as error:
            assert str(error).startswith(f"checkpoint {path} is damaged")
            reported += 1
        else:
            assert equal(TREE, found)  # dates and names of the archive's own
    assert reported > 50


def test_a_state_that_was_changed_is_refused_though_the_archive_is_sound(tmp_path):
    opened(tmp_path).save("sampled", TREE)
    path = tmp_path / "sampled.npz"
    with np.load(path) as members:
        arrays = dict(members)
    name = next(name for name in arrays if name not in ("state", "sha256") and arrays[name].size)
    for changed in ({name: np.zeros_like(arrays[name])}, {"state": arrays["state"][:-1]}, {name: arrays[name].ravel()}):
        np.savez(path, **{**arrays, **changed})
        with pytest.raises(ValueError, match="does not fit its hash"):
            opened(tmp_path).load("sampled")
    np.savez(path, **arrays)
    assert equal(TREE, opened(tmp_path).load("sampled"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other", "problem": {}, "options": {}}', "\0"])
def test_a_damaged_description(content, tmp_path):
    opened(tmp_path).save("sampled", TREE)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="damaged"):
        opened(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="missing"):
        opened(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    opened(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(ValueError, match="format version 2"):
        opened(tmp_path)


def test_files_of_two_runs_are_not_mixed(tmp_path):
    opened(tmp_path / "a").save("sampled", TREE)
    Checkpoint(tmp_path / "b", {"X": "1" * 64}, {"seed": 0}).save("sampled", TREE)
    os.replace(tmp_path / "b" / "sampled.npz", tmp_path / "a" / "sampled.npz")
    with pytest.raises(ValueError, match="another run"):
        opened(tmp_path / "a").load("sampled")


def test_a_write_that_fails_leaves_the_last_one(tmp_path, monkeypatch):
    held = opened(tmp_path)
    held.save("sampled", {"a": 1})

    def half(file, **_):
        file.write(b"PK half")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint.np, "savez", half)
    with pytest.raises(OSError, match="no space"):
        held.save("sampled", {"a": 2})
    assert opened(tmp_path).load("sampled") == {"a": 1}


def test_writes_are_spaced(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 5.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0.05)
    held, written = opened(tmp_path), []
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now)
    for now in (100.0, 101.0, 104.9, 105.1, 109.0, 110.2):
        held.offer("sampled", lambda now=now: written.append(now) or {"now": now})
    assert written == [100.0, 105.1, 110.2]


def test_writing_takes_no_more_than_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 5.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0.05)
    held, clock, savez = opened(tmp_path), [100.0], np.savez

    def slow(*args, **arrays):
        clock[0] += 2.0
        savez(*args, **arrays)

    monkeypatch.setattr(checkpoint.np, "savez", slow)
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: clock[0])
    begun = []
    for now in (100.0, 108.0, 141.0, 142.5, 160.0, 184.6):  # two seconds are a twentieth of forty
        clock[0] = now
        held.offer("sampled", lambda now=now: begun.append(now) or {"now": now})
    assert begun == [100.0, 142.5, 184.6]
