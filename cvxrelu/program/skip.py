"""A linear skip or an output bias beside the neurons, penalised or not, with linear equality constraints.

    skip(x) = theta^T (x, 1),   penalty l2/2 |theta|^2,   C theta = e on its linear part

Eliminating the constraint: theta = origin + basis z, basis orthonormal on the null space of C and origin the shortest
solution, hence orthogonal to it, so that |theta|^2 = |origin|^2 + |z|^2. What is left is a shift of the prediction,
which the loss absorbs, free coefficients z on the columns `R (X, 1) basis`, and a constant. A free bias is counted
from where the columns have their means.

With l2 > 0 the dual value of any t gains `-|columns^T t|^2 / (2 l2)`. Without, t must satisfy `columns^T t = 0`, which
`losses.Squared` sees to by minimising over the span of its `free` columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cvxrelu.numerics.conjugate_gradients import conjugate_gradients
from cvxrelu.numerics.rounding import EPS
from cvxrelu.numerics.semidefinite import semidefinite_solver
from cvxrelu.program.loss import Loss
from cvxrelu.program.readout import Pairs, read
from cvxrelu.support.checks import as_finite_array, check_scale

__all__ = [
    "Skip",
    "Whitened",
    "as_skip",
    "free_coefficients",
    "free_directions",
    "make_skip",
    "settle",
    "shorter",
    "skip_columns",
    "whiten",
]

TINY = float(np.finfo(np.float64).tiny)
NEWTON = 30  # steps; from a start of the round before, two or three
BISECTIONS = 80  # of lengths down to 1e-300, in order of magnitude and then in place
DIRECT = 600  # coefficients up to which the Hessian is formed


class Skip(NamedTuple):
    """What z means. Columns (m, k) of z in the prediction that the loss sees; theta = origin (K, c) + basis (K, k) z.

    linear, bias : whether theta has a linear part, and whether its last row is a bias.
    """

    columns: Float[np.ndarray, "m k"]
    l2: float
    basis: Float[np.ndarray, "K k"]
    origin: Float[np.ndarray, "K c"]
    linear: bool
    bias: bool

    @property
    def constant(self) -> float:
        """Penalty of the origin, which no z can avoid."""
        return 0.5 * self.l2 * float(np.sum(self.origin**2))

    def coefficients(self, z: Float[np.ndarray, "k c"]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(linear part (d, c) or None, bias (c,) or None)."""
        theta = self.origin + self.basis @ z
        linear, bias = (theta[:-1], theta[-1]) if self.bias else (theta, None)
        return (linear if self.linear else None), bias


def as_skip(skip: Any) -> str | None:
    """False as None, else "bias" or "linear"."""
    if skip is None or (isinstance(skip, (bool, np.bool_)) and not skip):
        return None
    if not (isinstance(skip, str) and skip in ("bias", "linear")):
        raise ValueError(f"skip must be False, 'bias' or 'linear', got {skip!r}")
    return skip


def skip_columns(data: np.ndarray, intercept: bool, skip: str | None, bias: bool = True) -> np.ndarray:
    """What a skip adds to a prediction, (n, K): X without the constant column, then a constant one."""
    n, D = data.shape
    linear = data[:, : D - intercept] if skip == "linear" else data[:, :0]
    return np.concatenate([linear, np.ones((n, int(bias)))], axis=1)


def make_skip(
    data: np.ndarray, intercept: bool, skip: str | None, l2: float, equality: Any, readout: Pairs | None, n_outputs: int
) -> tuple[Skip | None, Float[np.ndarray, "m c"] | None]:
    """The skip, and the shift of the prediction by its origin where that is not zero."""
    bias = readout is None  # a constant drops out of differences
    if skip is None or (skip == "bias" and not bias):
        return None, None
    columns = skip_columns(data, intercept, skip, bias)
    means = np.zeros(columns.shape[1])
    if bias and l2 == 0 and equality is not None:
        # Combinations of columns as they are would lose small deviations beside large means. A free bias takes these.
        columns, means = _centred(columns, np.ones((len(columns), 1)), bias)
    basis, origin = np.eye(columns.shape[1]), np.zeros((columns.shape[1], n_outputs))
    if equality is not None:
        d = columns.shape[1] - bias
        linear_basis, linear_origin = _eliminate(*_read_equality(equality, d, n_outputs))
        basis = np.zeros((d + bias, linear_basis.shape[1] + bias))
        basis[:d, : linear_basis.shape[1]] = linear_basis
        basis[d:, linear_basis.shape[1] :] = 1.0
        origin[:d] = linear_origin
        if bias:
            basis[d], origin[d] = basis[d] - means @ basis, origin[d] - means @ origin
    read_columns = read(readout, columns)
    linear = slice(0, columns.shape[1] - bias)  # of centred columns
    shift = read_columns[:, linear] @ origin[linear] if origin.any() else None
    seen = read_columns
    if equality is not None:
        k = basis.shape[1] - bias
        seen = np.concatenate([read_columns[:, linear] @ basis[linear, :k], read_columns[:, linear.stop :]], axis=1)
    return Skip(seen, l2, basis, origin, skip == "linear", bias), shift


def free_directions(
    columns: Float[np.ndarray, "m k"], weight: Float[np.ndarray, "m 1"], bias: bool = False
) -> Float[np.ndarray, "m r"]:
    """An orthonormal basis, in the inner product of the weights, of what the columns span.

    bias : whether the last column is constant. The others are then centred first: a mean that is many times the
        deviations must not decide their rank.
    """
    root = np.sqrt(weight)
    columns = root * _centred(columns, weight, bias)[0]
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), TINY)  # their units must not decide their rank
    left, singular, _ = np.linalg.svd(columns, full_matrices=False)
    left = left[:, singular > 1e-12 * singular.max(initial=0.0)]
    return np.divide(left, root, out=np.zeros_like(left), where=root > 0)


def _centred(columns: np.ndarray, weight: np.ndarray, bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """(columns less their weighted means, means), the last column as it is; beside a constant one both span the same.

    A subtraction of nearly equal numbers is exact, so deviations are as good as the data have them; those of rounding
    alone are none.
    """
    means = np.zeros(columns.shape[1])
    if bias:
        means[:-1] = np.sum(weight * columns[:, :-1], axis=0) / np.sum(weight)
        columns = columns - means
        nothing = np.abs(columns).max(axis=0) <= 8.0 * EPS * np.abs(means)
        columns[:, nothing & (means != 0)] = 0.0
    return columns, means


def _read_equality(equality: Any, d: int, c: int) -> tuple[np.ndarray, np.ndarray]:
    """(C (q, d), e (q, c)) in float64."""
    try:
        C, e = equality
    except (TypeError, ValueError):
        raise ValueError(f"equality must be a pair (C, e) with C @ skip = e, got {type(equality).__name__}") from None
    C = as_finite_array("equality, C,", C, ndim=(1, 2)).astype(np.float64)
    C = C[None, :] if C.ndim == 1 else C
    e = as_finite_array("equality, e,", e, ndim=(0, 1, 2)).astype(np.float64)
    if C.size == 0:
        raise ValueError(f"equality must have C of shape (q, {d}) with q >= 1, got {C.shape}")
    for name, array in (("equality, C,", C), ("equality, e,", e)):
        check_scale(name, array, np.dtype(np.float64))
    if C.shape[1] != d:
        raise ValueError(f"equality must have C of shape (q, {d}) for the linear part of the skip, got {C.shape}")
    q = C.shape[0]
    wanted = {(q,), (q, c)} | ({()} if q == 1 else set())
    if e.shape not in wanted:
        raise ValueError(f"equality must have e of shape ({q},) or ({q}, {c}) to match C {C.shape}, got {e.shape}")
    return C, np.broadcast_to(e.reshape(q, -1), (q, c)).copy()


def _eliminate(C: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(orthonormal basis of the null space of C, shortest solution of C theta = e)."""
    lengths = np.linalg.norm(C, axis=1, keepdims=True)
    if np.any((lengths[:, 0] == 0) & np.any(e != 0, axis=1)):
        raise ValueError("equality has no solution: a row of C is zero and its e is not")
    units = np.where(lengths > 0, lengths, 1.0)
    C, e = C / units, e / units
    left, singular, right = np.linalg.svd(C)
    rank = int(np.sum(singular > 1e-10 * singular.max(initial=0.0)))
    origin = right[:rank].T @ ((left[:, :rank].T @ e) / singular[:rank, None])
    if np.abs(C @ origin - e).max(initial=0.0) > 1e-8 * max(1e-300, np.abs(e).max(initial=0.0)):
        raise ValueError("equality has no solution: its rows contradict one another")
    return right[rank:].T, origin


def free_coefficients(skip: Skip, loss: Loss, prediction: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "k c"]:
    """The z of an unpenalised skip that is best beside neurons that predict this, with the squared loss."""
    root = np.sqrt(loss.weight)
    centred, means = _centred(skip.columns, loss.weight, skip.bias)
    columns = root * centred
    lengths = np.linalg.norm(columns, axis=0)
    lengths[lengths == 0] = 1.0
    z = np.linalg.lstsq(columns / lengths, root * (loss.y - prediction), rcond=1e-12)[0] / lengths[:, None]
    if skip.bias:
        z[-1] -= means @ z
    return z


class Whitened(NamedTuple):
    """A penalised skip in coordinates w, z = back w, where the loss has about the Hessian I - diag(ridge).

    columns (m, r) = skip.columns back, ridge (r,): the penalty is `1/2 sum_i ridge_i |w_i|^2`.
    """

    columns: Float[np.ndarray, "m r"]
    ridge: Float[np.ndarray, " r"]
    back: Float[np.ndarray, "k r"]


def whiten(skip: Skip, curvature: Float[np.ndarray, "m 1"]) -> Whitened:
    """From the singular values of the columns, weighed by the curvature of the loss."""
    _, singular, right = np.linalg.svd(np.sqrt(curvature) * skip.columns, full_matrices=False)
    size = singular**2 + skip.l2
    back = right.T / np.sqrt(size)
    return Whitened(skip.columns @ back, skip.l2 / size, back)


def settle(
    loss: Loss, skip: Whitened, base: Float[np.ndarray, "m c"], w: Float[np.ndarray, "r c"]
) -> Float[np.ndarray, "r c"]:
    """The w that minimises `loss(base + columns w)` and its penalty, from a start: Newton's method, host, float64.

    The bound loses |gradient|^2 / (2 skip_l2), hence the gradient is driven to rounding.
    """
    ridge = skip.ridge[:, None]

    def objective(w: np.ndarray) -> float:
        return float(loss.value(base + skip.columns @ w)) + 0.5 * float(np.sum(ridge * w * w))

    value = objective(w)
    for _ in range(NEWTON):
        a = base + skip.columns @ w
        gradient = ridge * w - skip.columns.T @ loss.dual(a)
        step = -gradient if loss.is_quadratic else _newton_step(loss, skip, a, gradient)
        promised = -float(np.sum(gradient * step))
        if not promised > 1e-16 * abs(value):
            if loss.is_quadratic:
                return w + step
            # The objective is flat to rounding; the gradient still tells, and the bound pays for it by 1 / skip_l2.
            after = ridge * (w + step) - skip.columns.T @ loss.dual(base + skip.columns @ (w + step))
            if not np.linalg.norm(after) <= 0.5 * np.linalg.norm(gradient):
                return w
            w = w + step
            continue
        move = w + step
        trial = objective(move)
        if trial > value - 0.1 * promised:
            along, penalty = skip.columns @ step, (float(np.sum(ridge * w * step)), float(np.sum(ridge * step**2)))
            move = w + shorter(loss, a, along, penalty, promised) * step
            trial = objective(move)
        if not trial <= value:
            return w
        w, value = move, trial
    return w


def shorter(
    loss: Loss,
    a: Float[np.ndarray, "m c"],
    along: Float[np.ndarray, "m c"],
    penalty: tuple[float, float],
    promised: float,
) -> float:
    """A length in [0, 1) to which `loss(a + length along)` and a penalty fall: far out a Hessian says nothing.

    penalty : its derivative in the length at 0, and how that grows. promised : minus that of the whole at 0.

    With h the largest curvature of the loss the slope at `promised / (sum h along^2 + growth)` is not positive yet,
    however small that is; from there to 1 lengths are halved by their order of magnitude, then by themselves.
    """
    size = max(float(np.abs(along).max(initial=0.0)), TINY)
    low = promised / size / (size * float(np.sum(loss.curvature * (along / size) ** 2)) + penalty[1] / size)
    low, high = min(max(low, 0.0), 1.0), 1.0
    for _ in range(BISECTIONS):
        length = 0.5 * (low + high) if high <= 4.0 * low or low == 0.0 else float(np.sqrt(low) * np.sqrt(high))
        slope = penalty[0] + length * penalty[1] - float(np.sum(loss.dual(a + length * along) * along))
        low, high = (length, high) if slope <= 0 else (low, length)
        if -0.5 * promised <= slope <= 0:
            break
    return low


def _newton_step(loss: Loss, skip: Whitened, a: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """The Newton step, by a Cholesky factor where that is small, else by conjugate gradients."""
    r, c = gradient.shape
    if r * c <= DIRECT:
        columns, second = np.repeat(skip.columns, c, axis=1), np.tile(np.eye(c), (1, r))
        hessian = loss.gram(a, columns, second) + np.diag(np.repeat(skip.ridge, c))
        return -semidefinite_solver(hessian)(gradient.ravel()).reshape(r, c)

    def product(v: np.ndarray) -> np.ndarray:
        return skip.columns.T @ loss.hessian_product(a, skip.columns @ v) + skip.ridge[:, None] * v

    accuracy = 1e-6 * float(np.linalg.norm(gradient))
    step, _ = conjugate_gradients(product, -gradient, 0.0 * gradient, lambda v: v, accuracy, 200)
    return step
