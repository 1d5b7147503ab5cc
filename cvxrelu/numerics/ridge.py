"""Ridge regression with the ridge that predicts left-out rows best: what a linear model is worth on a table."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["ridge"]

RIDGES = np.logspace(-6, 3, 28)  # relative to the number of rows, of columns with variance one


def ridge(X: Float[np.ndarray, "n d"], Y: Float[np.ndarray, "n c"]) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (d, c) and constants (c,) that minimise `|Y - 1 b - X W|^2 + r |W / scale|^2`, r by leave-one-out error.

    Columns are centred, and scaled to variance one for the penalty. With the singular value decomposition U s V^T of
    what that gives, the residual of a row that was left out is its residual divided by 1 - h, with
    h = 1/n + sum_k U_k^2 s_k^2 / (s_k^2 + r)   (Allen's PRESS, 1974; Golub, Heath & Wahba, 1979).
    """
    mean, scale, goal = X.mean(axis=0), X.std(axis=0), Y.mean(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    U, s, Vt = np.linalg.svd((X - mean) / scale, full_matrices=False)
    seen = s > 1e-10 * s.max(initial=0.0)
    U, s, Vt = U[:, seen], s[seen], Vt[seen]
    along, best = U.T @ (Y - goal), (np.inf, np.zeros((X.shape[1], Y.shape[1])))
    for r in RIDGES * len(X):
        shrunk = s**2 / (s**2 + r)
        h = 1.0 / len(X) + (U**2) @ shrunk
        left_out = (Y - goal - U @ (shrunk[:, None] * along)) / np.maximum(1.0 - h, 1e-10)[:, None]
        error = float(np.mean(left_out**2))
        if error < best[0]:
            best = error, Vt.T @ ((s / (s**2 + r))[:, None] * along) / scale[:, None]
    return best[1], goal - mean @ best[1]
