"""`certify`: how far any two-layer ReLU network can be from the global optimum of its training objective.

The lower bound is on the optimum of the network program (N), so it does not depend on the network; but a good dual
variable is needed, and t of a network that is far from optimal is a poor one. So the network is first refined, on the
side, and the bound is proved from where that ends. `network_certificate` turns one dual variable into a certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from cvxrelu.api.prepared import prepare
from cvxrelu.api.run_identity import open_checkpoint
from cvxrelu.certificates.network import network_certificate, network_objective, proof_begins
from cvxrelu.network.balanced import to_arrays
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.program.problem import fits
from cvxrelu.refinement.search import Refinement
from cvxrelu.runs.checkpoint import as_folder
from cvxrelu.runs.proving import branching
from cvxrelu.runs.settings import FLOAT32_TOL, Settings, as_certificate
from cvxrelu.runs.solution import Certificate
from cvxrelu.support.checks import as_finite_array, as_nonnegative, as_positive

__all__ = ["certify"]


def certify(
    network: Any,
    X: Any,
    y: Any = None,
    *,
    beta: float,
    loss: str = "squared",
    pairs: Any = None,
    sample_weight: Any = None,
    margin: Any = 0.0,
    skip_l2: float = 0.0,
    kind: str = "priced",
    tol: float = 1e-3,
    time_limit: float | None = None,
    target: float | None = None,
    checkpoint: Any = None,
    backend: str = "auto",
    seed: int = 0,
    verbose: bool = False,
    callback: Callable[[dict[str, Any]], Any] | None = None,
) -> Certificate:
    """Objective of any two-layer ReLU network, and a lower bound on the objective of every such network.

        objective = loss(R f(X)) + beta sum_j |w_j| |a_j| + skip_l2/2 |skip|^2  >=  optimum of (N)  >=  lower_bound

    Parameters
    ----------
    network : what `ReLUNetwork.from_` takes: a network or Solution of this package, `torch.nn.Sequential(Linear, ReLU,
        Linear)`, scikit-learn's MLPRegressor or MLPClassifier, or arrays `(first_layer, second_layer)`. A hidden bias
        is the weight of a penalised constant column; an output bias or a skip is penalised by skip_l2, and so in (N),
        but for a bias that drops out of pairs.
    X : (n, d). y : (n,) or (n, c), as `network.predict(X)` has it, or class labels with loss="multinomial".
    beta, loss, pairs, sample_weight, margin, skip_l2 : as in `solve`.
    kind : "priced", an estimate by many ascents; "relaxed", rigorous in any dimension; "branch", rigorous, and tighter
        the longer it runs (up to rank 36, of several outputs, pairs or a skip 14; beyond, it is the relaxed bound);
        "exact", rigorous and tight, for one output and data of rank at most 3 (the constant column included).
    tol : relative gap at which the search for a better dual variable may stop.
    time_limit : seconds for that search and the proof, None for no limit. Kept to within one chunk of either; an exact
        bound for which no time is left is replaced by the relaxed one, in closed form. A branch bound uses all of it,
        unless `target` is reached; without a limit it ends at 100 000 cones or 1000 boxes, fewer beyond rank 8.
    target : of "branch" only: relative gap, of the better of the given and the refined network, at which the proof may
        stop. None for tol.
    checkpoint : of "branch" only: a folder. The proof is saved there every few seconds and at its end, and one that
        finds itself there goes on where it was; time_limit counts anew.
    verbose, callback : of "branch" only: print a line for every bound proved; call with every record of
        `Certificate.progress`, a true result stops the proof.
    backend, seed : as in `solve`.

    Returns
    -------
    Certificate : with `objective`, `lower_bound`, `gap`, `kind`, `rigorous`, `starts` and the dual variable. A rigorous
        one holds whatever was computed; a priced one is an estimate and says so.

    Raises
    ------
    ValueError, TypeError : bad input; "exact" for data of higher rank or several outputs; an option that the kind does
        not take; a checkpoint of another proof, or a damaged one.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]); y = np.array([1.0, 0.0, 2.0])
    >>> certificate = cvxrelu.certify((np.eye(2), np.array([1.0, 0.5])), X, y, beta=0.1, kind="exact")
    >>> certificate.rigorous, certificate.lower_bound <= certificate.objective
    (True, True)
    """
    started = time.perf_counter()
    settings = Settings.read(
        certificate=as_certificate(kind, "kind"), tol=tol, time_limit=time_limit, seed=seed, dtype=np.float64,
        verbose=verbose, callback=callback,
    )  # fmt: skip
    gap = settings.tol if target is None else as_positive("target", target)
    refuse_others(kind, target=target, checkpoint=checkpoint, callback=callback, verbose=verbose or None)
    folder = as_folder(checkpoint)
    deadline = started + settings.time_limit
    given = ReLUNetwork.from_(network)
    intercept = given.hidden_bias is not None
    skip = "linear" if given.skip is not None else "bias" if given.bias is not None else None
    if skip != "linear" and pairs is not None:  # a bias drops out of differences: nothing is there to penalise
        skip, skip_l2 = None, 0.0 * as_nonnegative("skip_l2", skip_l2)
    prepared = prepare(
        X, _as_wide(y, loss, given), settings=settings, beta=beta, loss=loss, pairs=pairs, sample_weight=sample_weight,
        margin=margin, intercept=intercept, skip=skip, skip_l2=skip_l2, backend=backend,
    )  # fmt: skip
    problem, chosen, space = prepared.problem, prepared.backend, prepared.space
    if (given.n_features, given.n_outputs) != (problem.n_features, problem.n_outputs):
        raise ValueError(
            f"network takes {given.n_features} features and has {given.n_outputs} outputs; expected "
            f"{problem.n_features} and {problem.n_outputs}, as X and y have"
        )
    objective, dual = network_objective(given, problem)
    saves = open_checkpoint(folder, problem, {"certify": kind, "seed": settings.seed}, given, chosen)
    single = settings.tol >= FLOAT32_TOL and fits(problem, np.dtype(np.float32))
    until = proof_begins(kind, started, settings.time_limit)
    with chosen.scope():
        search = Refinement(
            problem, chosen, dtype="float32" if single else "float64", tol=settings.tol, seed=settings.seed,
            exact=kind == "exact", strict=False, deadline=until, space=space,
        )  # fmt: skip
        W, A, _, _ = to_arrays(given, intercept)
        sizes = np.linalg.norm(W, axis=0)
        search.start_from(W / sizes, A.T / sizes, sizes**2)
        found = search.run(lambda *_: False, until)
        options = branching(settings, gap, (objective, found.objective), saves, found.neurons)
        prove = partial(
            network_certificate, kind, problem, objective=objective, backend=chosen, seed=settings.seed, space=space,
            deadline=deadline, branching=options,
        )  # fmt: skip
        best = prove(found.raw_dual, known=found.neurons.u)
        # The larger of two estimates would be the more optimistic one, not the better one.
        if kind in ("priced", "branch") or time.perf_counter() > deadline:
            return best
        own = prove(dual)
    return best if best.lower_bound >= own.lower_bound else own


def refuse_others(kind: str, **options: Any) -> None:
    """Options of a branch bound, with another kind."""
    given = [name for name, value in options.items() if value is not None]
    if given and kind != "branch":
        raise ValueError(f"{given[0]} is an option of kind='branch', got kind={kind!r}")


def _as_wide(y: Any, loss: Any, network: ReLUNetwork) -> Any:
    """Class labels as indicators with a column for every output of the network: the last classes may be absent."""
    if loss != "multinomial" or (y.ndim if hasattr(y, "ndim") else np.ndim(y)) != 1:
        return y
    labels = as_finite_array("y", y, ndim=(1,))
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= network.n_outputs:
        return y
    return np.eye(network.n_outputs, dtype=np.int64)[labels]
