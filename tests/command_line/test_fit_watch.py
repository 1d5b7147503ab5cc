"""`cvxrelu fit` while it runs: how far it is, and what Ctrl-C leaves of the choice of beta."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cvxrelu.api import beta_search
from cvxrelu.command_line.main import main
from cvxrelu.command_line.watch import fit_watch, search_watch

FIT = ["--target", "y", "--tol", "1e-2", "--out"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 3))
    y = np.maximum(X @ [1.0, -1.0, 0.5], 0.0) + 0.1 * rng.standard_normal(150)
    np.savetxt(tmp_path / "d.csv", np.c_[X, y], delimiter=",", header="a,b,c,y", comments="")
    return tmp_path / "d.csv"


def test_what_is_said_and_when(table: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("cvxrelu.support.status_line.StatusLine.tell", lambda _, text: said.append(text))
    out = str(table.parent / "m")
    assert main(["fit", str(table), *FIT, out, "--progress", "--quiet"]) == 0
    betas = len(json.loads((table.parent / "m" / "solution.json").read_text())["beta_choice"]["betas"])
    choosing = [words for words in said if words.startswith("choosing beta")]
    assert len(choosing) == betas * 6, "at the start of a beta, and after each of its five folds"
    assert choosing[0] == "choosing beta: 1 of at most 13, fold 1 of 5, then the last fit"
    assert choosing[-1].startswith(f"choosing beta: {betas} of at most 13, fold 5 of 5; about ")
    assert said[len(choosing)] == "fitting to all training rows"
    assert said[len(choosing) + 1].startswith("round 0: gap ") and "1e-02 is wanted" in said[-1]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("option", [[], ["--no-progress"]])
def test_standard_error_stays_empty_where_it_is_no_terminal(table: Path, option: list[str], capsys) -> None:
    assert main(["fit", str(table), *FIT, str(table.parent / "m"), "--beta", "0.1", *option]) == 0
    assert capsys.readouterr().err == ""


def test_the_sampled_program_is_watched_too(table: Path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("cvxrelu.support.status_line.StatusLine.tell", lambda _, text: said.append(text))
    sampled = ["--no-refine", "--patterns", "8", "--max-iter", "50", "--quiet", "--progress"]
    assert main(["fit", str(table), *FIT, str(table.parent / "m"), *sampled]) in (0, 1, 6)
    assert len(said) > 1 and all(words.startswith("iteration ") for words in said[1:])


def test_words_of_the_watches() -> None:
    said: list[str] = []
    now = [0.0]
    watch = search_watch(13, 5, lambda: now[0], said.append)
    for beta in range(5):
        for folds in range(6):
            watch(beta_search.Step(beta, folds, beta + 2, np.inf))
            now[0] += 2.0 * (folds < 5)
    assert said[3] == "choosing beta: 1 of at most 13, fold 4 of 5, then the last fit"
    assert said[-1] == "choosing beta: 5 of at most 13, fold 5 of 5; about 20 s left, more if it does not turn, " \
                       "then the last fit"  # fmt: skip
    watch = fit_watch(1e-3, said.append)
    for k in range(7):
        watch({"round": k, "gap": 10.0 ** -(k / 2), "priced": float(k)})
    assert said[-2] == "round 5: gap 3.2e-03, 1e-03 is wanted; about 1 s left"
    assert said[-1] == "round 6: gap 1.0e-03, 1e-03 is wanted; being confirmed"


def interrupt_at(monkeypatch, beta: int, fold: int) -> None:
    """A Ctrl-C in the middle of this fold of this beta."""
    solve, seen = beta_search._FoldPath.solve, []

    def interrupted(self, *arguments, **settings):
        seen.append(None)
        if len(seen) == 5 * beta + fold + 1:
            raise KeyboardInterrupt
        return solve(self, *arguments, **settings)

    monkeypatch.setattr(beta_search._FoldPath, "solve", interrupted)


def test_an_interrupted_choice_goes_on_with_the_best_so_far(table: Path, monkeypatch, capsys) -> None:
    interrupt_at(monkeypatch, 4, 2)
    out = table.parent / "m"
    assert main(["fit", str(table), *FIT, str(out)]) == 130
    record, printed = json.loads((out / "solution.json").read_text()), capsys.readouterr()
    choice = record["beta_choice"]
    assert choice["interrupted"] and len(choice["betas"]) == len(choice["scores"]) == 4
    best = int(np.argmax(np.mean(choice["scores"], axis=1)))
    assert choice["best"] == best and record["settings"]["beta"] == pytest.approx(choice["betas"][best])
    assert record["status"] == "interrupted" and "the best of 4 was taken; the last fit: optimal" in record["message"]
    assert record["n_neurons"] > 0 and record["gap"] <= 1e-2 and record["scores"]["R2"] > 0.3
    assert "interrupted: beta" in printed.err and "best of the 4 tried" in printed.err
    assert "interrupted: stopped by the user while beta was chosen" in printed.out
    assert main(["predict", str(out), str(table), "--out", str(table.parent / "p.csv")]) == 0


def test_a_second_interrupt_keeps_what_the_last_fit_has(table: Path, monkeypatch) -> None:
    interrupt_at(monkeypatch, 3, 0)
    stopped = []

    def again(_tol):
        def watch(record):
            stopped.append(record)
            raise KeyboardInterrupt

        return watch

    monkeypatch.setattr("cvxrelu.command_line.training.fit_watch", again)
    out = table.parent / "m"
    assert main(["fit", str(table), *FIT, str(out), "--quiet"]) == 130
    record = json.loads((out / "solution.json").read_text())
    assert len(stopped) == 1 and record["status"] == "interrupted"
    assert "the best of 3 was taken; the last fit: interrupted" in record["message"]


@pytest.mark.parametrize(("beta", "fold"), [(0, 0), (0, 3), (1, 4)])
def test_before_two_betas_there_is_nothing_to_keep(table: Path, monkeypatch, capsys, beta: int, fold: int) -> None:
    interrupt_at(monkeypatch, beta, fold)
    assert main(["fit", str(table), *FIT, str(table.parent / "m"), "--quiet"]) == 130
    assert capsys.readouterr().err == "cvxrelu: interrupted\n" and not (table.parent / "m").exists()


def test_without_a_signal_so_far_it_is_said_so(tmp_path: Path, monkeypatch, capsys) -> None:
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "d.csv", rng.standard_normal((150, 3)), delimiter=",", header="a,b,y", comments="")
    interrupt_at(monkeypatch, 2, 1)
    assert main(["fit", str(tmp_path / "d.csv"), *FIT, str(tmp_path / "m"), "--quiet"]) == 130
    assert "than a constant does by the time of the interrupt" in capsys.readouterr().err


def test_estimators_are_left_by_an_interrupt(table: Path, monkeypatch) -> None:
    from cvxrelu import ConvexReLURegressorCV

    X = np.loadtxt(table, delimiter=",", skiprows=1)
    interrupt_at(monkeypatch, 3, 0)
    with pytest.raises(KeyboardInterrupt):
        ConvexReLURegressorCV(tol=1e-2).fit(X[:, :3], X[:, 3])


@pytest.mark.skipif(os.name != "posix", reason="signals and pseudo-terminals")
def test_a_real_signal_on_a_real_terminal(table: Path) -> None:
    """The process is a child, its standard error a pseudo-terminal; the signal comes while beta is being chosen."""
    import pty

    master, slave = pty.openpty()
    code = "import sys; from cvxrelu.__main__ import main; sys.exit(main())"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH", "")]))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", code, "fit", "d.csv", "--target", "y", "--tol", "1e-3", "--out", "m"],
            cwd=table.parent, env=environment, stdout=subprocess.PIPE, stderr=slave, text=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(slave)
    assert child.stdout is not None
    scores = 0
    for line in child.stdout:
        scores += ": score " in line
        if scores == 4:
            break
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=120)
    assert child.returncode == 130
    time.sleep(0.1)
    shown = os.read(master, 1 << 20).decode()
    os.close(master)
    assert "choosing beta: 1 of at most 13, fold 1 of 5" in shown and "\x1b[K" in shown and "Traceback" not in shown
    record = json.loads((table.parent / "m" / "solution.json").read_text())
    assert record["status"] == "interrupted" and 4 <= len(record["beta_choice"]["betas"]) < 13
