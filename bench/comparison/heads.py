"""Models of hidden states, from the same pairs: ours by its defaults, its linear part, two phases, MLP, LightGBM."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.alignment.models import MODELS
from bench.comparison.cost import Cost, measured, multiplication_rate
from bench.comparison.tasks import Comparison
from cvxrelu_llm.features.extract import embed, extract
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.data import as_pair_features
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.models.torch_models import TorchModel
from cvxrelu_llm.preferences.triples import Triples

__all__ = ["HEADS", "cost_of_head", "held_out_features", "margins_of_heads"]

HEADS = ("ours", "linear", "two_phase", "MLP", "LightGBM")
MAX_LENGTH = 1024  # as TRL's


def features_of(task: Comparison, model: TorchModel, cache: Path | None, **options: Any) -> PairFeatures:
    """Of the training pairs, layers and poolings chosen on them, as the defaults do."""
    return extract(model, task.train, max_length=min(MAX_LENGTH, model.max_length), cache=cache, **options)


def cost_of_head(folder: str, task: Comparison, **options: Any) -> tuple[Cost, ConvexRewardHead, PairFeatures]:
    """A head by its defaults, from the model's folder to the fitted head, nothing kept from before."""
    from cvxrelu_llm.models.causal import load_lm

    cost: Cost = {}
    with measured(cost):
        lm, tokenizer = load_lm(folder, dtype="float32")
        model = TorchModel(getattr(lm, lm.base_model_prefix), tokenizer, name=Path(folder).name)
        features = features_of(task, model, None, **options)
    fit: Cost = {}
    with measured(fit):
        head = ConvexRewardHead().fit(features)
    at_most = multiplication_rate() * fit["cpu_seconds"]  # what NumPy computes, the counter does not see
    return cost | {
        "flop_extraction": cost["flop"], "flop_solver_at_most": at_most, "flop": cost["flop"] + at_most,
        "seconds": cost["seconds"] + fit["seconds"], "seconds_solver": fit["seconds"],
        "cpu_seconds": cost["cpu_seconds"] + fit["cpu_seconds"], "peak_bytes": fit["peak_bytes"],
        "features": str(features.sweep.chosen) if features.sweep else "", "neurons": head.n_neurons,
    }, head, features  # fmt: skip


def held_out_features(model: TorchModel, features: PairFeatures, triples: Triples, cache: Path) -> PairFeatures:
    """The same features of other pairs."""
    settings = {k: features.settings[k] for k in ("layer", "pooling", "prompt", "template", "max_length")}
    texts = [(t.prompt, answer) for t in triples for answer in (t.chosen, t.rejected)]
    rows = embed(model, texts, cache=cache, **settings)
    return as_pair_features(rows, np.arange(len(texts)).reshape(-1, 2), settings=features.settings)


def margins_of_heads(train: PairFeatures, test: PairFeatures) -> dict[str, Any]:
    """Margins of the held-out pairs by each model, and its seconds."""
    fits: dict[str, Callable[..., Any]] = {"ours" if k == "pairwise" else k: fit for k, fit in MODELS.items()}
    options = argparse.Namespace(components="auto", time_limit=None)
    found = {}
    for name in HEADS:
        cost: Cost = {}
        with measured(cost):
            margins, about = fits[name](train, test, {}, None, options)
        found[name] = {"margins": np.asarray(margins).tolist(), "seconds": cost["seconds"],
                       "cpu_seconds": cost["cpu_seconds"], "about": about}  # fmt: skip
    return found
