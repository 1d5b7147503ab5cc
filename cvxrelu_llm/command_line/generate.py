"""`cvxrelu-llm generate`: answers to prompts, guided by a head or plainly."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from cvxrelu import ReLUNetwork
from cvxrelu.support.checks import as_whole
from cvxrelu.support.files import atomic_write
from cvxrelu.support.time_left import time_left
from cvxrelu_llm.command_line.command import Command, input_errors
from cvxrelu_llm.command_line.common import SAMPLING, add_output_options, add_sampling_options, lm_of, refuse_existing
from cvxrelu_llm.survey.page import read_lines

__all__ = ["command"]

GUIDANCE = ("scale", "n_candidates", "every", "kl_budget", "schedule", "normalise")
UNUSED = {
    "guided": ("n", "temperatures"),
    "plain": (*GUIDANCE, "n", "temperatures"),
    "best-of-n": (*GUIDANCE, "argmax", "temperatures", "batch_size"),
    "compare": ("n", "name", "temperature"),
}


def _run(options: argparse.Namespace) -> int:
    with input_errors():
        return _generate(options)


def _generate(options: argparse.Namespace) -> int:
    from cvxrelu_llm.generation.comparison import compare
    from cvxrelu_llm.generation.decoding import best_of_n, guide_batch

    refuse_existing("--out", options.out, options.overwrite)
    for name in UNUSED[options.method]:
        if getattr(options, name) != options.defaults[name]:
            raise ValueError(f"--{name.replace('_', '-')} has no effect with --method {options.method}")
    for name in ("layer", "pooling"):
        if options.head is None and getattr(options, name) is not None:
            raise ValueError(f"--{name} has no effect without --head")
    if options.method != "plain" and options.head is None:
        raise ValueError(f"--method {options.method} needs --head")
    size = as_whole("--batch-size", options.batch_size)
    prompts = []
    for place, record in read_lines(options.prompts):
        if "prompt" not in record:
            raise ValueError(f"{place}: the field 'prompt' is missing")
        prompts.append(record["prompt"])
    if not prompts:
        raise ValueError(f"{options.prompts}: no prompts in it")
    lm, tokenizer, scorer = _guided_lm(options)
    sampling = {name: getattr(options, name) for name in (*SAMPLING, "template")}
    guidance = {name: getattr(options, name) for name in GUIDANCE}
    if options.method == "compare":
        assert scorer is not None
        sampling |= {"do_sample": not options.argmax}
        sampling.pop("temperature")
        rows = compare(
            lm, tokenizer, prompts, scorer, temperatures=options.temperatures, seed=options.seed,
            batch_size=options.batch_size, **sampling, **guidance,
        )  # fmt: skip
        atomic_write(options.out, "".join(json.dumps(row.record()) + "\n" for row in rows), overwrite=options.overwrite)
        for row in rows if not options.quiet else ():
            print(
                f"temperature {row.temperature:g}: score {row.guided_score:.4g} guided, {row.plain_score:.4g} plain, "
                f"{row.best_score:.4g} best of {row.plain_texts:.3g}; {row.wins:.0%} won against the best; "
                f"length {row.guided_length:.3g} and {row.plain_length:.3g}; KL {_nats(row.guided_kl)}"
            )
        return 0
    lines: list[str] = []
    started = time.monotonic()
    for start in range(0, len(prompts), 1 if options.method == "best-of-n" else size):
        seed = options.seed + start
        if options.method == "best-of-n":
            assert scorer is not None
            texts = [best_of_n(lm, tokenizer, prompts[start], scorer, n=options.n, seed=seed, **sampling)]
        else:
            how = guidance if options.method == "guided" else {"scale": 0.0}
            texts = guide_batch(
                lm, tokenizer, prompts[start : start + size], scorer, batch_size=size, seed=seed,
                do_sample=not options.argmax, **sampling, **how,
            )  # fmt: skip
        for prompt, text in zip(prompts[start:], texts, strict=False):
            record = {"prompt": prompt, "model": options.name, **text.record()}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
            if not options.quiet:
                score = "" if text.score is None else f"score {text.score:.4g}, "
                left = time_left(len(lines), len(prompts), time.monotonic() - started)
                said = f"{score}{len(text.tokens)} tokens, KL {_nats(text.kl)}{left}"
                print(f"[{len(lines)}/{len(prompts)}] {said}", file=sys.stderr)
    atomic_write(options.out, "".join(lines), overwrite=options.overwrite)
    return 0


def _guided_lm(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Model, tokenizer, and the scorer of --head: a folder of `fit`, which knows its features, or a bare network."""
    from cvxrelu_llm.generation.scorers import HiddenStateScorer

    if options.head is None or not Path(options.head).is_dir():
        network = None if options.head is None else ReLUNetwork.load(options.head)
        options.template = options.template or "auto"
        layer, pooling = -1 if options.layer is None else options.layer, options.pooling or "last"
        scorer = None if network is None else HiddenStateScorer(network.predict, layer=layer, pooling=pooling)
        return *lm_of(options), scorer
    from cvxrelu_llm.heads.head import ConvexRewardHead

    head = ConvexRewardHead.load(options.head)
    settings = head.feature_settings
    for name in ("layer", "pooling", "template", "dtype"):
        given, fitted = getattr(options, name), settings.get(name)
        if given is not None and given != fitted:
            raise ValueError(
                f"--{name} {given}: the head in {options.head} was fitted on {name} {fitted!r}; leave it out"
            )
    options.dtype = settings.get("dtype")
    lm, tokenizer = lm_of(options)
    options.template = settings.get("template")
    return lm, tokenizer, head.scorer(lm, tokenizer)


def _nats(cost: Any) -> str:
    return "without bound" if cost.nats is None else f"{cost.kind} {cost.nats:.4g}"


def _add(parser: argparse.ArgumentParser) -> None:
    add_sampling_options(parser, tokens=128, temperature=0.4)
    parser.add_argument("--prompts", metavar="FILE",
                        help="JSON lines with a field 'prompt', a text or chat messages")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="JSON lines to write")
    parser.add_argument("--head", metavar="PATH", help="folder of `fit`, or a file of ReLUNetwork.save")
    parser.add_argument("--layer", type=int, help="of a network: layer whose hidden states it reads (-1)")
    parser.add_argument("--pooling", choices=("last", "mean", "response_mean"),
                        help="of a network: how its features were pooled (last)")  # fmt: skip
    parser.add_argument("--template", choices=("auto", "chat", "plain"),
                        help="how prompts become tokens; a folder knows it (auto)")  # fmt: skip
    parser.add_argument("--method", choices=("guided", "plain", "best-of-n", "compare"), default="guided",
                        help="compare: guided and plain at equal numbers of tokens, over --temperatures")  # fmt: skip
    parser.add_argument("--name", default="model", help="name of the model in the output, for surveys")
    parser.add_argument("--scale", type=float, default=1.0, help="lambda, of scores scaled to [0, 1] (1)")
    parser.add_argument("--normalise", action=argparse.BooleanOptionalAction, default=True,
                        help="scale scores to [0, 1] at every step; without, --scale multiplies rewards")  # fmt: skip
    parser.add_argument("--n-candidates", type=int, default=5, help="tokens scored at a guided step (5)")
    parser.add_argument("--every", type=int, default=1, help="guide one step in so many (1)")
    parser.add_argument("--kl-budget", type=float, metavar="NATS", help="what tilting may cost per text")
    parser.add_argument("--schedule", choices=("bound", "exact"), default="bound", help="how the budget is spent")
    parser.add_argument("--argmax", action="store_true", help="take the most probable token; no bound then")
    parser.add_argument("--batch-size", type=int, default=8,
                        help="prompts answered side by side, guided or plainly (8)")  # fmt: skip
    parser.add_argument("--n", type=int, default=5, help="texts to choose from with --method best-of-n (5)")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.7, 1.0], metavar="T",
                        help="of --method compare, in place of --temperature")  # fmt: skip
    parser.set_defaults(defaults={name: parser.get_default(name) for names in UNUSED.values() for name in names})
    add_output_options(parser)


command = Command(
    "write answers to prompts, guided by a head or plainly",
    "Write an answer to every prompt: guided by a head, plainly, or the best of several by its score.",
    "  cvxrelu-llm generate --model NAME --prompts prompts.jsonl --head head --out guided.jsonl\n"
    "  cvxrelu-llm generate --model NAME --prompts prompts.jsonl --method plain --out plain.jsonl\n",
    ("model", "prompts", "out"),
    _add,
    _run,
)
