"""The u-step: `(F^T D F + rho_copy I + rho_cone G^T G) U = rhs` with D = diag(curvature), solved exactly or by CG.

Four facts make it cheap.

1. `E * E = 1`, hence `G^T G = X^T X` on every block: H = rho_copy I + rho_cone X^T X, and G does not appear.
2. Group norms do not see rotations. In the right singular basis of X, H is diagonal: `h`.
3. In `a = v - z` and `b = v + z` the system decouples: b needs H alone, and only a sees F:

       (H + 2 F1^T D F1) a = rhs_v - rhs_z,         H b = rhs_v + rhs_z.

4. Woodbury, with `K = F1 H^-1 F1^T = (X H^-1 X^T) * (M M^T)` elementwise and S = I + 2 D^1/2 K D^1/2 (n, n):

       a = r - H^-1 F1^T D^1/2 t,    S t = 2 D^1/2 F1 r,    r = H^-1 (rhs_v - rhs_z).

With a readout R and a skip, D^1/2 is `T^1/2 D^1/2 R` throughout (`reading`), S is (m, m), and K becomes R K R^T. Where
the prediction is pulled towards a target q that changes from step to step (a loss that is not quadratic), q enters
through t alone, at no cost: `S t = 2 T^1/2 D^1/2 (R F1 r - q)`, and then `T^1/2 D^1/2 (R F U - q) = t / 2`.

So the whole step is one solve with S, by its inverse (`DirectGram`), by conjugate gradients (`ConjugateGradient`), or,
where P * rank < n, with the (P rank, P rank) twin of S (`DirectPrimal`). All three are NamedTuples of arrays with the
same method `solve`. The inverse is kept rather than the factor: a product with it streams memory once on any device,
where triangular solves run one row after another (5 to 20 times slower, measured on CPU), and S is well conditioned,
because the penalty on G U = s bounds K: cond(S) <= 1 + 2 P max(curvature) / rho_cone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace
from jaxtyping import Bool, Float, Int

from cvxrelu.backends.base import Backend
from cvxrelu.numerics.conjugate_gradients import conjugate_gradients
from cvxrelu.program.operators import F1, F1_adjoint
from cvxrelu.program.readout import Pairs, read
from cvxrelu.sampled.data_term import Reading, SkipFactors
from cvxrelu.support.blocks import each

__all__ = ["ConjugateGradient", "DirectGram", "DirectPrimal", "LinearSystem", "build_system", "gram", "solve_blocks"]

Array = Any


class DirectGram(NamedTuple):
    """`S^-1`, (m, m)."""

    h: Float[Array, " r"]
    reading: Reading
    inverse: Float[Array, "m m"]

    def solve(self, backend: Backend, X: Any, M: Any, r: Any, target: Any, warm: Any, atol: Any) -> tuple[Any, Any]:
        t = self.inverse @ _right_side(self.reading, X, M, r, target)
        return r - F1_adjoint(X, M, self.reading.adjoint(t)) / self.h[:, None, None], t


class DirectPrimal(NamedTuple):
    """`(I + 2 H^-1/2 F1^T D F1 H^-1/2)^-1`, (P r, P r)."""

    h: Float[Array, " r"]
    reading: Reading
    inverse: Float[Array, "Pr Pr"]

    def solve(self, backend: Backend, X: Any, M: Any, r: Any, target: Any, warm: Any, atol: Any) -> tuple[Any, Any]:
        xp = array_namespace(X)
        half = xp.sqrt(self.h)[:, None, None]
        rank, c, P = r.shape
        if target is not None:
            pull = self.reading.contract(self.reading.root * target)
            r = r + 2.0 * F1_adjoint(X, M, self.reading.adjoint(pull)) / (half * half)
        columns = xp.reshape(xp.permute_dims(half * r, (0, 2, 1)), (rank * P, c))
        a = xp.permute_dims(xp.reshape(self.inverse @ columns, (rank, P, c)), (0, 2, 1)) / half
        return a, warm if target is None else _right_side(self.reading, X, M, a, target)


class ConjugateGradient(NamedTuple):
    """Matrix-free CG on S, started from the last solution, with a Nystrom preconditioner.

    `basis (m, l)` and `eigenvalues (l,)` approximate `S - I` from l of its columns, which Hadamard's form of K gives
    for the price of two thin products. `atol` decreases summably over the iterations (see `admm.cg_tolerance`).
    """

    h: Float[Array, " r"]
    reading: Reading
    basis: Float[Array, "m l"]
    eigenvalues: Float[Array, " l"]

    def solve(self, backend: Backend, X: Any, M: Any, r: Any, target: Any, warm: Any, atol: Any) -> tuple[Any, Any]:
        xp = array_namespace(X)

        def operator(t: Any) -> Any:
            a = F1_adjoint(X, M, self.reading.adjoint(t)) / self.h[:, None, None]
            return t + 2.0 * self.reading.forward(F1(X, M, a))

        shrink = (self.eigenvalues / (1.0 + self.eigenvalues))[:, None]

        def preconditioner(t: Any) -> Any:
            return t - self.basis @ (shrink * (self.basis.T @ t))

        b = _right_side(self.reading, X, M, r, target)
        tolerance = atol * xp.sqrt(xp.sum(b * b))
        t, _ = conjugate_gradients(operator, b, warm, preconditioner, tolerance, CG_MAX_STEPS)
        return r - F1_adjoint(X, M, self.reading.adjoint(t)) / self.h[:, None, None], t


def _right_side(reading: Reading, X: Any, M: Any, r: Any, target: Any) -> Any:
    """`2 T^1/2 D^1/2 (R F1 r - target)`."""
    values = read(reading.readout, F1(X, M, r))
    return 2.0 * reading.contract(reading.root * (values if target is None else values - target))


LinearSystem = DirectGram | DirectPrimal | ConjugateGradient

CG_MAX_STEPS = 500


def solve_blocks(
    backend: Backend,
    system: LinearSystem,
    X: Any,
    M: Any,
    rhs: Float[Array, "r 2 c P"],
    warm: Float[Array, "m c"],
    atol: Any,
    target: Float[Array, "m c"] | None = None,
) -> tuple[Float[Array, "r 2 c P"], Float[Array, "m c"]]:
    """U of the u-step, and the vector t to start the next solve from.

    target : q, where `rhs` does not hold `F^T R^T D^1/2 T D^1/2 q` already. Then t is `2 T^1/2 D^1/2 (R F U - q)`
        whatever the method.
    """
    xp = array_namespace(rhs)
    h = system.h[:, None, None]
    v, z = rhs[:, 0, ...], rhs[:, 1, ...]
    b = (v + z) / h
    a, warm = system.solve(backend, X, M, (v - z) / h, target, warm, atol)
    return xp.stack([0.5 * (b + a), 0.5 * (b - a)], axis=1), warm


def gram(
    X: Float[Array, "n r"],
    M: Bool[Array, "n P"],
    h: Float[Array, " r"],
    root: Float[Array, "m 1"],
    rows: Int[Array, " l"] | None = None,
    readout: Pairs | None = None,
) -> Float[Array, "m l"]:
    """`2 D^1/2 R K R^T D^1/2`, whole or the columns `rows`, with `K = (X H^-1 X^T) * (M M^T)` elementwise."""
    xp = array_namespace(X)
    if readout is None and rows is not None:
        some, chosen = xp.take(X, rows, axis=0), xp.astype(xp.take(M, rows, axis=0), X.dtype)

        def part(b: slice) -> Any:
            return 2.0 * ((X[b, :] / h[None, :]) @ some.T) * (xp.astype(M[b, :], X.dtype) @ chosen.T) * root[b, :]

        return each(max(M.shape[1], some.shape[0]), part, X, M) * xp.take(root, rows, axis=0).T
    n, weights = X.shape[0], xp.astype(M, X.dtype)

    def kernel(left: Any, right: Any) -> Any:
        """Rows `left` of K, columns `right`; None for all."""
        (a, A), (b, B) = (
            (X, weights) if rows is None else (xp.take(X, rows, axis=0), xp.take(weights, rows, axis=0))
            for rows in (left, right)
        )
        return ((a / h[None, :]) @ b.T) * (A @ B.T)

    some_root = root if rows is None else xp.take(root, rows, axis=0)
    if readout is None:
        K = kernel(None, None)
    elif rows is not None:
        first, second = (xp.take(side, rows, axis=0) for side in readout[:2])
        K = read(readout, kernel(None, first) - kernel(None, second))
    elif 2 * root.shape[0] <= n:  # fewer pairs than half the rows: K itself would be the larger
        cross = kernel(readout.first, readout.second)
        K = kernel(readout.first, readout.first) + kernel(readout.second, readout.second) - cross - cross.T
    else:
        K = read(readout, read(readout, kernel(None, None)).T)
    return 2.0 * K * root * some_root.T


def build_system(
    backend: Backend,
    X: Float[Array, "n r"],
    M: Bool[Array, "n P"],
    eigenvalues: Float[Array, " r"],
    curvature: Float[Array, "m 1"],
    rho_copy: Any,
    rho_cone: Any,
    landmarks: Any,
    method: str,
    readout: Pairs | None = None,
    skip: SkipFactors | None = None,
) -> LinearSystem:
    """Prepare the u-step for a pair of penalties. `method` is "gram", "primal" or "cg" (which uses `landmarks`).

    curvature : D. landmarks : rows of it. skip : the factors of the skip for this D.
    """
    return backend.compile(_build, static=("method",))(
        backend, X, M, eigenvalues, curvature, rho_copy, rho_cone, landmarks, readout, skip, method=method
    )


def _build(
    backend: Backend,
    X: Any,
    M: Any,
    eigenvalues: Any,
    curvature: Any,
    rho_copy: Any,
    rho_cone: Any,
    landmarks: Any,
    readout: Pairs | None,
    skip: SkipFactors | None,
    method: str,
) -> LinearSystem:
    xp = array_namespace(X)
    h = rho_copy + rho_cone * eigenvalues
    reading = Reading.make(curvature, readout, skip)
    if method == "gram":
        K = gram(X, M, h, reading.root, readout=readout)
        if skip is not None:
            K = reading.contract(reading.contract(K).T)
        inverse = backend.spd_inverse(K + xp.eye(K.shape[0], dtype=X.dtype))
        return DirectGram(h, reading, backend.split(inverse, 0, 0))
    if method == "primal":
        size = X.shape[1] * M.shape[1]
        blocks = xp.where(M[:, None, :], (X / xp.sqrt(h)[None, :])[:, :, None], xp.zeros((), dtype=X.dtype))
        F1_scaled = reading.forward(xp.reshape(blocks, (X.shape[0], size)))
        inverse = backend.spd_inverse(2.0 * (F1_scaled.T @ F1_scaled) + xp.eye(size, dtype=X.dtype))
        return DirectPrimal(h, reading, inverse)
    # Nystrom from columns: A ~ C W^-1 C^T with C = A[:, rows], W = C[rows]; a shift of W makes its square root exist.
    # Without the skip's contraction, which is then applied to the factor.
    columns = gram(X, M, h, reading.root, landmarks, readout)
    core = xp.take(columns, landmarks, axis=0)
    core_values, core_vectors = xp.linalg.eigh(0.5 * (core + core.T))
    floor = xp.max(core_values) * (100.0 * float(xp.finfo(X.dtype).eps))
    good = core_values > floor
    one, zero = xp.ones((), dtype=X.dtype), xp.zeros((), dtype=X.dtype)
    inverse_root = xp.where(good, one / xp.sqrt(xp.where(good, core_values, one)), zero)
    factor = reading.contract(columns @ (core_vectors * inverse_root[None, :]))
    basis, singular_values, _ = xp.linalg.svd(factor, full_matrices=False)
    return ConjugateGradient(h, reading, basis, singular_values**2)
