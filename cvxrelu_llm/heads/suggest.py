"""Which unlabelled pairs are worth labelling next, from the Hessian at the optimum.

Around the optimum the loss is quadratic with Hessian H, and with a Gaussian of covariance H^-1 for what the data leave
open, the margin of pair k is uncertain by S_k = J_k H^-1 J_k^T, its label by p_k (1 - p_k). To first order, a label
then tells

    1/2 log(1 + p_k (1 - p_k) S_k)      nats of the weights

and moves H to H + p_k (1 - p_k) J_k^T J_k, whatever it turns out to be. Pairs are taken one by one, each for what it
tells beside those before it, so that a batch does not ask the same question twice. J_k is the difference of the hidden
layers and features of both answers; the first layer of a head with neurons is held fixed.

Sources: MacKay, *Information-based objective functions for active data selection*, Neural Computation 1992; Houlsby and
others, *Bayesian active learning for classification and preference learning*, 2011.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float
from scipy.special import expit

from cvxrelu.support.checks import as_whole
from cvxrelu.support.errors import InputError
from cvxrelu_llm.features.pair_features import PairFeatures
from cvxrelu_llm.heads.head import ConvexRewardHead
from cvxrelu_llm.heads.influence import jacobian

__all__ = ["Suggestion", "suggest"]


class Suggestion(NamedTuple):
    """A pair to label: its number among those given, what its label tells (nats, beside those before it), and the
    probability that its first answer is the better one, as the head sees it."""

    pair: int
    information: float
    probability: float


def suggest(head: ConvexRewardHead, features: PairFeatures, n: Any = 20) -> list[Suggestion]:
    """The n pairs whose labels would tell the head most, the first ones first.

    Parameters
    ----------
    head : fitted, with its training pairs (`attach` gives them back to a loaded one).
    features : unlabelled pairs, in any order of their two answers; weights, margins and groups do not matter.
    n : how many; all where there are fewer.

    Returns
    -------
    list of Suggestion

    Raises
    ------
    InputError : features of another model, layer, pooling, prompt or template; no training pairs; pairs of one row.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxrelu_llm.heads.data import as_pair_features
    >>> X = np.random.default_rng(0).standard_normal((60, 3)); pairs = np.arange(60).reshape(-1, 2)
    >>> known = np.where((X[pairs[:, 0], 0] > X[pairs[:, 1], 0])[:, None], pairs, pairs[:, ::-1])[:15]
    >>> head = ConvexRewardHead(beta=np.inf).fit(as_pair_features(X, known))
    >>> found = suggest(head, as_pair_features(X, pairs[15:]), n=3)
    >>> len(found), found[0].information >= found[1].information >= found[2].information > 0
    (3, True)
    """
    n = as_whole("n", n)
    if head.data is None:
        raise InputError("this head was loaded without its training pairs; give them with attach(features)")
    head.check_features(features.settings)
    if features.X.shape[1] != head.data.X.shape[1]:
        raise InputError(f"features has {features.X.shape[1]} columns, expected {head.data.X.shape[1]}")
    network, apply = head.standardised, head.standard.apply
    known = jacobian(network, apply(head.data.X), head.data.pairs)
    fresh = jacobian(network, apply(features.X), features.pairs)
    last = head.choice.skip_l2 if head.options["mode"] == "two_phase" else 0.0  # neurons have no ridge of their own
    ridge = np.where(np.arange(known.shape[1]) < network.n_neurons, last, head.choice.skip_l2)
    if (same := np.flatnonzero(features.pairs[:, 0] == features.pairs[:, 1])).size:
        raise InputError(f"pair {same[0]} holds the same row twice")
    margins = head.margins(head.data.X, head.data.pairs)
    half = _half(known, _curvature(margins - head.margin) * head.data.weight, ridge, fresh)
    f = head.margins(features.X, features.pairs)
    chosen: list[Suggestion] = []
    curvature, left = _curvature(f), np.ones(len(f), dtype=bool)
    variance = np.sum(half**2, axis=0)
    while len(chosen) < min(n, len(f)):
        told = np.where(left, 0.5 * np.log1p(curvature * np.maximum(variance, 0.0)), -np.inf)
        k = int(np.argmax(told))
        chosen.append(Suggestion(k, float(told[k]), float(expit(f[k] / head.temperature))))
        left[k] = False
        step, s = half[:, k].copy(), float(variance[k])
        if s > 0:  # (I - a v v^T)^2 = I - c / (1 + c s) v v^T: what the label takes off the covariance
            a = (1.0 - 1.0 / np.sqrt(1.0 + curvature[k] * s)) / s
            along = step @ half
            half -= a * np.outer(step, along)
            variance -= curvature[k] / (1.0 + curvature[k] * s) * along**2
    return chosen


def _curvature(margins: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    p = expit(margins)
    return p * (1.0 - p)


def _half(
    known: Float[np.ndarray, "m q"], curvature: Float[np.ndarray, " m"], ridge: Float[np.ndarray, " q"],
    fresh: Float[np.ndarray, "k q"],
) -> Float[np.ndarray, "r k"]:  # fmt: skip
    """V with V^T V = fresh H^-1 fresh^T, H = known^T diag(curvature) known + diag(ridge).

    Neurons have no ridge of their own: they get the least that keeps H regular.
    """
    least = 1e-8 * max(float(curvature @ np.sum(known**2, axis=1)) / known.shape[1], 1e-300)
    scale = 1.0 / np.sqrt(np.maximum(ridge, least))
    A, B = known * scale, fresh * scale  # in units where the ridge is one
    if A.shape[1] > len(A) + len(B):  # nothing is outside the span of both
        basis = np.linalg.qr(np.concatenate([A, B]).T)[0]
        A, B = A @ basis, B @ basis
    H = A.T @ (curvature[:, None] * A) + np.eye(A.shape[1])
    return scipy.linalg.solve_triangular(np.linalg.cholesky(H), B.T, lower=True)
