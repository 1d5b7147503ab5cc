"""The command line: `cvxrelu demo`, `fit`, `predict` and `doctor`.

What can go wrong with a user's input or disk ends as one line on stderr and exit code 2. Only `demo` needs
scikit-learn, only reports need matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.backends import BackendError
from cvxrelu.command_line.model_folder import FILES, check_folder, describe, read_model, write_model
from cvxrelu.command_line.tables import UserError, load_data, read_table
from cvxrelu.command_line.training import Task, Trained, decide_task, labels, train
from cvxrelu.reports import environment
from cvxrelu.reports import page as report
from cvxrelu.reports.svg import load_matplotlib
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status
from cvxrelu.support import interrupts
from cvxrelu.support.files import atomic_write, new_folder

__all__ = ["build_parser", "main"]

OK, NOT_TO_TOL, BAD_INPUT, BROKEN_BACKEND, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 4, 130
PATTERNS = 128  # of the sampled program, unless told otherwise

_EXIT_CODES = """\
exit codes:
  0    success: the gap reported is at most --tol
  1    solved, but not to --tol; the status says why, and the best network is kept
  2    bad usage, bad input, or a file that cannot be written; one line on stderr says what
  3    a backend is broken or missing
  4    an error inside cvxrelu: the traceback belongs in a bug report
  5    unproven: the search met --tol, but the bound that --certificate asks for leaves more; the network is kept
  6    stalled: progress stopped before the gap was at most --tol; the best network is kept
  130  interrupted; `fit` keeps the best network found so far, if there is one
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return its exit code.

    >>> main(["predict", "no-such-folder", "data.csv"])
    2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as exit_:  # argparse has printed its message, or the help
        return int(exit_.code or 0)
    options.command_line = shlex.join(["cvxrelu", *arguments])
    try:
        return options.run(options)
    except UserError as error:
        return _complain(error, BAD_INPUT)
    except BackendError as error:
        return _complain(error, BROKEN_BACKEND)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # `cvxrelu predict ... | head`: the reader has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - keeps Python from flushing into the closed pipe at exit
        return OK
    except OSError as error:  # a full disk, a folder without permission
        return _complain(error, BAD_INPUT)
    except MemoryError as error:
        return _complain(
            f"not enough memory ({error}); use fewer rows, or with --no-refine fewer --patterns", BAD_INPUT
        )
    except Exception:
        if interrupts.pending():  # what an interrupt became in the hands of someone else's code
            return _complain("interrupted", INTERRUPTED)
        traceback.print_exc()
        return INTERNAL


def _complain(message: object, code: int) -> int:
    print("cvxrelu: " + " ".join(str(message).split()), file=sys.stderr)
    return code


# --- commands --------------------------------------------------------------------------------------------------------


def _fit(options: argparse.Namespace) -> int:
    out = Path(options.out)
    for name in ("patterns", "max_iter"):
        if options.refine and getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is about the sampled program only: pass --no-refine too")
    check_folder(out, options.overwrite)
    if options.report:
        _need(load_matplotlib)  # before the solve, so that a missing extra costs no waiting
    data = load_data(options.data, options.target, options.header)
    task = decide_task(data, options.task, options.test_size, options.seed)
    n_train, n_test = len(task.train_rows), len(task.test_rows)
    if not options.quiet:
        kind = f"classification, {len(task.classes)} classes" if task.classes else "regression"
        names = f"target {data.target_name}" if data.target_name else "no header row: columns go by position"
        print(f"{options.data}: {n_train + n_test} rows, {data.X.shape[1]} features, {names}; {kind} (see --task)")
        print(f"{n_train} rows to train on, {n_test} to test on", flush=True)
    forwarded = ("beta", "loss", "refine", "certificate", "seed", "tol", "max_iter", "time_limit", "backend", "dtype")
    settings = {name: getattr(options, name) for name in forwarded}
    settings["patterns"] = options.patterns or PATTERNS
    settings |= {name: getattr(options, name) for name in ("checkpoint", "memory_limit")}
    trained = train(task, relative=not options.absolute_beta, verbose=not options.quiet, **settings)
    solution = trained.solution
    record = {**task.facts, **describe(solution)}
    record["settings"] = {**solution.settings, "seed": options.seed, "test_size": options.test_size}
    record["standardisation"] = trained.standardisation
    record["scores"] = {"rows": trained.where, "n": len(trained.truth), **trained.scores}
    record["command"], record["versions"] = options.command_line, environment.versions()
    failure = None
    with new_folder(out, replace=FILES if options.overwrite else None) as folder:
        write_model(folder, trained.network, record)
        if options.report:
            try:
                _write_report(folder / "report.html", task, trained, options)
            except Exception as error:  # a plot is no reason to lose a network that took hours
                failure = error
    if failure is not None:
        raise failure
    if not options.quiet:
        print(solution.summary())
        words = [
            f"{name} {value:.4g} (baseline {trained.baseline[name]:.4g})" for name, value in trained.scores.items()
        ]
        print(f"{trained.where:15} {', '.join(words)}")
        print(f"written         {', '.join(sorted(str(out / file.name) for file in out.iterdir()))}")
    return _exit_code([solution])


def _write_report(path: Path, task: Task, trained: Trained, options: argparse.Namespace) -> None:
    models = {f"cvxrelu, {trained.network.n_neurons} neurons": trained.scores, trained.baseline_name: trained.baseline}
    n_train, n_test = len(task.train_rows), len(task.test_rows)
    section = report.Section(
        name=Path(options.data).name,
        solution=trained.solution,
        description=f"{task.kind.capitalize()}: {n_train} training rows, {n_test} test rows.",
        scores=[{"Model": model, **row} for model, row in models.items()],
        truth=trained.truth,
        predictions=trained.guess,
        classes=task.classes or None,
        rows=trained.where,
    )
    title = f"cvxrelu: {section.name}"
    report.write_report(path, [section], title=title, command=options.command_line, seed=options.seed)


def _predict(options: argparse.Namespace) -> int:
    model = read_model(Path(options.model))
    if options.out and os.path.lexists(options.out) and not options.overwrite:
        raise UserError(f"--out {options.out}: the file exists; choose another, or pass --overwrite")
    table = read_table(options.data, model.feature_names or (), options.header)
    output = model.network.predict(model.features(table))
    values = labels(model.classes, output, model.network) if model.classes else [repr(float(value)) for value in output]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([model.target or "prediction"])
    writer.writerows([value] for value in values)
    if options.out:
        atomic_write(options.out, text.getvalue(), overwrite=options.overwrite)
    else:
        sys.stdout.write(text.getvalue())
        sys.stdout.flush()
    return OK


def _doctor(_options: argparse.Namespace) -> int:
    if broken := environment.print_checkup():
        return _complain(f"broken: {', '.join(broken)}; use another --backend, or reinstall", BROKEN_BACKEND)
    print("\nall available backends work")
    return OK


def _demo(options: argparse.Namespace) -> int:
    from cvxrelu.command_line import demo

    _need(demo.load_extras)
    return _exit_code(
        demo.run_demo(options.out, quick=options.quick, verbose=not options.quiet, command=options.command_line)
    )


def _need(load: Callable[[], object]) -> None:
    """Run `load`; that an extra is missing is something the user can mend."""
    try:
        load()
    except ImportError as error:
        raise UserError(str(error)) from error


def _exit_code(solutions: Sequence[Solution]) -> int:
    """Of several solves that of the worst: interrupted, not to tol, stalled, unproven, success."""
    codes = {solution.status.exit_code for solution in solutions}
    worst = (INTERRUPTED, NOT_TO_TOL, Status.STALLED.exit_code, Status.UNPROVEN.exit_code)
    return next((code for code in worst if code in codes), OK)


# --- the parser ------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse with one line per error, and help texts as they were typed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> Any:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _number_type(kind: type, low: float, high: float, words: str) -> Any:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return convert


def _bytes(text: str) -> float:
    """ "4GB" as a number of bytes: units of 1000 or, with an i, of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(?:([KMGT])(i?))?B?", text.strip(), re.IGNORECASE)
    size = 0.0
    if found:
        power = " KMGT".index((found[2] or " ").upper())
        size = float(found[1]) * (1024.0 if found[3] else 1000.0) ** power
    if size <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 4GB or 500MiB")
    return size


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line, all commands included."""
    count = _number_type(int, 1, float("inf"), "a whole number from 1")
    positive = _number_type(float, float(np.nextafter(0, 1)), float(np.finfo(float).max), "a positive number")
    share = _number_type(float, 0, 0.9, "a share between 0 and 0.9")
    whole = _number_type(int, 0, float("inf"), "a whole number from 0")

    parser = _Parser(
        prog="cvxrelu",
        description="Train two-layer ReLU networks, with a bound on how far each is from the best one.",
        epilog="first steps:\n"
        "  cvxrelu doctor                                  does everything work here?\n"
        "  cvxrelu demo                                    two small data sets, and a report to look at\n"
        "  cvxrelu fit houses.csv --target price --out model --report\n"
        "  cvxrelu predict model new.csv --out predictions.csv\n\n" + _EXIT_CODES,
    )
    parser.add_argument(
        "--version", action="version", version=f"cvxrelu {environment.versions().get('cvxrelu', 'unknown')}"
    )

    def show_help(_options: argparse.Namespace) -> int:
        parser.print_help()
        return BAD_INPUT

    parser.set_defaults(run=show_help)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: Any, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=summary, description=description, epilog=f"examples:\n{examples}\n{_EXIT_CODES}"
        )
        sub.set_defaults(run=run)
        return sub

    demo = command(
        "demo",
        _demo,
        "train on two small data sets and write a report",
        "Train on scikit-learn's diabetes (regression) and digits (ten classes) beside its own models, and write\n"
        "report.html and the two networks. Takes about a minute. Needs: pip install 'cvxrelu[demo]'",
        "  cvxrelu demo\n  cvxrelu demo --quick --out my-demo\n",
    )
    demo.add_argument("--out", default="demo-output", metavar="FOLDER", help="where to write (default: %(default)s)")
    demo.add_argument("--quick", action="store_true", help="fewer rows, larger gaps: some seconds, worse scores")
    demo.add_argument("--quiet", action="store_true", help="print nothing but errors")

    fit = command(
        "fit",
        _fit,
        "train a network on a file",
        "Train a network on DATA and write a model folder: network.safetensors (takes raw features), solution.json\n"
        "(status, objective, bounds, settings) and, with --report, report.html.\n\n"
        "DATA is a .csv file (or .csv.gz; comma, semicolon or tab; header row optional; numbers only, the target of a\n"
        "classification may be text), a .npz file with arrays X and y, or a .npz or .npy file with one 2-D table.",
        "  cvxrelu fit houses.csv --target price --out model\n"
        "  cvxrelu fit iris.csv --target -1 --out model --task classification --report\n"
        "  cvxrelu fit data.npz --out model --beta 0.003 --tol 1e-4 --certificate relaxed\n",
    )
    fit.add_argument("data", metavar="DATA", help="the file to train on")
    fit.add_argument("--target", metavar="NAME|INDEX", help="column to predict, by name or position (0 first, -1 last)")
    fit.add_argument("--header", action=argparse.BooleanOptionalAction,
                     help="whether the first line holds names (default: if it has words and no number)")  # fmt: skip
    fit.add_argument("--out", required=True, metavar="FOLDER", help="the model folder to make")
    fit.add_argument("--overwrite", action="store_true", help="replace the model that --out holds")
    fit.add_argument("--task", choices=("auto", "regression", "classification"), default="auto",
                     help="auto: classification if the target is text or few whole numbers")  # fmt: skip
    fit.add_argument("--loss", choices=("squared", "logistic"), default="squared",
                     help="logistic: of classes, multinomial for more than two (default: %(default)s)")  # fmt: skip
    fit.add_argument("--beta", type=positive, default=0.01, metavar="B",
                     help="weight decay, as a share of what gives the zero network (default: %(default)s)")  # fmt: skip
    fit.add_argument("--absolute-beta", action="store_true", help="take --beta as it is")
    fit.add_argument("--tol", type=positive, default=1e-3,
                     help="relative gap to stop at, by the bound the search uses (default: %(default)s)")  # fmt: skip
    fit.add_argument("--certificate", choices=("priced", "relaxed", "exact"), default="priced",
                     help="bound on the best network there is: priced, an estimate; relaxed, proven but loose; exact, "
                     "proven and tight, for one output and at most two features (default: %(default)s)")  # fmt: skip
    fit.add_argument("--no-refine", dest="refine", action="store_false",
                     help="solve the sampled convex program only; its network is worse")  # fmt: skip
    fit.add_argument("--patterns", type=count, metavar="P",
                     help=f"with --no-refine: activation patterns to sample (default: {PATTERNS})")  # fmt: skip
    fit.add_argument("--max-iter", type=count, metavar="N", help="with --no-refine: ADMM iterations at most")
    fit.add_argument("--time-limit", type=positive, metavar="SECONDS", help="time at most")
    fit.add_argument("--checkpoint", metavar="FOLDER",
                     help="save the search there on its way, and go on from what is there")  # fmt: skip
    fit.add_argument("--memory-limit", type=_bytes, metavar="SIZE", help="memory at most, such as 4GB or 500MiB")
    fit.add_argument("--backend", choices=("auto", "numpy", "jax", "cupy"), default="auto",
                     help="array library (default: %(default)s)")  # fmt: skip
    fit.add_argument("--dtype", choices=("float32", "float64"), 
                     help="precision of the search (default: float32 while --tol is at least 1e-4, else float64; with "
                     "--no-refine float64)")  # fmt: skip
    fit.add_argument("--seed", type=whole, default=0, metavar="N", help="for split and search (default: %(default)s)")
    fit.add_argument("--test-size", type=share, default=0.2, metavar="SHARE",
                     help="share of rows held out for the scores, 0 for none (default: %(default)s)")  # fmt: skip
    fit.add_argument("--report", action="store_true", help="write report.html too (needs cvxrelu[report])")
    fit.add_argument("--quiet", action="store_true", help="print nothing but errors")

    predict = command(
        "predict",
        _predict,
        "apply a trained network to a file",
        "Apply the network in the folder MODEL to DATA. With a header row, columns are found by name, in any order,\n"
        "and the target may be among them; without one they must stand in the order of training.",
        "  cvxrelu predict model new.csv\n  cvxrelu predict model new.csv --out predictions.csv\n",
    )
    predict.add_argument("model", metavar="MODEL", help="a folder that `cvxrelu fit` wrote")
    predict.add_argument("data", metavar="DATA", help="a .csv, .csv.gz, .npy or .npz file")
    predict.add_argument("--header", action=argparse.BooleanOptionalAction,
                         help="whether the first line of DATA holds names (default: as with fit)")  # fmt: skip
    predict.add_argument("--out", metavar="FILE", help="a .csv file to write (default: standard output)")
    predict.add_argument("--overwrite", action="store_true", help="replace the file that --out names")

    command(
        "doctor",
        _doctor,
        "check the installation",
        "Print versions and devices, and solve a problem with a known answer on every backend.",
        "  cvxrelu doctor\n",
    )
    return parser
