"""One line on a terminal, never mixed with what is printed; times left say "about", and no more than is known."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

from cvxrelu.support.status_line import StatusLine, say, status_line, tell
from cvxrelu.support.time_left import GapClock, WalkClock, about, time_left


class Terminal(io.StringIO):
    """A terminal as far as text goes: `rows` is what stands on it."""

    def __init__(self, is_terminal: bool = True) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    @property
    def rows(self) -> list[str]:
        rows = [""]
        for piece in re.split(r"(\r|\n|\x1b\[K)", self.getvalue()):
            if piece == "\n":
                rows.append("")
            elif piece == "\r":
                assert self.getvalue().count("\r") == self.getvalue().count("\r\x1b[K")
            elif piece == "\x1b[K":
                rows[-1] = ""
            elif piece:
                assert "\x1b" not in piece
                rows[-1] += piece
        return rows


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")


def test_the_line_is_rewritten_and_stays_below_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    with status_line(stream=screen):
        tell("a third")
        say("row 1")
        assert screen.rows == ["row 1", "a third"]
        say("row 2")
        assert screen.rows == ["row 1", "row 2", "a third"]
    assert screen.rows == ["row 1", "row 2", ""], "nothing of the line is left"
    tell("nobody listens")
    say("row 3")
    assert screen.rows[-2:] == ["row 3", ""]


def test_it_is_told_more_often_than_it_is_drawn() -> None:
    screen, clock = Terminal(), Clock()
    line = StatusLine(screen, clock)
    line.tell("one")
    line.tell("two")
    assert screen.rows == ["one"]
    clock.now = 0.2
    line.tell("three")
    assert screen.rows == ["three"]


def test_a_long_text_does_not_wrap() -> None:
    screen = Terminal()
    StatusLine(screen).tell("x" * 200)
    assert screen.rows == ["x" * 58 + "…"]


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_has_one_unless_it_is_asked_for(terminal: bool) -> None:
    screen = Terminal(terminal)
    with status_line(stream=screen):
        tell("here")
    assert bool(screen.getvalue()) is terminal
    screen = Terminal(terminal)
    with status_line(False, stream=screen):
        tell("here")
    assert screen.getvalue() == ""
    with status_line(True, stream=screen):
        tell("here")
    assert "here" in screen.getvalue() and ("\x1b" in screen.getvalue()) is terminal


def test_a_dumb_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    with status_line(stream=screen):
        tell("here")
    assert screen.getvalue() == ""


def test_a_closed_stream_costs_nothing_but_the_line() -> None:
    screen = Terminal()
    line = StatusLine(screen)
    screen.close()
    line.tell("here")
    line.wipe()


def test_time_left_of_equal_parts() -> None:
    assert time_left(0, 4, 3.0) == time_left(4, 4, 9.0) == ""
    assert time_left(1, 4, 20.0) == ", about 60 s left"
    assert [about(seconds) for seconds in (0.0, 4.4, 33, 89, 5000, 7200)] == [
        "about 1 s", "about 4 s", "about 35 s", "about 90 s", "about 83 min", "about 2.0 h",
    ]  # fmt: skip


def walk(walker: WalkClock, clock: Clock, seconds: list[float], patience: int = 2) -> list[str]:
    """What is said after each fold, where every point takes so long and each is better than the one before."""
    said = []
    for point, whole in enumerate(seconds):
        for done in range(walker.parts):
            said.append(walker.at(point, done, point + patience - 1))
            clock.now += whole / walker.parts
    return said


def test_nothing_is_said_of_time_before_it_can_be_known() -> None:
    clock = Clock()
    said = walk(WalkClock(13, 5, clock), clock, [0.1, 0.2, 0.4, 1.0])
    assert said[0] == "1 of at most 13, fold 1 of 5"
    assert not any("about" in words for words in said[:15]) and all("about" in words for words in said[15:])


def test_the_time_of_a_walk_is_said_twice_and_is_right_where_points_are_alike() -> None:
    clock = Clock()
    walker = WalkClock(13, 5, clock)
    said = walk(walker, clock, [10.0] * 6)
    # at the second fold of the sixth point: 8 s of it, and one more if it turns now; else all of 7 more
    assert said[26] == "6 of at most 13, fold 2 of 5; about 20 s left, more if it does not turn"
    clock = Clock()
    said = walk(WalkClock(13, 5, clock), clock, [10.0] * 13)
    # at the third fold of the tenth: 6 s of it, and one or three more
    assert said[47] == "10 of at most 13, fold 3 of 5; about 15 s left, about 35 s if all are needed"
    assert said[-1] == "13 of at most 13, fold 5 of 5; about 2 s left"


def test_points_that_get_dearer_are_expected_to() -> None:
    clock = Clock()
    said = walk(WalkClock(8, 2, clock), clock, [1.0, 1.5, 2.25, 3.375, 5.0625])
    # before the first fold of the fifth: growth 1.5, so 5.1 for it and 7.6 for the next; or 11.4 and 17.1 beyond
    assert said[8] == "5 of at most 8, fold 1 of 2; about 15 s left, about 40 s if all are needed"


def test_points_that_suddenly_take_long_are_not_taken_to_explode() -> None:
    clock = Clock()
    said = walk(WalkClock(8, 2, clock), clock, [0.001, 0.002, 0.1, 1.0, 1.0])
    assert said[8] == "5 of at most 8, fold 1 of 2; about 5 s left, about 20 s if all are needed"


def test_a_time_limit_is_the_most_that_is_left() -> None:
    clock = Clock()
    walker = WalkClock(8, 2, clock)
    walk(walker, clock, [10.0] * 4)
    assert walker.at(4, 0, 5, limit=7.0) == "5 of at most 8, fold 1 of 2; about 7 s left"


def test_a_gap_that_falls_by_a_factor_a_second_is_foreseen() -> None:
    clock = GapClock(1e-3)
    said = [clock.left(float(k), 10.0 ** -(k / 4)) for k in range(9)]
    assert said[:2] == ["", ""] and said[4] == "; about 8 s left" and said[8] == "; about 4 s left"
    assert clock.left(13.0, 5e-4) == "; being confirmed"


def test_a_gap_that_does_not_fall_has_no_time() -> None:
    clock = GapClock(1e-3)
    assert [clock.left(float(k), 0.1 * (1 + k)) for k in range(6)] == [""] * 6
    assert GapClock(1e-3).left(1.0, float("nan")) == GapClock(1e-3).left(1.0, np.inf) == ""


def test_of_a_gap_that_goes_up_and_down_the_lowest_counts() -> None:
    clock = GapClock(1e-3)
    said = [clock.left(float(k), 10.0 ** -(k / 4) * (1 + 2 * (k % 2))) for k in range(9)]
    assert 3 <= int(said[8].split()[2]) <= 6
    assert [clock.left(9.0 + k, 0.5) for k in range(5)][-1] == "", "no progress, and no time"


def test_what_was_told_last_is_shown_after_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, clock = Terminal(), Clock()
    monkeypatch.setattr("sys.stdout", screen)
    line = StatusLine(screen, clock)
    line.tell("the choice")
    line.tell("the fit")  # too soon to be drawn
    line.say("row")
    assert screen.rows == ["row", "the fit"]
