"""The last-layer program on the device: gradient, certificate, Lipschitz constant.

    f(theta) = sum_i weight_i log(1 + exp(margin_i - scale y_i theta @ a_i)) + l2/2 |theta|^2

With predictions a = scale A theta and t = -loss'(a), `t_i = weight_i y_i s_i` (`losses.Logistic`):

    gradient   l2 theta - scale A^T t
    Lipschitz  L = l2 + scale^2 / 4 lambda_max(A^T diag(weight) A)
    dual       D(t) - |scale A^T t|^2 / (2 l2)  <=  min f    for every t with all t_i y_i / weight_i in [0, 1]

The dual is what is left when theta is minimised out of `-scale theta @ A^T t + l2/2 |theta|^2`. Its only constraint is
the domain of D, so kappa t is feasible with t for every kappa in (0, 1], and beyond; the best kappa is taken. At
t = -loss'(a) and kappa = 1 objective minus bound is exactly `|gradient|^2 / (2 l2)`.

Certificates are evaluated in float64 on batches of rows, whose parts add up: one batch where the data fit, many where
they do not. The bound carries a rounding allowance, as in `certificates`.
Sources: Boyd & Vandenberghe, "Convex optimization", 2004, section 5.7.1; Kuczynski & Wozniakowski, SIAM J. Matrix Anal.
Appl. 1992, theorem 4.2, for the probability with which Lanczos underestimates an eigenvalue.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.numerics.rounding import EPS, gamma
from cvxrelu.program.losses import Logistic

__all__ = ["Measured", "Program", "gradient", "largest_eigenvalue", "measure", "reduced_basis", "row_lengths"]

Array = Any
TINY = 1e-200  # largest |t_i| below which a t proves nothing
DENSE_EIGENVALUES = 512  # largest smaller side of A for which A^T diag(weight) A, or its twin, is diagonalised
FAILURE = 1e-12  # probability with which Lanczos may underestimate, over its random start
SLACK = 0.1  # what its estimate is raised by


class Program(NamedTuple):
    """Rows of the program, all or a batch of them. theta is a column (d, 1) throughout."""

    A: Float[Array, "n d"]
    loss: Logistic
    scale: Float[Array, ""]
    l2: Float[Array, ""]
    lengths: Any = None  # (n, 1) norms of the rows, for the certificate's rounding allowance; None: computed there


class Measured(NamedTuple):
    """What a full pass at theta tells, on the host in float64."""

    objective: float
    lower_bound: float
    dual: Float[np.ndarray, "n 1"]  # the feasible kappa t behind the bound
    gradient: Float[np.ndarray, "d 1"]


def gradient(program: Program, theta: Float[Array, "d 1"]) -> tuple[Float[Array, "d 1"], Float[Array, ""]]:
    """Gradient and value of f, two products with A."""
    xp = array_namespace(program.A)
    A, loss, scale, l2, _ = program
    a = scale * (A @ theta)
    value = loss.value(a) + 0.5 * l2 * xp.sum(theta * theta)
    return l2 * theta - scale * (A.T @ loss.dual(a)), value


# -- the certificate --------------------------------------------------------------------------------------------------
def measure(
    backend: Backend, batches: Iterable[Program], loss: Logistic, theta: Float[np.ndarray, "d 1"], l2: float
) -> Measured:
    """Objective at theta and the best lower bound that t = -loss' there gives. `loss` is that of all rows."""
    part, xp = backend.compile(_part), backend.xp
    on_device = backend.put(theta)
    parts = [part(backend, program, on_device) for program in batches]
    t = parts[0][0] if len(parts) == 1 else xp.concat([p[0] for p in parts], axis=0)
    value, pull, mass = (sum((p[k] for p in parts[1:]), start=parts[0][k]) for k in (1, 2, 3))
    settled = backend.compile(_settle)(
        backend, loss, t, value, pull, mass, on_device, backend.put(np.asarray(l2, dtype=np.float64))
    )
    values, dual, slope = backend.get(settled)
    return Measured(float(values[0]), float(values[1]), dual, slope)


def _part(backend: Backend, program: Program, theta: Any) -> tuple[Any, Any, Any, Any]:
    """t, loss, scale A^T t, and the mass sum |t_i| |a_i| scale that its rounding is proportional to."""
    xp = array_namespace(program.A)
    A, loss, scale = program[:3]
    a = scale * (A @ theta)
    t = loss.dual(a)
    lengths = row_lengths(A) if program.lengths is None else program.lengths
    return t, loss.value(a), scale * (A.T @ t), scale * xp.sum(lengths * xp.abs(t))


def norm(v: Array) -> Float[Array, ""]:
    """2-norm, without underflow of the squares."""
    xp = array_namespace(v)
    largest = xp.max(xp.abs(v))
    unit = xp.where(largest > 0, largest, xp.ones_like(largest))
    return unit * xp.sqrt(xp.sum((v / unit) ** 2))


def row_lengths(A: Float[Array, "n d"]) -> Float[Array, "n 1"]:
    """2-norms of the rows."""
    xp = array_namespace(A)
    return xp.sqrt(xp.sum(A * A, axis=1))[:, None]


def _settle(
    backend: Backend, loss: Logistic, t: Any, value: Any, pull: Any, mass: Any, theta: Any, l2: Any
) -> tuple[Any, Any, Any]:
    """(objective, bound), the dual of the bound, the gradient."""
    xp = array_namespace(t)
    rounding = gamma(t.shape[0], theta.shape[0])
    objective = value + 0.5 * l2 * xp.sum(theta * theta)
    # A small t is enlarged, because the square of its pull would underflow. One that has nearly vanished is not
    # believed: the rounding of what was computed from it is no longer relative.
    zero, one = xp.zeros((), dtype=t.dtype), xp.ones((), dtype=t.dtype)
    positive = loss.weight > 0
    top = xp.max(xp.where(positive, xp.abs(t) / xp.where(positive, loss.weight, one), zero))
    believed = xp.max(xp.abs(t)) >= TINY
    unit = xp.where(believed & (top < 1e-100), top, one)
    # An inner product over n rows is off by at most n eps / 2 times the sum of magnitudes, and by a little for scale.
    length = (1.0 + rounding) * (norm(pull / unit) + EPS * (t.shape[0] + 10.0) * (mass / unit))
    dual = xp.where(believed, t / unit, zero)
    kappa = loss.best_dual_scale(dual, xp.inf * one, (length / xp.sqrt(l2)) ** 2)
    dual = kappa * dual
    dual_value, magnitude = loss.dual_value(dual)
    ridge = 0.5 * (kappa * length / xp.sqrt(l2)) ** 2
    bound = dual_value - ridge - rounding * (magnitude + ridge)
    # The loss is nonnegative: so is the optimum, whatever t says.
    bound = xp.maximum(bound, xp.zeros_like(bound))
    return xp.stack([objective, bound]), dual, l2 * theta - pull


# -- the Lipschitz constant -------------------------------------------------------------------------------------------
def largest_eigenvalue(backend: Backend, program: Program, seed: int = 0) -> float:
    """An upper bound on lambda_max(A^T diag(weight) A), tight to rounding, or to ten per cent on large data.

    By the eigenvalues of the smaller Gram matrix where that has at most 512 rows. Else by Lanczos from a Gaussian
    start, with so many steps that the estimate, raised by a ninth, is too small with probability 1e-12 at most.
    """
    if min(program.A.shape) <= DENSE_EIGENVALUES:
        return float(backend.get(backend.compile(_gram_top)(backend, program)))
    d = program.A.shape[1]
    needed = (math.log(1.648 / FAILURE) + 0.5 * math.log(d)) / math.sqrt(SLACK)
    steps = min(d, math.ceil(0.5 * (needed + 1.0)))
    product = backend.compile(_normal_product)
    basis = np.zeros((steps, d))
    v = np.random.default_rng([seed, 2]).standard_normal(d)
    diagonal, off = np.zeros(steps), np.zeros(steps)
    for k in range(steps):
        basis[k] = v / np.linalg.norm(v)
        v = backend.get(product(backend, program, backend.put(basis[k][:, None])))[:, 0]
        diagonal[k] = basis[k] @ v
        for _ in range(2):  # orthogonal to all before, twice: once is not enough in floating point
            v = v - basis[: k + 1].T @ (basis[: k + 1] @ v)
        off[k] = np.linalg.norm(v)
        if off[k] <= 1e-14 * diagonal.max():
            steps = k + 1
            break
    T = np.diag(diagonal[:steps]) + np.diag(off[: steps - 1], 1) + np.diag(off[: steps - 1], -1)
    return float(np.linalg.eigvalsh(T)[-1]) / (1.0 - SLACK)


def _gram_top(backend: Backend, program: Program) -> Any:
    xp = array_namespace(program.A)
    rows = xp.sqrt(program.loss.weight) * program.A
    gram = rows.T @ rows if rows.shape[1] <= rows.shape[0] else rows @ rows.T
    rounding = gamma(*rows.shape)
    return xp.linalg.eigvalsh(0.5 * (gram + gram.T))[-1] + 2.0 * rounding * xp.sum(rows * rows)


def _normal_product(backend: Backend, program: Program, v: Any) -> Any:
    return program.A.T @ (program.loss.weight * (program.A @ v))


# -- fewer unknowns ---------------------------------------------------------------------------------------------------
def reduced_basis(backend: Backend, A: Float[Array, "n d"]) -> Float[Array, "d n"]:
    """Orthonormal basis of a space that holds the rows of A, hence the minimiser: for n < d."""
    return backend.compile(_row_basis)(backend, A)


def _row_basis(backend: Backend, A: Any) -> Any:
    return array_namespace(A).linalg.qr(A.T, mode="reduced")[0]
