"""The block operators F and G and their adjoints, applied without forming them.

Shapes. `X (n, d)`, activation patterns `M (n, P)` bool, `E = 2 M - 1`. Blocks are stored features first,
`U (d, 2, c, P)`: axis 1 holds the pair (v, z), axis 2 the outputs, so that every product with X is one GEMM whatever
the number of outputs. (`Solution.sampled.blocks` has the public order `(2, d, P[, c])`.)

    F(U)_k   = sum_i M_i * X (v_ki - z_ki)          (n, c)          F1(A)_k = sum_i M_i * X a_ki, the half F is made of
    F^T(r)   = (+, -) X^T (M * r)                   (d, 2, c, P)
    G(U)     = E * (X U)                            (n, 2, c, P)
    G^T(s)   = X^T (E * s)                          (d, 2, c, P)

Functions take arrays of any library of the array API standard and cost 2 n d P c (F), 4 n d P c (G) flops.
Source: Pilanci & Ergen, "Neural networks are convex regularizers", ICML 2020, equation (8); Bai, Gautam & Sojoudi,
"Efficient global optimization of two-layer ReLU networks", SIMODS 2023, for the operator form.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace
from jaxtyping import Bool, Float

from cvxrelu.support.blocks import Parts, over_blocks, row_blocks

__all__ = ["F1", "F", "F1_adjoint", "F_adjoint", "G", "G_adjoint", "masked", "row_blocks", "signed"]

Array = Any


def masked(M: Bool[Array, "n P"], values: Float[Array, "n ... P"]) -> Float[Array, "n ... P"]:
    """`M * values`, broadcast over the axes between rows and patterns."""
    return values * _between(array_namespace(values).astype(M, values.dtype), values)


def signed(M: Bool[Array, "n P"], values: Float[Array, "n ... P"]) -> Float[Array, "n ... P"]:
    """`E * values` with `E = 2 M - 1`, broadcast over the axes between rows and patterns."""
    # A product with +-1.0, not a selection: eager libraries run it four times faster, and compilers fuse either.
    return values * _between(2.0 * array_namespace(values).astype(M, values.dtype) - 1.0, values)


def F1(X: Float[Array, "n d"], M: Bool[Array, "n P"], A: Float[Array, "d c P"]) -> Float[Array, "n c"]:
    """`sum_i M_i * X a_i`: the positive half of F."""
    return over_blocks(A.shape[1] * A.shape[2], _F1_rows, X, M, beside=(A,)).rows[0]


def _F1_rows(X: Array, M: Array, A: Array) -> Parts:
    xp = array_namespace(X)
    # A product with ones, not a sum over the last axis: XLA on CPU makes two passes of that.
    ones = xp.ones(M.shape[1], dtype=A.dtype)
    return Parts(rows=(masked(M, xp.tensordot(X, A, axes=1)) @ ones,))


def F1_adjoint(X: Float[Array, "n d"], M: Bool[Array, "n P"], r: Float[Array, "n c"]) -> Float[Array, "d c P"]:
    """`X^T (M_i * r)` for every pattern: the adjoint of `F1`."""
    return over_blocks(r.shape[1] * M.shape[1], _F1_adjoint_sum, X, M, r).sums[0]


def _F1_adjoint_sum(X: Array, M: Array, r: Array) -> Parts:
    xp = array_namespace(X)
    return Parts(sums=(xp.tensordot(X.T, xp.astype(M, r.dtype)[:, None, :] * r[:, :, None], axes=1),))


def F(X: Float[Array, "n d"], M: Bool[Array, "n P"], U: Float[Array, "d 2 c P"]) -> Float[Array, "n c"]:
    """`sum_i M_i * X (v_i - z_i)`: the prediction of the sampled program."""
    return F1(X, M, U[:, 0, ...] - U[:, 1, ...])


def F_adjoint(X: Float[Array, "n d"], M: Bool[Array, "n P"], r: Float[Array, "n c"]) -> Float[Array, "d 2 c P"]:
    """`(+, -) X^T (M_i * r)`."""
    half = F1_adjoint(X, M, r)
    return array_namespace(X).stack([half, -half], axis=1)


def G(X: Float[Array, "n d"], M: Bool[Array, "n P"], U: Float[Array, "d 2 c P"]) -> Float[Array, "n 2 c P"]:
    """`E_i * X u` for every block: nonnegative exactly on the cones."""
    return signed(M, array_namespace(X).tensordot(X, U, axes=1))


def G_adjoint(X: Float[Array, "n d"], M: Bool[Array, "n P"], s: Float[Array, "n 2 c P"]) -> Float[Array, "d 2 c P"]:
    """`X^T (E_i * s)` for every block."""
    return array_namespace(X).tensordot(X.T, signed(M, s), axes=1)


def _between(M: Any, values: Any) -> Any:
    """M with as many axes of length one between rows and patterns as `values` has there."""
    return M[(slice(None),) + (None,) * (values.ndim - 2) + (slice(None),)]
