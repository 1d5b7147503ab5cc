"""Leave one out: what every sample's prediction would be had it not been there, from one factorisation.

At the optimum of a smooth objective with parameters theta, Hessian H, and for sample k prediction a_k, Jacobian J_k,
loss derivative -t_k and curvature C_k, a Newton step towards the optimum without sample k changes theta by
`-(H - J_k^T C_k J_k)^-1 J_k^T t_k`, hence its own prediction by

    a_k^{-k} = a_k - S_k (I - C_k S_k)^-1 t_k,     S_k = J_k H^-1 J_k^T

exactly for a quadratic objective, to second order otherwise. For a network theta are its balanced weights and the
coefficients of its skip, activation patterns stay what they are, and H is the Hessian of the balanced objective, where

    beta I     -Q             Q = X^T (M p),   p = R^T t
    -Q^T       beta I

couples the two layers of a neuron. A refit may add neurons and move others over kinks, which this does not see.
Source: Rad & Maleki, "A scalable estimate of the out-of-sample prediction error via approximate leave-one-out
cross-validation", JRSS B 82, 2020.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from cvxrelu.last_layer.solution import LogisticSolution
from cvxrelu.network.balanced import to_arrays
from cvxrelu.program.problem import Problem
from cvxrelu.runs.solution import Solution

__all__ = ["LeaveOneOut", "leave_one_out"]

MOST_ENTRIES = 1 << 28  # of the Jacobian: 2 GiB
SHARE = 1.0 - 1e-6  # of the curvature that a sample may hold by itself


class LeaveOneOut(NamedTuple):
    """One entry per sample, row or pair.

    prediction : of the sample by the model without it, (m,) or (m, c). loss : of the sample there, without its weight,
    (m,). leverage : share of the curvature along its own prediction that the sample provides, in [0, 1), (m,).
    """

    prediction: Float[np.ndarray, "m *c"]
    loss: Float[np.ndarray, " m"]
    leverage: Float[np.ndarray, " m"]


def leave_one_out(solution: Any) -> LeaveOneOut:
    """Approximate refits without each sample or pair.

        a_k^{-k} = a_k - S_k (I - C_k S_k)^-1 t_k

    Parameters
    ----------
    solution : what `solve` or `solve_logistic` returned, in the same process: it remembers its data. The better solved,
        the better the approximation: tol=1e-6 is a good choice.

    Returns
    -------
    LeaveOneOut

    Raises
    ------
    TypeError : for anything else. ValueError : for a solution of streamed data, or one whose Jacobian, samples times
        outputs times weights, would not fit 2 GiB.

    Notes
    -----
    Cost: one Cholesky factor of the Hessian, (m (d + c))^3 for m neurons, and as many triangular solves as samples.
    For `solve_logistic` the objective is smooth and the approximation of second order; for networks see the module.

    Examples
    --------
    >>> import numpy as np, cvxrelu
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 3)); y = np.sign(A[:, 0] + rng.standard_normal(60))
    >>> found = cvxrelu.leave_one_out(cvxrelu.solve_logistic(A, y, l2=1.0))
    >>> found.loss.shape, bool(np.all((found.leverage > 0) & (found.leverage < 1)))
    ((60,), True)
    """
    if isinstance(solution, LogisticSolution):
        return _of_last_layer(solution)
    if not isinstance(solution, Solution):
        raise TypeError(
            f"solution must be what solve or solve_logistic returns, got {type(solution).__name__}; a network alone "
            "does not know its data"
        )
    if solution.problem is None:
        raise ValueError("solution does not remember its data; solve again in this process")
    return _of_network(solution, solution.problem)


def _of_last_layer(solution: LogisticSolution) -> LeaveOneOut:
    rows = solution.rows
    if rows is None or rows.streamed:
        raise ValueError("solution is of streamed data, which it does not remember; pass A as an array")
    scale, l2 = float(solution.settings["scale"]), float(solution.settings["l2"])
    J = scale * rows.all()[:, None, :]
    _check_size(J.size)
    a = J[:, 0, :] @ solution.theta[:, None]
    H = l2 * np.eye(J.shape[2]) + J[:, 0, :].T @ (rows.loss.hessian(a) * J[:, 0, :])
    return _refits(rows.loss, a, J, H, True)


def _of_network(solution: Solution, problem: Problem) -> LeaveOneOut:
    W, A, _, _ = to_arrays(solution.network, problem.intercept)
    X, (d, m), c = problem.X, W.shape, problem.n_outputs
    k = 0 if problem.skip is None else problem.skip.columns.shape[1]
    size, samples = m * (d + c) + k * c, problem.plain.y.shape[0]
    _check_size(samples * c * max(size, 1))
    pre = X @ W
    prediction = problem.read(solution.network.predict(X[:, : problem.n_features]).reshape(len(X), -1))
    t = problem.plain.dual(prediction)
    p, _ = problem.pull_back(t)

    # Parameters: for every neuron w_j (d) and a_j (c), then the skip's coefficients, output by output.
    hidden, active = np.maximum(pre, 0.0), (pre > 0).astype(np.float64)
    J = np.zeros((samples, c, size))
    H = np.zeros((size, size))
    for j in range(m):
        rows = problem.read(active[:, j : j + 1] * X)
        features = problem.read(hidden[:, j : j + 1])[:, 0]
        first, second = j * (d + c), j * (d + c) + d
        cross = -_pull(X.T @ (active[:, j : j + 1] * p), W[:, j], A[j], problem.beta)
        H[first:second, second : second + c] = cross
        H[second : second + c, first:second] = cross.T
        for output in range(c):
            J[:, output, first:second] = A[j, output] * rows
            J[:, output, second + output] = features
    ridge = np.full(size, problem.beta)
    if problem.skip is not None:
        for output in range(c):
            where = slice(m * (d + c) + output * k, m * (d + c) + (output + 1) * k)
            J[:, output, where] = problem.skip.columns
            ridge[where] = problem.skip.l2
    H[np.diag_indices_from(H)] += ridge
    for output in range(c):
        unit = np.zeros_like(t)
        unit[:, output] = 1.0
        row = problem.plain.hessian_product(prediction, unit)
        H += sum(J[:, output].T @ (row[:, other : other + 1] * J[:, other]) for other in range(c))
    return _refits(problem.plain, prediction, J, H, problem.scalar_output)


def _pull(
    Q: Float[np.ndarray, "d c"], w: Float[np.ndarray, " d"], a: Float[np.ndarray, " c"], beta: float
) -> Float[np.ndarray, "d c"]:
    """X^T (M p) as the optimality condition has it: beta between the neuron's directions, at most beta across them.

    Where a neuron sits on kinks, multipliers are missing from the computed one; the Hessian would not be definite.
    """
    u, v = w / np.linalg.norm(w), a / np.linalg.norm(a)
    across = Q - np.outer(u, u @ Q)
    across = across - np.outer(across @ v, v)
    left, singular, right = np.linalg.svd(across, full_matrices=False)
    return beta * np.outer(u, v) + (left * np.minimum(singular, beta)) @ right


def _refits(
    loss: Any, a: Float[np.ndarray, "m c"], J: Float[np.ndarray, "m c p"], H: Float[np.ndarray, "p p"], scalar: bool
) -> LeaveOneOut:
    m, c = a.shape
    factor = _factor(H)
    half = scipy.linalg.solve_triangular(factor, J.reshape(m * c, -1).T, lower=True).T.reshape(m, c, -1)
    S = half @ half.transpose(0, 2, 1)
    C = np.empty((m, c, c))
    for output in range(c):
        unit = np.zeros_like(a)
        unit[:, output] = 1.0
        C[:, :, output] = loss.hessian_product(a, unit)
    share = C @ S
    leverage = np.linalg.eigvals(share).real.max(axis=1) if c > 1 else share[:, 0, 0]
    # A sample that holds all of the curvature along its prediction would leave nothing to divide by.
    share *= np.minimum(1.0, SHARE / np.maximum(leverage, 1e-300))[:, None, None]
    moved = S @ np.linalg.solve(np.eye(c) - share, loss.dual(a)[:, :, None])
    prediction = a - moved[:, :, 0]
    equal = loss._replace(weight=np.ones_like(loss.weight))
    alone = [type(loss)(*(None if v is None else v[k : k + 1] for v in equal)) for k in range(m)]
    losses = np.array([float(one.value(prediction[k : k + 1])) for k, one in enumerate(alone)])
    return LeaveOneOut(prediction[:, 0] if scalar else prediction, losses, np.clip(leverage, 0.0, SHARE))


def _factor(H: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor; where rounding or an inexact optimum left H indefinite, of H plus a multiple of I."""
    size = float(np.abs(np.diagonal(H)).max(initial=1e-300))
    for ridge in (0.0, *(size * 10.0 ** np.arange(-14, 1))):
        try:
            return scipy.linalg.cholesky(H + ridge * np.eye(len(H)), lower=True)
        except scipy.linalg.LinAlgError:
            continue
    raise AssertionError("a matrix plus the largest entry of its diagonal is not positive definite")


def _check_size(entries: int) -> None:
    if entries > MOST_ENTRIES:
        raise ValueError(
            f"solution is too large: its Jacobian has {entries:.1e} entries (samples x outputs x weights), "
            f"at most {MOST_ENTRIES:.1e} fit; use fewer samples or a larger beta"
        )
