"""The largest value of a neuron beside no network at all, searched for without the library."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.special import expit, softmax

from bench.honesty.judge import _Search, _Skip
from bench.honesty.programs import Program

__all__ = ["price_of_zero"]


def price_of_zero(program: Program, seed: int, count: int = 200) -> tuple[float, np.ndarray]:
    """The largest |p^T (X u)_+| found for no neurons beside the best skip: a lower estimate of beta_max; and p."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        search = _Search(program, np.random.default_rng([8, seed]))
        tau = np.zeros((search.k, search.c))
        if search.k:
            none = np.zeros((0, search.c))
            search.features = np.zeros((len(program.X), 0))
            _, _, tau = search.fit(np.zeros((1, 0)), none, tau, None, 500)
            tau = _newton(program, search.skip, tau)
        t = program.dual(search.skip.columns @ tau + search.skip.offset)
        p = program.pull_back(t)
        if search.at.rows.shape[1] == 0:
            return 0.0, p
        base = np.zeros((program.X.shape[1], 0))
        found = 0.0
        for _ in range(2):
            W, values = search.propose(t, base, count)
            found, base = max(found, float(values[0])), W[:, :20]
    return found, p


def _newton(program: Program, skip: _Skip, tau: np.ndarray) -> np.ndarray:
    """Newton's steps to the best skip alone, while the gradient falls: a price sees what L-BFGS leaves of it."""
    k, c = tau.shape

    def gradient(tau: np.ndarray) -> np.ndarray:
        t = program.dual(skip.columns @ tau + skip.offset)
        return skip.ridge[:, None] * tau - skip.columns.T @ t

    g = gradient(tau)
    for _ in range(20):
        a = skip.columns @ tau + skip.offset
        curvature = np.tile(np.eye(c), (len(a), 1, 1))  # of every row
        if program.loss == "logistic":
            inside = expit(program.margin - program.y * a)
            curvature = curvature * (inside * (1 - inside))[:, :, None]
        elif program.loss == "multinomial":
            inside = softmax(a, axis=1)
            curvature = curvature * inside[:, :, None] - inside[:, :, None] * inside[:, None, :]
        hessian = np.einsum("mi,mj,mab->iajb", program.weight * skip.columns, skip.columns, curvature)
        hessian = hessian.reshape(k * c, k * c) + np.diag(np.repeat(skip.ridge, c))
        to = tau - np.linalg.lstsq(hessian, g.ravel(), rcond=None)[0].reshape(k, c)
        of_to = gradient(to)
        if not np.linalg.norm(of_to) < np.linalg.norm(g):
            break
        tau, g = to, of_to
    return tau
