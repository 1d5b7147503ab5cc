"""`solve`: from data to a network, its objective, and a bound on how far it can be from the global optimum.

The arguments are read and the data prepared (`prepare`); then the method runs (`Prepared.solve`): where fixed
activation patterns are asked for, solve the sampled program; refine, from its network, a given one or nothing, to a
network that pricing cannot improve; prove or estimate a lower bound from the dual variable where that ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cvxrelu.api.guards import warn_of_scales
from cvxrelu.api.prepared import prepare
from cvxrelu.runs.checkpoint import as_folder
from cvxrelu.runs.settings import Settings
from cvxrelu.runs.solution import Solution

__all__ = ["solve"]


def solve(
    X: Any,
    y: Any = None,
    *,
    beta: float,
    rho: float | None = None,
    loss: str = "squared",
    pairs: Any = None,
    sample_weight: Any = None,
    margin: Any = 0.0,
    intercept: bool = False,
    skip: bool | str = False,
    skip_l2: float = 0.0,
    equality: Any = None,
    patterns: Any = 128,
    check_patterns: bool = False,
    refine: bool | str = True,
    tol: float = 1e-3,
    max_iter: int | None = None,
    time_limit: float | None = None,
    backend: str = "auto",
    dtype: Any = None,
    devices: Any = None,
    linear_solver: str = "auto",
    memory_limit: int | None = None,
    certificate: str = "priced",
    warm_start: Any = None,
    checkpoint: Any = None,
    seed: int = 0,
    verbose: bool = False,
    callback: Callable[[dict[str, Any]], Any] | None = None,
) -> Solution:
    """Train a two-layer ReLU network to a certified gap from its global optimum.

    The network program, for which `objective`, `lower_bound` and `certificate` of the result speak:

        minimise  loss(R f(X)) + beta sum_j |w_j| |a_j| + skip_l2/2 |skip|^2                                       (N)

        f(x) = sum_j (x @ w_j)_+ a_j + skip(x),   R the identity, or differences of pairs of rows

    and the sampled program that ADMM solves for P fixed activation patterns M_i, whose result is `sampled`:

        minimise  loss(R F U) + beta sum_i (|v_i| + |z_i|) + skip_l2/2 |skip|^2   s.t.  G U >= 0                     (S)

        squared      sum_k weight_k / 2 |a_k - y_k|^2
        logistic     sum_k weight_k log(1 + exp(margin_k - y_k a_k))                      y of -1 and +1
        multinomial  sum_k weight_k (logsumexp(a_k) - a_k,y(k))                           y of 0, ..., c - 1

    No loss is divided by n.

    Parameters
    ----------
    X : (n, d) real array of any array library. Integers are taken as float64.
    y : (n,) or (n, c) real targets, or labels as above; multinomial labels also as (n, c) indicators. With pairs (m,);
        None there means all +1, the first of each pair preferred.
    loss : "squared", "logistic" or "multinomial".
    pairs : (m, 2) integers: the loss sees f(X[i]) - f(X[j]) for every pair (i, j), a Bradley-Terry model of preferences
        with loss="logistic". None for f(X) itself.
    margin : number or (m,), of any sign, of the logistic loss: what y a has to exceed 0 by.
    beta : weight of the regulariser, > 0, in the units of the loss.
    refine : True solves (N): neurons are moved, added by pricing and weighed until the gap of (N) is at most `tol`.
        False solves (S) only. "rough" is for networks that are to be compared and not believed, as on the folds of a
        cross-validation: it ends when a round lowers the objective by less than a tenth of tol, seeks no bound, and
        certifies by the relaxed one in closed form; the status is then "stalled", unless that bound is enough.
    tol : relative gap to stop at, of (N) with `refine`, else of (S).
    certificate : kind of the bound on (N). "priced": an estimate, from many ascents. "relaxed": rigorous in any
        dimension, less tight. "branch": rigorous, and tighter the longer it runs; it has half of a time_limit at least
        (docs/certificates.md). "exact": rigorous and tight, one output and rank(X) at most 3. With `refine` the search
        itself is steered by the priced gap, or by the exact one.
    sample_weight : (n,), with pairs (m,), nonnegative, or None for ones.
    intercept : append a constant column for the neurons, penalised with them.
    skip : False, "bias" or "linear": an output bias, or a linear function and bias, beside the neurons. The bias drops
        out of pairs.
    skip_l2 : ridge on the skip, its bias included. 0, the default, is for the squared loss only: with the others
        separable data would have no minimiser.
    equality : (C, e) with C (q, d), e (q,) or (q, c): asks C @ skip = e of the linear part of skip="linear".
    patterns : number of patterns to sample for (S), or bool (n, P) patterns, or float (d, P) gates, or the pair that
        `sample_patterns` returns. With `refine`, (S) is solved first only if patterns are given as an array; a number
        is then not used, because refinement from nothing was measured to be faster. With `intercept=True` gates have
        d + 1 rows.
    check_patterns : refuse patterns that no vector realises (one linear program each).
    warm_start : a Solution, or any network `ReLUNetwork.from_` takes, to refine from.
    max_iter : ADMM iterations, at most; None means 20000. Problems of middling size go to semismooth Newton instead
        (docs/theory.md), with its products on an accelerator where there is one, while max_iter and rho are None and
        linear_solver is "auto"; whatever number is given, 20000 too, asks for ADMM.
    rho : start value of both ADMM penalties; None chooses them from the spectrum of X.
    linear_solver : "auto", "direct" or "cg": how the u-step of ADMM is solved.
    time_limit : seconds from the call on, None for no limit; the certificate counts. Kept to within one chunk of
        iterations, ascents or descent, once the first system of the u-step is prepared and, on JAX, compiled. Where no
        time is left for the certificate asked for, it is the relaxed one in closed form, and the message says so.
    backend : "auto", "numpy", "jax" or "cupy"; "auto" follows arrays on an accelerator, then the machine.
    dtype : precision of the iterations, "float32" or "float64". None means that of X for ADMM; refinement then works in
        float32 while tol is at least 1e-4. Objectives, dual variables and bounds are float64 always.
    seed : nonnegative integer; everything random is drawn from it on the host, the same for every backend.
    verbose : print one line per check or round.
    callback : called with every record of the history; a true result stops the solve.
    memory_limit : bytes that the solve may take, None for what the machine has in all: an estimate, made before any
        work (docs/scale.md). Where they do not suffice for a direct u-step or Newton, conjugate gradients are used;
        where not for the slack, with refine=False on NumPy or JAX, rows are streamed through files; where not for
        that, ValueError.
    checkpoint : a folder. The run is saved there every few seconds and at its end, and one that finds itself there goes
        on where it was: the same arguments must be given, but for tol, time_limit, max_iter, verbose, callback and
        memory_limit. time_limit counts anew in every run.
    devices : None, the number of JAX devices to use, a sequence of them, or "all" (of all processes, where
        `jax.distributed.initialize` was called: docs/devices.md). (S) is then solved by ADMM, patterns and blocks
        divided among them, and pricing divides its ascents. A 2-d array of them is a grid whose first axis, which must
        divide n, divides the rows of X.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError, TypeError
        For bad input, naming argument, value and expectation, before any work; for a checkpoint of another run, or a
        damaged one; for a memory_limit that nothing fits. Not converging is no error: see `Solution.status` and
        `Solution.message`.
    MemoryError
        Without a memory_limit, where the machine, or an accelerator with memory of its own, has far less in all or free
        than is needed; before any work, on every backend.
    BackendError
        For a backend that is missing, has no device, or fails its known-answer check.

    Warns
    -----
    UserWarning
        Once, naming the cure: where, with the squared loss and no skip, the mean of y is more than 3 of its deviations
        from zero; where columns of X differ in scale by a factor of a thousand or more.

    Notes
    -----
    Sources: Pilanci & Ergen 2020 (the convex program); Bai, Gautam & Sojoudi 2023 (ADMM for it); docs/theory.md and
    docs/refinement.md for the steps.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((100, 5)); y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1], 0)
    >>> sol = cvxrelu.solve(X, y, beta=1.0)
    >>> sol.status.value, sol.gap <= 1e-3, sol.certificate.kind, sol.certificate.rigorous
    ('optimal', True, 'priced', False)
    """
    started = time.perf_counter()
    settings = Settings.read(
        refine=refine, certificate=certificate, tol=tol, max_iter=max_iter, time_limit=time_limit, rho=rho,
        linear_solver=linear_solver, dtype=dtype, seed=seed, verbose=verbose, callback=callback,
    )  # fmt: skip
    folder = as_folder(checkpoint)
    prepared = prepare(
        X, y, settings=settings, beta=beta, loss=loss, pairs=pairs, sample_weight=sample_weight, margin=margin,
        intercept=intercept, skip=skip, skip_l2=skip_l2, equality=equality, patterns=patterns,
        check_patterns=check_patterns, backend=backend, devices=devices, memory_limit=memory_limit, checkpoint=folder,
    )  # fmt: skip
    warn_of_scales(prepared.problem)
    return prepared.solve(prepared.problem.beta, settings, warm_start=warm_start, checkpoint=folder, started=started)
