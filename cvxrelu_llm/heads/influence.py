"""What every pair's margin would be without it, and which pairs that makes suspicious.

For small networks this is `cvxrelu.leave_one_out`, on all weights. Where these are too many, the first layer is held
fixed, and with theta = (second layer, skip) the Newton step without pair k changes its margin to

    a_k - S_k t_k / (1 - C_k S_k),     S_k = J_k H^-1 J_k^T,   H = sum_k C_k J_k^T J_k + diag(ridge)

as there; J_k is the difference of hidden layers and features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from scipy.special import expit

import cvxrelu
from cvxrelu import ReLUNetwork
from cvxrelu_llm.heads.calibration import log_losses
from cvxrelu_llm.heads.selection import Rows, hidden_layer, margins_of

__all__ = ["Influence", "Suspect", "influence_of", "jacobian", "suspects"]

MOST_WEIGHTS = 3000  # of which the Hessian is factored


class Influence(NamedTuple):
    """One entry per pair: its margin with and without it, the log-loss without it, its leverage.

    kind : "weights", all of them free, or "last layer", the first held fixed.
    """

    margin: Float[np.ndarray, " m"]
    margin_without: Float[np.ndarray, " m"]
    loss_without: Float[np.ndarray, " m"]
    leverage: Float[np.ndarray, " m"]
    kind: str


class Suspect(NamedTuple):
    """A pair and why: `probability` is that of its label, by a model of all other pairs, uncalibrated."""

    pair: int
    margin_without: float
    probability: float
    leverage: float


def influence_of(solution: Any, network: ReLUNetwork, rows: Rows, skip_l2: float) -> Influence:
    """Influence of the pairs in `rows` on `network`, the standardised one that `solution` belongs to."""
    margin = margins_of(network, rows.Z, rows.pairs)
    weights = network.n_neurons * (network.n_features + 2) + network.n_features
    if isinstance(solution, cvxrelu.LogisticSolution):
        found, kind = cvxrelu.leave_one_out(solution), "last layer" if network.n_neurons else "weights"
    elif weights <= MOST_WEIGHTS:
        found, kind = cvxrelu.leave_one_out(solution), "weights"
    else:
        without, leverage = _last_layer(network, rows, skip_l2, margin)
        return Influence(margin, without, log_losses(without), leverage, "last layer")
    without = found.prediction  # of the score times its scale, which are the units of the network
    return Influence(margin, without, log_losses(without), found.leverage, kind)


def jacobian(
    network: ReLUNetwork, Z: Float[np.ndarray, "n r"], pairs: Int[np.ndarray, "m 2"]
) -> Float[np.ndarray, "m q"]:
    """Differences of the pairs' hidden layers, and of their features where there is a linear part."""
    parts = [] if network.skip is None else [Z]
    if network.n_neurons:
        parts.insert(0, hidden_layer(network, Z))
    return np.concatenate([part[pairs[:, 0]] - part[pairs[:, 1]] for part in parts], axis=1)


def _last_layer(network: ReLUNetwork, rows: Rows, skip_l2: float, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    J = jacobian(network, rows.Z, rows.pairs)
    ridge = [np.full(network.n_neurons, 1e-8), np.full(J.shape[1] - network.n_neurons, skip_l2)]
    p = expit(rows.margin - margin)
    t, curvature = rows.weight * p, rows.weight * p * (1 - p)
    H = J.T @ (curvature[:, None] * J) + np.diag(np.concatenate(ridge))
    H[np.diag_indices_from(H)] += 1e-10 * np.trace(H) / len(H)
    half = scipy.linalg.solve_triangular(np.linalg.cholesky(H), J.T, lower=True)
    S = np.sum(half**2, axis=0)
    leverage = np.clip(curvature * S, 0.0, 1 - 1e-6)
    return margin - S * t / (1 - leverage), leverage


def suspects(influence: Influence, limit: int | None = None) -> list[Suspect]:
    """Pairs by the loss that they would have without themselves, the largest first."""
    order = np.argsort(-influence.loss_without, kind="stable")[:limit]
    return [
        Suspect(
            int(k), float(influence.margin_without[k]), float(np.exp(-influence.loss_without[k])),
            float(influence.leverage[k]),
        )
        for k in order
    ]  # fmt: skip
