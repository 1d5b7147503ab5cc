"""`cvxrelu-llm extract`: features of preferences, for training and for test."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write, new_files
from cvxrelu.support.interrupts import shielded
from cvxrelu_llm.command_line.command import Command, share, whole
from cvxrelu_llm.command_line.common import add_data_options, add_model_options, add_text_options, counted, read_triples
from cvxrelu_llm.features.extract import PairFeatures, extract
from cvxrelu_llm.models.feature_map import PROMPTS, FeatureMap
from cvxrelu_llm.models.load import load_model
from cvxrelu_llm.models.pooling import POOLINGS
from cvxrelu_llm.preferences import splits

__all__ = ["command"]

FILES = ("train.safetensors", "test.safetensors", "extraction.json")
CAUSAL = "--reference: answers have log-probabilities under causal models with --backend torch only"


def _layers(text: str) -> Any:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        if text == "auto":
            return text
        raise argparse.ArgumentTypeError(f"{text!r} is not 'auto', a whole number, or several with commas") from None
    return found[0] if len(found) == 1 else found


def _poolings(text: str) -> Any:
    found = text.split(",")
    if text != "auto" and (wrong := [name for name in found if name not in POOLINGS]):
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not 'auto' or one of {', '.join(POOLINGS)}")
    return found[0] if len(found) == 1 else found


def _add(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    add_model_options(parser)
    parser.add_argument("--out", metavar="FOLDER", help=f"folder for {', '.join(FILES)}")
    parser.add_argument("--overwrite", action="store_true", help="replace these files where they are")
    parser.add_argument("--layer", type=_layers, default="auto", metavar="K",
                        help="from 1, negative from the end; several, with commas, are joined; auto: the best of a "
                        "sweep on training pairs")  # fmt: skip
    parser.add_argument(
        "--pooling",
        type=_poolings,
        default="auto",
        metavar="NAME",
        help=f"how tokens become one vector: {', '.join(POOLINGS)}; several are joined; or auto",
    )
    parser.add_argument("--prompt", choices=("auto", *PROMPTS), default=None,
                        help="what of the prompt enters: read before the answer; ignore it (encoders); product of its "
                        "state with the answer's; both, read and product (encoders) (default: auto where layer or "
                        "pooling is, else read)")  # fmt: skip
    add_text_options(parser)
    parser.add_argument("--reference", action=argparse.BooleanOptionalAction, default=False,
                        help="also log-probabilities of both answers, for `fit --reference`")  # fmt: skip
    parser.add_argument("--prefixes", type=whole, default=0, metavar="N",
                        help="beginnings to add to every training pair (default: %(default)s)")  # fmt: skip
    parser.add_argument("--cache", metavar="FOLDER", help="keep rows here; a killed extraction goes on from them")
    parser.add_argument("--test-size", type=share, default=0.2, metavar="SHARE",
                        help="triples held out, by whole groups; 0 for none (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of split and sweep (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _run(options: argparse.Namespace) -> int:
    out = Path(options.out)
    if not options.overwrite and (there := [name for name in FILES if os.path.lexists(out / name)]):
        raise InputError(f"--out {out}: holds {there[0]} already; choose another folder, or pass --overwrite")
    if options.reference and options.prefixes:
        raise InputError("--reference does not go with --prefixes: the ratios are those of whole answers")
    if options.reference and options.backend != "torch":
        raise InputError(CAUSAL)
    triples = read_triples(options)
    say = (lambda *words: None) if options.quiet else print
    say(f"{options.data}: {counted(triples.counts)}")
    try:
        sides = {"train": np.arange(len(triples))}
        if options.test_size:
            drawn = splits.split(triples, options.test_size, options.seed)
            sides = dict(zip(("train", "test"), drawn, strict=True))
        parts = {name: triples.select(side) for name, side in sides.items()}
        where = ("gguf_file", "dtype", "device", "revision", "backend")
        model = load_model(options.model, **{name: getattr(options, name) for name in where})
        if options.reference and not model.causal:
            raise InputError(CAUSAL)
        say(f"{model.name}: {model.n_layers} layers of {model.hidden_size}, {model.dtype}")
        texts = ("template", "max_length", "max_response_length", "batch_tokens", "share_prefix", "cache", "seed")
        settings = {name: getattr(options, name) for name in texts} | {"progress": not options.quiet}
        settings |= {name: getattr(options, name) for name in ("layer", "pooling", "prompt")}
        features = {}
        for name, part in parts.items():  # training first: what it chooses holds for the test
            features[name] = extract(model, part, **settings, prefixes=options.prefixes if name == "train" else 0)
            settings |= {key: features[name].settings[key] for key in ("layer", "pooling", "prompt")}
        if options.reference:
            say("log-probabilities of all answers, without a cache")
            features = _with_reference(options, model, parts, features)
        for name, found in features.items():  # pairs are counted in DATA, for `eval --data` and `audit`
            counts = {**found.counts, "triples": len(triples)}
            features[name] = dataclasses.replace(found, kept=sides[name][found.kept], counts=counts)
    except InputError:
        raise
    except ValueError as error:  # settings that do not fit the model, or the data
        raise InputError(str(error)) from error
    with shielded():
        out.mkdir(parents=True, exist_ok=True)
        with new_files(*(out / name for name in FILES), overwrite=options.overwrite) as files:
            places = {file.name: file for file in files}
            for name, result in features.items():
                result.save(places[f"{name}.safetensors"])
            atomic_write(places["extraction.json"], json.dumps(_record(features, options), indent=1) + "\n")
        for name in FILES if options.overwrite else ():  # none of an earlier run may stay beside those of this one
            if name not in ("extraction.json", *(f"{side}.safetensors" for side in features)):
                (out / name).unlink(missing_ok=True)
    if (swept := features["train"].sweep) is not None:
        say(f"{swept}")
    for name, result in features.items():
        stats = result.stats
        speed = f"{stats['tokens_per_second']:.0f} tokens/s" if stats["tokens"] else "all from the cache"
        say(f"{name:15} {counted(result.counts)}; {speed}")
    say(f"features        {features['train'].X.shape[1]}: {FeatureMap.of(features['train'].settings)}")
    say(f"written         {', '.join(str(path) for path in sorted(out.iterdir()) if path.name in FILES)}")
    return 0


def _with_reference(
    options: argparse.Namespace, model: Any, parts: Mapping[str, Any], features: Mapping[str, PairFeatures]
) -> dict[str, PairFeatures]:
    """Features with log-probability ratios of their pairs, under the same weights and of the same tokens."""
    from cvxrelu_llm.features.reference import reference_log_ratios
    from cvxrelu_llm.models.causal import load_lm

    where = {"gguf_file": options.gguf_file, "revision": options.revision}
    lm, tokenizer = load_lm(options.model, str(model.device), model.dtype, **where)
    found = {}
    for name, part in features.items():
        texts = {key: part.settings[key] for key in ("template", "max_length", "max_response_length")}
        ratios = reference_log_ratios(
            lm, tokenizer, parts[name].select(part.kept), share_prefix=model.shares_prefix, **texts
        )
        found[name] = dataclasses.replace(part, reference=ratios)
    return found


def _record(features: Mapping[str, PairFeatures], options: argparse.Namespace) -> dict[str, Any]:
    swept = features["train"].sweep
    return {
        "options": {name: value for name, value in vars(options).items() if name not in ("command", "config")},
        "settings": dict(features["train"].settings),
        "counts": {name: dict(part.counts) for name, part in features.items()},
        "stats": {name: dict(part.stats) for name, part in features.items()},
        "sweep": None
        if swept is None
        else {
            "pairs": swept.n_pairs,
            "table": [row._asdict() for row in swept.table],
            "worth": None if swept.worth is None else swept.worth._asdict(),
        },
    }


command = Command(
    "turn preferences into features of a language model",
    "Take hidden states of a language model, pooled over tokens, for every response; which layers and poolings,\n"
    "and what of the prompt enters, is chosen on training pairs, or given. Prompts run once for all of their\n"
    "responses, the pass ends at the last layer needed, and with --cache a killed run goes on where it was.",
    "  cvxrelu-llm extract pairs.jsonl.gz --model my-model --out features --cache cache\n"
    "  cvxrelu-llm extract pairs.jsonl.gz --model model.gguf --layer 20 --pooling response_mean --out features\n"
    "  cvxrelu-llm extract --config run.yaml\n",
    ("data", "model", "out"),
    _add,
    _run,
)
