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
from cvxrelu import admm, checkpoint, newton_stage
from cvxrelu.checkpoint import Checkpoint
from cvxrelu.solution import Status


@pytest.fixture(autouse=True)
def save_always(monkeypatch):
    # `run` sets these
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)
    monkeypatch.setattr(newton_stage, "LEAST_FLOPS", 0.0)


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
        with pytest.MonkeyPatch.context() as patch:
            for module, name in ((checkpoint, "INTERVAL"), (checkpoint, "SHARE"), (newton_stage, "LEAST_FLOPS")):
                patch.setattr(module, name, getattr(module, name))  # restored afterwards
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
