"""Commands `generate`, `survey build`, `survey score` and `simulate`, to be registered by the command line.

`add_arguments(subparsers)` adds them; every parsed namespace can be given to `main`, which returns an exit code. Bad
input raises ValueError, TypeError or OSError with one sentence on it, and is the caller's to print.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cvxrelu import ReLUNetwork
from cvxrelu.support.files import atomic_write
from cvxrelu_llm.generation.simulate import STUDENT, SUBJECTS, TUTOR, Speaker, simulate, write_conversations
from cvxrelu_llm.survey.page import INTRO, TITLE, build_survey, read_answers, read_lines
from cvxrelu_llm.survey.votes import score_survey

__all__ = ["COMMANDS", "Entry", "add_arguments", "load_lm", "main"]

OK = 0
SAMPLING = ("temperature", "top_k", "top_p", "max_new_tokens")
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


def _survey_build(args: argparse.Namespace) -> int:
    for path in (args.out, args.key):
        _refuse_existing(path, args.overwrite)
    key = build_survey(
        read_answers(*args.answers), args.out, args.key, title=args.title, intro=args.intro, seed=args.seed,
        overwrite=args.overwrite,
    )  # fmt: skip
    if not args.quiet:
        print(f"{args.out}: {len(key['order'])} questions on {', '.join(key['models'])}; send it to the raters")
        print(f"{args.key}: says whose answer was whose; keep it from them")
    return OK


def _survey_score(args: argparse.Namespace) -> int:
    result = score_survey(args.key, args.votes, level=args.level, seed=args.seed)
    if args.out:
        _refuse_existing(args.out, args.overwrite)
        atomic_write(args.out, json.dumps(result.record(), indent=1) + "\n", overwrite=args.overwrite)
    print(result.summary())
    return OK


def _simulate(args: argparse.Namespace) -> int:
    _refuse_existing(args.out, args.overwrite)
    lm, tokenizer = _lm(args)
    tutor = Speaker(lm, tokenizer, TUTOR)
    other = load_lm(args.student_model, args.device, args.dtype or "auto") if args.student_model else (lm, tokenizer)
    student = Speaker(*other, STUDENT)
    subjects = args.subject or SUBJECTS
    sampling = {name: getattr(args, name) for name in SAMPLING}
    talks = simulate(tutor, student, subjects=subjects, n=args.n, turns=args.turns, seed=args.seed, **sampling)

    def told() -> Iterator[dict[str, Any]]:
        for talk in talks:
            if not args.quiet:
                print(f"{talk['id']}: {talk['subject']}, {len(talk['messages'])} messages", file=sys.stderr)
            yield talk

    conversations = list(told())
    write_conversations(args.out, conversations)
    if not args.quiet:
        wanted = args.n * len(subjects)
        print(
            f"{args.out}: {len(conversations)} conversations; {wanted - len(conversations)} ended too early to be kept"
        )
    return OK


# -- what they share ---------------------------------------------------------------------------------------------------
def load_lm(
    path: str, device: str = "cpu", dtype: str = "auto", *, gguf_file: str | None = None, revision: str | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer from a folder, a .gguf file (needs gguf and accelerate) or the name of a model on the hub.

    gguf_file : its name, where `path` is that of a folder or a repository. revision : of a hub model.
    ValueError for a model without output layer, of which the library would make one at random.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise ValueError("generation needs transformers: pip install 'cvxrelu[llm]'") from error
    keywords: dict[str, Any] = {"gguf_file": gguf_file, "revision": revision}
    keywords = {name: value for name, value in keywords.items() if value is not None}
    if path.endswith(".gguf"):
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
        path, keywords["gguf_file"] = str(Path(path).resolve().parent), Path(path).name
    tokenizer = AutoTokenizer.from_pretrained(path, **keywords)
    lm, loaded = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True, **keywords)
    output = getattr(lm.get_output_embeddings(), "weight", None)
    if any(weight is output and name in loaded["missing_keys"] for name, weight in lm.named_parameters()):
        raise ValueError(f"{path}: has no weights for the output layer, so that it is not a causal language model")
    return lm.to(device).eval(), tokenizer


def _lm(args: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer of --model."""
    if args.gguf_file is not None and args.model.endswith(".gguf"):
        raise ValueError(f"--gguf-file has no effect with --model {args.model}, which is such a file")
    where = {"gguf_file": args.gguf_file, "revision": args.revision}
    return load_lm(args.model, args.device, args.dtype or "auto", **where)


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


def _refuse_existing(path: str, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise ValueError(f"{path}: the file exists; choose another, or pass --overwrite")


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


def _build_options(parser: Any) -> None:
    parser.add_argument(
        "answers", nargs="+", metavar="FILE", help="JSON lines as `generate` writes them, one per model"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the page to write")
    parser.add_argument("--key", required=True, metavar="FILE", help="where to write whose answer is whose")
    parser.add_argument("--title", default=TITLE, help="of the page")
    parser.add_argument("--intro", default=INTRO, help="first paragraph of the page")
    parser.add_argument("--seed", type=int, help="of the order (default: one that nobody knows)")


def _score_options(parser: Any) -> None:
    parser.add_argument("votes", nargs="+", metavar="FILE", help="files that raters saved on the page")
    parser.add_argument("--key", required=True, metavar="FILE", help="the key of `survey build`")
    parser.add_argument("--out", metavar="FILE", help="a JSON file for the rates")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")


def _simulate_options(parser: Any) -> None:
    _model_options(parser, tokens=80, temperature=0.8)
    parser.add_argument("--student-model", metavar="MODEL", help="another model for the student")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON lines to write")
    parser.add_argument("--subject", action="append", metavar="TEXT", help="may be repeated (16 school subjects)")
    parser.add_argument("--n", type=int, default=1, help="conversations per subject (1)")
    parser.add_argument("--turns", type=int, default=6, help="messages per conversation, at least 4 (6)")


def _model_options(parser: Any, tokens: int, temperature: float) -> None:
    parser.add_argument("--model", required=True, help="a folder, a .gguf file, or the name of a model on the hub")
    parser.add_argument("--gguf-file", metavar="FILE", help="its name in that folder or repository")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub model")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"),
                        help="default: that of the head's features, or else of the file")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="as PyTorch names it (cpu)")
    parser.add_argument("--temperature", type=float, default=temperature, help=f"({temperature})")
    parser.add_argument("--top-k", type=int, default=50, help="(50)")
    parser.add_argument("--top-p", type=float, default=0.9, help="(0.9)")
    parser.add_argument("--max-new-tokens", type=int, default=tokens, help=f"tokens per text ({tokens})")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")


COMMANDS: dict[str, Entry | dict[str, Entry]] = {
    "generate": Entry("write answers to prompts, guided by a head or plainly", _generate_options, _generate),
    "survey": {
        "build": Entry("make a page that shows answers in random order", _build_options, _survey_build),
        "score": Entry("count win rates, ties and intervals", _score_options, _survey_score),
    },
    "simulate": Entry("let a model play student and tutor", _simulate_options, _simulate),
}
