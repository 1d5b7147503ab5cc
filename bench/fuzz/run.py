"""Malformed and odd inputs for every reader of files: read rightly, or one error of the documented kind.

Run `python -m bench.fuzz [--count 10000] [--only KIND ...] [--case KIND NUMBER] [--fresh]`.

Input k of a kind is drawn from `default_rng([BASE, kind, k])`: a small valid file, most of the time with one or two
changes to its values, its structure, its bytes, its encoding or to the file as such. What is counted:

    read          what was read is what the file says; where the file is valid, what was written
    refused       an error of the documented kind, that names the file, and the line where one line alone was changed
    unnamed       such an error without the name of the file, or without the line
    wrong         something else than the file says, or a valid file refused
    exception     of another kind
    hang          more than `SECONDS`
    write         a file in the given folder or beside it was made, changed or deleted, but for what a cache may drop

Each input has a folder of its own, and one beside it that nothing may touch. Results go to bench/.cache/fuzz.jsonl as
they come, so that a run which was stopped goes on where it was; then to bench/results/fuzz.json and docs/fuzz.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.common.report import ROOT, markdown_table, put_between_markers, save_json
from bench.fuzz.inputs import KINDS, Case

__all__ = ["FAULTS", "Outcome", "run_case"]

BASE, SECONDS = 20261127, 5.0
CACHE = ROOT / "bench" / ".cache" / "fuzz.jsonl"
FAULTS = ("unnamed", "wrong", "exception", "hang", "write")


class Outcome(NamedTuple):
    """What became of one input: one of the words above, which input it was, and what was said."""

    word: str
    name: str
    said: str


class Hang(BaseException):
    """No reader catches this."""


def run_case(kind: str, number: int, seconds: float = SECONDS) -> Outcome:
    """Input `number` of a kind, made, read and judged."""
    rng = np.random.default_rng([BASE, list(KINDS).index(kind), number])
    with tempfile.TemporaryDirectory(prefix="cvxrelu-fuzz-") as name:
        given, outside = Path(name) / "given", Path(name) / "outside"
        given.mkdir()
        outside.mkdir()
        (outside / "bystander.txt").write_text("not yours")
        with _quiet():
            case = KINDS[kind](rng, given, outside)
        before = {place: _snapshot(place) for place in (given, outside)}
        word, said = _judged(case, seconds)
        if word in ("read", "refused"):
            for place, files in before.items():
                if changed := _changed(files, _snapshot(place), case.may_write if place == given else ()):
                    word, said = "write", f"{place.name}/{changed}"
        return Outcome(word, case.name, said.replace(name, "..."))


def _judged(case: Case, seconds: float) -> tuple[str, str]:
    try:
        with _limit(seconds), _quiet():
            found = case.read()
            wrong = case.right(found)
    except Hang:
        return "hang", f"more than {seconds:g} s"
    except case.errors as error:
        said = str(error)
        if case.valid:
            return "wrong", f"a valid file is refused: {said[:300]}"
        named = any(name in said for name in case.names)
        placed = not case.line or f"line {case.line}" in said or "no triples in" in said
        return ("refused" if named and placed else "unnamed"), said[:300]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "exception", f"{type(error).__name__}: {str(error)[:300]}"
    return ("read", "") if wrong is None else ("wrong", wrong)


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Kind, size, time and inode of everything below a folder, links not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(place, name))
            size = () if name in folders else (status.st_size, status.st_mtime_ns)
            found[os.path.relpath(os.path.join(place, name), folder)] = (status.st_mode, status.st_ino, *size)
    return found


def _changed(before: dict[str, Any], after: dict[str, Any], may_write: tuple[str, ...]) -> str | None:
    """The first name that is new, gone or different, but for those that may be."""
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return next((name for name in names if not (may_write and name.endswith(may_write))), None)


# -- the run ----------------------------------------------------------------------------------------------------------
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each kind (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), help="these kinds")
    parser.add_argument("--case", nargs=2, metavar=("KIND", "NUMBER"), help="one input, and what became of it")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    options = parser.parse_args()
    if options.case:
        print(run_case(options.case[0], int(options.case[1])))
        return
    _limit_memory()
    CACHE.parent.mkdir(exist_ok=True)
    if options.fresh:
        CACHE.unlink(missing_ok=True)
    known = _known()
    with open(CACHE, "a", encoding="utf-8") as file:
        for kind in options.only:
            for number in range(options.count):
                if (kind, number) not in known:
                    outcome = run_case(kind, number)
                    known[kind, number] = outcome
                    file.write(json.dumps([kind, number, *outcome]) + "\n")
                    if number % 100 == 0:
                        file.flush()
            file.flush()
            counts = Counter(known[kind, number].word for number in range(options.count))
            print(f"{kind:24} {dict(counts)}", flush=True)
    publish({key: outcome for key, outcome in known.items() if key[1] < options.count})


def _limit_memory() -> None:
    """A declared size that is believed ends as a MemoryError, which no reader may let out."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _known() -> dict[tuple[str, int], Outcome]:
    found = {}
    if CACHE.exists():
        for line in CACHE.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last one, of a run that was killed
                kind, number, *outcome = json.loads(line)
                found[kind, number] = Outcome(*outcome)
    return {key: outcome for key, outcome in found.items() if outcome.word not in FAULTS}  # these are tried again


def publish(known: dict[tuple[str, int], Outcome]) -> None:
    """bench/results/fuzz.json and the tables of docs/fuzz.md."""
    header = ["kind", "inputs", "read", "refused", *FAULTS]
    rows, cases = [], []
    for kind in KINDS:
        counts = Counter(outcome.word for (name, _), outcome in known.items() if name == kind)
        if counts:
            rows.append([kind, counts.total(), *(counts[word] for word in header[2:])])
    for (kind, number), outcome in sorted(known.items()):
        if outcome.word in FAULTS:
            cases.append({"kind": kind, "number": number, **outcome._asdict()})
    save_json("fuzz", {"base": BASE, "columns": header, "rows": rows, "faults": cases})
    text = markdown_table(header, rows)
    if cases:
        shown = [[case["kind"], case["number"], case["word"], *(_plain(case[key]) for key in ("name", "said"))]
                 for case in cases[:20]]  # fmt: skip
        text += "\n\nThe first of what is left:\n\n" + markdown_table(["kind", "number", "", "input", "said"], shown)
    put_between_markers("docs/fuzz.md", "fuzz", text)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|")[:80]


if __name__ == "__main__":
    main()
