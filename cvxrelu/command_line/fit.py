"""`cvxrelu fit`: a network out of a table, and the folder it goes into."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.data import load_data
from cvxrelu.command_line.effects import column_effects, target_words
from cvxrelu.command_line.model_folder import FILES, check_folder, describe, write_model
from cvxrelu.command_line.parsing import (
    COUNT,
    POSITIVE,
    SHARE,
    WHOLE,
    as_bytes,
    exit_code_of,
    need,
)
from cvxrelu.command_line.training import Task, Trained, decide_task, train
from cvxrelu.reports import environment
from cvxrelu.reports import page as report
from cvxrelu.support.files import new_folder
from cvxrelu.support.pages.svg import load_matplotlib
from cvxrelu.support.status_line import status_line

__all__ = ["add_fit_options", "run_fit"]


PATTERNS, SAMPLED_BETA = 128, 0.01  # of the sampled program, unless told otherwise
RMSE = "RMSE, the root of the mean squared error, is in units of the target ({}); R2 of 1 is perfect, 0 the mean."
UNSAID = 0.0  # stands for --beta where it is not given


def run_fit(options: argparse.Namespace) -> int:
    out = Path(options.out)
    for name in ("patterns", "max_iter"):
        if options.refine and getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is about the sampled program only: pass --no-refine too")
    if options.beta == UNSAID:
        if options.absolute_beta:
            raise UserError("--absolute-beta takes --beta as it is, and there is none: pass --beta B")
        options.beta = None if options.refine else SAMPLED_BETA
    if options.beta is None and (options.absolute_beta or not options.refine):
        other = "--absolute-beta" if options.absolute_beta else "--no-refine"
        raise UserError(f"--beta auto finds a share of the refined network's beta; it goes without {other}")
    check_folder(out, options.overwrite)
    if options.report:
        need(load_matplotlib)  # before the solve, so that a missing extra costs no waiting
    data = load_data(
        options.data, options.target, options.header, features=options.features or (), drop=options.drop or (),
        na=options.na or (), decimal=options.decimal,
    )  # fmt: skip
    task = decide_task(data, options.task, options.test_size, options.seed)
    n_train, n_test = len(task.train_rows), len(task.test_rows)
    if not options.quiet:
        kind = f"classification, {len(task.classes)} classes" if task.classes else "regression"
        names = f"target {data.target_name}" if data.target_name else "no header row: columns go by position"
        print(f"{options.data}: {n_train + n_test} rows, {task.data.X.shape[1]} features, {names}; {kind} (see --task)")
        for note in task.data.left_out:
            print(f"left out: {note}")
        print(f"{n_train} rows to train on, {n_test} to test on", flush=True)
    forwarded = ("beta", "loss", "refine", "certificate", "seed", "tol", "max_iter", "time_limit", "backend", "dtype")
    settings = {name: getattr(options, name) for name in forwarded}
    settings["patterns"] = options.patterns or PATTERNS
    settings |= {name: getattr(options, name) for name in ("checkpoint", "memory_limit")}
    with status_line(False if options.quiet and options.progress is None else options.progress):
        trained = train(task, relative=not options.absolute_beta, verbose=not options.quiet, **settings)
    solution = trained.solution
    record = {**task.facts, **describe(solution)}
    record["settings"] = {**solution.settings, "seed": options.seed, "test_size": options.test_size}
    record["columns"], record["layout"] = task.columns, task.layout
    record["standardisation"] = trained.standardisation
    record["scores"] = {"rows": trained.where, "n": len(trained.truth), **trained.scores}
    record["training_scores"], record["linear_scores"] = trained.on_training, trained.linear
    if trained.choice is not None:
        betas, scores, best = trained.choice[:3]
        record["beta_choice"] = {
            "betas": betas.tolist(), "scores": scores.tolist(), "best": best,
            "interrupted": trained.choice.interrupted,
        }  # fmt: skip
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
        print(solution.summary().split("\n", 1)[1])  # without the status, which the search has just said
        words = [
            f"{name} {value:.4g} (ridge {trained.linear[name]:.4g}, baseline {trained.baseline[name]:.4g})"
            for name, value in trained.scores.items()
        ]
        if len(task.test_rows):
            own = ", ".join(f"{name} {value:.4g}" for name, value in trained.on_training.items())
            print(f"{'training rows':15} {own}")
        print(f"{trained.where:15} {', '.join(words)}")
        print(f"written         {', '.join(sorted(str(out / file.name) for file in out.iterdir()))}")
    for doubt in trained.doubts:
        print(f"cvxrelu: {doubt}", file=sys.stderr)
    return exit_code_of([solution])


def _share_or_auto(text: str) -> float | None:
    """A positive number, or None for "auto"."""
    return None if text == "auto" else POSITIVE(text)


def _write_report(path: Path, task: Task, trained: Trained, options: argparse.Namespace) -> None:
    models = {
        f"cvxrelu, {trained.network.n_neurons} neurons": (trained.scores, trained.on_training),
        "ridge regression": (trained.linear, trained.linear_on_training),
        trained.baseline_name: (trained.baseline, trained.baseline_on_training),
    }
    n_train, n_test, held_out = len(task.train_rows), len(task.test_rows), trained.where == "test rows"
    scores: list[dict[str, object]] = []
    for model, (there, own) in models.items():
        row: dict[str, object] = {"Model": model}
        for name in there:
            digits = None if name == "RMSE" else 4  # of a share
            row |= {f"{name}, test rows": _rounded(there[name], digits)} if held_out else {}
            row |= {f"{name}, training rows": _rounded(own[name], digits)}
        scores.append(row)
    target = target_words(task)
    section = report.Section(
        name=Path(options.data).name,
        solution=trained.solution,
        description=f"{task.kind.capitalize()} of {target}: {n_train} training rows, {n_test} test rows.",
        scores=scores,
        score_caption="Scores on rows that were held out, and on those trained on" if held_out
        else "Scores on the rows trained on: none were held out, so they say nothing about new rows",
        score_note=RMSE.format(target) if "RMSE" in trained.scores else "",
        truth=trained.truth,
        predictions=trained.guess,
        classes=task.classes or None,
        rows=trained.where,
        target=target,
        effects=column_effects(task, trained, options.seed),
    )  # fmt: skip
    title = f"cvxrelu: {section.name}"
    report.write_report(path, [section], title=title, command=options.command_line, seed=options.seed)


def _rounded(value: float, digits: int | None) -> float:
    return value if digits is None else round(value, digits) + 0.0  # no minus before a zero


def add_fit_options(fit: argparse.ArgumentParser) -> None:
    """DATA, the columns, the program, and what is written."""
    fit.add_argument("data", metavar="DATA", help="the file to train on")
    fit.add_argument("--target", metavar="NAME|INDEX", help="column to predict, by name or position (0 first, -1 last)")
    fit.add_argument("--header", action=argparse.BooleanOptionalAction,
                     help="whether the first line holds names (default: if it has words and no number)")  # fmt: skip
    fit.add_argument(
        "--features", nargs="+", metavar="NAME", help="columns to learn from (default: all but the target)"
    )
    fit.add_argument("--drop", nargs="+", metavar="NAME", help="columns to leave out")
    fit.add_argument(
        "--na", nargs="+", metavar="TEXT", help="cells that stand for missing values, beside NA, NaN, ? ..."
    )
    fit.add_argument("--decimal", choices=(".", ","), help="decimal mark, where numbers could have either")
    fit.add_argument("--out", required=True, metavar="FOLDER", help="the model folder to make")
    fit.add_argument("--overwrite", action="store_true", help="replace the model that --out holds")
    fit.add_argument("--task", choices=("auto", "regression", "classification"), default="auto",
                     help="auto: classification if the target is text or few whole numbers")  # fmt: skip
    fit.add_argument(
        "--loss",
        choices=("squared", "logistic"),
        help="default: logistic for classes, multinomial for more than two; squared for numbers",
    )
    fit.add_argument("--beta", type=_share_or_auto, default=UNSAID, metavar="B|auto",
                     help="weight decay, as a share of what gives the zero network; auto, the default: the one that "
                     f"predicts held-out parts of the training rows best (--no-refine: {SAMPLED_BETA})")  # fmt: skip
    fit.add_argument("--absolute-beta", action="store_true", help="take --beta as it is")
    fit.add_argument("--tol", type=POSITIVE, default=1e-3,
                     help="relative gap to stop at, by the bound the search uses (default: %(default)s)")  # fmt: skip
    fit.add_argument("--certificate", choices=("priced", "relaxed", "branch", "exact"), default="priced",
                     help="bound on the best network there is: priced, an estimate; relaxed, proven but loose; branch, "
                     "proven, and tighter the longer --time-limit; exact, "
                     "proven and tight, for one output and at most two features (default: %(default)s)")  # fmt: skip
    fit.add_argument("--no-refine", dest="refine", action="store_false",
                     help="solve the sampled convex program only; its network is worse")  # fmt: skip
    fit.add_argument("--patterns", type=COUNT, metavar="P",
                     help=f"with --no-refine: activation patterns to sample (default: {PATTERNS})")  # fmt: skip
    fit.add_argument("--max-iter", type=COUNT, metavar="N", help="with --no-refine: ADMM iterations at most")
    fit.add_argument("--time-limit", type=POSITIVE, metavar="SECONDS", help="time at most")
    fit.add_argument("--checkpoint", metavar="FOLDER",
                     help="save the search there on its way, and go on from what is there")  # fmt: skip
    fit.add_argument("--memory-limit", type=as_bytes, metavar="SIZE", help="memory at most, such as 4GB or 500MiB")
    fit.add_argument("--backend", choices=("auto", "numpy", "jax", "cupy"), default="auto",
                     help="array library (default: %(default)s)")  # fmt: skip
    fit.add_argument("--dtype", choices=("float32", "float64"), 
                     help="precision of the search (default: float32 while --tol is at least 1e-4, else float64; with "
                     "--no-refine float64)")  # fmt: skip
    fit.add_argument("--seed", type=WHOLE, default=0, metavar="N", help="for split and search (default: %(default)s)")
    fit.add_argument("--test-size", type=SHARE, default=0.2, metavar="SHARE",
                     help="share of rows held out for the scores, 0 for none (default: %(default)s)")  # fmt: skip
    fit.add_argument("--report", action="store_true", help="write report.html too (needs cvxrelu[report])")
    fit.add_argument("--progress", action=argparse.BooleanOptionalAction,
                     help="say on standard error how far it is (default: on a terminal, without --quiet)")  # fmt: skip
    fit.add_argument("--quiet", action="store_true", help="print nothing but errors and warnings")
