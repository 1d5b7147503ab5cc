"""The command line: `cvxrelu demo`, `fit`, `predict`, `export` and `doctor`.

What can go wrong with a user's input or disk ends as one line on stderr and exit code 2. Only `demo` needs
scikit-learn, only reports need matplotlib.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from cvxrelu.backends import BackendError
from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.export import EXPORT_HELP, add_export_options, run_export
from cvxrelu.command_line.fit import add_fit_options, run_fit
from cvxrelu.command_line.parsing import (
    BROKEN_BACKEND,
    EXIT_CODES,
    Parser,
    exit_code_of,
    need,
)
from cvxrelu.command_line.predict import add_predict_options, run_predict
from cvxrelu.reports import environment
from cvxrelu.support.program import BAD_INPUT, OK, complain, exit_code

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: that of the process) and return its exit code.

    >>> main(["predict", "no-such-folder", "data.csv"])
    2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return exit_code("cvxrelu", lambda: _run(arguments), {UserError: BAD_INPUT, BackendError: BROKEN_BACKEND})


def _run(arguments: list[str]) -> int:
    options = build_parser().parse_args(arguments)
    options.command_line = shlex.join(["cvxrelu", *arguments])
    try:
        return options.run(options)
    except MemoryError as error:
        raise UserError(f"not enough memory ({error}); use fewer rows, or with --no-refine fewer --patterns") from error


def _doctor(_options: argparse.Namespace) -> int:
    if broken := environment.print_checkup():
        return complain("cvxrelu", f"broken: {', '.join(broken)}; use another --backend, or reinstall", BROKEN_BACKEND)
    print("\nall available backends work")
    return OK


def _demo(options: argparse.Namespace) -> int:
    from cvxrelu.command_line import demo

    need(demo.load_extras)
    return exit_code_of(
        demo.run_demo(options.out, quick=options.quick, verbose=not options.quiet, command=options.command_line)
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line, all commands included."""
    parser = Parser(
        prog="cvxrelu",
        description="Train two-layer ReLU networks, with a bound on how far each is from the best one.",
        epilog="first steps:\n"
        "  cvxrelu doctor                                  does everything work here?\n"
        "  cvxrelu demo                                    two small data sets, and a report to look at\n"
        "  cvxrelu fit houses.csv --target price --out model --report\n"
        "  cvxrelu predict model new.csv --out predictions.csv\n\n" + EXIT_CODES,
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
            name, help=summary, description=description, epilog=f"examples:\n{examples}\n{EXIT_CODES}"
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
        run_fit,
        "train a network on a file",
        "Train a network on DATA and write a model folder: network.safetensors (takes raw features), solution.json\n"
        "(status, objective, bounds, settings) and, with --report, report.html.\n\n"
        "DATA is a table: .csv (or .csv.gz; commas, semicolons, tabs or bars; header row optional), .parquet, or -\n"
        "for a CSV on standard input, with numbers, dates, categories and missing values as people have them; a .npz\n"
        "file with arrays X and y; or a .npz or .npy file with one 2-D array of numbers.",
        "  cvxrelu fit houses.csv --target price --out model\n"
        "  cvxrelu fit iris.csv --target -1 --out model --task classification --report\n"
        "  cvxrelu fit data.npz --out model --beta 0.003 --tol 1e-4 --certificate relaxed\n",
    )
    add_fit_options(fit)

    predict = command(
        "predict",
        run_predict,
        "apply a trained network to a file",
        "Apply the network in the folder MODEL to DATA. With a header row, columns are found by name, in any order,\n"
        "and the target may be among them; without one they must stand in the order of training.",
        "  cvxrelu predict model new.csv\n  cvxrelu predict model new.csv --out predictions.csv\n",
    )
    add_predict_options(predict)

    add_export_options(command("export", run_export, *EXPORT_HELP))

    command(
        "doctor",
        _doctor,
        "check the installation",
        "Print versions and devices, and solve a problem with a known answer on every backend.",
        "  cvxrelu doctor\n",
    )
    return parser
