"""The u-step: `(F^T D F + rho_copy I + rho_cone G^T G) U = rhs` with D = diag(curvature), solved exactly or by CG.

Four facts make it cheap.

1. `E * E = 1`, hence `G^T G = X^T X` on every block: H = rho_copy I + rho_cone X^T X, and G does not appear.
2. Group norms do not see rotations. In the right singular basis of X, H is diagonal: `h`.
3. In `a = v - z` and `b = v + z` the system decouples: b needs H alone, and only a sees F:

       (H + 2 F1^T D F1) a = rhs_v - rhs_z,         H b = rhs_v + rhs_z.

4. Woodbury, with `K = F1 H^-1 F1^T = (X H^-1 X^T) * (M M^T)` elementwise and S = I + 2 D^1/2 K D^1/2 (n, n):

       a = r - H^-1 F1^T D^1/2 t,    S t = 2 D^1/2 F1 r,    r = H^-1 (rhs_v - rhs_z).

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
from cvxrelu.operators import F1, F1_adjoint

__all__ = ["ConjugateGradient", "DirectGram", "DirectPrimal", "LinearSystem", "build_system", "gram", "solve_blocks"]

Array = Any


class DirectGram(NamedTuple):
    """`S^-1`, (n, n)."""

    h: Float[Array, " r"]
    root: Float[Array, "n 1"]
    inverse: Float[Array, "n n"]

    def solve(self, backend: Backend, X: Any, M: Any, r: Any, warm: Any, atol: Any) -> tuple[Any, Any]:
        t = self.inverse @ (2.0 * self.root * F1(X, M, r))
        return r - F1_adjoint(X, M, self.root * t) / self.h[:, None, None], t


class DirectPrimal(NamedTuple):
    """`(I + 2 H^-1/2 F1^T D F1 H^-1/2)^-1`, (P r, P r)."""

    h: Float[Array, " r"]
    inverse: Float[Array, "Pr Pr"]

    def solve(self, backend: Backend, X: Any, M: Any, r: Any, warm: Any, atol: Any) -> tuple[Any, Any]:
        xp = array_namespace(X)
        half = xp.sqrt(self.h)[:, None, None]
        rank, c, P = r.shape
        columns = xp.reshape(xp.permute_dims(half * r, (0, 2, 1)), (rank * P, c))
        a = xp.permute_dims(xp.reshape(self.inverse @ columns, (rank, P, c)), (0, 2, 1)) / half
        return a, warm


class ConjugateGradient(NamedTuple):
    """Matrix-free CG on S, started from the last solution, with a Nystrom preconditioner.

    `basis (n, l)` and `eigenvalues (l,)` approximate `S - I` from l of its columns, which Hadamard's form of K gives
    for the price of two thin products. `atol` decreases summably over the iterations (see `admm.cg_tolerance`).
    """

    h: Float[Array, " r"]
    root: Float[Array, "n 1"]
    basis: Float[Array, "n l"]
    eigenvalues: Float[Array, " l"]

    def solve(self, backend: Backend, X: Any, M: Any, r: Any, warm: Any, atol: Any) -> tuple[Any, Any]:
        xp = array_namespace(X)

        def operator(t: Any) -> Any:
            a = F1_adjoint(X, M, self.root * t) / self.h[:, None, None]
            return t + 2.0 * self.root * F1(X, M, a)

        shrink = (self.eigenvalues / (1.0 + self.eigenvalues))[:, None]

        def preconditioner(t: Any) -> Any:
            return t - self.basis @ (shrink * (self.basis.T @ t))

        b = 2.0 * self.root * F1(X, M, r)
        tolerance = atol * xp.sqrt(xp.sum(b * b))
        t, _ = backend.cg(operator, b, warm, preconditioner, tolerance, CG_MAX_STEPS)
        return r - F1_adjoint(X, M, self.root * t) / self.h[:, None, None], t


LinearSystem = DirectGram | DirectPrimal | ConjugateGradient

CG_MAX_STEPS = 500


def solve_blocks(
    backend: Backend, system: LinearSystem, X: Any, M: Any, rhs: Float[Array, "r 2 c P"], warm: Any, atol: Any
) -> tuple[Float[Array, "r 2 c P"], Float[Array, "n c"]]:
    """U of the u-step, and the vector t to start the next solve from."""
    xp = array_namespace(rhs)
    h = system.h[:, None, None]
    v, z = rhs[:, 0, ...], rhs[:, 1, ...]
    b = (v + z) / h
    a, warm = system.solve(backend, X, M, (v - z) / h, warm, atol)
    return xp.stack([0.5 * (b + a), 0.5 * (b - a)], axis=1), warm


def gram(
    X: Float[Array, "n r"],
    M: Bool[Array, "n P"],
    h: Float[Array, " r"],
    root: Float[Array, "n 1"],
    rows: Int[Array, " l"] | None = None,
) -> Float[Array, "n l"]:
    """`2 D^1/2 K D^1/2`, whole or the columns `rows`: `(X H^-1 X^T) * (M M^T)` elementwise, two GEMMs."""
    xp = array_namespace(X)
    weights = xp.astype(M, X.dtype)
    if rows is None:
        some_X, some_M, some_root = X, weights, root
    else:
        some_X, some_M, some_root = (xp.take(a, rows, axis=0) for a in (X, weights, root))
    return 2.0 * ((X / h) @ some_X.T) * (weights @ some_M.T) * root * some_root.T


def build_system(
    backend: Backend,
    X: Float[Array, "n r"],
    M: Bool[Array, "n P"],
    eigenvalues: Float[Array, " r"],
    curvature: Float[Array, "n 1"],
    rho_copy: Any,
    rho_cone: Any,
    landmarks: Any,
    method: str,
) -> LinearSystem:
    """Prepare the u-step for a pair of penalties. `method` is "gram", "primal" or "cg" (which uses `landmarks`)."""
    return backend.compile(_build, static=("method",))(
        backend, X, M, eigenvalues, curvature, rho_copy, rho_cone, landmarks, method=method
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
    method: str,
) -> LinearSystem:
    xp = array_namespace(X)
    h = rho_copy + rho_cone * eigenvalues
    root = xp.sqrt(curvature)
    n, rank = X.shape
    if method == "gram":
        return DirectGram(h, root, backend.spd_inverse(gram(X, M, h, root) + xp.eye(n, dtype=X.dtype)))
    if method == "primal":
        size = rank * M.shape[1]
        rows = xp.where(M[:, None, :], (root * X / xp.sqrt(h))[:, :, None], xp.zeros((), dtype=X.dtype))
        F1_scaled = xp.reshape(rows, (n, size))
        return DirectPrimal(h, backend.spd_inverse(2.0 * (F1_scaled.T @ F1_scaled) + xp.eye(size, dtype=X.dtype)))
    # Nystrom from columns: A ~ C W^-1 C^T with C = A[:, rows], W = C[rows]; a shift of W makes its square root exist.
    columns = gram(X, M, h, root, landmarks)
    core = xp.take(columns, landmarks, axis=0)
    core_values, core_vectors = xp.linalg.eigh(0.5 * (core + core.T))
    floor = xp.max(core_values) * (100.0 * float(xp.finfo(X.dtype).eps))
    good = core_values > floor
    one, zero = xp.ones((), dtype=X.dtype), xp.zeros((), dtype=X.dtype)
    inverse_root = xp.where(good, one / xp.sqrt(xp.where(good, core_values, one)), zero)
    basis, singular_values, _ = xp.linalg.svd(columns @ (core_vectors * inverse_root), full_matrices=False)
    return ConjugateGradient(h, root, basis, singular_values**2)
