"""`cvxrelu-llm fit`: a certified reward head out of features."""

from __future__ import annotations

import argparse
import os

import numpy as np

from cvxrelu.support.errors import InputError
from cvxrelu.support.status_line import status_line
from cvxrelu_llm.command_line.command import Command, count, whole
from cvxrelu_llm.command_line.common import features_file
from cvxrelu_llm.features.pair_features import PairFeatures

__all__ = ["command"]


def _auto(text: str) -> float | str:
    if text == "auto":
        return text
    if text == "linear":
        return np.inf
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or 'auto'") from None


def _components(text: str) -> int | str | None:
    return text if text == "auto" else None if text == "all" else count(text)


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "features", nargs="?", metavar="FEATURES", help="train.safetensors of `cvxrelu-llm extract`, or its folder"
    )
    parser.add_argument("--out", metavar="FOLDER", help="a new folder for the head and its model card")
    parser.add_argument("--mode", choices=("pairwise", "two_phase"), default="pairwise",
                        help="one convex program, or the recipe of CVX-DPO and COALA (%(default)s)")  # fmt: skip
    parser.add_argument("--beta", type=_auto, default="auto", metavar="B",
                        help="number; auto: by held-out log-loss; linear: no neurons")  # fmt: skip
    parser.add_argument("--betas", type=float, nargs="+", default=[0.7, 0.5, 0.35, 0.25, 0.15], metavar="S",
                        help="the path that auto walks, as shares of beta_max")  # fmt: skip
    parser.add_argument("--skip-l2", type=_auto, default="auto", metavar="L", help="ridge of the linear part")
    parser.add_argument("--skip", action=argparse.BooleanOptionalAction, default=True, help="have a linear part")
    parser.add_argument("--select", choices=("significant", "lowest"), default="significant",
                        help="neurons where they beat the linear model significantly, or at all")  # fmt: skip
    parser.add_argument("--folds", type=count, default=3, metavar="K", help="of the cross-validation (%(default)s)")
    parser.add_argument("--components", type=_components, default="auto", metavar="R",
                        help="directions that neurons see; all: every feature; auto: 64 of more than 128")  # fmt: skip
    parser.add_argument("--intercept", action=argparse.BooleanOptionalAction, default=True, help="biases of neurons")
    parser.add_argument("--gamma", type=float, default=0.0, help="margin added to that of every pair (%(default)s)")
    parser.add_argument("--reference", action=argparse.BooleanOptionalAction, default=False,
                        help="add log-probability ratios under the language model to the margins, as direct preference "
                        "optimisation does; needs features of `extract --reference`")  # fmt: skip
    parser.add_argument("--scale", type=float, default=1.0, help="two_phase: factor of the score in the loss")
    parser.add_argument("--l2", type=_auto, default="auto", metavar="L", help="two_phase: ridge of the last layer")
    parser.add_argument("--patterns", type=count, default=32, metavar="P", help="two_phase: sampled patterns")
    parser.add_argument("--refine", action="store_true", help="two_phase: solve the network program in phase I")
    parser.add_argument("--tol", type=float, default=1e-3, help="relative gap of the final solve (%(default)s)")
    parser.add_argument("--path-tol", type=float, default=1e-2, help="relative gap along the path (%(default)s)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="for each solve (none)")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of folds and starts (%(default)s)")
    parser.add_argument(
        "--test", metavar="FILE", help="held-out features, or the folder that has them: metrics for the model card"
    )
    parser.add_argument("--work", metavar="FOLDER", help="keep networks of path or phase I; a killed fit goes on")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _run(options: argparse.Namespace) -> int:
    from cvxrelu_llm.evaluation.metrics import evaluate
    from cvxrelu_llm.heads.head import ConvexRewardHead
    from cvxrelu_llm.heads.options import without_effect

    for name, cause in without_effect(vars(options), ConvexRewardHead.defaults()):
        value = "linear" if cause == "beta" and options.beta == np.inf else getattr(options, cause)
        typed = "--no-skip" if cause == "skip" else f"--{cause} {value}"
        raise InputError(f"--{name.replace('_', '-')} has no effect with {typed}")
    if os.path.lexists(options.out):
        raise InputError(f"--out {options.out}: exists already; choose the name of a new folder")
    file = features_file(options.features, "train.safetensors")
    features = PairFeatures.load(file)
    test = None
    if options.test is not None:
        test = PairFeatures.load(features_file(options.test, "test.safetensors"))
    if options.reference and features.reference is None:
        raise InputError(f"--reference: {file} holds no log-probabilities; run extract with --reference")
    names = ("mode", "skip", "skip_l2", "beta", "betas", "select", "folds", "components", "intercept", "gamma",
             "scale", "l2", "patterns", "refine", "tol", "path_tol", "time_limit", "seed")  # fmt: skip
    try:
        head = ConvexRewardHead(**{name: getattr(options, name) for name in names})
        with status_line(False if options.quiet else None):
            head.fit(features, reference=features.reference if options.reference else None, folder=options.work)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    found = None if test is None else evaluate(head, test, seed=options.seed)
    head.save(options.out, metrics=None if found is None else found.values())
    if not options.quiet:
        print(f"{file}: {head.n_pairs} pairs in {head.n_groups} groups, {features.X.shape[1]} features")
        print(head.summary())
        if found is not None:
            print(found.summary())
        print(f"written        {options.out}")
    found, c = head.solution.status, head.certificate  # a linear model is solved further than --tol asks for
    return found.for_gap(c["gap"], options.tol, c["rigorous"]).exit_code


command = Command(
    "fit a certified reward head to features",
    "Choose ridge and beta by grouped cross-validation inside the training pairs, solve the convex program, and write\n"
    "network, settings, certificate and model card.",
    "  cvxrelu-llm fit features/train.safetensors --out head --test features/test.safetensors\n"
    "  cvxrelu-llm fit features/train.safetensors --out head --work work --select lowest\n",
    ("features", "out"),
    _add,
    _run,
)
