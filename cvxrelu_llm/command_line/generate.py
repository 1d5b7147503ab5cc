"""Commands `generate`, `survey build`, `survey score` and `simulate`, to be registered by the command line.

`add_arguments(subparsers)` adds them; every parsed namespace can be given to `main`, which returns an exit code. Bad
input raises ValueError, TypeError or OSError with one sentence on it, and is the caller's to print.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cvxrelu import ReLUNetwork
from cvxrelu.support.files import atomic_write
from cvxrelu_llm.command_line.sampling import SAMPLING, _lm, _model_options, _refuse_existing
from cvxrelu_llm.command_line.simulate import _simulate, _simulate_options
from cvxrelu_llm.command_line.survey import _build_options, _score_options, _survey_build, _survey_score
from cvxrelu_llm.survey.page import read_lines

__all__ = ["COMMANDS", "Entry", "add_arguments", "main"]

OK = 0
GUIDANCE = ("scale", "n_candidates", "every", "kl_budget", "schedule")
UNUSED = {
    "guided": ("n", "temperatures"),
    "plain": (*GUIDANCE, "n", "temperatures"),
    "best-of-n": (*GUIDANCE, "argmax", "temperatures"),
    "compare": ("n", "name", "temperature"),
}


def main(args: argparse.Namespace) -> int:
    """Run the command that `args` were parsed for."""
    return args.action(args)


# -- commands ----------------------------------------------------------------------------------------------------------
def _generate(args: argparse.Namespace) -> int:
    from cvxrelu_llm.generation.comparison import compare
    from cvxrelu_llm.generation.decoding import best_of_n, guide, sample

    _refuse_existing(args.out, args.overwrite)
    for name in UNUSED[args.method]:
        if getattr(args, name) != args.defaults[name]:
            raise ValueError(f"--{name.replace('_', '-')} has no effect with --method {args.method}")
    for name in ("layer", "pooling"):
        if args.head is None and getattr(args, name) is not None:
            raise ValueError(f"--{name} has no effect without --head")
    if args.method != "plain" and args.head is None:
        raise ValueError(f"--method {args.method} needs --head")
    prompts = []
    for place, record in read_lines(args.prompts):
        if "prompt" not in record:
            raise ValueError(f"{place}: the field 'prompt' is missing")
        prompts.append(record["prompt"])
    if not prompts:
        raise ValueError(f"{args.prompts}: no prompts in it")
    lm, tokenizer, scorer = _guided_lm(args)
    sampling = {name: getattr(args, name) for name in (*SAMPLING, "template")}
    guidance = {name: getattr(args, name) for name in GUIDANCE}
    if args.method == "compare":
        assert scorer is not None
        sampling |= {"do_sample": not args.argmax}
        sampling.pop("temperature")
        rows = compare(
            lm, tokenizer, prompts, scorer, temperatures=args.temperatures, seed=args.seed, **sampling, **guidance
        )
        atomic_write(args.out, "".join(json.dumps(row.record()) + "\n" for row in rows), overwrite=args.overwrite)
        for row in rows if not args.quiet else ():
            print(
                f"temperature {row.temperature:g}: score {row.guided_score:.4g} guided, {row.plain_score:.4g} plain, "
                f"{row.best_score:.4g} best of {row.plain_texts:.3g}; {row.wins:.0%} won against the best; "
                f"length {row.guided_length:.3g} and {row.plain_length:.3g}; KL {_nats(row.guided_kl)}"
            )
        return OK
    lines = []
    for i, prompt in enumerate(prompts):
        seed = args.seed + i
        if args.method == "guided":
            assert scorer is not None
            text = guide(lm, tokenizer, prompt, scorer, seed=seed, do_sample=not args.argmax, **sampling, **guidance)
        elif args.method == "best-of-n":
            assert scorer is not None
            text = best_of_n(lm, tokenizer, prompt, scorer, n=args.n, seed=seed, **sampling)
        else:
            text = sample(lm, tokenizer, prompt, scorer, seed=seed, do_sample=not args.argmax, **sampling)[0]
        lines.append(json.dumps({"prompt": prompt, "model": args.name, **text.record()}, ensure_ascii=False) + "\n")
        if not args.quiet:
            score = "" if text.score is None else f"score {text.score:.4g}, "
            print(f"[{i + 1}/{len(prompts)}] {score}{len(text.tokens)} tokens, KL {_nats(text.kl)}", file=sys.stderr)
    atomic_write(args.out, "".join(lines), overwrite=args.overwrite)
    return OK


# -- what they share ---------------------------------------------------------------------------------------------------


def _guided_lm(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Model, tokenizer, and the scorer of --head: a folder of `fit`, which knows its features, or a bare network."""
    from cvxrelu_llm.generation.scorers import HiddenStateScorer

    if args.head is None or not Path(args.head).is_dir():
        network = None if args.head is None else ReLUNetwork.load(args.head)
        args.template = args.template or "auto"
        layer, pooling = -1 if args.layer is None else args.layer, args.pooling or "last"
        scorer = None if network is None else HiddenStateScorer(network.predict, layer=layer, pooling=pooling)
        return *_lm(args), scorer
    from cvxrelu_llm.heads.head import ConvexRewardHead

    head = ConvexRewardHead.load(args.head)
    settings = head.feature_settings
    for name in ("layer", "pooling", "template", "dtype"):
        given, fitted = getattr(args, name), settings.get(name)
        if given is not None and given != fitted:
            raise ValueError(f"--{name} {given}: the head in {args.head} was fitted on {name} {fitted!r}; leave it out")
    args.dtype = settings.get("dtype")
    lm, tokenizer = _lm(args)
    args.template = settings.get("template")
    return lm, tokenizer, head.scorer(lm, tokenizer)


def _nats(cost: Any) -> str:
    return "without bound" if cost.nats is None else f"{cost.kind} {cost.nats:.4g}"


# -- arguments ---------------------------------------------------------------------------------------------------------
class Entry(NamedTuple):
    """A command: what it is for, its options, and what runs it."""

    summary: str
    add_options: Callable[[Any], None]
    run: Callable[[argparse.Namespace], int]


def add_arguments(subparsers: Any) -> dict[str, argparse.ArgumentParser]:
    """Add the commands to what `ArgumentParser.add_subparsers` returned; their parsers by name, "survey build" say."""
    parsers = {}
    for name, entry in COMMANDS.items():
        if isinstance(entry, Entry):
            parsers[name] = _add(subparsers, name, entry)
            continue
        kinds = subparsers.add_parser(name, help="make a blind survey, or count its votes").add_subparsers(
            required=True, metavar="|".join(entry)
        )
        for kind, inner in entry.items():
            parsers[f"{name} {kind}"] = _add(kinds, kind, inner)
    return parsers


def _add(subparsers: Any, name: str, entry: Entry) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(name, help=entry.summary, description=f"{entry.summary.capitalize()}.")
    parser.set_defaults(run=main, action=entry.run)
    entry.add_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--quiet", action="store_true", help="print nothing but results and errors")
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON file of options; what is typed has precedence")
    return parser


def _generate_options(parser: Any) -> None:
    _model_options(parser, tokens=128, temperature=0.4)
    parser.add_argument("--prompts", required=True, metavar="FILE",
                        help="JSON lines with a field 'prompt', a text or chat messages")  # fmt: skip
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON lines to write")
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
    parser.add_argument("--n-candidates", type=int, default=5, help="tokens scored at a guided step (5)")
    parser.add_argument("--every", type=int, default=1, help="guide one step in so many (1)")
    parser.add_argument("--kl-budget", type=float, metavar="NATS", help="what tilting may cost per text")
    parser.add_argument("--schedule", choices=("bound", "exact"), default="bound", help="how the budget is spent")
    parser.add_argument("--argmax", action="store_true", help="take the most probable token; no bound then")
    parser.add_argument("--n", type=int, default=5, help="texts to choose from with --method best-of-n (5)")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.7, 1.0], metavar="T",
                        help="of --method compare, in place of --temperature")  # fmt: skip
    parser.set_defaults(defaults={name: parser.get_default(name) for names in UNUSED.values() for name in names})


COMMANDS: dict[str, Entry | dict[str, Entry]] = {
    "generate": Entry("write answers to prompts, guided by a head or plainly", _generate_options, _generate),
    "survey": {
        "build": Entry("make a page that shows answers in random order", _build_options, _survey_build),
        "score": Entry("count win rates, ties and intervals", _score_options, _survey_score),
    },
    "simulate": Entry("let a model play student and tutor", _simulate_options, _simulate),
}
