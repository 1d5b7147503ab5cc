"""The two kinds of cells: a model that TRL trains, and models of hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.comparison import heads, trained
from bench.comparison.sensitivity import sensitivity
from bench.comparison.tasks import CACHE, PAIRS, Comparison, kept, short_name
from bench.comparison.writing import guided_ways, policy_texts, written_by
from cvxrelu_llm.features.reference import reference_log_ratios
from cvxrelu_llm.models.causal import load_lm
from cvxrelu_llm.models.torch_models import TorchModel

__all__ = ["head_cell", "sensitivity_cell", "trained_cell"]


def whole(task: Comparison, noise: float) -> bool:
    """Whether texts are asked for: not where labels are turned round, or pairs few, which is about preferences."""
    return noise == 0 and (len(task.train) >= PAIRS or task.name == "tiny")


def trained_cell(method: str, folder: str, task: Comparison, seed: int, noise: float) -> dict[str, Any]:
    """What training cost, TRL's log of it, margins of the held-out pairs, and texts (see `whole`)."""
    found = trained.train(method, folder, task.train, seed, noise)
    print(f"{method}: trained in {found.cost['seconds']:.0f} s, {found.cost['flop'] / 1e12:.1f} TFLOP", flush=True)
    base = load_lm(folder, dtype="float32")
    base[0].to(found.model.device)
    texts = policy_texts(task, found, base) if whole(task, noise) and not found.reward else []
    file = CACHE / "comparison" / "base" / f"{short_name(folder)}-{task.name}.json"  # alike for all cells of a task
    known = kept(file, lambda: {"ratios": reference_log_ratios(*base, task.held_out).tolist()})
    margins = trained.margins_of(found, np.array(known["ratios"]), task.held_out)
    return {"method": method, "options": trained.options_of(method), "cost": found.cost, "log": found.log,
            "margins": margins.tolist(), "texts": texts}  # fmt: skip


def head_cell(method: str, folder: str, task: Comparison, seed: int, noise: float) -> dict[str, Any]:
    """What a head by its defaults costs, margins of the held-out pairs by it and by its peers, and guided texts.

    Costs are measured twice: for a head that tells answers apart, and for one that guides, which is fitted to
    beginnings of answers too. With labels turned round, or few pairs, there are no texts.
    """
    cost, head, features = heads.cost_of_head(folder, task)
    cache = CACHE / "rows"
    lm, tokenizer = load_lm(folder, dtype="float32")
    model = TorchModel(getattr(lm, lm.base_model_prefix), tokenizer, name="base")
    test = heads.held_out_features(model, features, task.held_out, cache)
    turned = np.random.default_rng(seed).permutation(len(features.pairs))[: round(noise * len(features.pairs))]
    features.pairs[turned] = features.pairs[turned, ::-1]
    record = {"method": method, "cost": cost, "models": heads.margins_of_heads(features, test), "texts": {}}
    del lm, model
    if whole(task, noise):
        record["cost of guidance"], head, _ = heads.cost_of_head(folder, task, prefixes=2)
        lm, tokenizer = load_lm(folder, dtype="float32")
        scorer = head.scorer(lm, tokenizer)
        for name, write in guided_ways(lm, tokenizer, scorer, head.feature_settings["template"]).items():
            record["texts"][name] = written_by(task, write, name)
    return record


def sensitivity_cell(method: str, folder: str, task: Comparison, seed: int, noise: float) -> dict[str, Any]:
    """What the options of the papers do to the papers' recipe, on the features that ours chooses."""
    lm, tokenizer = load_lm(folder, dtype="float32")
    model = TorchModel(getattr(lm, lm.base_model_prefix), tokenizer, name="base")
    features = heads.features_of(task, model, CACHE / "rows")
    test = heads.held_out_features(model, features, task.held_out, CACHE / "rows")
    return {"method": method, "rows": sensitivity(features, test)}
