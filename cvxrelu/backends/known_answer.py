"""Each backend is asked a question with a known answer before it is trusted."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxrelu.backends import Backend


def _probe(backend: Backend, X: Any, M: Any, U: Any, r: Any, s: Any) -> tuple[Any, ...]:
    """Masked products of every kind that the solver makes, F, F^T, G and G^T among them: what the check compiles."""
    xp = backend.xp
    mask = xp.astype(M, X.dtype)
    signs = 2.0 * mask - 1.0
    half = xp.tensordot(xp.matrix_transpose(X), mask[:, None, :] * r[:, :, None], axes=1)
    inner = xp.tensordot(X, U, axes=1)  # (n, 2, c, P)
    return (
        xp.sum(mask[:, None, :] * (inner[:, 0] - inner[:, 1]), axis=-1),
        xp.stack([half, -half], axis=1),
        signs[:, None, None, :] * inner,
        xp.tensordot(xp.matrix_transpose(X), signs[:, None, None, :] * s, axes=1),
    )


def known_answer(backend: Backend) -> str | None:
    """Compiled products in both precisions against dense NumPy products; None when they agree, else what differs."""
    rng = np.random.default_rng(0)
    n, d, c, P = 37, 5, 2, 11
    X, U = rng.standard_normal((n, d)), rng.standard_normal((d, 2, c, P))
    r, s, M = rng.standard_normal((n, c)), rng.standard_normal((n, 2, c, P)), rng.random((n, P)) < 0.5
    E = np.where(M, 1.0, -1.0)
    half = np.einsum("nd,np,nc->dcp", X, M, r)
    expected = {
        "F": np.einsum("np,nd,dcp->nc", M, X, U[:, 0] - U[:, 1]),
        "F^T": np.stack([half, -half], axis=1),
        "G": np.einsum("np,nd,dscp->nscp", E, X, U),
        "G^T": np.einsum("nd,np,nscp->dscp", X, E, s),
    }
    with backend.scope():
        for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
            inputs = backend.put((X, M, U, r, s), dtype)
            results = backend.get(backend.compile(_probe)(backend, *inputs))
            for (name, answer), result in zip(expected.items(), results, strict=True):
                error = np.abs(result - answer).max() / np.abs(answer).max()
                if result.dtype != dtype or not error <= tolerance:
                    return f"{name} in {np.dtype(dtype)} is off by {error:.1e} (relative), returned as {result.dtype}"
    return None
