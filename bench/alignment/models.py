"""The models of `bench.alignment`: each is fitted to training pairs and gives calibrated margins of test pairs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize

from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.calibration import calibrate, log_losses
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.heads.selection import grouped_folds
from cvxrelu_llm.heads.standardise import standardise

__all__ = ["MODELS", "kept_mark"]

RULE = "significant"  # `select` of the pairwise head
CALIBRATION = 2  # of `calibrate`: margins that another one calibrated are not taken from the cache
Margins = tuple[np.ndarray, dict[str, Any]]  # of the test pairs, calibrated, and what else is worth knowing


def kept_mark(name: str) -> str:
    """End of the name of a kept split: what it depends on besides features and options.

    The networks solved along the path depend on none of it, and are kept under a name without.
    """
    if name in ("length", "LM log-probability"):
        return ""
    return f"{f'-{RULE}' if name == 'pairwise' else ''}-c{CALIBRATION}"


def head(**given: Any) -> Callable[..., Margins]:
    def fit(train: PairFeatures, test: PairFeatures, extra: Any, folder: Path, options: argparse.Namespace) -> Margins:
        chosen = given or {"components": options.components, "select": RULE}  # the others see all features
        found = ConvexRewardHead(**chosen, time_limit=options.time_limit)
        found.fit(train, folder=folder if "beta" not in given else None)
        about = {"neurons": found.n_neurons, "gap": found.certificate["gap"], "kind": found.certificate["kind"],
                 "temperature": found.temperature}  # fmt: skip
        return found.margins(test.X, test.pairs) / found.temperature, about

    return fit


def single(name: str) -> Callable[..., Margins]:
    """One number per pair, and its best slope without constant."""

    def fit(train: PairFeatures, test: PairFeatures, extra: Any, folder: Path, options: Any) -> Margins:
        if extra[name] is None:
            raise LookupError("not available for these features")
        (known, fresh) = extra[name]
        size = max(float(np.abs(known).max()), 1e-12)
        known, fresh = known / size, fresh / size
        slope = scipy.optimize.minimize_scalar(lambda b: log_losses(b * known).mean(), bounds=(-50, 50)).x
        return slope * fresh, {}

    return fit


def mlp(train: PairFeatures, test: PairFeatures, extra: Any, folder: Path, options: Any) -> Margins:
    """A Bradley-Terry network of one hidden layer by Adam: width, weight decay and number of steps on inner folds."""
    import torch

    inner = grouped_folds(train.group, 3, 0)[0]
    outer = np.setdiff1d(np.arange(len(train.pairs)), inner)

    def run(which: np.ndarray, width: int, decay: float, steps: int, watch: Any) -> tuple[Any, list[float]]:
        standard = standardise(train.X, train.pairs[which].ravel(), None)
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(train.X.shape[1], width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
        rows = torch.tensor(standard.apply(train.X), dtype=torch.float32)
        a, b = (rows[train.pairs[which, side]] for side in (0, 1))
        adam = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=decay)
        history = []
        for step in range(steps):
            batch = torch.randint(len(a), (min(128, len(a)),))
            loss = torch.nn.functional.softplus(net(b[batch]) - net(a[batch])).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            if watch is not None and (step + 1) % 20 == 0:
                with torch.no_grad():
                    f = net(rows)[:, 0].double().numpy()
                history.append(f[train.pairs[watch, 0]] - f[train.pairs[watch, 1]])
        return (net, standard), history

    best: tuple[float, Any] = (np.inf, None)
    for width in (32, 128):
        for decay in (1e-2, 1.0, 10.0):
            _, history = run(outer, width, decay, 300, inner)
            for i, margins in enumerate(history):
                loss = calibrate(margins).log_loss
                if loss < best[0]:
                    best = (loss, (width, decay, 20 * (i + 1), calibrate(margins).temperature))
    width, decay, steps, temperature = best[1]
    (net, standard), _ = run(np.arange(len(train.pairs)), width, decay, steps, None)
    with torch.no_grad():
        f = net(torch.tensor(standard.apply(test.X), dtype=torch.float32))[:, 0].double().numpy()
    margins = (f[test.pairs[:, 0]] - f[test.pairs[:, 1]]) / temperature
    return margins, {"width": width, "weight decay": decay, "steps": steps, "temperature": temperature}


def lightgbm(train: PairFeatures, test: PairFeatures, extra: Any, folder: Path, options: Any) -> Margins:
    """Trees by the ranking loss, a pair a query; number of trees and their size on inner folds."""
    try:
        from lightgbm import LGBMRanker
    except ImportError as error:
        raise LookupError("lightgbm is not installed") from error

    inner = grouped_folds(train.group, 3, 0)[0]
    outer = np.setdiff1d(np.arange(len(train.pairs)), inner)

    def run(which: np.ndarray, trees: int, leaves: int) -> Any:
        model = LGBMRanker(n_estimators=trees, num_leaves=leaves, learning_rate=0.05, verbose=-1, random_state=0,
                           n_jobs=1)  # fmt: skip
        pairs = train.pairs[which]
        return model.fit(train.X[pairs.ravel()], np.tile([1, 0], len(pairs)), group=np.full(len(pairs), 2))

    def margins(model: Any, features: PairFeatures, which: np.ndarray) -> np.ndarray:
        f = model.predict(features.X)
        return f[features.pairs[which, 0]] - f[features.pairs[which, 1]]

    best: tuple[float, Any] = (np.inf, None)
    for trees in (50, 150):
        for leaves in (4, 15):
            found = calibrate(margins(run(outer, trees, leaves), train, inner))
            if found.log_loss < best[0]:
                best = (found.log_loss, (trees, leaves, found.temperature))
    trees, leaves, temperature = best[1]
    model = run(np.arange(len(train.pairs)), trees, leaves)
    about = {"trees": trees, "leaves": leaves, "temperature": temperature}
    return margins(model, test, np.arange(len(test.pairs))) / temperature, about


MODELS: dict[str, Callable[..., Margins]] = {
    "pairwise": head(),
    "linear": head(beta=np.inf),
    "two_phase": head(mode="two_phase"),
    "MLP": mlp,
    "LightGBM": lightgbm,
    "length": single("lengths"),
    "LM log-probability": single("log_probability"),
}
