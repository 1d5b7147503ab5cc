"""`solve_logistic`: the convex program of a last layer, to a certified duality gap. Input is checked here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cvxrelu.backends.choose import select_backend
from cvxrelu.last_layer.rows import read_rows
from cvxrelu.last_layer.run import Run
from cvxrelu.last_layer.solution import LogisticSolution
from cvxrelu.support.checks import BETAS, as_bool, as_finite_array, as_positive, as_seed, short, working_dtype

__all__ = ["LogisticSolution", "solve_logistic"]

MAX_ITER = {"agd": 10_000, "svrg": 500, "adamw": 100}


def solve_logistic(
    A: Any,
    y: Any = None,
    *,
    l2: Any,
    scale: Any = 1.0,
    margin: Any = 0.0,
    sample_weight: Any = None,
    tol: Any = 1e-8,
    method: Any = "agd",
    finish: Any = True,
    batch_size: Any = None,
    learning_rate: Any = 1e-3,
    max_iter: Any = None,
    time_limit: Any = None,
    backend: Any = "auto",
    dtype: Any = None,
    seed: Any = 0,
    verbose: Any = False,
    callback: Any = None,
) -> LogisticSolution:
    """Fit a linear last layer to labels or preference pairs, with a certificate.

        minimise over theta  sum_i weight_i log(1 + exp(-scale y_i theta @ a_i + margin_i)) + l2/2 |theta|^2

    No loss is divided by n. Stops when objective and lower bound are within `tol` of each other, never on a step size.

    Parameters
    ----------
    A : (n, d) real array of any array library; for "svrg" and "adamw" also a NumPy memory map, read batch by batch, or
        a callable that starts a pass over the data and returns an iterable of mini-batches (k, d), in every pass the
        same rows in the same order.
    y : (n,) of -1 and +1; None means all +1, as when the rows of A are differences of pairs, preferred minus rejected.
    l2 : weight of the ridge, > 0. Without it separable data have no minimiser and no bound holds.
    scale : > 0, the factor of the prediction inside the loss.
    margin : number or (n,), of any sign: how much the prediction has to exceed 0 by.
    sample_weight : (n,) nonnegative, or None for ones.
    tol : relative duality gap at which to stop.
    method : "agd", accelerated gradient with the computed Lipschitz constant L; "svrg", variance-reduced stochastic
        gradients, for data larger than memory; "adamw", as usual in deep learning, for comparison: no guarantee.
    finish : let Newton steps take over from "agd" and "svrg" where they promise to be cheaper, and let "agd" restart
        its momentum. False leaves the plain method: for "agd", f - f* = O(1/k^2), and linear with ratio
        1 - sqrt(l2 / L).
    batch_size : rows per step of the stochastic methods; None means n / 100, but from 8 to 256, and 256 where A is not
        in memory. A factory decides by itself.
    learning_rate : of "adamw".
    max_iter : steps of "agd" and Newton, or epochs; None means 10000 for "agd", 500 for "svrg", 100 for "adamw".
    time_limit : seconds, None for no limit; kept to within one chunk.
    backend : "auto", "numpy", "jax" or "cupy"; "auto" follows arrays on an accelerator, then the machine.
    dtype : precision of the gradient steps, "float32" or "float64"; None means that of A. Newton steps and certificates
        are float64 always.
    seed : nonnegative integer; the order of batches is drawn from it on the host, the same for every backend.
    verbose : print one line per check.
    callback : called with every record of the history; a true result stops the solve.

    Returns
    -------
    LogisticSolution

    Raises
    ------
    ValueError, TypeError
        For bad input, naming argument, value and expectation, before any work. Not converging is no error: see
        `LogisticSolution.status` and `LogisticSolution.message`.
    BackendError
        For a backend that is missing, has no device, or fails its known-answer check.

    Notes
    -----
    Sources: Nesterov, "Introductory lectures on convex optimization", 2004, section 2.2; O'Donoghue & Candes 2015
    (restarts); Johnson & Zhang 2013 (SVRG). docs/logistic.md has the guarantees and the certificate.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxrelu.last_layer.solve import solve_logistic
    >>> rng = np.random.default_rng(0)
    >>> preferred, rejected = rng.standard_normal((2, 200, 5)); preferred[:, 0] += 1
    >>> sol = solve_logistic(preferred - rejected, l2=1.0)
    >>> sol.status.value, sol.gap <= 1e-8, bool(sol.theta[0] > 0)
    ('optimal', True, True)
    """
    options = _read_options(
        l2, scale, tol, method, finish, batch_size, learning_rate, max_iter, time_limit, seed, verbose
    )
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable or None, got {callback!r}")
    source = A if callable(A) or isinstance(A, np.memmap) else as_finite_array("A", A, ndim=(2,))
    working = working_dtype(dtype, np.dtype(np.float64) if callable(A) else source.dtype)
    smallest, largest = BETAS[working.name]
    if not smallest <= options["l2"] <= largest:
        raise ValueError(f"l2 must lie between {smallest:.0e} and {largest:.0e} for {working.name}, got {l2!r}")
    rows = read_rows(
        source, y, sample_weight, margin, options["scale"], options["batch_size"], options["method"] != "agd", working
    )
    chosen = select_backend(backend, (A, y), 4.0 * math.prod(rows.shape))
    with chosen.scope():
        return Run(rows, chosen, working, options, callback).run()


def _read_options(
    l2: Any, scale: Any, tol: Any, method: Any, finish: Any, batch_size: Any, learning_rate: Any, max_iter: Any,
    time_limit: Any, seed: Any, verbose: Any,
) -> dict[str, Any]:  # fmt: skip
    """Everything but the data, checked."""
    try:
        ridge = as_positive("l2", l2)
    except ValueError:
        raise ValueError(
            f"l2 must be a positive finite number, got {l2!r}: without a ridge, separable data have no minimiser, and "
            "neither the convergence guarantee nor the lower bound holds"
        ) from None
    if not (isinstance(method, str) and method in MAX_ITER):
        raise ValueError(f"method must be 'agd', 'svrg' or 'adamw', got {short(method)}")
    for name, value in (("batch_size", batch_size), ("max_iter", max_iter)):
        wrong = isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1
        if value is not None and wrong:
            raise ValueError(f"{name} must be None or a positive integer, got {short(value)}")
    return {
        "l2": ridge,
        "scale": as_positive("scale", scale),
        "tol": as_positive("tol", tol),
        "method": method,
        "finish": as_bool("finish", finish),
        "batch_size": None if batch_size is None else int(batch_size),
        "max_iter": MAX_ITER[method] if max_iter is None else int(max_iter),
        "learning_rate": as_positive("learning_rate", learning_rate),
        "time_limit": np.inf if time_limit is None else as_positive("time_limit", time_limit),
        "seed": as_seed(seed),
        "verbose": as_bool("verbose", verbose),
    }
