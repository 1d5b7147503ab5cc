"""Damped Newton steps for the last-layer program, by Cholesky or by conjugate gradients, in float64.

    direction  p = -(l2 I + H)^-1 gradient,    H = scale^2 A^T diag(weight s (1 - s)) A,    s as in `losses.Logistic`

The direct system is equilibrated by its diagonal, so that the scales of columns do not matter to it; the one for
conjugate gradients has the same diagonal as preconditioner and is divided by l2, which makes it I plus a positive
semidefinite matrix. Along p the objective is convex: the full step is taken if its slope there is small and the
objective has not risen, else the longest step of a grid at which the objective still falls, so it never rises.
Sources: Boyd & Vandenberghe, "Convex optimization", 2004, section 9.5; Eisenstat & Walker 1996 for the accuracy of the
conjugate gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from cvxrelu.backends.base import Backend
from cvxrelu.last_layer.program import Program
from cvxrelu.numerics.conjugate_gradients import conjugate_gradients
from cvxrelu.numerics.rounding import EPS

__all__ = ["newton_step"]

CG_STEPS = 250
LINE = 2.0 ** np.concatenate([np.arange(2, -8, -1), np.arange(-8, -42, -3)])  # step lengths tried
FULL = int(np.flatnonzero(LINE == 1.0)[0])

Batches = Callable[[], Iterable[Program]]


def newton_step(
    backend: Backend,
    batches: Batches,
    theta: Float[np.ndarray, "d 1"],
    slope: Float[np.ndarray, "d 1"],
    l2: float,
    direct: bool,
) -> tuple[Float[np.ndarray, "d 1"], int]:
    """Theta after one step, never with a larger objective, and the passes over the data it took.

    `batches()` starts a pass over the rows; `slope` is the gradient at theta. `direct`: the Hessian is formed, batch by
    batch, which counts as one pass; else the rows must be a single batch.
    """
    if direct:
        p, passes = _direct_direction(backend, batches, theta, slope, l2), 1
    else:
        (program,) = batches()
        p, passes = _cg_direction(backend, program, theta, slope, l2)
    if not np.isfinite(p).all():
        return theta, passes
    return theta + _step_length(backend, batches, theta, p, l2) * p, passes + 1


def _direct_direction(backend: Backend, batches: Batches, theta: Any, slope: Any, l2: float) -> np.ndarray:
    on_device, part = backend.put(theta), backend.compile(_hessian)
    H = None
    for program in batches():
        added = part(backend, program, on_device)
        H = added if H is None else H + added
    return backend.get(backend.compile(_direct)(backend, H, backend.put(slope), backend.put(np.asarray(l2))))


def _hessian(backend: Backend, program: Program, theta: Any) -> Any:
    A, loss, scale = program[:3]
    rows = scale * array_namespace(A).sqrt(loss.hessian(scale * (A @ theta))) * A
    return rows.T @ rows


def _direct(backend: Backend, H: Any, slope: Any, l2: Any) -> Any:
    """-(H + l2 I)^-1 slope, by the inverse of the equilibrated matrix and one step of refinement."""
    xp = array_namespace(H)
    d = H.shape[0]
    identity = xp.eye(d, dtype=H.dtype)
    H = H + l2 * identity
    root = xp.sqrt(xp.sum(H * identity, axis=1))[:, None]
    # The shift keeps Cholesky alive when l2 is below the rounding of H; refinement takes most of it out again.
    inverse = backend.spd_inverse(H / root / root.T + (4.0 * EPS * d) * identity)
    p = -(inverse @ (slope / root)) / root
    return p - (inverse @ ((slope + H @ p) / root)) / root


def _cg_direction(backend: Backend, program: Program, theta: Any, slope: Any, l2: float) -> tuple[np.ndarray, int]:
    # As accurate as the gradient is small beside its two parts: the last steps then converge superlinearly.
    length = float(np.linalg.norm(slope))
    accuracy = min(0.1, math.sqrt(length / max(length + l2 * float(np.linalg.norm(theta)), 1e-300)))
    atol = np.asarray(accuracy * length)
    p, steps = backend.get(backend.compile(_truncated)(backend, program, *backend.put((theta, slope, atol))))
    return p, int(steps) + 1


def _truncated(backend: Backend, program: Program, theta: Any, slope: Any, atol: Any) -> tuple[Any, Any]:
    xp = array_namespace(program.A)
    A, loss, scale, l2, _ = program
    curvature = scale * scale * loss.hessian(scale * (A @ theta)) / l2
    diagonal = 1.0 + xp.sum(curvature * A * A, axis=0)[:, None]
    return conjugate_gradients(
        lambda v: v + A.T @ (curvature * (A @ v)),
        -slope / l2,
        xp.zeros_like(slope),
        lambda v: v / diagonal,
        atol / l2,
        CG_STEPS,
    )


def _step_length(backend: Backend, batches: Batches, theta: Any, p: Any, l2: float) -> float:
    """1, or the longest on the grid at which the objective still falls; 0 if there is none."""
    line = backend.compile(_line)
    arguments = backend.put((theta, p, LINE[None, :]))
    loss = sum(backend.get(line(backend, program, *arguments)) for program in batches())
    at, rate = float((theta * p).sum()), float((p * p).sum())
    slopes, start = loss[:-3] + l2 * (at + LINE * rate), loss[-3] + l2 * at
    rise = loss[-1] - loss[-2] + l2 * (at + 0.5 * rate)
    if abs(slopes[FULL]) <= 0.25 * abs(start) and rise <= 1e-13 * abs(loss[-2]):
        return 1.0
    falling = LINE[slopes <= 0.0]
    return float(falling.max()) if falling.size and start < 0 else 0.0


def _line(backend: Backend, program: Program, theta: Any, p: Any, lengths: Any) -> Any:
    """Of the loss along theta + s p: its derivatives at all `lengths` and at 0, then its values at 0 and 1."""
    xp = array_namespace(program.A)
    A, loss, scale = program[:3]
    a, b = scale * (A @ theta), scale * (A @ p)
    slopes = -xp.sum(loss.dual(a + lengths * b) * b, axis=0)
    others = xp.stack([-xp.sum(loss.dual(a) * b), loss.value(a), loss.value(a + b)])
    return xp.concat([slopes, others])
