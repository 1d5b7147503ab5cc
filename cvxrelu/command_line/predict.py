"""`cvxrelu predict`: a network applied to a table."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from pathlib import Path

from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.model_folder import read_model
from cvxrelu.command_line.tables import read_table
from cvxrelu.command_line.training import labels
from cvxrelu.support.files import atomic_write
from cvxrelu.support.program import OK

__all__ = ["add_predict_options", "run_predict"]


def run_predict(options: argparse.Namespace) -> int:
    model = read_model(Path(options.model))
    if options.out and os.path.lexists(options.out) and not options.overwrite:
        raise UserError(f"--out {options.out}: the file exists; choose another, or pass --overwrite")
    table = read_table(options.data, model.wanted, options.header, options.na or ())
    features, notes = model.features(table)
    for note in notes:
        print(f"cvxrelu: {note}", file=sys.stderr)
    output = model.network.predict(features)
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


def add_predict_options(predict: argparse.ArgumentParser) -> None:
    """MODEL, DATA, and where predictions go."""
    predict.add_argument("model", metavar="MODEL", help="a folder that `cvxrelu fit` wrote")
    predict.add_argument(
        "data", metavar="DATA", help="a .csv, .csv.gz, .parquet, .npy or .npz file, or - for a CSV on standard input"
    )
    predict.add_argument("--header", action=argparse.BooleanOptionalAction,
                         help="whether the first line of DATA holds names (default: as with fit)")  # fmt: skip
    predict.add_argument("--na", nargs="+", metavar="TEXT", help="cells that stand for missing values, as with fit")
    predict.add_argument("--out", metavar="FILE", help="a .csv file to write (default: standard output)")
    predict.add_argument("--overwrite", action="store_true", help="replace the file that --out names")
