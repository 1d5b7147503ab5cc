"""`solve`: from data to a network, its objective, and a bound on how far it can be from the global optimum.

Reads top to bottom as the method: validate; where fixed activation patterns are asked for, solve the sampled program by
ADMM; refine, from its network, a given one or nothing, to a network that pricing cannot improve; prove or estimate a
lower bound from the dual variable where that ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cvxrelu.api.guards import warn_of_scales
from cvxrelu.api.run_identity import open_checkpoint
from cvxrelu.backends import Backend
from cvxrelu.backends.choose import select_backend, select_devices
from cvxrelu.certificates.network import as_kind, check_kind, network_certificate, network_objective
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.program.problem import Problem, build_problem
from cvxrelu.refinement.stage import RefinementStage, in_words
from cvxrelu.runs.checkpoint import as_folder
from cvxrelu.runs.limits import Limits
from cvxrelu.runs.solution import Solution
from cvxrelu.runs.status import Status
from cvxrelu.sampled.choice import method_ahead
from cvxrelu.sampled.memory import LARGE, as_limit, plan, refuse_what_is_not_free, sizes_of
from cvxrelu.sampled.stage import SampledStage
from cvxrelu.support.checks import as_bool

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
    refine: bool = True,
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
        False solves (S) only.
    tol : relative gap to stop at, of (N) with `refine`, else of (S).
    certificate : kind of the bound on (N). "priced": an estimate, from many ascents. "relaxed": rigorous in any
        dimension, less tight. "exact": rigorous and tight, one output and rank(X) at most 3. With `refine` the search
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
    max_iter : ADMM iterations, at most; None means 20000. On the host, problems of middling size go to semismooth
        Newton instead (docs/theory.md), while max_iter and rho are None and linear_solver is "auto"; whatever number
        is given, 20000 too, asks for ADMM.
    rho : start value of both ADMM penalties; None chooses them from the spectrum of X.
    linear_solver : "auto", "direct" or "cg": how the u-step of ADMM is solved.
    time_limit : seconds from the call on, None for no limit; the certificate counts. Kept to within one chunk of
        iterations, ascents or descent, once the first system of the u-step is prepared and, on JAX, compiled. Where no
        time is left for the certificate asked for, it is the relaxed one in closed form, and the message says so.
    backend : "auto", "numpy", "jax" or "cupy"; "auto" follows the arrays passed in, then the machine.
    dtype : precision of the iterations, "float32" or "float64". None means that of X for ADMM; refinement then works in
        float32 while tol is at least 1e-4. Objectives, dual variables and bounds are float64 always.
    seed : nonnegative integer; everything random is drawn from it on the host, the same for every backend.
    verbose : print one line per check or round.
    callback : called with every record of the history; a true result stops the solve.
    memory_limit : bytes that the solve may take, None for what the machine has in all: an estimate, made before any
        work (docs/scale.md). Where they do not suffice for a direct u-step or Newton, conjugate gradients are used;
        where not for the slack, with refine=False on NumPy, rows are streamed through files; where not for that,
        ValueError.
    checkpoint : a folder. The run is saved there every few seconds and at its end, and one that finds itself there goes
        on where it was: the same arguments must be given, but for tol, time_limit, max_iter, verbose, callback and
        memory_limit. time_limit counts anew in every run.
    devices : None, the number of JAX devices to use, a sequence of them, or "all" (of all processes, where
        `jax.distributed.initialize` was called: docs/devices.md). (S) is then solved by ADMM, patterns and blocks
        divided among them, and pricing divides its ascents.

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
        Without a memory_limit, where the machine has far less, or has far less free, than is needed; before any work.
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
    verbose, refine = as_bool("verbose", verbose), as_bool("refine", refine)
    folder, limit = as_folder(checkpoint), as_limit(memory_limit)
    kind = as_kind("certificate", certificate)
    limits = Limits.read(rho=rho, tol=tol, max_iter=max_iter, time_limit=time_limit, linear_solver=linear_solver)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable or None, got {callback!r}")
    sampled = not refine or not isinstance(patterns, (int, np.integer)) or isinstance(patterns, bool)
    if not sampled and patterns < 1:
        raise ValueError(f"patterns is {patterns}; expected an integer P >= 1, or an array of patterns or gates")
    divided = None if devices is None else select_devices(backend, devices, time_limit)
    sizes = sizes_of(X, y, pairs, patterns, intercept, dtype, loss)
    memory = None
    if sizes is not None:
        flops = 12.0 * sizes.slack * sizes.d / (2 * sizes.itemsize) if sampled else 0.0
        named = divided or select_backend(backend, (X, y), flops)
        memory = plan(sizes, limits.linear_solver, named.name, refine, sampled, limit)
        if memory.streamed:
            check_streamed(kind, skip, pairs, folder)
        method = "refinement"
        if sampled:
            plain = loss == "squared" and pairs is None and (skip is None or skip is False)
            method = method_ahead(sizes, plain, limits, named, memory)
        refuse_what_is_not_free(sizes, method, named.name, limit)
        if verbose and (limit is not None or memory.estimate.bytes >= LARGE):
            print(f"memory: about {memory.estimate}{', rows streamed' if memory.streamed else ''}", flush=True)
    problem = build_problem(
        X, y, beta=beta, loss=loss, pairs=pairs, sample_weight=sample_weight, margin=margin, intercept=intercept,
        skip=skip, skip_l2=skip_l2, equality=equality, patterns=patterns, check_patterns=check_patterns, dtype=dtype,
        seed=seed, sampled=sampled, streamed=memory is not None and memory.streamed,
    )  # fmt: skip
    start = None if warm_start is None else start_network(warm_start, problem)
    if start is not None and not refine:
        raise ValueError("warm_start needs refine=True: the sampled program starts from zero")
    check_kind(kind, problem)
    chosen = divided or select_backend(backend, (X, y), problem.flops if sampled else 0.0)
    options = {
        "refine": refine, "certificate": kind, "rho": limits.rho, "linear_solver": linear_solver, "seed": int(seed),
        "dtype": "auto" if dtype is None else "given", "working_dtype": problem.dtype.name, "backend": chosen.name,
        "devices": chosen.n_devices,
    }  # fmt: skip
    warn_of_scales(problem)
    saves = open_checkpoint(folder, problem, options, start)
    solution = None
    with chosen.scope():
        if sampled:
            first = SampledStage(
                problem, chosen, limits, seed=int(seed), verbose=verbose, callback=callback, checkpoint=saves,
                memory=memory,
            )  # fmt: skip
            first.started = started
            solution = first.run()
            if memory is not None and memory.streamed:
                return replace(solution, problem=problem)
            if not refine or solution.status in (Status.INTERRUPTED, Status.TIME_LIMIT, Status.NUMERICAL_ERROR):
                deadline = started + limits.time_limit
                solution = _certified(replace(solution, problem=problem), kind, problem, chosen, int(seed), deadline)
                if verbose:
                    print(f"{solution.status.value}: {solution.message}", flush=True)
                return solution
            start = start or solution.network
        stage = RefinementStage(
            problem, chosen, limits, kind=kind, dtype=dtype, seed=int(seed), verbose=verbose, callback=callback,
            started=started, checkpoint=saves,
        )  # fmt: skip
        return stage.run(start, solution)


def check_streamed(kind: str, skip: Any, pairs: Any, folder: Any) -> None:
    """Refuse what needs all rows in memory, before any work."""
    asked = {
        "certificate='relaxed'": kind != "relaxed", "skip=False": skip not in (None, False),
        "pairs=None": pairs is not None, "checkpoint=None": folder is not None,
    }  # fmt: skip
    if needed := [name for name, missing in asked.items() if missing]:
        raise ValueError(
            f"memory_limit, or the machine, has no room for this solve but by streaming its rows, which needs "
            f"{', '.join(needed)}"
        )


def start_network(warm_start: Any, problem: Problem) -> ReLUNetwork:
    """The network to refine from, which must fit the problem."""
    network = ReLUNetwork.from_(warm_start, intercept=problem.intercept)
    d, c = problem.n_features, problem.n_outputs
    if (network.n_features, network.n_outputs) != (d, c):
        raise ValueError(
            f"warm_start takes {network.n_features} features and has {network.n_outputs} outputs; "
            f"expected {d} and {c}, as X and y have"
        )
    return network


def _certified(
    solution: Solution, kind: str, problem: Problem, backend: Backend, seed: int, deadline: float
) -> Solution:
    """The solution of the sampled stage, with a certificate of (N) of the kind asked for.

    Where the time is over, or an interrupt comes, it keeps the one it has: rigorous, relaxed in closed form.
    """
    started = time.perf_counter()
    if solution.status is Status.TIME_LIMIT or started > deadline:
        return solution
    try:
        _, dual = network_objective(solution.network, problem)
        certificate = network_certificate(
            kind, problem, dual, solution.objective, backend, seed=seed, deadline=deadline
        )
    except KeyboardInterrupt:
        solution.network.metadata["status"] = Status.INTERRUPTED.value
        _, _, gaps = solution.message.partition(" (")
        return replace(solution, status=Status.INTERRUPTED, message=f"{Status.INTERRUPTED.advice} ({gaps}")
    if certificate.kind == "relaxed" and certificate.lower_bound < solution.lower_bound:
        return solution
    taken = time.perf_counter() - started
    timings = {**solution.timings, **{name: solution.timings[name] + taken for name in ("certify", "total")}}
    gap = solution.sampled.gap if solution.sampled is not None else np.nan
    advice = solution.message.partition(" (")[0]
    message = f"{advice} (sampled program: gap {gap:.1e}; {in_words(certificate)})"
    return replace(solution, certificate=certificate, timings=timings, message=message)
