"""Which layer, and which pooling? Every combination is scored by the head it is for, on held-out training pairs.

Score of a combination: k-fold cross-validation, grouped by prompt, of the linear Bradley-Terry model

    minimise over theta  sum_k weight_k log(1 + exp(margin_k - theta @ (x_i(k) - x_j(k)))) + l2/2 |theta|^2

on standardised features, solved to a certified gap by `cvxrelu.solve_logistic`, for a few values of l2. The model runs
once for all layers. The combination with the smallest held-out loss is chosen: the loss of a pair
tells more than whether it is right, so it is less at the mercy of chance than the accuracy is. As the best of many, its
own score is optimistic by a little; a test split that the sweep has not seen tells the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

import cvxrelu
from cvxrelu_llm.features.extraction import Extraction
from cvxrelu_llm.models.pooling import POOLINGS, as_pooling
from cvxrelu_llm.models.protocol import FeatureModel, as_layer
from cvxrelu_llm.preferences import splits
from cvxrelu_llm.preferences.formats import Triple

__all__ = ["LayerScore", "Sweep", "sweep"]

L2 = (0.1, 1.0, 10.0)  # per pair and standardised feature
TOL = 1e-4


class LayerScore(NamedTuple):
    """One row of the table; `standard_error` is that of the accuracy, `l2` the best of those tried."""

    layer: int
    pooling: str
    accuracy: float
    standard_error: float
    loss: float
    l2: float


class Sweep(NamedTuple):
    """The choice, and the table it was made by, best first.

    n_pairs : pairs that were used. stats : of the passes through the model.
    """

    layer: int
    pooling: str
    table: list[LayerScore]
    n_pairs: int
    stats: dict[str, float]

    def __str__(self) -> str:
        """The best ten rows as text."""
        lines = [f"layer  pooling        accuracy  (s.e.)   loss    of {self.n_pairs} training pairs, held out in turn"]
        for row in self.table[:10]:
            lines.append(
                f"{row.layer:5}  {row.pooling:13}  {row.accuracy:8.1%}  {row.standard_error:6.1%}  {row.loss:6.4f}"
            )
        return "\n".join(lines)


def sweep(
    model: FeatureModel,
    triples: Sequence[Triple],
    *,
    layers: Any = None,
    poolings: Any = None,
    max_pairs: Any = 400,
    folds: Any = 5,
    seed: Any = 0,
    template: Any = "auto",
    max_length: Any = None,
    max_response_length: Any = None,
    batch_tokens: Any = 4096,
    cache: Any = None,
    progress: Any = False,
) -> Sweep:
    """Score layers and poolings on training triples.

    Parameters
    ----------
    model, triples : see `features.extract`, also for the arguments not named here. Training triples only.
    layers : numbers to try, negative from the end; None is all of them.
    poolings : names to try; None is all.
    max_pairs : size of the subset, drawn by whole groups.
    folds : of the cross-validation.

    Returns
    -------
    Sweep
    """
    run = Extraction(
        model, template, max_length=max_length, max_response_length=max_response_length, batch_tokens=batch_tokens,
        cache=cache, progress=progress,
    )  # fmt: skip
    return sweep_with(run, triples, layers=layers, poolings=poolings, max_pairs=max_pairs, folds=folds, seed=seed)


def sweep_with(
    run: Extraction,
    triples: Sequence[Triple],
    *,
    layers: Any = None,
    poolings: Any = None,
    max_pairs: int = 400,
    folds: int = 5,
    seed: int = 0,
) -> Sweep:
    """`sweep` with settings that are already checked."""
    layers = sorted({as_layer(run.model, k) for k in (range(1, run.model.n_layers + 1) if layers is None else layers)})
    poolings = [as_pooling(pooling) for pooling in (POOLINGS if poolings is None else poolings)]
    if isinstance(max_pairs, bool) or not isinstance(max_pairs, (int, np.integer)) or max_pairs < 2 * folds:
        raise ValueError(f"max_pairs must be a whole number from {2 * folds}, got {max_pairs!r}")
    chosen = list(triples)
    if len(chosen) > max_pairs:
        chosen = [chosen[i] for i in splits.split(chosen, max_pairs / len(chosen), seed)[1]]
    texts = run.tokenise([(t.prompt, r) for t in chosen for r in (t.chosen, t.rejected)])
    differ = [a != b for a, b in zip(texts[::2], texts[1::2], strict=True)]
    chosen = [triple for triple, different in zip(chosen, differ, strict=True) if different]
    texts = [text for k, text in enumerate(texts) if differ[k // 2]]
    run.truncated = dict.fromkeys(run.truncated, 0)  # those of the extraction are counted there
    row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    X, stats = run.states(list(row), layers, poolings)
    pairs = np.array([row[text] for text in texts]).reshape(-1, 2)
    parts = splits.kfold(chosen, folds, seed)
    weight = np.array([triple.weight for triple in chosen])
    margin = np.array([triple.margin for triple in chosen])
    table = []
    for i, layer in enumerate(layers):
        for j, pooling in enumerate(poolings):
            score = _score(X[:, i, j].astype(np.float64), pairs, weight, margin, parts)
            table.append(LayerScore(layer, pooling, *score))
    table.sort(key=lambda entry: (entry.loss, entry.layer, POOLINGS.index(entry.pooling)))
    return Sweep(table[0].layer, table[0].pooling, table, len(pairs), stats)


def _score(
    X: Float[np.ndarray, "n D"],
    pairs: Int[np.ndarray, "m 2"],
    weight: Float[np.ndarray, " m"],
    margin: Float[np.ndarray, " m"],
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[float, float, float, float]:
    """Held-out accuracy, its standard error, loss and the l2 of the best of `L2`."""
    best = (0.0, 0.0, np.inf, 0.0)
    decisions = {l2: np.zeros(len(pairs)) for l2 in L2}
    for train, test in parts:
        scale = X[np.unique(pairs[train])].std(axis=0)
        A = (X[pairs[:, 0]] - X[pairs[:, 1]]) / np.where(scale > 0, scale, 1.0)
        # theta = A_train^T c at the optimum: in an orthonormal basis of those rows the problem has at most m columns
        basis = np.linalg.qr(A[train].T)[0] if A.shape[1] > len(train) else np.eye(A.shape[1])
        A = A @ basis
        for l2 in L2:
            theta = cvxrelu.solve_logistic(
                A[train],
                l2=l2 * len(train),
                margin=margin[train],
                sample_weight=weight[train],
                tol=TOL,
                backend="numpy",
            ).theta
            decisions[l2][test] = A[test] @ np.ravel(theta)
    for l2, decision in decisions.items():
        loss = float(np.average(np.logaddexp(0.0, margin - decision), weights=weight))
        if loss < best[2]:
            accuracy = float(np.average(decision > 0, weights=weight))
            best = (accuracy, float(np.sqrt(accuracy * (1 - accuracy) / len(pairs))), loss, l2)
    return best
