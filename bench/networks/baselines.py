"""The non-convex network trained the usual way, as well as we know how: L-BFGS and Adam, one thread.

    minimise  sum_k 1/2 (relu(x_k @ W) @ a - y_k)^2 + beta/2 (|W|^2 + |a|^2),   W (d, width), a (width,)

At a minimiser |w_j| = |a_j|, so the regulariser equals beta sum_j |w_j| |a_j|; that value, which is never larger and
which rescaling w_j and a_j against each other reaches at once, is what every objective here reports, in float64.
Function and gradient are float32 products over chunks of rows that stay in the cache, about twice as fast as float64.
Settings were tuned on the benchmark's own problems: see `docs/benchmarks.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import fmin_l_bfgs_b

__all__ = ["SETTINGS", "Run", "adam", "lbfgs", "objective", "slope_and_value", "thinned"]

WIDTH = 200
CHUNK = 1024  # rows whose activations (CHUNK, width) stay in the second-level cache
SETTINGS: dict[str, Any] = {
    "version": 1,
    "width": WIDTH,
    "init_scales": [0.3, 0.1, 1.0],
    "memory": 20,
    "window": 50,
    "window_gain": 1e-5,
    "max_seconds": 30.0,
    "learning_rates": [3e-2, 1e-2, 3e-3],
    "batch": 1024,
    "full_batch_up_to": 5000,
    "adam_least_steps": 4000,
    "warmup": 0.05,
}


class Run(NamedTuple):
    """One training run; `trajectory` has a row (seconds, objective) per iteration of L-BFGS, none for Adam."""

    W: np.ndarray
    a: np.ndarray
    objective: float
    seconds: float
    steps: int
    reason: str
    trajectory: list[tuple[float, float]]


class Stop(Exception):
    """Raised by the callback to end SciPy's loop."""


def objective(X: np.ndarray, y: np.ndarray, W: np.ndarray, a: np.ndarray, beta: float, kind: str = "squared") -> float:
    """`loss(relu(X W) a) + beta sum_j |w_j| |a_j|` in float64."""
    W, a = W.astype(np.float64), a.astype(np.float64)
    prediction = np.concatenate([np.maximum(X[i : i + CHUNK] @ W, 0) @ a for i in range(0, len(X), CHUNK)])
    return slope_and_value(prediction, y, kind)[1] + float(beta * (np.linalg.norm(W, axis=0) @ np.abs(a)))


def initial_weights(X: np.ndarray, y: np.ndarray, seed: int, scale: float, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Balanced Gaussian weights: outputs of the untrained network have about `scale` times the norm of y."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((X.shape[1], width))
    a = rng.choice([-1.0, 1.0], width) * np.linalg.norm(W, axis=0)
    factor = scale * np.linalg.norm(y) / np.linalg.norm(np.maximum(X @ W, 0) @ a)
    return np.sqrt(factor) * W, np.sqrt(factor) * a


def init_scale(options: dict[str, Any], seed: int) -> float:
    """Each seed has its scale: no one of them was best everywhere."""
    return float(options["init_scales"][seed % len(options["init_scales"])])


def slope_and_value(a: np.ndarray, y: np.ndarray, kind: str) -> tuple[np.ndarray, float]:
    """Derivative of the loss in the prediction a, and its value summed in float64: float32 ends line searches early."""
    if kind == "squared":
        wide = (a - y).astype(np.float64)
        return a - y, 0.5 * float(wide @ wide)
    loss = np.logaddexp(0.0, -y.astype(np.float64) * a)
    return (-y * -np.expm1(-loss)).astype(a.dtype), float(loss.sum())


class Loss:
    """Loss and gradient of the data term, float32, with buffers that are used again; "squared" or "logistic"."""

    def __init__(self, X: np.ndarray, y: np.ndarray, width: int, kind: str = "squared") -> None:
        self.kind = kind
        self.X, self.y = X.astype(np.float32), y.astype(np.float32)
        self.hidden = np.empty((min(CHUNK, len(X)), width), np.float32)

    def __call__(
        self, W: np.ndarray, a: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """`1/2 |r|^2` and its gradients in W and a over all rows, or over `rows`."""
        X, y = (self.X, self.y) if rows is None else (self.X[rows], self.y[rows])
        value, grad_W, grad_a = 0.0, np.zeros_like(W), np.zeros_like(a)
        for i in range(0, len(X), CHUNK):
            x = X[i : i + CHUNK]
            hidden = np.matmul(x, W, out=self.hidden[: len(x)])
            np.maximum(hidden, 0, out=hidden)
            residual, of_rows = slope_and_value(hidden @ a, y[i : i + CHUNK], self.kind)
            value += of_rows
            grad_a += residual @ hidden
            np.greater(hidden, 0, out=hidden, casting="unsafe")
            grad_W += (x * residual[:, None]).T @ hidden
        return value, grad_W * a, grad_a


def lbfgs(
    X: np.ndarray, y: np.ndarray, beta: float, seed: int, clock: Callable[[], float] = time.process_time, **changes: Any
) -> Run:
    """One run of SciPy's L-BFGS-B, until `window` iterations bring less than `window_gain` of the objective.

    Seconds are those of `clock`: of this process, so that other work on the machine does not cut a run short, or of the
    wall (`time.perf_counter`) to compare with something else's. On one thread and an idle core they are the same.
    """
    options = {**SETTINGS, **changes}
    started = clock()
    d, width = X.shape[1], options["width"]
    kind = options.get("kind", "squared")
    loss = Loss(X, y, width, kind)
    data_term = 0.0

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[: d * width].reshape(d, width), x[d * width :]

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal data_term
        data_term, grad_W, grad_a = loss(*(part.astype(np.float32) for part in unpack(x)))
        gradient = np.concatenate([grad_W.ravel(), grad_a]).astype(np.float64) + beta * x
        return data_term + 0.5 * beta * float(x @ x), gradient

    trajectory: list[tuple[float, float]] = []
    last = np.zeros(0)

    def after_iteration(x: np.ndarray) -> None:
        # The last point evaluated is the accepted one, so the data term need not be computed again.
        nonlocal last
        last = np.copy(x)
        W, a = unpack(x)
        trajectory.append((clock() - started, data_term + beta * float(np.linalg.norm(W, axis=0) @ abs(a))))
        if len(trajectory) > options["window"]:
            before, now = trajectory[-1 - options["window"]][1], trajectory[-1][1]
            if before - now < options["window_gain"] * now:
                raise Stop("converged")
        if trajectory[-1][0] > options["max_seconds"]:
            raise Stop("max_seconds")

    start = np.concatenate([w.ravel() for w in initial_weights(X, y, seed, init_scale(options, seed), width)])
    try:
        last, _, info = fmin_l_bfgs_b(
            value_and_gradient, start, m=options["memory"], maxiter=10**6, maxfun=10**7, factr=0, pgtol=0,
            callback=after_iteration,
        )  # fmt: skip
        reason = str(info["task"])
    except Stop as stop:
        reason = str(stop)
    seconds = clock() - started
    W, a = unpack(last)
    return Run(W, a, objective(X, y, W, a, beta, kind), seconds, len(trajectory), reason, trajectory)


def adam(X: np.ndarray, y: np.ndarray, beta: float, seed: int, rate: float, budget: float, **changes: Any) -> Run:
    """One run of Adam for about `budget` seconds of this process: warm-up, cosine decay, mini-batches if n is large.

    The step count comes from the measured time of the first steps, so that the schedule ends when the budget does.
    """
    options = {**SETTINGS, **changes}
    rng = np.random.default_rng(seed)
    n = len(X)
    loss = Loss(X, y, options["width"])
    W, a = initial_weights(X, y, seed, init_scale(options, seed), options["width"])
    x = np.concatenate([W.ravel(), a]).astype(np.float32)
    mean, square = np.zeros_like(x), np.zeros_like(x)
    W, a = x[: W.size].reshape(W.shape), x[W.size :]  # views
    batch = n if n <= options["full_batch_up_to"] else options["batch"]
    order, steps = rng.permutation(n), max(options["adam_least_steps"], 10**6)
    started = time.process_time()
    k = 0
    while k < steps:
        rows, position = None, k * batch % n
        if batch < n:
            if position < batch:
                order = rng.permutation(n)
            rows = order[position : position + batch]
        _, grad_W, grad_a = loss(W, a, rows)
        gradient = np.concatenate([grad_W.ravel(), grad_a])
        gradient *= n / (n if rows is None else len(rows))
        gradient += beta * x
        k += 1
        mean += 0.1 * (gradient - mean)
        square += 0.001 * (gradient * gradient - square)
        if k == 20:
            steps = max(options["adam_least_steps"], int(20 * budget / (time.process_time() - started)))
        schedule = min(1.0, k / (options["warmup"] * steps)) * 0.5 * (1 + np.cos(np.pi * k / steps))
        step = rate * schedule / (1 - 0.9**k)
        x -= np.float32(step) * mean / (np.sqrt(square / (1 - 0.999**k)) + 1e-12)
    seconds = time.process_time() - started
    return Run(W.copy(), a.copy(), objective(X, y, W, a, beta), seconds, k, "budget", [])


def thinned(run: Run, points: int = 100) -> list[tuple[float, float]]:
    """About `points` rows (seconds, objective) of the run's trajectory, evenly spaced over its iterations."""
    chosen = np.unique(np.linspace(0, len(run.trajectory) - 1, points).round().astype(int))
    return [(round(run.trajectory[i][0], 5), float(f"{run.trajectory[i][1]:.7g}")) for i in chosen]
