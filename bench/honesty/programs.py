"""The programs that are audited, by plain formulas, without the library."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, softmax

from bench.honesty.problems import Case

__all__ = ["Program", "clear_rank", "network_parts", "plain", "program_of"]

EPS = float(np.finfo(np.float64).eps)
LONG = np.longdouble


Network = tuple[np.ndarray, np.ndarray, np.ndarray]  # W (D, m), A (m, c), theta (K, c)


class Program(NamedTuple):
    """(N) with every column X is to have, and the skip's coefficients `theta = origin + span @ phi`."""

    X: np.ndarray  # (n, D)
    y: np.ndarray  # (m, c): targets, labels of +-1, or indicators
    loss: str
    beta: float
    weight: np.ndarray  # (m, 1)
    margin: np.ndarray  # (m, 1)
    pairs: np.ndarray | None
    columns: np.ndarray  # (n, K), K = 0 without a skip
    l2: float
    origin: np.ndarray  # (K, c)
    span: np.ndarray  # (K, k)

    def read(self, values: np.ndarray) -> np.ndarray:
        return values if self.pairs is None else values[self.pairs[:, 0]] - values[self.pairs[:, 1]]

    def pull_back(self, t: np.ndarray) -> np.ndarray:
        if self.pairs is None:
            return t
        p = np.zeros((len(self.X), t.shape[1]))
        np.add.at(p, self.pairs[:, 0], t)
        np.add.at(p, self.pairs[:, 1], -t)
        return p

    def losses(self, a: np.ndarray) -> np.ndarray:
        """Of every row, without their weights; in the precision of a."""
        if self.loss == "squared":
            return 0.5 * np.sum((a - self.y) ** 2, axis=1)
        if self.loss == "logistic":
            return np.sum(np.logaddexp(0 * a, self.margin - self.y * a), axis=1)
        b = a - a.max(axis=1, keepdims=True)
        own, others = np.sum(self.y * b, axis=1), np.sum((1 - self.y) * np.exp(b), axis=1)
        return np.where(own == 0, np.log1p(others), np.log(np.exp(own) + others) - own)  # small ones to all digits

    def dual(self, a: np.ndarray) -> np.ndarray:
        """t, minus the derivative of the loss."""
        if self.loss == "squared":
            return self.weight * (self.y - a)
        if self.loss == "logistic":
            return self.weight * self.y * expit(self.margin - self.y * a)
        return self.weight * (self.y - softmax(a, axis=1))

    def predict(self, network: Network) -> np.ndarray:
        W, A, theta = network
        return self.read(np.maximum(self.X @ W, 0) @ A + self.columns @ theta)

    def objective(self, network: Network) -> tuple[float, float]:
        """(objective in extended precision, what float64 arithmetic may be wrong by)."""
        W, A, theta = (part.astype(LONG) for part in network)
        wide = self._replace(X=self.X.astype(LONG), columns=self.columns.astype(LONG), y=self.y.astype(LONG))
        a = wide.predict((W, A, theta))
        norms = np.sqrt(np.sum(W * W, axis=0)) @ np.sqrt(np.sum(A * A, axis=1))
        value = float(self.weight[:, 0].astype(LONG) @ wide.losses(a) + LONG(self.beta) * norms)
        value += float(0.5 * LONG(self.l2) * np.sum(theta * theta))
        sizes = np.abs(self.X) @ np.abs(network[0]) @ np.abs(network[1]) + np.abs(self.columns) @ np.abs(network[2])
        if self.pairs is not None:
            sizes = sizes[self.pairs[:, 0]] + sizes[self.pairs[:, 1]]
        error = EPS * (sum(W.shape) + 20) * (sizes + np.abs(self.y))
        slack = np.sum(np.abs(self.dual(a.astype(float))) * error) + np.sum(self.weight * error**2)
        return value, float(slack + EPS * 100 * value)


def program_of(case: Case, beta: float) -> Program:
    """The program of a case, written down from its arguments."""
    options = case.options
    X = case.X.astype(np.float64)
    n = len(X)
    pairs, loss = options.get("pairs"), options["loss"]
    m = n if pairs is None else len(pairs)
    y = np.ones(m) if case.y is None else np.asarray(case.y)
    if loss == "multinomial":
        y = np.eye(max(2, int(y.max()) + 1))[y]
    y = y.astype(np.float64).reshape(m, -1)
    weight = np.asarray(options.get("sample_weight", np.ones(m)), dtype=float).reshape(m, 1)
    margin = np.broadcast_to(np.asarray(options.get("margin", 0.0), dtype=float), (m,)).reshape(m, 1)
    skip, one = options.get("skip"), np.ones((n, int(pairs is None)))
    columns = np.zeros((n, 0)) if skip is None else one if skip == "bias" else np.hstack([X, one])
    K, c = columns.shape[1], y.shape[1]
    origin, span = np.zeros((K, c)), np.eye(K)
    if "equality" in options:
        C = np.hstack([options["equality"][0], np.zeros((1, K - X.shape[1]))])
        inverse = np.linalg.pinv(C)
        origin = np.broadcast_to(inverse @ np.reshape(options["equality"][1], (1, 1)), (K, c)).copy()
        span = np.linalg.svd(C)[2][1:].T
    full = np.hstack([X, np.ones((n, 1))]) if options.get("intercept") else X
    return Program(full, y, loss, beta, weight, margin, pairs, columns, options.get("skip_l2", 0.0), origin, span)


def network_parts(program: Program, network: Any) -> Network:
    """(W, A, theta) of a `ReLUNetwork`, by its documented fields."""
    W = np.asarray(network.first_layer, dtype=np.float64)
    if program.X.shape[1] > len(W):
        bias = network.hidden_bias
        W = np.vstack([W, np.zeros(W.shape[1]) if bias is None else np.asarray(bias, dtype=np.float64)])
    c, K = program.y.shape[1], program.columns.shape[1]
    A = np.asarray(network.second_layer, dtype=np.float64).reshape(-1, c)
    rows = [np.asarray(part, dtype=float).reshape(-1, c) for part in (network.skip, network.bias) if part is not None]
    theta = np.vstack(rows) if rows else np.zeros((0, c))
    if program.pairs is not None:  # a constant drops out of pairs, and is in no objective
        theta = theta[:K]
    return W, A, theta if len(theta) == K else np.zeros((K, c))


def clear_rank(program: Program) -> bool:
    """Whether a free skip takes the same from y whoever computes it: its columns have no part of rounding's size."""
    if program.columns.shape[1] == 0 or program.l2 > 0:
        return True
    columns = np.sqrt(program.weight) * program.read(program.columns - program.columns.mean(axis=0))
    values = np.linalg.svd(columns, compute_uv=False)
    noise = np.finfo(float).eps * np.abs(program.columns).max() * np.sqrt(columns.size) * np.sqrt(program.weight.max())
    return not np.any((values > 1e-3 * noise) & (values < 1e3 * noise))


def plain(program: Program) -> bool:
    """Whether an interior point method is to be trusted: columns near one in size and about the origin, few rows."""
    sizes = np.abs(program.X).max(axis=0)
    used = sizes[sizes > 0]
    target = np.abs(program.y).max()
    return used.size > 0 and used.min() > 0.1 and used.max() < 20 and len(program.X) <= 30 and 0.05 < target < 50
