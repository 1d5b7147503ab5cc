"""`cvxrelu-llm eval`: metrics of a head on held-out features, and a report."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write, new_files
from cvxrelu.support.stored import read_json
from cvxrelu.support.values import is_missing, plain
from cvxrelu_llm.command_line.command import Command, count, input_errors, whole
from cvxrelu_llm.command_line.common import add_reading_options, features_file, read_triples, refuse_existing
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.features.sweep import LayerScore, Sweep, Worth
from cvxrelu_llm.heads.data import IDENTITY
from cvxrelu_llm.preferences.records import read_records

__all__ = ["command"]


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("head", nargs="?", metavar="HEAD", help="folder of `cvxrelu-llm fit`")
    parser.add_argument("--features", metavar="FILE", help="test.safetensors of `cvxrelu-llm extract`, or its folder")
    parser.add_argument("--data", metavar="FILE", help="the triples these features are of, for control of length")
    add_reading_options(parser)
    parser.add_argument("--subset", metavar="FIELD", help="field of the records in --data: accuracy for each value")
    parser.add_argument("--out", metavar="FILE", help="a JSON file for the metrics")
    parser.add_argument("--report", metavar="FILE", help="an HTML file with plots")
    parser.add_argument("--overwrite", action="store_true", help="replace the files that --out and --report name")
    parser.add_argument("--log-to", choices=("wandb", "tensorboard", "trackio"), help="a tracker to send metrics to")
    parser.add_argument("--n-boot", type=count, default=2000, metavar="N", help="draws of the bootstrap (%(default)s)")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (%(default)s)")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of the bootstrap (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _run(options: argparse.Namespace) -> int:
    from cvxrelu_llm.evaluation.metrics import evaluate, length_differences
    from cvxrelu_llm.evaluation.tracking import log_metrics
    from cvxrelu_llm.heads.head import ConvexRewardHead

    for name in ("out", "report"):
        refuse_existing(f"--{name}", getattr(options, name), options.overwrite)
    file = features_file(options.features, "test.safetensors")
    head, features = ConvexRewardHead.load(options.head), PairFeatures.load(file)
    lengths, subset, question = None, None, None
    if options.subset and not options.data:
        raise InputError("--subset needs --data, the file that has the field")
    if options.data:
        triples = read_triples(options)
        if len(triples) != features.counts.get("triples"):
            raise InputError(
                f"--data {options.data}: {len(triples)} triples, but the features are of "
                f"{features.counts.get('triples')}; give the file that they were extracted from"
            )
        lengths = length_differences(triples)[features.kept]
        question = [triples[int(k)].source for k in features.kept]
        if options.subset:
            records = read_records(options.data, split=options.split)
            names = {record.place: plain(record.fields.get(options.subset)) for record in records}
            places = [triples[int(k)].source for k in features.kept]
            if without := [place for place in places if is_missing(names.get(place))]:
                raise InputError(f"--subset {options.subset}: {without[0]} has no such field")
            subset = [str(names[place]) for place in places]
    with input_errors():
        found = evaluate(
            head, features, lengths=lengths, subset=subset, question=question, n_boot=options.n_boot,
            level=options.level, seed=options.seed,
        )  # fmt: skip
    if options.out:
        bounds = {**found.metrics, **{f"accuracy/{name}": metric for name, metric in found.subsets.items()}}
        record = {
            name: {
                "value": m.value,
                "low": m.low if np.isfinite(m.low) else None,
                "high": m.high if np.isfinite(m.high) else None,
            }
            for name, m in bounds.items()
        }
        atomic_write(options.out, json.dumps(record, indent=1) + "\n", overwrite=options.overwrite)
    try:
        if options.report:
            from cvxrelu_llm.evaluation.page import write_report

            title, swept = f"Reward head {options.head}", _sweep(Path(file), features.settings)
            with new_files(options.report, overwrite=options.overwrite) as (page,):
                write_report(page, head, found, title=title, sweep=swept)
        if options.log_to:
            log_metrics(found.values("eval/"), options.log_to)
    except ImportError as error:
        raise InputError(str(error)) from error
    if not options.quiet:
        print(found.summary())
    return 0


def _sweep(features: Path, settings: Mapping[str, Any]) -> Sweep | None:
    """The sweep of the extraction that the features are of, if its record lies beside them."""
    file = features.with_name("extraction.json")
    if not file.exists():
        return None
    try:
        record = read_json(file, finite=False)
        swept = record["sweep"]
        if swept is None or any(record["settings"].get(name) != settings.get(name) for name in IDENTITY):
            return None
        rows: list[dict[str, Any]] = [
            {name: tuple(v) if isinstance(v, list) else v for name, v in row.items()} for row in swept["table"]
        ]
        table, worth = [LayerScore(**row) for row in rows], swept.get("worth")
        best = table[0]
        return Sweep(
            best.layer, best.pooling, table, swept["pairs"], {}, best.prompt, None if worth is None else Worth(**worth)
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not the record of an extraction, or a damaged one ({error})") from error


command = Command(
    "evaluate a head on held-out pairs",
    "TRL's metrics, log-loss, calibration, accuracy controlled for length and by subset, with intervals that draw\n"
    "whole groups. Features of another model, layer, pooling or template are refused.",
    "  cvxrelu-llm eval head --features features/test.safetensors --report report.html\n",
    ("head", "features"),
    _add,
    _run,
)
