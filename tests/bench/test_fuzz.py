"""Malformed and odd files of every kind, by seed: read rightly, or one error of the documented kind."""

from __future__ import annotations

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from bench.fuzz import run as fuzz
from bench.fuzz.inputs import KINDS, Case
from bench.fuzz.run import FAULTS, run_case

COUNT = 500
FAR = 60.0  # seconds after which a reader counts as hanging, on a busy machine too


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_is_read_rightly_or_refused(kind: str) -> None:
    outcomes = {number: run_case(kind, number, FAR) for number in range(COUNT)}
    assert {number: outcome for number, outcome in outcomes.items() if outcome.word in FAULTS} == {}
    words = [outcome.word for outcome in outcomes.values()]
    assert words.count("read") > 20 and words.count("refused") > 20  # both sides of the line were tried


@pytest.mark.parametrize(
    ("kind", "number", "word"),
    [
        ("preferences (Parquet)", 9084, "refused"),  # text that is not UTF-8 before the first row
        ("heads", 2886, "refused"),  # said to be the fault of another file of the folder
        ("networks", 7328, "read"),  # weights that are finite, and whose products are not
    ],
)
def test_what_ten_thousand_of_each_kind_found(kind: str, number: int, word: str) -> None:
    assert run_case(kind, number, FAR).word == word


def test_the_judge_sees_every_fault(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: BaseException):
        def read() -> None:
            raise error

        return read

    def waiting() -> None:
        while True:
            pass

    documented = (ValueError,)
    trials = {
        "read": ("read", {"read": lambda: 1}),
        "refused": ("refused", {"read": raising(ValueError("a.json, line 2: no"))}),
        "no name": ("unnamed", {"read": raising(ValueError("no"))}),
        "no line": ("unnamed", {"read": raising(ValueError("a.json: no")), "line": 2}),
        "another kind": ("exception", {"read": raising(KeyError("a.json"))}),
        "not even an Exception": ("exception", {"read": raising(GeneratorExit())}),
        "wrong": ("wrong", {"read": lambda: 1, "right": lambda found: "another"}),
        "valid": ("wrong", {"read": raising(ValueError("a.json: no")), "valid": True}),
        "hang": ("hang", {"read": waiting}),
    }
    for name, (word, settings) in trials.items():
        case = Case(name, errors=documented, names=("a.json",), **settings)
        monkeypatch.setitem(fuzz.KINDS, "trial", lambda rng, given, outside, case=case: case)
        assert run_case("trial", 0, 0.2).word == word, name


@pytest.mark.parametrize("place", ["given", "outside"])
@pytest.mark.parametrize("what", ["made", "changed", "deleted"])
def test_the_judge_sees_every_write(place: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(rng, given, outside) -> Case:
        file = {"given": given, "outside": outside}[place] / "b.txt"
        if what != "made":
            file.write_text("before")

        def read() -> None:
            file.unlink() if what == "deleted" else file.write_text("after that")

        return Case(what, read, (ValueError,), ("a.json",))

    monkeypatch.setitem(fuzz.KINDS, "trial", make)
    outcome = run_case("trial", 0)
    assert outcome.word == "write" and outcome.said == f"{place}/b.txt"
